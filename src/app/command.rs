//! Commands that a user or a program gives to a running client.
//!
//! Pure: no clock, chance, socket or GStreamer.

use crate::protocol::PeerId;
use crate::sdp::Kind;
use crate::signalling::ServerRequest;

/// A command to a running client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Sends a chat message to one peer or to all peers.
    Say {
        /// The recipient; all peers if absent.
        to: Option<PeerId>,
        /// The text of the message.
        text: String,
    },
    /// Ends the call; in a room, ends the connection with this peer.
    HangUp(Option<PeerId>),
    /// Accepts (true) or declines (false) the incoming call that the client asked about.
    Decide(bool),
    /// Changes the media that is sent.
    Send(Change),
    /// Renegotiates the connection with this peer, or with all peers, over a new path.
    Reconnect(Option<PeerId>),
    /// Sends an event, given by its name and data, to the application behind the server.
    Application(String, serde_json::Value),
    /// Makes a request of the server itself.
    Server(ServerRequest),
    /// Lists the peers.
    Peers,
    /// Reports the counters now.
    Stats,
    /// Ends the program in order.
    Quit,
    /// Ends the program because of a signal.
    Interrupt,
}

/// A change of the media that is sent: applies to all peers alike and needs no renegotiation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Sends silence or black (true), or the source's media again (false).
    Mute(Kind, bool),
    /// Mutes the kind if it is unmuted, and unmutes it if it is muted.
    Toggle(Kind),
    /// Switches to another source, given by the name of a file in `pipelines/source` or a pipeline's text, and its
    /// device.
    Source(Kind, String, Option<String>),
}
