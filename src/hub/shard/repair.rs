//! Attaching again: after the engine lost data, or counted the shard as dead, the shard records its own connections
//! again, and compares its rooms and calls with the engine's.

use std::time::{Duration, Instant};

use super::data::{Ask, Attach, Attached, Change, Cluster, Frame, Key, NodeId, Place, Record, RoomView, Tx};
use super::jobs::{Job, Plan, Settling};
use super::plan::{Reads, read};
use super::{InFlight, SETTLE, Shard, is_remote};
use crate::hub::{ConnId, Output, Owner, Reason, State};
use crate::protocol::{PeerId, RoomId};

/// The beats after attaching that the engine has to answer before a shard counts its view as complete: where the whole
/// machine paused, time alone does not show that the other shards had their turn.
const BEATS: usize = 2;

impl Shard {
    /// Asks for a new attachment.
    pub(super) fn attach(&mut self, is_rewound: bool) {
        (self.is_attached, self.is_rewound) = (false, is_rewound);
        self.attachments += 1;
        self.asks.extend(self.attaching().map(Ask::Attach));
    }

    /// Attaches again, for an inbox that delivers nothing.
    pub fn renew(&mut self) {
        if self.is_attached {
            self.attach(false);
        }
    }

    /// Returns the requests to send first over a new connection to the engine: what became of earlier requests is unknown.
    pub fn reconnect(&mut self) -> Vec<Ask> {
        self.asks.retain(|ask| matches!(ask, Ask::Send(..)));
        if !self.is_attached {
            // A new name, so that an attachment of the lost connection does not count.
            self.attachments += 1;
        }
        let tx = self.in_flight.as_ref().filter(|_| self.is_attached).map(|one| Ask::Tx(one.tx.clone()));
        self.attaching().map(Ask::Attach).into_iter().chain(tx).collect()
    }

    fn attaching(&self) -> Option<Attach> {
        let node = NodeId(format!("{}.{}", self.base, self.attachments));
        let old = Some(self.me.clone()).filter(|old| !old.0.is_empty());
        let attach = Attach { node, old, epoch: self.epoch.clone(), is_rewound: self.is_rewound };
        (!self.is_attached).then_some(attach)
    }

    pub(super) fn attached(&mut self, now: Instant, attached: Attached) {
        if self.is_attached || attached.node.0 != format!("{}.{}", self.base, self.attachments) {
            return;
        }
        let old = std::mem::replace(&mut self.me, attached.node);
        let is_new = self.epoch.as_ref() != Some(&attached.epoch);
        let is_first = self.epoch.is_none();
        self.epoch = Some(attached.epoch);
        (self.is_attached, self.is_rewound) = (true, false);
        (self.op, self.known_op, self.place, self.relayed) = (0, 0, 0, 0);
        self.heard.clear();
        if let Some(InFlight { job, is_refused: false, since, .. }) = self.in_flight.take()
            && !matches!(job, Job::Assert { .. } | Job::Reread { .. } | Job::Verify { .. })
        {
            self.jobs.push_front((since, job));
        }
        if is_first {
            return;
        }
        self.renew_claims(now);
        // Numbers begin anew with an epoch: an earlier version says nothing.
        for job in self.repairs.iter_mut().chain(self.jobs.iter_mut().map(|(_, job)| job)) {
            if let Job::End { known, .. } = job {
                *known = None;
            }
        }
        self.stays.values_mut().for_each(|stay| stay.version = 0);
        let kept = |job: &Job| matches!(job, Job::End { .. } | Job::Reap { .. } | Job::Tell { .. });
        let rest: Vec<Job> = self.repairs.drain(..).filter(kept).collect();
        let mut own: Vec<ConnId> = self.stays.keys().copied().filter(|conn| !is_remote(*conn)).collect();
        own.sort();
        let revive = is_new && attached.is_young;
        self.repairs.extend(own.into_iter().map(|conn| Job::Assert { conn, revive }));
        self.repairs.extend(rest);
        self.repairs.push_back(Job::Reap { node: old });
        self.rooms.values_mut().for_each(|mirror| mirror.is_stale = true);
        let (time, beats) = if is_new { (SETTLE, BEATS) } else { (Duration::ZERO, 0) };
        self.settling = Some(Settling { until: now + time, beats });
    }

