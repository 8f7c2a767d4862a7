//! Presentation of a call or a room to the user: outputs, recordings, bridges of data channels, and statistics.

mod bridges;
mod outputs;
mod recording;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;
use smol::channel::{Receiver, Sender, bounded, unbounded};
use smol::future::{or, pending};

use self::bridges::Bridges;
use self::outputs::Outputs;
use self::recording::Recording;
use super::peers::Peers;
use super::report::{PoolEvent, Report};
use super::setup::MediaSetup;
use super::{Event, PeerState, Sink};
use crate::base::tasks::Tasks;
use crate::base::text::{brief, shown};
use crate::media::receive::Track;
use crate::protocol::PeerId;
use crate::session::EndReason;

/// Minimum interval of the statistics.
const MIN_STATS: Duration = Duration::from_millis(100);
/// Maximum number of failures of outputs and recordings that wait to be reported.
const FAILURES: usize = 16;
/// Maximum number of checks of the TURN servers at a time; further ones are left out.
const EXPLANATIONS: usize = 4;

/// An event of the presentation itself.
pub(super) enum Notice {
    /// An output, a recording, a source or an encoder stopped, for this reason.
    Failure(String),
    /// The bridge of that label has done its work with the peer.
    Bridged(PeerId, String),
}

/// Presentation of one peer.
struct Presented {
    outputs: Outputs,
    recording: Recording,
    bridges: Bridges,
}

/// See the module.
pub(super) struct Presentation<'a> {
    setup: &'a MediaSetup,
    sink: &'a Sink,
    peers: BTreeMap<PeerId, Presented>,
    /// Descriptions of peers by the server's back end.
    descriptions: BTreeMap<PeerId, Value>,
    /// Checks of the TURN servers after a connection found no path.
    explanations: Tasks,
    stats_at: Option<Instant>,
    failed: Sender<String>,
    failures: Receiver<String>,
    finished: Sender<(PeerId, String)>,
    finishes: Receiver<(PeerId, String)>,
}

impl<'a> Presentation<'a> {
    pub(super) fn new(setup: &'a MediaSetup, sink: &'a Sink) -> Self {
        let (failed, failures) = bounded(FAILURES);
        // Bounded by the channels: each is done once.
        let (finished, finishes) = unbounded();
        Self {
            setup,
            sink,
            peers: BTreeMap::new(),
            descriptions: BTreeMap::new(),
            explanations: Tasks::new(EXPLANATIONS),
            stats_at: None,
            failed,
            failures,
            finished,
            finishes,
        }
    }

    /// Waits for the next notice. May be dropped while it waits, without loss.
    pub(super) async fn next(&self) -> Notice {
        let failure = async {
            match or(self.failures.recv(), self.setup.failures.recv()).await {
                Ok(text) => Notice::Failure(text),
                Err(_) => pending().await,
            }
        };
        let bridged = async {
            match self.finishes.recv().await {
                Ok((peer, label)) => Notice::Bridged(peer, label),
                Err(_) => pending().await,
            }
        };
        or(failure, bridged).await
    }

    /// Handles a notice; returns the peer whose connection has done all its work.
    pub(super) fn handle_notice(&mut self, notice: Notice, peers: &mut Peers) -> Option<PeerId> {
        match notice {
            Notice::Failure(text) => {
                self.warn(&text);
                None
            }
            Notice::Bridged(peer, label) => {
                let mut bridges = self.setup.bridges.iter().filter(|bridge| bridge.channel().label == label);
                if bridges.any(|bridge| bridge.is_once()) {
                    peers.want(Some(&peer), |wanted| wanted.close_channel(&label));
                }
                let presented = self.peers.get_mut(&peer)?;
                presented.bridges.is_done(label, self.setup).then_some(peer)
            }
        }
    }

