//! Tasks of a session for its connection.

use crate::protocol::SdpKind;
use crate::sdp::Sdp;

/// Number of an effect, which its result repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EffectId(pub u64);

/// A task for the connection. Effects are executed one after another, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Opens a fresh connection in place of the one before.
    Open,
    /// Creates an offer.
    CreateOffer {
        /// Identifies the result.
        id: EffectId,
        /// Description with the m-lines that the peer has, if there is one: the offer keeps their order and mids (RFC
        /// 8829, 5.2.2).
        standing: Option<Sdp>,
        /// Whether the offer has new ICE credentials (RFC 8445, 9).
        restarts_ice: bool,
    },
    /// Creates an answer to the offer applied last.
    CreateAnswer {
        /// Identifies the result.
        id: EffectId,
        /// Whether the answer has new ICE credentials, because the offer has.
        restarts_ice: bool,
    },
    /// Applies the offer or answer that was created last.
    ApplyLocal(EffectId, SdpKind),
    /// Applies a description of the peer, which was checked.
    ApplyRemote(EffectId, SdpKind, Sdp),
    /// Adds a candidate of the peer, given by the text of its attribute. The candidate needs no m-line, because all
    /// m-lines share one transport.
    AddCandidate(String),
}

impl Effect {
    /// Returns whether the effect restarts ICE on the existing connection.
    pub fn restarts_ice(&self) -> bool {
        match self {
            Self::CreateOffer { restarts_ice, .. } | Self::CreateAnswer { restarts_ice, .. } => *restarts_ice,
            Self::ApplyLocal(..) | Self::ApplyRemote(..) | Self::Open | Self::AddCandidate(..) => false,
        }
    }

    /// Returns the number of the effect's result; `None` for an effect without result.
    pub fn id(&self) -> Option<EffectId> {
        match self {
            Self::CreateOffer { id, .. }
            | Self::CreateAnswer { id, .. }
            | Self::ApplyLocal(id, ..)
            | Self::ApplyRemote(id, ..) => Some(*id),
            Self::Open | Self::AddCandidate(..) => None,
        }
    }
}
