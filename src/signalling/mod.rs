//! A client's way to a server: each [`backend`] ([`room`], [`ssp`]) says what to send and what was meant (pure),
//! [`socket`] is the one driver of WebSockets, [`backoff`] the pauses between attempts. [`turn`] talks to TURN
//! servers.

pub mod backend;
pub mod backoff;
pub mod room;
pub mod socket;
pub mod ssp;
pub mod turn;

pub use backend::{Backend, Event};
pub use backoff::Backoff;
pub use room::RoomClient;
pub use socket::{ConnectError, Frame, Protocol, Socket, Target};
pub use ssp::SspClient;
