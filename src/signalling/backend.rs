//! The client's side of a signalling protocol: text in, [`Event`]s and text out. The drivers own the sockets.
//!
//! Pure: no clock, chance, socket or GStreamer.

use super::event::Event;
use crate::protocol::{PeerId, PeerMessage, Refusal, RoomId};

/// The meaning of a close frame that arrives before the client is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closing {
    /// The server refuses the client.
    Refused(Refusal),
    /// The server speaks another protocol; the text is its own.
    Foreign(String),
    /// The server gives no reason.
    Silent,
}

/// The longest quoted text of a foreign server, in characters.
const MAX_FOREIGN: usize = 80;

/// Returns an event that quotes the beginning of a foreign server's text.
pub(super) fn foreign(text: &str) -> Event {
    Event::Foreign(text.chars().take(MAX_FOREIGN).collect())
}

/// A client's side of a protocol, on one connection.
pub trait Backend: Send {
    /// What to say first, to be registered; nothing where a connection is enough.
    fn hello(&self) -> Option<String>;
    /// Handles a message of the server; returns none if the message does not concern the client.
    fn handle_text(&mut self, text: &str) -> Option<Event>;
    /// Calls a peer, before or after we are registered; nothing where that was said before, or where the protocol knows
    /// no calls of two.
    fn dial(&mut self, peer: &PeerId) -> Option<String>;
    /// Enters a room.
    fn join(&mut self, room: &RoomId) -> String;
    /// Takes a message to the other peer of a call, or to that peer of the room; nothing where the protocol
    /// has no words for it.
    fn address(&self, to: Option<&PeerId>, message: &PeerMessage) -> Option<String>;
    /// Says something to the application behind the server; nothing where the protocol has no words for it.
    fn tell(&self, _kind: &str, _data: &serde_json::Value) -> Option<String> {
        None
    }
    /// Registered, and neither in a call nor in a room.
    fn is_free(&self) -> bool;
    /// Interprets a close frame with this code and reason that arrives before the client is registered.
    fn handle_close(&self, code: u16, reason: &str) -> Closing;
}