    /// Presents a report of a call or a conference. Reports for the loop itself are ignored.
    pub(super) async fn handle_report(&mut self, report: Report, peers: &Peers) {
        match report {
            Report::Opened(peer) => self.opened(peer),
            Report::Connecting(peer) => self.show_state(&peer, PeerState::Connecting, None),
            Report::FirstFrame { peer, codec, size, after } => {
                (self.sink)(&Event::Media {
                    peer: peer.to_string(),
                    kind: codec.kind().as_str(),
                    direction: "receive",
                    codec: codec.to_string(),
                    width: size.map(|(width, _)| width),
                    height: size.map(|(_, height)| height),
                    first_frame_ms: after.as_millis().try_into().unwrap_or(u64::MAX),
                });
                self.record(&peer, peers);
            }
            Report::Pool(event) => self.handle_event(event).await,
            Report::Link(..) | Report::Send(..) | Report::Stopped(_) => {}
        }
    }

    async fn handle_event(&mut self, event: PoolEvent) {
        match event {
            PoolEvent::Peer(peer) => self.show_state(&peer, PeerState::Joined, None),
            PoolEvent::Connected(peer) => {
                let first = self.setup.stats.map(|every| Instant::now() + every);
                self.stats_at = self.stats_at.or(first);
                self.show_state(&peer, PeerState::Connected, None);
            }
            PoolEvent::Reconnecting(peer) => self.show_state(&peer, PeerState::Reconnecting, None),
            PoolEvent::Track(peer, track) => self.add_track(&peer, &track),
            PoolEvent::DataChannel(peer, channel) => {
                if let Some(presented) = self.peers.get_mut(&peer) {
                    presented.bridges.add(channel, self.setup, self.sink);
                }
            }
            PoolEvent::Describe(peer, description) => self.describe(peer, description),
            PoolEvent::Close(peer, reason) => self.close(&peer, reason).await,
            PoolEvent::Application(name, data) => (self.sink)(&Event::Application { name, data }),
            PoolEvent::Gone => self.warn("the server is gone; trying again"),
            PoolEvent::Warning(text) | PoolEvent::Stop(text) => self.warn(&text),
            // A track that ends shows its last frame: it may go on later.
            PoolEvent::TrackEnded(..) | PoolEvent::Join { .. } => {}
        }
    }

    fn warn(&self, text: &str) {
        (self.sink)(&Event::Warning { text: text.to_owned() });
    }

    /// Reports the state of the call with a peer.
    pub(super) fn show_state(&self, peer: &PeerId, state: PeerState, reason: Option<String>) {
        (self.sink)(&Event::Peer { peer: peer.to_string(), state, reason });
    }

    /// Reports a peer that is present, with its description if it has one.
    pub(super) fn show_peer(&self, peer: &PeerId, is_connected: bool) {
        let state = if is_connected { PeerState::Connected } else { PeerState::Joined };
        self.show_state(peer, state, None);
        if let Some(description) = self.descriptions.get(peer).cloned() {
            (self.sink)(&Event::Described { peer: peer.to_string(), description });
        }
    }

    fn describe(&mut self, peer: PeerId, description: Value) {
        (self.sink)(&Event::Described { peer: peer.to_string(), description: description.clone() });
        self.descriptions.insert(peer.clone(), description);
        let label = self.label(&peer);
        if let Some(presented) = self.peers.get_mut(&peer) {
            presented.outputs.label(label);
        }
    }

    /// Returns the name that is shown under a peer's video: the one that the server's back end gives it, or its id.
    fn label(&self, peer: &PeerId) -> String {
        let name = self.descriptions.get(peer).and_then(|description| description["name"].as_str());
        name.map_or_else(|| shown(peer.as_str()), brief)
    }

    /// Prepares the presentation of a connection that was opened, or that replaces the previous one with its peer.
    fn opened(&mut self, peer: PeerId) {
        if let Some(presented) = self.peers.get_mut(&peer) {
            presented.outputs.replaced();
            return;
        }
        let (name, label) = (peer.to_string(), self.label(&peer));
        let presented = Presented {
            outputs: Outputs::new(name.clone(), label),
            recording: Recording::new(name, self.sink.clone()),
            bridges: Bridges::new(peer.clone(), self.finished.clone()),
        };
        self.peers.insert(peer, presented);
    }

