//! GStreamer basics that all other folders of `media` use: start and end, pipelines and their texts, elements and
//! devices of this machine.

pub mod devices;
pub(crate) mod elements;
pub mod error;
mod init;
pub mod inventory;
pub(crate) mod isolated_bin;
pub mod launch;
pub mod level;
pub mod packages;
pub mod pipeline;
pub(crate) mod rtp;
pub mod voice;

pub use init::{finish, init, version, warm_up};
