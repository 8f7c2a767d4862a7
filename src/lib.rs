pub mod hub;
pub mod protocol;
pub mod sdp;
