//! A peer's connection as the event loop holds it: effects go in, events and results come out, and
//! its tracks go to the outputs and the recorder.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smol::channel::{Receiver, Sender, bounded, unbounded};

use super::plan::MediaPlan;
use super::{Event, Sink};
use crate::media::output::Output;
use crate::media::peer::Stats;
use crate::media::receive::Track;
use crate::media::record::{self, Recorder};
use crate::media::{MediaError, Peer, PeerEvent};
use crate::sdp::Kind;
use crate::session::{Effect, EffectId, EffectResult};

/// The most events of a connection that wait.
const EVENTS: usize = 512;
/// How long a recording waits for the streams that the peer announced.
const ALL_TRACKS: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Connection {
    peer: Arc<Peer>,
    name: String,
    effects: Sender<Effect>,
    pub(super) events: Receiver<PeerEvent>,
    pub(super) results: Receiver<(EffectId, EffectResult)>,
    outputs: Vec<Output>,
    tracks: Vec<Track>,
    recorder: Option<Recorder>,
    record_at: Option<Instant>,
    failed: Sender<String>,
    pub(super) failures: Receiver<String>,
    _worker: smol::Task<()>,
}

impl Connection {
    pub(super) fn open(plan: &MediaPlan, name: String) -> Result<Self, MediaError> {
        let (event, events) = bounded(EVENTS);
        let peer = Arc::new(Peer::open(plan.peer.clone(), event)?);
        // Bounded by the negotiation's own inbox and candidate limits.
        let (effects, todo) = unbounded::<Effect>();
        let (result, results) = bounded(16);
        let worker = peer.clone();
        let worker = smol::spawn(async move {
            while let Ok(effect) = todo.recv().await {
                if let Some(done) = worker.execute(effect).await
                    && result.send(done).await.is_err()
                {
                    break;
                }
            }
        });
        let (failed, failures) = bounded(16);
        Ok(Self {
            peer,
            name,
            effects,
            events,
            results,
            outputs: vec![],
            tracks: vec![],
            recorder: None,
            record_at: None,
            failed,
            failures,
            _worker: worker,
        })
    }

    pub(super) fn execute(&self, effect: Effect) {
        let _ = self.effects.try_send(effect);
    }

    pub(super) fn say(&self, text: &str) -> bool {
        self.peer.say(text)
    }

    pub(super) fn stats(&self) -> Stats {
        self.peer.stats()
    }

    /// When [`Connection::start_recording`] is due.
    pub(super) fn record_at(&self) -> Option<Instant> {
        self.record_at
    }

    /// A stream of the peer: to its output, and on record.
    pub(super) fn add_track(&mut self, track: Track, plan: &MediaPlan, sink: &Sink) {
        let output = match track.kind() {
            Kind::Video => &plan.show,
            Kind::Audio => &plan.play,
        };
        if let Some(output) = output {
            match Output::start(&track, output, &self.name, self.failed.clone()) {
                Ok(output) => self.outputs.push(output),
                Err(error) => sink(&Event::Warning { text: error.to_string() }),
            }
        }
        self.tracks.push(track);
        if plan.record.is_some() && self.recorder.is_none() {
            let all = self.tracks.len() >= self.peer.expected_tracks();
            self.record_at = Some(Instant::now() + if all { Duration::ZERO } else { ALL_TRACKS });
        }
    }

    /// Begins the recording with the tracks that are there.
    pub(super) fn start_recording(&mut self, plan: &MediaPlan, sink: &Sink) {
        self.record_at = None;
        let Some(folder) = &plan.record else { return };
        let path = free_path(folder, &self.name);
        match Recorder::start(&self.tracks, &path, self.failed.clone()) {
            Ok(recorder) => {
                self.recorder = Some(recorder);
                self.tell_recording(&path, false, sink);
            }
            Err(error) => sink(&Event::Warning { text: error.to_string() }),
        }
    }

    /// Ends the connection; its recording is complete afterwards.
    pub(super) async fn close(mut self, sink: &Sink) {
        self.outputs.clear();
        if let Some(recorder) = self.recorder.take() {
            let path = recorder.finish().await;
            self.tell_recording(&path, true, sink);
        }
    }

    fn tell_recording(&self, path: &std::path::Path, finished: bool, sink: &Sink) {
        let path = path.display().to_string();
        sink(&Event::Recording { peer: self.name.clone(), path, finished });
    }
}

/// A file that is not there yet.
fn free_path(folder: &std::path::Path, peer: &str) -> PathBuf {
    let time = super::client::timestamp();
    let first = folder.join(record::file_name(peer, &time));
    let others = (2..).map(|n| folder.join(record::file_name(peer, &format!("{time}-{n}"))));
    std::iter::once(first).chain(others).find(|path| !path.exists()).unwrap_or_default()
}
