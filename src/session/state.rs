//! Where the exchange of descriptions stands (RFC 8829, 3.2), with the steps that webrtcbin takes on the way.

use super::effect::EffectId;
use crate::sdp::Layout;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    Stable,
    /// An offer is being made; whether it restarts ICE on the connection that stands.
    CreatingOffer(EffectId, bool),
    /// Our offer is with the peer; deferred: not yet applied on our side.
    Offered {
        sdp: String,
        deferred: bool,
        /// Mapping of the m-lines once the offer is answered.
        layout: Layout,
        /// Whether the offer restarts ICE on the connection that stands.
        restarts_ice: bool,
    },
    ApplyingAnswer(EffectId),
    ApplyingOffer(EffectId),
    CreatingAnswer(EffectId),
    ApplyingLocal(EffectId),
    Ended,
}

impl State {
    /// The effect whose end is waited for.
    pub(super) fn effect(&self) -> Option<EffectId> {
        match self {
            Self::CreatingOffer(id, _)
            | Self::ApplyingAnswer(id)
            | Self::ApplyingOffer(id)
            | Self::CreatingAnswer(id)
            | Self::ApplyingLocal(id) => Some(*id),
            Self::Stable | Self::Offered { .. } | Self::Ended => None,
        }
    }

    /// What is waited for, in words.
    pub(super) fn step(&self) -> Option<&'static str> {
        match self {
            Self::Stable | Self::Ended => None,
            Self::CreatingOffer(..) => Some("our offer to be made"),
            Self::Offered { .. } => Some("the peer's answer"),
            Self::ApplyingAnswer(_) => Some("the peer's answer to be applied"),
            Self::ApplyingOffer(_) => Some("the peer's offer to be applied"),
            Self::CreatingAnswer(_) => Some("our answer to be made"),
            Self::ApplyingLocal(_) => Some("our answer to be applied"),
        }
    }
}
