//! Why there is no connection to a server.

use std::time::Duration;

use super::reconnect::Cause;
use crate::tls::FileError;

/// Why there is no connection to a server. The first field of most is the server's address without secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Not a URL of a WebSocket.
    #[error(
        "'{0}' is no server's address: it looks like wss://example.org:8443 or ws://127.0.0.1:8443, and that of a server of pools like ssp+wss://example.org/ssp, or ssp+https://example.org for one behind socket.io"
    )]
    Url(String),
    /// A file of certificates or keys cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Nothing answers there.
    #[error("the server {0} is not reachable: {1}")]
    Unreachable(String, String),
    /// The HTTP proxy, which the environment names, leads nowhere.
    #[error("the server {0} is not reachable through the proxy {1}")]
    Proxy(String, String),
    /// Its certificate is not one that is trusted.
    #[error("the certificate of {0} is not trusted: {1}")]
    Certificate(String, String),
    /// TLS failed in another way.
    #[error("no TLS with {0}: {1}")]
    Tls(String, String),
    /// It answers, but speaks no WebSocket.
    #[error("{0} does not speak WebSocket: {1}")]
    NotWebSocket(String, String),
    /// It has no time for us now, and may say for how long.
    #[error("the server {server} cannot take us now: it answered {status}")]
    Overloaded {
        /// The server's address.
        server: String,
        /// The status, as it was answered.
        status: String,
        /// What `Retry-After` says (RFC 9110, 10.2.3).
        retry_after: Option<Duration>,
    },
    /// It wants a token, or another one (--token), or forbids it for another reason.
    #[error("{0} does not let us in: {1}")]
    Denied(String, String),
    /// Our token has ended, or was revoked (RFC 6750, 3.1: `invalid_token`).
    #[error("{0} does not let us in: {1}")]
    TokenEnded(String, String),
    /// It is a server of something else.
    #[error("{0} speaks another protocol at this path: {1}")]
    OtherProtocol(String, String),
    /// It took the connection and said nothing.
    #[error("the server {0} does not answer: {1}")]
    Silent(String, String),
    /// The connection broke.
    #[error("the connection to the server broke: {0}")]
    Broken(String),
}

impl ConnectError {
    /// Returns the cause, by which it is decided whether to try again.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Url(_) | Self::File(_) => Cause::Settings,
            Self::Unreachable(..) => Cause::Unreachable,
            Self::Proxy(..) => Cause::Proxy,
            Self::Certificate(..) => Cause::Certificate,
            Self::Tls(..) => Cause::Tls,
            Self::NotWebSocket(..) => Cause::NotWebSocket,
            Self::Overloaded { .. } => Cause::Overloaded,
            Self::Denied(..) => Cause::Denied,
            Self::TokenEnded(..) => Cause::TokenEnded,
            Self::OtherProtocol(..) => Cause::OtherProtocol,
            Self::Silent(..) => Cause::Silent,
            Self::Broken(_) => Cause::Closed,
        }
    }

    /// Returns how long the server wants not to be asked again, where it says so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
