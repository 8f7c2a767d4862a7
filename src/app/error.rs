//! Errors that end a client.

use crate::media::MediaError;
use crate::session::EndReason;
use crate::signalling::ConnectError;

/// Error that ends a client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server cannot be reached, refused the client or dismissed it.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The peer is not registered, or is in another call.
    #[error("{0}")]
    Unavailable(String),
    /// The call failed.
    #[error("the call failed: {0}")]
    Failed(EndReason),
    /// The peer's certificate is not the one in its description: a third party intercepts the call.
    #[error("the call was ended: {0}")]
    Forged(EndReason),
    /// The server's protocol has no 1-1 calls.
    #[error("a server of pools (ssp) knows no calls of two: `roomtone join POOL` enters a pool")]
    NoCalls,
    /// The media layer failed.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// A signal ended the program.
    #[error("interrupted")]
    Interrupted,
}
