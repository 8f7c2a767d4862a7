//! What a session wants of a connection, and how that went.

use crate::protocol::SdpKind;
use crate::sdp::{Direction, Kind, Sdp};

/// Numbers effects, so that a late result is told from the one waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EffectId(pub u64);

/// What the connection is to do, strictly in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Begin with a fresh connection, in place of the one before.
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
    /// Take this as the local description.
    ApplyLocal(EffectId, SdpKind, String),
    /// Take this as the remote description.
    ApplyRemote(EffectId, SdpKind, Remote),
    /// Take a candidate of the peer: its m-line's index and the attribute.
    AddCandidate(u32, String),
}

/// A description of the peer, checked and made fit for webrtcbin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The description, with the widest directions: see [`crate::sdp::direction`].
    pub sdp: Sdp,
    /// The peer's true directions, by m-line.
    pub flows: Vec<Direction>,
    /// Indexes of the m-lines that the peer rejected: no media is set up for them.
    pub rejected: Vec<usize>,
}

/// How an effect with an id went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EffectResult {
    /// The offer or the answer that was made.
    Created(String),
    /// The description is applied.
    Applied,
    /// It failed, for this reason.
    Failed(String),
}
