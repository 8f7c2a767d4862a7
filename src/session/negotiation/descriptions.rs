//! Descriptions of both sides: makes and sends ours, checks and applies the peer's.

use std::time::{Duration, Instant};

use super::exchange::{Answering, Exchange, Offer};
use super::{Event, Negotiation};
use crate::protocol::{Description, PeerMessage, SdpKind};
use crate::sdp::{self, Kind, Media, Sdp, SdpError};
use crate::session::effect::{Effect, EffectId};

/// Time that the peer has to offer the media that our side wants. The page of the GStreamer demos offers only a data
/// channel first, and audio and video after the answer.
const COMPLETION: Duration = Duration::from_millis(1500);

/// Time in which the answer to an offer of ours may still come after a collision. A peer that ignores offers in a collision
/// never answers, and waits for the answer to its own offer.
const LATE_ANSWER: Duration = Duration::from_secs(2);

impl Negotiation {
    pub(super) fn begin_offer(&mut self, now: Instant) {
        self.offer_owed = false;
        let restarts_ice = std::mem::take(&mut self.ice_restart_owed);
        self.complete_at = None;
        let id = self.id();
        if restarts_ice {
            self.transport.local_candidates_before = std::mem::take(&mut self.transport.local_candidates);
        }
        self.effect(Effect::CreateOffer { id, standing: self.standing.clone(), restarts_ice });
        self.enter(now, Exchange::CreatingOffer { id, restarts_ice });
    }

    /// Sends an offer that the connection made.
    pub(super) fn send_offer(&mut self, now: Instant, mut sdp: Sdp, restarts_ice: bool) {
        sdp::mark_as_roomtone(&mut sdp);
        self.send(PeerMessage::Description(Description { kind: SdpKind::Offer, sdp: sdp.to_string() }));
        // A first offer is not deferred: to drop it, our side opens a fresh connection. A media server makes no offers, for
        // which our side would drop its own.
        let is_deferred = self.terms.single_exchange || self.terms.polite && self.is_established();
        let applying = (!is_deferred).then(|| self.apply_local(SdpKind::Offer));
        self.enter(now, Exchange::Offered(Offer { sdp, applying, restarts_ice }));
        if restarts_ice || self.transport.generation > 0 {
            self.send_all_candidates();
        }
    }