    fn add_track(&mut self, peer: &PeerId, track: &Track) {
        let Some(presented) = self.peers.get_mut(peer) else { return };
        if let Some(before) = presented.outputs.add(track, self.setup, &self.failed, self.sink) {
            presented.recording.follow(&before, track);
        }
        // With a recording, the track's first frame is held back until the recorder is attached: the file begins with
        // it.
        if self.setup.record.is_none() {
            track.flow();
        }
    }

    fn record(&mut self, peer: &PeerId, peers: &Peers) {
        let (Some(folder), Some(presented)) = (&self.setup.record, self.peers.get_mut(peer)) else { return };
        let announced = peers.peer(peer).map_or(0, |peer| peer.expected_tracks());
        presented.recording.update(&presented.outputs.live(), announced, folder, &self.failed);
    }

    /// Sends a text to one peer or to all peers; returns the number of peers that have a channel for it.
    pub(super) fn say(&self, to: Option<&PeerId>, text: &str) -> usize {
        let meant = self.peers.iter().filter(|(peer, _)| to.is_none_or(|to| to == *peer));
        meant.filter(|(_, presented)| presented.bridges.say(text)).count()
    }

    /// Reports the counters of all connections now.
    pub(super) fn report_stats(&self, peers: &Peers) {
        for (peer, stats) in peers.stats() {
            (self.sink)(&Event::Stats { peer: peer.to_string(), stats });
        }
    }

    /// Returns the time at which [`Presentation::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let recordings = self.peers.values().filter_map(|presented| presented.recording.poll_timeout());
        recordings.chain(self.stats_at).min()
    }

    /// Handles the passing of time.
    pub(super) fn handle_timeout(&mut self, now: Instant, peers: &Peers) {
        let due = self.peers.iter_mut().filter_map(|(peer, presented)| {
            let is_due = presented.recording.poll_timeout().is_some_and(|at| at <= now);
            (is_due && presented.recording.handle_timeout()).then(|| peer.clone())
        });
        for peer in due.collect::<Vec<_>>() {
            self.record(&peer, peers);
        }
        if self.stats_at.is_some_and(|at| at <= now) {
            self.stats_at = self.setup.stats.map(|every| now + every.max(MIN_STATS));
            self.report_stats(peers);
        }
    }

    /// Closes the bridged channels with `peer`, or with every peer, once their data is sent.
    pub(super) async fn finish(&self, peer: Option<&PeerId>) {
        for (id, presented) in &self.peers {
            if peer.is_none_or(|peer| peer == id) {
                presented.bridges.finish().await;
            }
        }
    }

    /// Ends the presentation of peers whose connections this side closed because the user left.
    pub(super) async fn leave(&mut self, peers: Vec<PeerId>) {
        for peer in peers {
            self.close(&peer, Some(EndReason::HungUp)).await;
        }
    }

    /// Ends the presentation of a peer that left (no reason) or whose connection ended; its recording is complete
    /// afterwards.
    async fn close(&mut self, peer: &PeerId, reason: Option<EndReason>) {
        if let Some(Presented { outputs, recording, bridges }) = self.peers.remove(peer) {
            drop(outputs);
            bridges.settle().await;
            recording.close().await;
        }
        let state = match &reason {
            None | Some(EndReason::HungUp | EndReason::PeerHungUp) => PeerState::Left,
            Some(EndReason::NotTaken(_)) => PeerState::Declined,
            Some(EndReason::NoPath(_)) => {
                self.explanations.spawn(self.setup.ice.explain(self.sink));
                PeerState::Failed
            }
            Some(_) => PeerState::Failed,
        };
        let text = reason.map(|reason| match reason {
            EndReason::NotTaken(why) => why,
            reason => reason.to_string(),
        });
        if text.is_none() {
            self.descriptions.remove(peer);
        }
        self.show_state(peer, state, text);
    }

    /// Waits until the TURN servers are checked that explain why a connection found no path.
    pub(super) async fn finish_explanations(self) {
        self.explanations.join().await;
    }
}
