//! The engine that connects several servers to one service: a Redis or Valkey server. The driver passes the requests of a
//! [`Shard`](crate::hub::shard::Shard) to the engine, and the messages of its inbox to the shard.

mod address;
mod check;
mod driver;
mod error;
mod examination;
mod link;
mod measure;
mod portion;
mod settings;

pub use address::{Address, AddressError};
pub use driver::{Port, run};
pub use error::EngineError;
pub use examination::Finding;
pub use measure::Measure;
pub use settings::Engine;
