//! The events' types and data.
//!
//! Pure: no clock, sockets, files or random numbers.

use serde_json::{Value, json};

use crate::protocol::{PeerId, RoomId};

/// The types of all events.
pub(in crate::server) const TYPES: [&str; 11] = [
    "peer.registered",
    "peer.gone",
    "room.started",
    "room.ended",
    "peer.joined",
    "peer.left",
    "call.started",
    "call.ended",
    "call.missed",
    "call.unreachable",
    "server.draining",
];

/// An occurrence on the server. Durations are in seconds.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::server) enum Happening {
    /// A peer registered.
    Registered { peer: PeerId },
    /// The connection of a registered peer ended.
    Gone { peer: PeerId, reason: &'static str, seconds: f64 },
    /// A room got its first member.
    RoomStarted { room: RoomId },
    /// A room lost its last member.
    RoomEnded { room: RoomId, seconds: f64 },
    /// A peer joined a room, which now has this number of members.
    Joined { room: RoomId, peer: PeerId, members: usize },
    /// A peer left a room, which now has this number of members.
    Left { room: RoomId, peer: PeerId, members: usize, reason: &'static str, seconds: f64 },
    /// A call of two began to ring.
    CallStarted { from: PeerId, to: PeerId },
    /// A call of two ended. It is answered once an answer that accepts media or data was relayed.
    CallEnded { from: PeerId, to: PeerId, answered: bool, seconds: f64 },
    /// A peer was called in vain: it was `busy`, or the call ended `unanswered`.
    Missed { from: PeerId, to: PeerId, reason: &'static str },
    /// A peer called an id that nobody has registered.
    Unreachable { from: PeerId, to: PeerId },
    /// The server is about to stop, and new clients should go elsewhere.
    Draining,
}

impl Happening {
    /// Returns the type, and the data that only this type has.
    pub(super) fn parts(&self) -> (&'static str, Value) {
        match self {
            Self::Registered { peer } => ("peer.registered", json!({"peer": peer.as_str()})),
            Self::Gone { peer, reason, seconds } => {
                ("peer.gone", json!({"peer": peer.as_str(), "reason": reason, "seconds": seconds}))
            }
            Self::RoomStarted { room } => ("room.started", json!({"room": room.as_str()})),
            Self::RoomEnded { room, seconds } => {
                ("room.ended", json!({"room": room.as_str(), "seconds": seconds}))
            }
            Self::Joined { room, peer, members } => {
                ("peer.joined", json!({"room": room.as_str(), "peer": peer.as_str(), "members": members}))
            }
            Self::Left { room, peer, members, reason, seconds } => {
                let place = (room.as_str(), peer.as_str());
                let data = json!({"room": place.0, "peer": place.1, "members": members, "reason": reason,
                    "seconds": seconds});
                ("peer.left", data)
            }
            Self::CallStarted { from, to } => {
                ("call.started", json!({"from": from.as_str(), "to": to.as_str()}))
            }
            Self::CallEnded { from, to, answered, seconds } => {
                let data = json!({"from": from.as_str(), "to": to.as_str(), "answered": answered,
                    "seconds": seconds});
                ("call.ended", data)
            }
            Self::Missed { from, to, reason } => {
                ("call.missed", json!({"from": from.as_str(), "to": to.as_str(), "reason": reason}))
            }
            Self::Unreachable { from, to } => {
                ("call.unreachable", json!({"from": from.as_str(), "to": to.as_str()}))
            }
            Self::Draining => ("server.draining", json!({})),
        }
    }
}
