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
use crate::protocol::{ParticipantId, PeerId};
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

/// Presentation of one participant.
struct Presented {
    outputs: Outputs,
    recording: Recording,
}

/// See the module.
pub(super) struct Presentation<'a> {
    setup: &'a MediaSetup,
    sink: &'a Sink,
    participants: BTreeMap<ParticipantId, Presented>,
    /// Data channels, by the peer of the connection.
    bridges: BTreeMap<PeerId, Bridges>,
    /// Descriptions of participants by the server's back end.
    descriptions: BTreeMap<ParticipantId, Value>,
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
            participants: BTreeMap::new(),
            bridges: BTreeMap::new(),
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
                self.bridges.get_mut(&peer)?.is_done(label, self.setup).then_some(peer)
            }
        }
    }

    /// Presents a report of a call or a conference. The end of the conference is the loop's to report.
    pub(super) async fn handle_report(&mut self, report: Report, peers: &Peers) {
        match report {
            Report::Opened(peer) => self.opened(peer, peers),
            Report::Connecting(peer) => self.show_states(&peer, PeerState::Connecting, None, peers),
            Report::FirstFrame { participant, track, size, after } => {
                (self.sink)(&Event::Media {
                    peer: participant.to_string(),
                    kind: track.kind().as_str(),
                    direction: "receive",
                    codec: track.codec.to_string(),
                    width: size.map(|(width, _)| width),
                    height: size.map(|(_, height)| height),
                    first_frame_ms: after.as_millis().try_into().unwrap_or(u64::MAX),
                });
                self.record(&participant, peers);
            }
            Report::Unassigned(track) => self.withdraw(&track, None),
            Report::Pool(event) => self.handle_event(event, peers).await,
            Report::Stopped(_) | Report::Moved(_) => {}
        }
    }

    async fn handle_event(&mut self, event: PoolEvent, peers: &Peers) {
        match event {
            PoolEvent::Participant(id) => self.show_state(&id, PeerState::Joined, None),
            PoolEvent::Left(id) => {
                self.end(&id).await;
                self.descriptions.remove(&id);
                self.show_state(&id, PeerState::Left, None);
            }
            PoolEvent::Connected(peer) => {
                let first = self.setup.stats.map(|every| Instant::now() + every);
                self.stats_at = self.stats_at.or(first);
                self.show_states(&peer, PeerState::Connected, None, peers);
            }
            PoolEvent::Reconnecting(peer) => self.show_states(&peer, PeerState::Reconnecting, None, peers),
            PoolEvent::Track(id, track) => self.add_track(id, &track, peers),
            PoolEvent::DataChannel(peer, channel) => {
                if let Some(bridges) = self.bridges.get_mut(&peer) {
                    bridges.add(channel, self.setup, self.sink);
                }
            }
            PoolEvent::Describe(id, description) => self.describe(id, description),
            PoolEvent::Close(peer, reason) => self.close(&peer, reason, peers).await,
            PoolEvent::TokenExpires(seconds) => (self.sink)(&Event::TokenExpires { seconds }),
            PoolEvent::Application(name, data) => (self.sink)(&Event::Application { name, data }),
            PoolEvent::Gone => self.warn("the server is gone; trying again"),
            PoolEvent::Warning(text) | PoolEvent::Stop(text) => self.warn(&text),
            // The outputs of a track that ends keep its last frame: the track may go on later.
            PoolEvent::TrackEnded(..) | PoolEvent::Join { .. } | PoolEvent::MuteRequested(..) => {}
        }
    }

    fn warn(&self, text: &str) {
        (self.sink)(&Event::Warning { text: text.to_owned() });
    }

    /// Reports the state of the call with a participant.
    pub(super) fn show_state(&self, id: &ParticipantId, state: PeerState, reason: Option<String>) {
        (self.sink)(&Event::Peer { peer: id.to_string(), state, reason });
    }

    /// Reports the state of a connection for each participant that it carries.
    fn show_states(&self, peer: &PeerId, state: PeerState, reason: Option<&str>, peers: &Peers) {
        for id in peers.senders.of(peer) {
            self.show_state(&id, state, reason.map(str::to_owned));
        }
    }

    /// Reports a participant that is present, with its description if it has one.
    pub(super) fn show_participant(&self, id: &ParticipantId, is_connected: bool) {
        let state = if is_connected { PeerState::Connected } else { PeerState::Joined };
        self.show_state(id, state, None);
        if let Some(description) = self.descriptions.get(id).cloned() {
            (self.sink)(&Event::Described { peer: id.to_string(), description });
        }
    }

    fn describe(&mut self, id: ParticipantId, description: Value) {
        (self.sink)(&Event::Described { peer: id.to_string(), description: description.clone() });
        self.descriptions.insert(id.clone(), description);
        let label = self.label(&id);
        if let Some(presented) = self.participants.get_mut(&id) {
            presented.outputs.label(label);
        }
    }

    /// Returns the name under a participant's video: the one that the server's back end gives it, or its id.
    fn label(&self, id: &ParticipantId) -> String {
        let name = self.descriptions.get(id).and_then(|description| description["name"].as_str());
        name.map_or_else(|| shown(id.as_str()), brief)
    }

    /// Prepares for the tracks and channels of a connection that was opened, or that replaces the previous one with its
    /// peer.
    fn opened(&mut self, peer: PeerId, peers: &Peers) {
        for id in peers.senders.of(&peer) {
            if let Some(presented) = self.participants.get_mut(&id) {
                presented.outputs.replaced();
            }
        }
        let finished = self.finished.clone();
        self.bridges.entry(peer).or_insert_with_key(|peer| Bridges::new(peer.clone(), finished));
    }

    /// Ends the outputs and recordings of a track with all participants but its sender.
    fn withdraw(&mut self, track: &Track, sender: Option<&ParticipantId>) {
        for (_, other) in self.participants.iter_mut().filter(|(other, _)| Some(*other) != sender) {
            if other.outputs.remove(track) {
                other.recording.finish();
            }
        }
    }

    fn add_track(&mut self, id: ParticipantId, track: &Track, peers: &Peers) {
        self.withdraw(track, Some(&id));
        let (name, label) = (id.to_string(), self.label(&id));
        let presented = self.participants.entry(id.clone()).or_insert_with(|| Presented {
            outputs: Outputs::new(name.clone(), label),
            recording: Recording::new(name, self.sink.clone()),
        });
        if let Some(before) = presented.outputs.add(track, self.setup, &self.failed, self.sink) {
            presented.recording.follow(&before, track);
        }
        // With a recording, the track's first frame is held back until the recorder is attached: the file begins with
        // it.
        if self.setup.record.is_none() {
            track.flow();
        } else if track.is_live() {
            self.record(&id, peers);
        }
    }

    fn record(&mut self, id: &ParticipantId, peers: &Peers) {
        let (Some(folder), Some(presented)) = (&self.setup.record, self.participants.get_mut(id)) else {
            return;
        };
        let expected = peers.expected_tracks(id);
        presented.recording.update(&presented.outputs.live(), expected, folder, &self.failed);
    }

    /// Sends a text to one peer or to all peers; returns the number of peers that have a channel for it.
    pub(super) fn say(&self, to: Option<&PeerId>, text: &str) -> usize {
        let meant = self.bridges.iter().filter(|(peer, _)| to.is_none_or(|to| to == *peer));
        meant.filter(|(_, bridges)| bridges.say(text)).count()
    }

    /// Reports the counters of all connections now.
    pub(super) fn report_stats(&self, peers: &Peers) {
        for (peer, stats) in peers.stats() {
            (self.sink)(&Event::Stats { peer: peer.to_string(), stats });
        }
    }

    /// Returns the time at which [`Presentation::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let recordings =
            self.participants.values().filter_map(|presented| presented.recording.poll_timeout());
        recordings.chain(self.stats_at).min()
    }

    /// Handles the passing of time.
    pub(super) fn handle_timeout(&mut self, now: Instant, peers: &Peers) {
        let due = self.participants.iter_mut().filter_map(|(id, presented)| {
            let is_due = presented.recording.poll_timeout().is_some_and(|at| at <= now);
            (is_due && presented.recording.handle_timeout()).then(|| id.clone())
        });
        for id in due.collect::<Vec<_>>() {
            self.record(&id, peers);
        }
        if self.stats_at.is_some_and(|at| at <= now) {
            self.stats_at = self.setup.stats.map(|every| now + every.max(MIN_STATS));
            self.report_stats(peers);
        }
    }

    /// Closes the bridged channels with `peer`, or with every peer, once their data is sent.
    pub(super) async fn finish(&self, peer: Option<&PeerId>) {
        for (id, bridges) in &self.bridges {
            if peer.is_none_or(|peer| peer == id) {
                bridges.finish().await;
            }
        }
    }

    /// Closes all connections because the user leaves, and ends their presentation.
    pub(super) async fn leave(&mut self, peers: &mut Peers) {
        for peer in peers.close_all().await {
            self.close(&peer, Some(EndReason::HungUp), peers).await;
        }
    }

    /// Ends the presentation of a connection that is closed: its peer left (no reason), or it ended.
    async fn close(&mut self, peer: &PeerId, reason: Option<EndReason>, peers: &Peers) {
        if let Some(bridges) = self.bridges.remove(peer) {
            bridges.settle().await;
        }
        let Some(reason) = reason else { return };
        for id in peers.senders.of(peer) {
            self.end(&id).await;
        }
        let state = match &reason {
            EndReason::HungUp | EndReason::PeerHungUp => PeerState::Left,
            EndReason::NotTaken(_) => PeerState::Declined,
            _ => PeerState::Failed,
        };
        if let EndReason::NoPath(_) = reason {
            self.explanations.spawn(self.setup.ice.explain(self.sink));
        }
        let text = match reason {
            EndReason::NotTaken(why) => why,
            reason => reason.to_string(),
        };
        self.show_states(peer, state, Some(&text), peers);
    }

    /// Ends the presentation of a participant; its recording is complete afterwards.
    async fn end(&mut self, id: &ParticipantId) {
        if let Some(Presented { outputs, recording }) = self.participants.remove(id) {
            drop(outputs);
            recording.close().await;
        }
    }

    /// Waits until the TURN servers are checked that explain why a connection found no path.
    pub(super) async fn finish_explanations(self) {
        self.explanations.join().await;
    }
}
