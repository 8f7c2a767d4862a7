//! State of the exchange of offer and answer (RFC 8829, 3.2), including the steps that webrtcbin takes in it. A state holds
//! the ids of the effects whose results it waits for, and the descriptions that are needed later.

use crate::sdp::Sdp;
use crate::session::effect::EffectId;

/// State of the exchange.
#[derive(Debug)]
pub(super) enum Exchange {
    /// No exchange is under way.
    Stable,
    /// webrtcbin makes an offer.
    CreatingOffer {
        id: EffectId,
        /// Whether the offer restarts ICE on the connection that stands.
        restarts_ice: bool,
    },
    /// Our offer was sent, and the peer's answer is awaited.
    Offered(Offer),
    /// webrtcbin applies the peer's answer, after our offer if that was deferred.
    ApplyingAnswer { offer: Option<EffectId>, answer: EffectId },
    /// webrtcbin applies the peer's offer.
    ApplyingOffer(Answering),
    /// webrtcbin makes an answer.
    CreatingAnswer(Answering),
    /// webrtcbin applies our answer.
    ApplyingLocal(EffectId),
    /// The negotiation failed, or the peer declined.
    Ended,
}

/// An offer of ours that was sent and not answered yet.
#[derive(Debug)]
pub(super) struct Offer {
    /// The offer as it was sent.
    pub(super) sdp: Sdp,
    /// Effect that applies the offer. `None` if the offer is deferred: webrtcbin gets it together with the answer, so that it
    /// can be forgotten until then.
    pub(super) applying: Option<EffectId>,
    /// Whether the offer restarts ICE on the connection that stands.
    pub(super) restarts_ice: bool,
}

/// An offer of the peer that is being answered.
#[derive(Debug)]
pub(super) struct Answering {
    /// Effect whose result is waited for.
    pub(super) id: EffectId,
    /// The offer as it came, if the connection was established: a fresh connection answers it if this one fails to.
    pub(super) again: Option<Sdp>,
    /// Whether the offer restarts the peer's ICE.
    pub(super) restarts_ice: bool,
}

impl Offer {
    /// Returns whether the offer was not given to webrtcbin yet.
    pub(super) fn is_deferred(&self) -> bool {
        self.applying.is_none()
    }
}

impl Exchange {
    /// Returns whether no exchange is under way.
    pub(super) fn is_stable(&self) -> bool {
        matches!(self, Self::Stable)
    }

    /// Returns whether webrtcbin makes a description with new ICE credentials.
    pub(super) fn makes_credentials(&self) -> bool {
        match self {
            Self::CreatingOffer { restarts_ice, .. } => *restarts_ice,
            Self::CreatingAnswer(answering) => answering.restarts_ice,
            Self::Stable
            | Self::Offered(_)
            | Self::ApplyingAnswer { .. }
            | Self::ApplyingOffer(_)
            | Self::ApplyingLocal(_)
            | Self::Ended => false,
        }
    }

    /// Returns whether the result of this effect is waited for.
    pub(super) fn awaits(&self, id: EffectId) -> bool {
        match self {
            Self::CreatingOffer { id: awaited, .. } | Self::ApplyingLocal(awaited) => *awaited == id,
            Self::Offered(offer) => offer.applying == Some(id),
            Self::ApplyingAnswer { offer, answer } => *answer == id || *offer == Some(id),
            Self::ApplyingOffer(answering) | Self::CreatingAnswer(answering) => answering.id == id,
            Self::Stable | Self::Ended => false,
        }
    }

    /// Returns a description for users of the pending step.
    pub(super) fn step(&self) -> Option<&'static str> {
        match self {
            Self::Stable | Self::Ended => None,
            Self::CreatingOffer { .. } => Some("our offer to be made"),
            Self::Offered(_) => Some("the peer's answer"),
            Self::ApplyingAnswer { .. } => Some("the peer's answer to be applied"),
            Self::ApplyingOffer(_) => Some("the peer's offer to be applied"),
            Self::CreatingAnswer(_) => Some("our answer to be made"),
            Self::ApplyingLocal(_) => Some("our answer to be applied"),
        }
    }
}
