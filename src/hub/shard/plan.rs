//! Plans of jobs: the rules are checked with the hub, then a transaction makes the change under the condition that
//! nothing changed meanwhile. The first attempt relies on what the shard knows; the engine returns what differs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::Value;

use super::data::{Change, Fields, Frame, Key, NodeId, Place, Record, RoomView, StayId, Tx};
use super::jobs::{Job, Plan};
use super::{Mirror, Shard};
use crate::hub::{ConnId, Notice, Reason, Refusal, State};
use crate::protocol::hello::MediaKind;
use crate::protocol::{PeerId, RoomId};

/// The keys that the engine returned, if it did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reads<'a>(pub(super) Option<&'a BTreeMap<Key, Fields>>);

impl Reads<'_> {
    pub(super) fn fields(&self, key: &Key) -> Option<&Fields> {
        self.0.and_then(|reads| reads.get(key))
    }

    /// Returns a peer's version and record: none if the peer was not read, and none within if it does not exist.
    pub(super) fn peer(&self, name: &PeerId) -> Option<Option<(u64, Record)>> {
        self.fields(&Key::peer(name)).map(Record::parse)
    }

    pub(super) fn room(&self, room: &RoomId) -> Option<RoomView> {
        self.fields(&Key::room(room)).map(RoomView::parse)
    }
}

/// Returns a transaction that only reads.
pub(super) fn read(keys: impl IntoIterator<Item = Key>) -> Plan {
    Plan::Tx(Box::new(Tx { reads: keys.into_iter().collect(), ..Tx::default() }), None)
}

impl Shard {
    pub(super) fn plan(&mut self, now: Instant, job: &Job, reads: Option<&BTreeMap<Key, Fields>>) -> Plan {
        let reads = Reads(reads);
        match job {
            Job::Register { conn, name, room } => {
                self.plan_register(now, job, (*conn, name, room.as_ref()), reads)
            }
            Job::Join { conn, room } => self.plan_join(*conn, room, reads),
            Job::Call { conn, to } => self.plan_call(*conn, to, reads),
            Job::Send { conn, to, body } => self.plan_send(now, *conn, to, body, reads),
            Job::List { conn } => self.plan_list(*conn, reads),
            Job::End { name, stay, of, reason, known } => {
                self.plan_end(name, stay, (of.as_ref(), *reason), known.as_ref(), reads)
            }
            Job::Describe { name, description } => self.plan_describe(name, description, reads),
            Job::Grant { conn } => self.plan_grant(*conn, reads),
            Job::Mute { name, kind } => self.plan_mute(name, *kind, reads),
            Job::Remove { name } => self.plan_remove(now, name, reads),
            Job::CloseRoom { room } => self.plan_close_room(now, room, reads),
            Job::Assert { conn, revive } => self.plan_assert(now, *conn, *revive, reads),
            Job::Reread { room } => self.plan_reread(now, room, reads),
            Job::Verify { conn } => self.plan_verify(now, *conn, reads),
            Job::Reap { node } => self.plan_reap(node, reads),
            Job::Tell { node, frame } => self.plan_tell(now, node, frame, reads),
            Job::Look { names } => self.plan_look(names, reads),
            Job::Replace { stay } => self.plan_replace(now, stay, reads),
        }
    }

    fn plan_register(
        &mut self,
        now: Instant,
        job: &Job,
        (conn, name, room): (ConnId, &PeerId, Option<&RoomId>),
        reads: Reads<'_>,
    ) -> Plan {
        match self.state(conn) {
            None => return Plan::Done,
            Some(State::Unregistered) => {}
            Some(State::Idle | State::Call(_) | State::Room(_)) => {
                self.refuse(conn, Refusal::Registered);
                return Plan::Done;
            }
        }
        if let Some(Err(refusal)) = room.map(|room| self.hub.check_room(conn, room)) {
            // A connection that may not enter must not cost the holder of the name its place.
            self.refuse(conn, refusal);
            return Plan::Done;
        }
        if let Some(Some((_, holder))) = reads.peer(name) {
            return self.claim(now, name, &holder, job);
        }
        let grant = self.hub.conns.get(&conn).map(|conn| (conn.grant.clone(), conn.description.clone()));
        let Some((grant, description)) = grant else { return Plan::Done };
        let record = Record {
            stay: StayId(format!("{}/{}", self.me.0, conn.0)),
            node: self.me.clone(),
            place: room.map_or(Place::Lobby, |room| Place::Room(room.clone())),
            is_assigned: room.is_some() && grant.name.is_none(),
            is_hidden: grant.is_hidden,
            calls: grant.calls,
            description,
        };
        let mut tx = Tx::default();
        tx.guard(Key::peer(name), None);
        tx.put_peer(name, &record);
        if let Some(room) = room
            && let Err(refusal) = self.put_in_room(&mut tx, conn, room, name, &record, reads)
        {
            self.refuse(conn, refusal);
            self.prune(room);
            return Plan::Done;
        }
        Plan::Tx(tx.into(), Some(record.into()))
    }

