//! Joining and leaving rooms.

use super::{Conn, ConnId, Hub, Notice, Owner, Refusal, Room, State};
use crate::protocol::{PeerId, RoomId};

impl Hub {
    pub(super) fn join(&mut self, conn: ConnId, room: RoomId) -> Result<(), Refusal> {
        let Some(Conn { name: Some(_), owner, .. }) = self.conns.get(&conn) else {
            return Err(Refusal::Outside);
        };
        let owner = *owner;
        self.check_room(conn, &room)?;
        self.check_space(owner, &room)?;
        self.seat(conn, owner, room);
        Ok(())
    }

    /// Returns an error if a room has no space, or if it would be one room too many.
    pub(super) fn check_space(&self, owner: Owner, room: &RoomId) -> Result<(), Refusal> {
        match self.rooms.get(room) {
            Some(there) if there.members.len() >= self.limits.room_size => {
                Err(Refusal::RoomFull(room.clone()))
            }
            Some(_) => Ok(()),
            None => {
                let made = self.rooms_by_owner.get(&owner).copied().unwrap_or_default();
                let is_full = self.rooms.len() >= self.limits.rooms || made >= self.limits.rooms_per_owner;
                if is_full { Err(Refusal::TooManyRooms) } else { Ok(()) }
            }
        }
    }

    /// Adds a registered connection to a room, which is created for `owner` if it does not exist.
    pub(super) fn seat(&mut self, conn: ConnId, owner: Owner, room: RoomId) {
        let Some(name) = self.name(conn) else { return };
        match self.rooms.get_mut(&room) {
            Some(there) => there.members.push(conn),
            None => {
                *self.rooms_by_owner.entry(owner).or_default() += 1;
                self.rooms.insert(room.clone(), Room { owner, members: vec![conn] });
            }
        }
        let others = self.others(&room, conn);
        self.notify(conn, Notice::Joined(others));
        if self.may(conn, |grant| grant.moderates.allows(&room)) {
            self.notify(conn, Notice::Moderator);
        }
        self.notify_room(&room, conn, Notice::PeerJoined(name));
        self.set_state(conn, State::Room(room));
    }

    pub(super) fn leave_room(&mut self, conn: ConnId, room: &RoomId, name: Option<&PeerId>) {
        let Some(there) = self.rooms.get_mut(room) else { return };
        there.members.retain(|member| *member != conn);
        if !there.members.is_empty() {
            if let Some(name) = name {
                self.notify_room(room, conn, Notice::PeerLeft(name.clone()));
            }
            return;
        }
        self.forget_room(room);
    }

    pub(super) fn forget_room(&mut self, room: &RoomId) {
        let Some(Room { owner, .. }) = self.rooms.remove(room) else { return };
        if let Some(made) = self.rooms_by_owner.get_mut(&owner) {
            *made -= 1;
            if *made == 0 {
                self.rooms_by_owner.remove(&owner);
            }
        }
    }
}
