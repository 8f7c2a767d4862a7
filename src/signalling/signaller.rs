//! The port between signalling protocols and the drivers of sockets.
//!
//! A [`Signaller`] is a state machine: [`In`] goes in, [`Out`] comes out, and a timer may be pending. A back end speaks
//! one protocol. `SocketIo` (a framing) and `Persistent` (reconnecting) wrap a back end and are signallers themselves.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use url::Url;

use super::error::ConnectError;
use super::event::Event;
use super::reconnect::Ended;
use crate::protocol::hello::MediaKind;
use crate::protocol::{PeerId, PeerMessage, RoomId, Secret};

/// The number of a WebSocket. A signaller never uses a number twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ConnId(pub u64);

/// The number of an HTTP request. A signaller never uses a number twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct RequestId(pub u64);

/// Header fields: lower-case names, and values.
pub type Headers = Vec<(String, String)>;

/// Returns the first value of a header field; `name` is in lower case.
pub fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
}

/// A frame of a WebSocket (RFC 6455), reassembled from its fragments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// The connection ended: the close code and the reason. The code is 1006 if no close frame arrived (RFC 6455, 7.4.1).
    Closed(u16, String),
}

/// The parameters of a WebSocket's upgrade request. Trust, proxy and client certificate are those of the
/// server's `Target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The `ws` or `wss` URL, with its secret parts.
    pub url: Url,
    /// The subprotocols that the client offers (RFC 6455, 1.9), most wanted first.
    pub subprotocols: Vec<String>,
    /// Additional header fields.
    pub headers: Headers,
}

/// An HTTP request. Its `Debug` text leaves out the query, the values of the header fields, and the body.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The method, in capitals.
    pub method: &'static str,
    /// The `http` or `https` URL.
    pub url: Url,
    /// Header fields besides `Host`.
    pub headers: Headers,
    /// The body; empty for none.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.headers.iter().map(|(name, _)| name.as_str());
        let names = names.collect::<Vec<_>>().join(", ");
        let origin = self.url.origin().ascii_serialization();
        write!(f, "Request({} {origin}{}; {names}; {} bytes)", self.method, self.url.path(), self.body.len())
    }
}

/// An HTTP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header fields.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
    /// The server's IP address; none behind a proxy.
    pub server: Option<IpAddr>,
}

/// A request of the server itself; a protocol without words for it ignores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerRequest {
    /// Shows the server the client's next token; [`Event::TokenRefused`] follows if the server does not accept it.
    Token(Secret),
    /// Removes a member from the room, as its moderator.
    Remove(PeerId),
    /// Asks a member of the room to mute what it sends, as the room's moderator.
    Mute(PeerId, MediaKind),
}

/// An input of a [`Signaller`]: a command of the application, or an event of its connections and requests.
#[derive(Debug, Clone, PartialEq)]
pub enum In {
    /// Connects and registers, and joins the client's room if it has one. Forgets the connection before.
    Register,
    /// Calls a peer.
    Call(PeerId),
    /// Sends a message to a peer of the room, or to the other peer of the call if `to` is absent.
    Send {
        /// The recipient.
        to: Option<PeerId>,
        /// The message.
        message: PeerMessage,
    },
    /// Sends an event, given by name and data, to the application behind the server.
    Application(String, serde_json::Value),
    /// Makes a request of the server itself.
    Ask(ServerRequest),
    /// Requests fresh STUN and TURN servers; [`Event::IceServers`] follows if the server has any.
    RenewIceServers,
    /// Registers again after a pause that depends on the way in which the last connection ended.
    Reconnect(Ended),
    /// Ends a call or leaves a room: registers again unless the client is registered and idle, or about to register.
    Release(Ended),
    /// The client ends. Outputs that end its session at the server in order may follow, and warnings about sessions that
    /// were not ended, but no others.
    Close,
    /// The WebSocket is open; contains the header fields of the server's response, `sec-websocket-protocol` included.
    Opened(ConnId, Headers),
    /// A frame arrived.
    Frame(ConnId, Frame),
    /// The WebSocket could not be opened.
    Failed(ConnId, ConnectError),
    /// An HTTP request was answered, with whatever status, or failed.
    Response(RequestId, Result<Response, ConnectError>),
    /// The time of [`Signaller::poll_timeout`] is reached.
    Timeout,
}

/// An output of a [`Signaller`].
#[derive(Debug, Clone, PartialEq)]
pub enum Out {
    /// Opens a WebSocket; [`In::Opened`] or [`In::Failed`] follows. Waits until the WebSockets that are being closed are
    /// closed, at most one second.
    Connect(ConnId, Endpoint),
    /// Sends a frame.
    Send(ConnId, Frame),
    /// Closes a WebSocket in order, or abandons its opening. No input for it follows.
    Close(ConnId),
    /// Lowers the limit on the server's silence, after which the WebSocket counts as closed.
    Silence(ConnId, Duration),
    /// Sends an HTTP request; [`In::Response`] follows.
    Request(RequestId, Request),
    /// Abandons an HTTP request without a response; [`In::Response`] does not follow.
    Abandon(RequestId),
    /// Reports an event to the application.
    Event(Event),
}

/// The client's side of a signalling protocol.
///
/// A back end reports the end of an attempt to register as [`Event::Ended`] with the cause, and the end of a registration
/// as [`Event::Lost`] or, if the server dismissed the client, as [`Event::Ended`]. The decision about another attempt is
/// made outside of the back ends.
pub trait Signaller: Send {
    /// Handles one input. Inputs for connections and requests that the signaller has given up are ignored.
    fn handle(&mut self, now: Instant, input: In);
    /// Returns the next output; none until the next input.
    fn poll_output(&mut self) -> Option<Out>;
    /// Returns the time at which [`In::Timeout`] is due.
    fn poll_timeout(&self) -> Option<Instant>;
    /// Returns whether the client is registered, and neither in a call nor in a room.
    fn is_idle(&self) -> bool;
}

/// The id and the wishes with which a client registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The client's id; ignored by protocols in which the server assigns ids.
    pub id: PeerId,
    /// The room that the client joins at each registration.
    pub room: Option<RoomId>,
    /// The peer that the client calls at the first registration. The call is sent together with the registration if the
    /// server reads on meanwhile, which saves a round trip.
    pub calls: Option<PeerId>,
}

/// The abilities of a signalling protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// The protocol has 1-1 calls.
    pub calls: bool,
    /// The server assigns the ids. An id then ends with its connection: a peer that comes back has another one.
    pub assigns_ids: bool,
    /// Each offer begins a session of its own with a media server, which makes no offers, and there is no registration.
    pub single_exchange: bool,
}
