//! Descriptions of both sides: makes and sends ours, checks and applies the peer's.

use std::time::{Duration, Instant};

use super::exchange::{Answering, Exchange, Offer};
use super::{Event, Negotiation};
use crate::protocol::{Description, PeerMessage, SdpKind};
use crate::sdp::{self, Kind, Media, Sdp, SdpError};
use crate::session::effect::{Effect, EffectId};

/// Time that the peer has to offer the media that our side wants. The demos' page offers only a data channel first, and
/// audio and video after the answer.
const COMPLETION: Duration = Duration::from_millis(1500);

/// Time that a peer has to answer an offer of ours that supersedes its own. A peer that ignores offers in a collision
/// never does, and waits for the answer to its own offer.
const IGNORED: Duration = Duration::from_secs(2);

impl Negotiation {
    pub(super) fn begin_offer(&mut self, now: Instant) {
        self.offer_owed = false;
        let restarts_ice = std::mem::take(&mut self.restart_owed);
        self.complete_at = None;
        let id = self.id();
        if restarts_ice {
            self.transport.ours_before = std::mem::take(&mut self.transport.ours);
        }
        self.effect(Effect::CreateOffer { id, standing: self.standing.clone(), restarts_ice });
        self.enter(now, Exchange::CreatingOffer { id, restarts_ice });
    }

    /// Sends an offer that the connection made.
    pub(super) fn offer(&mut self, now: Instant, mut sdp: Sdp, restarts_ice: bool) {
        sdp::sign(&mut sdp);
        self.send(PeerMessage::Description(Description { kind: SdpKind::Offer, sdp: sdp.to_string() }));
        // A first offer need not be deferred: to forget it, our side opens a fresh connection.
        let is_deferred = self.terms.polite && self.is_established();
        let applying = (!is_deferred).then(|| self.apply_local(SdpKind::Offer));
        self.enter(now, Exchange::Offered(Offer { sdp, applying, restarts_ice }));
        if restarts_ice || self.transport.generation > 0 {
            self.repeat_candidates();
        }
    }

    /// Sends an answer that the connection made.
    pub(super) fn answer(&mut self, now: Instant, mut sdp: Sdp, restarts_ice: bool) {
        sdp::sign(&mut sdp);
        self.send(PeerMessage::Description(Description { kind: SdpKind::Answer, sdp: sdp.to_string() }));
        self.transport.local = Some(sdp);
        // After an ICE restart, each description may be the first one with these credentials that the peer accepts: it
        // ignores an answer to an offer that it gave up.
        if self.transport.generation > 0 {
            self.repeat_candidates();
        }
        if restarts_ice {
            self.events.push_back(Event::IceRestarted);
        }
        let id = self.apply_local(SdpKind::Answer);
        self.enter(now, Exchange::ApplyingLocal(id));
    }

    fn apply_local(&mut self, kind: SdpKind) -> EffectId {
        let id = self.id();
        self.effect(Effect::ApplyLocal(id, kind));
        id
    }

    fn apply_remote(&mut self, kind: SdpKind, sdp: Sdp) -> EffectId {
        let id = self.id();
        self.effect(Effect::ApplyRemote(id, kind, sdp));
        id
    }