    /// Compares rooms and calls with the engine's, once all shards had time to assert theirs.
    pub(super) fn end_settling(&mut self, now: Instant) {
        let due = self.settling.as_ref().and_then(Settling::due);
        if !self.is_attached || due.is_none_or(|at| at > now) {
            return;
        }
        self.settling = None;
        let mut rooms: Vec<RoomId> = self.rooms.keys().cloned().collect();
        rooms.sort();
        self.repairs.extend(rooms.into_iter().map(|room| Job::Reread { room }));
        let in_call = |(conn, stay): (&ConnId, &super::Stay)| {
            (!is_remote(*conn) && matches!(stay.record.place, Place::Call(..))).then_some(*conn)
        };
        let mut calls: Vec<ConnId> = self.stays.iter().filter_map(in_call).collect();
        calls.sort();
        self.repairs.extend(calls.into_iter().map(|conn| Job::Verify { conn }));
    }

    /// Records an own connection again. The engine's record of the same stay is corrected; another stay's is respected.
    pub(super) fn plan_assert(&mut self, now: Instant, conn: ConnId, revive: bool, reads: Reads<'_>) -> Plan {
        let Some(stay) = self.stays.get(&conn) else { return Plan::Done };
        let (name, known) = (stay.name.clone(), stay.record.clone());
        let room = match &known.place {
            Place::Room(room) => Some(room.clone()),
            Place::Lobby | Place::Call(..) => None,
        };
        let Some(found) = reads.peer(&name) else {
            return read([Key::peer(&name)].into_iter().chain(room.as_ref().map(Key::room)));
        };
        let version = match &found {
            None if !revive => return self.give_up(now, conn, Reason::Expired),
            Some((_, record)) if record.stay != known.stay => {
                return self.give_up(now, conn, Reason::Replaced);
            }
            found => found.as_ref().map(|(version, _)| *version),
        };
        let record = Record { node: self.me.clone(), ..known };
        let mut tx = Tx::default();
        tx.guard(Key::peer(&name), version);
        if let Some((_, earlier)) = &found {
            if earlier.node != self.me {
                tx.write(Key::names(&earlier.node), name.as_str(), "");
            }
            if let Place::Room(left) = &earlier.place
                && Some(left) != room.as_ref()
            {
                // A join whose outcome was lost: it is made again.
                let Some(view) = reads.room(left) else { return read([Key::peer(&name), Key::room(left)]) };
                self.take_from_room(&mut tx, left, &view, (&name, &record.stay));
            }
        }
        if let Some(wait) =
            self.report_move(&mut tx, &name, &record, found.as_ref().map(|(_, record)| &record.place), reads)
        {
            return wait;
        }
        tx.put_peer(&name, &record);
        if let Some(room) = &room {
            let Some(view) = reads.room(room) else { return read([Key::peer(&name), Key::room(room)]) };
            tx.guard(Key::room(room), view.version);
            let owner = self.hub.rooms.get(room).map_or_else(Owner::default, |room| room.owner);
            tx.put_member(room, owner, &name, &record);
            let nodes = view.members.values().map(|member| member.node.clone()).collect();
            let change = Change::Put(name, record.clone());
            self.send_to_room(
                &mut tx,
                &nodes,
                Frame::Room { room: room.clone(), prev: view.version, change },
            );
        }
        Plan::Tx(tx.into(), Some(record.into()))
    }

