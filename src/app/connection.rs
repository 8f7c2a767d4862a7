//! A peer's connection as the event loops hold it: effects go in; events and results come out through
//! one funnel for all connections; its tracks go to the outputs and the recorder.

use std::time::{Duration, Instant};

use smol::channel::{Receiver, Sender, bounded};

use super::channels::Channels;
use super::line::{Funnel, Happened, Line};
use super::plan::MediaPlan;
use super::trace::Trace;
use super::{Event, Sink};
use crate::media::output::Output;
use crate::media::peer::{PeerConfig, Stats};
use crate::media::receive::Track;
use crate::media::record::{self, Recorder};
use crate::media::stage::Seat;
use crate::media::{MediaError, PeerEvent};
use crate::session::link::Input;
use crate::session::{ConnectionState, Effect};

/// How long a recording waits for the streams that the peer announced.
const ALL_TRACKS: Duration = Duration::from_secs(2);

/// Interval of the checks whether a running recording lacks a stream that flows.
const LOOK: Duration = Duration::from_secs(1);

/// A stream of the peer, and where it goes.
struct Received {
    /// The number of the connection that it came over.
    over: u64,
    track: Track,
    output: Option<Output>,
    seat: Option<Seat>,
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
    channels: Channels,
    out: Sender<(u64, Happened)>,
    recorder: Option<Recorder>,
    /// Next time at which the recording begins with the tracks present by then, or, once it has begun, is checked for
    /// streams that it lacks.
    record_at: Option<Instant>,
    /// Tasks that complete the files of earlier recordings.
    finishing: Vec<smol::Task<()>>,
    failed: Sender<String>,
    failures: Receiver<String>,
}

