//! Claims for names that another connection holds: the holder is asked for a sign of life, through its shard. Question and
//! answer are sent in transactions, so that no broken connection loses them, and before a holder is removed the inbox has been
//! read up to that time.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::data::{Frame, Key, NodeId, Record, StayId, Tx};
use super::jobs::{Claimed, Job, Plan};
use super::plan::{Reads, read};
use super::{Shard, WAIT, is_remote};
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
        let claimed = self.claims.entry(holder.stay.clone()).or_insert_with(|| Claimed {
            deadline: None,
            end: now + WAIT,
            name: name.clone(),
            node: holder.node.clone(),
            waiting: VecDeque::new(),
        });
        claimed.waiting.push_back(job.clone());
        if claimed.waiting.len() == 1 {
            if holder.node == self.me {
                self.holder_is_asked(now, &holder.stay);
                self.probe(now, holder.stay.clone(), self.me.clone());
            } else {
                let frame = Frame::Probe { stay: holder.stay.clone(), asker: self.me.clone() };
                self.jobs.push_front((now, Job::Tell { node: holder.node.clone(), frame }));
            }
        }
        Plan::Waits
    }

    /// Notes that the holder's shard has the question, or more time for the answer.
    fn holder_is_asked(&mut self, now: Instant, stay: &StayId) {
        if let Some(claimed) = self.claims.get_mut(stay) {
            let deadline = now + self.limits.probe + MARGIN;
            (claimed.deadline, claimed.end) = (Some(deadline), deadline + WAIT);
        }
    }

    pub(super) fn plan_tell(&mut self, now: Instant, node: &NodeId, frame: &Frame, reads: Reads<'_>) -> Plan {
        if reads.0.is_none() {
            let mut tx = Tx::default();
            tx.send(node, frame);
            return Plan::Tx(tx.into(), None);
        }
        if let Frame::Probe { stay, asker } = frame
            && *asker == self.me
        {
            self.holder_is_asked(now, stay);
        }
        Plan::Done
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
    pub(super) fn report_alive(&mut self, now: Instant, conn: ConnId) {
        let Some((_, askers)) = self.asked.remove(&conn) else { return };
        let Some(stay) = self.stays.get(&conn).map(|stay| stay.record.stay.clone()) else { return };
        for asker in askers {
            if asker == self.me {
                self.holder_is_alive(now, &stay);
            } else {
                self.tell(asker, Frame::Alive { stay: stay.clone() });
            }
        }
    }

    /// Reports that the sign of life of an own connection may still be under way.
    pub(super) fn report_late(&mut self, now: Instant, conn: ConnId) {
        let Some((deadline, askers)) = self.asked.get_mut(&conn) else { return };
        *deadline = now + self.limits.probe;
        let askers = askers.clone();
        let Some(stay) = self.stays.get(&conn).map(|stay| stay.record.stay.clone()) else { return };
        for asker in askers {
            if asker == self.me {
                self.holder_is_asked(now, &stay);
            } else {
                self.tell(asker, Frame::Late { stay: stay.clone() });
            }
        }
    }

    /// Sends an answer before all other jobs: the asker waits for a fixed time.
    fn tell(&mut self, node: NodeId, frame: Frame) {
        self.repairs.push_front(Job::Tell { node, frame });
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
        self.holder_is_asked(now, stay);
    }

    /// Has the holders removed that gave no sign of life in time, and refuses the claims that the engine keeps waiting.
    pub(super) fn expire_claims(&mut self, now: Instant) {
        self.asked.retain(|_, (deadline, _)| *deadline > now);
        for (stay, claimed) in &mut self.claims {
            if claimed.deadline.take_if(|deadline| *deadline <= now).is_some() {
                self.jobs.push_back((now, Job::Replace { stay: stay.clone() }));
            }
        }
        let over = self.claims.iter().filter(|(_, claimed)| claimed.end <= now);
        let over: Vec<StayId> = over.map(|(stay, _)| stay.clone()).collect();
        for stay in over {
            let waiting = self.claims.remove(&stay).map(|claimed| claimed.waiting);
            waiting.into_iter().flatten().for_each(|job| self.refuse_late(now, &job));
        }
    }

    /// Removes a holder that gave no sign of life before the engine's answer, unless it has more time or another attachment has
    /// its connection now; the claims are made again.
    pub(super) fn plan_replace(&mut self, now: Instant, stay: &StayId, reads: Reads<'_>) -> Plan {
        let expired = self.claims.get(stay).filter(|claimed| claimed.deadline.is_none());
        let Some(Claimed { name, node, .. }) = expired else { return Plan::Done };
        let Some(found) = reads.peer(name) else { return read([Key::peer(name)]) };
        let is_asked = found.as_ref().is_some_and(|(_, record)| record.stay == *stay && record.node == *node);
        if let Some(Claimed { name, waiting, .. }) = self.claims.remove(stay) {
            waiting.into_iter().rev().for_each(|job| self.jobs.push_front((now, job)));
            if is_asked {
                let (stay, reason) = (stay.clone(), Some(Reason::Replaced));
                self.jobs.push_front((now, Job::End { name, stay, of: None, reason, known: found }));
            }
        }
        Plan::Done
    }

    /// Makes all claims again: answers to the earlier attachment do not arrive.
    pub(super) fn renew_claims(&mut self, now: Instant) {
        let claims = std::mem::take(&mut self.claims).into_values();
        self.jobs.extend(claims.flat_map(|claimed| claimed.waiting).map(|job| (now, job)));
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
