//! The command line: arguments to validated options, output for people and programs, exit codes.

mod advice;
mod args;
mod config;
mod error;
pub mod input;
pub mod output;
mod room_client;
mod run;

pub use error::CliError;
pub use room_client::room_client;
pub use run::run;
