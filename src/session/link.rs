//! The link with one peer, from the first description to its end: a negotiation, its timers, and the state of the
//! connection. A 1-1 call has one link, a room one for each peer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::candidate_summary::CandidateSummary;
use super::delivery::Delivery;
use super::effect::Effect;
use super::io::{ConnectionState, EndReason, Input, Output};
use super::negotiation::{Event, Negotiation};
use super::terms::Terms;
use super::watch::{Due, Watch};
use crate::base::limit::Bucket;
use crate::protocol::PeerMessage;

/// Maximum time of ICE and DTLS once the descriptions are exchanged.
pub const CONNECT: Duration = Duration::from_secs(20);

/// Time that a peer of a pool has to make the first offer; after it our side makes one.
pub const OPTIONAL_OFFER: Duration = Duration::from_secs(1);

/// Time that a peer has to answer an offer that restarts ICE; after it our side tries a fresh connection.
pub const RESTART: Duration = Duration::from_secs(5);
/// Time that an ICE restart has to find a path, once both sides agree on it. A path that lasts for this time since the
/// restart counts as good, and further restarts may follow.
pub const RESTARTED: Duration = Duration::from_secs(10);
/// Maximum number of ICE restarts in a row; then our side tries a fresh connection, which Firefox and Pion refuse.
pub const RESTARTS: u32 = 2;

/// Time without media after which a session with a media server that sent media counts as broken. Some servers keep a player's
/// session, with reports alone, when the publisher leaves, and do not send what the next publisher sends.
pub const STALLED: Duration = Duration::from_secs(10);

/// Maximum number of warnings about useless messages of one peer: at once, and per second in the long run.
pub const WARNINGS: (u32, u32) = (50, 1);

/// The side that makes the first offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// Our side does.
    Offer,
    /// The peer does.
    AwaitOffer,
    /// The peer does, on our request.
    RequestOffer,
}

/// An event that the link waits for; steps of the negotiation have timers of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// The peer's first description.
    Offer,
    /// The first description of a peer that need not make one; after the wait our side makes an offer.
    OptionalOffer,
    /// ICE and DTLS.
    Path,
    /// Another path, by an ICE restart on the existing connection; contains whether both sides agreed on it.
    Restart(bool),
}

/// State machine of one link.
#[derive(Debug)]
pub struct Link {
    negotiation: Negotiation,
    /// Whether the peer answers one offer on each connection.
    single_exchange: bool,
    ring: Duration,
    candidates: CandidateSummary,
    watch: Watch,
    delivery: Delivery,
    /// Whether the path broke in our direction alone: packets of the peer arrive, ours do not.
    is_unheard: bool,
    /// Time at which a session with a media server counts as broken for want of media; none until media arrived.
    stalls_at: Option<Instant>,
    /// Event that the link waits for, and the end of that wait.
    waiting: Option<(Instant, Wait)>,
    /// Number of our ICE restarts since the last good path, and the time of the last one until its path counts as good.
    restarts: (u32, Option<Instant>),
    /// Whether this machine has other addresses than those of the ICE restart under way.
    is_outdated: bool,
    /// Whether our side makes an offer once the peer's first offer is answered.
    owes_offer: bool,
    /// Limit on the warnings about useless messages, which a peer may send without end.
    warnings: Bucket,
    /// Whether our side warned that it omits further warnings.
    omits: bool,
    ended: bool,
    outputs: VecDeque<Output>,
}

impl Link {
    /// Returns a link that opens its connection.
    pub fn new(now: Instant, begin: Begin, terms: Terms) -> Self {
        let (ring, pool, single_exchange) = (terms.ring, terms.pool, terms.single_exchange);
        let mut link = Self {
            watch: Watch::new(terms.patience, terms.reconnects_first),
            negotiation: Negotiation::new(terms),
            single_exchange,
            ring,
            candidates: CandidateSummary::default(),
            delivery: Delivery::default(),
            is_unheard: false,
            stalls_at: None,
            waiting: None,
            restarts: (0, None),
            is_outdated: false,
            owes_offer: false,
            warnings: Bucket::new(WARNINGS.0, WARNINGS.1),
            omits: false,
            ended: false,
            outputs: VecDeque::new(),
        };
        match begin {
            Begin::Offer => link.negotiation.request_offer(now),
            Begin::AwaitOffer if pool => link.waiting = Some((now + OPTIONAL_OFFER, Wait::OptionalOffer)),
            Begin::AwaitOffer => link.waiting = Some((now + ring, Wait::Offer)),
            Begin::RequestOffer => {
                link.waiting = Some((now + ring, Wait::Offer));
                link.outputs.push_back(Output::Send(PeerMessage::OfferRequest));
            }
        }
        link.forward_outputs(now);
        link
    }

