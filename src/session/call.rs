//! A 1-1 call, from dialling or a caller's first message to its end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::STEP;
use super::io::{EndReason, Input, Output};
use super::link::{Begin, Link};
use super::negotiation::MAX_INBOX;
use super::terms::{Terms, decline};
use crate::protocol::{PeerId, PeerMessage, Refusal};

/// Time that our side has to accept a call.
pub const ASK: Duration = Duration::from_secs(30);

/// Minimum time from a second call to a report of received packets that proves that the first call goes on. Packets are
/// reported every half second, so an earlier report may count packets from before the second call.
const PROOF_AFTER: Duration = Duration::from_millis(700);
/// Interval between attempts to set up a session again.
const REDIAL: Duration = Duration::from_secs(2);

/// Rule for accepting calls. Callers are known by the ids under which they registered at the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admission {
    /// The only callers that are accepted; calls without id are not.
    pub allowed: Option<Vec<PeerId>>,
    /// Whether each call needs a decision of our side ([`Event::Decision`]).
    pub ask: bool,
}

/// An event of the server or a decision of our side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The server accepted our `SESSION`: the peer is registered and free.
    Accepted,
    /// The server refused the call.
    Refused(Refusal),
    /// The server names the caller.
    Caller(PeerId),
    /// Whether our side accepts the call.
    Decision(bool),
    /// Our side is registered again, after the server was lost in a call that goes on.
    Registered,
}

/// Restoration of the session with the server, for a call whose media goes on without the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Redial {
    /// No restoration is needed.
    No,
    /// The next attempt is due at this time.
    At(Instant),
    /// An attempt is under way.
    Asked,
}

#[derive(Debug)]
enum Phase {
    /// No call has arrived yet.
    Waiting,
    /// Our side decides, until this time, whether it accepts the call; holds the caller's messages meanwhile.
    Asking(Instant, VecDeque<Input>),
    /// The call is declined for this reason. The caller's offer is awaited until this time, since its answer has the
    /// reason.
    Declining(Instant, String),
    /// `SESSION` is sent. Has the first step after the server accepts, and the time limit for that.
    Dialling(Begin, Instant),
    Active(Box<Link>),
    Ended,
}

/// A peer that called during another call, with the time of its call and its messages since.
#[derive(Debug)]
struct NextCaller {
    peer: PeerId,
    at: Instant,
    held: VecDeque<Input>,
}

/// State machine of one call.
#[derive(Debug)]
pub struct Call {
    phase: Phase,
    caller: Option<PeerId>,
    dialled: Option<PeerId>,
    redial: Redial,
    /// The peer that called during this call. This call may be over already without our side's knowledge.
    next_caller: Option<NextCaller>,
    terms: Terms,
    admission: Admission,
    outputs: VecDeque<Output>,
}

impl Call {
    /// Returns a call from a registered client to `peer`. `terms` should be polite, because the pages in use are
    /// impolite.
    pub fn dial(now: Instant, peer: PeerId, request_offer: bool, terms: Terms) -> Self {
        let begin = if request_offer { Begin::RequestOffer } else { Begin::Offer };
        let outputs = VecDeque::from([Output::Dial(peer.clone())]);
        let phase = Phase::Dialling(begin, now + STEP);
        let admission = Admission::default();
        let (dialled, redial) = (Some(peer), Redial::No);
        Self { phase, caller: None, dialled, redial, next_caller: None, terms, admission, outputs }
    }

    /// Returns a call of a registered client that waits for a caller.
    pub fn answer(terms: Terms, admission: Admission) -> Self {
        let (phase, outputs) = (Phase::Waiting, VecDeque::new());
        let (dialled, redial) = (None, Redial::No);
        Self { phase, caller: None, dialled, redial, next_caller: None, terms, admission, outputs }
    }

