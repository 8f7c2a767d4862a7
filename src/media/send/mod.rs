//! Sent media: sources, encoders, and the streams that bring them to peers.

pub mod capture;
pub mod encode;
pub mod encoded_source;
pub(crate) mod encoder_link;
mod frame_time;
mod gop;
mod last_frame;
pub mod stream;
mod supervise;
