//! The reasons why a server does not start.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use super::webhook::WebhookError;
use crate::base::random::NoRandomness;

/// The minimum length of a secret, in bytes: the strength of a token's signature (RFC 7518, 3.2).
pub(super) const LEAST_SECRET: usize = 32;

/// A reason why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address is in use, or not one of this machine.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// A certificate or key file cannot be read.
    #[error(transparent)]
    File(#[from] crate::tls::FileError),
    /// The certificate or its key cannot be used or created.
    #[error("the certificate in {0} cannot be used: {1}")]
    Certificate(String, String),
    /// A secret is so short that it could be guessed.
    #[error("the secret {0} has fewer than {LEAST_SECRET} bytes and could be guessed")]
    ShortSecret(SecretKind),
    /// Public keys verify tokens, but no audience says which tokens are for this server: the issuer signs tokens for
    /// others, too.
    #[error("the issuer of the keys signs tokens for others, too: the audience of this server is wanted")]
    NoAudience,
    /// The file of keys cannot be read; contains the reason.
    #[error("{0}")]
    TokenKeys(String),
    /// Tokens cannot be verified by keys and by a back end at the same time.
    #[error("tokens are verified either with keys or by the back end that is asked: not both")]
    TwoVerifiers,
    /// Tokens are to end connections, but clients need none.
    #[error(
        "the end of a token is to end a connection, but nothing verifies tokens: keys or a back end are wanted"
    )]
    NothingExpires,
    /// The settings of webhooks do not fit together.
    #[error("webhooks: {0}")]
    Webhooks(#[from] WebhookError),
    /// An entry of [`Config::allowed_hosts`] is not a host name.
    ///
    /// [`Config::allowed_hosts`]: super::Config::allowed_hosts
    #[error("'{0}' is not a host name")]
    AllowedHost(String),
    /// A reload cannot change the address, nor whether plain connections are served.
    #[error("the address to listen on, and whether the server is plain, can be changed by a restart only")]
    NeedsRestart,
    /// The engine cannot be used.
    #[cfg(feature = "engine")]
    #[error(transparent)]
    Engine(#[from] crate::engine::EngineError),
    /// The operating system returned no random bytes, which are needed to store a secret.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// A secret in the settings of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretKind {
    /// The key that signs tokens.
    Token,
    /// The secret of the API for back ends.
    Api,
}

impl fmt::Display for SecretKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token => "that signs tokens",
            Self::Api => "of the API",
        })
    }
}
