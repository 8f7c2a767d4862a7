//! The programs and the library from outside, a module for each behaviour: `cargo test --test it room::` runs
//! one of them. Modules that need GStreamer are absent without the feature `media`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod api;
#[cfg(feature = "engine")]
mod check_engine;
mod cli;
mod corpus;
mod deploy;
mod operations;
mod pool;
mod presence;
mod proxied;
mod room_client;
mod server;
#[cfg(feature = "engine")]
mod shards;
mod signalling;
mod socketio;
mod token;
mod webhook;

#[cfg(feature = "media")]
mod adapt;
#[cfg(feature = "media")]
mod admission;
#[cfg(feature = "media")]
mod browser;
#[cfg(feature = "media")]
mod channels;
#[cfg(feature = "media")]
mod connects;
#[cfg(all(feature = "media", target_os = "linux"))]
mod deployment;
#[cfg(feature = "media")]
mod endurance;
#[cfg(feature = "media")]
mod hostile;
#[cfg(feature = "media")]
mod managed;
#[cfg(feature = "media")]
mod media_pair;
#[cfg(feature = "media")]
mod mutants;
#[cfg(feature = "media")]
mod native;
#[cfg(feature = "media")]
mod network;
#[cfg(all(feature = "media", feature = "engine", target_os = "linux"))]
mod nodes;
#[cfg(feature = "media")]
mod passthrough;
#[cfg(feature = "media")]
mod peers;
#[cfg(feature = "media")]
mod reconnect;
#[cfg(feature = "media")]
mod relay;
#[cfg(feature = "media")]
mod room;
#[cfg(feature = "media")]
mod terminal;
#[cfg(feature = "media")]
mod voice;
#[cfg(feature = "media")]
mod whip;
