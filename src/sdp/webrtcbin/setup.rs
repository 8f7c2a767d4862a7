//! The DTLS role in SDP (`a=setup`, RFC 8842), which must not change while a connection lives.

use crate::sdp::{Sdp, Section};

/// A role named by `a=setup`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setup {
    /// DTLS client.
    Active,
    /// DTLS server.
    Passive,
}

impl Setup {
    fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
        }
    }

    /// Returns the other side's role.
    pub(super) fn opposite(self) -> Self {
        match self {
            Self::Active => Self::Passive,
            Self::Passive => Self::Active,
        }
    }

    /// Returns the role in an answer: that of its first m-line that names a role and is not rejected.
    pub(super) fn of_answer(answer: &Sdp) -> Option<Self> {
        answer.media.iter().filter(|media| !media.is_rejected()).find_map(|media| {
            match media.attribute("setup") {
                Some("active") => Some(Self::Active),
                Some("passive") => Some(Self::Passive),
                _ => None,
            }
        })
    }

    /// Writes this role into every m-line that names one. webrtcbin answers `actpass` with `active` even if it has been the
    /// DTLS server of this connection from the start.
    pub(super) fn write(self, sdp: &mut Sdp) {
        set(sdp, self.as_str());
    }

    /// Writes `actpass`, with which an offer leaves the role to the answer (RFC 8842, 5.2). webrtcbin names a role in its
    /// later offers, and not always the same on all m-lines.
    pub(super) fn leave_open(offer: &mut Sdp) {
        set(offer, "actpass");
    }
}

fn set(sdp: &mut Sdp, role: &str) {
    for media in &mut sdp.media {
        if media.attribute("setup").is_some() {
            media.set_attribute("setup", role);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_is_read_and_written() {
        let answer = "v=0\r\nm=audio 9 X 1\r\na=setup:active\r\nm=video 9 X 1\r\na=setup:active\r\n";
        assert_eq!(Setup::of_answer(&Sdp::parse(answer).unwrap()), Some(Setup::Active));
        let mut kept = Sdp::parse(answer).unwrap();
        Setup::Active.opposite().write(&mut kept);
        assert_eq!(kept.to_string(), answer.replace("active", "passive"));
        let mut offer = Sdp::parse(answer).unwrap();
        Setup::leave_open(&mut offer);
        assert_eq!(offer.to_string(), answer.replace("active", "actpass"));
        assert_eq!(Setup::of_answer(&Sdp::parse("v=0\nm=audio 9 X 1\n").unwrap()), None);
    }
}
