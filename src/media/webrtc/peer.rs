//! The connection with one peer: a pipeline around a webrtcbin. It executes the session's effects ([`Effect`]) one
//! after another, and reports events ([`PeerEvent`]).

use std::sync::Arc;
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_webrtc::{
    WebRTCDTLSTransportState as DtlsState, WebRTCDataChannel, WebRTCPeerConnectionState, WebRTCRTPTransceiver,
};
use smol::channel::Sender as EventSender;

pub use super::config::PeerConfig;
use super::data_channel::{self, ChannelConfig};
pub use super::events::PeerEvent;
use super::state::{State, report, report_of_peer};
pub use super::stats::Stats;
use super::stats::{self, Reports};
use super::transport::certificate::Certificate;
use super::transport::data_gate::DataGate;
use super::transport::ice_restart::{Change, IceTransports};
use super::transport::receiver_reports::ReceiverReports;
use super::transport::{dtls, handshake, ice, rtp_session, shutdown, source_limit};
use super::{adapt, channels, identity};
use crate::base::lock::lock;
use crate::media::gst::error::MediaError;
use crate::media::gst::pipeline::{BusEvent, Owned};
use crate::media::rate::estimator::BandwidthEstimate;
use crate::media::receive::jitter_buffers::JitterBuffers;
use crate::media::receive::track::{self, Track};
use crate::media::send::stream::Stream;
use crate::protocol::SdpKind;
use crate::sdp::{Kind, Sdp, webrtcbin};
use crate::session::{ConnectionState, Effect, EffectId, delivery};

/// Time that the peer has to open a channel that both sides want, before our side opens it.
const PEER_OPENS_FIRST: Duration = Duration::from_secs(1);

/// The connection with one peer.
#[derive(Debug)]
pub struct Peer {
    // Declared before the pipeline, because links into the pipeline must be dropped first.
    pub(super) state: Arc<std::sync::Mutex<State>>,
    pub(super) webrtc: gst::Element,
    pub(super) config: PeerConfig,
    pub(super) certificate: Certificate,
    pub(super) ice: IceTransports,
    pub(super) events: EventSender<PeerEvent>,
    packets: Arc<std::sync::atomic::AtomicU64>,
    receiver_reports: Arc<std::sync::Mutex<ReceiverReports>>,
    buffers: Arc<JitterBuffers>,
    bandwidth: Arc<BandwidthEstimate>,
    _adapts: smol::Task<()>,
    pub(super) owned: Owned,
}

impl Peer {
    /// Opens a connection. Events go into `events`; if that channel is full, they are lost and a warning is logged.
    pub fn open(config: PeerConfig, events: EventSender<PeerEvent>) -> Result<Self, MediaError> {
        let pipeline = gst::Pipeline::new();
        let missing = |_| MediaError::MissingElement { element: "webrtcbin".to_owned() };
        let webrtc = gst::ElementFactory::make("webrtcbin").build().map_err(missing)?;
        webrtc.set_property_from_str("bundle-policy", "max-bundle");
        ice::set_up(&webrtc, &config.ice);
        rtp_session::set_up(&webrtc);
        let buffers = JitterBuffers::manage(&webrtc, config.latency);
        pipeline.add(&webrtc).map_err(|error| MediaError::pipeline("adding webrtcbin", error))?;
        let bus_events = events.clone();
        let owned = Owned::new(pipeline, move |_, event| {
            if let BusEvent::Error(element, reason) = event {
                // A peer that closes removes the transport of data channels that are still closing; DTLS reports the
                // end of the connection.
                if element.starts_with("sctp") {
                    tracing::debug!(element, reason, "the data channels ended");
                    return;
                }
                report(&bus_events, PeerEvent::Failed(format!("{reason} ({element})")));
            }
        });
        let owned = owned.with_end(shutdown::close_dtls, shutdown::finish_work);
        handshake::repeat_handshakes(&webrtc);
        source_limit::bound(&webrtc);
        let packets = rtp_session::count_packets(&webrtc);
        let receiver_reports = ReceiverReports::watch(&webrtc);
        let data = DataGate::before(&webrtc);
        data_channel::Teardown::watch(&webrtc);
        let certificate = Certificate::make()?;
        certificate.give_to(&webrtc);
        let state =
            Arc::new(std::sync::Mutex::new(State::new(config.streams.clone(), config.channels.clone())));
        let ice = transports(&webrtc, &config.ice, events.clone());
        let (start, most) = adapt::rates(&config.streams);
        let bandwidth = Arc::new(BandwidthEstimate::of(start, most));
        bandwidth.limit_retransmissions(&webrtc);
        let _adapts = smol::spawn(adapt::run(
            Arc::downgrade(&state),
            webrtc.downgrade(),
            bandwidth.clone(),
            (buffers.clone(), config.fec),
        ));
        let peer = Self {
            state,
            webrtc,
            config,
            certificate,
            ice,
            events,
            packets,
            receiver_reports,
            buffers,
            bandwidth,
            _adapts,
            owned,
        };
        peer.listen(data);
        peer.owned.play()?;
        Ok(peer)
    }

