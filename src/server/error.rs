//! The reasons why a server does not start.

use std::io;
use std::net::SocketAddr;

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
    #[error(
        "the secret {0} is too short: {LEAST_SECRET} bytes at least, so that it cannot be guessed; \
         'openssl rand -hex 32' makes one"
    )]
    ShortSecret(&'static str),
    /// An entry of [`Config::allowed_hosts`] is not a host name.
    #[error("'{0}' is no host name: --allow-host takes a name alone, as in --allow-host call.example.org")]
    AllowedHost(String),
    /// The operating system returned no random bytes, which are needed to store a secret.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}
