//! Events of a connection.

use super::data_channel::Channel;
use crate::media::receive::track::Track;
use crate::sdp::Codec;
use crate::session::ConnectionState;

/// Event of a connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum PeerEvent {
    /// A candidate of ours: the m-line's index and the attribute.
    LocalCandidate(u32, String),
    /// The connection's state changed.
    Connection(ConnectionState),
    /// The peer sends a stream, for the first time or again.
    Track(Track),
    /// The peer no longer sends this stream.
    TrackEnded(Track),
    /// The first frame of a stream came.
    FirstFrame {
        /// Its codec.
        codec: Codec,
        /// Width and height of a picture.
        size: Option<(u32, u32)>,
        /// Since the connection was opened.
        after: std::time::Duration,
    },
    /// A stream of this codec contains data that cannot be read; the data is left out and the rest continues. Sent once
    /// for each stream.
    Broken(Codec),
    /// A data channel can be written to.
    Channel(Channel),
    /// The peer's certificate is not the one that its description names: somebody sits between.
    Forged,
    /// The pipeline failed; the call cannot go on.
    Failed(String),
}
