//! Offers, answers and candidates of one connection (RFC 8829), with the polite side's part of a
//! collision ("perfect negotiation") done without rollback, which webrtcbin does not have: a re-offer
//! is sent at once but applied only when its answer comes, so that it can still be forgotten.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::STEP;
use super::effect::{Effect, EffectId, EffectResult, Remote};
use super::filter::Filter;
use super::state::State;
use super::terms::Terms;
use crate::base::limit::Bucket;
use crate::protocol::{Candidate, Description, PeerMessage, SdpKind};
use crate::sdp::{self, CandidateLine, Kind, Sdp, Setup, direction};

/// The most messages of the peer that wait while a step is under way.
pub const MAX_INBOX: usize = 512;
/// The most candidates of a peer taken per connection.
pub const MAX_CANDIDATES: usize = 256;
/// The offers taken of a peer: so many at once, and so many a second in the long run.
pub const OFFERS: (u32, u32) = (600, 10);
/// How long the peer has to offer the media we want before we offer them. The demos' page offers a
/// data channel alone first, and audio and video as soon as that is answered.
const COMPLETION: Duration = Duration::from_millis(1500);

/// What the machine gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// For the connection.
    Effect(Effect),
    /// For the peer.
    Send(PeerMessage),
    /// An offer was answered and applied on our side.
    Negotiated,
    /// The peer began anew, over another transport: so did we.
    Restarted,
    /// Something of the peer was not taken; the negotiation goes on.
    Warning(String),
    /// The end: the peer's answer takes nothing, for this reason.
    Declined(String),
    /// The end: the step that failed, and why.
    Failed(&'static str, String),
}

/// One connection's negotiation.
#[derive(Debug)]
pub struct Negotiation {
    terms: Terms,
    state: State,
    deadline: Option<Instant>,
    next_id: u64,
    /// An offer of ours is owed as soon as the state is stable.
    offer_owed: bool,
    /// When to offer what the peer's offer left out.
    complete_at: Option<Instant>,
    inbox: VecDeque<PeerMessage>,
    remote: Option<Remote>,
    local: Option<Sdp>,
    /// The peer's offer that is being answered over a connection that stood, as it came.
    answering: Option<Sdp>,
    /// The offer being ignored, until the next description.
    ignoring: bool,
    /// A first offer of ours was forgotten, and whether the peer answers it is not known. An answer does not
    /// say which offer it is for: the next offer waits until it is clear what the peer means.
    forgotten: bool,
    /// A re-offer of ours was forgotten for one of the peer's.
    gave_way: bool,
    candidates: usize,
    filter: Filter,
    offers: Bucket,
    flooded: bool,
    overflowed: bool,
    role: Option<Setup>,
    connected: bool,
    outputs: VecDeque<Output>,
}

impl Negotiation {
    /// A negotiation over a fresh connection.
    pub fn new(terms: Terms) -> Self {
        let filter = Filter::new(terms.reach.clone(), terms.mdns);
        let mut this = Self {
            terms,
            state: State::Stable,
            deadline: None,
            next_id: 0,
            offer_owed: false,
            complete_at: None,
            inbox: VecDeque::new(),
            remote: None,
            local: None,
            answering: None,
            ignoring: false,
            forgotten: false,
            gave_way: false,
            candidates: 0,
            filter,
            offers: Bucket::new(OFFERS.0, OFFERS.1),
            flooded: false,
            overflowed: false,
            role: None,
            connected: false,
            outputs: VecDeque::new(),
        };
        this.effect(Effect::Open);
        this
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Negotiation::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline.into_iter().chain(self.complete_at).min()
    }

    /// What is told of the peer's candidates that are not tried, and when.
    pub fn filter(&mut self) -> &mut Filter {
        &mut self.filter
    }

    /// When candidates that are not tried are to be told of.
    pub fn filter_timeout(&self) -> Option<Instant> {
        self.filter.poll_timeout()
    }

    /// Whether descriptions were exchanged at least once.
    pub fn is_established(&self) -> bool {
        self.remote.is_some() && self.local.is_some()
    }

