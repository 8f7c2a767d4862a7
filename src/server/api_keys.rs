//! The keys of back ends: their names, their scopes, and the SHA-256 of each key.
//!
//! Pure: no clock, sockets, files or random numbers.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;

/// The most keys of one file.
const MAX_KEYS: usize = 1000;
/// The length of a SHA-256, in bytes.
const DIGEST: usize = 32;

/// The orders that a key permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Lists rooms and peers.
    Read,
    /// Describes peers.
    Describe,
    /// Removes and blocks peers, asks them to mute, and closes rooms.
    Moderate,
    /// Makes tokens.
    Tokens,
    /// Reads the state of the server, and lets it drain.
    Operate,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Describe => "describe",
            Self::Moderate => "moderate",
            Self::Tokens => "tokens",
            Self::Operate => "operate",
        })
    }
}

/// A key without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiKey {
    /// The name, which the log and the rate limit use.
    pub(super) name: String,
    scopes: BTreeSet<Scope>,
    digest: [u8; DIGEST],
}

/// Several keys; the default has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ApiKeys(Vec<ApiKey>);

/// The reason why a text is no list of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
    /// The text is not TOML of that shape.
    #[error("{0}")]
    Shape(String),
    /// The digest of a key is malformed.
    #[error("sha256 of the key '{0}' has to be 64 hexadecimal digits: the SHA-256 of the key")]
    Digest(String),
    /// A key has no name, or a name with an unusual character.
    #[error("the name of a key has 1 to 64 letters, digits, '.', '-' and '_'")]
    Name,
    /// A key permits nothing.
    #[error("the key '{0}' needs a scope: read, describe, moderate, tokens or operate")]
    NoScope(String),
    /// The list is too long.
    #[error("more than {MAX_KEYS} keys")]
    TooMany,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    key: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    sha256: String,
    scopes: BTreeSet<Scope>,
}

impl ApiKeys {
    /// Reads a list of keys: TOML with a table `[[key]]` for each. Several keys may have the same name, so that a new one
    /// can replace an old one.
    ///
    /// # Errors
    ///
    /// [`ApiKeyError`] if the text has another shape.
    pub fn parse(text: &str) -> Result<Self, ApiKeyError> {
        let file: File =
            toml::from_str(text).map_err(|error| ApiKeyError::Shape(error.message().to_owned()))?;
        if file.key.len() > MAX_KEYS {
            return Err(ApiKeyError::TooMany);
        }
        file.key.into_iter().map(key).collect::<Result<_, _>>().map(Self)
    }

    /// Returns whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the key with this secret.
    pub(super) fn find(&self, secret: &str) -> Option<&ApiKey> {
        let digest = ring::digest::digest(&ring::digest::SHA256, secret.as_bytes());
        self.0.iter().find(|key| key.digest == digest.as_ref())
    }
}

fn key(entry: Entry) -> Result<ApiKey, ApiKeyError> {
    let Entry { name, sha256, scopes } = entry;
    let is_usual = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(is_usual) {
        return Err(ApiKeyError::Name);
    }
    if scopes.is_empty() {
        return Err(ApiKeyError::NoScope(name));
    }
    match digest(&sha256) {
        Some(digest) => Ok(ApiKey { name, scopes, digest }),
        None => Err(ApiKeyError::Digest(name)),
    }
}

fn digest(text: &str) -> Option<[u8; DIGEST]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * DIGEST || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut digest = [0; DIGEST];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(digest)
}

impl ApiKey {
    /// Returns whether the key permits orders of this scope.
    pub(super) fn allows(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // printf 'a key of this test' | sha256sum
    const KEY: &str = "a key of this test";

    fn sha256() -> String {
        let digest = ring::digest::digest(&ring::digest::SHA256, KEY.as_bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn entry(name: &str, sha256: &str, scopes: &str) -> String {
        format!("[[key]]\nname = \"{name}\"\nsha256 = \"{sha256}\"\nscopes = {scopes}\n")
    }

    #[test]
    fn a_key_is_found_by_its_secret_alone() {
        let text = entry("portal", &sha256().to_uppercase(), "[\"read\", \"moderate\"]")
            + &entry("portal", &"0".repeat(64), "[\"tokens\"]");
        let keys = ApiKeys::parse(&text).unwrap();
        let key = keys.find(KEY).unwrap();
        assert_eq!(key.name, "portal");
        assert!(key.allows(Scope::Read) && key.allows(Scope::Moderate) && !key.allows(Scope::Tokens));
        for other in ["", "a key of this tesT", &sha256(), "portal"] {
            assert_eq!(keys.find(other), None, "{other}");
        }
    }

    #[test]
    fn malformed_lists_are_refused() {
        let wrong = |text: &str| ApiKeys::parse(text).unwrap_err().to_string();
        let name = |name: &str| entry(name, &sha256(), "[\"read\"]");
        for bad in ["", "a b", "ü", &"x".repeat(65)] {
            assert_eq!(wrong(&name(bad)), ApiKeyError::Name.to_string(), "{bad}");
        }
        for bad in ["", "12", &"g".repeat(64), &"0".repeat(63), &"ü".repeat(32)] {
            assert!(wrong(&entry("portal", bad, "[\"read\"]")).contains("64 hexadecimal digits"), "{bad}");
        }
        assert!(wrong(&entry("portal", &sha256(), "[]")).contains("needs a scope"));
        assert!(wrong(&entry("portal", &sha256(), "[\"all\"]")).contains("unknown variant `all`"));
        assert!(wrong(&(name("portal") + "secret = \"x\"\n")).contains("unknown field `secret`"));
        assert!(wrong("nonsense").len() > 5 && wrong("").contains("key"));
        assert_eq!(wrong(&name("portal").repeat(MAX_KEYS + 1)), ApiKeyError::TooMany.to_string());
    }
}
