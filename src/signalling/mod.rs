//! A client's connection to a server. Each [`backend`] ([`hello`], [`ssp`]) encodes and decodes one protocol; [`target`]
//! describes the server, [`proxy`] chooses an HTTP proxy, [`reconnect`] decides about further attempts, [`silence`]
//! detects a dead server (all pure). [`drivers`] own the sockets; [`turn`] queries TURN servers.

pub mod backend;
pub mod drivers;
pub mod error;
pub mod event;
pub mod hello;
pub mod proxy;
pub mod reconnect;
pub mod silence;
pub mod ssp;
pub mod target;
pub mod turn;

pub use backend::{Backend, Closing};
pub use drivers::websocket::{Frame, Socket};
pub use error::ConnectError;
pub use event::Event;
pub use hello::Hello;
pub use proxy::Proxies;
pub use reconnect::{Cause, Reconnect};
pub use ssp::Ssp;
pub use target::{Protocol, Target};
