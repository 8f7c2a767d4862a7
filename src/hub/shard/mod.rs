//! A hub that is one of several: a shard. Shards share names, rooms and calls through an engine, which orders and
//! arbitrates.
//!
//! A shard contains a [`Hub`] with the shard's own connections and copies of the remote peers in their rooms and calls.
//! A command that concerns other shards becomes a job. A job's rules are checked with the hub, its change is a
//! transaction of the engine, and the hub applies the change when the transaction's outcome arrives. The outcome, and
//! the changes of other shards, arrive in the shard's inbox, so that all shards apply all changes in one order. One
//! transaction at a time is under way.
//!
//! Pure: no file of this folder has a clock, chance, a socket or GStreamer.

mod apply;
mod claims;
mod commands;
mod data;
mod jobs;
pub mod model;
mod plan;
mod presence;
mod repair;
pub mod scripts;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

pub use data::{
    Ask, Attach, Attached, Beat, Cluster, Fields, FromEngine, Key, Message, NUMBER, NodeId, Place, Record,
    StayId, Tx, Verdict, Write,
};

use super::{Admin, ConnId, Hub, Input, Limits, Notice, Output, Owner, Refusal, State};
use crate::protocol::{PeerId, RoomId};
use jobs::{Claimed, Job, Plan, Seen, Settling};

/// The time that a request of a peer waits for the engine.
const WAIT: Duration = Duration::from_secs(5);
/// The time after the beginning of a new epoch in which the shards assert what the engine lost.
const SETTLE: Duration = Duration::from_secs(4);
/// The most bytes of texts to other shards that wait for the engine; further texts are dropped.
const WAITING: usize = 8 << 20;
/// The most orders of back ends and moderators that wait for the engine; further ones are refused.
const ORDERS: usize = 1_000;
/// The first number of the connections that stand for peers of other shards.
const REMOTE: u64 = 1 << 63;

/// A registered peer: of this shard, or a copy of another shard's.
#[derive(Debug)]
struct Stay {
    name: PeerId,
    /// The number of the transaction that changed the record last.
    version: u64,
    record: Record,
}

/// A room with connections of this shard.
#[derive(Debug)]
struct Mirror {
    /// The number of the transaction that changed the room last; none if the engine lost the room.
    version: Option<u64>,
    /// A change was missed: the room has to be read again.
    is_stale: bool,
}

/// The transaction that is under way, and the job that it belongs to.
#[derive(Debug)]
struct InFlight {
    since: Instant,
    /// Whether the waiting connection was told that the engine is away. The transaction counts if the engine executes it after
    /// all, and is not tried again.
    is_refused: bool,
    tx: Tx,
    job: Job,
    /// The record that the transaction writes or removes.
    record: Option<Record>,
}

impl InFlight {
    /// Returns whether a connection waits for the outcome.
    fn has_waiting(&self) -> bool {
        self.job.conn().is_some() && !self.is_refused
    }
}

/// See the module.
#[derive(Debug)]
pub struct Shard {
    hub: Hub,
    limits: Limits,
    /// The beginning of the names of all attachments of this shard.
    base: String,
    attachments: u64,
    me: NodeId,
    epoch: Option<String>,
    is_attached: bool,
    /// The engine lost transactions of this shard, so that a new epoch has to begin.
    is_rewound: bool,
    /// The number of the last transaction, and of the last one whose outcome is known.
    op: u64,
    known_op: u64,
    /// The number of the last message of a transaction in the inbox.
    place: u64,
    in_flight: Option<InFlight>,
    /// Jobs that bring shard and engine together again; they go before the others.
    repairs: VecDeque<Job>,
    jobs: VecDeque<(Instant, Job)>,
    /// The number of jobs of each connection.
    asking: HashMap<ConnId, usize>,
    /// Connections whose last job was completed.
    answered: VecDeque<ConnId>,
    stays: HashMap<ConnId, Stay>,
    by_stay: HashMap<StayId, ConnId>,
    rooms: HashMap<RoomId, Mirror>,
    /// Connections in rooms that have ended; they leave when the engine has recorded their end.
    closing: HashSet<ConnId>,
    /// Claims for names, by the stay that holds the name.
    claims: BTreeMap<StayId, Claimed>,
    /// Own connections that were asked for a sign of life: until when, and by which attachments.
    asked: HashMap<ConnId, (Instant, BTreeSet<NodeId>)>,
    /// Attachments whose names are being given back.
    reaping: BTreeSet<NodeId>,
    /// The engine has no memory: newcomers are refused.
    is_full: bool,
    /// The watched peers of other shards that are registered, as they were read last.
    seen: BTreeMap<PeerId, Seen>,
    /// The peers that were read since they were last polled, and the number of reads under way.
    looked: VecDeque<PeerId>,
    looking: usize,
    /// The time in which only assertions are made.
    settling: Option<Settling>,
    next_remote: u64,
    /// The number of texts sent to other shards.
    relayed: u64,
    /// The number of the last text from each attachment.
    heard: HashMap<NodeId, u64>,
    /// The remote peer whose text led to the latest outputs.
    sender: Option<ConnId>,
    outputs: VecDeque<Output>,
    asks: VecDeque<Ask>,
    /// The bytes of the texts among the requests.
    waiting: usize,
    /// The number of texts dropped because too many bytes waited.
    dropped: u64,
}

