//! ICE restarts (RFC 8445, 9) on an existing connection. webrtcbin cannot restart ICE, and libnice nominates a pair
//! only once for each of its streams.
//!
//! A restart therefore adds a stream to the libnice agent of the connection. The new stream gathers candidates on the
//! addresses that the machine has now. It needs a network source (`nicesrc`) of its own, without which libnice reads
//! nothing. Once the new stream is connected, webrtcbin receives from that source and sends over that stream; DTLS and
//! everything above it stay. libnice keeps the earlier stream until the connection ends.

use std::sync::{Arc, Mutex};

use gst::glib;
use gst::prelude::*;
use gst_webrtc::prelude::*;
use gst_webrtc::{WebRTCICE, WebRTCICEConnectionState, WebRTCICEStream};

use super::dtls;
use super::ice::{self, IceConfig, TurnServers};
use super::selected_pair::SelectedPair;
use crate::base::lock::lock;
use crate::base::random::secret_id;
use crate::base::tasks::Tasks;
use crate::media::gst::elements;
use crate::media::gst::error::MediaError;
use crate::sdp::webrtcbin::Credentials;
use crate::sdp::{Sdp, webrtcbin};

/// Maximum number of ICE restarts of one connection: each keeps its sockets, and its allocations at TURN servers, until
/// the connection ends.
const MAX_RESTARTS: u32 = 16;
/// Session ids of restarts are above this number. A candidate is reported with the session id of its stream;
/// webrtcbin's own streams have the index of an m-line.
const FIRST_SESSION: u32 = 1 << 16;
/// States of a libnice component: with `NICE_COMPONENT_STATE_CONNECTED` a pair is selected; `READY` lies between the
/// two.
const CONNECTED: u32 = 3;
const FAILED: u32 = 5;

/// Signal of libnice's agent with a stream, a component, and the foundations of the selected pair.
const PAIR_SELECTED: &str = "new-selected-pair";
/// Signal of libnice's agent with a stream, a component and its new state.
const STATE_CHANGED: &str = "component-state-changed";

/// A change of a restarted transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The transport carries media.
    Connected,
    /// ICE found no path, or lost it.
    Failed,
}

/// ICE transports of one connection: webrtcbin's, and one more for each restart.
#[derive(Debug, Clone)]
pub(crate) struct IceTransports {
    webrtc: glib::WeakRef<gst::Element>,
    state: Arc<Mutex<State>>,
    /// Lock that is held while one stream replaces another.
    switching: Arc<Mutex<()>>,
    /// Replacements of one stream by another, until the end of the connection.
    switches: Arc<Mutex<Tasks>>,
}

type Report = Arc<dyn Fn(Change) + Send + Sync>;

#[derive(Debug, Default)]
struct State {
    /// Credentials of our side and of the peer on webrtcbin's own transport, which webrtcbin sees in every description.
    first: (Option<Credentials>, Option<Credentials>),
    /// Credentials in our last description.
    ours: Option<Credentials>,
    /// Credentials in the peer's last description, and its candidates if they belong to a restarted transport.
    theirs: Option<(Credentials, Vec<String>)>,
    /// Index of the m-line for which webrtcbin's own transport reported candidates last.
    mline: u32,
    /// Number of restarts begun so far.
    restarts: u32,
    /// A restart on which both sides have not agreed yet.
    pending: Option<Restart>,
    /// The last restart on which both sides agreed.
    current: Option<Restart>,
    /// libnice's number of the stream that carries media, if it belongs to a restart.
    used: Option<u32>,
    pair: SelectedPair,
    turn: TurnServers,
}

/// The transport of one restart.
#[derive(Debug)]
struct Restart {
    /// Session id of the stream.
    session: u32,
    stream: WebRTCICEStream,
    source: Source,
    ours: Credentials,
    /// Credentials of the peer, once both sides agreed.
    theirs: Option<Credentials>,
}