    /// Handles a description of the peer, in [`Exchange::Stable`] or [`Exchange::Offered`].
    pub(super) fn description(&mut self, now: Instant, Description { kind, sdp }: Description) {
        if kind == SdpKind::Offer && !self.offers.take(now) {
            self.flooded = true;
            return self.fail("the peer to come to rest", "it offers without end".to_owned());
        }
        let mut sdp = match Sdp::parse(&sdp) {
            Ok(sdp) => sdp,
            Err(error) => return self.warn(&error.to_string()),
        };
        if let (SdpKind::Answer, Exchange::Offered(offer)) = (kind, &self.exchange) {
            sdp::name_answer(&mut sdp, &offer.sdp);
            if let Some(reason) = sdp::decline::reason(&sdp) {
                self.stop();
                return self.events.push_back(Event::Declined(reason));
            }
        }
        let sdp = match sdp::validate(sdp) {
            Ok(mut sdp) => {
                self.filter.clean(now, &mut sdp);
                sdp
            }
            Err(error) => return self.warn(&error.to_string()),
        };
        match (kind, std::mem::replace(&mut self.exchange, Exchange::Stable)) {
            (SdpKind::Offer, Exchange::Offered(ours)) => self.crossing_offer(now, sdp, ours),
            (SdpKind::Answer, Exchange::Offered(ours)) => self.expected_answer(now, sdp, ours),
            (SdpKind::Offer, exchange) => {
                self.exchange = exchange;
                if sdp.media.iter().all(Media::is_rejected) {
                    return self.warn(&SdpError::MLines(0).to_string());
                }
                let is_other = self.transport.is_replaced_by(&sdp);
                if is_other {
                    self.restart();
                    self.events.push_back(Event::Restarted);
                }
                self.transport.forgotten = false;
                self.transport.gave_way = false;
                self.transport.answer_may_come = None;
                self.accept_offer(now, sdp);
            }
            (SdpKind::Answer, exchange) => {
                self.exchange = exchange;
                self.unexpected_answer(now, sdp);
            }
        }
    }

    /// Handles an offer of the peer while an offer of ours waits for its answer.
    fn crossing_offer(&mut self, now: Instant, sdp: Sdp, ours: Offer) {
        let is_deferred = ours.is_deferred();
        let restarts_ice = ours.restarts_ice;
        let can_forget = self.can_forget(&ours.sdp);
        let adds_lines = self.adds_lines(&ours.sdp);
        self.exchange = Exchange::Offered(ours);
        // A peer that replaced its connection will not answer our offer.
        if !self.terms.polite && !self.transport.has_other_certificate(&sdp) {
            self.ignoring = true;
            return;
        }
        if is_deferred && !can_forget {
            self.events.push_back(Event::Restarted);
            let waiting = std::mem::take(&mut self.inbox).into_iter();
            self.renew(now);
            // Candidates in the inbox may belong to the peer's offer: they are kept in case the peer insists on that
            // offer.
            self.inbox.extend(waiting.filter(|message| matches!(message, PeerMessage::Candidate(_))));
            self.transport.passed_over = Some((now + IGNORED, sdp));
            return;
        }
        if sdp.media.iter().all(Media::is_rejected) {
            return self.warn(&SdpError::MLines(0).to_string());
        }
        // Our side forgets its offer. A deferred offer was not applied, and is made again later; a first offer was
        // applied, so it takes a fresh connection to forget it.
        self.offer_owed |= is_deferred;
        // If the peer's offer restarts ICE, our answer has new credentials, too, and no other restart is needed.
        self.restart_owed = is_deferred && restarts_ice && !self.transport.has_other_credentials(&sdp);
        if is_deferred && restarts_ice {
            self.transport.ours = std::mem::take(&mut self.transport.ours_before);
        }
        let is_other = self.transport.is_replaced_by(&sdp);
        if !is_deferred || is_other {
            self.restart();
        }
        if is_other {
            self.events.push_back(Event::Restarted);
        }
        self.transport.forgotten = !is_deferred;
        self.transport.gave_way = is_deferred;
        // A peer other than roomtone may have given way, too, and answered our offer. Between two clients of roomtone,
        // either the peer is impolite, or `unexpected_answer` makes one side insist.
        let changes = adds_lines || restarts_ice || is_other;
        let may_answer = is_deferred && changes && !sdp::is_of_roomtone(&sdp);
        self.transport.answer_may_come = may_answer.then_some(now + IGNORED);
        self.accept_offer(now, sdp);
    }

