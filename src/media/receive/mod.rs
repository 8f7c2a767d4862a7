//! Received media: tracks, their jitter buffers and playout delay, and the outputs, recorders and grids that use them.

mod concealment;
pub mod grid;
pub(crate) mod jitter_buffers;
pub mod output;
pub mod playout_delay;
pub mod recorder;
pub(crate) mod track;

pub use track::{Counters, MAX_PIXELS, Track};
