//! Driver of one connection: executes effects one after another, and delivers their results and the connection's
//! events to a queue that all connections share.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::future::Either;
use smol::channel::{Receiver, Sender, bounded, unbounded};

use super::report::{PoolEvent, Report};
use super::trace::{self, Trace};
use crate::media::peer::PeerConfig;
use crate::media::{MediaError, Peer, PeerEvent};
use crate::protocol::PeerId;
use crate::session::{ConnectionState, Effect, Input};

/// Maximum number of events of one connection that wait for the queue.
const EVENTS: usize = 512;
/// Interval at which the connection is checked for received packets.
const LISTEN: Duration = Duration::from_millis(500);

/// The queue of all connections, as one of them uses it.
#[derive(Clone)]
pub(super) struct Outlet {
    /// Number of the connection. It tells the connection from earlier ones with the same peer.
    pub(super) number: u64,
    pub(super) peer: PeerId,
    pub(super) queue: Sender<(u64, Either<Input, Report>)>,
    pub(super) trace: Option<Arc<Trace>>,
}

impl Outlet {
    /// Waits for space in the queue; returns false if the queue has no reader any more.
    async fn send(&self, item: Either<Input, Report>) -> bool {
        self.queue.send((self.number, item)).await.is_ok()
    }

    async fn link(&self, input: Input) -> bool {
        self.send(Either::Left(input)).await
    }

    async fn pool(&self, event: PoolEvent) -> bool {
        self.send(Either::Right(Report::Pool(event))).await
    }

    async fn warn(&self, text: &str) -> bool {
        self.pool(PoolEvent::Warning(format!("{}: {text}", self.peer))).await
    }

    fn trace_effect(&self, words: &'static str, began: Instant) {
        self.trace.iter().for_each(|trace| trace.effect(self.peer.as_str(), words, began.elapsed()));
    }

    /// Translates an event of the connection. A track is reported as the peer's until [`Peers`](super::peers::Peers)
    /// assigns it to a participant.
    async fn event(&self, event: PeerEvent) -> bool {
        let peer = self.peer.clone();
        self.trace.iter().for_each(|trace| trace.event(peer.as_str(), &event));
        match event {
            PeerEvent::LocalCandidate(candidate) => self.link(Input::LocalCandidate(candidate)).await,
            PeerEvent::Connection(state) => self.link(Input::Connection(state)).await,
            PeerEvent::Forged => self.link(Input::Connection(ConnectionState::Forged)).await,
            PeerEvent::Failed(text) => {
                self.warn(&text).await && self.link(Input::Connection(ConnectionState::Failed)).await
            }
            PeerEvent::Track(track) => self.pool(PoolEvent::Track((&peer).into(), track)).await,
            PeerEvent::TrackEnded(track) => self.pool(PoolEvent::TrackEnded((&peer).into(), track)).await,
            PeerEvent::FirstFrame { track, size, after } => {
                let report = Report::FirstFrame { participant: (&peer).into(), track, size, after };
                self.send(Either::Right(report)).await
            }
            PeerEvent::Channel(channel) => self.pool(PoolEvent::DataChannel(peer, channel)).await,
            PeerEvent::Broken(codec) => {
                self.warn(&format!("some of the {codec} cannot be read and is left out")).await
            }
        }
    }
}

/// See the module. A driver that is dropped stops.
pub(super) struct Driver {
    pub(super) peer: Arc<Peer>,
    effects: Sender<Effect>,
    _tasks: [smol::Task<()>; 3],
}

impl Driver {
    /// Opens a connection.
    pub(super) fn open(config: PeerConfig, out: &Outlet) -> Result<Self, MediaError> {
        let began = Instant::now();
        let (event, events) = bounded(EVENTS);
        let peer = Arc::new(Peer::open(config, event)?);
        out.trace_effect(trace::words(&Effect::Open), began);
        // Bounded by the negotiation's own inbox and candidate limits.
        let (effects, pending) = unbounded::<Effect>();
        let tasks = [
            smol::spawn(execute_all(peer.clone(), pending, out.clone())),
            smol::spawn(forward(events, out.clone())),
            smol::spawn(listen(Arc::downgrade(&peer), out.clone())),
        ];
        Ok(Self { peer, effects, _tasks: tasks })
    }

    /// Executes an effect after all earlier ones.
    pub(super) fn execute(&self, effect: Effect) {
        let _ = self.effects.try_send(effect);
    }
}

async fn execute_all(peer: Arc<Peer>, effects: Receiver<Effect>, out: Outlet) {
    while let Ok(effect) = effects.recv().await {
        let (words, began) = (trace::words(&effect), Instant::now());
        let result = peer.execute(effect).await;
        out.trace_effect(words, began);
        if let Some((id, result)) = result
            && !out.link(Input::Result(id, result)).await
        {
            return;
        }
    }
}

async fn forward(events: Receiver<PeerEvent>, out: Outlet) {
    while let Ok(event) = events.recv().await {
        if !out.event(event).await {
            return;
        }
    }
}

/// Reports regularly whether packets arrived, and reports when this machine's addresses changed.
async fn listen(peer: Weak<Peer>, out: Outlet) {
    let own = || {
        let all = if_addrs::get_if_addrs().unwrap_or_default().into_iter();
        // An address whose interface is not running yet does not help: libnice does not use it.
        let usable = all.filter(|one| !one.is_loopback() && one.is_oper_up());
        usable.map(|one| one.ip()).collect::<BTreeSet<_>>()
    };
    let (mut before, mut addresses) = ((0, 0), own());
    loop {
        smol::Timer::after(LISTEN).await;
        let Some(peer) = peer.upgrade() else { return };
        let now = peer.heard();
        let (missing, delivery) = (peer.open_missing(), peer.delivery());
        drop(peer);
        let mut goes_on = match missing {
            Ok(true) => out.link(Input::Negotiate).await,
            Ok(false) => true,
            Err(error) => out.warn(&error.to_string()).await,
        };
        if now != before {
            goes_on = out.link(Input::Heard(now.1 != before.1)).await;
            before = now;
        }
        goes_on &= out.link(Input::Report(delivery)).await;
        let there = own();
        if there != addresses {
            addresses = there;
            goes_on = out.link(Input::NetworkChanged).await;
        }
        if !goes_on {
            return;
        }
    }
}
