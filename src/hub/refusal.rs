//! What the hub says no to, and why it ends connections.

use crate::protocol::{PeerId, RoomId};

/// Why something cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Nobody registered has that name.
    #[error("peer '{0}' not found")]
    NotFound(PeerId),
    /// It is in a call or a room.
    #[error("peer '{0}' busy")]
    Busy(PeerId),
    /// It is not in the sender's room.
    #[error("peer '{0}' is not in the room")]
    NotInRoom(PeerId),
    /// The command is not for somebody in a room.
    #[error("invalid msg, already in room")]
    InRoom,
    /// The command is for somebody in a room.
    #[error("invalid msg, not in a room")]
    Outside,
    /// The connection that holds the id is alive.
    #[error("the id is in use")]
    IdTaken,
    /// The command is not for somebody who is registered already.
    #[error("invalid msg, already registered")]
    Registered,
    /// Relaying needs a call.
    #[error("invalid msg, not in a session")]
    NoCall,
    /// It may not enter that room, or not call.
    #[error("not for you: {0}")]
    NotGranted(&'static str),
    /// The peer has not read enough of the sender's earlier messages.
    #[error("peer '{0}' does not read what it is sent: this message is dropped")]
    Unread(PeerId),
    /// Too many rooms.
    #[error("no room for more rooms on this server")]
    TooManyRooms,
    /// Too many peers in that room.
    #[error("room '{0}' is full")]
    RoomFull(RoomId),
}

/// Why the hub ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The name it asks for has a living holder.
    IdTaken,
    /// Its name went to another, since it did not answer.
    Replaced,
    /// The other side of its call is gone.
    CallOver,
    /// It may not have the name that it asks for.
    NotGranted,
    /// The back end does not want it.
    Removed,
    /// The back end closed its room.
    RoomClosed,
}
