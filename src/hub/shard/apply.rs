//! Changes that the engine has ordered, applied to the hub: the outcomes of own transactions, and the messages of other
//! shards.

use std::time::Instant;

use super::data::{Change, Frame, Place, Record, RoomView, StayId};
use super::jobs::Job;
use super::{Mirror, Shard, Stay, end_of, is_remote};
use crate::hub::{Command, ConnId, Input, Notice, Output, Owner, Reason, State};
use crate::protocol::{PeerId, RoomId};

impl Shard {
    /// Applies an own transaction with the number `number`.
    pub(super) fn finish(&mut self, now: Instant, job: &Job, record: Option<Record>, number: u64) {
        match (job, record) {
            (Job::Register { conn, name, room }, Some(record)) => {
                self.finish_register(now, *conn, (name, record), room.as_ref(), number);
            }
            (Job::Join { conn, room }, Some(record)) => {
                let Some(stay) = self.stays.get_mut(conn) else {
                    return self.end_orphan(record, number);
                };
                (stay.version, stay.record) = (number, record);
                self.hub.seat(*conn, self.owner(*conn), room.clone());
                self.set_version(room, number);
            }
            (Job::Call { conn, to }, Some(record)) => self.finish_call(now, *conn, to, record, number),
            (Job::End { stay, reason, .. }, Some(record)) => {
                self.finish_end(now, stay, *reason, &record, number)
            }
            (Job::Describe { name, .. }, Some(record)) => {
                if let Place::Room(room) = &record.place
                    && self.rooms.contains_key(room)
                {
                    let room = room.clone();
                    self.set_version(&room, number);
                    self.put(&room, name, record, number);
                } else {
                    self.describe(&record.stay, record.description.clone(), number);
                }
            }
            (Job::Grant { conn }, Some(record)) => {
                if let Place::Room(room) = &record.place
                    && self.rooms.contains_key(room)
                {
                    self.set_version(&room.clone(), number);
                }
                if let Some(stay) = self.stays.get_mut(conn) {
                    (stay.version, stay.record) = (number, record);
                }
            }
            (Job::Assert { conn, .. }, Some(record)) => {
                // The room is read again later: until then no change of it counts.
                if let Some(stay) = self.stays.get_mut(conn) {
                    (stay.version, stay.record) = (number, record);
                }
            }
            (Job::Reap { node }, _) => drop(self.reaping.remove(node)),
            // The other jobs write nothing.
            (_, _) => {}
        }
    }

    fn finish_register(
        &mut self,
        now: Instant,
        conn: ConnId,
        (name, record): (&PeerId, Record),
        room: Option<&RoomId>,
        number: u64,
    ) {
        self.expel(now, name, &record.stay);
        let stay = Stay { name: name.clone(), version: number, record };
        if self.state(conn) != Some(&State::Unregistered) {
            // The connection has ended meanwhile.
            self.jobs.push_back((now, end_of(&stay)));
            return room.into_iter().for_each(|room| self.skip(room, number));
        }
        let is_assigned = stay.record.is_assigned;
        self.remember(conn, stay);
        let Some(room) = room else { return self.hub.admit(conn, name.clone()) };
        let owner = self.owner(conn);
        self.hub.name_silently(conn, name.clone(), is_assigned);
        self.hub.seat(conn, owner, room.clone());
        self.set_version(room, number);
    }

    /// Corrects the waiting end of a stay whose connection ended while the engine executed its transaction.
    fn end_orphan(&mut self, record: Record, number: u64) {
        let place = record.place.clone();
        for (_, job) in &mut self.jobs {
            if let Job::End { stay, known, .. } = job
                && *stay == record.stay
            {
                *known = Some((number, record.clone()));
            }
        }
        if let Place::Room(room) = place {
            self.skip(&room, number);
        }
    }

    /// Notes that a followed room changed by the join of a connection that has ended: no member hears of it.
    fn skip(&mut self, room: &RoomId, number: u64) {
        if self.rooms.contains_key(room) {
            self.set_version(room, number);
        }
        self.prune(room);
    }

