//! One peer's connection: a pipeline around a webrtcbin. It does what the session says
//! ([`Effect`]s, one after another) and tells what happens ([`PeerEvent`]s).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use gst::prelude::*;
use gst_webrtc::{
    WebRTCDTLSTransportState as DtlsState, WebRTCDataChannel, WebRTCPeerConnectionState, WebRTCSDPType,
    WebRTCSessionDescription,
};
use smol::channel::Sender as EventSender;

use super::certificate::Certificate;
use super::encode::Encoders;
use super::pipeline::{BusEvent, Owned};
use super::playout::{Delay, Latency};
use super::receive::{self, Track};
pub use super::stats::Stats;
use super::transceivers::Sender;
use super::transport::IceConfig;
use super::{MediaError, channel, transceivers, transport};
use crate::protocol::SdpKind;
use crate::sdp::fingerprint::Fingerprint;
use crate::sdp::{Codec, Kind, Sdp};
use crate::session::{ConnectionState, Effect, EffectId, EffectResult, Remote};

/// The label of the data channel that carries the chat.
pub const CHAT: &str = "chat";
/// The longest chat message taken or sent, in bytes.
pub const MAX_CHAT: usize = 16 * 1024;

/// What a connection is to carry.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// What there is to send.
    pub encoders: Arc<Encoders>,
    /// Whether to take what the peer sends, of each kind.
    pub receive: Vec<Kind>,
    /// The codecs, in the order of preference.
    pub codecs: Vec<Codec>,
    /// The id of our media stream (`a=msid`).
    pub stream: String,
    /// How a path to the peer is looked for.
    pub ice: IceConfig,
    /// How long received media waits to be put in order.
    pub latency: Latency,
}

impl PeerConfig {
    pub(super) fn sends(&self, kind: Kind) -> bool {
        self.encoders.has(kind)
    }

    pub(super) fn receives(&self, kind: Kind) -> bool {
        self.receive.contains(&kind)
    }

    /// The kinds of media that our side sends or receives.
    pub fn wanted(&self) -> Vec<Kind> {
        Kind::ALL.into_iter().filter(|kind| self.sends(*kind) || self.receives(*kind)).collect()
    }
}

/// What happens to a connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum PeerEvent {
    /// A candidate of ours: the m-line's index and the attribute.
    LocalCandidate(u32, String),
    /// The connection's state changed.
    Connection(ConnectionState),
    /// The peer sends a stream.
    Track(Track),
    /// The first frame of a stream came.
    FirstFrame {
        /// Its codec.
        codec: Codec,
        /// Width and height of a picture.
        size: Option<(u32, u32)>,
        /// Since the connection was opened.
        after: std::time::Duration,
    },
    /// A text came over a data channel.
    Message {
        /// The channel's label.
        channel: String,
        /// The text.
        text: String,
    },
    /// A data channel can be written to.
    ChannelOpen(String),
    /// The peer's certificate is not the one that its description names: somebody sits between.
    Forged,
    /// The pipeline failed; the call cannot go on.
    Failed(String),
}

#[derive(Debug, Default)]
pub(super) struct State {
    senders: Vec<(Kind, Sender)>,
    tracks: Vec<Track>,
    pub(super) channels: Vec<WebRTCDataChannel>,
    mlines: usize,
    expected: usize,
    /// What the peer's certificate must be.
    fingerprints: Vec<Fingerprint>,
    /// ICE and DTLS are through, and the certificate is the one that was named.
    connected: bool,
    /// What the peer showed and said before that.
    held: Vec<PeerEvent>,
    watches_dtls: bool,
    /// The types of the path's candidates: ours and the peer's.
    path: Option<(String, String)>,
}

/// See the module.
#[derive(Debug)]
pub struct Peer {
    // Before the pipeline: links into it go first.
    state: Arc<Mutex<State>>,
    webrtc: gst::Element,
    config: PeerConfig,
    certificate: Certificate,
    events: EventSender<PeerEvent>,
    packets: Arc<std::sync::atomic::AtomicU64>,
    delay: Delay,
    owned: Owned,
}