impl Connection {
    pub(super) fn open(plan: &MediaPlan, name: String, funnel: &mut Funnel) -> Result<Self, MediaError> {
        let number = funnel.number();
        let (failed, failures) = bounded(16);
        Ok(Self {
            number,
            line: Line::open(plan.peer_config(), number, failures.clone(), funnel)?,
            label: name.clone(),
            name,
            received: vec![],
            channels: Channels::default(),
            out: funnel.sender.clone(),
            recorder: None,
            record_at: None,
            finishing: vec![],
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
        let mut config = plan.peer_config();
        self.leave_out_done(&mut config, plan);
        self.line = Line::open(config, self.number, self.failures.clone(), funnel)?;
        Ok(())
    }

    /// What a bridge did once for all is not done again.
    fn leave_out_done(&self, config: &mut PeerConfig, plan: &MediaPlan) {
        let is_over = |label: &str| {
            let mut bridges = plan.bridges.iter().filter(|bridge| bridge.channel().label == label);
            bridges.any(|bridge| bridge.is_once()) && self.channels.is_done(label)
        };
        config.channels.retain(|channel| !is_over(&channel.label));
    }

    /// All that this connection was for, which is no media, is done.
    pub(super) fn is_done(&self, plan: &MediaPlan) -> bool {
        let mut bridges = plan.bridges.iter().peekable();
        plan.peer.wanted().is_empty()
            && bridges.peek().is_some()
            && bridges.all(|bridge| self.channels.is_done(&bridge.channel().label))
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
        self.line.execute(effect);
    }

    pub(super) fn say(&self, text: &str) -> bool {
        self.channels.say(text)
    }

    pub(super) fn stats(&self) -> Stats {
        self.line.peer.stats()
    }

    /// Returns the time at which [`Connection::go_on_recording`] is due.
    pub(super) fn record_at(&self) -> Option<Instant> {
        self.record_at
    }

    /// Takes what happened; what it means for the session.
    pub(super) fn handle(&mut self, happened: Happened, plan: &MediaPlan, sink: &Sink) -> Option<Input> {
        let peer = self.name.clone();
        if let Some(trace) = &plan.trace {
            follow(trace, &peer, &happened);
        }
        match happened {
            Happened::Done(..) => {}
            Happened::Result(id, result) => return Some(Input::Result(id, result)),
            Happened::Heard(media) => return Some(Input::Heard(media)),
            Happened::Negotiate => return Some(Input::Negotiate),
            Happened::ChannelDone if self.is_done(plan) => return Some(Input::HangUp),
            Happened::ChannelDone => {}
            Happened::NetworkChanged => return Some(Input::NetworkChanged),
            Happened::Failure(text) => sink(&Event::Warning { text }),
            Happened::Event(PeerEvent::LocalCandidate(mline, candidate)) => {
                return Some(Input::LocalCandidate(mline, candidate));
            }
            Happened::Event(PeerEvent::Connection(state)) => return Some(Input::Connection(state)),
            Happened::Event(PeerEvent::Track(track)) => {
                self.add_track(track.clone(), plan, sink);
                // With a recording, the track's first frame is held back until the recorder is attached: the file
                // begins with it.
                if plan.record.is_none() {
                    track.flow();
                }
            }
            Happened::Event(PeerEvent::FirstFrame { codec, size, after }) => {
                sink(&Event::Media {
                    peer,
                    kind: codec.kind().as_str(),
                    direction: "receive",
                    codec: codec.to_string(),
                    width: size.map(|(width, _)| width),
                    height: size.map(|(_, height)| height),
                    first_frame_ms: after.as_millis().try_into().unwrap_or(u64::MAX),
                });
                self.record(plan, sink);
            }
            Happened::Message(channel, text) => sink(&Event::Message { peer, channel, text }),
            Happened::Event(PeerEvent::Channel(channel)) => {
                self.channels.add(channel, (self.number, &self.name, &self.out), plan, sink);
            }
            // What stops for a while is shown as it stands.
            Happened::Event(PeerEvent::TrackEnded(_)) => {}
            Happened::Event(PeerEvent::Broken(codec)) => {
                sink(&Event::Warning {
                    text: format!("some of the {codec} of {peer} cannot be read and is left out"),
                });
            }
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
        let is_same =
            |received: &Received| received.over == self.number && received.track.mline == track.mline;
        if self.received.iter().any(is_same) {
            return;
        }
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
            Some(_) => self.finish_recording(sink),
            None => {}
        }
        let warn = |error: MediaError| sink(&Event::Warning { text: error.to_string() });
        let seat = plan.stage.as_ref().map(|stage| stage.add(&track, &self.label)).transpose();
        let seat = seat.map_err(warn).ok().flatten().flatten();
        let output = plan.own_output(track.kind());
        let start =
            |output| Output::start(&track, output, &self.name, plan.reference.as_ref(), self.failed.clone());
        let output = output.map(start).transpose();
        let output = output.map_err(warn).ok().flatten();
        self.received.push(Received { over: self.number, track, output, seat });
    }

    /// Records the tracks that delivered a frame within the last five seconds. A file's tracks are fixed once the
    /// recording has begun: a track that flows later begins another file, with all tracks.
    fn record(&mut self, plan: &MediaPlan, sink: &Sink) {
        let Some(folder) = &plan.record else { return };
        let live: Vec<Track> =
            self.received.iter().filter(|one| one.track.is_live()).map(|one| one.track.clone()).collect();
        let lacks = |recorder: &Recorder| live.iter().any(|track| recorder.lacks(track));
        if self.recorder.as_ref().is_some_and(|one| one.has_begun() && !one.has_failed() && lacks(one)) {
            self.finish_recording(sink);
        }
        let warn = |error: MediaError| sink(&Event::Warning { text: error.to_string() });
        if self.recorder.is_none() && !live.is_empty() {
            let path = folder.join(record::file_name(&self.name, &super::client::timestamp()));
            match Recorder::open(&path, self.failed.clone()) {
                Ok(recorder) => {
                    sink(&Event::recording(&self.name, recorder.path()));
                    self.recorder = Some(recorder);
                    self.record_at = Some(Instant::now() + ALL_TRACKS);
                }
                Err(error) => warn(error),
            }
        }
        if let Some(recorder) = self.recorder.as_mut().filter(|recorder| !recorder.has_begun()) {
            for track in live.iter().filter(|track| recorder.lacks(track)).collect::<Vec<_>>() {
                recorder.add(track).unwrap_or_else(warn);
            }
            if live.len() >= self.line.peer.expected_tracks() {
                self.begin_recording(sink);
            }
        }
        live.iter().for_each(Track::flow);
    }

    fn begin_recording(&mut self, sink: &Sink) {
        self.record_at = Some(Instant::now() + LOOK);
        if let Some(Err(error)) = self.recorder.as_mut().map(Recorder::begin) {
            sink(&Event::Warning { text: error.to_string() });
        }
    }

    /// Begins the recording with the tracks that are present, or checks whether a running recording lacks tracks that
    /// flow. The caller runs this at [`Connection::record_at`].
    pub(super) fn go_on_recording(&mut self, plan: &MediaPlan, sink: &Sink) {
        self.record_at = None;
        match self.recorder.as_ref().map(Recorder::has_begun) {
            Some(false) => self.begin_recording(sink),
            Some(true) => {
                self.record_at = Some(Instant::now() + LOOK);
                self.record(plan, sink);
            }
            None => {}
        }
    }

    /// Completes the recording in a background task.
    fn finish_recording(&mut self, sink: &Sink) {
        self.record_at = None;
        if let Some(recorder) = self.recorder.take() {
            let (name, sink) = (self.name.clone(), sink.clone());
            self.finishing.retain(|task| !task.is_finished());
            self.finishing.push(smol::spawn(complete(recorder, name, sink)));
        }
    }

    /// Ends the connection; its recording is complete afterwards. A peer that is still there gets what is on
    /// its way to it.
    pub(super) async fn close(mut self, is_there: bool, sink: &Sink) {
        if is_there {
            self.channels.finish().await;
        }
        // The program may end right after.
        self.line.peer.say_goodbye().await;
        self.received.clear();
        drop(self.line);
        self.channels.settle().await;
        if let Some(recorder) = self.recorder.take() {
            complete(recorder, self.name, sink.clone()).await;
        }
        for task in self.finishing {
            task.await;
        }
    }
}

/// Completes a recording and reports the result as an event.
async fn complete(recorder: Recorder, peer: String, sink: Sink) {
    let recorded = recorder.finish().await;
    sink(&Event::recorded(&peer, &recorded.path, recorded.error));
}

/// Tells what happened of a call's beginning.
fn follow(trace: &Trace, peer: &str, happened: &Happened) {
    match happened {
        // Each candidate is one.
        Happened::Done(words, _) if words.contains("candidate") => trace.first(peer, words),
        Happened::Done(words, took) => trace.step(Some(peer), words, Some(*took)),
        Happened::Event(PeerEvent::LocalCandidate(..)) => trace.first(peer, "our first candidate is found"),
        Happened::Event(PeerEvent::Connection(ConnectionState::Connected)) => {
            trace.step(Some(peer), "ICE and DTLS are through", None);
        }
        Happened::Event(PeerEvent::Track(track)) => {
            trace.step(Some(peer), &format!("the first packet of {} came", track.kind()), None);
        }
        Happened::Event(PeerEvent::FirstFrame { codec, .. }) => {
            trace.step(Some(peer), &format!("the first frame of {} came", codec.kind()), None);
        }
        _ => {}
    }
}
