//! The transport of a connection as its descriptions show it. A fresh connection has a new transport.

use std::time::Instant;

use crate::protocol::Candidate;
use crate::sdp::Sdp;

/// A transport: ICE, DTLS and the descriptions that both sides applied on it.
#[derive(Debug, Default)]
pub(super) struct Transport {
    /// The peer's last description.
    pub(super) remote: Option<Sdp>,
    /// Our last description.
    pub(super) local: Option<Sdp>,
    /// Whether ICE and DTLS were connected.
    pub(super) connected: bool,
    /// Number of the peer's ICE restarts.
    pub(super) generation: u32,
    /// Number of the peer's candidates since its last ICE restart.
    pub(super) remote_count: usize,
    /// Our candidates since our last ICE restart.
    pub(super) local_candidates: Vec<Candidate>,
    /// Our candidates before that restart, in case the offer of the restart is dropped.
    pub(super) local_candidates_before: Vec<Candidate>,
    /// Whether a first offer of ours was dropped and the peer may still answer it. An answer does not name its offer,
    /// so our next offer waits until it is clear which offer the peer has.
    pub(super) dropped_first_offer: bool,
    /// Whether a later offer of ours was dropped for an offer of the peer.
    pub(super) dropped_later_offer: bool,
    /// Time until which a peer other than roomtone may still answer a dropped later offer that added m-lines, restarted ICE
    /// or collided with an offer of a fresh connection. Our next offer waits until then, because an answer does not name
    /// its offer, and the peer may have applied the changes of the dropped offer.
    pub(super) answer_may_come: Option<Instant>,
    /// The peer's offer that our side set aside in a collision, and the time at which our side answers it after all.
    pub(super) set_aside: Option<(Instant, Sdp)>,
}

impl Transport {
    /// Returns whether descriptions were exchanged at least once.
    pub(super) fn is_established(&self) -> bool {
        self.remote.is_some() && self.local.is_some()
    }

    /// Returns whether the peer's description has an active m-line for data channels.
    pub(super) fn has_data(&self) -> bool {
        let mut lines = self.remote.iter().flat_map(|remote| &remote.media);
        lines.any(|media| media.kind == "application" && !media.is_rejected())
    }

    /// Returns the user fragment of the peer.
    pub(super) fn remote_ufrag(&self) -> Option<&str> {
        self.remote.as_ref().and_then(Sdp::ufrag)
    }

    /// Returns whether a description of the peer needs a fresh connection of ours: the peer replaced its connection, or
    /// is another client under the same id. A peer that only restarts ICE keeps its certificate and its DTLS
    /// connection.
    pub(super) fn is_replaced_by(&self, theirs: &Sdp) -> bool {
        self.has_other_credentials(theirs) && (!self.connected || self.has_other_certificate(theirs))
    }

    /// Returns whether a description has other ICE credentials than the peer's current one.
    pub(super) fn has_other_credentials(&self, theirs: &Sdp) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.ufrag() != theirs.ufrag())
    }

    /// Returns whether a description has another certificate than the peer's current one.
    pub(super) fn has_other_certificate(&self, theirs: &Sdp) -> bool {
        self.remote.as_ref().is_some_and(|remote| remote.certificate() != theirs.certificate())
    }

    /// Counts an ICE restart of the peer if this description has new credentials; returns whether it has.
    pub(super) fn count_generation(&mut self, theirs: &Sdp) -> bool {
        let restarts = self.has_other_credentials(theirs);
        if restarts {
            self.generation = self.generation.saturating_add(1);
            self.remote_count = 0;
        }
        restarts
    }
}
