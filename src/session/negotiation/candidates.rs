//! Candidates of both sides: sent, checked, and sent again when the peer restarts ICE.

use std::collections::BTreeSet;
use std::time::Instant;

use super::exchange::Exchange;
use super::{MAX_CANDIDATES, Negotiation};
use crate::protocol::{Candidate, PeerMessage};
use crate::sdp::{self, CandidateLine, Sdp, Section};
use crate::session::effect::Effect;

impl Negotiation {
    /// Handles a candidate that our connection gathered: remembers it and sends it to the peer.
    pub fn handle_local_candidate(&mut self, candidate: Candidate) {
        if self.transport.ours.len() < MAX_CANDIDATES {
            self.transport.ours.push(candidate.clone());
        }
        self.send_candidate(candidate);
    }

    /// Sends our candidates once more after an ICE restart, in which the peer forgets them (RFC 8445, 9). They stay
    /// valid, because libnice keeps its sockets.
    pub(super) fn repeat_candidates(&mut self) {
        for candidate in self.transport.ours.clone() {
            self.send_candidate(candidate);
        }
    }

    fn add_candidate(&mut self, candidate: String) {
        self.transport.added.push(candidate.clone());
        self.effect(Effect::AddCandidate(candidate));
    }

    /// Gives the candidates of the peer's transport up to now the lowest priority, so that each path to its next one is
    /// better.
    pub(super) fn demote_candidates(&mut self) {
        let described = self.transport.remote.iter().flat_map(|remote| &remote.media);
        let described = described.flat_map(|media| media.attributes("candidate"));
        let described: BTreeSet<String> = described.map(|value| format!("candidate:{value}")).collect();
        for candidate in described.into_iter().chain(std::mem::take(&mut self.transport.added)) {
            self.effect(Effect::AddCandidate(sdp::candidate::demoted(&candidate)));
        }
    }

    /// Returns whether a candidate belongs to a description that has not arrived.
    pub(super) fn is_early(&self, candidate: &Candidate) -> bool {
        if self.transport.remote.is_none() {
            return !self.ignoring;
        }
        let is_other = candidate.ufrag.is_some() && candidate.ufrag.as_deref() != self.transport.ufrag();
        matches!(&self.exchange, Exchange::Offered(offer) if offer.restarts_ice) && is_other
    }

    /// Sends a candidate of ours. The m-lines share one transport, so that a candidate of an m-line that the peer rejected is
    /// sent with the first active one.
    fn send_candidate(&mut self, mut candidate: Candidate) {
        let offered = if let Exchange::Offered(offer) = &self.exchange { Some(&offer.sdp) } else { None };
        let local = offered.or(self.transport.local.as_ref());
        if let Some(local) = local {
            let named = candidate.mid.as_deref().map_or(candidate.mline, |mid| local.mline(mid));
            let is_active =
                |at: &u32| local.media.get(*at as usize).is_some_and(|media| !media.is_rejected());
            let active = named.filter(is_active).or_else(|| (0..local.media.len() as u32).find(is_active));
            if let Some(at) = active {
                (candidate.mline, candidate.mid) = (Some(at), local.mid(at).map(str::to_owned));
            }
            // The user fragment lets the peer distinguish candidates of this transport from those of others.
            candidate.ufrag = local.ufrag().map(str::to_owned);
        }
        self.send(PeerMessage::Candidate(candidate));
    }

    /// Raises the priority of the candidates in a description of a peer that restarted its ICE.
    pub(super) fn prefer(&self, sdp: &mut Sdp) {
        for line in sdp.media.iter_mut().flat_map(|media| &mut media.lines) {
            if line.value.starts_with("candidate:") {
                line.value = sdp::candidate::preferred(&line.value, self.transport.generation);
            }
        }
    }

    /// Handles a candidate of the peer.
    pub(super) fn candidate(&mut self, now: Instant, candidate: Candidate) {
        // A candidate whose user fragment is that of the current transport does not belong to the offer being
        // ignored.
        let standing = self.transport.ufrag();
        if self.ignoring && (candidate.ufrag.is_none() || candidate.ufrag.as_deref() != standing) {
            return;
        }
        self.transport.candidates += 1;
        if self.transport.candidates > MAX_CANDIDATES {
            if self.transport.candidates == MAX_CANDIDATES + 1 {
                self.warn(&format!("more than {MAX_CANDIDATES} candidates: the rest is dropped"));
            }
            return;
        }
        let Some(remote) = &self.transport.remote else { return };
        let by_mid = candidate.mid.as_deref().and_then(|mid| remote.mline(mid));
        let has_mline = by_mid.or(candidate.mline).is_some_and(|at| (at as usize) < remote.media.len());
        let line = CandidateLine::parse(&candidate.candidate);
        let ufrag = candidate.ufrag.as_deref().or(line.as_ref().ok().and_then(|line| line.ufrag.as_deref()));
        if ufrag.is_some_and(|ufrag| remote.ufrag().is_some_and(|now| now != ufrag)) {
            // The candidate belongs to an earlier transport.
            return;
        }
        self.theirs.1.push(candidate.clone());
        match line {
            Err(sdp::CandidateError::Mdns) if self.terms.mdns && has_mline => {
                let candidate = sdp::candidate::preferred(&candidate.candidate, self.transport.generation);
                self.add_candidate(candidate);
            }
            Err(sdp::CandidateError::Mdns) => {}
            Ok(line) if has_mline => {
                if self.filter.accepts(now, &line) {
                    let candidate = sdp::candidate::preferred(&line.text, self.transport.generation);
                    self.add_candidate(candidate);
                }
            }
            Ok(_) => self.warn("a candidate for an m-line that is not there"),
            Err(error) => self.warn(&error.to_string()),
        }
    }
}
