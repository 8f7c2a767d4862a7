//! Wire text to typed messages and back: one file per protocol. Sizes and bad input end here.
//!
//! Pure: no file of this folder has a clock, chance, a socket or GStreamer.

// A new message must make the compiler ask what to do with it.
#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

pub mod channel;
pub mod hello;
pub mod ice;
pub mod id;
pub mod negotiation;
pub mod refusal;

pub mod socketio;
pub mod ssp;

pub use channel::ChannelConfig;
pub use ice::{IceKind, IceServer, IceUrl, Secret};
pub use id::{ParticipantId, PeerId, RoomId};
pub use negotiation::{Candidate, Description, PeerMessage, SdpKind};
pub use refusal::Refusal;

/// The largest text message taken or relayed, in bytes (1 MiB, as the demos' server has it).
pub const MAX_MESSAGE: usize = 1 << 20;
