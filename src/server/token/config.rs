//! The settings of the verification of tokens.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

use crate::base::net::{is_protected, without_secrets};
use crate::protocol::Secret;

/// The settings of the verification of tokens. Without secrets and keys, clients need no token.
#[derive(Debug, Clone, Default)]
pub struct TokenConfig {
    /// Secrets of 32 bytes at least that sign tokens with HS256; each of them is valid, so that a new one can replace
    /// an old one.
    pub secrets: Vec<Secret>,
    /// The place of public keys that verify tokens signed with RS256, ES256 or EdDSA. Requires `audience`.
    pub keys: Option<KeySource>,
    /// The audiences of this server: a token has to name one of them (`aud`). Empty to require none.
    pub audience: Vec<String>,
    /// The accepted issuers of tokens (`iss`). Empty to accept all.
    pub issuer: Vec<String>,
    /// Whether a connection ends with its token. Otherwise a token counts when a client connects.
    pub enforce_expiry: bool,
}

impl TokenConfig {
    /// Returns whether clients need a token.
    pub fn is_required(&self) -> bool {
        !self.secrets.is_empty() || self.keys.is_some()
    }
}

/// The place of a JSON Web Key Set (RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file.
    File(PathBuf),
    /// An address: `https`, or `http` on this machine.
    Url(Url),
}

/// The reason why a text is no place of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySourceError {
    /// The text is no URL.
    #[error("it is no URL: {0}")]
    Url(url::ParseError),
    /// Somebody on the way could replace the keys.
    #[error(
        "an https:// address is wanted: over http://, which only 127.0.0.1 may use, keys can be replaced on the way"
    )]
    Plain,
}

impl FromStr for KeySource {
    type Err = KeySourceError;

    fn from_str(text: &str) -> Result<Self, KeySourceError> {
        if !text.contains("://") {
            return Ok(Self::File(text.into()));
        }
        let url = Url::parse(text).map_err(KeySourceError::Url)?;
        if is_protected(&url) { Ok(Self::Url(url)) } else { Err(KeySourceError::Plain) }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Url(url) => f.write_str(&without_secrets(url)),
        }
    }
}
