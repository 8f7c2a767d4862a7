//! Offers, answers and candidates of one connection (RFC 8829).
//!
//! If offers of both sides collide, the polite side drops its offer, as in "perfect negotiation". That takes a rollback,
//! which webrtcbin does not have. The polite side therefore defers later offers: our side sends such an offer at once, but
//! webrtcbin applies the offer only when the answer arrives. Until then our side can drop a deferred offer, except one
//! with new m-lines where webrtcbin cannot take these back; then, and for a first offer, a fresh connection is opened.

mod candidates;
mod descriptions;
mod exchange;
mod transport;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use self::exchange::Exchange;
use self::transport::Transport;
use super::STEP;
use super::effect::{Effect, EffectId};
use super::filter::Filter;
use super::io::Output;
use super::terms::Terms;
use crate::base::limit::Bucket;
use crate::protocol::{Candidate, PeerMessage};
use crate::sdp::{self, Sdp};

pub use super::filter::MAX_CANDIDATES;

/// Maximum number of messages of the peer that wait while a step is under way.
pub const MAX_INBOX: usize = 512;
/// Maximum number of offers accepted from a peer: at once, and per second in the long run.
pub const OFFERS: (u32, u32) = (600, 10);

/// Time from the connection until the peer's first data channel is open. Offers of missing media wait for it: an offer that
/// webrtcbin makes before lacks the m-line of data channels, which moves all m-lines behind it.
const CHANNEL: Duration = Duration::from_millis(500);

/// Event of a negotiation, for the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An offer was answered, and our side has applied both descriptions.
    Negotiated,
    /// Our side replaced its connection on its own account, most often because the peer replaced its connection.
    Replaced,
    /// Both sides have new ICE credentials on the existing connection.
    IceRestarted,
    /// A message of the peer was dropped, for this reason; the negotiation goes on.
    Dropped(String),
    /// The peer's answer rejects the call, for this reason. The negotiation is over.
    Declined(String),
    /// A step, which is named, failed for this reason. The negotiation halts until its connection is replaced.
    Failed(&'static str, String),
}

/// Negotiation with one peer, over one connection after another.
#[derive(Debug)]
pub struct Negotiation {
    terms: Terms,
    exchange: Exchange,
    /// Time by which the current step has to end.
    deadline: Option<Instant>,
    transport: Transport,
    /// Description with the m-lines that the peer has. They keep their order and mids over all connections (RFC 8829,
    /// 5.2.2).
    standing: Option<Sdp>,
    next_id: u64,
    /// Whether our side makes an offer as soon as no exchange is under way.
    offer_owed: bool,
    /// Whether that offer is to restart ICE on the existing connection.
    ice_restart_owed: bool,
    /// Time at which our side offers media that the peer's offer lacks.
    complete_at: Option<Instant>,
    /// Whether that offer waits for the connection and for the peer's data channel.
    awaits_channel: bool,
    /// Messages of the peer that wait for the end of a step.
    inbox: VecDeque<PeerMessage>,
    /// Whether the peer's last offer is ignored, and its candidates with it.
    ignoring: bool,
    filter: Filter,
    /// User fragment and candidates of the peer's current transport, which a fresh connection of ours to it needs
    /// again.
    remote_candidates: (Option<String>, Vec<Candidate>),
    /// Limit on the peer's offers.
    offers: Bucket,
    /// Whether the peer exceeded that limit.
    flooded: bool,
    /// Whether our side warned that the inbox is full.
    overflowed: bool,
    /// Messages and effects.
    outputs: VecDeque<Output>,
    events: VecDeque<Event>,
}

impl Negotiation {
    /// Returns a negotiation that opens its connection.
    pub fn new(terms: Terms) -> Self {
        let filter = Filter::new(terms.reach.clone(), terms.mdns);
        let mut this = Self {
            terms,
            exchange: Exchange::Stable,
            deadline: None,
            transport: Transport::default(),
            standing: None,
            next_id: 0,
            offer_owed: false,
            ice_restart_owed: false,
            complete_at: None,
            awaits_channel: false,
            inbox: VecDeque::new(),
            ignoring: false,
            filter,
            remote_candidates: (None, Vec::new()),
            offers: Bucket::new(OFFERS.0, OFFERS.1),
            flooded: false,
            overflowed: false,
            outputs: VecDeque::new(),
            events: VecDeque::new(),
        };
        this.effect(Effect::Open);
        this
    }