    /// Executes an effect of the session. Returns the result of an effect that has an id: the description that it created,
    /// if it creates one, or the reason of its failure.
    pub async fn execute(&self, effect: Effect) -> Option<(EffectId, Result<Option<Sdp>, String>)> {
        let (id, result) = match effect {
            Effect::Open => return None,
            Effect::CreateOffer { id, standing, restarts_ice } => match self.prepare_offer(standing.as_ref())
            {
                Ok(()) => (id, self.create(SdpKind::Offer, restarts_ice).await.map(Some)),
                Err(error) => (id, Err(error)),
            },
            Effect::CreateAnswer { id, restarts_ice } => {
                (id, self.create(SdpKind::Answer, restarts_ice).await.map(Some))
            }
            Effect::ApplyLocal(id, kind) => (id, self.apply_local(kind).await.map(|()| None)),
            Effect::ApplyRemote(id, kind, remote) => {
                (id, self.apply_remote(kind, &remote).await.map(|()| None))
            }
            Effect::AddCandidate(candidate) => {
                if !self.ice.add_candidate(&candidate) {
                    self.webrtc
                        .emit_by_name::<()>("add-ice-candidate", &[&webrtcbin::CANDIDATES, &candidate]);
                }
                return None;
            }
        };
        Some((id, result.map_err(|error| error.to_string())))
    }

    /// Sends a stream from our next offer on.
    pub fn add_stream(&self, stream: Stream) {
        let mut state = lock(&self.state);
        if !state.streams.iter().any(|there| there.id == stream.id) {
            state.streams.push(stream);
        }
    }

    /// Stops sending a stream; the peer learns of it from our next description.
    pub fn remove_stream(&self, id: &str) {
        let mut state = lock(&self.state);
        state.streams.retain(|stream| stream.id != id);
        state.senders.iter_mut().filter(|sender| sender.carries(id)).for_each(|sender| sender.stop());
    }

    /// Uses these STUN and TURN servers for the candidates that are gathered from now on: with the first local description,
    /// and the TURN servers at ICE restarts. All else in `config` stays as it was at the start.
    pub fn use_servers(&self, config: &ice::IceConfig) {
        ice::use_stun_server(&self.webrtc, config);
        self.ice.use_servers(config);
    }

    /// Opens a data channel; returns whether that needs an offer of ours.
    pub fn open_channel(&self, config: &ChannelConfig) -> Result<bool, MediaError> {
        channels::open(&self.webrtc, &self.state, &self.events, config)?;
        Ok(self.webrtc.property::<Option<gst_webrtc::WebRTCSCTPTransport>>("sctp-transport").is_none())
    }

    /// Opens a data channel now or once connected; returns whether our side has to make an offer now.
    pub fn want_channel(&self, config: ChannelConfig) -> Result<bool, MediaError> {
        lock(&self.state).wanted.push(config);
        self.open_missing()
    }

    /// Closes the data channels with this label, or all, once all messages are sent, and no longer wants them.
    pub async fn finish_channels(&self, label: Option<&str>) {
        let is_meant = |other: &str| label.is_none_or(|label| label == other);
        let channels = {
            let mut state = lock(&self.state);
            state.wanted.retain(|config| !is_meant(&config.label));
            state.opened.retain(|opened| !is_meant(opened));
            state.channels.clone()
        };
        for channel in channels.into_iter().filter(|channel| channel.is_open() && is_meant(&channel.label()))
        {
            channel.finish().await;
        }
    }

    /// Opens the wanted channels that the peer has not opened by now; returns whether our side has to make an offer: for
    /// a channel, or for a stream for which the peer's offer had no m-line. To be called regularly.
    pub fn open_missing(&self) -> Result<bool, MediaError> {
        let mut state = lock(&self.state);
        if state.connected.is_none_or(|since| since.elapsed() < PEER_OPENS_FIRST) {
            return Ok(false);
        }
        let needs_mlines = std::mem::take(&mut state.lacks_mlines);
        let missing = state.missing_channels();
        drop(state);
        missing.iter().try_fold(needs_mlines, |needs, config| Ok(self.open_channel(config)? || needs))
    }

    /// Returns the numbers of packets and of media frames received so far.
    pub fn heard(&self) -> (u64, u64) {
        use std::sync::atomic::Ordering::Relaxed;
        let frames = lock(&self.state).tracks.iter().map(|track| track.counters.frames.load(Relaxed)).sum();
        (self.packets.load(Relaxed), frames)
    }