impl IceTransports {
    /// Returns the transports of a webrtcbin that was set up with `config`; calls `report` with each change of a restarted
    /// transport.
    pub(crate) fn of(
        webrtc: &gst::Element,
        config: &IceConfig,
        report: impl Fn(Change) + Send + Sync + 'static,
    ) -> Self {
        let this = Self {
            webrtc: webrtc.downgrade(),
            state: Arc::default(),
            switching: Arc::default(),
            switches: Arc::new(Mutex::new(Tasks::new(MAX_RESTARTS as usize))),
        };
        lock(&this.state).turn = TurnServers::given(config);
        let (transports, report): (_, Report) = (this.clone(), Arc::new(report));
        if let Some(agent) = agent_of(webrtc).and_then(|ice| agent(&ice)) {
            let known = this.clone();
            agent.connect(PAIR_SELECTED, false, move |args| {
                let (stream, foundation) =
                    (args.get(1)?.get().ok()?, |index: usize| args.get(index)?.get::<String>().ok());
                if !known.is_replaced(stream) {
                    lock(&known.state).pair.select(foundation(3)?, foundation(4)?);
                }
                None
            });
            agent.connect(STATE_CHANGED, false, move |args| {
                let number = |index: usize| args.get(index)?.get::<u32>().ok();
                let agent = args.first()?.get::<glib::Object>().ok()?;
                if let (Some(stream), Some(state)) = (number(1), number(3)) {
                    // webrtcbin must not see the state of a replaced stream: libnice lets a stream fail that is not
                    // read, and webrtcbin then blocks all received packets. This handler precedes webrtcbin's.
                    if transports.is_replaced(stream) {
                        agent.stop_signal_emission_by_name(STATE_CHANGED);
                    }
                    transports.handle_state(stream, state, &report);
                }
                None
            });
        }
        this
    }

    /// Returns whether another stream carries media in place of this one.
    fn is_replaced(&self, stream: u32) -> bool {
        let state = lock(&self.state);
        state.used.is_some_and(|used| used != stream)
            && state.current.as_ref().is_none_or(|current| current.stream.stream_id() != stream)
    }

    /// Notes a candidate of ours that is announced to the peer.
    pub(crate) fn announced(&self, candidate: &str) {
        lock(&self.state).pair.add_ours(candidate);
    }

    /// Returns the types of the selected pair's local and remote candidates.
    pub(crate) fn selected_types(&self) -> Option<(String, String)> {
        lock(&self.state).pair.types()
    }

    /// Uses the TURN servers of `config` from now on: users of TURN end, often within a day.
    pub(crate) fn use_servers(&self, config: &IceConfig) {
        lock(&self.state).turn.want(config);
    }

    /// Gives webrtcbin the TURN servers that are used from now on and that it does not have.
    pub(crate) fn give_new_servers(&self) {
        let new = lock(&self.state).turn.take_new();
        if let Some(webrtc) = self.webrtc.upgrade() {
            new.iter().for_each(|uri| ice::add_turn_server(&webrtc, uri));
        }
    }

    /// Forgets all streams, and stops replacing them, at the end of the connection.
    pub(crate) fn end(&self) {
        let switches = std::mem::replace(&mut *lock(&self.switches), Tasks::new(0));
        drop(switches);
        let mut state = lock(&self.state);
        let ended = (state.pending.take(), state.current.take());
        drop(state);
        drop(ended);
    }

    /// Handles a new state of a libnice stream: a restarted transport carries media as soon as it is connected.
    fn handle_state(&self, stream: u32, state: u32, report: &Report) {
        let mut all = lock(&self.state);
        if all.current.as_ref().is_none_or(|current| current.stream.stream_id() != stream) {
            return;
        }
        match state {
            CONNECTED..FAILED if all.used != Some(stream) => {
                all.used = Some(stream);
                let source = all.current.as_ref().map(|current| current.source.clone());
                drop(all);
                let (this, report) = (self.clone(), report.clone());
                // This thread belongs to a network source, which cannot stop itself.
                let switch = smol::unblock(move || {
                    let _one_after_another = lock(&this.switching);
                    if lock(&this.state).used == Some(stream) {
                        source.iter().for_each(|source| this.switch_to(source, stream));
                        report(Change::Connected);
                    }
                });
                lock(&self.switches).spawn(switch);
            }
            FAILED => {
                drop(all);
                report(Change::Failed);
            }
            _ => {}
        }
    }

