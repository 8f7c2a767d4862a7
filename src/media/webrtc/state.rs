//! State of a connection, shared with webrtcbin's callbacks.

use std::sync::Mutex;
use std::time::Instant;

use smol::channel::{Receiver, Sender as EventSender, bounded};

use super::data_channel::{Channel, ChannelConfig, MAX_CHANNELS};
use super::events::PeerEvent;
use super::transceivers::Sender;
use crate::base::lock::lock;
use crate::base::tasks::Tasks;
use crate::media::receive::track::{Counters, Track};
use crate::media::send::stream::Stream;
use crate::sdp::fingerprint::Fingerprint;
use crate::sdp::webrtcbin::{Adapter, Sources};
use crate::sdp::{Direction, Payload};

#[derive(Debug)]
pub(super) struct State {
    /// Streams that our side sends.
    pub(super) streams: Vec<Stream>,
    /// Data channels that our side wants.
    pub(super) wanted: Vec<ChannelConfig>,
    pub(super) senders: Vec<Sender>,
    pub(super) tracks: Vec<Track>,
    pub(super) channels: Vec<Channel>,
    /// Whether a channel of our own keeps the m-line of data channels.
    pub(super) keeps_mline: bool,
    /// Closed with the connection, for holders of its channels.
    pub(super) over: (EventSender<()>, Receiver<()>),
    /// Whether the warning about too many channels was logged.
    is_full: bool,
    /// Labels of wanted channels that have existed, open or closed.
    pub(super) opened: Vec<String>,
    pub(super) mlines: usize,
    /// Whether the peer's last offer had too few m-lines for our streams, and no offer of ours was requested yet.
    pub(super) lacks_mlines: bool,
    /// Directions of the peer, by m-line.
    pub(super) flows: Vec<Direction>,
    /// Payload types of the peer's last description.
    pub(super) payloads: Vec<Payload>,
    /// SSRCs that the peer's m-lines name.
    pub(super) sources: Sources,
    /// Streams of the tracks that the peer's last description announces.
    pub(super) expected: Vec<Option<String>>,
    /// Translator of the descriptions.
    pub(super) adapter: Adapter,
    /// Fingerprints in the peer's description.
    pub(super) fingerprints: Vec<Fingerprint>,
    /// Time at which ICE and DTLS were connected and the peer's certificate was verified.
    pub(super) connected: Option<Instant>,
    /// Events of the peer from before that time.
    pub(super) held: Vec<PeerEvent>,
    /// DTLS transports whose state is watched.
    pub(super) watched: Vec<gst::glib::WeakRef<gst_webrtc::WebRTCDTLSTransport>>,
    /// Checks of the peer's certificate; the state becomes connected once for each restart of DTLS.
    pub(super) checks: Tasks,
}

impl State {
    pub(super) fn new(streams: Vec<Stream>, wanted: Vec<ChannelConfig>) -> Self {
        Self {
            streams,
            wanted,
            senders: vec![],
            tracks: vec![],
            channels: vec![],
            keeps_mline: false,
            over: bounded(1),
            is_full: false,
            opened: vec![],
            mlines: 0,
            lacks_mlines: false,
            flows: vec![],
            payloads: vec![],
            sources: Sources::default(),
            expected: vec![],
            adapter: Adapter::default(),
            fingerprints: vec![],
            connected: None,
            held: vec![],
            watched: vec![],
            checks: Tasks::new(8),
        }
    }

    /// Returns whether another channel is accepted. A peer may open any number, so that only the first refusal is
    /// logged.
    pub(super) fn has_room(&mut self) -> bool {
        let has_room = self.channels.len() < MAX_CHANNELS;
        if !has_room && !std::mem::replace(&mut self.is_full, true) {
            tracing::warn!(
                "more than {MAX_CHANNELS} data channels: further ones are refused while these are open"
            );
        }
        has_room
    }

