//! Codecs: wire text to typed messages and back, one file for each protocol. Codecs reject text that is too large or
//! invalid.
//!
//! Pure: no file of this folder has a clock, chance, a socket or GStreamer.

// Without wildcard arms the compiler names each place that has to handle a new message.
#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

pub mod channel;
pub mod hello;
pub mod ice;
pub mod id;
pub mod negotiation;
pub mod refusal;
pub mod socketio;
pub mod ssp;
pub mod whip;

pub use channel::ChannelConfig;
pub use ice::{IceKind, IceServer, IceUrl, Secret};
pub use id::{ParticipantId, PeerId, RoomId};
pub use negotiation::{Candidate, Description, PeerMessage, SdpKind};
pub use refusal::Refusal;

/// Maximum size of a text message that is received or forwarded, in bytes (1 MiB, as in the demos' server).
pub const MAX_MESSAGE: usize = 1 << 20;
