//! The signalling server: sockets, TLS, HTTP and the page, limits; it feeds the hub.
//!
//! One port takes TLS and plain connections, told apart by their first byte. Plain ones are for this
//! machine, or for a proxy in front ([`Config::plain`]).

mod budget;
pub mod codec;
mod config;
mod connection;
mod error;
mod guesses;
mod http;
pub mod ice;
mod listener;
mod mailbox;
mod names;
mod probe;
mod sessions;
mod shared;
mod stream;
mod switchboard;
pub mod tls;
mod token;
mod vigil;

pub use config::{Config, Timeouts};
pub use error::ServerError;
pub use listener::Server;
pub use probe::read_head;
pub use tls::{Files, Identity};
