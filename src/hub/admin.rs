//! Requests of a back end: describe a peer, remove a peer, close a room.

use serde_json::Value;

use super::{ConnId, Hub, Notice, Output, Reason, State};
use crate::protocol::hello::MediaKind;
use crate::protocol::{PeerId, RoomId};

/// A request of a back end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admin {
    /// Sets the description of a peer; null removes it.
    Describe(PeerId, Value),
    /// Removes a peer.
    Remove(PeerId),
    /// Asks a peer in a room to mute what it sends.
    Mute(PeerId, MediaKind),
    /// Closes a room and removes its members.
    Close(RoomId),
}

/// The place of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// Not registered.
    Offline,
    /// Neither in a call nor in a room.
    Free,
    /// In a call.
    Call,
    /// In this room.
    Room(RoomId),
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

    /// Returns where a peer is.
    pub fn presence(&self, peer: &PeerId) -> Presence {
        let conn = self.names.get(peer).and_then(|conn| self.conns.get(conn));
        match conn.map(|conn| &conn.state) {
            None | Some(State::Unregistered) => Presence::Offline,
            Some(State::Idle) => Presence::Free,
            Some(State::Call(_)) => Presence::Call,
            Some(State::Room(room)) => Presence::Room(room.clone()),
        }
    }

    /// Returns the connection of a registered peer.
    pub fn connection(&self, peer: &PeerId) -> Option<ConnId> {
        self.names.get(peer).copied()
    }

    /// Returns the names of all registered peers.
    pub fn names(&self) -> impl Iterator<Item = &PeerId> {
        self.names.keys()
    }

    /// Returns the members of a room in the order in which they joined; none if there is no such room.
    pub fn members(&self, room: &RoomId) -> Option<Vec<PeerId>> {
        let members = &self.rooms.get(room)?.members;
        Some(members.iter().filter_map(|member| self.name(*member)).collect())
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
            Admin::Mute(peer, kind) => {
                let conn = self.names.get(&peer).copied();
                let is_in_room = |conn: &ConnId| {
                    self.conns.get(conn).is_some_and(|conn| matches!(conn.state, State::Room(_)))
                };
                if let Some(conn) = conn.filter(is_in_room) {
                    self.notify(conn, Notice::MuteRequested(kind, None));
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
