//! What the programs tell: for people as lines, for programs as JSON.

use std::sync::Arc;

use serde::Serialize;

/// Where events go.
pub type Sink = Arc<dyn Fn(&Event) + Send + Sync>;

/// Where a call with a peer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// It is in the room.
    Joined,
    /// It calls, and waits for our side to take the call.
    Calling,
    /// It called or was called; descriptions are being exchanged.
    Connecting,
    /// Media can flow.
    Connected,
    /// The path broke and is being mended.
    Reconnecting,
    /// The call ended in order.
    Left,
    /// It called, and the call was not taken.
    Declined,
    /// The call ended in an error.
    Failed,
}

/// Something that happened. As JSON: an object with `event` in snake case, and these fields.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The server takes connections; one for each address.
    Listening {
        /// What to open in a browser.
        url: String,
        /// SHA-256 of the certificate, where this address speaks TLS.
        #[serde(skip_serializing_if = "Option::is_none")]
        fingerprint: Option<String>,
    },
    /// The server knows us.
    Registered {
        /// By this id.
        id: String,
        /// The server's address.
        server: String,
    },
    /// We are in a room.
    Room {
        /// Its name.
        room: String,
        /// Who was there before us.
        peers: Vec<String>,
    },
    /// A call changed.
    Peer {
        /// The peer's id; `caller` where the server does not tell it.
        peer: String,
        /// Where the call stands.
        state: PeerState,
        /// Why it ended.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The first frame of a stream came.
    Media {
        /// From whom.
        peer: String,
        /// `audio` or `video`.
        kind: &'static str,
        /// Always `receive`.
        direction: &'static str,
        /// The codec's name.
        codec: String,
        /// The picture's width in pixels.
        #[serde(skip_serializing_if = "Option::is_none")]
        width: Option<u32>,
        /// The picture's height in pixels.
        #[serde(skip_serializing_if = "Option::is_none")]
        height: Option<u32>,
        /// Since the connection was opened, in ms.
        first_frame_ms: u64,
    },
    /// The server's back end says something of a peer; null where it says nothing any more.
    Described {
        /// Of whom.
        peer: String,
        /// What.
        description: serde_json::Value,
    },
    /// A data channel opened: messages can be sent.
    Channel {
        /// With whom.
        peer: String,
        /// The channel's label.
        channel: String,
    },
    /// An event of the application behind the server.
    Application {
        /// Its name.
        name: String,
        /// Its data.
        data: serde_json::Value,
    },
    /// A text came over a data channel.
    Message {
        /// From whom.
        peer: String,
        /// The channel's label.
        channel: String,
        /// The text.
        text: String,
    },
    /// A data channel that is joined to something began to carry, carried on, or ended.
    Transfer {
        /// With whom.
        peer: String,
        /// The channel's label.
        channel: String,
        /// Bytes of ours by now.
        sent: u64,
        /// Bytes of the peer's by now.
        received: u64,
        /// Bytes that there are to send, where it is a file.
        total: Option<u64>,
        /// The file that the peer's bytes are in, once it is complete.
        path: Option<String>,
        /// Nothing more is carried.
        finished: bool,
    },
    /// A recording began or ended.
    Recording {
        /// Of whom.
        peer: String,
        /// The file.
        path: String,
        /// Whether the file is complete.
        finished: bool,
        /// Reason why the recording ended without a complete file.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// What is sent changed.
    Sending {
        /// `audio` or `video`.
        kind: &'static str,
        /// `muted`, `on`, or the new source.
        what: String,
    },
    /// Counters of a connection.
    #[cfg(feature = "media")]
    Stats {
        /// With whom.
        peer: String,
        /// The counters.
        #[serde(flatten)]
        stats: crate::media::peer::Stats,
    },
    /// A step on the way to a call, where it is asked for.
    Setup {
        /// With whom; none where it is our own.
        peer: Option<String>,
        /// In words.
        step: String,
        /// Since the process began.
        ms: f64,
        /// What this step alone took, where it is known.
        took_ms: Option<f64>,
    },
    /// Something that the user should know; things go on.
    Warning {
        /// In words.
        text: String,
    },
    /// The program ends.
    Ended {
        /// Why.
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
