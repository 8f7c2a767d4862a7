//! A client's way to a server: [`room`] and later back ends say what to send and what was meant (pure),
//! [`socket`] is the one driver of WebSockets, [`backoff`] the pauses between attempts. [`turn`] talks to TURN
//! servers.

pub mod backoff;
pub mod room;
pub mod socket;
pub mod turn;

pub use backoff::Backoff;
pub use room::RoomClient;
pub use socket::{ConnectError, Frame, Socket, Target};
