//! ICE credentials of our side (RFC 8839, 5.4). webrtcbin makes them for its first description, repeats them in each
//! later one, and gives libnice those of each description that it applies: a description with other credentials
//! restarts ICE.

use crate::sdp::{Sdp, SdpError, Section};

/// The credentials of one ICE session. They are the same in all m-lines, which share one transport.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User fragment, of 4 to 256 characters.
    pub ufrag: String,
    /// Password, of 22 to 256 characters.
    pub password: String,
}

impl Credentials {
    /// Returns the credentials in a description: those of its first m-line that has any.
    pub fn of(sdp: &Sdp) -> Option<Self> {
        sdp.media.iter().find_map(|media| {
            let (ufrag, password) = (media.attribute("ice-ufrag")?, media.attribute("ice-pwd")?);
            Some(Self { ufrag: ufrag.to_owned(), password: password.to_owned() })
        })
    }

    /// Replaces the credentials in each m-line that has some.
    ///
    /// # Errors
    ///
    /// Those of [`Sdp::parse`].
    pub fn write_into(&self, sdp: &str) -> Result<String, SdpError> {
        let mut sdp = Sdp::parse(sdp)?;
        for media in sdp.media.iter_mut().filter(|media| media.attribute("ice-ufrag").is_some()) {
            media.set_attribute("ice-ufrag", &self.ufrag);
            media.set_attribute("ice-pwd", &self.password);
        }
        Ok(sdp.to_string())
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
        let written = fresh.write_into(&of("old", "known")).unwrap();
        assert_eq!(written, of("fresh", "secret"));
        assert_eq!(Credentials::of(&Sdp::parse(&written).unwrap()), Some(fresh.clone()));
        assert_eq!(Credentials::of(&Sdp::parse(&format!("v=0\r\n{rejected}")).unwrap()), None);
        assert!(!format!("{fresh:?}").contains("secret"));
    }
}
