//! ICE credentials of our side (RFC 8839, 5.4). webrtcbin makes them for its first description, repeats them in each
//! later one, and gives libnice those of each description that it applies: a description with other credentials
//! restarts ICE.

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
}
