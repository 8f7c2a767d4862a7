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

/// Whether webrtcbin can forget an offer that it made and that adds m-lines. From 1.24 on it ends the process at
/// the next answer, when an m-line's mid is another than in that offer.
pub fn forgets_offers() -> bool {
    gst::version() < (1, 23, 0, 0)
}
