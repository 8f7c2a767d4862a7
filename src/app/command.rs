//! What a user, or a program, tells a running client.

use crate::protocol::PeerId;
use crate::sdp::Kind;

/// What a user tells a running client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A chat message, to one peer or to all.
    Say {
        /// Who gets it; all where nobody is named.
        to: Option<PeerId>,
        /// The text.
        text: String,
    },
    /// End the call, or of those in a room the one with this peer.
    HangUp(Option<PeerId>),
    /// Take the call that was asked about, or do not.
    Decide(bool),
    /// Change what is sent.
    Send(Change),
    /// Make a new path to this peer, or to all.
    Reconnect(Option<PeerId>),
    /// An event for the application behind the server: its name and its data.
    Tell(String, serde_json::Value),
    /// Tell who is there.
    Peers,
    /// Tell the counters now.
    Stats,
    /// End the program in order.
    Quit,
    /// The same, by a signal.
    Interrupt,
}

/// A change of what is sent, to all peers alike and without negotiation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Silence or black, or the source again.
    Mute(Kind, bool),
    /// The one of the two that it is not.
    Toggle(Kind),
    /// Another source: a name of `pipelines/source` or a pipeline's text, and its device.
    Source(Kind, String, Option<String>),
}
