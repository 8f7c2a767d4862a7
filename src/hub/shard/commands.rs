//! Requests of own connections: those that concern other shards become jobs.

use std::time::Instant;

use super::data::{Ask, Frame, NodeId};
use super::jobs::Job;
use super::{InFlight, Shard, WAIT, WAITING, end_of};
use crate::hub::{Command, ConnId, Input, Measure, Notice, Output, Reason, Refusal, State};
use crate::protocol::PeerId;

impl Shard {
    pub(super) fn command(&mut self, now: Instant, conn: ConnId, command: Command) {
        let Some(state) = self.state(conn).cloned() else { return };
        if self.closing.contains(&conn) {
            return;
        }
        if let (Command::Moderate(name, Measure::Remove), State::Room(room)) = (&command, &state)
            && self.hub.may(conn, |grant| grant.moderates.allows(room))
            && let Some(stay) = self.hub.member(conn, room, name).and_then(|other| self.stays.get(&other))
        {
            if !self.takes_orders() {
                return self.refuse(conn, Refusal::Unavailable);
            }
            let (name, stay, reason) =
                (name.clone(), stay.record.stay.clone(), Some(Reason::RemovedByModerator));
            return self.jobs.push_back((now, Job::End { name, stay, of: None, reason, known: None }));
        }
        let is_elsewhere =
            |to: &PeerId| self.hub.names.get(to).is_none_or(|to| self.state(*to) != Some(&state));
        let may = |name: &PeerId| self.hub.may(conn, |grant| grant.allows_name(name));
        let job = match (command, &state) {
            (Command::Register(name), State::Unregistered) if may(&name) => {
                Job::Register { conn, name, room: None }
            }
            (Command::Enter(name, room), State::Unregistered) if may(&name) => {
                Job::Register { conn, name, room: Some(room) }
            }
            (Command::Join(room), State::Idle) => Job::Join { conn, room },
            (Command::Call(to), State::Idle) => Job::Call { conn, to },
            (Command::ListPeers, State::Idle) => Job::List { conn },
            (Command::Send { to, body }, State::Room(_)) if is_elsewhere(&to) => Job::Send { conn, to, body },
            (command, _) => return self.hub.handle_input(now, Input::Command(conn, command)),
        };
        if self.is_full && matches!(job, Job::Register { .. }) {
            return self.refuse_late(now, &job);
        }
        *self.asking.entry(conn).or_default() += 1;
        self.jobs.push_back((now, job));
    }

    /// Has the engine record the permissions of a registered connection, which may have changed.
    pub(super) fn renew_grant(&mut self, now: Instant, conn: ConnId) {
        let is_waiting = |(_, job): &(Instant, Job)| matches!(job, Job::Grant { conn: one } if *one == conn);
        if self.stays.contains_key(&conn) && !self.jobs.iter().any(is_waiting) {
            self.jobs.push_back((now, Job::Grant { conn }));
        }
    }

    /// Handles the end of an own connection. A member of a room leaves when the engine has recorded it, so that all
    /// members hear all changes in one order.
    pub(super) fn close(&mut self, now: Instant, conn: ConnId) {
        self.drop_claims(conn);
        match self.state(conn) {
            Some(State::Room(_)) => {
                if self.closing.insert(conn)
                    && let Some(end) = self.stays.get(&conn).map(end_of)
                {
                    self.jobs.push_back((now, end));
                }
            }
            Some(State::Unregistered | State::Idle | State::Call(_)) => self.leave(now, conn),
            None => {}
        }
    }

    /// Removes an own connection at once, and has the engine record it.
    pub(super) fn leave(&mut self, now: Instant, conn: ConnId) {
        self.hub.leave(conn);
        if let Some(stay) = self.forget(conn) {
            self.jobs.push_back((now, end_of(&stay)));
        }
    }

    /// Sends a text for a remote peer to its shard. Other notices are the other shard's own concern.
    pub(super) fn relay(&mut self, conn: ConnId, notice: Notice) {
        if let Notice::MuteRequested(kind, Some(by)) = &notice {
            let by = self.hub.names.get(by).and_then(|by| self.stays.get(by));
            if let (Some(by), Some(to)) = (by, self.stays.get(&conn)) {
                let (from, of) = (Some(by.record.stay.clone()), to.record.stay.clone());
                let node = to.record.node.clone();
                self.send(node, Frame::Mute { from, of, kind: *kind }.to_text());
            }
            return;
        }
        let (from, in_call, body) = match (notice, self.state(conn)) {
            (Notice::Relayed(body), Some(State::Call(from))) => (Some(*from), true, body),
            (Notice::From { from, body }, _) => (self.hub.names.get(&from).copied(), false, body),
            _ => return,
        };
        let Some(from) = from.and_then(|from| self.stays.get(&from)) else { return };
        let Some(to) = self.stays.get(&conn) else { return };
        self.relayed += 1;
        let frame = Frame::Relay {
            node: self.me.clone(),
            n: self.relayed,
            from: from.record.stay.clone(),
            to: to.record.stay.clone(),
            in_call,
            body,
        };
        let (node, text) = (to.record.node.clone(), frame.to_text());
        if self.waiting + text.len() > WAITING {
            self.dropped += 1;
            return;
        }
        self.send(node, text);
    }

    /// Appends a message outside of transactions to an inbox.
    pub(super) fn send(&mut self, to: NodeId, text: String) {
        self.waiting += text.len();
        self.asks.push_back(Ask::Send(to, text));
    }

    pub(super) fn refuse_late_jobs(&mut self, now: Instant) {
        let is_late = |one: &&mut InFlight| one.has_waiting() && now >= one.since + WAIT;
        if let Some(one) = self.in_flight.as_mut().filter(is_late) {
            one.is_refused = true;
            let job = one.job.clone();
            self.refuse_late(now, &job);
        }
        let is_late = |(since, job): &(Instant, Job)| job.conn().is_some() && now >= *since + WAIT;
        let (late, jobs): (Vec<_>, Vec<_>) = self.jobs.drain(..).partition(is_late);
        self.jobs = jobs.into();
        for (_, job) in late {
            self.refuse_late(now, &job);
        }
    }

    /// Tells the connection that waits for a job that the engine is away or full, and closes a connection that is not registered.
    pub(super) fn refuse_late(&mut self, now: Instant, job: &Job) {
        let Some(conn) = job.conn() else { return };
        self.done(job);
        if !matches!(job, Job::Register { .. }) {
            self.refuse(conn, Refusal::Unavailable);
        } else if self.state(conn) == Some(&State::Unregistered) {
            self.outputs.push_back(Output::Close(conn, Reason::Unavailable));
            self.leave(now, conn);
        }
    }
}
