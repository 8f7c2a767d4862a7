//! ICE credentials in descriptions (RFC 8839, 5.4). webrtcbin knows those of the first exchange, and repeats its own in
//! each description that it makes; the credentials of an ICE restart are written into descriptions for the peer alone.

use crate::sdp::{Sdp, Section};

/// The credentials of one ICE session. They are the same in all m-lines, which share one transport.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User fragment, of 4 to 256 characters.
    pub ufrag: String,
    /// Password, of 22 to 256 characters.
    pub password: String,
}

impl Credentials {
    /// Returns the credentials in a description: those of its first active m-line that has any.
    pub fn of(sdp: &Sdp) -> Option<Self> {
        sdp.media.iter().filter(|media| !media.is_rejected()).find_map(|media| {
            let (ufrag, password) = (media.attribute("ice-ufrag")?, media.attribute("ice-pwd")?);
            Some(Self { ufrag: ufrag.to_owned(), password: password.to_owned() })
        })
    }

    /// Replaces the credentials in each m-line that has some.
    pub fn write(&self, sdp: &mut Sdp) {
        for media in sdp.media.iter_mut().filter(|media| media.attribute("ice-ufrag").is_some()) {
            media.set_attribute("ice-ufrag", &self.ufrag);
            media.set_attribute("ice-pwd", &self.password);
        }
    }
}

/// Returns the candidates of a description's first m-line that has some: all m-lines share its transport.
pub fn candidates(sdp: &Sdp) -> Vec<String> {
    let first = sdp.media.iter().find(|media| media.attribute("candidate").is_some());
    let values = first.into_iter().flat_map(|media| media.attributes("candidate"));
    values.map(|value| format!("candidate:{value}")).collect()
}

/// Removes all candidates from a description, and returns its [`candidates`].
pub fn take_candidates(sdp: &mut Sdp) -> Vec<String> {
    let candidates = candidates(sdp);
    for media in &mut sdp.media {
        media.lines.retain(|line| !matches!(line.as_attribute(), Some(("candidate", _))));
    }
    candidates
}

impl std::fmt::Debug for Credentials {
    // The password is a key: it is not printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.ufrag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_m_lines_get_the_credentials_and_nothing_else_changes() {
        let rejected = "m=text 0 X 1\r\na=mid:2\r\n";
        let line = |kind: &str, ufrag: &str, password: &str| {
            format!("m={kind} 9 X 1\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{password}\r\na=setup:active\r\n")
        };
        let of = |ufrag: &str, password: &str| {
            format!("v=0\r\n{}{rejected}{}", line("audio", ufrag, password), line("video", ufrag, password))
        };
        let fresh = Credentials { ufrag: "fresh".into(), password: "secret".into() };
        let mut sdp = Sdp::parse(&of("old", "known")).unwrap();
        fresh.write(&mut sdp);
        assert_eq!((sdp.to_string(), Credentials::of(&sdp)), (of("fresh", "secret"), Some(fresh.clone())));
        assert_eq!(Credentials::of(&Sdp::parse(&format!("v=0\r\n{rejected}")).unwrap()), None);
        assert!(!format!("{fresh:?}").contains("secret"));
    }

    #[test]
    fn candidates_are_taken_from_all_m_lines_and_returned_once() {
        let lines = "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\na=mid:0\r\n";
        let mut sdp =
            Sdp::parse(&format!("v=0\r\nm=audio 9 X 1\r\n{lines}m=video 9 X 1\r\n{lines}")).unwrap();
        assert_eq!(take_candidates(&mut sdp), ["candidate:1 1 udp 1 192.0.2.1 9 typ host"]);
        assert_eq!(sdp.to_string(), "v=0\r\nm=audio 9 X 1\r\na=mid:0\r\nm=video 9 X 1\r\na=mid:0\r\n");
    }
}
