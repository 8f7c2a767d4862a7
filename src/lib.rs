pub mod hub;
#[cfg(feature = "media")]
pub mod media;
pub mod paths;
pub mod protocol;
pub mod sdp;
pub mod session;