    /// Returns whether no call has arrived yet.
    pub fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting)
    }

    /// Returns whether media could flow at some time: the call can go on without the server.
    pub fn was_connected(&self) -> bool {
        matches!(&self.phase, Phase::Active(link) if link.was_connected())
    }

    /// Returns whether a call can get a new session after the server was lost: our side can dial the peer again, or can
    /// recognise the peer when it calls, because the server named it.
    pub fn can_resume(&self) -> bool {
        self.dialled.is_some() || self.caller.is_some()
    }

    /// Returns the call of the peer that called before this call ended, if there is one.
    pub fn next(self, now: Instant) -> Option<Self> {
        let NextCaller { peer, held, .. } = self.next_caller?;
        let mut next = Self::answer(self.terms, self.admission);
        next.handle_event(now, Event::Caller(peer));
        held.into_iter().for_each(|input| next.handle_input(now, input));
        Some(next)
    }

    /// Returns the next output.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns when [`Call::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Dialling(_, until) | Phase::Asking(until, _) | Phase::Declining(until, _) => Some(*until),
            Phase::Active(link) => match self.redial {
                Redial::At(at) => Some(link.poll_timeout().map_or(at, |timeout| timeout.min(at))),
                Redial::No | Redial::Asked => link.poll_timeout(),
            },
            Phase::Waiting | Phase::Ended => None,
        }
    }

    /// Handles an event of the server, or a decision of our side.
    pub fn handle_event(&mut self, now: Instant, event: Event) {
        match (event, &mut self.phase) {
            (Event::Accepted, Phase::Dialling(begin, _)) => {
                let begin = *begin;
                self.begin(now, begin);
            }
            (Event::Accepted, Phase::Active(link)) if self.redial == Redial::Asked => {
                self.redial = Redial::No;
                link.handle_input(now, Input::Reachable(true));
            }
            (Event::Refused(reason), Phase::Dialling(..)) => self.end(EndReason::Refused(reason)),
            (Event::Refused(_), Phase::Ended) => {}
            (Event::Refused(_), Phase::Active(_)) if self.redial == Redial::Asked => {
                self.redial = Redial::At(now + REDIAL);
            }
            (Event::Refused(reason), _) => self.outputs.push_back(Output::Warning(reason.to_string())),
            (Event::Registered, Phase::Active(_)) if self.dialled.is_some() => {
                // Not at once: if the peer hung up, the connection reports that first.
                self.redial = Redial::At(now + REDIAL);
            }
            (Event::Caller(peer), Phase::Active(link)) if self.caller.as_ref() == Some(&peer) => {
                link.handle_input(now, Input::Reachable(true));
            }
            // This call may be over, unless a packet of its peer arrives.
            (Event::Caller(peer), Phase::Active(_)) => {
                self.next_caller = Some(NextCaller { peer, at: now, held: VecDeque::new() });
            }
            (Event::Caller(peer), Phase::Waiting) => {
                self.outputs.push_back(Output::Caller(peer.clone()));
                self.caller = Some(peer);
                self.called(now);
            }
            (Event::Decision(true), Phase::Asking(_, held)) => {
                let held = std::mem::take(held);
                self.begin(now, Begin::AwaitOffer);
                held.into_iter().for_each(|input| self.handle_input(now, input));
            }
            (Event::Decision(false), Phase::Asking(_, held)) => {
                let held = std::mem::take(held);
                self.decline(now, "the call was declined", held);
            }
            (Event::Accepted | Event::Caller(_) | Event::Decision(_) | Event::Registered, _) => {}
        }
        self.end_if_replaced();
        self.forward_outputs();
    }

    /// Handles an input from the peer or the connection.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        match (input, &mut self.phase) {
            (input @ Input::Peer(_), Phase::Active(link)) => match &mut self.next_caller {
                Some(next_caller) if next_caller.held.len() < MAX_INBOX => next_caller.held.push_back(input),
                Some(_) => {}
                None => link.handle_input(now, input),
            },
            (Input::PeerGone, Phase::Active(_)) if self.next_caller.is_some() => self.next_caller = None,
            (input @ Input::Heard(_), Phase::Active(link)) => {
                // An earlier report does not prove that the first call goes on.
                if self.next_caller.as_ref().is_some_and(|next_caller| now >= next_caller.at + PROOF_AFTER) {
                    self.next_caller = None;
                    self.outputs.push_back(Output::Busy);
                }
                link.handle_input(now, input);
            }
            (input, Phase::Active(link)) => link.handle_input(now, input),
            // The first message of a caller that the server did not announce.
            (input @ (Input::Peer(_) | Input::Junk(_)), Phase::Waiting) => {
                self.called(now);
                self.handle_input(now, input);
            }
            (Input::HangUp, Phase::Asking(_, held)) => {
                let held = std::mem::take(held);
                self.decline(now, "the call was declined", held);
            }
            (Input::HangUp, Phase::Dialling(..)) => self.end(EndReason::HungUp),
            (Input::PeerGone, Phase::Dialling(..) | Phase::Asking(..) | Phase::Declining(..)) => {
                self.end(EndReason::PeerHungUp);
            }
            (input, Phase::Asking(_, held)) => {
                if held.len() < MAX_INBOX {
                    held.push_back(input);
                }
            }
            (Input::Peer(message), Phase::Declining(_, reason)) => {
                let reason = reason.clone();
                self.refuse(message, reason);
            }
            (_, Phase::Waiting | Phase::Dialling(..) | Phase::Declining(..) | Phase::Ended) => {}
        }
        self.end_if_replaced();
        self.forward_outputs();
    }

    /// Ends a call that our side accepted if its path is broken and another peer calls. The server gives our side a new
    /// session only if the session with the old peer is over: the old peer cannot repair the path, so the new caller
    /// need not wait.
    fn end_if_replaced(&mut self) {
        let is_broken = matches!(&self.phase, Phase::Active(link) if link.is_broken());
        if is_broken && self.next_caller.is_some() && self.dialled.is_none() {
            self.end(EndReason::Lost);
        }
    }

    /// Handles that time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Dialling(_, until) if *until <= now => {
                self.end(EndReason::timed_out("the server's answer to our call", STEP));
            }
            Phase::Asking(until, held) if *until <= now => {
                let held = std::mem::take(held);
                self.decline(now, "nobody took the call", held);
            }
            Phase::Declining(until, reason) if *until <= now => {
                let reason = std::mem::take(reason);
                self.end(EndReason::NotTaken(reason));
            }
            Phase::Active(link) => {
                if let (Redial::At(at), Some(peer)) = (self.redial, &self.dialled)
                    && at <= now
                {
                    self.redial = Redial::Asked;
                    self.outputs.push_back(Output::Dial(peer.clone()));
                }
                link.handle_timeout(now);
            }
            Phase::Waiting
            | Phase::Dialling(..)
            | Phase::Asking(..)
            | Phase::Declining(..)
            | Phase::Ended => {}
        }
        self.end_if_replaced();
        self.forward_outputs();
    }

    /// Accepts a call, asks our side, or declines.
    fn called(&mut self, now: Instant) {
        let allowed = |allowed: &Vec<PeerId>| self.caller.as_ref().is_some_and(|peer| allowed.contains(peer));
        if !self.admission.allowed.as_ref().is_none_or(allowed) {
            let why = "only chosen peers may call here";
            self.decline(now, why, VecDeque::new());
        } else if self.admission.ask {
            self.outputs.push_back(Output::Ask);
            self.phase = Phase::Asking(now + ASK, VecDeque::new());
        } else {
            self.begin(now, Begin::AwaitOffer);
        }
    }

    /// Declines the call: waits for the caller's offer, which may be among the `held` messages.
    fn decline(&mut self, now: Instant, reason: &str, held: VecDeque<Input>) {
        self.phase = Phase::Declining(now + STEP, reason.to_owned());
        held.into_iter().for_each(|input| self.handle_input(now, input));
    }

    /// Answers an offer with a refusal. A caller that requested an offer gets none; its call ends.
    fn refuse(&mut self, message: PeerMessage, reason: String) {
        match message {
            PeerMessage::Description(offer) => {
                decline(&offer, &reason)
                    .into_iter()
                    .for_each(|answer| self.outputs.push_back(Output::Send(answer)));
                self.end(EndReason::NotTaken(reason));
            }
            PeerMessage::OfferRequest => self.end(EndReason::NotTaken(reason)),
            PeerMessage::Candidate(_) | PeerMessage::EndOfCandidates | PeerMessage::Placeholder => {}
        }
    }

    fn begin(&mut self, now: Instant, begin: Begin) {
        self.outputs.push_back(Output::Connecting);
        self.phase = Phase::Active(Box::new(Link::new(now, begin, self.terms.clone())));
    }

    fn forward_outputs(&mut self) {
        let Phase::Active(link) = &mut self.phase else { return };
        self.outputs.extend(std::iter::from_fn(|| link.poll_output()));
        if link.has_ended() {
            self.phase = Phase::Ended;
        }
    }

    fn end(&mut self, reason: EndReason) {
        self.phase = Phase::Ended;
        self.outputs.push_back(Output::Ended(reason));
    }
}
