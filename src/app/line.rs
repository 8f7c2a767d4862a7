//! A connection with a peer at work: effects go in; events and results come out through one funnel for
//! all connections.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use smol::channel::{Receiver, Sender, bounded, unbounded};
use smol::future::{or, pending};

use super::trace;
use crate::media::peer::PeerConfig;
use crate::media::{MediaError, Peer, PeerEvent};
use crate::session::{Effect, EffectId, EffectResult};

/// The most events of one connection that wait.
const EVENTS: usize = 512;
/// How often it is looked whether anything came of the peer.
const LISTEN: Duration = Duration::from_millis(500);

/// What came of a connection.
pub(super) enum Happened {
    Event(PeerEvent),
    Result(EffectId, EffectResult),
    /// An output or a recording stopped.
    Failure(String),
    /// A sign of life came of the peer; whether media.
    Heard(bool),
    /// This machine's addresses changed.
    NetworkChanged,
    /// What our side wants takes an offer.
    Negotiate,
    /// A text came over a data channel: its label, and the text.
    Message(String, String),
    /// The work of a bridge is done.
    ChannelDone,
    /// An effect was done, and took so long.
    Done(&'static str, Duration),
}

/// Where all connections tell what happens, each under its number.
pub(super) struct Funnel {
    pub(super) sender: Sender<(u64, Happened)>,
    receiver: Receiver<(u64, Happened)>,
    next: u64,
    /// Whether it is told how long effects take.
    traces: bool,
}

impl Funnel {
    pub(super) fn new(traces: bool) -> Self {
        // Small: what does not fit waits with its connection, so none can crowd out the others.
        let (sender, receiver) = bounded(16);
        Self { sender, receiver, next: 0, traces }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// What happened next, and the number of the connection. May be dropped while it waits.
    pub(super) async fn next(&self) -> (u64, Happened) {
        match self.receiver.recv().await {
            Ok(happened) => happened,
            Err(_) => pending().await,
        }
    }
}

/// The connection itself, which may be replaced by another with the same peer.
pub(super) struct Line {
    pub(super) peer: Arc<Peer>,
    effects: Sender<Effect>,
    _tasks: [smol::Task<()>; 3],
}

impl Line {
    /// A fresh connection; the number tells it from one before it with the same peer.
    pub(super) fn open(
        config: PeerConfig,
        number: u64,
        failures: Receiver<String>,
        funnel: &Funnel,
    ) -> Result<Self, MediaError> {
        let (opened, traces) = (Instant::now(), funnel.traces);
        let (event, events) = bounded(EVENTS);
        let peer = Arc::new(Peer::open(config, event)?);
        // Bounded by the negotiation's own inbox and candidate limits.
        let (effects, todo) = unbounded::<Effect>();
        let opened = Happened::Done(trace::words(&Effect::Open), opened.elapsed());
        let (worker, out) = (peer.clone(), funnel.sender.clone());
        let works = smol::spawn(async move {
            if traces && out.send((number, opened)).await.is_err() {
                return;
            }
            while let Ok(effect) = todo.recv().await {
                let (words, began) = (trace::words(&effect), Instant::now());
                let result = worker.execute(effect).await;
                if traces && out.send((number, Happened::Done(words, began.elapsed()))).await.is_err() {
                    break;
                }
                if let Some((id, result)) = result
                    && out.send((number, Happened::Result(id, result))).await.is_err()
                {
                    break;
                }
            }
        });
        let out = funnel.sender.clone();
        let forwards = smol::spawn(async move {
            let next = || {
                let event = async { events.recv().await.ok().map(Happened::Event) };
                let failure = async {
                    match failures.recv().await {
                        Ok(text) => Some(Happened::Failure(text)),
                        // Nobody is left who could fail.
                        Err(_) => pending().await,
                    }
                };
                or(event, failure)
            };
            while let Some(happened) = next().await {
                if out.send((number, happened)).await.is_err() {
                    break;
                }
            }
        });
        let listens = smol::spawn(listen(Arc::downgrade(&peer), number, funnel.sender.clone()));
        Ok(Self { peer, effects, _tasks: [works, forwards, listens] })
    }

    /// Does this when all before it is done.
    pub(super) fn execute(&self, effect: Effect) {
        let _ = self.effects.try_send(effect);
    }
}

/// Tells regularly whether anything came of the peer, and when this machine's addresses changed.
async fn listen(peer: Weak<Peer>, number: u64, out: Sender<(u64, Happened)>) {
    let own = || {
        let all = if_addrs::get_if_addrs().unwrap_or_default().into_iter();
        all.filter(|one| !one.is_loopback()).map(|one| one.ip()).collect::<BTreeSet<_>>()
    };
    let (mut before, mut addresses) = ((0, 0), own());
    loop {
        smol::Timer::after(LISTEN).await;
        let Some(peer) = peer.upgrade() else { return };
        let now = peer.heard();
        let mut happened = vec![];
        match peer.open_missing() {
            Ok(true) => happened.push(Happened::Negotiate),
            Ok(false) => {}
            Err(error) => happened.push(Happened::Failure(error.to_string())),
        }
        drop(peer);
        if now != before {
            happened.push(Happened::Heard(now.1 != before.1));
            before = now;
        }
        let there = own();
        if there != addresses {
            addresses = there;
            happened.push(Happened::NetworkChanged);
        }
        for happened in happened {
            if out.send((number, happened)).await.is_err() {
                return;
            }
        }
    }
}