    fn finish_call(&mut self, now: Instant, conn: ConnId, to: &PeerId, record: Record, number: u64) {
        let callee = match &record.place {
            Place::Call(_, callee) => self.by_stay.get(callee).copied(),
            Place::Lobby | Place::Room(_) => None,
        };
        let caller = record.stay.clone();
        let Some(callee) = callee.filter(|callee| self.state(*callee) == Some(&State::Idle)) else {
            // The callee's connection ended meanwhile: its end reports that the call is over.
            if let Some(stay) = self.stays.get_mut(&conn) {
                (stay.version, stay.record) = (number, record);
                self.outputs.push_back(Output::Close(conn, Reason::CallOver));
                self.leave(now, conn);
            }
            return;
        };
        if let Some(stay) = self.stays.get_mut(&callee) {
            stay.version = number;
            let name = self.hub.name(conn).unwrap_or_else(|| to.clone());
            stay.record.place = Place::Call(name, caller);
        }
        match self.stays.get_mut(&conn) {
            Some(stay) => {
                (stay.version, stay.record) = (number, record);
                self.hub.connect(conn, callee);
            }
            None => {
                self.end_orphan(record, number);
                self.part(callee);
            }
        }
    }

    fn finish_end(
        &mut self,
        now: Instant,
        stay: &StayId,
        reason: Option<Reason>,
        record: &Record,
        number: u64,
    ) {
        if let Place::Room(room) = &record.place {
            self.set_version(&room.clone(), number);
        }
        self.end_here(now, stay, reason);
        match &record.place {
            Place::Lobby => {}
            // The other side, if it is still in this call.
            Place::Call(_, other) => {
                let known = self.by_stay.get(other).and_then(|conn| self.stays.get(conn));
                if known.is_some_and(|known| known.record.is_called_by(other, stay)) {
                    self.closed(now, other, Reason::CallOver);
                }
            }
            Place::Room(room) => self.prune(room),
        }
    }

    /// Removes a stay from the hub, and closes its connection if there is a reason.
    fn end_here(&mut self, now: Instant, stay: &StayId, reason: Option<Reason>) {
        let Some(conn) = self.by_stay.get(stay).copied() else { return };
        let is_open = !is_remote(conn) && !self.closing.contains(&conn);
        self.forget(conn);
        if let (Some(reason), true) = (reason, is_open) {
            if reason == Reason::RoomClosed {
                self.outputs.push_back(Output::Notify(conn, Notice::Stopped));
            }
            self.outputs.push_back(Output::Close(conn, reason));
        }
        self.hub.leave(conn);
        self.drain(now);
    }

    /// Handles a message of another shard.
    pub(super) fn frame(&mut self, now: Instant, number: u64, frame: Frame) {
        match frame {
            Frame::Room { room, prev, change } => self.room_changed(now, number, (&room, prev), change),
            Frame::Called { caller, record, callee } => self.called(now, number, (&caller, &record), &callee),
            Frame::Closed { stay, reason } => self.closed(now, &stay, reason),
            Frame::Described { stay, description } => self.describe(&stay, description, number),
            Frame::Relay { node, n, from, to, in_call, body } => {
                let last = self.heard.entry(node).or_default();
                if n > *last {
                    *last = n;
                    self.relayed_to(now, (&from, &to), in_call, body);
                }
            }
            Frame::Mute { from, of, kind } => {
                let conn = |stay: &StayId| self.by_stay.get(stay).copied();
                let by = from.as_ref().map(|from| conn(from).and_then(|from| self.hub.name(from)));
                let to =
                    conn(&of).filter(|to| matches!(self.state(*to), Some(State::Room(_))) && !is_remote(*to));
                if let (None | Some(Some(_)), Some(to)) = (&by, to) {
                    self.outputs.push_back(Output::Notify(to, Notice::MuteRequested(kind, by.flatten())));
                }
            }
            Frame::Moved { stay, node } => {
                let conn = self.by_stay.get(&stay).filter(|conn| is_remote(**conn));
                if let Some(stay) = conn.and_then(|conn| self.stays.get_mut(conn)) {
                    stay.record.node = node;
                }
            }
            Frame::Probe { stay, asker } => self.probe(now, stay, asker),
            Frame::Alive { stay } => self.holder_is_alive(now, &stay),
            Frame::Late { stay } => self.holder_is_late(now, &stay),
        }
    }

