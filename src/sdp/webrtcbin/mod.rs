//! Changes to descriptions that webrtcbin needs, or that its own descriptions need. Only the media layer uses this module,
//! through [`Adapter`].

mod adapter;
mod attributes;
pub mod credentials;
mod directions;
mod layout;
mod setup;

pub use adapter::{Adapter, CANDIDATES, Ours};
pub use credentials::Credentials;
pub use layout::Remote;

#[cfg(test)]
mod tests;
