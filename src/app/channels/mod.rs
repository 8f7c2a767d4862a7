//! Signalling channels, over which the endpoints of a pool or a room exchange messages.

pub(super) mod memory;
pub(super) mod server;

use std::pin::Pin;

use serde_json::Value;

use crate::protocol::{PeerId, PeerMessage};
use crate::signalling::{Event, ServerRequest};

/// A future of a [`SignallingChannel`].
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Channel of one endpoint to the others of its pool. Messages of one endpoint to another arrive in the order of
/// sending, or not at all.
pub trait SignallingChannel: Send {
    /// Returns the next event, the first of them [`Event::Joined`]; never completes after the last event. Cancel-safe:
    /// dropping the future loses no event.
    fn next(&mut self) -> Boxed<'_, Event>;
    /// Sends a message to an endpoint; the message is lost if that endpoint has left.
    fn send<'a>(&'a mut self, to: &'a PeerId, message: &'a PeerMessage) -> Boxed<'a, ()>;
    /// Sends an event to the application behind the channel, if there is one.
    fn send_event<'a>(&'a mut self, _kind: &'a str, _data: &'a Value) -> Boxed<'a, ()> {
        Box::pin(async {})
    }
    /// Makes a request of the server behind the channel, if there is one.
    fn ask(&mut self, _request: ServerRequest) {}
    /// Returns whether all endpoints run in this process.
    fn is_within_process(&self) -> bool {
        false
    }
    /// Leaves the pool.
    fn close(self: Box<Self>) -> Boxed<'static, ()>;
}