    /// Returns the number of packets sent so far, and of the peer's reports on their arrival.
    pub fn delivery(&self) -> delivery::Report {
        let (reports, progress) = lock(&self.receiver_reports).counts();
        delivery::Report { sent: stats::packets_sent(&self.webrtc), reports, progress }
    }

    /// Closes DTLS, so that the peer learns at once of the end.
    pub async fn close(&self) {
        self.owned.close().await;
    }

    /// Ends this connection silently because another one replaces it; closing DTLS would end the call.
    pub fn abandon(&self) {
        self.owned.stop_silently();
    }

    /// Returns the streams of the tracks that the peer sends by its last description, one entry for each track.
    pub fn expected_tracks(&self) -> Vec<Option<String>> {
        lock(&self.state).expected.clone()
    }

    /// Returns the tracks that the peer has sent; none until its certificate is verified.
    pub fn tracks(&self) -> Vec<Track> {
        let state = lock(&self.state);
        if state.connected.is_some() { state.tracks.clone() } else { vec![] }
    }

    /// Returns the current counters.
    pub fn stats(&self) -> Stats {
        use std::sync::atomic::Ordering::Relaxed;
        let state = lock(&self.state);
        let mut stats = Stats::default();
        for sender in &state.senders {
            match sender.kind() {
                Kind::Video => {
                    stats.video_frames_sent += sender.pushed();
                    stats.video_kbps = sender.bitrate().map(|rate| rate / 1000).or(stats.video_kbps);
                }
                Kind::Audio => stats.audio_frames_sent += sender.pushed(),
            }
        }
        for track in &state.tracks {
            let counters = &track.counters;
            stats.bytes_received += counters.bytes.load(Relaxed);
            match track.kind() {
                Kind::Video => {
                    stats.video_frames_received += counters.frames.load(Relaxed);
                    let size = |length: u32| Some(length).filter(|length| *length > 0);
                    stats.width = size(counters.width.load(Relaxed)).or(stats.width);
                    stats.height = size(counters.height.load(Relaxed)).or(stats.height);
                }
                Kind::Audio => {
                    stats.audio_frames_received += counters.frames.load(Relaxed);
                    let loudest = counters.meter.level().into_iter().chain(stats.sound_level_received).min();
                    stats.sound_level_received = loudest;
                }
            }
        }
        if state.senders.iter().any(|sender| sender.kind() == Kind::Audio && sender.bitrate().is_some()) {
            stats.sound_level_sent = state.streams.iter().filter_map(|stream| stream.encoders.level()).min();
        }
        drop(state);
        (stats.local_candidate, stats.remote_candidate) = self.ice.selected_types().unzip();
        let reports = Reports::of(&self.webrtc);
        (stats.packets_lost, stats.round_trip_ms) = (reports.missed, reports.round_trip_ms);
        stats.network_kbps = stats.video_kbps.and(self.bandwidth.known()).map(|rate| rate / 1000);
        (stats.packets_requested, stats.packets_recovered) = self.buffers.retransmissions();
        stats.delay_ms = self.buffers.playout_ms();
        stats.packets_repaired = rtp_session::recovered_packets(&self.webrtc);
        stats
    }

    fn listen(&self, data: Arc<DataGate>) {
        self.report_candidates();
        self.report_state(data);
        self.accept_tracks();
        self.accept_channels();
    }

    fn report_candidates(&self) {
        let (events, state) = (self.events.clone(), Arc::downgrade(&self.state));
        let ice = self.ice.clone();
        self.webrtc.connect("on-ice-candidate", false, move |args| {
            let mline = ice.mline(args.get(1)?.get::<u32>().ok()?)?;
            let candidate = args.get(2)?.get::<String>().ok()?;
            // Newer versions report the end of candidates by an empty one, which nothing needs.
            if let Some(state) = state.upgrade().filter(|_| !candidate.is_empty()) {
                ice.announced(&candidate);
                let candidate = lock(&state).adapter.candidate(mline, candidate);
                report(&events, PeerEvent::LocalCandidate(candidate));
            }
            None
        });
    }

    fn report_state(&self, data: Arc<DataGate>) {
        let (events, state) = (self.events.clone(), Arc::downgrade(&self.state));
        let ice = self.ice.clone();
        self.webrtc.connect_notify(Some("connection-state"), move |webrtc, _| {
            let of = &state;
            let Some(state) = of.upgrade() else { return };
            match webrtc.property::<WebRTCPeerConnectionState>("connection-state") {
                WebRTCPeerConnectionState::Connected => {
                    let (webrtc, of, data, events) =
                        (webrtc.downgrade(), of.clone(), data.clone(), events.clone());
                    lock(&state).checks.spawn(identity::connected(webrtc, of, data, events));
                }
                // The transport from before an ICE restart may fail after it.
                WebRTCPeerConnectionState::Failed if ice.is_restarted() => {}
                WebRTCPeerConnectionState::Failed => {
                    report(&events, PeerEvent::Connection(ConnectionState::Failed));
                }
                WebRTCPeerConnectionState::Closed => {
                    report(&events, PeerEvent::Connection(ConnectionState::Closed));
                }
                _ => {}
            }
        });
    }

