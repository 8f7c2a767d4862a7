//! What a connection knows of itself, shared with webrtcbin's callbacks.

use std::sync::Mutex;
use std::time::Instant;

use smol::channel::{Receiver, Sender as EventSender, bounded};

use super::data_channel::{Channel, ChannelConfig, MAX_CHANNELS};
use super::events::PeerEvent;
use super::transceivers::Sender;
use crate::base::lock::lock;
use crate::media::receive::track::Track;
use crate::media::send::stream::Stream;
use crate::sdp::fingerprint::Fingerprint;
use crate::sdp::source::Sources;
use crate::sdp::{Direction, Payload, Sdp};

#[derive(Debug)]
pub(super) struct State {
    /// What our side wants to send.
    pub(super) streams: Vec<Stream>,
    /// The data channels that it wants.
    pub(super) wanted: Vec<ChannelConfig>,
    pub(super) senders: Vec<Sender>,
    pub(super) tracks: Vec<Track>,
    pub(super) channels: Vec<Channel>,
    /// Closed with the connection, for those who hold its channels.
    pub(super) over: (EventSender<()>, Receiver<()>),
    /// That there is no room for more of them was said.
    is_full: bool,
    /// The labels of the channels we want that there were, open or closed by now.
    pub(super) opened: Vec<String>,
    pub(super) mlines: usize,
    /// The peer's directions, by m-line.
    pub(super) flows: Vec<Direction>,
    /// The payload types that the peer's last description has.
    pub(super) payloads: Vec<Payload>,
    /// What the peer's m-lines name.
    pub(super) sources: Sources,
    pub(super) expected: usize,
    /// The local description as webrtcbin has it.
    pub(super) local: Option<Sdp>,
    /// What the peer's certificate must be.
    pub(super) fingerprints: Vec<Fingerprint>,
    /// Since when ICE and DTLS are through, and the certificate is the one that was named.
    pub(super) connected: Option<Instant>,
    /// What the peer showed and said before that.
    pub(super) held: Vec<PeerEvent>,
    /// The DTLS transports whose state is watched.
    pub(super) watched: Vec<gst::glib::WeakRef<gst_webrtc::WebRTCDTLSTransport>>,
    /// The types of the path's candidates: ours and the peer's.
    pub(super) path: Option<(String, String)>,
}

impl State {
    pub(super) fn new(streams: Vec<Stream>, wanted: Vec<ChannelConfig>) -> Self {
        Self {
            streams,
            wanted,
            senders: vec![],
            tracks: vec![],
            channels: vec![],
            over: bounded(1),
            is_full: false,
            opened: vec![],
            mlines: 0,
            flows: vec![],
            payloads: vec![],
            sources: Sources::default(),
            expected: 0,
            local: None,
            fingerprints: vec![],
            connected: None,
            held: vec![],
            watched: vec![],
            path: None,
        }
    }

    /// Whether one more channel is taken. That one is not is said once: a peer may open as many as it likes.
    pub(super) fn has_room(&mut self) -> bool {
        let has_room = self.channels.len() < MAX_CHANNELS;
        if !has_room && !std::mem::replace(&mut self.is_full, true) {
            tracing::warn!("more than {MAX_CHANNELS} data channels: no more are taken while they are open");
        }
        has_room
    }

    /// Holds a channel. Which there were is remembered of those that we want alone: a peer may open and close
    /// as many others as it likes.
    pub(super) fn take_channel(&mut self, channel: Channel) {
        let label = channel.label();
        self.channels.push(channel);
        if self.wanted.iter().any(|config| config.label == label) && !self.opened.contains(&label) {
            self.opened.push(label);
        }
    }

    /// The channels we want that neither are nor were there.
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
        tracing::warn!("an event of the connection is lost: too many at once");
    }
}

/// Nothing that a peer shows or says is passed on before it is known who it is.
pub(super) fn report_of_peer(state: &Mutex<State>, events: &EventSender<PeerEvent>, event: PeerEvent) {
    const MOST: usize = 256;
    let mut state = lock(state);
    match state.connected {
        Some(_) => report(events, event),
        None if state.held.len() < MOST => state.held.push(event),
        None => tracing::warn!("too much of a peer that is not known yet"),
    }
}
