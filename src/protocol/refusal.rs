//! Refusals of a server, classified by their meaning for the client.

/// Refusal of a server, with the server's own text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No peer with the requested id is registered.
    #[error("{0}")]
    PeerNotFound(String),
    /// The requested peer is in a call or in a room.
    #[error("{0}")]
    PeerBusy(String),
    /// The id is held by another client, or the server does not accept it.
    #[error("{0}")]
    IdTaken(String),
    /// Another refusal, such as a room that is full.
    #[error("{0}")]
    Other(String),
}
