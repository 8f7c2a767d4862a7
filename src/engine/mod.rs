//! The engine that connects several servers to one service: a Redis or Valkey server. The driver passes the requests of a
//! [`Shard`](crate::hub::shard::Shard) to the engine, and the messages of its inbox to the shard.

mod address;
mod check;
mod driver;
mod error;
mod link;

pub use address::{Address, AddressError};
pub use driver::{Port, run};
pub use error::EngineError;

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

    /// Connects to the engine once, and checks that servers can use it. Returns its name and version.
    ///
    /// # Errors
    ///
    /// [`EngineError`] if the engine is not reached, refuses the server, or is not suitable.
    pub async fn check(&self) -> Result<String, EngineError> {
        let (_, checked) = link::Link::open(self).await?;
        for warning in &checked.warnings {
            tracing::warn!("the engine {}: {warning}", self.address);
        }
        Ok(checked.version)
    }
}