    /// The peer offered more often than anybody needs to.
    pub fn is_flooded(&self) -> bool {
        self.flooded
    }

    /// ICE and DTLS are through: both sides mean the same descriptions.
    pub fn handle_connected(&mut self, now: Instant) {
        self.connected = true;
        self.forgotten = false;
        self.proceed(now);
    }

    /// No exchange is under way.
    #[cfg(test)]
    pub(super) fn is_stable(&self) -> bool {
        self.state == State::Stable && self.inbox.is_empty()
    }

    /// No exchange is under way or will follow.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        self.is_stable() && !self.offer_owed
    }

    /// Our side wants to make an offer.
    pub fn request_offer(&mut self, now: Instant) {
        self.offer_owed = true;
        self.proceed(now);
    }

    /// Begins anew over a fresh connection, with an offer of ours.
    pub fn renew(&mut self, now: Instant) {
        self.reopen(now);
        self.request_offer(now);
    }

    /// Begins anew over a fresh connection, and takes the peer's offer. What it said before is forgotten.
    pub fn reopen(&mut self, now: Instant) {
        self.inbox.clear();
        self.ignoring = false;
        self.offer_owed = false;
        self.complete_at = None;
        self.enter(now, State::Stable);
        self.restart();
    }

    /// A message of the peer came.
    pub fn handle_peer(&mut self, now: Instant, message: PeerMessage) {
        if self.inbox.len() >= MAX_INBOX {
            if !std::mem::replace(&mut self.overflowed, true) {
                self.warn("more messages than can wait: what is too much is dropped");
            }
            return;
        }
        self.inbox.push_back(message);
        self.proceed(now);
    }

    /// The connection found a candidate of ours.
    pub fn handle_local_candidate(&mut self, mline: u32, candidate: String) {
        let sdp = if let State::Offered { sdp, .. } = &self.state { Sdp::parse(sdp).ok() } else { None };
        let local = sdp.as_ref().or(self.local.as_ref());
        let mid = local.and_then(|sdp| sdp.mid(mline)).map(str::to_owned);
        // By which the peer tells it from those of a transport before or after.
        let ufrag = local.and_then(|sdp| sdp.ufrag()).map(str::to_owned);
        let candidate = Candidate { candidate, mline: Some(mline), mid, ufrag };
        self.send(PeerMessage::Candidate(candidate));
    }

    /// An effect with an id came to its end.
    pub fn handle_result(&mut self, now: Instant, id: EffectId, result: EffectResult) {
        let waited_for = self.state.effect() == Some(id);
        match (result, std::mem::replace(&mut self.state, State::Stable)) {
            // A connection that stood cannot answer this offer: a fresh one may.
            (EffectResult::Failed(reason), State::ApplyingOffer(_) | State::CreatingAnswer(_))
                if waited_for && self.answering.is_some() =>
            {
                self.warn(&format!("{reason}; once more, over a fresh connection"));
                let offer = self.answering.take();
                self.restart();
                self.outputs.push_back(Output::Restarted);
                offer.into_iter().for_each(|offer| self.take_offer(now, offer));
            }
            (EffectResult::Failed(reason), state) if waited_for || matches!(state, State::Offered { .. }) => {
                let step = state.step().unwrap_or("a description");
                self.fail(step, reason);
            }
            (EffectResult::Created(sdp), State::CreatingOffer(_)) if waited_for => self.offer(now, sdp),
            (EffectResult::Created(sdp), State::CreatingAnswer(_)) if waited_for => self.answer(now, sdp),
            (EffectResult::Applied, State::ApplyingOffer(_)) if waited_for => {
                let id = self.id();
                self.effect(Effect::CreateAnswer(id));
                self.enter(now, State::CreatingAnswer(id));
            }
            (EffectResult::Applied, State::ApplyingAnswer(_) | State::ApplyingLocal(_)) if waited_for => {
                self.enter(now, State::Stable);
                self.outputs.push_back(Output::Negotiated);
            }
            // Not waited for (the local half of an offer, a forgotten offer) or of the wrong kind.
            (_, state) => self.state = state,
        }
        self.proceed(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.complete_at.is_some_and(|at| at <= now) {
            self.complete_at = None;
            self.request_offer(now);
        }
        if self.deadline.is_some_and(|at| at <= now)
            && let Some(step) = self.state.step()
        {
            let seconds = self.patience().as_secs();
            self.fail(step, format!("nothing came for {seconds} s"));
        }
    }

    /// Works on the inbox, and makes an offer that is owed, as far as the state allows.
    fn proceed(&mut self, now: Instant) {
        while matches!(self.state, State::Stable | State::Offered { .. }) {
            match self.inbox.pop_front() {
                Some(PeerMessage::Description(description)) => self.description(now, description),
                Some(PeerMessage::Candidate(candidate)) => {
                    if self.remote.is_none() && !self.ignoring {
                        // Candidates before the description wait for it, behind what came after them.
                        if !self.inbox.iter().any(|m| matches!(m, PeerMessage::Description(_))) {
                            self.inbox.push_front(PeerMessage::Candidate(candidate));
                            break;
                        }
                        self.inbox.push_back(PeerMessage::Candidate(candidate));
                    } else {
                        self.candidate(now, candidate);
                    }
                }
                Some(PeerMessage::OfferRequest) => self.offer_owed |= self.state == State::Stable,
                Some(PeerMessage::EndOfCandidates) => {}
                Some(PeerMessage::Placeholder) => self.warn("a placeholder where a description should be"),
                None => break,
            }
        }
        if self.state == State::Stable && self.offer_owed && !self.forgotten {
            self.begin_offer(now);
        }
    }

    fn begin_offer(&mut self, now: Instant) {
        self.offer_owed = false;
        self.complete_at = None;
        let id = self.id();
        self.effect(Effect::CreateOffer(id));
        self.enter(now, State::CreatingOffer(id));
    }

    fn offer(&mut self, now: Instant, sdp: String) {
        let sdp = match Sdp::parse(&sdp) {
            Ok(mut parsed) => {
                for media in &mut parsed.media {
                    sdp::codec::declare_h264(media, "1f");
                    sdp::codec::offer_retransmission(media);
                }
                Setup::leave_open(&mut parsed);
                parsed.to_string()
            }
            Err(error) => return self.fail("our offer to be made", error.to_string()),
        };
        // The first offer can be answered by a fresh start, so it need not wait to be applied.
        let deferred = self.terms.polite && self.is_established();
        self.send(PeerMessage::Description(Description { kind: SdpKind::Offer, sdp: sdp.clone() }));
        if !deferred {
            let id = self.id();
            self.effect(Effect::ApplyLocal(id, SdpKind::Offer, sdp.clone()));
        }
        self.enter(now, State::Offered { sdp, deferred });
    }

    fn answer(&mut self, now: Instant, sdp: String) {
        let role = self.role.or_else(|| Setup::of_answer(&Sdp::parse(&sdp).ok()?));
        let written = match role {
            Some(role) => role.write_into(&sdp),
            None => Ok(sdp),
        };
        match written.and_then(|sdp| Ok((Sdp::parse(&sdp)?, sdp))) {
            Ok((parsed, sdp)) => {
                self.role = role;
                self.local = Some(parsed.clone());
                let mut told = parsed;
                if let Some(remote) = &self.remote {
                    direction::narrow_answer(&mut told, &remote.flows);
                }
                let told = Description { kind: SdpKind::Answer, sdp: told.to_string() };
                self.send(PeerMessage::Description(told));
                let id = self.id();
                self.effect(Effect::ApplyLocal(id, SdpKind::Answer, sdp));
                self.enter(now, State::ApplyingLocal(id));
            }
            Err(error) => self.fail("our answer to be made", error.to_string()),
        }
    }

    /// A description of the peer, in [`State::Stable`] or [`State::Offered`].
    fn description(&mut self, now: Instant, Description { kind, sdp }: Description) {
        if kind == SdpKind::Offer && !self.offers.take(now) {
            self.flooded = true;
            return self.fail("the peer to come to rest", "it offers without end".to_owned());
        }
        let sdp = match Sdp::parse(&sdp) {
            Ok(sdp) => sdp,
            Err(error) => return self.warn(&error.to_string()),
        };
        if let (SdpKind::Answer, State::Offered { .. }, Some(reason)) =
            (kind, &self.state, sdp::decline::reason(&sdp))
        {
            self.stop();
            return self.outputs.push_back(Output::Declined(reason));
        }
        let sdp = match sdp::normalise(sdp) {
            Ok(mut sdp) => {
                self.filter.clean(now, &mut sdp);
                sdp
            }
            Err(error) => return self.warn(&error.to_string()),
        };
        match (kind, self.state.clone()) {
            // One whose connection is another by now will not answer the offer of ours.
            (SdpKind::Offer, State::Offered { .. })
                if !self.terms.polite && !self.is_of_another_peer(&sdp) =>
            {
                self.ignoring = true;
            }
            (SdpKind::Offer, State::Offered { sdp: ours, deferred: true }) if !self.can_forget(&ours) => {
                self.outputs.push_back(Output::Restarted);
                self.renew(now);
            }
            (SdpKind::Offer, state) => {
                // A re-offer of ours was not applied yet, and is made again. A first one was: it takes a fresh
                // connection to forget it.
                let again = matches!(state, State::Offered { deferred: true, .. });
                self.offer_owed |= again;
                let begins = matches!(state, State::Offered { deferred: false, .. });
                let is_other = self.is_of_another_transport(&sdp);
                if begins || is_other {
                    self.restart();
                }
                if is_other {
                    self.outputs.push_back(Output::Restarted);
                }
                self.forgotten = begins;
                self.gave_way = again;
                self.take_offer(now, sdp);
            }
            (SdpKind::Answer, State::Offered { sdp: offer, deferred }) => {
                self.ignoring = false;
                self.role = self.role.or(Setup::of_answer(&sdp).map(Setup::opposite));
                let flows = direction::flows(&sdp);
                let mut remote = Remote { sdp, flows };
                self.local = Sdp::parse(&offer).ok();
                if let Some(offer) = &self.local {
                    direction::widen_answer(&mut remote.sdp, offer);
                }
                self.remote = Some(remote.clone());
                if deferred {
                    let id = self.id();
                    self.effect(Effect::ApplyLocal(id, SdpKind::Offer, offer));
                }
                let id = self.id();
                self.effect(Effect::ApplyRemote(id, SdpKind::Answer, remote));
                self.enter(now, State::ApplyingAnswer(id));
            }
            // The peer answered an offer that was forgotten or made by one before us of our name, and by
            // then means another exchange than we do. One side begins again.
            (SdpKind::Answer, _)
                if (self.terms.mends || self.forgotten && !self.terms.polite)
                    && self.is_established()
                    && !self.connected =>
            {
                self.restart();
                self.begin_offer(now);
            }
            // Each gave way to the other, and would do so again: one of the two has to stand by its offers.
            (SdpKind::Answer, _) if std::mem::take(&mut self.gave_way) => {
                self.terms.polite &= !self.terms.mends;
            }
            (SdpKind::Answer, _) => self.warn("an answer to no offer of ours"),
        }
    }

    /// Another transport, of a peer that began anew or came back under its name, needs a fresh connection.
    /// One that only restarted its ICE keeps its certificate: browsers keep their DTLS connection then, and
    /// webrtcbin, which cannot restart its own ICE, takes theirs.
    fn is_of_another_transport(&self, sdp: &Sdp) -> bool {
        let before = self.remote.as_ref().map(|remote| &remote.sdp);
        before.is_some_and(|before| {
            before.ufrag() != sdp.ufrag() && !(self.connected && before.certificate() == sdp.certificate())
        })
    }

    /// Another certificate is that of one who began anew.
    fn is_of_another_peer(&self, sdp: &Sdp) -> bool {
        let before = self.remote.as_ref().map(|remote| &remote.sdp);
        before.is_some_and(|before| before.certificate() != sdp.certificate())
    }

    /// Whether an offer of ours that was not applied can be made undone.
    fn can_forget(&self, offer: &str) -> bool {
        let lines = |sdp: &Sdp| sdp.media.len();
        let adds =
            Sdp::parse(offer).is_ok_and(|sdp| self.local.as_ref().is_none_or(|l| lines(&sdp) > lines(l)));
        self.terms.forgets || !adds
    }

    fn take_offer(&mut self, now: Instant, sdp: Sdp) {
        self.ignoring = false;
        self.answering = self.connected.then(|| sdp.clone());
        let offered = |kind: &Kind| sdp.media.iter().any(|m| Kind::of(m) == Some(*kind) && !m.is_rejected());
        self.complete_at = (!self.terms.wanted.iter().all(offered)).then_some(now + COMPLETION);
        let flows = direction::flows(&sdp);
        let mut remote = Remote { sdp, flows };
        direction::widen_offer(&mut remote.sdp);
        // Whatever it says now: roles stay as they are while a connection lives.
        if let Some(role) = self.role {
            role.opposite().write(&mut remote.sdp);
        }
        self.remote = Some(remote.clone());
        let id = self.id();
        self.effect(Effect::ApplyRemote(id, SdpKind::Offer, remote));
        self.enter(now, State::ApplyingOffer(id));
    }

    /// Throws the connection away and begins with a fresh one.
    fn restart(&mut self) {
        self.remote = None;
        self.local = None;
        self.role = None;
        self.forgotten = false;
        self.gave_way = false;
        self.candidates = 0;
        self.connected = false;
        self.effect(Effect::Open);
    }

    fn candidate(&mut self, now: Instant, candidate: Candidate) {
        // One that says that it is of the transport that stands is not of the offer being ignored.
        let standing = self.remote.as_ref().and_then(|remote| remote.sdp.ufrag());
        if self.ignoring && (candidate.ufrag.is_none() || candidate.ufrag.as_deref() != standing) {
            return;
        }
        self.candidates += 1;
        if self.candidates > MAX_CANDIDATES {
            if self.candidates == MAX_CANDIDATES + 1 {
                self.warn("more candidates than are taken: the rest is dropped");
            }
            return;
        }
        let Some(remote) = &self.remote else { return };
        let mline = candidate.mid.as_deref().and_then(|mid| remote.sdp.mline(mid)).or(candidate.mline);
        let mline = mline.filter(|mline| (*mline as usize) < remote.sdp.media.len());
        let line = CandidateLine::parse(&candidate.candidate);
        let ufrag = candidate.ufrag.as_deref().or(line.as_ref().ok().and_then(|line| line.ufrag.as_deref()));
        if ufrag.is_some_and(|ufrag| remote.sdp.ufrag().is_some_and(|now| now != ufrag)) {
            // Of a transport before this one.
            return;
        }
        match (line, mline) {
            (Err(sdp::CandidateError::Mdns), Some(mline)) if self.terms.mdns => {
                self.effect(Effect::AddCandidate(mline, candidate.candidate));
            }
            (Ok(line), Some(mline)) => {
                if self.filter.takes(now, &line) {
                    self.effect(Effect::AddCandidate(mline, line.text));
                }
            }
            (Ok(_), None) => self.warn("a candidate for an m-line that is not there"),
            (Err(sdp::CandidateError::Mdns), _) => {}
            (Err(error), _) => self.warn(&error.to_string()),
        }
    }

    fn enter(&mut self, now: Instant, state: State) {
        self.state = state;
        self.deadline = self.state.step().map(|_| now + self.patience());
    }

    /// How long the present step may take.
    fn patience(&self) -> Duration {
        let rings = matches!(self.state, State::Offered { .. }) && !self.is_established();
        if rings { self.terms.ring } else { STEP }
    }

    fn fail(&mut self, step: &'static str, reason: String) {
        self.stop();
        self.outputs.push_back(Output::Failed(step, reason));
    }

    fn stop(&mut self) {
        self.state = State::Ended;
        self.deadline = None;
        self.complete_at = None;
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
        self.outputs.push_back(Output::Warning(text.to_owned()));
    }
}