    fn plan_join(&mut self, conn: ConnId, room: &RoomId, reads: Reads<'_>) -> Plan {
        match self.state(conn) {
            None | Some(State::Unregistered) => return Plan::Done,
            Some(State::Idle) => {}
            Some(State::Room(_)) => {
                self.refuse(conn, Refusal::InRoom);
                return Plan::Done;
            }
            Some(State::Call(_)) => {
                self.refuse(conn, Refusal::Outside);
                return Plan::Done;
            }
        }
        let Some((name, version, record)) = self.own(conn, reads) else { return Plan::Done };
        let record = Record { place: Place::Room(room.clone()), ..record };
        let mut tx = Tx::default();
        tx.guard(Key::peer(&name), Some(version));
        tx.put_peer(&name, &record);
        if let Err(refusal) = self.put_in_room(&mut tx, conn, room, &name, &record, reads) {
            self.refuse(conn, refusal);
            self.prune(room);
            return Plan::Done;
        }
        Plan::Tx(tx.into(), Some(record.into()))
    }

    /// Returns the name, the version and the record of an own connection, after the engine's latest version. Returns
    /// none if the stay has ended.
    fn own(&mut self, conn: ConnId, reads: Reads<'_>) -> Option<(PeerId, u64, Record)> {
        let stay = self.stays.get_mut(&conn)?;
        match reads.peer(&stay.name) {
            None => {}
            Some(Some((version, record))) if record.stay == stay.record.stay => stay.version = version,
            Some(_) => return None,
        }
        Some((stay.name.clone(), stay.version, stay.record.clone()))
    }

    /// Adds a member to a room within a transaction, if the rules allow it.
    fn put_in_room(
        &mut self,
        tx: &mut Tx,
        conn: ConnId,
        room: &RoomId,
        name: &PeerId,
        record: &Record,
        reads: Reads<'_>,
    ) -> Result<(), Refusal> {
        let prev = match reads.room(room) {
            Some(view) => {
                self.mirror(room, &view);
                view.version
            }
            None => self.rooms.get(room).and_then(|mirror| mirror.version),
        };
        self.hub.check_room(conn, room)?;
        let owner = self.owner(conn);
        self.hub.check_space(owner, room)?;
        let owner = self.hub.rooms.get(room).map_or(owner, |room| room.owner);
        tx.guard(Key::room(room), prev);
        tx.put_member(room, owner, name, record);
        let change = Change::Put(name.clone(), record.clone());
        self.send_to_room(tx, &self.nodes_in(room), Frame::Room { room: room.clone(), prev, change });
        Ok(())
    }

    pub(super) fn send_to_room(&self, tx: &mut Tx, nodes: &BTreeSet<NodeId>, frame: Frame) {
        nodes.iter().filter(|node| **node != self.me).for_each(|node| tx.send(node, &frame));
    }

    /// Returns the attachments with members in a known room.
    fn nodes_in(&self, room: &RoomId) -> BTreeSet<NodeId> {
        let members = self.hub.rooms.get(room).map_or(&[][..], |room| &room.members).iter();
        members.filter_map(|conn| self.stays.get(conn)).map(|stay| stay.record.node.clone()).collect()
    }

    fn plan_call(&mut self, conn: ConnId, to: &PeerId, reads: Reads<'_>) -> Plan {
        match self.state(conn) {
            None | Some(State::Unregistered) => return Plan::Done,
            Some(State::Idle) => {}
            Some(State::Room(_)) => {
                self.refuse(conn, Refusal::InRoom);
                return Plan::Done;
            }
            Some(State::Call(_)) => {
                self.refuse(conn, Refusal::Busy(to.clone()));
                return Plan::Done;
            }
        }
        let Some((name, version, record)) = self.own(conn, reads) else { return Plan::Done };
        let Some(found) = reads.peer(to) else { return read([Key::peer(&name), Key::peer(to)]) };
        let is_free = found.as_ref().is_none_or(|(_, callee)| callee.place == Place::Lobby);
        let other = found.as_ref().map(|(version, callee)| self.meet(to, *version, callee));
        let checked = self.hub.check_call(conn, to);
        let refusal = match (checked, &found) {
            (Err(refusal), _) => Some(refusal),
            (Ok(_), Some(_)) if is_free => None,
            (Ok(_), _) => Some(Refusal::Busy(to.clone())),
        };
        if let Some(refusal) = refusal {
            self.refuse(conn, refusal);
            other.into_iter().for_each(|other| self.part(other));
            return Plan::Done;
        }
        let Some((callee_version, callee)) = found else { return Plan::Done };
        let caller = Record { place: Place::Call(to.clone(), callee.stay.clone()), ..record };
        let called = Record { place: Place::Call(name.clone(), caller.stay.clone()), ..callee };
        let mut tx = Tx::default();
        tx.guard(Key::peer(&name), Some(version));
        tx.guard(Key::peer(to), Some(callee_version));
        tx.put_peer(&name, &caller);
        tx.put_peer(to, &called);
        if called.node != self.me {
            let frame = Frame::Called { caller: name, record: caller.clone(), callee: called.stay.clone() };
            tx.send(&called.node, &frame);
        }
        Plan::Tx(tx.into(), Some(caller.into()))
    }

