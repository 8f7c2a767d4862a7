//! Changes to descriptions that webrtcbin needs, or that its own descriptions need. Only the media layer uses this module,
//! through [`Adapter`].

mod adapter;
mod attributes;
mod codecs;
pub mod credentials;
mod directions;
mod layout;
mod setup;
mod sources;

pub use adapter::{Adapter, CANDIDATES, Ours};
pub use credentials::Credentials;
pub use layout::Remote;
pub use sources::Sources;

#[cfg(test)]
pub(crate) mod tests;