    fn accept_tracks(&self) {
        let (events, state) = (self.events.clone(), Arc::downgrade(&self.state));
        let (config, pipeline, opened) =
            (self.config.clone(), self.owned.pipeline().downgrade(), Instant::now());
        let buffers = self.buffers.clone();
        self.webrtc.connect_pad_added(move |_, pad| {
            let (Some(pipeline), Some(state)) = (pipeline.upgrade(), state.upgrade()) else { return };
            if pad.direction() != gst::PadDirection::Src {
                return;
            }
            buffers.request_retransmissions(pad);
            buffers.report_playout_delay(pad);
            let (first, of) = (events.clone(), Arc::downgrade(&state));
            let (faults, faulty) = (events.clone(), Arc::downgrade(&state));
            let has_room = lock(&state).tracks.len() < rtp_session::MAX_STREAMS;
            let linked = track::link(
                &pipeline,
                pad,
                |kind| has_room && config.receives(kind),
                move |codec, counters| {
                    use std::sync::atomic::Ordering::Relaxed;
                    let size = (counters.width.load(Relaxed), counters.height.load(Relaxed));
                    let size = (codec.kind() == Kind::Video).then_some(size);
                    let Some(state) = of.upgrade() else { return };
                    let track = lock(&state).track_of(counters);
                    if let Some(track) = track {
                        let event = PeerEvent::FirstFrame { track, size, after: opened.elapsed() };
                        report_of_peer(&state, &first, event);
                    }
                },
                move |codec| {
                    if let Some(state) = faulty.upgrade() {
                        report_of_peer(&state, &faults, PeerEvent::Broken(codec));
                    }
                },
            );
            match linked {
                Ok(None) => {}
                Ok(Some(mut track)) => {
                    let mut known = lock(&state);
                    let taken: Vec<usize> = known.tracks.iter().map(|track| track.mline).collect();
                    let guess = pad.property::<WebRTCRTPTransceiver>("transceiver").mlineindex() as usize;
                    track.mline = known.sources.mline(track::ssrc(pad), track.kind(), guess, &taken);
                    track.stream = known.sources.stream(track.mline).map(str::to_owned);
                    known.tracks.push(track.clone());
                    drop(known);
                    report_of_peer(&state, &events, PeerEvent::Track(track));
                }
                Err(error) => report(&events, PeerEvent::Failed(error.to_string())),
            }
        });
    }

    fn accept_channels(&self) {
        let (events, state) = (self.events.clone(), Arc::downgrade(&self.state));
        self.webrtc.connect("on-data-channel", false, move |args| {
            let webrtc = args.first()?.get::<gst::Element>().ok()?;
            let channel = args.get(1)?.get::<WebRTCDataChannel>().ok()?;
            if let Some(state) = state.upgrade() {
                channels::adopt(&webrtc, &state, &events, channel);
            }
            None
        });
    }

    /// Watches the DTLS transports: a peer that closes its side shows there, not in webrtcbin's own state.
    pub(super) fn watch_dtls(&self) {
        for transport in dtls::transports(&self.webrtc) {
            let mut state = lock(&self.state);
            if state.watched.iter().any(|watched| watched.upgrade().as_ref() == Some(&transport)) {
                continue;
            }
            state.watched.push(transport.downgrade());
            drop(state);
            let events = self.events.clone();
            transport.connect_state_notify(move |transport| match transport.state() {
                DtlsState::Closed => report(&events, PeerEvent::Connection(ConnectionState::Closed)),
                DtlsState::Failed => report(&events, PeerEvent::Connection(ConnectionState::Failed)),
                _ => {}
            });
        }
    }
}

/// Returns the ICE transports of a webrtcbin, which report their states once ICE was restarted.
fn transports(
    webrtc: &gst::Element,
    config: &ice::IceConfig,
    events: EventSender<PeerEvent>,
) -> IceTransports {
    IceTransports::of(webrtc, config, move |change| {
        let change = match change {
            Change::Connected => ConnectionState::Connected,
            Change::Failed => ConnectionState::Failed,
        };
        report(&events, PeerEvent::Connection(change));
    })
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Links and channels are dropped before the pipeline that they lead into.
        let mut state = lock(&self.state);
        state.senders.clear();
        state.tracks.clear();
        state.held.clear();
        state.channels.drain(..).for_each(|channel| channel.end());
        state.over.0.close();
        drop(state);
        self.ice.end();
    }
}
