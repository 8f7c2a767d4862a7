//! Encoding: each codec that some peer negotiated is encoded at up to three rates, however many peers there are.

mod encoder;
mod encoders;
pub mod ladder;
mod passthrough;
mod shape;
mod sources;
mod threads;
mod turn;

pub use encoder::Encoder;
pub(crate) use encoders::AUDIO_BITRATE;
pub use encoders::{Encoders, Seat};
pub use ladder::Rates;
