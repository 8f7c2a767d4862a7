//! The switchboard of a server that is one of several: the events of the engine, and the texts of peers of other servers.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::board::Board;
use super::{Outcome, State, Switchboard};
use crate::base::timeout::timeout;
use crate::engine::{EngineError, Measure, Port};
use crate::hub::ConnId;
use crate::hub::shard::{Ask, Beat, FromEngine, Shard};
use crate::server::mailbox::{Forwarded, Parked};

/// The most bytes of a peer of another server that wait for one peer here, behind a text that its mailbox has no space for.
const BEHIND: usize = 256 * 1024;
/// The interval at which the presence of watched peers of other servers is read.
const LOOK: Duration = Duration::from_secs(2);
/// The time without the engine after which new clients should go to other servers.
const AWAY: Duration = Duration::from_secs(10);

impl State {
    fn shard(&mut self) -> Option<&mut Shard> {
        match &mut self.board {
            Board::Alone(_) => None,
            Board::Shard(shard) => Some(shard),
        }
    }

    /// Stops reading a connection while a request of it waits for the engine; returns whether one does.
    pub(super) fn hold_asking(&mut self, id: ConnId) -> bool {
        let is_asking = self.board.is_asking(id);
        if is_asking && let Some(connection) = self.connections.get(&id) {
            connection.outbox.hold(true);
        }
        self.release_asking();
        is_asking
    }

    /// Reads the presence of the watched peers that this server does not know, if it is time.
    fn look(&mut self, now: Instant) {
        if self.shards.look_at > now {
            return;
        }
        self.shards.look_at = now + LOOK;
        let hub = self.board.hub();
        let names = self.watches.names().filter(|name| !hub.has_peer(name)).cloned().collect();
        if let Some(shard) = self.shard() {
            shard.look(now, names);
        }
    }

    /// Reads on connections whose requests have been answered.
    fn release_asking(&mut self) {
        while let Some(id) = self.shard().and_then(Shard::poll_answered) {
            if !self.board.is_asking(id)
                && let Some(connection) = self.connections.get(&id)
            {
                connection.outbox.hold(false);
            }
        }
    }
}

impl Switchboard {
    /// Changes the shard, and sends what results to the connections.
    fn with_shard<T: Default>(self: &Arc<Self>, change: impl FnOnce(&mut Shard, Instant) -> T) -> T {
        let mut state = self.lock();
        let now = Instant::now();
        let Some(shard) = state.shard() else { return T::default() };
        let result = change(shard, now);
        let sender = shard.sender();
        let looked: Vec<_> = std::iter::from_fn(|| shard.poll_looked()).collect();
        state.moved.extend(looked);
        let mut outcome = Outcome::default();
        let cause = sender.map(|sender| (sender, &mut outcome));
        self.deliver(&mut state, now, cause);
        for parked in outcome.parked {
            self.wait(&mut state, sender, parked);
        }
        state.release_asking();
        result
    }

    /// Wakes the driver of the engine if there are requests for it.
    pub(super) fn wake_engine(&self, state: &mut State) {
        if let (Some(shards), true) = (&self.shards, state.shard().is_some_and(|shard| shard.has_asks())) {
            let _ = shards.wake.0.try_send(());
        }
    }

    /// Returns whether the texts of a remote peer are behind another that waits; then they wait, too.
    pub(super) fn waits_behind(state: &mut State, pair: (ConnId, ConnId), texts: &mut Vec<String>) -> bool {
        let Some(behind) = state.shards.behind.get_mut(&pair) else { return false };
        let bytes: usize = behind.iter().chain(texts.iter()).map(String::len).sum();
        if bytes > BEHIND {
            tracing::debug!(
                conn = pair.1.0,
                "texts of another server are dropped: the peer does not read them"
            );
            return true;
        }
        behind.append(texts);
        true
    }

    /// Lets texts of a remote peer wait until the mailbox has space; they are dropped if that takes too long.
    fn wait(self: &Arc<Self>, state: &mut State, sender: Option<ConnId>, mut parked: Parked) {
        let Some(sender) = sender else { return };
        let pair = (sender, parked.to);
        state.shards.behind.insert(pair, vec![]);
        let (this, held) =
            (Arc::downgrade(self), self.shards.as_ref().map_or(Duration::ZERO, |one| one.held));
        let task = async move {
            loop {
                let has_space = timeout(held, poll_fn(|context| parked.poll(context))).await;
                let Some(this) = this.upgrade() else { return };
                let mut state = this.lock();
                let texts = state.shards.behind.remove(&pair).unwrap_or_default();
                if has_space.is_none() {
                    tracing::debug!(
                        conn = pair.1.0,
                        "texts of another server are dropped: the peer does not read them"
                    );
                    return parked.refuse();
                }
                let Some(receiver) = state.connections.get(&pair.1).filter(|_| !texts.is_empty()) else {
                    return;
                };
                match receiver.outbox.forward(pair, texts) {
                    Forwarded::Queued | Forwarded::Refused => return,
                    Forwarded::Waits(next) => parked = next,
                }
                state.shards.behind.insert(pair, vec![]);
            }
        };
        if let Some(shards) = &self.shards
            && !shards.waiting.spawn(task)
        {
            // Too many pairs wait: the texts are dropped.
            state.shards.behind.remove(&pair);
        }
    }

    /// Returns whether the engine has been away for so long that new clients should go to other servers.
    pub(in crate::server) fn is_away(&self) -> bool {
        let state = self.lock();
        self.shards.is_some() && state.shards.away.is_some_and(|since| since.elapsed() > AWAY)
    }
}

impl Port for Arc<Switchboard> {
    fn handle(&self, event: FromEngine) {
        self.with_shard(|shard, now| shard.handle_engine(now, event));
    }

    fn reconnect(&self) -> (Option<Beat>, Vec<Ask>) {
        self.with_shard(|shard, _| {
            let asks = shard.reconnect();
            (shard.beat(), asks)
        })
    }

    fn asks(&self, most: usize) -> (Option<Beat>, Vec<Ask>) {
        self.with_shard(|shard, _| {
            let asks = std::iter::from_fn(|| shard.poll_ask()).take(most).collect();
            (shard.beat(), asks)
        })
    }

    fn beat(&self) -> Option<Beat> {
        self.with_shard(|shard, _| shard.beat())
    }

    fn renew(&self) {
        self.with_shard(|shard, _| shard.renew());
    }

    fn expire(&self, now: Instant) {
        let mut state = self.lock();
        state.look(now);
        self.wake_engine(&mut state);
        if state.shard().is_some_and(|shard| shard.poll_timeout().is_some_and(|at| at <= now)) {
            self.judge_probes(&mut state, now);
            state.release_asking();
        }
    }

    async fn woken(&self) {
        match &self.shards {
            Some(shards) => drop(shards.wake.1.recv().await),
            None => std::future::pending().await,
        }
    }

    fn measure(&self, measure: Measure) {
        if let Some(metrics) = self.metrics.engine() {
            metrics.count(measure);
        }
    }

    fn note(&self, error: Option<&EngineError>) {
        if let Some(metrics) = self.metrics.engine() {
            metrics.set_up(error.is_none());
        }
        let mut state = self.lock();
        let was_away = state.shards.away.is_some();
        match error {
            Some(error) if was_away => tracing::debug!("{error}"),
            Some(error) => {
                state.shards.away = Some(Instant::now());
                tracing::error!("{error}; calls go on, newcomers wait, and the server tries again");
            }
            None if was_away => {
                state.shards.away = None;
                tracing::info!("connected to the engine");
            }
            None => {}
        }
    }
}