    fn room_changed(
        &mut self,
        now: Instant,
        number: u64,
        (room, prev): (&RoomId, Option<u64>),
        change: Change,
    ) {
        let Some(mirror) = self.rooms.get_mut(room) else { return };
        if mirror.is_stale || Some(number) <= mirror.version {
            return;
        }
        if prev != mirror.version {
            mirror.is_stale = true;
            self.repairs.push_back(Job::Reread { room: room.clone() });
            return;
        }
        mirror.version = Some(number);
        match change {
            Change::Put(name, record) => self.put(room, &name, record, number),
            Change::Left(_, stay) => {
                // Another shard gave back the name of an own member: the connection must not stay open without it.
                self.end_here(now, &stay, Some(Reason::Expired));
                self.prune(room);
            }
        }
    }

    /// Adds a remote member to a followed room, or renews a record. An own connection enters a room by the outcome of its own
    /// transaction alone: a record in the room may be of a join whose outcome was lost.
    pub(super) fn put(&mut self, room: &RoomId, name: &PeerId, record: Record, version: u64) {
        let conn = self.by_stay.get(&record.stay).copied();
        let conn = conn.unwrap_or_else(|| self.meet(name, version, &record));
        let description = record.description.clone();
        self.update(conn, version, record);
        let place = State::Room(room.clone());
        if is_remote(conn) && self.state(conn) == Some(&State::Idle) {
            self.hub.seat(conn, Owner::default(), room.clone());
        } else if self.state(conn) == Some(&place) {
            self.describe_member(conn, name, description);
        }
    }

    fn update(&mut self, conn: ConnId, version: u64, record: Record) {
        if let Some(copy) = self.hub.conns.get_mut(&conn).filter(|_| is_remote(conn)) {
            (copy.grant.calls, copy.grant.is_hidden) = (record.calls.clone(), record.is_hidden);
        }
        if let Some(stay) = self.stays.get_mut(&conn) {
            stay.version = version;
            stay.record.node = record.node;
            stay.record.description = record.description;
        }
    }

    fn describe_member(&mut self, conn: ConnId, name: &PeerId, description: serde_json::Value) {
        if self.hub.conns.get(&conn).is_some_and(|conn| conn.description != description) {
            self.hub.admin(crate::hub::Admin::Describe(name.clone(), description));
        }
    }

    /// Sets the description of a peer that is in no room.
    fn describe(&mut self, stay: &StayId, description: serde_json::Value, version: u64) {
        let Some(conn) = self.by_stay.get(stay).copied() else { return };
        let Some(stay) = self.stays.get_mut(&conn) else { return };
        (stay.version, stay.record.description) = (version, description.clone());
        let name = stay.name.clone();
        self.describe_member(conn, &name, description);
    }

    fn called(&mut self, now: Instant, number: u64, (caller, record): (&PeerId, &Record), callee: &StayId) {
        let conn = self.by_stay.get(callee).copied();
        let Some(conn) = conn.filter(|conn| self.state(*conn) == Some(&State::Idle)) else { return };
        let remote = self.meet(caller, number, record);
        if let Some(stay) = self.stays.get_mut(&conn) {
            stay.version = number;
            stay.record.place = Place::Call(caller.clone(), record.stay.clone());
        }
        self.hub.connect(remote, conn);
        self.drain(now);
    }

    fn closed(&mut self, now: Instant, stay: &StayId, reason: Reason) {
        let Some(conn) = self.by_stay.get(stay).copied().filter(|conn| !is_remote(*conn)) else { return };
        let end = self.stays.get(&conn).map(end_of);
        let room = match self.state(conn) {
            Some(State::Room(room)) => Some(room.clone()),
            Some(State::Unregistered | State::Idle | State::Call(_)) | None => None,
        };
        self.end_here(now, stay, Some(reason));
        if reason == Reason::CallOver {
            self.jobs.extend(end.map(|end| (now, end)));
        }
        room.into_iter().for_each(|room| self.prune(&room));
    }

    fn relayed_to(&mut self, now: Instant, (from, to): (&StayId, &StayId), in_call: bool, body: String) {
        let of = |stay: &StayId| self.by_stay.get(stay).copied();
        let (Some(from), Some(to)) = (of(from), of(to)) else { return };
        if !is_remote(from) || is_remote(to) {
            return;
        }
        let command = match (in_call, self.hub.name(to)) {
            (true, _) if self.state(from) == Some(&State::Call(to)) => Command::Relay(body),
            (false, Some(to)) if matches!(self.state(from), Some(State::Room(_))) => {
                Command::Send { to, body }
            }
            _ => return,
        };
        self.sender = Some(from);
        self.hub.handle_input(now, Input::Command(from, command));
    }

