//! The hub behind a lock, with a mailbox for each connection. No call waits for a peer.

mod back_end;
mod board;
mod delivery;
mod presence;
#[cfg(feature = "engine")]
mod shard_state;
#[cfg(feature = "engine")]
mod shards;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use super::blocks::Blocks;
use super::codec::Codec;
use super::codec::rejection::Rejection;
use super::events::log::Log;
use super::events::observer::Observer;
use super::ice::IceServers;
use super::mailbox::{Inbox, Outbox, Outgoing, Parked, mailbox};
use super::metrics::{Metrics, Now};
use super::stream::Gauge;
use super::watches::Watches;
use crate::base::limit::Bucket;
use crate::base::lock::lock;
use crate::base::net::is_this_machine;
use crate::base::tasks::Tasks;
use crate::hub::{Command, ConnId, Grant, Hub, Input, Limits, Owner, Phase};
use crate::protocol::{IceServer, PeerId};
use board::Board;

/// The mailbox and the codec of a connection.
#[derive(Debug)]
struct Connection {
    outbox: Outbox,
    codec: Codec,
    /// The progress of the peer in reading.
    gauge: Arc<Gauge>,
    /// The time of the last probe.
    probed: Option<Instant>,
}

impl Connection {
    /// Answers a rejected message; returns the close code and reason if the rejection ends the connection.
    fn reject(&self, rejection: Rejection) -> Option<(u16, &'static str)> {
        match rejection {
            Rejection::Error(text) => {
                self.outbox.answer(Outgoing::Text(text));
                None
            }
            Rejection::Close(code, reason) => Some((code, reason)),
        }
    }
}

/// The consequences of a peer's message. Its answers are in the peer's mailbox already.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Messages that the receivers have no space for; the peer must not be read until they are accepted.
    pub(super) parked: Vec<Parked>,
    /// The number of names listed for the peer at its request, plus [`LIST`] per list.
    pub(super) listed: u32,
    /// The close code and reason, if the message ends the connection.
    pub(super) close: Option<(u16, &'static str)>,
}

/// The fixed cost of a list, in names, since every list scans all names.
const LIST: u32 = 50;
/// The names that a list counts for where the engine reads all free peers of all servers for it.
#[cfg(feature = "engine")]
const SHARED_LIST: u32 = 500;
/// The most unanswered probes that have timers; each timer decides about all probes.
const PROBES: usize = 1 << 16;

#[derive(Debug, Default)]
struct State {
    board: Board,
    observer: Observer,
    watches: Watches,
    /// The peers whose presence has changed and was not pushed yet.
    moved: Vec<PeerId>,
    connections: HashMap<ConnId, Connection>,
    per_owner: HashMap<Owner, usize>,
    next: u64,
    /// The number of WebSockets being served, including those that are closing and no longer known to the hub.
    served: usize,
    /// Limits the rate of room listings.
    listings: Option<Bucket>,
    /// The server is stopping: new connections are closed at once.
    is_stopping: bool,
    #[cfg(feature = "engine")]
    shards: shard_state::ShardState,
}

