//! The settings of an engine.
//!
//! Pure: no clock, sockets, files or random numbers.

use super::address::Address;

/// The engine of a server.
#[derive(Debug, Clone)]
pub struct Engine {
    /// The address.
    pub address: Address,
    /// The beginning of all keys. Servers with one prefix are one service; several services can share an engine.
    pub prefix: String,
}

impl Engine {
    /// The prefix of keys unless the operator chooses another.
    pub const PREFIX: &str = "rt1:";
}
