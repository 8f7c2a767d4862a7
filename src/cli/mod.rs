//! The command line: arguments to validated options, output for people and programs, exit codes.

#[cfg(all(feature = "media", target_os = "linux", target_env = "gnu"))]
mod arenas;
pub mod args;
pub mod command;
mod config;
mod error;
#[cfg(feature = "media")]
mod input;
#[cfg(feature = "media")]
mod inventory;
#[cfg(feature = "media")]
mod keys;
pub mod network;
pub mod output;
mod room_client;
mod run;
mod signals;
#[cfg(feature = "media")]
mod terminal;

pub use error::CliError;
pub use room_client::room_client;
pub use run::run;