    /// Begins a restart: opens a transport with new credentials, which the caller writes into the next description of
    /// ours. To be called in webrtcbin's own thread: GStreamer changes its list of streams without a lock.
    pub(crate) fn restart(&self) -> Result<Credentials, MediaError> {
        let failed =
            |reason: &str| MediaError::Description { step: "ICE restart", reason: reason.to_owned() };
        let webrtc = self.webrtc.upgrade().ok_or_else(|| failed("the connection ended"))?;
        let ice = agent_of(&webrtc).ok_or_else(|| failed("webrtcbin has no agent"))?;
        let (session, servers) = {
            let mut state = lock(&self.state);
            if state.restarts >= MAX_RESTARTS {
                return Err(failed("it was restarted too often"));
            }
            state.restarts += 1;
            (FIRST_SESSION + state.restarts, state.turn.take_new())
        };
        servers.iter().for_each(|uri| ice::add_turn_server(&webrtc, uri));
        let fresh = || secret_id().map_err(|error| failed(&error.to_string()));
        let ours = Credentials { ufrag: fresh()?, password: fresh()? };
        let stream = ice.add_stream(session).ok_or_else(|| failed("libnice adds no stream"))?;
        // Before GStreamer 1.28, this is the only reference to the stream, and the agent needs one, too.
        if stream.ref_count() == 1 {
            std::mem::forget(stream.clone());
        }
        ice.set_local_credentials(&stream, &ours.ufrag, &ours.password);
        let source =
            Source::open(&webrtc, &ice, stream.stream_id()).map_err(|error| failed(&error.to_string()))?;
        let pending = Restart { session, stream: stream.clone(), source, ours: ours.clone(), theirs: None };
        // Stopping a source waits for its thread, which may wait for the lock.
        let forgotten = lock(&self.state).pending.replace(pending);
        if let Some(forgotten) = forgotten {
            forgotten.source.stop();
        }
        // A network may be absent for seconds, so this is no error: the next attempt may find an address.
        if !ice.gather_candidates(&stream) {
            tracing::debug!("an ICE restart finds no local address");
        }
        Ok(ours)
    }

    /// Returns the m-line of a candidate of ours with this session id; `None` if its transport was replaced.
    pub(crate) fn mline(&self, session: u32) -> Option<u32> {
        let mut state = lock(&self.state);
        if session < FIRST_SESSION {
            state.mline = session;
            // Servers that are added for a restart may give candidates to the transport before it, too.
            return (state.pending.is_none() && state.current.is_none()).then_some(session);
        }
        let mut known = state.pending.iter().chain(&state.current);
        known.any(|restart| restart.session == session).then_some(state.mline)
    }

    /// Replaces the credentials in a description of our side by those of webrtcbin's own transport, before webrtcbin
    /// gets it.
    pub(crate) fn hide_ours(&self, sdp: &mut Sdp) {
        let mut state = lock(&self.state);
        state.ours = Credentials::of(sdp);
        if state.first.0.is_none() {
            state.first.0 = state.ours.clone();
        }
        state.first.0.iter().for_each(|first| first.write(sdp));
    }

    /// Replaces the credentials in a description of the peer by those of webrtcbin's own transport, before webrtcbin
    /// gets it. Takes candidates of a restarted transport out of the description.
    pub(crate) fn hide_theirs(&self, sdp: &mut Sdp) {
        let mut state = lock(&self.state);
        let theirs = Credentials::of(sdp);
        webrtcbin::credentials::candidates(sdp).iter().for_each(|candidate| state.pair.add_theirs(candidate));
        state.first.1 = state.first.1.take().or_else(|| theirs.clone());
        let first = state.first.1.clone().filter(|first| theirs.as_ref() != Some(first));
        let mut candidates = vec![];
        if let Some(first) = first {
            candidates = webrtcbin::credentials::take_candidates(sdp);
            first.write(sdp);
        }
        state.theirs = theirs.map(|theirs| (theirs, candidates));
    }

    /// Handles that both descriptions are applied: a restarted transport connects if they have its credentials.
    pub(crate) fn agree(&self) {
        let Some(ice) = self.webrtc.upgrade().as_ref().and_then(agent_of) else { return };
        let mut state = lock(&self.state);
        let (Some(our), Some((their, candidates))) = (state.ours.clone(), state.theirs.clone()) else {
            return;
        };
        if let Some(pending) = state.pending.take_if(|pending| pending.ours == our) {
            state.current = Some(pending);
        }
        let Some(current) = state.current.as_mut().filter(|current| current.ours == our) else { return };
        if current.theirs.as_ref() == Some(&their) {
            return;
        }
        let stream = current.stream.clone();
        current.theirs = Some(their.clone());
        drop(state);
        ice.set_remote_credentials(&stream, &their.ufrag, &their.password);
        for candidate in candidates {
            ice.add_candidate(&stream, &format!("a={candidate}"));
        }
    }