pub(super) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peer {
    /// A fresh connection. Events go into `events`, which is bounded: what does not fit is lost, and
    /// logged.
    pub fn open(config: PeerConfig, events: EventSender<PeerEvent>) -> Result<Self, MediaError> {
        let pipeline = gst::Pipeline::new();
        let missing = |_| MediaError::MissingElement { element: "webrtcbin".to_owned() };
        let webrtc = gst::ElementFactory::make("webrtcbin").build().map_err(missing)?;
        webrtc.set_property_from_str("bundle-policy", "max-bundle");
        transport::set_up_ice(&webrtc, &config.ice);
        let buffers = transport::set_up_rtp(&webrtc);
        let delay = Delay::of(&webrtc, config.latency, buffers.clone());
        pipeline.add(&webrtc).map_err(|error| MediaError::WebRtc(error.to_string()))?;
        let bus_events = events.clone();
        let owned = Owned::new(pipeline, move |_, event| {
            if let BusEvent::Error(element, reason) = event {
                // A peer that closes takes the data channels' transport away while they still say
                // goodbye; the end itself is told by DTLS.
                if element.starts_with("sctp") {
                    tracing::debug!(element, reason, "the data channels ended");
                    return;
                }
                report(&bus_events, PeerEvent::Failed(format!("{reason} ({element})")));
            }
        });
        let owned = owned.with_end(transport::close_dtls, transport::finish_work);
        let packets = transport::count_packets(&webrtc);
        let certificate = Certificate::make()?;
        certificate.give_to(&webrtc);
        let peer = Self { state: Arc::default(), webrtc, config, certificate, events, packets, delay, owned };
        peer.listen(buffers);
        peer.owned.play()?;
        Ok(peer)
    }

    /// Does one effect of the session; the result of one with an id.
    pub async fn execute(&self, effect: Effect) -> Option<(EffectId, EffectResult)> {
        let result = |result: Result<EffectResult, MediaError>| match result {
            Ok(result) => result,
            Err(error) => EffectResult::Failed(error.to_string()),
        };
        match effect {
            Effect::Open => None,
            Effect::CreateOffer(id) => Some((id, result(self.create(SdpKind::Offer).await))),
            Effect::CreateAnswer(id) => Some((id, result(self.create(SdpKind::Answer).await))),
            Effect::ApplyLocal(id, kind, sdp) => Some((id, result(self.apply_local(kind, &sdp).await))),
            Effect::ApplyRemote(id, kind, remote) => {
                Some((id, result(self.apply_remote(kind, &remote).await)))
            }
            Effect::AddCandidate(mline, candidate) => {
                self.webrtc.emit_by_name::<()>("add-ice-candidate", &[&mline, &candidate]);
                None
            }
        }
    }

    /// Sends a text over the chat channel; false where none is open.
    pub fn say(&self, text: &str) -> bool {
        let state = lock(&self.state);
        if !state.connected {
            return false;
        }
        let open =
            state.channels.iter().find(|c| c.ready_state() == gst_webrtc::WebRTCDataChannelState::Open);
        open.is_some_and(|channel| channel.send_string_full(Some(text)).is_ok())
    }

    /// What came of the peer by now: packets of any kind, and frames of media.
    pub fn heard(&self) -> (u64, u64) {
        use std::sync::atomic::Ordering::Relaxed;
        let frames = lock(&self.state).tracks.iter().map(|track| track.counters.frames.load(Relaxed)).sum();
        (self.packets.load(Relaxed), frames)
    }

    /// Lets received media wait as long as the network wants it; to be called regularly.
    pub fn follow_network(&self) {
        if lock(&self.state).connected {
            self.delay.follow(&self.webrtc);
        }
    }

    /// Says goodbye to the peer, which then knows at once that this is the end.
    pub async fn say_goodbye(&self) {
        self.owned.say_farewell().await;
    }

    /// Another connection takes its place: it ends without a goodbye, which would end the call.
    pub fn abandon(&self) {
        self.owned.without_farewell();
    }

    /// How many streams the peer said it sends.
    pub fn expected_tracks(&self) -> usize {
        lock(&self.state).expected
    }

    /// The counters as they are now.
    pub fn stats(&self) -> Stats {
        use std::sync::atomic::Ordering::Relaxed;
        let state = lock(&self.state);
        let mut stats = Stats::default();
        for (kind, sender) in &state.senders {
            match kind {
                Kind::Video => stats.video_frames_sent += sender.link.pushed(),
                Kind::Audio => stats.audio_frames_sent += sender.link.pushed(),
            }
        }
        for track in &state.tracks {
            let counters = &track.counters;
            stats.bytes_received += counters.bytes.load(Relaxed);
            match track.kind() {
                Kind::Video => {
                    stats.video_frames_received += counters.frames.load(Relaxed);
                    stats.width = counters.width.load(Relaxed);
                    stats.height = counters.height.load(Relaxed);
                }
                Kind::Audio => stats.audio_frames_received += counters.frames.load(Relaxed),
            }
        }
        (stats.local_candidate, stats.remote_candidate) = state.path.clone().unzip();
        drop(state);
        super::stats::add_rtp_session(&self.webrtc, &mut stats);
        self.delay.add_to(&mut stats);
        stats.delay_ms = self.webrtc.property("latency");
        stats
    }

    fn listen(&self, buffers: transport::JitterBuffers) {
        let events = self.events.clone();
        self.webrtc.connect("on-ice-candidate", false, move |args| {
            if let (Some(Ok(mline)), Some(Ok(candidate))) =
                (args.get(1).map(|v| v.get::<u32>()), args.get(2).map(|v| v.get::<String>()))
            {
                report(&events, PeerEvent::LocalCandidate(mline, candidate));
            }
            None
        });

        let (events, state) = (self.events.clone(), Arc::downgrade(&self.state));
        self.webrtc.connect_notify(Some("connection-state"), move |webrtc, _| {
            let of = &state;
            let Some(state) = of.upgrade() else { return };
            match webrtc.property::<WebRTCPeerConnectionState>("connection-state") {
                WebRTCPeerConnectionState::Connected => {
                    let mut state = lock(&state);
                    // webrtcbin (before 1.28.5) takes whatever certificate comes.
                    if !transport::is_the_one_named(webrtc, &state.fingerprints) {
                        drop(state);
                        report(&events, PeerEvent::Forged);
                        return;
                    }
                    state.connected = true;
                    state.senders.iter().for_each(|(_, sender)| sender.flow(true));
                    state.held.drain(..).for_each(|event| report(&events, event));
                    drop(state);
                    report(&events, PeerEvent::Connection(ConnectionState::Connected));
                    let (webrtc, of) = (webrtc.downgrade(), of.clone());
                    smol::spawn(async move {
                        let Some(webrtc) = webrtc.upgrade() else { return };
                        let path = super::stats::candidate_types(&webrtc).await;
                        if let Some(state) = of.upgrade() {
                            lock(&state).path = path;
                        }
                    })
                    .detach();
                }
                WebRTCPeerConnectionState::Failed => {
                    report(&events, PeerEvent::Connection(ConnectionState::Failed));
                }
                WebRTCPeerConnectionState::Closed => {
                    report(&events, PeerEvent::Connection(ConnectionState::Closed));
                }
                _ => {}
            }
        });

        let (events, state) = (self.events.clone(), Arc::downgrade(&self.state));
        let (config, pipeline, opened) =
            (self.config.clone(), self.owned.pipeline().downgrade(), Instant::now());
        self.webrtc.connect_pad_added(move |_, pad| {
            let (Some(pipeline), Some(state)) = (pipeline.upgrade(), state.upgrade()) else { return };
            if pad.direction() != gst::PadDirection::Src {
                return;
            }
            transport::ask_again(&buffers, pad);
            let first = events.clone();
            let linked = receive::link(
                &pipeline,
                pad,
                |kind| config.receives(kind),
                move |codec, counters| {
                    use std::sync::atomic::Ordering::Relaxed;
                    let size = (counters.width.load(Relaxed), counters.height.load(Relaxed));
                    let size = (codec.kind() == Kind::Video).then_some(size);
                    report(&first, PeerEvent::FirstFrame { codec, size, after: opened.elapsed() });
                },
            );
            match linked {
                Ok(None) => {}
                Ok(Some(track)) => {
                    lock(&state).tracks.push(track.clone());
                    report_of_peer(&state, &events, PeerEvent::Track(track));
                }
                Err(error) => report(&events, PeerEvent::Failed(error.to_string())),
            }
        });

        let (events, state) = (self.events.clone(), Arc::downgrade(&self.state));
        self.webrtc.connect("on-data-channel", false, move |args| {
            let channel = args.get(1).and_then(|v| v.get::<WebRTCDataChannel>().ok());
            if let (Some(channel), Some(state)) = (channel, state.upgrade()) {
                channel::adopt(&state, &events, channel);
            }
            None
        });
    }

    async fn create(&self, kind: SdpKind) -> Result<EffectResult, MediaError> {
        if kind == SdpKind::Offer {
            let (mlines, first) = {
                let state = lock(&self.state);
                (state.mlines, state.channels.is_empty())
            };
            let pipeline = self.owned.pipeline();
            let new = transceivers::for_offer(pipeline, &self.webrtc, &self.config, mlines)?;
            lock(&self.state).senders.extend(new);
            if first && mlines == 0 {
                let none = None::<gst::Structure>;
                let channel = self
                    .webrtc
                    .emit_by_name::<Option<WebRTCDataChannel>>("create-data-channel", &[&CHAT, &none]);
                if let Some(channel) = channel {
                    channel::adopt(&self.state, &self.events, channel);
                }
            }
        }
        let (promise, reply) = gst::Promise::new_future();
        let signal = match kind {
            SdpKind::Offer => "create-offer",
            SdpKind::Answer => "create-answer",
        };
        self.webrtc.emit_by_name::<()>(signal, &[&None::<gst::Structure>, &promise]);
        let reply = settle(reply.await)?;
        let made = reply.and_then(|reply| reply.get::<WebRTCSessionDescription>(kind.as_str()).ok());
        let made = made.ok_or_else(|| MediaError::WebRtc(format!("webrtcbin made no {}", kind.as_str())))?;
        let text = made.sdp().as_text().map_err(|error| MediaError::WebRtc(error.to_string()))?;
        let text = self.certificate.name_in(&text);
        tracing::debug!(kind = kind.as_str(), "made: {}", text_summary(&text));
        tracing::trace!("{text}");
        Ok(EffectResult::Created(text))
    }

    async fn apply_local(&self, kind: SdpKind, sdp: &str) -> Result<EffectResult, MediaError> {
        self.apply("set-local-description", kind, sdp).await?;
        self.watch_dtls();
        Ok(EffectResult::Applied)
    }

    async fn apply_remote(&self, kind: SdpKind, remote: &Remote) -> Result<EffectResult, MediaError> {
        let Remote { sdp, flows } = remote;
        tracing::debug!(kind = kind.as_str(), "the peer's: {}", transceivers::summary(sdp));
        lock(&self.state).fingerprints = Fingerprint::all(sdp);
        self.apply("set-remote-description", kind, &sdp.to_string()).await?;
        if kind == SdpKind::Offer {
            let (sending, agreed): (Vec<Kind>, usize) = {
                let state = lock(&self.state);
                (state.senders.iter().map(|(kind, _)| *kind).collect(), state.mlines)
            };
            let pipeline = self.owned.pipeline();
            let new = transceivers::for_answer(pipeline, &self.webrtc, &self.config, &sending, sdp, agreed)?;
            lock(&self.state).senders.extend(new);
        }
        let lines = sdp.media.iter().zip(flows);
        let comes = |(media, flow): &(&crate::sdp::Media, &crate::sdp::Direction)| {
            flow.send && Kind::of(media).is_some_and(|kind| self.config.receives(kind))
        };
        let mut state = lock(&self.state);
        state.mlines = sdp.media.len();
        state.expected = lines.filter(comes).count();
        let connected = state.connected;
        for (_, sender) in &mut state.senders {
            sender.is_wanted = flows.get(sender.mline).is_some_and(|flow| flow.receive);
            sender.flow(connected);
        }
        drop(state);
        self.watch_dtls();
        Ok(EffectResult::Applied)
    }

    async fn apply(&self, signal: &str, kind: SdpKind, sdp: &str) -> Result<(), MediaError> {
        let wrong = |error: String| MediaError::WebRtc(format!("{signal}: {error}"));
        let message = gst_sdp::SDPMessage::parse_buffer(sdp.as_bytes()).map_err(|e| wrong(e.to_string()))?;
        let kind = match kind {
            SdpKind::Offer => WebRTCSDPType::Offer,
            SdpKind::Answer => WebRTCSDPType::Answer,
        };
        let (promise, reply) = gst::Promise::new_future();
        let description = WebRTCSessionDescription::new(kind, message);
        self.webrtc.emit_by_name::<()>(signal, &[&description, &promise]);
        settle(reply.await).map(|_| ()).map_err(|error| wrong(error.to_string()))
    }

    /// A peer that closes its side shows in the DTLS transport, not in webrtcbin's own state.
    fn watch_dtls(&self) {
        let Some(transport) = transport::dtls(&self.webrtc) else { return };
        if std::mem::replace(&mut lock(&self.state).watches_dtls, true) {
            return;
        }
        let events = self.events.clone();
        transport.connect_state_notify(move |transport| match transport.state() {
            DtlsState::Closed => report(&events, PeerEvent::Connection(ConnectionState::Closed)),
            DtlsState::Failed => report(&events, PeerEvent::Connection(ConnectionState::Failed)),
            _ => {}
        });
    }
}

fn report(events: &EventSender<PeerEvent>, event: PeerEvent) {
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
        true => report(events, event),
        false if state.held.len() < MOST => state.held.push(event),
        false => tracing::warn!("too much of a peer that is not known yet"),
    }
}

fn text_summary(sdp: &str) -> String {
    Sdp::parse(sdp).map_or_else(|error| error.to_string(), |sdp| transceivers::summary(&sdp))
}

fn settle(
    reply: Result<Option<gst::promise::PromiseReply>, gst::PromiseError>,
) -> Result<Option<gst::Structure>, MediaError> {
    match reply {
        Ok(None) => Ok(None),
        Ok(Some(ref reply)) => match reply.get::<gst::glib::Error>("error") {
            Ok(error) => Err(MediaError::WebRtc(error.message().to_owned())),
            Err(_) => Ok(Some((**reply).to_owned())),
        },
        Err(error) => Err(MediaError::WebRtc(format!("webrtcbin gave no answer: {error:?}"))),
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Links and channels before the pipeline that they lead into.
        let mut state = lock(&self.state);
        state.senders.clear();
        state.tracks.clear();
        state.held.clear();
        state.channels.clear();
    }
}
