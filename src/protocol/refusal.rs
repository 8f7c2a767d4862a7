//! Refusals by a server, by their meaning for the client.

/// A refusal by a server, with the server's own words.
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
    /// The words have no meaning known to the client: the room is full.
    #[error("{0}")]
    Other(String),
}
