//! Reasons for which the hub refuses requests and closes connections.

use serde::{Deserialize, Serialize};

use crate::protocol::{PeerId, RoomId};

/// The reason why a request fails. The texts are part of the protocols.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No registered peer has that name.
    #[error("peer '{0}' not found")]
    NotFound(PeerId),
    /// The peer is in a call or a room.
    #[error("peer '{0}' busy")]
    Busy(PeerId),
    /// The peer is not in the sender's room.
    #[error("peer '{0}' is not in the room")]
    NotInRoom(PeerId),
    /// The command is not allowed in a room.
    #[error("invalid msg, already in room")]
    InRoom,
    /// The command is allowed in a room only.
    #[error("invalid msg, not in a room")]
    Outside,
    /// The connection that holds the id is alive.
    #[error("the id is in use")]
    IdTaken,
    /// The connection is registered already.
    #[error("invalid msg, already registered")]
    Registered,
    /// Relaying requires a call.
    #[error("invalid msg, not in a session")]
    NoCall,
    /// The connection's permissions exclude this room, or calls.
    #[error("not for you: {0}")]
    NotGranted(&'static str),
    /// The peer has not read enough of the sender's earlier messages.
    #[error("peer '{0}' does not read what it is sent: this message is dropped")]
    Unread(PeerId),
    /// The server, or the owner of the address, has the most rooms already.
    #[error("no room for more rooms on this server")]
    TooManyRooms,
    /// The room has the most peers already.
    #[error("room '{0}' is full")]
    RoomFull(RoomId),
    /// The server cannot reach the other servers, and the request has waited for too long.
    #[error("the servers cannot reach each other: try again later")]
    Unavailable,
}

/// The reason why the hub closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The requested name has a holder that is alive.
    IdTaken,
    /// The connection gave no sign of life, and its name went to another connection.
    Replaced,
    /// The other side of the call has ended.
    CallOver,
    /// The connection's permissions exclude the requested name.
    NotGranted,
    /// The back end removed the peer.
    Removed,
    /// A moderator of the room removed the peer.
    RemovedByModerator,
    /// The back end closed the room.
    RoomClosed,
    /// The server was cut off for so long that others count the peer as gone.
    Expired,
    /// The server cannot reach the other servers, and the request has waited for too long.
    Unavailable,
}
