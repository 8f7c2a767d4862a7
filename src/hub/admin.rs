//! What a back end may do: say who somebody is, send somebody away, close a room.

use serde_json::Value;

use super::{ConnId, Hub, Notice, Output, Place, Reason};
use crate::protocol::{PeerId, RoomId};

/// What a back end wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admin {
    /// This is said of that peer from now on; null: nothing any more.
    Describe(PeerId, Value),
    /// That peer goes.
    Remove(PeerId),
    /// That room goes, and everybody in it.
    Close(RoomId),
}

impl Hub {
    /// What the back end says of a peer; null where nothing.
    pub fn description(&self, peer: &PeerId) -> Value {
        let conn = self.names.get(peer).and_then(|conn| self.conns.get(conn));
        conn.map_or(Value::Null, |conn| conn.description.clone())
    }

    /// Whether somebody of that name is registered.
    pub fn has_peer(&self, peer: &PeerId) -> bool {
        self.names.contains_key(peer)
    }

    /// Whether there is a room of that name.
    pub fn has_room(&self, room: &RoomId) -> bool {
        self.rooms.contains_key(room)
    }

    /// The rooms, and who is in them in the order in which they came.
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
                if let Place::Room(room) = state.place.clone() {
                    self.tell_room(&room, conn, Notice::Described(peer, description));
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
                // First the room, so that nobody hears of the others' leaving.
                self.forget_room(&room);
                for member in members {
                    self.set_place(member, Place::Lobby);
                    self.notify(member, Notice::Stopped);
                    self.outputs.push_back(Output::Close(member, Reason::RoomClosed));
                    self.leave(member);
                }
            }
        }
    }
}
