//! Reports of a conference and of its connections, for programs and for the presentation.

use std::time::Duration;

use serde_json::Value;

use super::error::ClientError;
use crate::media::receive::Track;
use crate::media::webrtc::data_channel::Channel;
use crate::protocol::hello::MediaKind;
use crate::protocol::{ParticipantId, PeerId, RoomId};
use crate::session::EndReason;

/// An event of a pool.
#[derive(Debug)]
#[non_exhaustive]
pub enum PoolEvent {
    /// This endpoint joined the pool, for the first time or again.
    Join {
        /// The id of this endpoint, if the server assigned one.
        me: Option<PeerId>,
        /// The participants that were in the pool before.
        participants: Vec<ParticipantId>,
    },
    /// A participant is in the pool.
    Participant(ParticipantId),
    /// A participant left the pool.
    Left(ParticipantId),
    /// Media and messages flow between this endpoint and a peer, for the first time or again.
    Connected(PeerId),
    /// The path to a peer is disconnected; a new path is being negotiated.
    Reconnecting(PeerId),
    /// A participant sends a track, for the first time or again. A track that another participant sent before has passed
    /// to this one.
    Track(ParticipantId, Track),
    /// A participant no longer sends a track.
    TrackEnded(ParticipantId, Track),
    /// A data channel with a peer is open, whichever side opened it.
    DataChannel(PeerId, Channel),
    /// The server's back end describes a participant anew.
    Describe(ParticipantId, Value),
    /// The peer of a connection left, or the connection ended; the reason, where it is known.
    Close(PeerId, Option<EndReason>),
    /// A moderator of the room, or the server's back end, asks this endpoint to mute what it sends.
    MuteRequested(MediaKind, Option<PeerId>),
    /// The token of this endpoint ends in so many seconds, and its place in the pool unless the server gets the next token.
    TokenExpires(u64),
    /// An event of the application behind the server: its name and its data.
    Application(String, Value),
    /// The connection to the server is lost and being restored. Connections with peers stay.
    Gone,
    /// No peer can be reached any more, for this reason. The last event.
    Stop(String),
    /// A problem that does not end the pool, in words.
    Warning(String),
}

/// A report of a conference or of one of its connections.
#[derive(Debug)]
pub(super) enum Report {
    /// An event that programs receive as well.
    Pool(PoolEvent),
    /// A connection with the peer was opened, in place of the previous one if there was any.
    Opened(PeerId),
    /// The back end of the server asks the client to leave the room and to join this one.
    Moved(RoomId),
    /// The exchange of descriptions with the peer begins.
    Connecting(PeerId),
    /// The first frame of a track arrived.
    FirstFrame {
        /// The sender.
        participant: ParticipantId,
        /// The track.
        track: Track,
        /// Width and height of a video frame, in pixels.
        size: Option<(u32, u32)>,
        /// Time since the connection was opened.
        after: Duration,
    },
    /// A track that no announced participant sends: earlier outputs of the track end.
    Unassigned(Track),
    /// The conference is over, for this reason. The last report.
    Stopped(ClientError),
}