    /// Adds a candidate of the peer to the restarted transport; returns false if there is no such transport.
    pub(crate) fn add_candidate(&self, candidate: &str) -> bool {
        let mut state = lock(&self.state);
        state.pair.add_theirs(candidate);
        let stream = state.current.as_ref().map(|current| current.stream.clone());
        drop(state);
        let ice = self.webrtc.upgrade().as_ref().and_then(agent_of);
        let (Some(ice), Some(stream)) = (ice, stream) else { return false };
        ice.add_candidate(&stream, &format!("a={candidate}"));
        true
    }

    /// Makes webrtcbin receive from this source in place of the current one, and send over `stream`.
    fn switch_to(&self, source: &Source, stream: u32) {
        let (Some(webrtc), Some(source)) = (self.webrtc.upgrade(), source.0.upgrade()) else { return };
        let Some(pad) = source.static_pad("src") else { return };
        let sinks = elements::all_of(&webrtc, "nicesink");
        let used = sinks.first().map(|sink| sink.property::<u32>("stream"));
        let is_used = |source: &gst::Element| Some(source.property::<u32>("stream")) == used;
        for other in elements::all_of(&webrtc, "nicesrc").into_iter().filter(is_used) {
            let Some(from) = other.static_pad("src") else { continue };
            let Some(next) = from.peer() else { continue };
            // The source stops first, since a running source reports an error when it is unlinked.
            stop(&other);
            let moved = from.unlink(&next).map(|()| pad.link(&next));
            if !matches!(moved, Ok(Ok(_))) {
                tracing::warn!("the source of the network was not replaced");
            }
        }
        sinks.iter().for_each(|sink| sink.set_property("stream", stream));
        // If the replaced stream failed already, webrtcbin blocks all received packets; this undoes it.
        for ice in dtls::transports(&webrtc).iter().filter_map(|dtls| dtls.transport()) {
            ice.connection_state_change(WebRTCICEConnectionState::Connected);
        }
    }

    /// Returns whether ICE was restarted. The ICE state of webrtcbin then describes a transport that was replaced.
    pub(crate) fn is_restarted(&self) -> bool {
        lock(&self.state).current.is_some()
    }
}

/// Returns the ICE agent of a webrtcbin.
fn agent_of(webrtc: &gst::Element) -> Option<WebRTCICE> {
    webrtc.property::<Option<WebRTCICE>>("ice-agent")
}

/// Returns the libnice agent inside an ICE agent.
fn agent(ice: &WebRTCICE) -> Option<glib::Object> {
    Some(ice).filter(|ice| ice.has_property("agent"))?.property::<Option<glib::Object>>("agent")
}

/// Network source of one libnice stream, inside webrtcbin. The reference is weak, because the source refers to the
/// agent, and the handler of the agent's signal refers to the source.
#[derive(Debug, Clone)]
struct Source(glib::WeakRef<gst::Element>);

impl Source {
    /// Opens a source whose packets are dropped until it replaces another one. libnice checks paths in the source's
    /// thread.
    fn open(webrtc: &gst::Element, ice: &WebRTCICE, stream: u32) -> Result<Self, glib::BoolError> {
        let source = gst::ElementFactory::make("nicesrc")
            .property("agent", agent(ice))
            .property("stream", stream)
            .property("component", 1_u32)
            .build()?;
        let bin = elements::all_of(webrtc, "nicesrc").first().and_then(|other| other.parent());
        let bin =
            bin.and_downcast::<gst::Bin>().ok_or_else(|| glib::bool_error!("webrtcbin has no source"))?;
        drop_unlinked_packets(&source);
        bin.add(&source)?;
        source.sync_state_with_parent().inspect_err(|_| {
            let _ = bin.remove(&source);
        })?;
        Ok(Self(source.downgrade()))
    }

    fn stop(&self) {
        self.0.upgrade().iter().for_each(stop);
    }
}

/// Drops packets while the source is not linked; the source would fail otherwise.
fn drop_unlinked_packets(source: &gst::Element) {
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    let Some(pad) = source.static_pad("src") else { return };
    pad.add_probe(kinds, |pad, _| match pad.is_linked() {
        true => gst::PadProbeReturn::Ok,
        false => gst::PadProbeReturn::Drop,
    });
}

/// Stops a source; webrtcbin's later changes of state do not start it again.
fn stop(source: &gst::Element) {
    source.set_locked_state(true);
    if source.set_state(gst::State::Null).is_err() {
        tracing::warn!("a source of the network does not stop");
    }
}
