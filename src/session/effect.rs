//! Tasks of a session for its connection, and their results.

use crate::protocol::SdpKind;
use crate::sdp::{Direction, Kind, Sdp};

/// Number of an effect, by which its result is matched.
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
        /// Kinds of m-lines that the peer already has: the offer has at least one of each.
        kinds: Vec<Kind>,
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
    /// Applies a description of our side.
    ApplyLocal(EffectId, SdpKind, Sdp),
    /// Applies a description of the peer.
    ApplyRemote(EffectId, SdpKind, Remote),
    /// Adds a candidate of the peer: its m-line's index and the attribute.
    AddCandidate(u32, String),
}

impl Effect {
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

/// A description of the peer, checked, with the m-lines of our side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The description.
    pub sdp: Sdp,
    /// Its directions, by m-line; none on rejected m-lines.
    pub flows: Vec<Direction>,
    /// Indexes of the m-lines that the peer rejected: no media is set up for them.
    pub rejected: Vec<usize>,
}

/// Result of an effect that has an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EffectResult {
    /// The offer or answer that was made.
    Created(Sdp),
    /// The description is applied.
    Applied,
    /// The effect failed, for this reason.
    Failed(String),
}
