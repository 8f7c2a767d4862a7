//! A 1-1 call, from dialling or the first word of a caller to its end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::STEP;
use super::negotiation::{self, Effect, EffectId, EffectResult, Negotiation};
use crate::protocol::{PeerId, PeerMessage};
use crate::sdp::Kind;

/// How long ICE and DTLS may take once the descriptions are exchanged.
pub const CONNECT: Duration = Duration::from_secs(20);

/// How a connection fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// ICE and DTLS are through.
    Connected,
    /// No path works, or none any more.
    Failed,
    /// The peer closed its side (DTLS close).
    Closed,
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The server took our `SESSION`: the peer is there.
    Accepted,
    /// The server refused it, with these words.
    Refused(String),
    /// The server says who calls us.
    Caller(PeerId),
    /// A message of the peer.
    Peer(PeerMessage),
    /// Something of the peer that is no message; why not.
    Junk(String),
    /// The signalling to the peer ended; the peer is gone.
    PeerGone,
    /// An effect with an id ended.
    Result(EffectId, EffectResult),
    /// The connection found a candidate of ours: the m-line's index and the attribute.
    LocalCandidate(u32, String),
    /// The connection changed.
    Connection(ConnectionState),
    /// Our side ends the call.
    HangUp,
}

/// Why a call ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndReason {
    /// We hung up.
    #[error("hung up")]
    HungUp,
    /// The peer hung up, or its connection to the server broke.
    #[error("the peer hung up")]
    PeerHungUp,
    /// The server refused the call.
    #[error("the server refused the call: {0}")]
    Refused(String),
    /// A step did not come about.
    #[error("waiting for {step}: {reason}")]
    Negotiation {
        /// What was waited for.
        step: &'static str,
        /// Why it did not come.
        reason: String,
    },
    /// The descriptions were exchanged, but no path to the peer was found.
    #[error("no network path to the peer was found; a firewall between the two usually needs a TURN server")]
    NoPath,
    /// The path to the peer broke.
    #[error("the connection to the peer broke")]
    Lost,
}

/// What a call gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Ask the server for a session with this peer.
    Dial(PeerId),
    /// For the peer, by way of the server.
    Send(PeerMessage),
    /// For the connection.
    Effect(Effect),
    /// Somebody called, or our call was accepted: descriptions will be exchanged. The name is known
    /// where the server tells it.
    Connecting(Option<PeerId>),
    /// ICE and DTLS are through.
    Connected,
    /// Something of the peer was not taken; the call goes on.
    Warning(String),
    /// The end; nothing comes after it.
    Ended(EndReason),
}

#[derive(Debug)]
enum Phase {
    /// Nobody called yet.
    Waiting,
    /// `SESSION` is sent.
    Dialling {
        request_offer: bool,
    },
    /// The peer's offer is awaited, since we asked for it or it called.
    Talking,
    Ended,
}

/// The machine of one call.
#[derive(Debug)]
pub struct Call {
    phase: Phase,
    peer: Option<PeerId>,
    negotiation: Option<Negotiation>,
    wanted: Vec<Kind>,
    connected: bool,
    /// What is waited for, until when, apart from what the negotiation waits for.
    waiting: Option<(Instant, &'static str)>,
    outputs: VecDeque<Output>,
}

impl Call {
    /// A call that we make, of a registered client.
    pub fn dial(now: Instant, peer: PeerId, request_offer: bool, wanted: Vec<Kind>) -> Self {
        let mut call = Self::answer(wanted);
        call.phase = Phase::Dialling { request_offer };
        call.peer = Some(peer.clone());
        call.waiting = Some((now + STEP, "the server's answer to our call"));
        call.outputs.push_back(Output::Dial(peer));
        call
    }

    /// A call that we take, of a registered client that nobody called yet.
    pub fn answer(wanted: Vec<Kind>) -> Self {
        Self {
            phase: Phase::Waiting,
            peer: None,
            negotiation: None,
            wanted,
            connected: false,
            waiting: None,
            outputs: VecDeque::new(),
        }
    }

    /// Nobody called yet.
    pub fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Call::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let negotiation = self.negotiation.as_ref().and_then(Negotiation::poll_timeout);
        self.waiting.map(|(at, _)| at).into_iter().chain(negotiation).min()
    }

