//! Events of the programs: shown as lines for people, or as JSON for programs.

use std::sync::Arc;

use serde::Serialize;

/// Receiver of events.
pub type Sink = Arc<dyn Fn(&Event) + Send + Sync>;

/// State of the call with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// The peer is in the room.
    Joined,
    /// The peer calls, and waits for this side to accept the call.
    Calling,
    /// The peer called or was called; descriptions are being exchanged.
    Connecting,
    /// Media can flow.
    Connected,
    /// The path is disconnected; a new path is being negotiated.
    Reconnecting,
    /// The call ended in order.
    Left,
    /// The peer called, and the call was not accepted.
    Declined,
    /// The call ended in an error.
    Failed,
}

/// An event. As JSON: an object with `event`, the name in snake case, and the fields.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The server accepts connections; one event for each address.
    Listening {
        /// The URL to open in a browser.
        url: String,
        /// SHA-256 of the certificate, if this address speaks TLS.
        #[serde(skip_serializing_if = "Option::is_none")]
        fingerprint: Option<String>,
    },
    /// The client is registered at the server.
    Registered {
        /// The client's id.
        id: String,
        /// The server's address.
        server: String,
    },
    /// The client is in a room.
    Room {
        /// The room's name.
        room: String,
        /// The peers that joined before.
        peers: Vec<String>,
    },
    /// The state of a call changed.
    Peer {
        /// The peer's id; `caller` if the server does not name the caller.
        peer: String,
        /// The new state.
        state: PeerState,
        /// Reason why the call ended.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The first frame of a stream arrived.
    Media {
        /// The sender.
        peer: String,
        /// `audio` or `video`.
        kind: &'static str,
        /// Always `receive`.
        direction: &'static str,
        /// The codec's name.
        codec: String,
        /// Width of the video in pixels.
        #[serde(skip_serializing_if = "Option::is_none")]
        width: Option<u32>,
        /// Height of the video in pixels.
        #[serde(skip_serializing_if = "Option::is_none")]
        height: Option<u32>,
        /// Time since the connection was opened, in ms.
        first_frame_ms: u64,
    },
    /// The server's back end describes a peer anew.
    Described {
        /// The peer's id.
        peer: String,
        /// The description; null removes it.
        description: serde_json::Value,
    },
    /// A data channel opened: messages can be sent.
    Channel {
        /// The peer's id.
        peer: String,
        /// The channel's label.
        channel: String,
    },
    /// An event of the application behind the server.
    Application {
        /// The event's name.
        name: String,
        /// The event's data.
        data: serde_json::Value,
    },
    /// A text arrived over a data channel.
    Message {
        /// The sender.
        peer: String,
        /// The channel's label.
        channel: String,
        /// The text.
        text: String,
    },
    /// A transfer over a bridged data channel began, made progress or ended.
    Transfer {
        /// With whom.
        peer: String,
        /// The channel's label.
        channel: String,
        /// Bytes sent so far.
        sent: u64,
        /// Bytes received so far.
        received: u64,
        /// Size of the file that is sent, in bytes.
        #[serde(skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
        /// The file with the received bytes, once it is complete.
        #[serde(skip_serializing_if = "Option::is_none")]
        path: Option<String>,
        /// The transfer has ended.
        finished: bool,
    },
    /// A recording began or ended.
    Recording {
        /// The peer that is recorded; `all` for the mix of a room.
        peer: String,
        /// The file.
        path: String,
        /// Whether the file is complete.
        finished: bool,
        /// Reason why the recording ended without a complete file.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// The media that is sent changed.
    Sending {
        /// `audio` or `video`.
        kind: &'static str,
        /// `muted`, `on`, or the new source.
        what: String,
    },
    /// Counters of a connection.
    #[cfg(feature = "media")]
    Stats {
        /// The peer's id.
        peer: String,
        /// The counters.
        #[serde(flatten)]
        stats: crate::media::peer::Stats,
    },
    /// A step of a call's setup, if the trace is switched on.
    Setup {
        /// The peer's id; none for a step of the client itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        peer: Option<String>,
        /// The step in words.
        step: String,
        /// Time since the process began, in ms.
        ms: f64,
        /// Duration of the step, where it is known, in ms.
        #[serde(skip_serializing_if = "Option::is_none")]
        took_ms: Option<f64>,
    },
    /// The client's token ends, and the registration with it unless the client gets the next token.
    TokenExpires {
        /// Time until the end, in seconds.
        seconds: u64,
    },
    /// A problem that does not end the program.
    Warning {
        /// The problem in words.
        text: String,
    },
    /// The program ends.
    Ended {
        /// Reason of the end.
        reason: String,
    },
}

#[cfg(feature = "media")]
impl Event {
    /// Returns the event for a recording of `peer` that began in the file at `path`.
    pub(super) fn recording(peer: &str, path: &std::path::Path) -> Self {
        let path = path.display().to_string();
        Self::Recording { peer: peer.to_owned(), path, finished: false, error: None }
    }

    /// Returns the event for a recording that ended; the file is complete if `error` is absent.
    pub(super) fn recorded(peer: &str, path: &std::path::Path, error: Option<String>) -> Self {
        let path = path.display().to_string();
        Self::Recording { peer: peer.to_owned(), path, finished: error.is_none(), error }
    }
}