    /// Reports to the other side of a call that an own connection belongs to a new attachment, or that a call whose
    /// beginning was lost is over. Returns a transaction that has to come before.
    fn report_move(
        &self,
        tx: &mut Tx,
        name: &PeerId,
        record: &Record,
        earlier: Option<&Place>,
        reads: Reads<'_>,
    ) -> Option<Plan> {
        let lost = earlier.filter(|place| **place != record.place);
        for (place, is_lost) in [(Some(&record.place), false), (lost, true)] {
            let Some(Place::Call(other, stay)) = place else { continue };
            let Some(found) = reads.peer(other) else {
                return Some(read([Key::peer(name), Key::peer(other)]));
            };
            let Some((_, partner)) = found.filter(|(_, partner)| partner.is_called_by(stay, &record.stay))
            else {
                continue;
            };
            let frame = match is_lost {
                true => Frame::Closed { stay: stay.clone(), reason: Reason::CallOver },
                false => Frame::Moved { stay: record.stay.clone(), node: self.me.clone() },
            };
            tx.send(&partner.node, &frame);
        }
        None
    }

    /// Closes an own connection that the engine does not count as registered.
    fn give_up(&mut self, now: Instant, conn: ConnId, reason: Reason) -> Plan {
        let is_open = !self.closing.contains(&conn);
        let room = match self.state(conn) {
            Some(State::Room(room)) => Some(room.clone()),
            Some(State::Unregistered | State::Idle | State::Call(_)) | None => None,
        };
        self.forget(conn);
        if is_open {
            self.outputs.push_back(Output::Close(conn, reason));
        }
        self.hub.leave(conn);
        self.drain(now);
        room.into_iter().for_each(|room| self.prune(&room));
        Plan::Done
    }

    pub(super) fn plan_reread(&mut self, now: Instant, room: &RoomId, reads: Reads<'_>) -> Plan {
        if !self.rooms.contains_key(room) {
            return Plan::Done;
        }
        let Some(fields) = reads.fields(&Key::room(room)) else { return read([Key::room(room)]) };
        let view = RoomView::parse(fields);
        if let Some(mirror) = self.rooms.get_mut(room) {
            mirror.is_stale = true;
        }
        self.mirror(room, &view);
        self.drain(now);
        self.prune(room);
        Plan::Done
    }

    pub(super) fn plan_verify(&mut self, now: Instant, conn: ConnId, reads: Reads<'_>) -> Plan {
        let Some(stay) = self.stays.get(&conn) else { return Plan::Done };
        let Place::Call(other, other_stay) = stay.record.place.clone() else { return Plan::Done };
        let own = stay.record.stay.clone();
        let Some(found) = reads.peer(&other) else { return read([Key::peer(&other)]) };
        let is_there = found.as_ref().is_some_and(|(_, record)| record.is_called_by(&other_stay, &own));
        if let Some((version, record)) = found.filter(|_| is_there) {
            self.meet(&other, version, &record);
            return Plan::Done;
        }
        self.outputs.push_back(Output::Close(conn, Reason::CallOver));
        self.leave(now, conn);
        Plan::Done
    }

    /// Handles the answer to a beat: gives back the names of attachments that have ended.
    pub(super) fn reap_all(&mut self, cluster: Cluster) {
        if let Some(settling) = self.settling.as_mut().filter(|_| self.is_attached) {
            settling.beats = settling.beats.saturating_sub(1);
        }
        if !cluster.is_first || self.settling.is_some() {
            return;
        }
        for node in cluster.dead {
            if self.reaping.insert(node.clone()) {
                self.repairs.push_back(Job::Reap { node });
            }
        }
    }

    pub(super) fn plan_reap(&mut self, node: &NodeId, reads: Reads<'_>) -> Plan {
        let Some(fields) = reads.fields(&Key::names(node)) else { return read([Key::names(node)]) };
        if fields.is_empty() {
            let mut tx = Tx::default();
            tx.write(Key::dead(), &node.0, "");
            return Plan::Tx(tx.into(), None);
        }
        let mut strange = Tx::default();
        for (name, stay) in fields {
            let Ok(name) = name.parse() else {
                // No shard writes such a name: without its removal the list would never be empty.
                strange.write(Key::names(node), name, "");
                continue;
            };
            let (stay, of) = (super::StayId(stay.clone()), Some(node.clone()));
            self.repairs.push_back(Job::End { name, stay, of, reason: None, known: None });
        }
        if !strange.writes.is_empty() {
            return Plan::Tx(strange.into(), None);
        }
        self.repairs.push_back(Job::Reap { node: node.clone() });
        Plan::Done
    }
}
