//! The command line: arguments and configuration, output for people and programs, input, exit codes.

mod advice;
mod args;
mod config;
mod error;
pub mod input;
pub mod output;
#[cfg(all(test, feature = "media"))]
mod reference;
mod room_client;
mod run;

pub use error::CliError;
pub use room_client::room_client;
pub use run::run;
