//! Errors of a connection attempt to a server.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::time::Duration;

use super::reconnect::Cause;
use crate::protocol::Refusal;
use crate::protocol::whip::Role;
use crate::tls::FileError;

/// Close codes (RFC 6455, 7.4.1): an orderly end, a violation of the protocol, a frame without a code, no frame at all,
/// and a dismissal by the server.
pub(super) const NORMAL: u16 = 1000;
pub(super) const PROTOCOL_ERROR: u16 = 1002;
pub(super) const NO_STATUS: u16 = 1005;
pub(super) const ABNORMAL: u16 = 1006;
pub(super) const POLICY: u16 = 1008;

/// The longest text of a server that is quoted in errors, in characters.
const MAX_WORDS: usize = 200;

/// Returns the first 200 characters of a server's text.
pub(super) fn brief(text: &str) -> String {
    text.chars().take(MAX_WORDS).collect()
}

/// An error of the connection to a server. The first field of most variants is the server's address without
/// secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The text is not the URL of a WebSocket.
    #[error(
        "'{0}' is no server's address: it looks like wss://example.org:8443 (or example.org:8443, which means the same), ws://127.0.0.1:8443 without TLS, ssp+wss://example.org/ssp for a server of pools, or ssp+https://example.org for one behind socket.io"
    )]
    Url(String),
    /// The text is not the URL of an endpoint of WHIP (for publishers) or WHEP (for players).
    #[error("'{0}' is not the URL of a {protocol} endpoint: it looks like https://example.org/live/{path}", protocol = .1.protocol(), path = .1.protocol().to_lowercase())]
    StreamUrl(String, Role),
    /// A file of certificates or keys cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The TCP connection failed.
    #[error("the server {0} is not reachable: {1}")]
    Unreachable(String, String),
    /// The HTTP proxy named by the environment does not open a tunnel.
    #[error("the server {0} is not reachable through the proxy {1}")]
    Proxy(String, String),
    /// The server's certificate is not trusted.
    #[error("the certificate of {0} is not trusted: {1}")]
    Certificate(String, String),
    /// The server's certificate was issued by nobody whom the client trusts.
    #[error("the certificate of {0} is not trusted: {1}")]
    Issuer(String, String),
    /// The server requires a certificate of the client, which has none.
    #[error("no TLS with {0}: it requires a certificate of this client ({1})")]
    ClientCertificate(String, String),
    /// TLS failed in another way.
    #[error("no TLS with {0}: {1}")]
    Tls(String, String),
    /// The server answers, but does not accept a WebSocket.
    #[error("{0} does not speak WebSocket: {1}")]
    NotWebSocket(String, String),
    /// The server is overloaded or restarting, and may say how long to wait.
    #[error("the server {server} cannot take us now: it answered {status}")]
    Overloaded {
        /// The server's address.
        server: String,
        /// The HTTP status line of the response.
        status: String,
        /// The value of `Retry-After` (RFC 9110, 10.2.3).
        retry_after: Option<Duration>,
    },
    /// The server wants a token or a different token (--token), or denies access for another reason.
    #[error("{0} does not let us in: {1}")]
    Denied(String, String),
    /// The server requires a token, or another one.
    #[error("{0} does not let us in: {1}")]
    NoToken(String, String),
    /// The client's token has expired or was revoked (RFC 6750, 3.1: `invalid_token`).
    #[error("{0} does not let us in: {1}")]
    TokenEnded(String, String),
    /// The server speaks another protocol.
    #[error("{0} speaks another protocol at this path: {1}")]
    OtherProtocol(String, String),
    /// The WHIP or WHEP endpoint sends no usable answer to the offer.
    #[error("{0} gives no answer to the offer: {1}")]
    NoAnswer(String, String),
    /// The server accepted the connection and sent nothing.
    #[error("the server {0} does not answer: {1}")]
    Silent(String, String),
    /// The server refused the registration, the call or the room.
    #[error("the server refused: {0}")]
    Refused(Refusal),
    /// The server dismissed the client for good: the client does not register again.
    #[error("the server refused: {0}")]
    Dismissed(String),
    /// The connection ended unexpectedly.
    #[error("the connection to the server broke: {0}")]
    Broken(String),
}

impl ConnectError {
    /// Returns the cause of the error, from which [`verdict`](super::reconnect::verdict) decides about another attempt.
    pub fn cause(&self) -> Cause {
        match self {
            Self::Url(_) | Self::StreamUrl(..) | Self::File(_) => Cause::Settings,
            Self::Unreachable(..) => Cause::Unreachable,
            Self::Proxy(..) => Cause::Proxy,
            Self::Certificate(..) | Self::Issuer(..) => Cause::Certificate,
            Self::Tls(..) | Self::ClientCertificate(..) => Cause::Tls,
            Self::NotWebSocket(..) => Cause::NotWebSocket,
            Self::Overloaded { .. } => Cause::Overloaded,
            Self::Denied(..) | Self::NoToken(..) => Cause::Denied,
            Self::TokenEnded(..) => Cause::TokenEnded,
            Self::OtherProtocol(..) | Self::NoAnswer(..) => Cause::OtherProtocol,
            Self::Silent(..) => Cause::Silent,
            Self::Refused(_) => Cause::Refused,
            Self::Dismissed(_) => Cause::Dismissed,
            Self::Broken(_) => Cause::Closed,
        }
    }

    /// Returns the error for a WebSocket that the server closed before the client was registered.
    pub(super) fn closed_early(server: &str, code: u16, reason: &str) -> Self {
        match (code, reason) {
            (POLICY, reason) => Self::Dismissed(reason.to_owned()),
            (ABNORMAL, reason) | (_, reason @ "") => {
                Self::Broken(format!("{server} closed it before it took our registration ({code} {reason})"))
            }
            (_, reason) => Self::Refused(Refusal::Other(reason.to_owned())),
        }
    }

    /// Returns the time the server asks clients to wait before the next attempt, if any.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
