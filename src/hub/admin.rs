//! Requests of a back end: describe a peer, remove a peer, close a room.

use serde_json::Value;

use super::{ConnId, Hub, Notice, Output, Reason, State};
use crate::protocol::{PeerId, RoomId};

/// A request of a back end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admin {
    /// Sets the description of a peer; null removes it.
    Describe(PeerId, Value),
    /// Removes a peer.
    Remove(PeerId),
    /// Closes a room and removes its members.
    Close(RoomId),
}

impl Hub {
    /// Returns the description of a peer; null if there is none.
    pub fn description(&self, peer: &PeerId) -> Value {
        let conn = self.names.get(peer).and_then(|conn| self.conns.get(conn));
        conn.map_or(Value::Null, |conn| conn.description.clone())
    }

    /// Returns whether a peer of that name is registered.
    pub fn has_peer(&self, peer: &PeerId) -> bool {
        self.names.contains_key(peer)
    }

    /// Returns whether a room of that name exists.
    pub fn has_room(&self, room: &RoomId) -> bool {
        self.rooms.contains_key(room)
    }

    /// Returns the rooms with their members in the order in which they joined.
    pub fn rooms(&self) -> impl Iterator<Item = (&RoomId, Vec<PeerId>)> {
        self.rooms.iter().map(|(name, room)| {
            let members = room.members.iter().filter_map(|member| self.name(*member));
            (name, members.collect())
        })
    }

    pub(super) fn admin(&mut self, admin: Admin) {
        match admin {
            Admin::Describe(peer, description) => {
                let Some(conn) = self.names.get(&peer).copied() else { return };
                let Some(state) = self.conns.get_mut(&conn) else { return };
                state.description = description.clone();
                if let State::Room(room) = state.state.clone() {
                    self.notify_room(&room, conn, Notice::Described(peer, description));
                }
            }
            Admin::Remove(peer) => {
                if let Some(conn) = self.names.get(&peer).copied() {
                    self.outputs.push_back(Output::Close(conn, Reason::Removed));
                    self.leave(conn);
                }
            }
            Admin::Close(room) => {
                let members: Vec<ConnId> = self.rooms.get(&room).map_or(vec![], |room| room.members.clone());
                // The room is removed first: no member is notified of the others' leaving.
                self.forget_room(&room);
                for member in members {
                    self.set_state(member, State::Idle);
                    self.notify(member, Notice::Stopped);
                    self.outputs.push_back(Output::Close(member, Reason::RoomClosed));
                    self.leave(member);
                }
            }
        }
    }
}