    /// Takes one input.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        match input {
            Input::Accepted => self.accepted(now),
            Input::Refused(reason) => match self.phase {
                Phase::Dialling { .. } => self.end(EndReason::Refused(reason)),
                Phase::Waiting | Phase::Talking | Phase::Ended => self.warn(reason),
            },
            Input::Caller(peer) => {
                if self.is_waiting() {
                    self.peer = Some(peer);
                    self.begin(now);
                }
            }
            Input::Peer(message) => {
                if self.is_waiting() {
                    self.begin(now);
                }
                if matches!(message, PeerMessage::Description(_) | PeerMessage::OfferRequest)
                    && !self.connected
                {
                    // From here on the negotiation has its own timers.
                    self.waiting = None;
                }
                if let Some(negotiation) = &mut self.negotiation {
                    negotiation.handle_peer(now, message);
                }
            }
            Input::Junk(why) => {
                if self.is_waiting() {
                    self.begin(now);
                }
                self.warn(format!("not taken from the peer: {why}"));
            }
            Input::PeerGone => {
                if !self.is_waiting() {
                    self.end(EndReason::PeerHungUp);
                }
            }
            Input::Result(id, result) => {
                if let Some(negotiation) = &mut self.negotiation {
                    negotiation.handle_result(now, id, result);
                }
            }
            Input::LocalCandidate(mline, candidate) => {
                if let Some(negotiation) = &mut self.negotiation {
                    negotiation.handle_local_candidate(mline, candidate);
                }
            }
            Input::Connection(state) => self.connection(state),
            Input::HangUp => self.end(EndReason::HungUp),
        }
        self.after(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some((at, step)) = self.waiting
            && at <= now
        {
            if step == PATH {
                self.end(EndReason::NoPath);
            } else {
                let reason = format!("nothing came for {} s", STEP.as_secs());
                self.end(EndReason::Negotiation { step, reason });
            }
        }
        if let Some(negotiation) = &mut self.negotiation {
            negotiation.handle_timeout(now);
        }
        self.after(now);
    }

    fn accepted(&mut self, now: Instant) {
        let Phase::Dialling { request_offer } = self.phase else { return };
        self.begin(now);
        if request_offer {
            self.outputs.push_back(Output::Send(PeerMessage::OfferRequest));
        } else if let Some(negotiation) = &mut self.negotiation {
            self.waiting = None;
            negotiation.request_offer(now);
        }
    }

    fn begin(&mut self, now: Instant) {
        self.phase = Phase::Talking;
        self.waiting = Some((now + STEP, "the peer's offer"));
        // The pages in the field are impolite, so this side gives way.
        self.negotiation = Some(Negotiation::new(true, self.wanted.clone()));
        self.outputs.push_back(Output::Connecting(self.peer.clone()));
    }

    fn connection(&mut self, state: ConnectionState) {
        match state {
            ConnectionState::Connected => {
                if !std::mem::replace(&mut self.connected, true) {
                    self.waiting = None;
                    self.outputs.push_back(Output::Connected);
                }
            }
            ConnectionState::Failed if self.connected => self.end(EndReason::Lost),
            ConnectionState::Failed => self.end(EndReason::NoPath),
            ConnectionState::Closed => self.end(EndReason::PeerHungUp),
        }
    }

    /// Passes on what the negotiation gives, and starts the timer for the path once there is a deal.
    fn after(&mut self, now: Instant) {
        if self.drain() && !self.connected && !matches!(self.phase, Phase::Ended) {
            self.waiting = Some((now + CONNECT, PATH));
        }
    }

    /// Moves the negotiation's outputs here; whether one of them was an agreement.
    fn drain(&mut self) -> bool {
        let mut negotiated = false;
        while let Some(output) = self.negotiation.as_mut().and_then(Negotiation::poll_output) {
            match output {
                negotiation::Output::Effect(effect) => self.outputs.push_back(Output::Effect(effect)),
                negotiation::Output::Send(message) => self.outputs.push_back(Output::Send(message)),
                negotiation::Output::Negotiated => negotiated = true,
                negotiation::Output::Warning(text) => self.warn(format!("not taken from the peer: {text}")),
                negotiation::Output::Failed(step, reason) => {
                    self.end(EndReason::Negotiation { step, reason });
                }
            }
        }
        negotiated
    }

    fn end(&mut self, reason: EndReason) {
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        self.phase = Phase::Ended;
        self.waiting = None;
        self.negotiation = None;
        self.outputs.push_back(Output::Ended(reason));
    }

    fn warn(&mut self, text: String) {
        self.outputs.push_back(Output::Warning(text));
    }
}

/// The step after the negotiation.
const PATH: &str = "a network path to the peer";