    /// Returns the next output: a message or an effect.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns the next event. Events follow the outputs that led to them.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns when [`Negotiation::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let set_aside = self.transport.set_aside.as_ref().map(|(at, _)| *at);
        let waits = self.transport.answer_may_come;
        self.deadline.into_iter().chain(self.complete_at).chain(set_aside).chain(waits).min()
    }

    /// Returns the filter of the peer's candidates, which reports the dropped ones.
    pub fn filter(&mut self) -> &mut Filter {
        &mut self.filter
    }

    /// Returns when dropped candidates are to be reported.
    pub fn filter_timeout(&self) -> Option<Instant> {
        self.filter.poll_timeout()
    }

    /// Returns whether descriptions were exchanged at least once.
    pub fn is_established(&self) -> bool {
        self.transport.is_established()
    }

    /// Returns whether the peer exceeded [`OFFERS`].
    pub fn is_flooded(&self) -> bool {
        self.flooded
    }

    /// Handles that ICE and DTLS are connected, which shows that both sides use the same descriptions.
    pub fn handle_connected(&mut self, now: Instant) {
        self.transport.connected = true;
        self.transport.dropped_first_offer = false;
        if let Some(at) = &mut self.complete_at {
            let opened = now + CHANNEL;
            *at = if std::mem::take(&mut self.awaits_channel) { opened } else { opened.max(*at) };
        }
        self.proceed(now);
    }

    /// Returns whether an exchange is under way or has failed.
    pub fn is_exchanging(&self) -> bool {
        !self.exchange.is_stable()
    }

    /// Returns whether no exchange is under way.
    #[cfg(test)]
    pub(super) fn is_stable(&self) -> bool {
        self.exchange.is_stable() && self.inbox.is_empty()
    }

    /// Returns whether no exchange is under way or will follow.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        self.is_stable() && !self.offer_owed
    }

    /// Makes an offer as soon as no exchange is under way.
    pub fn request_offer(&mut self, now: Instant) {
        self.offer_owed = true;
        self.proceed(now);
    }

    /// Restarts ICE on the existing connection, with an offer of ours that has new credentials; DTLS, media and data
    /// channels stay as they are. Does nothing and returns false if a new path takes a fresh connection: before ICE and
    /// DTLS were connected, during another exchange, or with a peer that runs roomtone or takes a
    /// single offer.
    pub fn restart_ice(&mut self, now: Instant) -> bool {
        let is_ready = self.transport.connected && self.is_established() && self.exchange.is_stable();
        let is_roomtone = self.transport.remote.as_ref().is_some_and(sdp::is_of_roomtone);
        if !is_ready || is_roomtone || self.terms.single_exchange {
            return false;
        }
        self.ice_restart_owed = true;
        self.request_offer(now);
        true
    }

    /// Replaces the connection by a fresh one, and makes an offer over it.
    pub fn replace_and_offer(&mut self, now: Instant) {
        self.replace_and_wait(now);
        self.request_offer(now);
    }

    /// Replaces the connection by a fresh one, and waits for the peer's offer. Earlier messages of the peer are
    /// dropped.
    pub fn replace_and_wait(&mut self, now: Instant) {
        self.inbox.clear();
        self.ignoring = false;
        self.offer_owed = false;
        self.complete_at = None;
        self.replace_connection();
        self.enter(now, Exchange::Stable);
    }

    /// Handles a message of the peer.
    pub fn handle_peer(&mut self, now: Instant, message: PeerMessage) {
        if self.inbox.len() >= MAX_INBOX {
            if !std::mem::replace(&mut self.overflowed, true) {
                self.warn(&format!("more than {MAX_INBOX} messages wait: further ones are dropped"));
            }
            return;
        }
        self.inbox.push_back(message);
        self.proceed(now);
    }

    /// Handles the result of an effect: the description that it created, if it creates one. Ignores a result for which no
    /// step waits, such as that of a dropped offer.
    pub fn handle_result(&mut self, now: Instant, id: EffectId, result: Result<Option<Sdp>, String>) {
        if self.exchange.awaits(id) {
            match (result, std::mem::replace(&mut self.exchange, Exchange::Stable)) {
                (Err(reason), exchange) => self.step_failed(now, exchange, reason),
                (Ok(Some(sdp)), Exchange::CreatingOffer { restarts_ice, .. }) => {
                    self.send_offer(now, sdp, restarts_ice);
                }
                (Ok(Some(sdp)), Exchange::CreatingAnswer(answering)) => {
                    self.send_answer(now, sdp, answering.restarts_ice);
                }
                (Ok(None), Exchange::ApplyingTheirOffer(answering)) => {
                    let id = self.id();
                    if answering.restarts_ice {
                        self.transport.local_candidates.clear();
                    }
                    self.effect(Effect::CreateAnswer { id, restarts_ice: answering.restarts_ice });
                    self.enter(now, Exchange::CreatingAnswer(exchange::Answering { id, ..answering }));
                }
                (Ok(None), Exchange::ApplyingOurAnswer(_)) => self.negotiated(now),
                (Ok(None), Exchange::ApplyingTheirAnswer { answer, .. }) if answer == id => {
                    self.negotiated(now);
                }
                // Our offer is applied, or the result is of the wrong kind: the step goes on.
                (_, exchange) => self.exchange = exchange,
            }
        }
        self.proceed(now);
    }

    fn negotiated(&mut self, now: Instant) {
        self.enter(now, Exchange::Stable);
        self.events.push_back(Event::Negotiated);
    }

    fn step_failed(&mut self, now: Instant, mut exchange: Exchange, reason: String) {
        let step = exchange.awaited().unwrap_or("a description");
        // The existing connection cannot answer this offer; a fresh one may.
        if let Exchange::ApplyingTheirOffer(answering) | Exchange::CreatingAnswer(answering) = &mut exchange
            && let Some(offer) = answering.retry.take()
        {
            self.warn(&format!("{reason}; once more, over a fresh connection"));
            self.replace_connection();
            self.events.push_back(Event::Replaced);
            self.begin_answer(now, offer);
        } else {
            self.exchange = exchange;
            self.fail(step, reason);
        }
    }

    /// Handles that time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.complete_at.is_some_and(|at| at <= now) {
            self.complete_at = None;
            let waits = !self.transport.connected && self.transport.has_data();
            if waits && !std::mem::replace(&mut self.awaits_channel, true) {
                self.complete_at = Some(now + STEP);
            } else {
                self.request_offer(now);
            }
        }
        if let Some((_, offer)) = self.transport.set_aside.take_if(|(at, _)| *at <= now)
            && let Exchange::Offered(_) = self.exchange
        {
            self.replace_connection();
            self.events.push_back(Event::Replaced);
            self.begin_answer(now, offer);
        }
        if self.transport.answer_may_come.take_if(|at| *at <= now).is_some() {
            self.proceed(now);
        }
        if self.deadline.is_some_and(|at| at <= now)
            && let Some(step) = self.exchange.awaited()
        {
            let seconds = self.time_limit().as_secs();
            self.fail(step, format!("nothing came for {seconds} s"));
        }
    }

    /// Handles the inbox, and makes an offer that is owed, as far as the exchange allows.
    fn proceed(&mut self, now: Instant) {
        while matches!(self.exchange, Exchange::Stable | Exchange::Offered(_)) {
            match self.inbox.pop_front() {
                Some(PeerMessage::Description(description)) => self.handle_description(now, description),
                Some(PeerMessage::Candidate(candidate)) => {
                    if self.is_early(&candidate) {
                        // Candidates that precede their description wait for it, behind later messages.
                        if !self.inbox.iter().any(|m| matches!(m, PeerMessage::Description(_))) {
                            self.inbox.push_front(PeerMessage::Candidate(candidate));
                            break;
                        }
                        self.inbox.push_back(PeerMessage::Candidate(candidate));
                    } else {
                        self.handle_candidate(now, candidate);
                    }
                }
                Some(PeerMessage::OfferRequest) => self.offer_owed |= self.exchange.is_stable(),
                Some(PeerMessage::EndOfCandidates) => {}
                Some(PeerMessage::Placeholder) => self.warn("a placeholder where a description should be"),
                None => break,
            }
        }
        let waits = self.transport.dropped_first_offer || self.transport.answer_may_come.is_some();
        if self.exchange.is_stable() && self.offer_owed && !waits {
            self.begin_offer(now);
        }
    }

    /// Replaces the connection by a fresh one, which keeps the peer's m-lines.
    fn replace_connection(&mut self) {
        // The peer may have applied the m-lines of an offer whose answer did not arrive.
        if let Exchange::Offered(offer) = &self.exchange {
            self.standing = Some(offer.sdp.clone());
        }
        // Each session with a media server is its first.
        if self.terms.single_exchange {
            self.standing = None;
        }
        self.transport = Transport::default();
        self.ice_restart_owed = false;
        self.effect(Effect::Open);
    }

    /// Begins a state of the exchange, with its time limit.
    fn enter(&mut self, now: Instant, exchange: Exchange) {
        self.exchange = exchange;
        self.deadline = self.exchange.awaited().map(|_| now + self.time_limit());
    }

    /// Returns the time limit of the current step.
    fn time_limit(&self) -> Duration {
        let rings = matches!(self.exchange, Exchange::Offered(_)) && !self.is_established();
        if rings { self.terms.ring } else { STEP }
    }

    /// Ends the negotiation with an error.
    fn fail(&mut self, step: &'static str, reason: String) {
        self.stop();
        self.events.push_back(Event::Failed(step, reason));
    }

    /// Ends the negotiation.
    fn stop(&mut self) {
        if let Exchange::Offered(offer) = std::mem::replace(&mut self.exchange, Exchange::Halted) {
            self.standing = Some(offer.sdp);
        }
        self.deadline = None;
        self.complete_at = None;
        self.transport.set_aside = None;
        self.inbox.clear();
    }

    fn id(&mut self) -> EffectId {
        self.next_id += 1;
        EffectId(self.next_id)
    }

    fn effect(&mut self, effect: Effect) {
        self.outputs.push_back(Output::Effect(effect));
    }

    fn send(&mut self, message: PeerMessage) {
        self.outputs.push_back(Output::Send(message));
    }

    fn warn(&mut self, text: &str) {
        self.events.push_back(Event::Dropped(text.to_owned()));
    }
}