    /// Answers a text to a peer that is not in the sender's room. The peer may have come meanwhile.
    fn plan_send(&mut self, now: Instant, conn: ConnId, to: &PeerId, body: &str, reads: Reads<'_>) -> Plan {
        if !matches!(self.state(conn), Some(State::Room(_))) || self.closing.contains(&conn) {
            return Plan::Done;
        }
        let Some(found) = reads.peer(to) else { return read([Key::peer(to)]) };
        let other = found.map(|(version, record)| self.meet(to, version, &record));
        let command = crate::hub::Command::Send { to: to.clone(), body: body.to_owned() };
        self.hub.handle_input(now, crate::hub::Input::Command(conn, command));
        self.drain(now);
        other.into_iter().for_each(|other| self.part(other));
        Plan::Done
    }

    fn plan_list(&mut self, conn: ConnId, reads: Reads<'_>) -> Plan {
        let Some(fields) = reads.fields(&Key::free()) else { return read([Key::free()]) };
        let Some((name, grant)) = self.hub.name(conn).zip(self.hub.conns.get(&conn).map(|conn| &conn.grant))
        else {
            return Plan::Done;
        };
        let is_listed = |(other, calls): (&String, &String)| {
            let other: PeerId = other.parse().ok()?;
            let calls: crate::hub::Calls = serde_json::from_str(calls).ok()?;
            (other != name && grant.calls.allow(&other) && calls.allow(&name)).then_some(other)
        };
        let mut free: Vec<PeerId> = fields.iter().filter_map(is_listed).take(self.limits.listed).collect();
        free.sort();
        self.outputs.push_back(crate::hub::Output::Notify(conn, Notice::PeerList(free)));
        Plan::Done
    }

    fn plan_end(
        &mut self,
        name: &PeerId,
        stay: &StayId,
        (of, reason): (Option<&NodeId>, Option<Reason>),
        known: Option<&(u64, Record)>,
        reads: Reads<'_>,
    ) -> Plan {
        let found = match (reads.peer(name), known) {
            (Some(found), _) => found,
            (None, Some(known)) => Some(known.clone()),
            (None, None) => return read([Key::peer(name)]),
        };
        let has_changed = found.as_ref().map(|(version, _)| version) != known.map(|(version, _)| version);
        if reason == Some(Reason::Replaced) && has_changed {
            // The holder changed since it was judged: those that claim its name ask it again.
            return Plan::Done;
        }
        let mut tx = Tx::default();
        if let Some(of) = of {
            tx.write(Key::names(of), name.as_str(), "");
        }
        let is_moved = |record: &Record| of.is_some_and(|of| *of != record.node);
        let Some((version, record)) = found.filter(|(_, record)| record.stay == *stay && !is_moved(record))
        else {
            return if of.is_some() { Plan::Tx(tx.into(), None) } else { Plan::Done };
        };
        let mut keys = vec![Key::peer(name)];
        tx.guard(Key::peer(name), Some(version));
        tx.remove_peer(name, &record.node);
        if let (Some(reason), true) = (reason, record.node != self.me) {
            tx.send(&record.node, &Frame::Closed { stay: stay.clone(), reason });
        }
        match &record.place {
            Place::Lobby => {}
            Place::Call(other, other_stay) => {
                let Some(partner) = reads.peer(other) else {
                    keys.push(Key::peer(other));
                    return read(keys);
                };
                let partner = partner.filter(|(_, partner)| partner.is_called_by(other_stay, stay));
                if let Some((_, partner)) = partner.filter(|(_, partner)| partner.node != self.me) {
                    let reason = Reason::CallOver;
                    tx.send(&partner.node, &Frame::Closed { stay: other_stay.clone(), reason });
                }
            }
            Place::Room(room) => {
                let Some(view) =
                    reads.room(room).or_else(|| self.known_room(room).filter(|view| view.has(name, stay)))
                else {
                    keys.push(Key::room(room));
                    return read(keys);
                };
                self.take_from_room(&mut tx, room, &view, (name, stay));
            }
        }
        Plan::Tx(tx.into(), Some(record.into()))
    }

