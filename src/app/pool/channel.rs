//! How a pool's messages get from one endpoint to another: whatever can carry them.

use std::pin::Pin;

use serde_json::Value;

use crate::protocol::{IceServer, PeerId, PeerMessage};

/// A future of a [`SignallingChannel`].
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One endpoint's way to the others of its pool. Messages of one endpoint to another come in the order that
/// they were sent in, or not at all.
pub trait SignallingChannel: Send {
    /// What comes next, the first of it [`Signal::Joined`]; waits for ever when nothing comes any more. May
    /// be dropped while it waits, without loss.
    fn next(&mut self) -> Boxed<'_, Signal>;
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

/// What comes over a channel.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Signal {
    /// We are in, for the first time or again after [`Signal::Gone`].
    Joined {
        /// Our id, where we are given one.
        me: Option<PeerId>,
        /// Who was there before us: we offer to them, and give way in a collision.
        peers: Vec<PeerId>,
        /// What is known of some of them.
        descriptions: Vec<(PeerId, Value)>,
    },
    /// An endpoint came after us.
    PeerJoined(PeerId),
    /// An endpoint went.
    PeerLeft(PeerId),
    /// From an endpoint.
    From(PeerId, PeerMessage),
    /// From an endpoint, and of no use; why.
    JunkFrom(PeerId, String),
    /// What is known of an endpoint from now on.
    Described(PeerId, Value),
    /// The STUN and TURN servers from now on.
    IceServers(Vec<IceServer>),
    /// Of the application behind the channel: an event's name and its data.
    Application(String, Value),
    /// The way is interrupted, and comes back; who is connected stays so.
    Gone,
    /// Nobody can be reached any more; why.
    Over(String),
    /// What people should know.
    Warning(String),
}
