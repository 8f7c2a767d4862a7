//! Claims for names that another connection holds: the holder is asked for a sign of life, through its shard.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::data::{Frame, NodeId, Record, StayId};
use super::jobs::{Claimed, Job, Plan};
use super::{Shard, is_remote};
use crate::hub::{ConnId, Output, Reason, Refusal};
use crate::protocol::PeerId;

/// The time added to a probe, so that its outcome arrives from another shard.
const MARGIN: Duration = Duration::from_secs(1);

impl Shard {
    /// Asks the holder of a name for a sign of life; the registration waits for the outcome.
    pub(super) fn claim(&mut self, now: Instant, name: &PeerId, holder: &Record, job: &Job) -> Plan {
        if holder.is_assigned {
            self.refuse_claim(now, job);
            return Plan::Done;
        }
        let deadline = now + self.limits.probe + MARGIN;
        let claimed = self.claims.entry(holder.stay.clone()).or_insert_with(|| Claimed {
            deadline,
            name: name.clone(),
            waiting: VecDeque::new(),
        });
        claimed.waiting.push_back(job.clone());
        if claimed.waiting.len() == 1 {
            if holder.node == self.me {
                self.probe(now, holder.stay.clone(), self.me.clone());
            } else {
                let frame = Frame::Probe { stay: holder.stay.clone(), asker: self.me.clone() };
                self.send(holder.node.clone(), frame.to_text());
            }
        }
        Plan::Waits
    }

    /// Asks an own connection for a sign of life. A stay without a connection gives none.
    pub(super) fn probe(&mut self, now: Instant, stay: StayId, asker: NodeId) {
        let conn = self.by_stay.get(&stay).copied().filter(|conn| !is_remote(*conn));
        let Some(conn) = conn.filter(|conn| !self.closing.contains(conn)) else { return };
        let deadline = now + self.limits.probe;
        let (_, askers) = self.asked.entry(conn).or_insert_with(|| (deadline, BTreeSet::new()));
        let is_first = askers.is_empty();
        askers.insert(asker);
        if is_first {
            self.outputs.push_back(Output::Probe(conn));
        }
    }

    /// Reports that an own connection gave a sign of life to those that asked for it.
    pub(super) fn report_alive(&mut self, conn: ConnId) {
        let Some((_, askers)) = self.asked.remove(&conn) else { return };
        let Some(stay) = self.stays.get(&conn).map(|stay| stay.record.stay.clone()) else { return };
        for asker in askers {
            self.send_frame(&asker, &Frame::Alive { stay: stay.clone() });
        }
    }

    /// Reports that the sign of life of an own connection may still be under way.
    pub(super) fn report_late(&mut self, now: Instant, conn: ConnId) {
        let Some((deadline, askers)) = self.asked.get_mut(&conn) else { return };
        *deadline = now + self.limits.probe;
        let askers = askers.clone();
        let Some(stay) = self.stays.get(&conn).map(|stay| stay.record.stay.clone()) else { return };
        for asker in askers {
            self.send_frame(&asker, &Frame::Late { stay: stay.clone() });
        }
    }

    /// Sends a frame to an attachment, which may be the own one.
    pub(super) fn send_frame(&mut self, to: &NodeId, frame: &Frame) {
        self.send(to.clone(), frame.to_text());
    }

    /// Refuses the claims for the name of a stay that is alive.
    pub(super) fn holder_is_alive(&mut self, now: Instant, stay: &StayId) {
        let waiting = self.claims.remove(stay).map(|claimed| claimed.waiting);
        for job in waiting.into_iter().flatten() {
            self.done(&job);
            self.refuse_claim(now, &job);
        }
    }

    pub(super) fn holder_is_late(&mut self, now: Instant, stay: &StayId) {
        if let Some(claimed) = self.claims.get_mut(stay) {
            claimed.deadline = now + self.limits.probe + MARGIN;
        }
    }

    /// Removes the holders that gave no sign of life in time; the claims are made again.
    pub(super) fn expire_claims(&mut self, now: Instant) {
        self.asked.retain(|_, (deadline, _)| *deadline > now);
        let over = self.claims.iter().filter(|(_, claimed)| claimed.deadline <= now);
        let over: Vec<StayId> = over.map(|(stay, _)| stay.clone()).collect();
        for stay in over {
            let Some(Claimed { name, waiting, .. }) = self.claims.remove(&stay) else { continue };
            let reason = Some(Reason::Replaced);
            self.jobs.push_back((now, Job::End { name, stay, of: None, reason, known: None }));
            self.jobs.extend(waiting.into_iter().map(|job| (now, job)));
        }
    }

    /// Drops the claims of a connection that has ended.
    pub(super) fn drop_claims(&mut self, conn: ConnId) {
        for claimed in self.claims.values_mut() {
            claimed.waiting.retain(|job| job.conn() != Some(conn));
        }
        self.claims.retain(|_, claimed| !claimed.waiting.is_empty());
        if self.state(conn).is_none_or(|state| *state == crate::hub::State::Unregistered) {
            self.jobs.retain(|(_, job)| job.conn() != Some(conn));
            self.asking.remove(&conn);
        }
    }

    /// Refuses a claim. A claim without a room also closes the claimant's connection, as the hub does.
    fn refuse_claim(&mut self, now: Instant, job: &Job) {
        let Job::Register { conn, room, .. } = job else { return };
        if room.is_some() {
            return self.refuse(*conn, Refusal::IdTaken);
        }
        self.outputs.push_back(Output::Close(*conn, Reason::IdTaken));
        self.leave(now, *conn);
    }
}
