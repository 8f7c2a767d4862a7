//! Registration of names. A name whose holder is alive is refused. A holder that gives no sign of life within the probe
//! time loses its name: a peer can register again while its old socket is half-dead.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Claim, Conn, ConnId, Grant, Hub, Notice, Output, Owner, Reason, Refusal, State};
use crate::protocol::{PeerId, RoomId};

impl Hub {
    pub(super) fn register(&mut self, now: Instant, conn: ConnId, name: PeerId) {
        match self.names.get(&name).copied() {
            Some(holder) => self.probe(now, holder, Claim { conn, room: None }),
            None => self.admit(conn, name),
        }
    }

    /// Registers and joins, or does neither.
    pub(super) fn enter(
        &mut self,
        now: Instant,
        conn: ConnId,
        name: PeerId,
        room: RoomId,
    ) -> Result<(), Refusal> {
        // A connection that may not join must not trigger a probe of the holder.
        self.check_room(conn, &room)?;
        match self.names.get(&name).copied() {
            Some(holder) => {
                self.probe(now, holder, Claim { conn, room: Some(room) });
                Ok(())
            }
            None => self.admit_to(conn, name, room),
        }
    }

    fn probe(&mut self, now: Instant, holder: ConnId, claim: Claim) {
        if self.conns.get(&holder).is_some_and(|holder| holder.is_assigned) {
            return self.refuse_claim(claim);
        }
        let deadline = now + self.limits.probe;
        let (_, waiting) = self.probes.entry(holder).or_insert_with(|| (deadline, VecDeque::new()));
        waiting.push_back(claim);
        if waiting.len() == 1 {
            self.outputs.push_back(Output::Probe(holder));
        }
    }

    /// Returns whether a connection has a claim for a name whose holder is being probed.
    pub(super) fn is_waiting(&self, conn: ConnId) -> bool {
        self.probes.values().any(|(_, waiting)| waiting.iter().any(|claim| claim.conn == conn))
    }

    /// Gives a connection a name that is free.
    pub(super) fn admit(&mut self, conn: ConnId, name: PeerId) {
        if let Some(state) = self.conns.get_mut(&conn) {
            state.name = Some(name.clone());
            state.state = State::Idle;
            self.names.insert(name, conn);
            self.notify(conn, Notice::Registered);
        }
    }

    /// Gives a connection a name that is free, without a notice.
    pub(super) fn name_silently(&mut self, conn: ConnId, name: PeerId, is_assigned: bool) {
        let Some(state) = self.conns.get_mut(&conn) else { return };
        state.is_assigned = is_assigned;
        (state.name, state.state) = (Some(name.clone()), State::Idle);
        self.names.insert(name, conn);
    }

    /// Adds the copy of a peer that another server holds.
    pub(super) fn open_remote(&mut self, conn: ConnId, name: PeerId, grant: Grant) {
        let description = grant.description.clone();
        let state = State::Unregistered;
        let owner = Owner::default();
        self.conns.insert(conn, Conn { name: None, is_assigned: false, state, owner, grant, description });
        self.name_silently(conn, name, false);
    }

    /// Registers under a free name and joins a room; undoes the registration if the join fails.
    fn admit_to(&mut self, conn: ConnId, name: PeerId, room: RoomId) -> Result<(), Refusal> {
        let Some(state) = self.conns.get(&conn) else { return Ok(()) };
        let is_assigned = state.grant.name.is_none();
        self.name_silently(conn, name.clone(), is_assigned);
        let joined = self.join(conn, room);
        if joined.is_err() {
            self.names.remove(&name);
            if let Some(state) = self.conns.get_mut(&conn) {
                (state.name, state.state, state.is_assigned) = (None, State::Unregistered, false);
            }
        }
        joined
    }

    /// Handles a sign of life of a holder: refuses the claims for its name.
    pub(super) fn alive(&mut self, conn: ConnId) {
        if let Some((_, waiting)) = self.probes.remove(&conn) {
            waiting.into_iter().for_each(|claim| self.refuse_claim(claim));
        }
    }

    /// Extends the deadline of a probe whose answer may still be under way.
    pub(super) fn late(&mut self, now: Instant, conn: ConnId) {
        if let Some((deadline, _)) = self.probes.get_mut(&conn) {
            *deadline = now + self.limits.probe;
        }
    }

    /// Gives the name of a holder that is gone to the first claimant that can take it, and refuses the other claims.
    pub(super) fn inherit(&mut self, holder: ConnId, name: Option<PeerId>) {
        let Some((_, mut waiting)) = self.probes.remove(&holder) else { return };
        let Some(name) = name else { return };
        while let Some(Claim { conn, room }) = waiting.pop_front() {
            let refused = match room {
                None => {
                    self.admit(conn, name.clone());
                    None
                }
                Some(room) => self.admit_to(conn, name.clone(), room).err(),
            };
            match refused {
                None => break,
                Some(refusal) => self.notify(conn, Notice::Refused(refusal)),
            }
        }
        waiting.into_iter().for_each(|claim| self.refuse_claim(claim));
    }

    /// Refuses a claim. A claim without a room also closes the claimant's connection, as the server of the GStreamer
    /// demos does.
    fn refuse_claim(&mut self, claim: Claim) {
        if claim.room.is_some() {
            return self.notify(claim.conn, Notice::Refused(Refusal::IdTaken));
        }
        self.outputs.push_back(Output::Close(claim.conn, Reason::IdTaken));
        self.leave(claim.conn);
    }

    /// Returns the holders whose time to answer a probe is over.
    pub fn overdue(&self, now: Instant) -> Vec<ConnId> {
        self.probes.iter().filter(|(_, (deadline, _))| *deadline <= now).map(|(id, _)| *id).collect()
    }

    /// Returns whether a connection is being probed.
    pub fn is_probed(&self, conn: ConnId) -> bool {
        self.probes.contains_key(&conn)
    }

    /// Closes the connections of holders that gave no sign of life in time, and passes their names on.
    pub fn handle_timeout(&mut self, now: Instant) {
        let dead = self.overdue(now);
        for holder in dead {
            if !self.conns.contains_key(&holder) {
                continue; // The holder was in a call with another one, and was removed with it.
            }
            self.outputs.push_back(Output::Close(holder, Reason::Replaced));
            self.leave(holder);
        }
    }
}
