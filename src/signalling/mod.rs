//! A client's connection to a server, in whatever protocol it speaks.
//!
//! [`signaller`] is the port: a back end ([`hello`], [`ssp`], [`whip`]) decodes and encodes one protocol behind it, and
//! [`socketio`] and [`persistent`] wrap a back end. `registry` chooses the back end by the scheme of the server's URL;
//! [`target`] describes the server, [`proxy`] chooses an HTTP proxy, [`reconnect`] decides about further attempts,
//! [`silence`] detects a dead server. All these are pure. [`drivers`] own the sockets of
//! signalling; [`turn`] has its own: it tries TURN servers, and tunnels to those behind TLS.

pub mod drivers;
pub mod error;
pub mod event;
pub mod hello;
pub mod persistent;
pub mod proxy;
pub mod reconnect;
mod registry;
pub mod signaller;
pub mod silence;
pub mod socketio;
pub mod ssp;
pub mod target;
#[cfg(test)]
mod testing;
pub mod turn;
pub mod whip;

pub use drivers::driver::Driver;
pub use drivers::websocket::Socket;
pub use error::ConnectError;
pub use event::Event;
pub use proxy::Proxies;
pub use reconnect::{Cause, Ended};
pub use signaller::{Capabilities, Frame, In, Registration, ServerRequest, Signaller};
pub use target::Target;
