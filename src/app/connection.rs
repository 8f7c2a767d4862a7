//! A peer's connection as the event loops hold it: effects go in; events and results come out through
//! one funnel for all connections; its tracks go to the outputs and the recorder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use smol::channel::{Receiver, Sender, bounded, unbounded};
use smol::future::{or, pending};

use super::plan::MediaPlan;
use super::{Event, Sink};
use crate::media::output::Output;
use crate::media::peer::Stats;
use crate::media::receive::Track;
use crate::media::record::{self, Recorder};
use crate::media::stage::Seat;
use crate::media::{MediaError, Peer, PeerEvent};
use crate::session::link::Input;
use crate::session::{ConnectionState, Effect, EffectId, EffectResult};

/// The most events of one connection that wait.
const EVENTS: usize = 512;
/// How long a recording waits for the streams that the peer announced.
const ALL_TRACKS: Duration = Duration::from_secs(2);

/// What came of a connection.
pub(super) enum Happened {
    Event(PeerEvent),
    Result(EffectId, EffectResult),
    /// An output or a recording stopped.
    Failure(String),
}

/// Where all connections tell what happens, each under its number.
pub(super) struct Funnel {
    sender: Sender<(u64, Happened)>,
    receiver: Receiver<(u64, Happened)>,
    next: u64,
}

impl Funnel {
    pub(super) fn new() -> Self {
        // Small: what does not fit waits with its connection, so none can crowd out the others.
        let (sender, receiver) = bounded(16);
        Self { sender, receiver, next: 0 }
    }

    /// What happened next, and the number of the connection. May be dropped while it waits.
    pub(super) async fn next(&self) -> (u64, Happened) {
        match self.receiver.recv().await {
            Ok(happened) => happened,
            Err(_) => pending().await,
        }
    }
}

/// See the module.
pub(super) struct Connection {
    /// Tells a connection from one before it with the same peer.
    pub(super) number: u64,
    peer: Arc<Peer>,
    name: String,
    effects: Sender<Effect>,
    outputs: Vec<Output>,
    seats: Vec<Seat>,
    tracks: Vec<Track>,
    recorder: Option<Recorder>,
    record_at: Option<Instant>,
    failed: Sender<String>,
    _tasks: [smol::Task<()>; 2],
}

impl Connection {
    pub(super) fn open(plan: &MediaPlan, name: String, funnel: &mut Funnel) -> Result<Self, MediaError> {
        funnel.next += 1;
        let number = funnel.next;
        let (event, events) = bounded(EVENTS);
        let peer = Arc::new(Peer::open(plan.peer_config(), event)?);
        // Bounded by the negotiation's own inbox and candidate limits.
        let (effects, todo) = unbounded::<Effect>();
        let (worker, out) = (peer.clone(), funnel.sender.clone());
        let works = smol::spawn(async move {
            while let Ok(effect) = todo.recv().await {
                if let Some((id, result)) = worker.execute(effect).await
                    && out.send((number, Happened::Result(id, result))).await.is_err()
                {
                    break;
                }
            }
        });
        let (failed, failures) = bounded(16);
        let out = funnel.sender.clone();
        let forwards = smol::spawn(async move {
            let next = || {
                let event = async { events.recv().await.ok().map(Happened::Event) };
                let failure = async { failures.recv().await.ok().map(Happened::Failure) };
                or(event, failure)
            };
            while let Some(happened) = next().await {
                if out.send((number, happened)).await.is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            number,
            peer,
            name,
            effects,
            outputs: vec![],
            seats: vec![],
            tracks: vec![],
            recorder: None,
            record_at: None,
            failed,
            _tasks: [works, forwards],
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

    /// Takes what happened; what it means for the session.
    pub(super) fn handle(&mut self, happened: Happened, plan: &MediaPlan, sink: &Sink) -> Option<Input> {
        let peer = self.name.clone();
        match happened {
            Happened::Result(id, result) => return Some(Input::Result(id, result)),
            Happened::Failure(text) => sink(&Event::Warning { text }),
            Happened::Event(PeerEvent::LocalCandidate(mline, candidate)) => {
                return Some(Input::LocalCandidate(mline, candidate));
            }
            Happened::Event(PeerEvent::Connection(state)) => return Some(Input::Connection(state)),
            Happened::Event(PeerEvent::Track(track)) => self.add_track(track, plan, sink),
            Happened::Event(PeerEvent::FirstFrame { codec, size, after }) => sink(&Event::Media {
                peer,
                kind: codec.kind().as_str(),
                direction: "receive",
                codec: codec.to_string(),
                width: size.map(|(width, _)| width),
                height: size.map(|(_, height)| height),
                first_frame_ms: after.as_millis().try_into().unwrap_or(u64::MAX),
            }),
            Happened::Event(PeerEvent::Message { channel, text }) => {
                sink(&Event::Message { peer, channel, text })
            }
            Happened::Event(PeerEvent::ChannelOpen(channel)) => sink(&Event::Channel { peer, channel }),
            Happened::Event(PeerEvent::Forged) => return Some(Input::Connection(ConnectionState::Forged)),
            Happened::Event(PeerEvent::Failed(text)) => {
                sink(&Event::Warning { text });
                return Some(Input::Connection(ConnectionState::Failed));
            }
        }
        None
    }

    /// A stream of the peer: to its output, and on record.
    fn add_track(&mut self, track: Track, plan: &MediaPlan, sink: &Sink) {
        let seat = plan.stage.as_ref().map(|stage| stage.add(&track, &self.name)).transpose();
        match seat {
            Ok(seat) => self.seats.extend(seat.flatten()),
            Err(error) => sink(&Event::Warning { text: error.to_string() }),
        }
        if let Some(output) = plan.own_output(track.kind()) {
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
        self.seats.clear();
        if let Some(recorder) = self.recorder.take() {
            let path = recorder.finish().await;
            self.tell_recording(&path, true, sink);
        }
    }

    fn tell_recording(&self, path: &Path, finished: bool, sink: &Sink) {
        let path = path.display().to_string();
        sink(&Event::Recording { peer: self.name.clone(), path, finished });
    }
}

/// A file that is not there yet.
fn free_path(folder: &Path, peer: &str) -> PathBuf {
    let time = super::client::timestamp();
    let first = folder.join(record::file_name(peer, &time));
    let others = (2..).map(|n| folder.join(record::file_name(peer, &format!("{time}-{n}"))));
    std::iter::once(first).chain(others).find(|path| !path.exists()).unwrap_or_default()
}
