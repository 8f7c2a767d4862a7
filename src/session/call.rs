//! A 1-1 call, from dialling or the first word of a caller to its end.

use std::collections::VecDeque;
use std::time::Instant;

use super::STEP;
use super::link::{self, Begin, EndReason, Link};
use super::negotiation::Effect;
use crate::protocol::{PeerId, PeerMessage};
use crate::sdp::Kind;

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The server took our `SESSION`: the peer is there.
    Accepted,
    /// The server refused it, with these words.
    Refused(String),
    /// The server says who calls us.
    Caller(PeerId),
    /// Of the peer or the connection.
    Link(link::Input),
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
    /// `SESSION` is sent; what comes once it is accepted, and until when that may take.
    Dialling(Begin, Instant),
    Talking(Box<Link>),
    Ended,
}

/// The machine of one call.
#[derive(Debug)]
pub struct Call {
    phase: Phase,
    peer: Option<PeerId>,
    wanted: Vec<Kind>,
    outputs: VecDeque<Output>,
}

impl Call {
    /// A call that we make, of a registered client.
    pub fn dial(now: Instant, peer: PeerId, request_offer: bool, wanted: Vec<Kind>) -> Self {
        let begin = if request_offer { Begin::RequestOffer } else { Begin::Offer };
        let outputs = VecDeque::from([Output::Dial(peer.clone())]);
        Self { phase: Phase::Dialling(begin, now + STEP), peer: Some(peer), wanted, outputs }
    }

    /// A call that we take, of a registered client that nobody called yet.
    pub fn answer(wanted: Vec<Kind>) -> Self {
        Self { phase: Phase::Waiting, peer: None, wanted, outputs: VecDeque::new() }
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
        match &self.phase {
            Phase::Dialling(_, until) => Some(*until),
            Phase::Talking(link) => link.poll_timeout(),
            Phase::Waiting | Phase::Ended => None,
        }
    }

    /// Takes one input.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        match (input, &mut self.phase) {
            (Input::Accepted, Phase::Dialling(begin, _)) => {
                let begin = *begin;
                self.begin(now, begin);
            }
            (Input::Refused(reason), Phase::Dialling(..)) => self.end(EndReason::Refused(reason)),
            (Input::Refused(reason), Phase::Waiting | Phase::Talking(_)) => {
                self.outputs.push_back(Output::Warning(reason));
            }
            (Input::Caller(peer), Phase::Waiting) => {
                self.peer = Some(peer);
                self.begin(now, Begin::AwaitOffer);
            }
            (Input::Link(input), Phase::Waiting) => match input {
                // The first word of a caller whom the server did not announce.
                link::Input::Peer(_) | link::Input::Junk(_) => {
                    self.begin(now, Begin::AwaitOffer);
                    self.handle_input(now, Input::Link(input));
                }
                link::Input::Result(..)
                | link::Input::LocalCandidate(..)
                | link::Input::Connection(_)
                | link::Input::PeerGone
                | link::Input::HangUp => {}
            },
            (Input::Link(link::Input::HangUp), Phase::Dialling(..)) => self.end(EndReason::HungUp),
            (Input::Link(link::Input::PeerGone), Phase::Dialling(..)) => self.end(EndReason::PeerHungUp),
            (Input::Link(input), Phase::Talking(link)) => link.handle_input(now, input),
            (Input::Accepted, Phase::Waiting | Phase::Talking(_))
            | (Input::Caller(_), Phase::Dialling(..) | Phase::Talking(_))
            | (Input::Link(_), Phase::Dialling(..))
            | (_, Phase::Ended) => {}
        }
        self.pass_on();
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Dialling(_, until) if *until <= now => {
                self.end(EndReason::timed_out("the server's answer to our call"));
            }
            Phase::Talking(link) => link.handle_timeout(now),
            Phase::Waiting | Phase::Dialling(..) | Phase::Ended => {}
        }
        self.pass_on();
    }

    fn begin(&mut self, now: Instant, begin: Begin) {
        self.outputs.push_back(Output::Connecting(self.peer.clone()));
        // The pages in the field are impolite, so this side gives way.
        self.phase = Phase::Talking(Box::new(Link::new(now, begin, true, self.wanted.clone())));
    }

    fn pass_on(&mut self) {
        let Phase::Talking(link) = &mut self.phase else { return };
        while let Some(output) = link.poll_output() {
            self.outputs.push_back(match output {
                link::Output::Send(message) => Output::Send(message),
                link::Output::Effect(effect) => Output::Effect(effect),
                link::Output::Connected => Output::Connected,
                link::Output::Warning(text) => Output::Warning(text),
                link::Output::Ended(reason) => Output::Ended(reason),
            });
        }
        if link.has_ended() {
            self.phase = Phase::Ended;
        }
    }

    fn end(&mut self, reason: EndReason) {
        self.phase = Phase::Ended;
        self.outputs.push_back(Output::Ended(reason));
    }
}
