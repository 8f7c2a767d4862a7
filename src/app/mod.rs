//! The event loops that join session, signalling, media and server: the programs' work as an API.
//!
//! [`Client`] makes and answers calls and joins rooms; [`host`] runs a server and a client on it. Both report
//! [`Event`]s. [`Pool`] gives programs a room or a pool with streams and data channels of their own.
//!
//! `call.rs` is the loop of 1-1 calls, also of those with a media server (`publish.rs`). `conference.rs` is a room or a
//! pool, which `join.rs` runs for the command line and `pool.rs` for programs. Calls and conferences execute the outputs
//! of links through `peers.rs`, which has a `driver.rs` for each connection. `presentation/` shows, plays and records the
//! tracks of connections, and bridges their data channels.

#[cfg(feature = "media")]
pub mod bridge;
#[cfg(feature = "media")]
mod call;
pub mod channel;
#[cfg(feature = "media")]
mod channels;
#[cfg(feature = "media")]
pub mod client;
pub mod command;
#[cfg(feature = "media")]
mod conference;
#[cfg(feature = "media")]
mod driver;
#[cfg(feature = "media")]
mod error;
pub mod event;
#[cfg(feature = "media")]
pub mod host;
#[cfg(feature = "media")]
pub mod ice;
#[cfg(feature = "media")]
mod join;
#[cfg(feature = "media")]
pub mod options;
mod page_urls;
#[cfg(feature = "media")]
mod peers;
#[cfg(feature = "media")]
pub mod pool;
#[cfg(feature = "media")]
mod presentation;
#[cfg(feature = "media")]
mod publish;
#[cfg(feature = "media")]
mod report;
#[cfg(feature = "media")]
mod senders;
#[cfg(feature = "media")]
mod server_connection;
#[cfg(feature = "media")]
pub mod setup;
#[cfg(feature = "media")]
pub mod trace;

pub use crate::session::{Admission, EndReason, Patience};
#[cfg(feature = "media")]
pub use client::Client;
pub use command::{Change, Command};
#[cfg(feature = "media")]
pub use error::ClientError;
pub use event::{Event, PeerState, Sink};
#[cfg(feature = "media")]
pub use options::MediaOptions;
pub use page_urls::page_urls;
#[cfg(feature = "media")]
pub use pool::{Pool, PoolEvent, PoolOptions};
#[cfg(feature = "media")]
pub use setup::MediaSetup;
