//! roomtone: a WebRTC client for the command line on GStreamer's webrtcbin, with a signalling server.
//!
//! Each layer imports only layers below it:
//!
//! | layer | content |
//! |---|---|
//! | [`cli`] | options, output for people and programs, exit codes |
//! | [`app`], [`tester`] | the loops that connect the layers below; `room-client` |
//! | [`media`], [`signalling`], [`server`] | GStreamer; a client's connection to a server; the server's sockets |
//! | [`engine`] | the connection of a server to a Redis or Valkey server, through which several servers are one |
//! | [`session`], [`hub`] | a client's calls, and a server's peers, as state machines |
//! | [`protocol`], [`sdp`] | wire text to typed messages; parsing and rewriting of SDP |
//! | [`base`] | small parts for every layer |
//!
//! `protocol`, `sdp`, `session`, `hub` and the back ends of `signalling` are pure: they have no sockets, no clock, no random
//! numbers and no GStreamer. Only `media` uses GStreamer; without the feature `media` the crate is a server.

pub mod app;
pub mod base;
pub mod cli;
#[cfg(feature = "engine")]
pub mod engine;
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
