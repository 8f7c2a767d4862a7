//! Trace of a call's setup: reports each step with the time since the start of the process.

use std::collections::BTreeSet;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use super::{Event, Sink};
use crate::base::lock::lock;
use crate::media::PeerEvent;
use crate::protocol::SdpKind;
use crate::session::{ConnectionState, Effect};

/// Start of the process.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Marks the start of the process: traces count from the first call. Without a call they count from their own start.
pub fn begin() {
    let _ = *BEGAN;
}

/// See the module.
pub struct Trace {
    began: Instant,
    sink: Sink,
    /// Steps that are reported once, by peer and step, and were reported.
    reported: Mutex<BTreeSet<(String, &'static str)>>,
}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Trace")
    }
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

impl Trace {
    /// Returns a trace of this process, which reports to `sink`.
    pub fn new(sink: Sink) -> Self {
        Self { began: *BEGAN, sink, reported: Mutex::default() }
    }

    /// Reports a step of the client itself (no peer) or with a peer, and the duration of the step where it is known.
    pub(super) fn step(&self, peer: Option<&str>, step: &str, took: Option<Duration>) {
        (self.sink)(&Event::Setup {
            peer: peer.map(str::to_owned),
            step: step.to_owned(),
            ms: ms(self.began.elapsed()),
            took_ms: took.map(ms),
        });
    }

    /// Reports an effect of the connection with `peer` that ended, and how long it took. Of the effects that add a
    /// candidate only the first is reported.
    pub(super) fn effect(&self, peer: &str, words: &'static str, took: Duration) {
        match words.contains("candidate") {
            true => self.first(peer, words),
            false => self.step(Some(peer), words, Some(took)),
        }
    }

    /// Reports an event of the connection with `peer`, if it is a step of the setup.
    pub(super) fn event(&self, peer: &str, event: &PeerEvent) {
        match event {
            PeerEvent::LocalCandidate(..) => self.first(peer, "our first candidate is found"),
            PeerEvent::Connection(ConnectionState::Connected) => {
                self.step(Some(peer), "ICE and DTLS are through", None);
            }
            PeerEvent::Track(track) => {
                self.step(Some(peer), &format!("the first packet of {} came", track.kind()), None);
            }
            PeerEvent::FirstFrame { track, .. } => {
                self.step(Some(peer), &format!("the first frame of {} came", track.kind()), None);
            }
            PeerEvent::Connection(_)
            | PeerEvent::TrackEnded(_)
            | PeerEvent::Channel(_)
            | PeerEvent::Broken(_)
            | PeerEvent::Forged
            | PeerEvent::Failed(_) => {}
        }
    }

    /// Reports a step with `peer`, the first time only.
    fn first(&self, peer: &str, step: &'static str) {
        if lock(&self.reported).insert((peer.to_owned(), step)) {
            self.step(Some(peer), step, None);
        }
    }
}

/// Returns the effect in words.
pub(super) fn words(effect: &Effect) -> &'static str {
    match effect {
        Effect::Open => "the connection is opened",
        Effect::CreateOffer { .. } => "our offer is made",
        Effect::CreateAnswer { .. } => "our answer is made",
        Effect::ApplyLocal(_, SdpKind::Offer) => "our offer is applied",
        Effect::ApplyLocal(_, SdpKind::Answer) => "our answer is applied",
        Effect::ApplyRemote(_, SdpKind::Offer, _) => "the peer's offer is applied",
        Effect::ApplyRemote(_, SdpKind::Answer, _) => "the peer's answer is applied",
        Effect::AddCandidate(..) => "a candidate of the peer is taken",
    }
}
