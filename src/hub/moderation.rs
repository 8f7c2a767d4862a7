//! Moderation of a room by a member whose permissions include it.

use std::collections::BTreeSet;

use super::{ConnId, Hub, Notice, Output, Reason, Refusal, State};
use crate::protocol::hello::MediaKind;
use crate::protocol::{PeerId, RoomId};

/// The rooms that a connection may moderate while it is in them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Moderates {
    /// No room.
    #[default]
    None,
    /// Each room that it is in.
    All,
    /// These rooms.
    Rooms(BTreeSet<RoomId>),
}

/// An order of a moderator about another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Removes the member and closes its connection.
    Remove,
    /// Asks the member to mute what it sends.
    Mute(MediaKind),
}

impl Moderates {
    pub(super) fn allows(&self, room: &RoomId) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Rooms(rooms) => rooms.contains(room),
        }
    }
}

impl Hub {
    /// Returns the connection of another member of a room.
    pub(super) fn member(&self, conn: ConnId, room: &RoomId, name: &PeerId) -> Option<ConnId> {
        let other = self.names.get(name).copied().filter(|other| *other != conn)?;
        let is_here = |state: &State| matches!(state, State::Room(there) if there == room);
        self.conns.get(&other).filter(|other| is_here(&other.state)).map(|_| other)
    }

    /// Executes an order of the member `conn` of a room.
    pub(super) fn moderate(
        &mut self,
        conn: ConnId,
        room: &RoomId,
        name: &PeerId,
        measure: Measure,
    ) -> Result<(), Refusal> {
        if !self.may(conn, |grant| grant.moderates.allows(room)) {
            return Err(Refusal::NotGranted("moderation of this room"));
        }
        // The answer does not depend on whether the peer exists elsewhere.
        let other = self.member(conn, room, name).ok_or_else(|| Refusal::NotInRoom(name.clone()))?;
        match measure {
            Measure::Remove => {
                self.outputs.push_back(Output::Close(other, Reason::RemovedByModerator));
                self.leave(other);
            }
            Measure::Mute(kind) => {
                let by = self.name(conn);
                self.notify(other, Notice::MuteRequested(kind, by));
            }
        }
        Ok(())
    }
}
