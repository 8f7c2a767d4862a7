//! Data channels (RFC 8831).

mod channel;
mod teardown;

pub use channel::{Channel, Message};
pub(super) use teardown::Teardown;

pub use crate::protocol::ChannelConfig;

/// Maximum number of data channels of a peer.
pub(crate) const MAX_CHANNELS: usize = 16;
