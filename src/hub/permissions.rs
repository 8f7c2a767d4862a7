//! Decisions by the permissions of connections.

use super::{Conn, ConnId, Grant, Hub, Notice, Refusal, State};
use crate::protocol::{PeerId, RoomId};

impl Hub {
    pub(super) fn may(&self, conn: ConnId, what: impl Fn(&Grant) -> bool) -> bool {
        self.conns.get(&conn).is_some_and(|conn| what(&conn.grant))
    }

    /// Replaces the permissions of a connection. A member that may moderate its room from now on is told.
    pub(super) fn grant(&mut self, id: ConnId, grant: Grant) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let moderates =
            |grant: &Grant| matches!(&conn.state, State::Room(room) if grant.moderates.allows(room));
        let becomes_moderator = moderates(&grant) && !moderates(&conn.grant);
        conn.description = grant.description.clone();
        conn.grant = grant;
        if becomes_moderator {
            self.notify(id, Notice::Moderator);
        }
    }

    /// Returns whether the permissions of both connections allow a call between the two.
    pub(super) fn may_talk(&self, conn: ConnId, other: ConnId) -> bool {
        let allows = |one: ConnId, two: ConnId| {
            self.name(two).is_some_and(|name| self.may(one, |grant| grant.calls.allow(&name)))
        };
        allows(conn, other) && allows(other, conn)
    }

    /// Returns whether a registered peer of this name may be called by a connection.
    pub(super) fn is_visible(&self, conn: ConnId, name: &PeerId) -> bool {
        self.names.get(name).is_some_and(|other| self.may_talk(conn, *other))
    }

    /// Returns whether lists show a registered peer of this name to a connection, free or busy.
    pub fn shows(&self, conn: ConnId, name: &PeerId) -> bool {
        let is_hidden = |other: &ConnId| self.may(*other, |grant| grant.is_hidden);
        self.is_visible(conn, name) && !self.names.get(name).is_some_and(is_hidden)
    }

    /// Returns the free peers that a connection may call, as many as a list may have.
    pub(super) fn callable(&self, conn: ConnId) -> Vec<PeerId> {
        let is_free = |other: &Conn| other.state == State::Idle && !other.grant.is_hidden;
        let is_listed = |(_, id): &(&PeerId, &ConnId)| {
            **id != conn && self.conns.get(id).is_some_and(is_free) && self.may_talk(conn, **id)
        };
        let free = self.names.iter().filter(is_listed).map(|(name, _)| name.clone());
        let mut free: Vec<PeerId> = free.take(self.limits.listed).collect();
        free.sort();
        free
    }

    /// Returns whether the permissions of a registered peer allow a room.
    pub fn may_join(&self, peer: &PeerId, room: &RoomId) -> bool {
        self.names.get(peer).is_some_and(|conn| self.check_room(*conn, room).is_ok())
    }

    /// Returns an error if the permissions of a connection exclude a room.
    pub(super) fn check_room(&self, conn: ConnId, room: &RoomId) -> Result<(), Refusal> {
        if !self.may(conn, |grant| grant.allows_room(room)) {
            return Err(Refusal::NotGranted("this room"));
        }
        if !self.rooms.contains_key(room) && !self.may(conn, |grant| grant.creates_rooms) {
            return Err(Refusal::NotGranted("a new room"));
        }
        Ok(())
    }
}
