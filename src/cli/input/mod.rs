//! Commands on stdin while a client runs: words for people, JSON lines for programs.

#[cfg(feature = "media")]
mod keys;
pub mod lines;
#[cfg(feature = "media")]
pub(super) mod stdin;
#[cfg(feature = "media")]
pub(super) mod terminal;
