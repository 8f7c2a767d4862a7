//! What a client needs of a signalling protocol: text in, [`Event`]s out, and the text that says what is wanted.
//! Pure; the driver of sockets is elsewhere.

use crate::protocol::{IceServer, PeerId, PeerMessage, RoomId};

/// What a line meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// We are registered.
    Registered,
    /// Our call was accepted.
    Accepted,
    /// The server says who calls us.
    Caller(PeerId),
    /// The server refused what we asked for.
    Refused(String),
    /// The STUN and TURN servers to use from now on.
    IceServers(Vec<IceServer>),
    /// From the other peer.
    Peer(PeerMessage),
    /// From the other peer or the server, and of no use; why.
    Junk(String),
    /// We are in the room.
    Joined {
        /// Those before us.
        peers: Vec<PeerId>,
        /// Our id, where the server gives one.
        me: Option<PeerId>,
        /// What the back end says of some of them.
        descriptions: Vec<(PeerId, serde_json::Value)>,
    },
    /// A peer came into the room.
    PeerJoined(PeerId),
    /// A peer left the room.
    PeerLeft(PeerId),
    /// From a peer of the room.
    From(PeerId, PeerMessage),
    /// From a peer of the room, and of no use; why.
    JunkFrom(PeerId, String),
    /// What the back end says of that peer.
    Described(PeerId, serde_json::Value),
    /// Of the application behind the server: an event's name and its data.
    Application(String, serde_json::Value),
    /// The server closes the room.
    Stopped,
    /// The server sent this text in another protocol, before the client was registered.
    Foreign(String),
    /// Nothing that concerns the client.
    Nothing,
}

/// The meaning of a close frame that arrives before the client is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closing {
    /// The server refuses the client, for the given reason.
    Refused(String),
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
    /// Takes a message of the server.
    fn handle_text(&mut self, text: &str) -> Event;
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