    /// Returns whether the link has ended.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Returns whether media can flow.
    pub fn is_connected(&self) -> bool {
        self.watch.is_up() && !self.ended
    }

    /// Returns whether media could flow at some time: media may go on or resume without the server.
    pub fn was_connected(&self) -> bool {
        self.watch.was_connected() && !self.ended
    }

    /// Returns whether the path broke and no other was found yet.
    pub fn is_broken(&self) -> bool {
        self.watch.is_broken() && !self.ended
    }

    /// Returns whether this side makes the offer when the link begins anew.
    pub fn makes_offers(&self) -> bool {
        self.watch.reconnects_first()
    }

    /// Returns the next output.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns when [`Link::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let negotiation = self.negotiation.poll_timeout().filter(|_| !self.ended);
        let watch = self.watch.poll_timeout().filter(|_| !self.ended);
        let filter = self.negotiation.filter_timeout().filter(|_| !self.ended);
        let waiting = self.waiting.map(|(at, _)| at).into_iter().chain(self.stalls_at);
        waiting.chain(negotiation).chain(watch).chain(filter).min()
    }

    /// Handles one input.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        if self.ended {
            return;
        }
        let awaits_offer = matches!(self.waiting, Some((_, Wait::Offer | Wait::OptionalOffer)));
        match input {
            Input::Peer(message) => self.peer_message(now, message),
            Input::Junk(why) => self.warn(now, &why),
            Input::Result(id, result) => self.negotiation.handle_result(now, id, result),
            Input::LocalCandidate(candidate) => {
                self.candidates.ours(&candidate.candidate);
                self.negotiation.handle_local_candidate(candidate);
            }
            Input::Connection(state) => self.connection_changed(now, state),
            Input::Heard(media) => {
                // Packets of the path that stands prove nothing while a restart looks for another one.
                let is_good = |at: &mut Instant| self.watch.is_up() && *at + RESTARTED <= now;
                self.restarts.1.take_if(is_good).iter().for_each(|_| self.restarts.0 = 0);
                self.watch.heard(now, media);
                if media && self.single_exchange && self.watch.is_up() {
                    self.stalls_at = Some(now + STALLED);
                }
            }
            Input::Report(report) => {
                if self.watch.is_up() && self.delivery.handle_report(now, report) {
                    self.is_unheard = true;
                    self.broken(now);
                }
            }
            Input::NetworkChanged => self.network_changed(now),
            // The peer's first offer may make room for the change, so that offer comes first.
            Input::Negotiate if awaits_offer => self.owes_offer = true,
            Input::Negotiate if self.single_exchange => {}
            Input::Negotiate => self.negotiation.request_offer(now),
            Input::Renew => self.renew(now),
            // The peer's media may go on; if the peer hung up, the media stops at once.
            Input::PeerGone if self.watch.was_connected() => self.watch.peer_gone(now),
            Input::PeerGone => self.end(EndReason::PeerHungUp),
            Input::Reachable(reachable) => self.watch.reachable(now, reachable),
            Input::HangUp => self.end(EndReason::HungUp),
        }
        self.forward_outputs(now);
    }

    fn peer_message(&mut self, now: Instant, message: PeerMessage) {
        let begins = matches!(message, PeerMessage::Description(_) | PeerMessage::OfferRequest);
        if begins && matches!(self.waiting, Some((_, Wait::Offer | Wait::OptionalOffer))) {
            // From now on the negotiation has its own timers.
            self.waiting = None;
        }
        match &message {
            PeerMessage::Description(description) => self.candidates.theirs(&description.sdp),
            PeerMessage::Candidate(candidate) => self.candidates.theirs(&candidate.candidate),
            PeerMessage::OfferRequest | PeerMessage::EndOfCandidates | PeerMessage::Placeholder => {}
        }
        self.negotiation.handle_peer(now, message);
        self.keep_waiting(now);
    }

    fn connection_changed(&mut self, now: Instant, state: ConnectionState) {
        match state {
            ConnectionState::Connected => {
                self.negotiation.handle_connected(now);
                self.connected();
            }
            // After an ICE restart the earlier path may still fail.
            ConnectionState::Failed if matches!(self.waiting, Some((_, Wait::Restart(_)))) => {}
            ConnectionState::Failed if self.watch.was_connected() => self.broken(now),
            ConnectionState::Failed => self.no_path(),
            ConnectionState::Forged => self.end(EndReason::Forged),
            // A media server may have restarted, or its publisher may be back soon.
            ConnectionState::Closed if self.single_exchange && self.watch.was_connected() => self.broken(now),
            ConnectionState::Closed => self.end(EndReason::PeerHungUp),
        }
    }

    /// Makes a new path at the user's request.
    fn renew(&mut self, now: Instant) {
        if !self.watch.is_reachable() {
            self.push_warning("a new path needs the server, which is not connected now");
        } else if self.watch.was_connected() {
            if self.watch.is_up() {
                self.restarts.0 = 0;
            }
            self.broken(now);
            self.reconnect(now);
        } else {
            self.push_warning("there is no connection yet whose path could be renewed");
        }
    }

    /// Handles that time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.ended {
            return;
        }
        match self.waiting {
            Some((at, Wait::Offer)) if at <= now => {
                self.end(EndReason::timed_out("the peer's offer", self.ring))
            }
            Some((at, Wait::OptionalOffer)) if at <= now => {
                self.waiting = None;
                self.negotiation.request_offer(now);
            }
            Some((at, Wait::Path)) if at <= now && self.watch.was_connected() => self.broken(now),
            Some((at, Wait::Restart(is_agreed))) if at <= now => self.restart_ended(now, is_agreed),
            Some((at, Wait::Path)) if at <= now => self.no_path(),
            Some(_) | None => {}
        }
        if self.stalls_at.is_some_and(|at| at <= now) {
            self.broken(now);
        }
        match self.watch.due(now) {
            Some(Due::PeerGone) => self.end(EndReason::PeerHungUp),
            Some(Due::GiveUp) => self.end(EndReason::Lost),
            Some(Due::Broken) => self.broken(now),
            Some(Due::Reconnect) => self.reconnect(now),
            None => {}
        }
        if !self.ended {
            self.negotiation.handle_timeout(now);
            self.forward_outputs(now);
            let dropped = self.negotiation.filter().due(now, false);
            dropped.into_iter().for_each(|text| self.push_warning(&format!("dropped from the peer: {text}")));
        }
    }

    fn broken(&mut self, now: Instant) {
        (self.waiting, self.stalls_at) = (None, None);
        if self.watch.broken(now) {
            self.outputs.push_back(Output::Reconnecting);
        }
    }

    fn connected(&mut self) {
        if !self.watch.is_up() {
            self.watch.connected();
            self.is_unheard = false;
            self.delivery = Delivery::default();
            self.waiting = None;
            self.outputs.push_back(Output::Connected);
        }
    }

    /// Handles other addresses of this machine. An ICE restart whose descriptions are under way has the addresses of before:
    /// another restart follows as soon as it may.
    fn network_changed(&mut self, now: Instant) {
        self.restarts.0 = 0;
        self.is_outdated =
            matches!(self.waiting, Some((_, Wait::Restart(_)))) && self.negotiation.is_exchanging();
        if !self.is_outdated {
            self.watch.network_changed(now);
        }
    }

    /// Handles that an ICE restart found no path in time. A path that still works in both directions is kept.
    fn restart_ended(&mut self, now: Instant, is_agreed: bool) {
        self.waiting = None;
        if is_agreed && !self.is_unheard && self.watch.is_heard(now) {
            self.push_warning("no new path was found; the one before still works and is kept");
            self.connected();
        } else {
            self.reconnect(now);
        }
    }

    /// Makes a new path: by an ICE restart, which keeps the connection, or else by a fresh connection.
    fn reconnect(&mut self, now: Instant) {
        self.watch.reconnecting();
        self.is_outdated = false;
        if self.restarts.0 < RESTARTS && self.negotiation.restart_ice(now) {
            self.restarts = (self.restarts.0 + 1, Some(now));
            self.waiting = Some((now + RESTART, Wait::Restart(false)));
        } else {
            self.negotiation.replace_and_offer(now);
        }
    }

    /// Waits for a first description again if the one that arrived was useless.
    fn keep_waiting(&mut self, now: Instant) {
        let idle = self.negotiation.poll_timeout().is_none() && !self.negotiation.is_established();
        if idle && self.waiting.is_none() && !self.watch.was_connected() {
            self.waiting = Some((now + self.ring, Wait::Offer));
        }
    }

    /// Forwards the outputs of the negotiation, and handles its events.
    fn forward_outputs(&mut self, now: Instant) {
        loop {
            while let Some(output) = self.negotiation.poll_output() {
                if output == Output::Effect(Effect::Open) {
                    (self.is_unheard, self.restarts) = (false, (0, None));
                }
                if !self.ended {
                    self.outputs.push_back(output);
                }
            }
            let Some(event) = self.negotiation.poll_event() else { return };
            if !self.ended {
                self.negotiation_event(now, event);
            }
        }
    }

    /// Handles an event of the negotiation; starts the timer of the path once descriptions are exchanged.
    fn negotiation_event(&mut self, now: Instant, event: Event) {
        if event == Event::Negotiated && std::mem::take(&mut self.owes_offer) {
            self.negotiation.request_offer(now);
        }
        match event {
            Event::Negotiated if self.watch.is_up() => {}
            Event::Negotiated if matches!(self.waiting, Some((_, Wait::Restart(_)))) => {
                if self.is_outdated && !self.negotiation.is_exchanging() {
                    self.reconnect(now);
                }
            }
            Event::Negotiated => self.waiting = Some((now + CONNECT, Wait::Path)),
            Event::IceRestarted if self.watch.is_broken() => {
                self.watch.reconnecting();
                self.waiting = Some((now + RESTARTED, Wait::Restart(true)));
            }
            Event::IceRestarted => {}
            Event::Replaced => {
                if self.watch.was_connected() {
                    self.broken(now);
                    self.watch.reconnecting();
                }
            }
            Event::Dropped(text) => self.warn(now, &text),
            Event::Declined(reason) => self.end(EndReason::Declined(reason)),
            // A description that fails on this connection may succeed on a fresh one.
            Event::Failed(step, reason) if self.watch.was_connected() && !self.negotiation.is_flooded() => {
                self.push_warning(&format!("waiting for {step}: {reason}"));
                self.broken(now);
                self.negotiation.replace_and_wait(now);
            }
            Event::Failed(step, reason) => self.end(EndReason::Negotiation { step, reason }),
        }
    }

    fn no_path(&mut self) {
        let candidates = std::mem::take(&mut self.candidates);
        self.end(EndReason::NoPath(candidates));
    }

    fn end(&mut self, reason: EndReason) {
        if !std::mem::replace(&mut self.ended, true) {
            (self.waiting, self.stalls_at) = (None, None);
            // The report of dropped candidates, if one is due later, must precede the end.
            if let Some(at) = self.negotiation.filter_timeout()
                && let Some(text) = self.negotiation.filter().due(at, true)
            {
                self.push_warning(&format!("dropped from the peer: {text}"));
            }
            self.outputs.push_back(Output::Ended(reason));
        }
    }

    fn push_warning(&mut self, text: &str) {
        self.outputs.push_back(Output::Warning(text.to_owned()));
    }

    /// Warns that a message of the peer was dropped, at a limited rate.
    fn warn(&mut self, now: Instant, text: &str) {
        if self.warnings.take(now) {
            self.push_warning(&format!("dropped from the peer: {text}"));
        } else if !std::mem::replace(&mut self.omits, true) {
            self.push_warning("dropped from the peer: more messages, which are not reported");
        }
    }
}
