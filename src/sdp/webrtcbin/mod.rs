//! Changes to descriptions that webrtcbin needs, or that its own descriptions need. Only the media layer calls this
//! module.

pub mod credentials;

pub use credentials::Credentials;
