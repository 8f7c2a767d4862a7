//! State of the exchange of offer and answer (RFC 8829, 3.2). Making and applying a description takes webrtcbin some
//! time, so each such step is a state, which holds the ids of the effects in progress and the descriptions needed
//! later.
//!
//! Our offers pass through Stable, `CreatingOffer`, `Offered`, `ApplyingTheirAnswer` and Stable; the peer's offers through
//! Stable, `ApplyingTheirOffer`, `CreatingAnswer`, `ApplyingOurAnswer` and Stable.

use crate::sdp::Sdp;
use crate::session::effect::EffectId;

/// State of the exchange.
#[derive(Debug)]
pub(super) enum Exchange {
    /// No exchange is under way.
    Stable,
    /// webrtcbin is making our offer.
    CreatingOffer {
        id: EffectId,
        /// Whether the offer restarts ICE on the existing connection.
        restarts_ice: bool,
    },
    /// Our side sent an offer, and waits for the peer's answer.
    Offered(Offer),
    /// webrtcbin is applying the peer's answer, and before it our offer if the offer was deferred.
    ApplyingTheirAnswer { offer: Option<EffectId>, answer: EffectId },
    /// webrtcbin is applying the peer's offer.
    ApplyingTheirOffer(Answering),
    /// webrtcbin is making our answer.
    CreatingAnswer(Answering),
    /// webrtcbin is applying our answer.
    ApplyingOurAnswer(EffectId),
    /// A step failed, or the peer declined. Nothing happens until the connection is replaced.
    Halted,
}

/// An offer of ours without an answer yet.
#[derive(Debug)]
pub(super) struct Offer {
    /// The offer as it was sent to the peer.
    pub(super) sdp: Sdp,
    /// Effect that applies the offer. `None` if the offer is deferred: webrtcbin applies it only when the answer arrives.
    pub(super) applying: Option<EffectId>,
    /// Whether the offer restarts ICE on the existing connection.
    pub(super) restarts_ice: bool,
}

/// An offer of the peer that is being answered.
#[derive(Debug)]
pub(super) struct Answering {
    /// Effect of the current step.
    pub(super) id: EffectId,
    /// The peer's offer, if ICE and DTLS were connected when it arrived: a fresh connection answers it if this one
    /// fails.
    pub(super) retry: Option<Sdp>,
    /// Whether the offer restarts the peer's ICE.
    pub(super) restarts_ice: bool,
}

impl Offer {
    /// Returns whether webrtcbin made the offer, but has not applied it.
    pub(super) fn is_deferred(&self) -> bool {
        self.applying.is_none()
    }
}

impl Exchange {
    /// Returns whether no exchange is under way.
    pub(super) fn is_stable(&self) -> bool {
        matches!(self, Self::Stable)
    }

    /// Returns whether webrtcbin is making a description with new ICE credentials.
    pub(super) fn makes_credentials(&self) -> bool {
        match self {
            Self::CreatingOffer { restarts_ice, .. } => *restarts_ice,
            Self::CreatingAnswer(answering) => answering.restarts_ice,
            Self::Stable
            | Self::Offered(_)
            | Self::ApplyingTheirAnswer { .. }
            | Self::ApplyingTheirOffer(_)
            | Self::ApplyingOurAnswer(_)
            | Self::Halted => false,
        }
    }

    /// Returns whether the exchange waits for the result of this effect.
    pub(super) fn awaits(&self, id: EffectId) -> bool {
        match self {
            Self::CreatingOffer { id: awaited, .. } | Self::ApplyingOurAnswer(awaited) => *awaited == id,
            Self::Offered(offer) => offer.applying == Some(id),
            Self::ApplyingTheirAnswer { offer, answer } => *answer == id || *offer == Some(id),
            Self::ApplyingTheirOffer(answering) | Self::CreatingAnswer(answering) => answering.id == id,
            Self::Stable | Self::Halted => false,
        }
    }

    /// Names in error messages what the exchange waits for; `None` if it waits for nothing.
    pub(super) fn awaited(&self) -> Option<&'static str> {
        match self {
            Self::Stable | Self::Halted => None,
            Self::CreatingOffer { .. } => Some("our offer to be made"),
            Self::Offered(_) => Some("the peer's answer"),
            Self::ApplyingTheirAnswer { .. } => Some("the peer's answer to be applied"),
            Self::ApplyingTheirOffer(_) => Some("the peer's offer to be applied"),
            Self::CreatingAnswer(_) => Some("our answer to be made"),
            Self::ApplyingOurAnswer(_) => Some("our answer to be applied"),
        }
    }
}
