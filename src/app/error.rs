//! Errors that end a client.

use crate::media::MediaError;
use crate::session::EndReason;
use crate::signalling::ConnectError;

/// Why a client ends, other than in order.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server cannot be reached, refused the client or dismissed it.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The peer is not there, or in another call.
    #[error("{0}")]
    Unavailable(String),
    /// The call failed.
    #[error("the call failed: {0}")]
    Failed(EndReason),
    /// Somebody sits between us and the peer.
    #[error("the call was ended: {0}")]
    Forged(EndReason),
    /// The server's protocol has none.
    #[error("a server of pools (ssp) knows no calls of two: `roomtone join POOL` enters a pool")]
    NoCalls,
    /// The media layer failed.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// A signal ended the program.
    #[error("interrupted")]
    Interrupted,
}
