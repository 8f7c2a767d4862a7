//! A client's way to a server. Each [`backend`] ([`room`], [`ssp`]) says what to send and what was meant, [`target`] which
//! server it is, [`proxy`] what leads to it, [`reconnect`] when it is asked again, [`silence`] when it counts as gone (all
//! pure); [`socket`] is the one driver of WebSockets. [`turn`] talks to TURN servers.

pub mod backend;
mod dial;
pub mod error;
pub mod proxy;
pub mod reconnect;
pub mod room;
pub mod silence;
pub mod socket;
pub mod ssp;
pub mod target;
pub mod turn;

pub use backend::{Backend, Closing, Event};
pub use error::ConnectError;
pub use proxy::Proxies;
pub use reconnect::{Cause, Reconnect};
pub use room::RoomClient;
pub use socket::{Frame, Socket};
pub use ssp::SspClient;
pub use target::{Protocol, Target};