    /// Handles an answer to our offer.
    fn expected_answer(&mut self, now: Instant, sdp: Sdp, ours: Offer) {
        // The peer did not restart ICE, or replaced its connection: our side needs a fresh connection.
        let keeps = !self.transport.has_other_credentials(&sdp);
        if ours.restarts_ice && (keeps || self.transport.has_other_certificate(&sdp)) {
            self.exchange = Exchange::Offered(ours);
            self.events.push_back(Event::Restarted);
            return self.renew(now);
        }
        if !ours.sdp.is_answered_by(&sdp) {
            self.exchange = Exchange::Offered(ours);
            return match self.transport.gave_way || self.transport.forgotten {
                // The answer belongs to a forgotten offer, whose m-lines the peer has applied.
                true => self.offer_afresh(now, sdp),
                false => self.warn(&SdpError::OtherLines.to_string()),
            };
        }
        self.ignoring = false;
        self.transport.passed_over = None;
        self.transport.count_generation(&sdp);
        if ours.restarts_ice {
            self.events.push_back(Event::IceRestarted);
        }
        let is_deferred = ours.is_deferred();
        self.transport.local = Some(ours.sdp);
        let remote = self.accept(sdp);
        let offer = is_deferred.then(|| self.apply_local(SdpKind::Offer));
        let answer = self.apply_remote(SdpKind::Answer, remote);
        self.enter(now, Exchange::ApplyingAnswer { offer, answer });
    }

    /// Handles an answer while no offer of ours waits for one.
    fn unexpected_answer(&mut self, now: Instant, sdp: Sdp) {
        self.transport.answer_may_come = None;
        let begins = self.terms.reconnects_first || self.transport.forgotten && !self.terms.polite;
        if begins && self.is_established() && !self.transport.connected {
            // The peer answered a forgotten offer, or an offer of an earlier client with our id: both sides are in
            // different exchanges, and one side has to begin again.
            self.offer_afresh(now, sdp);
        } else if std::mem::take(&mut self.transport.gave_way) {
            // Both sides gave way, and would do so again: from now on one of them insists on its offers.
            self.terms.polite &= !self.terms.reconnects_first;
            // The peer has applied m-lines that our side does not have.
            if !self.standing.as_ref().is_some_and(|standing| standing.is_answered_by(&sdp)) {
                self.events.push_back(Event::Restarted);
                self.offer_afresh(now, sdp);
            }
        } else {
            self.warn("an answer to no offer of ours");
        }
    }

    /// Opens a fresh connection, and offers the m-lines that the peer has applied according to its answer.
    fn offer_afresh(&mut self, now: Instant, answer: Sdp) {
        self.restart();
        self.standing = Some(answer);
        self.begin_offer(now);
    }

    /// Returns whether webrtcbin can forget an offer of ours that it made but did not apply.
    fn can_forget(&self, offer: &Sdp) -> bool {
        self.terms.forgets || !self.adds_lines(offer)
    }

    /// Returns whether an offer of ours has m-lines that the connection does not have.
    fn adds_lines(&self, offer: &Sdp) -> bool {
        let local = self.transport.local.as_ref();
        local.is_none_or(|local| offer.media.len() > local.media.len())
    }

    /// Answers an offer of the peer.
    pub(super) fn accept_offer(&mut self, now: Instant, sdp: Sdp) {
        self.ignoring = false;
        // A kind of media that the peer rejected has an m-line, and is not offered again.
        let has = |kind: &Kind| sdp.media.iter().any(|media| Kind::of(media) == Some(*kind));
        self.complete_at = (!self.terms.wanted.iter().all(has)).then_some(now + COMPLETION);
        self.awaits_channel = false;
        let restarts_ice = self.transport.count_generation(&sdp);
        let remote = self.accept(sdp.clone());
        let id = self.apply_remote(SdpKind::Offer, remote);
        let retry = self.transport.connected.then_some(sdp);
        self.enter(now, Exchange::ApplyingOffer(Answering { id, retry, restarts_ice }));
    }

    /// Makes a description of the peer the current one; returns it for the effect that applies it.
    fn accept(&mut self, sdp: Sdp) -> Sdp {
        let ufrag = sdp.ufrag().map(str::to_owned);
        let (of, known) = std::mem::replace(&mut self.theirs, (ufrag, Vec::new()));
        match (of == self.theirs.0, self.transport.remote.is_some()) {
            (true, true) => self.theirs.1 = known,
            // Our connection is fresh, but the peer's transport is the same: the peer does not repeat its candidates,
            // so our side handles them again.
            (true, false) => {
                known
                    .into_iter()
                    .rev()
                    .map(PeerMessage::Candidate)
                    .for_each(|one| self.inbox.push_front(one));
            }
            (false, _) => {}
        }
        (self.transport.remote, self.standing) = (Some(sdp.clone()), Some(sdp.clone()));
        sdp
    }
}