    /// Sends an answer that the connection made.
    pub(super) fn send_answer(&mut self, now: Instant, mut sdp: Sdp, restarts_ice: bool) {
        sdp::mark_as_roomtone(&mut sdp);
        self.send(PeerMessage::Description(Description { kind: SdpKind::Answer, sdp: sdp.to_string() }));
        self.transport.local = Some(sdp);
        // The peer ignores candidates whose credentials it does not know, and an answer to an offer that it has dropped. After
        // an ICE restart, each of our descriptions may be the first that tells the peer our credentials.
        if self.transport.generation > 0 {
            self.send_all_candidates();
        }
        if restarts_ice {
            self.events.push_back(Event::IceRestarted);
        }
        let id = self.apply_local(SdpKind::Answer);
        self.enter(now, Exchange::ApplyingOurAnswer(id));
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
    pub(super) fn handle_description(&mut self, now: Instant, Description { kind, sdp }: Description) {
        if kind == SdpKind::Offer && !self.offers.take(now) {
            self.flooded = true;
            return self.fail("the end of the peer's offers", "the peer sends too many".to_owned());
        }
        let mut sdp = match Sdp::parse(&sdp) {
            Ok(sdp) => sdp,
            Err(error) => return self.warn(&error.to_string()),
        };
        if let (SdpKind::Answer, Exchange::Offered(offer)) = (kind, &self.exchange) {
            sdp::add_missing_mids(&mut sdp, &offer.sdp);
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
            (SdpKind::Offer, Exchange::Offered(ours)) => self.colliding_offer(now, sdp, ours),
            (SdpKind::Answer, Exchange::Offered(ours)) => self.expected_answer(now, sdp, ours),
            (SdpKind::Offer, exchange) => {
                self.exchange = exchange;
                if sdp.media.iter().all(Media::is_rejected) {
                    return self.warn(&SdpError::MLines(0).to_string());
                }
                let is_other = self.transport.is_replaced_by(&sdp);
                if is_other {
                    self.replace_connection();
                    self.events.push_back(Event::Replaced);
                }
                self.transport.dropped_first_offer = false;
                self.transport.dropped_later_offer = false;
                self.transport.answer_may_come = None;
                self.begin_answer(now, sdp);
            }
            (SdpKind::Answer, exchange) => {
                self.exchange = exchange;
                self.unexpected_answer(now, sdp);
            }
        }
    }

    /// Handles an offer of the peer while an offer of ours waits for its answer.
    fn colliding_offer(&mut self, now: Instant, sdp: Sdp, ours: Offer) {
        let is_deferred = ours.is_deferred();
        let restarts_ice = ours.restarts_ice;
        let can_drop = self.can_drop(&ours.sdp);
        let adds_lines = self.adds_lines(&ours.sdp);
        self.exchange = Exchange::Offered(ours);
        // A peer that replaced its connection will not answer our offer.
        if !self.terms.polite && !self.transport.has_other_certificate(&sdp) {
            self.ignoring = true;
            return;
        }
        if is_deferred && !can_drop {
            self.events.push_back(Event::Replaced);
            let waiting = std::mem::take(&mut self.inbox).into_iter();
            self.replace_and_offer(now);
            // Candidates in the inbox may belong to the peer's offer: they are kept in case the peer insists on that
            // offer.
            self.inbox.extend(waiting.filter(|message| matches!(message, PeerMessage::Candidate(_))));
            self.transport.set_aside = Some((now + LATE_ANSWER, sdp));
            return;
        }
        if sdp.media.iter().all(Media::is_rejected) {
            return self.warn(&SdpError::MLines(0).to_string());
        }
        // Our side drops its offer. A deferred offer was not applied, and is made again later; a first offer was applied, so
        // dropping it takes a fresh connection.
        self.offer_owed |= is_deferred;
        // If the peer's offer restarts ICE, our answer has new credentials, too, and no other restart is needed.
        self.ice_restart_owed = is_deferred && restarts_ice && !self.transport.has_other_credentials(&sdp);
        if is_deferred && restarts_ice {
            self.transport.local_candidates = std::mem::take(&mut self.transport.local_candidates_before);
        }
        let is_other = self.transport.is_replaced_by(&sdp);
        if !is_deferred || is_other {
            self.replace_connection();
        }
        if is_other {
            self.events.push_back(Event::Replaced);
        }
        self.transport.dropped_first_offer = !is_deferred;
        self.transport.dropped_later_offer = is_deferred;
        // A peer other than roomtone may have dropped its offer, too, and answered ours. Between two clients of roomtone,
        // either the peer is impolite, or `unexpected_answer` makes one side insist.
        let changes = adds_lines || restarts_ice || is_other;
        let may_answer = is_deferred && changes && !sdp::is_of_roomtone(&sdp);
        self.transport.answer_may_come = may_answer.then_some(now + LATE_ANSWER);
        self.begin_answer(now, sdp);
    }

    /// Handles an answer while an offer of ours waits for one. The answer may still belong to an offer that was dropped.
    fn expected_answer(&mut self, now: Instant, sdp: Sdp, ours: Offer) {
        // The peer did not restart ICE, or replaced its connection: our side needs a fresh connection.
        let keeps = !self.transport.has_other_credentials(&sdp);
        if ours.restarts_ice && (keeps || self.transport.has_other_certificate(&sdp)) {
            self.exchange = Exchange::Offered(ours);
            self.events.push_back(Event::Replaced);
            return self.replace_and_offer(now);
        }
        if !ours.sdp.is_answered_by(&sdp) {
            self.exchange = Exchange::Offered(ours);
            return match self.transport.dropped_later_offer || self.transport.dropped_first_offer {
                // The answer belongs to a dropped offer, whose m-lines the peer has applied.
                true => self.replace_and_offer_lines_of(now, sdp),
                false => self.warn(&SdpError::OtherLines.to_string()),
            };
        }
        self.ignoring = false;
        self.transport.set_aside = None;
        self.transport.count_generation(&sdp);
        if ours.restarts_ice {
            self.events.push_back(Event::IceRestarted);
        }
        let is_deferred = ours.is_deferred();
        self.transport.local = Some(ours.sdp);
        let remote = self.set_remote(sdp);
        let offer = is_deferred.then(|| self.apply_local(SdpKind::Offer));
        let answer = self.apply_remote(SdpKind::Answer, remote);
        self.enter(now, Exchange::ApplyingTheirAnswer { offer, answer });
    }

    /// Handles an answer while no offer of ours waits for one.
    fn unexpected_answer(&mut self, now: Instant, sdp: Sdp) {
        self.transport.answer_may_come = None;
        let begins = self.terms.reconnects_first || self.transport.dropped_first_offer && !self.terms.polite;
        if begins && self.is_established() && !self.transport.connected {
            // The peer answered a dropped offer, or an offer of an earlier client with our id: both sides are in
            // different exchanges, and one side has to begin again.
            self.replace_and_offer_lines_of(now, sdp);
        } else if std::mem::take(&mut self.transport.dropped_later_offer) {
            // Both sides dropped their offers, and would do so again: from now on one of them insists on its offers.
            self.terms.polite &= !self.terms.reconnects_first;
            // The peer has applied m-lines that our side does not have.
            if !self.standing.as_ref().is_some_and(|standing| standing.is_answered_by(&sdp)) {
                self.replace_and_offer_lines_of(now, sdp);
            }
        } else {
            self.warn("an answer to no offer of ours");
        }
    }

    /// Opens a fresh connection, and offers the m-lines that the peer has applied according to its answer.
    fn replace_and_offer_lines_of(&mut self, now: Instant, answer: Sdp) {
        self.replace_connection();
        self.events.push_back(Event::Replaced);
        self.standing = Some(answer);
        self.begin_offer(now);
    }

    /// Returns whether webrtcbin can drop an offer of ours that it made but did not apply.
    fn can_drop(&self, offer: &Sdp) -> bool {
        self.terms.drops_added_lines || !self.adds_lines(offer)
    }

    /// Returns whether an offer of ours has m-lines that the connection does not have.
    fn adds_lines(&self, offer: &Sdp) -> bool {
        let local = self.transport.local.as_ref();
        local.is_none_or(|local| offer.media.len() > local.media.len())
    }

    /// Answers an offer of the peer.
    pub(super) fn begin_answer(&mut self, now: Instant, sdp: Sdp) {
        self.ignoring = false;
        // A kind of media that the peer rejected has an m-line, and is not offered again.
        let has = |kind: &Kind| sdp.media.iter().any(|media| Kind::of(media) == Some(*kind));
        self.complete_at = (!self.terms.wanted.iter().all(has)).then_some(now + COMPLETION);
        self.awaits_channel = false;
        let restarts_ice = self.transport.count_generation(&sdp);
        let remote = self.set_remote(sdp.clone());
        let id = self.apply_remote(SdpKind::Offer, remote);
        let retry = self.transport.connected.then_some(sdp);
        self.enter(now, Exchange::ApplyingTheirOffer(Answering { id, retry, restarts_ice }));
    }

    /// Makes a description of the peer the current one; returns it for the effect that applies it.
    fn set_remote(&mut self, sdp: Sdp) -> Sdp {
        let ufrag = sdp.ufrag().map(str::to_owned);
        let (of, known) = std::mem::replace(&mut self.remote_candidates, (ufrag, Vec::new()));
        match (of == self.remote_candidates.0, self.transport.remote.is_some()) {
            (true, true) => self.remote_candidates.1 = known,
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
