//! Who holds which name. A name with a living holder is refused; a holder that gives no sign of
//! life when asked loses it, so that a peer comes back while its old socket is half-dead.

use std::collections::VecDeque;
use std::time::Instant;

use super::{ConnId, Hub, Notice, Output, Place, Reason, Refusal};
use crate::protocol::{PeerId, RoomId};

impl Hub {
    pub(super) fn register(&mut self, now: Instant, conn: ConnId, name: PeerId) {
        let Some(holder) = self.names.get(&name).copied() else { return self.admit(conn, name) };
        let deadline = now + self.limits.probe;
        let (_, waiting) = self.probes.entry(holder).or_insert_with(|| (deadline, VecDeque::new()));
        waiting.push_back(conn);
        if waiting.len() == 1 {
            self.outputs.push_back(Output::Probe(holder));
        }
    }

    /// Registers and joins, or does neither.
    pub(super) fn enter(&mut self, conn: ConnId, name: PeerId, room: RoomId) -> Result<(), Refusal> {
        if self.names.contains_key(&name) {
            return Err(Refusal::Registered);
        }
        let Some(state) = self.conns.get_mut(&conn) else { return Ok(()) };
        (state.name, state.place) = (Some(name.clone()), Place::Lobby);
        self.names.insert(name.clone(), conn);
        let joined = self.join(conn, room);
        if joined.is_err() {
            self.names.remove(&name);
            if let Some(state) = self.conns.get_mut(&conn) {
                (state.name, state.place) = (None, Place::Door);
            }
        }
        joined
    }

    /// It has asked for a name already, whose holder is being probed.
    pub(super) fn is_waiting(&self, conn: ConnId) -> bool {
        self.probes.values().any(|(_, waiting)| waiting.contains(&conn))
    }

    fn admit(&mut self, conn: ConnId, name: PeerId) {
        if let Some(state) = self.conns.get_mut(&conn) {
            state.name = Some(name.clone());
            state.place = Place::Lobby;
            self.names.insert(name, conn);
            self.notify(conn, Notice::Registered);
        }
    }

    /// The holder lives: those who wanted its name go.
    pub(super) fn alive(&mut self, conn: ConnId) {
        if let Some((_, waiting)) = self.probes.remove(&conn) {
            waiting.into_iter().for_each(|other| self.send_away(other));
        }
    }

    /// A holder is gone: the first who waited for its name has it, the others go.
    pub(super) fn inherit(&mut self, holder: ConnId, name: Option<PeerId>) {
        let Some((_, mut waiting)) = self.probes.remove(&holder) else { return };
        if let (Some(heir), Some(name)) = (waiting.pop_front(), name) {
            self.admit(heir, name);
        }
        waiting.into_iter().for_each(|other| self.send_away(other));
    }

    fn send_away(&mut self, conn: ConnId) {
        self.outputs.push_back(Output::Close(conn, Reason::IdTaken));
        self.leave(conn);
    }

    /// Holders that gave no sign of life in time lose their names and their connections.
    pub fn handle_timeout(&mut self, now: Instant) {
        let dead: Vec<ConnId> =
            self.probes.iter().filter(|(_, (deadline, _))| *deadline <= now).map(|(id, _)| *id).collect();
        for holder in dead {
            if !self.conns.contains_key(&holder) {
                continue; // It was in a call with another of them, and went with it.
            }
            self.outputs.push_back(Output::Close(holder, Reason::Replaced));
            self.leave(holder);
        }
    }
}