    /// Removes a member from a room within a transaction.
    pub(super) fn take_from_room(
        &mut self,
        tx: &mut Tx,
        room: &RoomId,
        view: &RoomView,
        (name, stay): (&PeerId, &StayId),
    ) {
        if self.rooms.contains_key(room) {
            self.mirror(room, view);
        }
        tx.guard(Key::room(room), view.version);
        if !view.has(name, stay) {
            return;
        }
        tx.remove_member(room, name, view.members.len() == 1);
        let others = view.members.iter().filter(|(other, _)| *other != name);
        let nodes = others.map(|(_, record)| record.node.clone()).collect();
        let change = Change::Left(name.clone(), stay.clone());
        self.send_to_room(tx, &nodes, Frame::Room { room: room.clone(), prev: view.version, change });
    }

    /// Returns a room as the shard knows it; none if the shard does not follow it.
    fn known_room(&self, room: &RoomId) -> Option<RoomView> {
        let Mirror { version, is_stale } = self.rooms.get(room)?;
        let there = self.hub.rooms.get(room).filter(|_| !is_stale)?;
        let member =
            |conn: &ConnId| self.stays.get(conn).map(|stay| (stay.name.clone(), stay.record.clone()));
        let members = there.members.iter().filter_map(member).collect();
        Some(RoomView { version: *version, owner: there.owner, members })
    }

    fn plan_describe(&mut self, name: &PeerId, description: &Value, reads: Reads<'_>) -> Plan {
        let Some(found) = reads.peer(name) else { return read([Key::peer(name)]) };
        let Some((version, record)) = found else { return Plan::Done };
        let record = Record { description: description.clone(), ..record };
        self.plan_rewrite(name, version, record, reads)
    }

    fn plan_grant(&mut self, conn: ConnId, reads: Reads<'_>) -> Plan {
        let Some(grant) = self.hub.conns.get(&conn).map(|conn| conn.grant.clone()) else { return Plan::Done };
        let Some((name, version, earlier)) = self.own(conn, reads) else { return Plan::Done };
        let record = Record { calls: grant.calls, is_hidden: grant.is_hidden, ..earlier.clone() };
        if record == earlier {
            return Plan::Done;
        }
        self.plan_rewrite(&name, version, record, reads)
    }

    /// Replaces the record of a peer, which stays in its place.
    fn plan_rewrite(&mut self, name: &PeerId, version: u64, record: Record, reads: Reads<'_>) -> Plan {
        let mut tx = Tx::default();
        tx.guard(Key::peer(name), Some(version));
        tx.put_peer(name, &record);
        let mut nodes: BTreeSet<NodeId> = BTreeSet::from([record.node.clone()]);
        let (mut prev, mut room) = (None, None);
        if let Place::Room(place) = &record.place {
            let Some(view) = reads.room(place) else { return read([Key::peer(name), Key::room(place)]) };
            if self.rooms.contains_key(place) {
                self.mirror(place, &view);
            }
            tx.guard(Key::room(place), view.version);
            tx.put_member(place, view.owner, name, &record);
            nodes.extend(view.members.values().map(|member| member.node.clone()));
            (prev, room) = (view.version, Some(place.clone()));
        }
        let (stay, description) = (record.stay.clone(), record.description.clone());
        let frame = match room {
            Some(room) => Frame::Room { room, prev, change: Change::Put(name.clone(), record.clone()) },
            None => Frame::Described { stay, description },
        };
        self.send_to_room(&mut tx, &nodes, frame);
        Plan::Tx(tx.into(), Some(record.into()))
    }

    fn plan_mute(&mut self, name: &PeerId, kind: MediaKind, reads: Reads<'_>) -> Plan {
        let Some(found) = reads.peer(name) else { return read([Key::peer(name)]) };
        if let Some((_, record)) = found {
            let frame = Frame::Mute { from: None, of: record.stay, kind };
            self.send(record.node, frame.to_text());
        }
        Plan::Done
    }

    fn plan_remove(&mut self, now: Instant, name: &PeerId, reads: Reads<'_>) -> Plan {
        let Some(found) = reads.peer(name) else { return read([Key::peer(name)]) };
        if let Some((_, record)) = found {
            self.end_for(now, name, record.stay, Reason::Removed);
        }
        Plan::Done
    }

    fn plan_close_room(&mut self, now: Instant, room: &RoomId, reads: Reads<'_>) -> Plan {
        let Some(view) = reads.room(room) else { return read([Key::room(room)]) };
        for (name, record) in view.members {
            self.end_for(now, &name, record.stay, Reason::RoomClosed);
        }
        Plan::Done
    }

    fn end_for(&mut self, now: Instant, name: &PeerId, stay: StayId, reason: Reason) {
        let end = Job::End { name: name.clone(), stay, of: None, reason: Some(reason), known: None };
        self.jobs.push_back((now, end));
    }
}
