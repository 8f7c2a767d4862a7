//! Connections with peers, each around a webrtcbin of its own.

mod adapt;
mod channels;
mod config;
pub mod data_channel;
mod description;
mod events;
mod identity;
pub mod peer;
mod state;
pub mod stats;
mod transceivers;
pub mod transport;

/// Returns whether webrtcbin can drop an offer of its own that adds m-lines. Since 1.24 webrtcbin aborts the process at
/// the next answer if an m-line's mid differs from that offer's.
pub fn forgets_offers() -> bool {
    gst::version() < (1, 23, 0, 0)
}
