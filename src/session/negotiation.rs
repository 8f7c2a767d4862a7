//! Offers, answers and candidates of one connection (RFC 8829), with the polite side's part of a
//! collision ("perfect negotiation") done without rollback, which webrtcbin does not have: a re-offer
//! is sent at once but applied only when its answer comes, so that it can still be forgotten.

mod candidates;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::STEP;
use super::effect::{Effect, EffectId, EffectResult, Remote};
use super::filter::Filter;
use super::state::State;
use super::terms::Terms;
use crate::base::limit::Bucket;
use crate::protocol::{Candidate, Description, PeerMessage, SdpKind};
use crate::sdp::{self, Kind, Layout, Media, Sdp, SdpError, Setup, Shown, direction};

/// The most messages of the peer that wait while a step is under way.
pub const MAX_INBOX: usize = 512;
/// The most candidates of a peer taken per connection.
pub const MAX_CANDIDATES: usize = 256;
/// The offers taken of a peer: so many at once, and so many a second in the long run.
pub const OFFERS: (u32, u32) = (600, 10);
/// How long the peer has to offer the media we want before we offer them. The demos' page offers a
/// data channel alone first, and audio and video as soon as that is answered.
const COMPLETION: Duration = Duration::from_millis(1500);

/// Time in which a peer has to answer an offer of ours that supersedes its own. A peer that ignores offers in a
/// collision keeps waiting for an answer to its own offer.
const IGNORED: Duration = Duration::from_secs(2);

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
    /// Both sides have new ICE credentials on the connection that stands.
    IceRestarted,
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
    /// Whether the next offer of ours restarts ICE on the connection that stands.
    restart_owed: bool,
    /// When to offer what the peer's offer left out.
    complete_at: Option<Instant>,
    inbox: VecDeque<PeerMessage>,
    /// Descriptions as webrtcbin has them.
    remote: Option<Remote>,
    local: Option<Sdp>,
    /// Mapping between the peer's m-lines and webrtcbin's.
    layout: Layout,
    /// The peer's offer that is being answered over a connection that stood, as it came.
    answering: Option<Sdp>,
    /// The offer being ignored, until the next description.
    ignoring: bool,
    /// A first offer of ours was forgotten, and whether the peer answers it is not known. An answer does not
    /// say which offer it is for: the next offer waits until it is clear what the peer means.
    forgotten: bool,
    /// A re-offer of ours was forgotten for one of the peer's.
    gave_way: bool,
    /// The peer's offer that an offer of ours superseded, and when it is answered after all.
    passed_over: Option<(Instant, Sdp)>,
    candidates: usize,
    filter: Filter,
    /// Our candidates of the current transport: index of webrtcbin's m-line, and the attribute.
    ours: Vec<(u32, String)>,
    /// User fragment and candidates of the peer's current transport, for a fresh connection to the same transport.
    theirs: (Option<String>, Vec<Candidate>),
    /// Candidates of the peer that the connection has.
    added: Vec<(u32, String)>,
    /// Number of the peer's ICE restarts since the connection was opened.
    generation: u32,
    /// Whether the offer that is being answered restarts the peer's ICE.
    restarts_ice: bool,
    offers: Bucket,
    flooded: bool,
    overflowed: bool,
    role: Option<Setup>,
    /// Whether the first offer of the connection was ours, which gives this side the controlling role in ICE.
    controls: bool,
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
            restart_owed: false,
            complete_at: None,
            inbox: VecDeque::new(),
            remote: None,
            local: None,
            layout: Layout::default(),
            answering: None,
            ignoring: false,
            forgotten: false,
            gave_way: false,
            passed_over: None,
            candidates: 0,
            filter,
            ours: Vec::new(),
            theirs: (None, Vec::new()),
            added: Vec::new(),
            generation: 0,
            restarts_ice: false,
            offers: Bucket::new(OFFERS.0, OFFERS.1),
            flooded: false,
            overflowed: false,
            role: None,
            controls: false,
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
        let passed_over = self.passed_over.as_ref().map(|(at, _)| *at);
        self.deadline.into_iter().chain(self.complete_at).chain(passed_over).min()
    }

    /// Returns the filter of the peer's candidates, which reports the dropped ones.
    pub fn filter(&mut self) -> &mut Filter {
        &mut self.filter
    }

    /// Returns when dropped candidates are to be reported.
    pub fn filter_timeout(&self) -> Option<Instant> {
        self.filter.poll_timeout()
    }

    /// Whether descriptions were exchanged at least once.
    pub fn is_established(&self) -> bool {
        self.remote.is_some() && self.local.is_some()
    }

    /// Returns whether this side nominates paths (RFC 8445, 8.1.1): it made the first offer of the connection. libnice then
    /// nominates one path for the life of the connection, which an ICE restart finds again or not.
    pub fn controls_ice(&self) -> bool {
        self.controls
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

    /// Restarts ICE on the connection that stands, with an offer of ours that has new credentials; DTLS, media and data
    /// channels stay as they are. Returns false, and does nothing, if this is not the way to a new path: before the
    /// connection stood, during another exchange, or with a peer that runs roomtone, which takes a fresh connection.
    pub fn restart_ice(&mut self, now: Instant) -> bool {
        let stands = self.connected && self.is_established() && self.state == State::Stable;
        let is_ours = self.remote.as_ref().is_some_and(|remote| sdp::is_of_roomtone(&remote.sdp));
        if !stands || is_ours {
            return false;
        }
        self.restart_owed = true;
        self.request_offer(now);
        true
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
        self.restart();
        self.enter(now, State::Stable);
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
            (EffectResult::Created(sdp), State::CreatingOffer(_, restarts_ice)) if waited_for => {
                self.offer(now, sdp, restarts_ice);
            }
            (EffectResult::Created(sdp), State::CreatingAnswer(_)) if waited_for => self.answer(now, sdp),
            (EffectResult::Applied, State::ApplyingOffer(_)) if waited_for => {
                let id = self.id();
                self.effect(Effect::CreateAnswer { id, restarts_ice: self.restarts_ice });
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
        if let Some((_, offer)) = self.passed_over.take_if(|(at, _)| *at <= now)
            && let State::Offered { .. } = self.state
        {
            self.restart();
            self.outputs.push_back(Output::Restarted);
            self.take_offer(now, offer);
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
                    if self.is_early(&candidate) {
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

    /// Returns whether a candidate belongs to a description that has not arrived.
    fn is_early(&self, candidate: &Candidate) -> bool {
        let Some(remote) = &self.remote else { return !self.ignoring };
        let is_other = candidate.ufrag.is_some() && candidate.ufrag.as_deref() != remote.sdp.ufrag();
        matches!(self.state, State::Offered { restarts_ice: true, .. }) && is_other
    }

    fn begin_offer(&mut self, now: Instant) {
        self.offer_owed = false;
        let restarts_ice = std::mem::take(&mut self.restart_owed);
        self.complete_at = None;
        let id = self.id();
        self.effect(Effect::CreateOffer { id, kinds: self.layout.awaited(), restarts_ice });
        self.enter(now, State::CreatingOffer(id, restarts_ice));
    }

    fn offer(&mut self, now: Instant, sdp: String, restarts_ice: bool) {
        let mut parsed = match Sdp::parse(&sdp) {
            Ok(parsed) => parsed,
            Err(error) => return self.fail("our offer to be made", error.to_string()),
        };
        for media in &mut parsed.media {
            sdp::codec::declare_h264(media, "1f");
            sdp::codec::offer_retransmission(media);
        }
        Setup::leave_open(&mut parsed);
        let sdp = parsed.to_string();
        let (layout, mut told) = self.layout.tell_offer(&parsed);
        sdp::sign(&mut told);
        // The first offer can be answered by a fresh start, so it need not wait to be applied.
        let deferred = self.terms.polite && self.is_established();
        self.send(PeerMessage::Description(Description { kind: SdpKind::Offer, sdp: told.to_string() }));
        if !deferred {
            let id = self.id();
            self.effect(Effect::ApplyLocal(id, SdpKind::Offer, sdp.clone()));
        }
        self.enter(now, State::Offered { sdp, deferred, layout, restarts_ice });
        if restarts_ice {
            self.demote_candidates();
            self.repeat_candidates();
        }
    }

    fn answer(&mut self, now: Instant, sdp: String) {
        let role = self.role.or_else(|| Setup::of_answer(&Sdp::parse(&sdp).ok()?));
        let written = match role {
            Some(role) => role.write_into(&sdp),
            None => Ok(sdp),
        };
        match written.and_then(|sdp| Sdp::parse(&sdp)) {
            Ok(mut answer) => {
                self.role = role;
                let held = self.layout.hold(&answer);
                let sdp = held.to_string();
                self.local = Some(held);
                if let Some(remote) = &self.remote {
                    direction::narrow_answer(&mut answer, &remote.flows);
                }
                let mut told = self.layout.tell_answer(&answer);
                sdp::sign(&mut told);
                let sdp_told = told.to_string();
                self.send(PeerMessage::Description(Description { kind: SdpKind::Answer, sdp: sdp_told }));
                if std::mem::take(&mut self.restarts_ice) {
                    self.repeat_candidates();
                    self.outputs.push_back(Output::IceRestarted);
                }
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
        let mut sdp = match Sdp::parse(&sdp) {
            Ok(sdp) => sdp,
            Err(error) => return self.warn(&error.to_string()),
        };
        if let (SdpKind::Answer, State::Offered { layout, .. }) = (kind, &self.state) {
            layout.name_answer(&mut sdp);
        }
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
            (SdpKind::Offer, State::Offered { sdp: ours, deferred: true, .. }) if !self.can_forget(&ours) => {
                self.outputs.push_back(Output::Restarted);
                let waiting = std::mem::take(&mut self.inbox).into_iter();
                self.renew(now);
                // Candidates in the inbox may belong to the peer's offer: they are kept in case the peer insists on
                // that offer.
                self.inbox.extend(waiting.filter(|message| matches!(message, PeerMessage::Candidate(_))));
                self.passed_over = Some((now + IGNORED, sdp));
            }
            (SdpKind::Offer, _) if sdp.media.iter().all(Media::is_rejected) => {
                self.warn(&SdpError::MLines(0).to_string());
            }
            (SdpKind::Offer, state) => {
                // A re-offer of ours was not applied yet, and is made again. A first one was: it takes a fresh
                // connection to forget it.
                let again = matches!(state, State::Offered { deferred: true, .. });
                self.offer_owed |= again;
                // If the peer's offer restarts ICE, the answer gives our side new credentials too.
                self.restart_owed =
                    matches!(state, State::Offered { deferred: true, restarts_ice: true, .. })
                        && self.is_of_standing_transport(&sdp);
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
            // The peer did not restart ICE, or replaced its connection: a fresh one of ours can meet it.
            (SdpKind::Answer, State::Offered { restarts_ice: true, .. })
                if self.is_of_another_peer(&sdp) || self.is_of_standing_transport(&sdp) =>
            {
                self.outputs.push_back(Output::Restarted);
                self.renew(now);
            }
            (SdpKind::Answer, State::Offered { sdp: offer, deferred, layout, restarts_ice }) => {
                let shown = Sdp::parse(&offer).and_then(|ours| Ok((layout.show_answer(&sdp, &ours)?, ours)));
                let (mut shown, ours) = match shown {
                    Ok(shown) => shown,
                    // The answer belongs to a forgotten offer, whose m-lines the peer has applied.
                    Err(_) if self.gave_way || self.forgotten => return self.offer_afresh(now, &sdp),
                    Err(error) => return self.warn(&error.to_string()),
                };
                self.ignoring = false;
                self.passed_over = None;
                self.role = self.role.or(Setup::of_answer(&sdp).map(Setup::opposite));
                direction::widen_answer(&mut shown.sdp, &ours);
                self.local = Some(ours);
                self.controls |= self.remote.is_none();
                self.count_generation(&shown.sdp);
                if restarts_ice {
                    self.outputs.push_back(Output::IceRestarted);
                }
                self.prefer(&mut shown.sdp);
                let remote = self.take(shown);
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
                self.offer_afresh(now, &sdp);
            }
            // Each gave way to the other, and would do so again: one of the two has to stand by its offers.
            (SdpKind::Answer, _) if std::mem::take(&mut self.gave_way) => {
                self.terms.polite &= !self.terms.mends;
                // The peer has applied m-lines that our side does not have.
                if !self.layout.has_lines_of(&sdp) {
                    self.outputs.push_back(Output::Restarted);
                    self.offer_afresh(now, &sdp);
                }
            }
            (SdpKind::Answer, _) => self.warn("an answer to no offer of ours"),
        }
    }

    /// Starts a fresh connection with an offer of the m-lines that the peer has applied, which its answer shows.
    fn offer_afresh(&mut self, now: Instant, answer: &Sdp) {
        self.restart();
        self.layout = Layout::of_peer(answer);
        self.begin_offer(now);
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

    /// Returns whether a description has the ICE credentials of the peer's current one.
    fn is_of_standing_transport(&self, sdp: &Sdp) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.sdp.ufrag() == sdp.ufrag())
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
        let shown = self.layout.show_offer(&sdp, self.local.as_ref());
        let mut shown = match shown {
            Ok(shown) => shown,
            Err(error) => return self.fail("the peer's offer to be applied", error.to_string()),
        };
        // A kind that the peer refused before is not offered again.
        let settled = |kind: &Kind| offered(kind) || shown.layout.is_refused(*kind);
        self.complete_at = (!self.terms.wanted.iter().all(settled)).then_some(now + COMPLETION);
        direction::widen_offer(&mut shown.sdp);
        // Whatever it says now: roles stay as they are while a connection lives.
        if let Some(role) = self.role {
            role.opposite().write(&mut shown.sdp);
        }
        self.restarts_ice = self.count_generation(&shown.sdp);
        if self.restarts_ice {
            self.demote_candidates();
        }
        self.prefer(&mut shown.sdp);
        let remote = self.take(shown);
        let id = self.id();
        self.effect(Effect::ApplyRemote(id, SdpKind::Offer, remote));
        self.enter(now, State::ApplyingOffer(id));
    }

    /// Makes a description of the peer the current one, and returns it for webrtcbin to apply.
    fn take(&mut self, Shown { layout, sdp, flows, rejected }: Shown) -> Remote {
        let remote = Remote { sdp, flows, rejected };
        self.layout = layout;
        let ufrag = remote.sdp.ufrag().map(str::to_owned);
        let (of, known) = std::mem::replace(&mut self.theirs, (ufrag, Vec::new()));
        match (of == self.theirs.0, self.remote.is_some()) {
            (true, true) => self.theirs.1 = known,
            // A fresh connection to the same transport: the peer does not repeat these candidates, so they are
            // handled again.
            (true, false) => {
                known
                    .into_iter()
                    .rev()
                    .map(PeerMessage::Candidate)
                    .for_each(|one| self.inbox.push_front(one));
            }
            (false, _) => {}
        }
        self.remote = Some(remote.clone());
        remote
    }

    /// Replaces the connection by a fresh one. The peer's m-lines stay.
    fn restart(&mut self) {
        self.remote = None;
        self.local = None;
        // The peer may have applied the m-lines of an offer whose answer did not arrive.
        let layout = if let State::Offered { layout, .. } = &self.state { layout } else { &self.layout };
        self.layout = layout.standing();
        self.role = None;
        self.controls = false;
        self.forgotten = false;
        self.gave_way = false;
        self.passed_over = None;
        self.candidates = 0;
        self.ours.clear();
        self.added.clear();
        self.generation = 0;
        self.restarts_ice = false;
        self.restart_owed = false;
        self.connected = false;
        self.effect(Effect::Open);
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
        if let State::Offered { layout, .. } = std::mem::replace(&mut self.state, State::Ended) {
            self.layout = layout;
        }
        self.deadline = None;
        self.complete_at = None;
        self.passed_over = None;
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
