//! Candidates of both sides: sent, checked, and sent again when the peer restarts ICE.

use std::time::Instant;

use super::exchange::Exchange;
use super::{MAX_CANDIDATES, Negotiation};
use crate::protocol::{Candidate, PeerMessage};
use crate::sdp::{self, CandidateLine, Sdp, Section};
use crate::session::effect::Effect;

impl Negotiation {
    /// Handles a candidate that our connection gathered: remembers it and sends it to the peer.
    pub fn handle_local_candidate(&mut self, mline: u32, candidate: String) {
        if self.transport.ours.len() < MAX_CANDIDATES {
            self.transport.ours.push((mline, candidate.clone()));
        }
        self.tell_candidate(mline, candidate);
    }

    /// Sends our candidates once more after an ICE restart, in which the peer forgets them (RFC 8445, 9). They stay
    /// valid, because libnice keeps its sockets.
    pub(super) fn repeat_candidates(&mut self) {
        for (mline, candidate) in self.transport.ours.clone() {
            self.tell_candidate(mline, candidate);
        }
    }

    fn add_candidate(&mut self, mline: u32, candidate: String) {
        self.transport.added.push((mline, candidate.clone()));
        self.effect(Effect::AddCandidate(mline, candidate));
    }

    /// Gives the candidates of the peer's transport up to now the lowest priority, so that each path to its next one is
    /// better.
    pub(super) fn demote_candidates(&mut self) {
        let described = self.transport.remote.iter().flat_map(|remote| remote.sdp.media.first());
        let described = described.flat_map(|media| media.attributes("candidate"));
        let mut all: Vec<_> = described.map(|value| (0, format!("candidate:{value}"))).collect();
        all.append(&mut self.transport.added);
        for (mline, candidate) in all {
            self.effect(Effect::AddCandidate(mline, sdp::candidate::demoted(&candidate)));
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

    pub(super) fn tell_candidate(&mut self, mline: u32, candidate: String) {
        let (local, layout) = if let Exchange::Offered(offer) = &self.exchange {
            (Some(&offer.sdp), &offer.layout)
        } else {
            (self.transport.local.as_ref(), &self.layout)
        };
        let (mline, mid) = match layout.told_line(mline) {
            Some((mline, mid)) => (mline, Some(mid.to_owned())),
            None => (mline, None),
        };
        // The user fragment lets the peer distinguish candidates of this transport from those of others.
        let ufrag = local.and_then(Sdp::ufrag).map(str::to_owned);
        let candidate = Candidate { candidate, mline: Some(mline), mid, ufrag };
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
                self.warn("more candidates than are taken: the rest is dropped");
            }
            return;
        }
        let Some(remote) = &self.transport.remote else { return };
        let mline = self.layout.shown_line(candidate.mid.as_deref(), candidate.mline);
        let line = CandidateLine::parse(&candidate.candidate);
        let ufrag = candidate.ufrag.as_deref().or(line.as_ref().ok().and_then(|line| line.ufrag.as_deref()));
        if ufrag.is_some_and(|ufrag| remote.sdp.ufrag().is_some_and(|now| now != ufrag)) {
            // The candidate belongs to an earlier transport.
            return;
        }
        self.theirs.1.push(candidate.clone());
        match (line, mline) {
            (Err(sdp::CandidateError::Mdns), Some(mline)) if self.terms.mdns => {
                let candidate = sdp::candidate::preferred(&candidate.candidate, self.transport.generation);
                self.add_candidate(mline, candidate);
            }
            (Ok(line), Some(mline)) => {
                if self.filter.takes(now, &line) {
                    let candidate = sdp::candidate::preferred(&line.text, self.transport.generation);
                    self.add_candidate(mline, candidate);
                }
            }
            (Ok(_), None) => self.warn("a candidate for an m-line that is not there"),
            (Err(sdp::CandidateError::Mdns), _) => {}
            (Err(error), _) => self.warn(&error.to_string()),
        }
    }
}
