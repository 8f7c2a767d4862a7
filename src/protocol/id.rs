//! Ids of peers and rooms: bounded strings without white space and without invisible characters.

use std::fmt;

use crate::base::text::is_invisible;

/// Maximum length of the id of a peer or a room, in bytes.
pub const MAX_ID: usize = 256;

/// Error of a text that is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// The text is empty.
    #[error("an id may not be empty")]
    Empty,
    /// The text is longer than [`MAX_ID`].
    #[error("an id may hold at most {MAX_ID} bytes")]
    TooLong,
    /// The text contains white space or control characters.
    #[error("an id may hold no white space and no control characters")]
    BadCharacter,
    /// The text contains an invisible character (zero-width, direction mark): two ids that differ only by such a
    /// character look the same.
    #[error("an id may not hold the invisible character U+{:04X}", u32::from(*.0))]
    Invisible(char),
    /// `session` is not allowed as the id of a room.
    #[error("a room may not be called 'session'")]
    Reserved,
}

/// Checks an id of another server, which may contain invisible characters.
fn check_loosely(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        Err(IdError::Empty)
    } else if text.len() > MAX_ID {
        Err(IdError::TooLong)
    } else if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        Err(IdError::BadCharacter)
    } else {
        Ok(())
    }
}

/// Checks an id of roomtone's server.
fn check(text: &str) -> Result<(), IdError> {
    check_loosely(text)?;
    match text.chars().find(|c| is_invisible(*c)) {
        Some(c) => Err(IdError::Invisible(c)),
        None => Ok(()),
    }
}

/// Percent-encodes the characters of a name that an id may not contain, and percent signs.
fn encode(name: &str) -> String {
    let mut id = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_whitespace() || c.is_control() || is_invisible(c) || c == '%' {
            c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| id += &format!("%{byte:02X}"));
        } else {
            id.push(c);
        }
    }
    id
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Returns the id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl $name {
            /// Parses an id that another server assigned or accepted, which may contain invisible characters. Ids that
            /// differ only by such characters stay different, and such characters are never printed raw.
            pub fn from_server(text: &str) -> Result<Self, IdError> {
                match text.parse() {
                    Err(IdError::Invisible(_)) => Ok(Self(text.into())),
                    parsed => parsed,
                }
            }

            /// Converts a name of another protocol, which may contain any character: a valid id stays as it is,
            /// others are percent-encoded, and so is a valid id that is the encoding of another name.
            pub fn from_foreign(text: &str) -> Result<Self, IdError> {
                match text.parse::<Self>() {
                    Ok(id) if id.to_foreign() == text => Ok(id),
                    Ok(_) | Err(IdError::BadCharacter | IdError::Invisible(_)) => encode(text).parse(),
                    Err(error) => Err(error),
                }
            }

            /// Returns the name of the other protocol: removes the percent-encoding of `from_foreign`.
            pub fn to_foreign(&self) -> String {
                let decoded = percent_encoding::percent_decode_str(&self.0).decode_utf8_lossy();
                // Another id may contain percent signs, too: `%41` is not the encoding of a name, as `A` needs none.
                match *decoded != *self.0 && Self::from_foreign(&decoded).as_ref() == Ok(self) {
                    true => decoded.into_owned(),
                    false => self.0.to_string(),
                }
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let check: fn(&str) -> Result<(), IdError> = $check;
                check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text: std::borrow::Cow<'_, str> = serde::Deserialize::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

id!(
    /// Id of a peer on its server.
    PeerId,
    check
);

id!(
    /// Name of a participant, whose media our side receives. A participant with a connection of its own has the id of
    /// its peer; a server that forwards media carries many participants over one connection.
    ParticipantId,
    check
);

impl From<&PeerId> for ParticipantId {
    fn from(peer: &PeerId) -> Self {
        Self(peer.0.clone())
    }
}

impl PeerId {
    /// Returns the id of a caller that the server does not name.
    pub fn caller() -> Self {
        Self("caller".into())
    }
}

id!(
    /// Id of a room.
    RoomId,
    |text| match text {
        "session" => Err(IdError::Reserved),
        _ => check(text),
    }
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_are_bounded_and_contain_no_white_space() {
        assert_eq!("".parse::<PeerId>(), Err(IdError::Empty));
        assert_eq!("a b".parse::<PeerId>(), Err(IdError::BadCharacter));
        assert_eq!("a\u{1b}".parse::<PeerId>(), Err(IdError::BadCharacter));
        assert_eq!("x".repeat(257).parse::<PeerId>(), Err(IdError::TooLong));
        assert_eq!("session".parse::<RoomId>(), Err(IdError::Reserved));
        assert_eq!("a\u{200b}b".parse::<PeerId>(), Err(IdError::Invisible('\u{200b}')));
        assert_eq!("a\u{202e}b".parse::<RoomId>(), Err(IdError::Invisible('\u{202e}')));
        assert_eq!(
            IdError::Invisible('\u{200b}').to_string(),
            "an id may not hold the invisible character U+200B"
        );
        assert_eq!("späti-7".parse::<PeerId>().map(|id| id.to_string()), Ok("späti-7".into()));
    }

    #[test]
    fn ids_of_other_servers_may_contain_invisible_characters() {
        let id = |text: &str| PeerId::from_server(text);
        assert_eq!(id("a\u{200b}").unwrap().as_str(), "a\u{200b}");
        assert_ne!(id("a\u{200b}"), id("a"));
        assert_eq!(id("a b"), Err(IdError::BadCharacter));
        assert_eq!(RoomId::from_server("session"), Err(IdError::Reserved));
    }

    #[test]
    fn valid_names_of_other_protocols_stay_unchanged() {
        for plain in ["ann", "100%", "%41", "%", "%25", "späti"] {
            let id = PeerId::from_foreign(plain).unwrap();
            assert_eq!((id.as_str(), &*id.to_foreign()), (plain, plain));
        }
        for odd in ["a b", "1 %", "\n", "\u{a0}x", "a\u{200b}", "\u{202e}%"] {
            let id = PeerId::from_foreign(odd).unwrap();
            assert!(id.as_str().parse() == Ok(id.clone()) && id.to_foreign() == odd, "{id}");
        }
        assert_eq!(PeerId::from_foreign(""), Err(IdError::Empty));
        assert_eq!(PeerId::from_foreign(&" ".repeat(200)), Err(IdError::TooLong));
    }

    proptest! {
        /// Every name has an id of its own, which gives the name back: also a name that looks like an encoded one.
        #[test]
        fn every_name_of_another_protocol_is_found_again(name in "(a|%|2|0|5|4|1| |\u{200b}|\\PC){1,24}") {
            prop_assert_eq!(RoomId::from_foreign(&name).map(|id| id.to_foreign()), Ok(name));
        }
    }
}