    /// Stores a channel. Only the labels of wanted channels are remembered, because a peer may open and close any
    /// number of others.
    pub(super) fn add_channel(&mut self, channel: Channel) {
        let label = channel.label();
        self.channels.push(channel);
        if self.wanted.iter().any(|config| config.label == label) && !self.opened.contains(&label) {
            self.opened.push(label);
        }
    }

    /// Fits the tracks to the peer's new description, in which its directions are `flows`; returns the tracks that begin
    /// and end. A track whose m-line has passed to another stream ends and begins.
    pub(super) fn fit_tracks(&mut self, flows: Vec<Direction>) -> Vec<PeerEvent> {
        let before = std::mem::replace(&mut self.flows, flows);
        let sends = |flows: &[Direction], mline: usize| flows.get(mline).is_some_and(|flow| flow.send);
        let mut events = Vec::new();
        for track in &mut self.tracks {
            let (did_send, does_send) = (sends(&before, track.mline), sends(&self.flows, track.mline));
            let stream = self.sources.stream(track.mline);
            let has_moved = does_send && stream != track.stream.as_deref();
            if did_send && (has_moved || !does_send) {
                events.push(PeerEvent::TrackEnded(track.clone()));
            }
            if has_moved {
                track.stream = stream.map(str::to_owned);
            }
            if does_send && (has_moved || !did_send) {
                events.push(PeerEvent::Track(track.clone()));
            }
        }
        events
    }

    /// Returns the track with these counters.
    pub(super) fn track_of(&self, counters: &Counters) -> Option<Track> {
        self.tracks.iter().find(|track| std::ptr::eq(&*track.counters, counters)).cloned()
    }

    /// Returns the wanted channels that neither exist nor have existed.
    pub(super) fn missing_channels(&self) -> Vec<ChannelConfig> {
        let is_open = |label: &str| self.channels.iter().any(|channel| channel.label() == label);
        let is_missing = |label: &String| !self.opened.contains(label) && !is_open(label);
        self.wanted.iter().filter(|config| is_missing(&config.label)).cloned().collect()
    }
}

pub(super) fn report(events: &EventSender<PeerEvent>, event: PeerEvent) {
    if let Err(error) = events.try_send(event)
        && error.is_full()
    {
        tracing::warn!("an event of the connection is lost: the queue of events is full");
    }
}

/// Reports an event of the peer, or holds it back until the peer's certificate is verified.
pub(super) fn report_of_peer(state: &Mutex<State>, events: &EventSender<PeerEvent>, event: PeerEvent) {
    const MOST: usize = 256;
    let mut state = lock(state);
    match state.connected {
        Some(_) => report(events, event),
        None if state.held.len() < MOST => state.held.push(event),
        None => {
            tracing::warn!("more than {MOST} events of a peer that is not verified: further ones are dropped")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::test_media::produce;
    use crate::sdp::{Codec, Sdp};

    #[test]
    fn a_track_whose_m_line_passes_to_another_stream_ends_and_begins() {
        let (_running, producer) = produce("audiotestsrc num-buffers=1");
        let mut state = State::new(vec![], vec![]);
        state.tracks.push(Track::of(Codec::Opus, &producer));
        let mut describe = |stream: &str, send: bool| {
            let text = format!("v=0\r\nm=audio 9 X 111\r\na=msid:{stream} track\r\n");
            state.sources = Sources::of(&Sdp::parse(&text).unwrap());
            let events = state.fit_tracks(vec![Direction { send, receive: true }]).into_iter();
            let text = |event| match event {
                PeerEvent::Track(track) => format!("{} begins", track.stream.unwrap()),
                PeerEvent::TrackEnded(track) => format!("{} ends", track.stream.unwrap()),
                other => panic!("{other:?}"),
            };
            events.map(text).collect::<Vec<_>>()
        };
        assert_eq!(describe("ann", true), ["ann begins"]);
        assert!(describe("ann", true).is_empty());
        assert_eq!(describe("bob", true), ["ann ends", "bob begins"]);
        assert_eq!(describe("bob", false), ["bob ends"]);
        assert!(describe("cat", false).is_empty());
        assert_eq!(describe("cat", true), ["cat begins"]);
    }
}
