//! A peer's connection as the event loops hold it: effects go in; events and results come out through
//! one funnel for all connections; its tracks go to the outputs and the recorder.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
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
/// How often it is looked whether anything came of the peer.
const LISTEN: Duration = Duration::from_millis(500);
/// How long a recording waits for the streams that the peer announced.
const ALL_TRACKS: Duration = Duration::from_secs(2);

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

    fn number(&mut self) -> u64 {
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

/// A stream of the peer, and where it goes.
struct Received {
    /// The number of the connection that it came over.
    over: u64,
    track: Track,
    output: Option<Output>,
    seat: Option<Seat>,
}

/// The connection itself, which may be replaced by another with the same peer.
struct Line {
    peer: Arc<Peer>,
    effects: Sender<Effect>,
    _tasks: [smol::Task<()>; 3],
}

/// See the module.
pub(super) struct Connection {
    /// Tells a connection from one before it with the same peer.
    pub(super) number: u64,
    line: Line,
    name: String,
    /// What stands under its picture in a grid.
    label: String,
    received: Vec<Received>,
    recorder: Option<Recorder>,
    record_at: Option<Instant>,
    failed: Sender<String>,
    failures: Receiver<String>,
}

impl Line {
    fn open(
        plan: &MediaPlan,
        number: u64,
        failures: Receiver<String>,
        funnel: &Funnel,
    ) -> Result<Self, MediaError> {
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
        let listens = smol::spawn(listen(Arc::downgrade(&peer), number, funnel.sender.clone()));
        Ok(Self { peer, effects, _tasks: [works, forwards, listens] })
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
        peer.follow_network();
        drop(peer);
        let mut happened = vec![];
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

impl Connection {
    pub(super) fn open(plan: &MediaPlan, name: String, funnel: &mut Funnel) -> Result<Self, MediaError> {
        let number = funnel.number();
        let (failed, failures) = bounded(16);
        Ok(Self {
            number,
            line: Line::open(plan, number, failures.clone(), funnel)?,
            label: name.clone(),
            name,
            received: vec![],
            recorder: None,
            record_at: None,
            failed,
            failures,
        })
    }

    /// Begins with a fresh connection to the same peer. What is shown, played and recorded of it goes on
    /// as soon as its streams come again.
    pub(super) fn reopen(&mut self, plan: &MediaPlan, funnel: &mut Funnel) -> Result<(), MediaError> {
        // A goodbye of the old one would end the call on the other side.
        self.line.peer.abandon();
        self.number = funnel.number();
        self.line = Line::open(plan, self.number, self.failures.clone(), funnel)?;
        Ok(())
    }

    /// What stands under its picture from now on.
    pub(super) fn label(&mut self, label: String) {
        self.received
            .iter()
            .filter_map(|received| received.seat.as_ref())
            .for_each(|seat| seat.label(&label));
        self.label = label;
    }

    pub(super) fn execute(&self, effect: Effect) {
        let _ = self.line.effects.try_send(effect);
    }

    pub(super) fn say(&self, text: &str) -> bool {
        self.line.peer.say(text)
    }

    pub(super) fn stats(&self) -> Stats {
        self.line.peer.stats()
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
            Happened::Heard(media) => return Some(Input::Heard(media)),
            Happened::NetworkChanged => return Some(Input::NetworkChanged),
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
        let is_before =
            |received: &Received| received.track.kind() == track.kind() && received.over != self.number;
        let before = self.received.iter().position(is_before);
        match before.map(|at| self.received.remove(at)) {
            // The same as over the connection before: all goes on where it went.
            Some(mut received) if received.track.codec == track.codec => {
                received.output.iter_mut().for_each(|output| output.follow(&track));
                received.seat.iter().for_each(|seat| seat.follow(&track));
                if let Some(recorder) = &mut self.recorder {
                    recorder.follow(&received.track, &track);
                }
                (received.track, received.over) = (track, self.number);
                self.received.push(received);
                return;
            }
            // A file holds one codec.
            Some(_) => {
                if let Some(recorder) = self.recorder.take() {
                    let (name, sink) = (self.name.clone(), sink.clone());
                    smol::spawn(async move { tell_recording(&name, &recorder.finish().await, true, &sink) })
                        .detach();
                }
            }
            None => {}
        }
        let warn = |error: MediaError| sink(&Event::Warning { text: error.to_string() });
        let seat = plan.stage.as_ref().map(|stage| stage.add(&track, &self.label)).transpose();
        let seat = seat.map_err(warn).ok().flatten().flatten();
        let output = plan.own_output(track.kind());
        let output =
            output.map(|output| Output::start(&track, output, &self.name, self.failed.clone())).transpose();
        let output = output.map_err(warn).ok().flatten();
        self.received.push(Received { over: self.number, track, output, seat });
        if plan.record.is_some() && self.recorder.is_none() {
            let all = self.received.len() >= self.line.peer.expected_tracks();
            self.record_at = Some(Instant::now() + if all { Duration::ZERO } else { ALL_TRACKS });
        }
    }

    /// Begins the recording with the tracks that are there.
    pub(super) fn start_recording(&mut self, plan: &MediaPlan, sink: &Sink) {
        self.record_at = None;
        let Some(folder) = &plan.record else { return };
        let path = free_path(folder, &self.name);
        let tracks: Vec<Track> = self.received.iter().map(|received| received.track.clone()).collect();
        match Recorder::start(&tracks, &path, self.failed.clone()) {
            Ok(recorder) => {
                self.recorder = Some(recorder);
                tell_recording(&self.name, &path, false, sink);
            }
            Err(error) => sink(&Event::Warning { text: error.to_string() }),
        }
    }

    /// Ends the connection; its recording is complete afterwards.
    pub(super) async fn close(mut self, sink: &Sink) {
        // The program may end right after.
        self.line.peer.say_goodbye().await;
        self.received.clear();
        if let Some(recorder) = self.recorder.take() {
            let path = recorder.finish().await;
            tell_recording(&self.name, &path, true, sink);
        }
    }
}

fn tell_recording(peer: &str, path: &Path, finished: bool, sink: &Sink) {
    let path = path.display().to_string();
    sink(&Event::Recording { peer: peer.to_owned(), path, finished });
}

/// A file that is not there yet.
fn free_path(folder: &Path, peer: &str) -> PathBuf {
    let time = super::client::timestamp();
    let first = folder.join(record::file_name(peer, &time));
    let others = (2..).map(|n| folder.join(record::file_name(peer, &format!("{time}-{n}"))));
    std::iter::once(first).chain(others).find(|path| !path.exists()).unwrap_or_default()
}