impl State {
    fn may_list(&mut self, now: Instant) -> bool {
        self.listings.get_or_insert_with(|| Bucket::new(LISTINGS.0, LISTINGS.1)).take(now)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Switchboard {
    state: Mutex<State>,
    probe: Duration,
    unread: Duration,
    ice: Mutex<IceServers>,
    blocks: Mutex<Blocks>,
    /// The numbers for Prometheus.
    pub(super) metrics: Metrics,
    /// The events for back ends.
    pub(super) events: Arc<Log>,
    /// The timers of unanswered probes.
    probes: Tasks,
    #[cfg(feature = "engine")]
    shards: Option<shard_state::Shards>,
}

impl Switchboard {
    /// Creates a switchboard with the hub's limits. A probed peer whose socket accepts no data for `unread` counts as
    /// dead.
    pub(super) fn new(limits: Limits, unread: Duration, ice: IceServers) -> Arc<Self> {
        Arc::new(Self::of(Board::Alone(Hub::new(limits)), limits, unread, ice))
    }

    /// Creates the switchboard of one server of several; texts of other servers wait for `held` at most.
    #[cfg(feature = "engine")]
    pub(super) fn sharded(
        limits: Limits,
        (unread, held): (Duration, Duration),
        ice: IceServers,
    ) -> Result<Arc<Self>, crate::base::random::NoRandomness> {
        let shards = Some(shard_state::Shards::new(held));
        let metrics = Metrics::with_engine();
        Ok(Arc::new(Self {
            shards,
            metrics,
            ..Self::of(shard_state::Shards::board(limits)?, limits, unread, ice)
        }))
    }

    fn of(board: Board, limits: Limits, unread: Duration, ice: IceServers) -> Self {
        let state = State { board, ..State::default() };
        Self {
            state: Mutex::new(state),
            probe: limits.probe,
            unread,
            ice: Mutex::new(ice),
            blocks: Mutex::default(),
            metrics: Metrics::default(),
            events: Arc::default(),
            probes: Tasks::new(PROBES),
            #[cfg(feature = "engine")]
            shards: None,
        }
    }

    /// Returns the STUN and TURN servers, with credentials that become valid now.
    pub(super) fn ice_servers(&self) -> Vec<IceServer> {
        lock(&self.ice).list(SystemTime::now())
    }

    /// Replaces the STUN and TURN servers, for clients that register or begin a call from now on.
    pub(super) fn set_ice_servers(&self, ice: IceServers) {
        *lock(&self.ice) = ice;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Counts a connection of the owner of an address until the returned guard is dropped. Returns none if the owner
    /// already has `most` connections and the address is not loopback.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Counted> {
        let mut state = self.lock();
        let count = state.per_owner.entry(address.into()).or_default();
        // A proxy or a test on this machine stands for many peers.
        if *count >= most && !is_this_machine(address) {
            return None;
        }
        *count += 1;
        Some(Counted(self.clone(), address.into()))
    }

    /// Registers a new connection with the hub; `gauge` measures whether the peer reads.
    pub(super) fn open(&self, codec: Codec, address: IpAddr, grant: Grant, gauge: Arc<Gauge>) -> Inbox {
        let mut state = self.lock();
        state.next += 1;
        let id = ConnId(state.next);
        let (outbox, inbox) = mailbox(id);
        if state.is_stopping {
            outbox.notify(STOPS);
        }
        state.connections.insert(id, Connection { outbox, codec, gauge, probed: None });
        state.board.handle_input(Instant::now(), Input::Opened(id, address.into()));
        state.board.handle_input(Instant::now(), Input::Granted(id, grant));
        inbox
    }

    /// Handles a text message of a peer.
    pub(super) fn handle_text(self: &Arc<Self>, id: ConnId, text: String) -> Outcome {
        let since = Instant::now();
        let outcome = self.handle_commands(id, text);
        self.metrics.time_message(since);
        outcome
    }

    fn handle_commands(self: &Arc<Self>, id: ConnId, text: String) -> Outcome {
        let mut state = self.lock();
        if let Some(outcome) = self.watch(&mut state, id, &text) {
            return outcome;
        }
        let phase = state.board.hub().phase(id);
        let mut outcome = Outcome::default();
        let Some(from) = state.connections.get_mut(&id) else { return outcome };
        match from.codec.decode(phase, text) {
            Ok(commands) => {
                #[cfg(feature = "engine")]
                let has_list = commands.iter().any(|command| matches!(command, Command::ListPeers));
                for command in commands {
                    let now = Instant::now();
                    if let Command::Register(name) | Command::Enter(name, _) = &command
                        && lock(&self.blocks).is_blocked(now, name)
                    {
                        outcome.close = Some(BLOCKED);
                        return outcome;
                    }
                    self.metrics.count_message(&command);
                    if let Command::Relay(text) = &command {
                        state.observer.said(id, text);
                    }
                    state.board.handle_input(now, Input::Command(id, command));
                    self.deliver(&mut state, now, Some((id, &mut outcome)));
                }
                #[cfg(feature = "engine")]
                if state.hold_asking(id) && has_list {
                    outcome.listed = outcome.listed.saturating_add(LIST + SHARED_LIST);
                }
            }
            Err(rejection) => outcome.close = from.reject(rejection),
        }
        outcome
    }

    /// Rejects a binary message of a peer; returns the close code and reason if the message ends the connection.
    pub(super) fn handle_binary(&self, id: ConnId) -> Option<(u16, &'static str)> {
        let mut state = self.lock();
        let from = state.connections.get_mut(&id)?;
        let rejection = from.codec.reject_binary();
        from.reject(rejection)
    }

    /// Drops messages that their receivers did not accept in time, and reports the loss to the sender.
    pub(super) fn refuse(&self, id: ConnId, parked: Vec<Parked>) {
        let mut state = self.lock();
        for one in parked {
            let to = one.to;
            one.refuse();
            state.report_unread(id, to);
        }
    }

    /// Handles a sign of life of a peer.
    pub(super) fn handle(self: &Arc<Self>, input: Input) {
        self.input(&mut self.lock(), input);
    }

    /// Handles the end of a connection, for a reason in one word.
    pub(super) fn end(self: &Arc<Self>, id: ConnId, reason: &'static str) {
        let mut state = self.lock();
        state.connections.remove(&id);
        self.observe_end(&mut state, Instant::now(), id, reason);
        self.input(&mut state, Input::Closed(id));
    }

    /// Returns whether the connection has ended.
    pub(super) fn is_closed(&self, id: ConnId) -> bool {
        !self.lock().connections.contains_key(&id)
    }

    /// Returns whether the peer is registered.
    pub(super) fn is_registered(&self, id: ConnId) -> bool {
        self.lock().board.hub().phase(id) != Phase::Unregistered
    }

    /// Returns the numbers for Prometheus.
    pub(super) fn metrics_text(&self) -> String {
        let now = {
            let state = self.lock();
            let (_, peers, rooms) = state.board.counts();
            let ssp = state.connections.values().filter(|one| one.codec.is_ssp()).count();
            let connections = [state.connections.len() - ssp, ssp];
            Now { connections, peers, rooms, calls: state.board.hub().calls() }
        };
        self.metrics.text(now)
    }

    /// Closes all connections, and rejects new ones.
    pub(super) fn close_all(&self) {
        let mut state = self.lock();
        state.is_stopping = true;
        for connection in state.connections.values() {
            connection.outbox.notify(STOPS);
        }
    }

    /// Counts a WebSocket as served until the returned guard is dropped, after its last close frame.
    pub(super) fn serving(self: &Arc<Self>) -> Serving {
        self.lock().served += 1;
        Serving(self.clone())
    }

    /// Returns whether the hub knows no connection and no WebSocket is being served or closed.
    pub(super) fn is_quiet(&self) -> bool {
        let state = self.lock();
        state.served == 0 && state.board.counts().0 == 0 && state.board.is_settled()
    }

    fn input(self: &Arc<Self>, state: &mut State, input: Input) {
        let now = Instant::now();
        state.board.handle_input(now, input);
        self.deliver(state, now, None);
    }
}

/// The pages of rooms that may be requested at once, and those regained per second.
const LISTINGS: (u32, u32) = (20, 5);

/// The close frame for a peer whose name is blocked.
const BLOCKED: (u16, &str) = (1008, "this id is blocked");

/// The close frame for every peer when the server stops.
const STOPS: Outgoing = Outgoing::Close(1001, "the server stops");

/// The guard that [`Switchboard::admit`] returns.
#[derive(Debug)]
pub(super) struct Counted(Arc<Switchboard>, Owner);

impl Drop for Counted {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if let Some(count) = state.per_owner.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                state.per_owner.remove(&self.1);
            }
        }
    }
}

/// The guard that [`Switchboard::serving`] returns.
#[derive(Debug)]
pub(super) struct Serving(Arc<Switchboard>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.lock().served -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_by_the_owner_of_their_address() {
        let board = Switchboard::new(Limits::default(), Duration::from_secs(20), IceServers::default());
        let mut guards = vec![];
        let mut admit = |text: &str| {
            let guard = board.admit(text.parse().unwrap(), 1);
            guards.push(guard);
            guards.last().is_some_and(Option::is_some)
        };
        assert!(admit("2001:db8:1:2::1") && !admit("2001:db8:1:2:ffff::2") && admit("2001:db8:1:3::1"));
        assert!(admit("::ffff:192.0.2.1") && !admit("192.0.2.1") && admit("::ffff:192.0.2.2"));
        assert!((0..3).all(|_| admit("127.0.0.1") && admit("::ffff:127.0.0.1") && admit("::1")));
        drop(guards);
        assert!(board.admit("2001:db8:1:2:3::".parse().unwrap(), 1).is_some());
        assert!(board.lock().per_owner.is_empty(), "no owner without a connection is kept");
    }
}
