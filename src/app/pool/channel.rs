//! How a pool's messages get from one endpoint to another: whatever can carry them.

use std::pin::Pin;

use serde_json::Value;

use crate::protocol::{PeerId, PeerMessage};
use crate::signalling::Event;

/// A future of a [`SignallingChannel`].
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One endpoint's way to the others of its pool. Messages of one endpoint to another come in the order that
/// they were sent in, or not at all.
pub trait SignallingChannel: Send {
    /// Returns the next event, the first of them [`Event::Joined`]; never completes after the last event. Cancel-safe:
    /// dropping the future loses no event.
    fn next(&mut self) -> Boxed<'_, Event>;
    /// Takes a message to an endpoint, or loses it where that is gone.
    fn send<'a>(&'a mut self, to: &'a PeerId, message: &'a PeerMessage) -> Boxed<'a, ()>;
    /// Says something to the application behind the channel, where there is one.
    fn tell<'a>(&'a mut self, _kind: &'a str, _data: &'a Value) -> Boxed<'a, ()> {
        Box::pin(async {})
    }
    /// Returns whether all endpoints run in this process.
    fn is_within_process(&self) -> bool {
        false
    }
    /// Leaves the pool.
    fn close(self: Box<Self>) -> Boxed<'static, ()>;
}