impl Shard {
    /// Returns a shard that is about to attach to the engine. `base` must be unique among all shards of all times.
    pub fn new(limits: Limits, base: &str) -> Self {
        let mut shard = Self {
            hub: Hub::new(limits),
            limits,
            base: base.to_owned(),
            attachments: 0,
            me: NodeId(String::new()),
            epoch: None,
            is_attached: false,
            is_rewound: false,
            op: 0,
            known_op: 0,
            place: 0,
            in_flight: None,
            repairs: VecDeque::new(),
            jobs: VecDeque::new(),
            asking: HashMap::new(),
            answered: VecDeque::new(),
            stays: HashMap::new(),
            by_stay: HashMap::new(),
            rooms: HashMap::new(),
            closing: HashSet::new(),
            claims: BTreeMap::new(),
            asked: HashMap::new(),
            reaping: BTreeSet::new(),
            is_full: false,
            seen: BTreeMap::new(),
            looked: VecDeque::new(),
            looking: 0,
            settling: None,
            next_remote: REMOTE,
            relayed: 0,
            heard: HashMap::new(),
            sender: None,
            outputs: VecDeque::new(),
            asks: VecDeque::new(),
            waiting: 0,
            dropped: 0,
        };
        shard.attach(false);
        shard
    }

    /// Returns the hub: its connections, and the copies of the remote peers in their rooms and calls.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Handles one input of the server, as [`Hub::handle_input`] does. An order of a back end without space is ignored
    /// ([`Shard::takes_orders`]).
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        self.sender = None;
        match input {
            Input::Opened(..) => self.hub.handle_input(now, input),
            Input::Granted(conn, _) => {
                self.hub.handle_input(now, input);
                self.renew_grant(now, conn);
            }
            Input::Alive(conn) => self.report_alive(now, conn),
            Input::Late(conn) => self.report_late(now, conn),
            Input::Closed(conn) => self.close(now, conn),
            Input::Admin(admin) if self.takes_orders() => self.jobs.push_back((now, admin_job(admin))),
            Input::Admin(_) => {}
            Input::Command(conn, command) => self.command(now, conn, command),
        }
        self.drain(now);
        self.advance(now);
    }

    /// Handles an event of the engine.
    pub fn handle_engine(&mut self, now: Instant, event: FromEngine) {
        self.sender = None;
        match event {
            FromEngine::Attached(attached) => self.attached(now, attached),
            FromEngine::Verdict(node, verdict) if node == self.me && self.is_attached => match verdict {
                Verdict::Taken => {}
                Verdict::Fenced | Verdict::Rewound => self.attach(verdict == Verdict::Rewound),
            },
            FromEngine::Message(node, place, message) if node == self.me && self.is_attached => {
                self.message(now, place, message);
            }
            FromEngine::Cluster(cluster) => self.reap_all(cluster),
            FromEngine::Full(is_full) => self.note_memory(is_full),
            FromEngine::Verdict(..) | FromEngine::Message(..) => {}
        }
        self.drain(now);
        self.advance(now);
    }

    fn message(&mut self, now: Instant, place: u64, message: Message) {
        if place > 0 {
            if place != self.place + 1 {
                // The engine lost messages that this shard has read, or would have read.
                return self.attach(true);
            }
            self.place = place;
        }
        match message {
            Message::Frame(number, text) => match serde_json::from_str(&text) {
                Ok(frame) => self.frame(now, number, frame),
                Err(error) => tracing::warn!("a message of another shard is ignored: {error}"),
            },
            Message::Done { op, is_done, number, reads } => self.outcome(now, op, (is_done, number), &reads),
        }
    }

    fn note_memory(&mut self, is_full: bool) {
        match (std::mem::replace(&mut self.is_full, is_full), is_full) {
            (false, true) => tracing::warn!(
                "the engine is out of memory: newcomers are refused and texts to other servers are dropped; raise its maxmemory"
            ),
            (true, false) => tracing::info!("the engine has memory again"),
            (false, false) | (true, true) => {}
        }
    }

    /// Handles the deadlines that have passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.sender = None;
        self.expire_claims(now);
        self.refuse_late_jobs(now);
        self.drain(now);
        self.advance(now);
    }

    /// Returns the time at which to call [`Shard::handle_timeout`], if any.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let claims = self.claims.values().flat_map(|one| [one.deadline, Some(one.end)]).flatten();
        let asked = self.asked.values().map(|(deadline, _)| *deadline);
        let job = self.jobs.iter().find(|(_, job)| job.conn().is_some()).map(|(since, _)| *since + WAIT);
        let in_flight = self.in_flight.as_ref().filter(|one| one.has_waiting()).map(|one| one.since + WAIT);
        let settled = self.settling.as_ref().and_then(Settling::due);
        claims.chain(asked).chain(job).chain(in_flight).chain(settled).min()
    }

    /// Returns the next output for the server, if there is one.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns the next request to the engine, if there is one.
    pub fn poll_ask(&mut self) -> Option<Ask> {
        let ask = self.asks.pop_front();
        if let Some(Ask::Send(_, body)) = &ask {
            self.waiting = self.waiting.saturating_sub(body.len());
        }
        ask
    }

    /// Returns the number of texts to other shards that were dropped because too many bytes waited for the engine.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Returns whether there are requests to the engine.
    pub fn has_asks(&self) -> bool {
        !self.asks.is_empty()
    }

    /// Returns the content of a beat; none while the shard is not attached.
    pub fn beat(&self) -> Option<Beat> {
        let epoch = self.epoch.clone().filter(|_| self.is_attached)?;
        Some(Beat { node: self.me.clone(), epoch, op: self.known_op, place: self.place })
    }

    /// Returns whether everything that was asked of the engine has an answer, or nothing can be asked now.
    pub fn is_settled(&self) -> bool {
        let is_idle = self.in_flight.is_none() && self.jobs.is_empty() && self.repairs.is_empty();
        !self.is_attached || (is_idle && self.asks.is_empty())
    }

    /// Returns whether there is space for an order of a back end or a moderator.
    pub fn takes_orders(&self) -> bool {
        self.jobs.len() < ORDERS || self.jobs.iter().filter(|(_, job)| job.is_order()).count() < ORDERS
    }

    /// Returns whether a request of the connection waits for the engine.
    pub fn is_asking(&self, conn: ConnId) -> bool {
        self.asking.contains_key(&conn)
    }

    /// Returns the next connection that waited for the engine and waits no longer, if there is one.
    pub fn poll_answered(&mut self) -> Option<ConnId> {
        self.answered.pop_front()
    }

    /// Returns the remote peer whose text led to the latest outputs, if a text did.
    pub fn sender(&self) -> Option<ConnId> {
        self.sender
    }

    /// Returns the own connections whose time to answer a probe is over.
    pub fn overdue(&self, now: Instant) -> Vec<ConnId> {
        self.asked.iter().filter(|(_, (deadline, _))| *deadline <= now).map(|(conn, _)| *conn).collect()
    }

    /// Returns whether a connection is being probed.
    pub fn is_probed(&self, conn: ConnId) -> bool {
        self.asked.contains_key(&conn)
    }

    /// Returns the numbers of own connections, known peers and known rooms.
    pub fn counts(&self) -> (usize, usize, usize) {
        let (_, peers, rooms) = self.hub.counts();
        (self.hub.conns.keys().filter(|conn| !is_remote(**conn)).count(), peers, rooms)
    }

    /// Passes the hub's outputs on: to the server those for own connections, to other shards the texts for theirs.
    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Notify(conn, notice) if is_remote(conn) => self.relay(conn, notice),
                Output::Notify(conn, _) | Output::Probe(conn) if self.closing.contains(&conn) => {}
                Output::Close(conn, _) if is_remote(conn) => drop(self.forget(conn)),
                Output::Close(conn, _) => {
                    self.outputs.push_back(output);
                    if let Some(stay) = self.forget(conn) {
                        self.jobs.push_back((now, end_of(&stay)));
                    }
                }
                Output::Notify(..) | Output::Probe(_) => self.outputs.push_back(output),
            }
        }
    }

    fn state(&self, conn: ConnId) -> Option<&State> {
        self.hub.conns.get(&conn).map(|conn| &conn.state)
    }

    fn owner(&self, conn: ConnId) -> Owner {
        self.hub.conns.get(&conn).map_or_else(Owner::default, |conn| conn.owner)
    }

    fn refuse(&mut self, conn: ConnId, refusal: Refusal) {
        if self.state(conn).is_some() {
            self.outputs.push_back(Output::Notify(conn, Notice::Refused(refusal)));
        }
    }

    fn remember(&mut self, conn: ConnId, stay: Stay) {
        self.by_stay.insert(stay.record.stay.clone(), conn);
        self.stays.insert(conn, stay);
    }

    fn forget(&mut self, conn: ConnId) -> Option<Stay> {
        self.closing.remove(&conn);
        self.asked.remove(&conn);
        let stay = self.stays.remove(&conn)?;
        self.by_stay.remove(&stay.record.stay);
        Some(stay)
    }

    /// Takes up jobs until a transaction is under way.
    fn advance(&mut self, now: Instant) {
        self.end_settling(now);
        while self.is_attached && self.in_flight.is_none() {
            let job = match self.repairs.pop_front() {
                Some(job) => job,
                None if self.settling.is_some() => break,
                None => match self.jobs.pop_front() {
                    Some((_, job)) => job,
                    None => break,
                },
            };
            self.attempt(now, job, None);
            self.drain(now);
        }
    }

    /// Plans a job and sends its transaction; `reads` are the keys that the engine returned to the previous attempt.
    fn attempt(&mut self, now: Instant, job: Job, reads: Option<&BTreeMap<Key, Fields>>) {
        match self.plan(now, &job, reads) {
            Plan::Tx(mut tx, record) => {
                if tx.writes.is_empty() {
                    // With all that the job has read before: else two reads of parts could alternate without end.
                    let earlier = reads.into_iter().flat_map(BTreeMap::keys);
                    let missing: Vec<Key> = earlier.filter(|key| !tx.reads.contains(key)).cloned().collect();
                    tx.reads.extend(missing);
                }
                self.op += 1;
                tx.op = self.op;
                self.asks.push_back(Ask::Tx((*tx).clone()));
                let record = record.map(|record| *record);
                self.in_flight = Some(InFlight { since: now, is_refused: false, tx: *tx, job, record });
            }
            Plan::Done => self.done(&job),
            Plan::Waits => {}
        }
    }

    /// Handles the outcome of the transaction that is under way.
    fn outcome(
        &mut self,
        now: Instant,
        op: u64,
        (is_done, number): (bool, u64),
        reads: &BTreeMap<Key, Fields>,
    ) {
        let Some(InFlight { tx, job, record, is_refused, .. }) =
            self.in_flight.take_if(|one| one.tx.op == op)
        else {
            return;
        };
        self.known_op = op;
        if !is_done || tx.writes.is_empty() {
            if !is_refused {
                self.attempt(now, job, Some(reads));
            }
            return;
        }
        self.finish(now, &job, record, number);
        if !is_refused {
            self.done(&job);
        }
    }

    /// Counts a job as completed.
    fn done(&mut self, job: &Job) {
        let Some(conn) = job.conn() else { return };
        if let Some(count) = self.asking.get_mut(&conn) {
            *count -= 1;
            if *count == 0 {
                self.asking.remove(&conn);
                self.answered.push_back(conn);
            }
        }
    }
}

fn is_remote(conn: ConnId) -> bool {
    conn.0 >= REMOTE
}

/// Returns the job that removes a stay from the engine.
fn end_of(stay: &Stay) -> Job {
    // Without a version of this epoch, the engine is read first.
    let known = (stay.version > 0).then(|| (stay.version, stay.record.clone()));
    Job::End { name: stay.name.clone(), stay: stay.record.stay.clone(), of: None, reason: None, known }
}

fn admin_job(admin: Admin) -> Job {
    match admin {
        Admin::Describe(name, description) => Job::Describe { name, description },
        Admin::Mute(name, kind) => Job::Mute { name, kind },
        Admin::Remove(name) => Job::Remove { name },
        Admin::Close(room) => Job::CloseRoom { room },
    }
}

#[cfg(test)]
mod tests;
