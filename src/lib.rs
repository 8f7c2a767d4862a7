//! roomtone: the native end of a WebRTC call, on GStreamer's webrtcbin.
//!
//! Data flows one way through the layers; each imports only what stands below it:
//!
//! | layer | what it is |
//! |---|---|
//! | [`cli`] | arguments to validated options, output, exit codes |
//! | [`app`], [`tester`] | the event loops that join the layers below; `room-client` |
//! | [`media`], [`signalling`], [`server`] | GStreamer; a client's way to a server; sockets of a server |
//! | [`session`], [`hub`] | a client's call, and a server's peers, as pure state machines |
//! | [`protocol`], [`sdp`] | wire text to typed messages; SDP read, checked and rewritten |
//! | [`base`] | small things that every layer needs: random ids |
//!
//! `protocol`, `sdp`, `session`, `hub` and the back ends of `signalling` are data in, data out: no
//! sockets, no clock, no chance, no GStreamer. Only `media` knows GStreamer; without the feature `media`
//! the crate builds without it, and is a server.

pub mod app;
pub mod base;
pub mod cli;
pub mod hub;
#[cfg(feature = "media")]
pub mod media;
pub mod paths;
pub mod protocol;
pub mod sdp;
pub mod server;
pub mod session;
pub mod signalling;
pub mod tester;
pub mod tls;