    /// Returns the connection of a registered peer, which becomes known if it was not.
    pub(super) fn meet(&mut self, name: &PeerId, version: u64, record: &Record) -> ConnId {
        if let Some(conn) = self.by_stay.get(&record.stay).copied() {
            self.update(conn, version, record.clone());
            return conn;
        }
        self.hub.names.get(name).copied().into_iter().for_each(|conn| self.dismiss(conn));
        let conn = ConnId(self.next_remote);
        self.next_remote += 1;
        self.hub.open_remote(conn, name.clone(), record.grant());
        self.remember(conn, Stay { name: name.clone(), version, record: record.clone() });
        conn
    }

    /// Removes a connection whose name has another holder by the engine's order.
    fn dismiss(&mut self, conn: ConnId) {
        self.forget(conn);
        if !is_remote(conn) {
            self.outputs.push_back(Output::Close(conn, Reason::Replaced));
        }
        self.hub.leave(conn);
    }

    /// Removes the connection that the shard knows under a name, if it is of another stay.
    pub(super) fn expel(&mut self, now: Instant, name: &PeerId, stay: &StayId) {
        if let Some(conn) = self.hub.names.get(name).copied()
            && self.by_stay.get(stay) != Some(&conn)
        {
            self.dismiss(conn);
            self.drain(now);
        }
    }

    /// Forgets a remote peer that is in no room and no call of this shard.
    pub(super) fn part(&mut self, conn: ConnId) {
        if is_remote(conn) && self.state(conn) == Some(&State::Idle) {
            self.forget(conn);
            self.hub.leave(conn);
        }
    }

    /// Makes a room what the engine says it is. Members hear the differences.
    pub(super) fn mirror(&mut self, room: &RoomId, view: &RoomView) {
        let version = view.version.unwrap_or_default();
        let is_current = |mirror: &Mirror| mirror.version == view.version && !mirror.is_stale;
        let followed = self.rooms.get(room).is_some_and(is_current);
        if followed || (view.version.is_none() && !self.rooms.contains_key(room)) {
            return;
        }
        let members = self.hub.rooms.get(room).map(|room| room.members.clone()).unwrap_or_default();
        for conn in members.into_iter().filter(|conn| is_remote(*conn)) {
            let stay = self.stays.get(&conn).map(|stay| (stay.name.clone(), stay.record.stay.clone()));
            let is_there = stay.is_some_and(|(name, stay)| {
                view.members.get(&name).is_some_and(|record| record.stay == stay)
            });
            if !is_there {
                self.forget(conn);
                self.hub.leave(conn);
            }
        }
        for (name, record) in &view.members {
            let is_own = record.node == self.me && !self.by_stay.contains_key(&record.stay);
            if !is_own {
                let is_new = !self.hub.rooms.contains_key(room);
                let conn = self.meet(name, version, record);
                if is_new && is_remote(conn) && self.state(conn) == Some(&State::Idle) {
                    self.hub.seat(conn, view.owner, room.clone());
                } else {
                    self.put(room, name, record.clone(), version);
                }
            }
        }
        self.set_version_to(room, view.version);
    }

    fn set_version(&mut self, room: &RoomId, version: u64) {
        self.set_version_to(room, Some(version));
    }

    fn set_version_to(&mut self, room: &RoomId, version: Option<u64>) {
        match self.rooms.get_mut(room) {
            Some(mirror) => (mirror.version, mirror.is_stale) = (version, false),
            None if self.hub.rooms.contains_key(room) => {
                self.rooms.insert(room.clone(), Mirror { version, is_stale: false });
            }
            None => {}
        }
    }

    /// Stops following a room without own connections.
    pub(super) fn prune(&mut self, room: &RoomId) {
        let members = self.hub.rooms.get(room).map(|room| room.members.clone()).unwrap_or_default();
        if members.iter().any(|conn| !is_remote(*conn)) {
            return;
        }
        for conn in members {
            self.forget(conn);
            self.hub.leave(conn);
        }
        self.rooms.remove(room);
    }
}
