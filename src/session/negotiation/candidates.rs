//! Candidates of both sides: sends ours, again after an ICE restart, and checks the peer's.

use std::time::Instant;

use super::exchange::Exchange;
use super::{MAX_CANDIDATES, Negotiation};
use crate::protocol::{Candidate, PeerMessage};
use crate::sdp::{self, CandidateLine};
use crate::session::effect::Effect;

impl Negotiation {
    /// Handles a candidate that our connection gathered: keeps it, up to [`MAX_CANDIDATES`], and sends it to the peer, now or
    /// after the description that has its credentials.
    pub fn handle_local_candidate(&mut self, candidate: Candidate) {
        if self.transport.local_candidates.len() < MAX_CANDIDATES {
            self.transport.local_candidates.push(candidate.clone());
        }
        // Candidates of an ICE restart follow the description that has its credentials.
        if !self.exchange.makes_credentials() {
            self.send_candidate(candidate);
        }
    }

    /// Sends all kept candidates since our last ICE restart.
    pub(super) fn send_all_candidates(&mut self) {
        for candidate in self.transport.local_candidates.clone() {
            self.send_candidate(candidate);
        }
    }

    /// Returns whether a candidate of the peer belongs to a description that has not arrived.
    pub(super) fn is_early(&self, candidate: &Candidate) -> bool {
        if self.transport.remote.is_none() {
            return !self.ignoring;
        }
        let in_line = || CandidateLine::parse(&candidate.candidate).ok().and_then(|line| line.ufrag);
        let ufrag = candidate.ufrag.clone().or_else(in_line);
        let is_other = ufrag.is_some() && ufrag.as_deref() != self.transport.remote_ufrag();
        matches!(&self.exchange, Exchange::Offered(offer) if offer.restarts_ice) && is_other
    }

    /// Sends a candidate of ours. All m-lines share one transport, so a candidate of an m-line that the peer rejected
    /// gets the first active m-line instead.
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

    /// Handles a candidate of the peer.
    pub(super) fn handle_candidate(&mut self, now: Instant, candidate: Candidate) {
        // A candidate with the user fragment of the current transport does not belong to the ignored offer.
        let current = self.transport.remote_ufrag();
        if self.ignoring && (candidate.ufrag.is_none() || candidate.ufrag.as_deref() != current) {
            return;
        }
        self.transport.remote_count += 1;
        if self.transport.remote_count > MAX_CANDIDATES {
            if self.transport.remote_count == MAX_CANDIDATES + 1 {
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
        self.remote_candidates.1.push(candidate.clone());
        match line {
            Err(sdp::CandidateError::Mdns) if self.terms.mdns && has_mline => {
                self.effect(Effect::AddCandidate(candidate.candidate));
            }
            Err(sdp::CandidateError::Mdns) => {}
            Ok(line) if has_mline => {
                if self.filter.accepts(now, &line) {
                    self.effect(Effect::AddCandidate(line.text));
                }
            }
            Ok(_) => self.warn("a candidate for an m-line that is not there"),
            Err(error) => self.warn(&error.to_string()),
        }
    }
}
