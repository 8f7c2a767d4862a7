//! Events of a connection.

use super::data_channel::Channel;
use crate::media::receive::track::Track;
use crate::protocol::Candidate;
use crate::sdp::Codec;
use crate::session::ConnectionState;

/// Event of a connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum PeerEvent {
    /// A local candidate, without user fragment.
    LocalCandidate(Candidate),
    /// The connection's state changed.
    Connection(ConnectionState),
    /// The peer sends a stream, for the first time or after a pause.
    Track(Track),
    /// The peer no longer sends this stream.
    TrackEnded(Track),
    /// The first frame of a track has arrived.
    FirstFrame {
        /// The track.
        track: Track,
        /// Width and height of the video in pixels.
        size: Option<(u32, u32)>,
        /// Time since the connection was opened.
        after: std::time::Duration,
    },
    /// A stream of this codec contains data that cannot be read; the data is left out and the rest continues. Sent once
    /// for each stream.
    Broken(Codec),
    /// A data channel is open.
    Channel(Channel),
    /// The peer's certificate does not match its description: the connection is intercepted.
    Forged,
    /// The pipeline failed; the connection is lost.
    Failed(String),
}
