//! The events of signalling: those that a back end decodes from a server's messages, and those of the connection to the
//! server itself. Event loops handle this one type.
//!
//! Pure: no clock, chance, socket or GStreamer.

use super::error::ConnectError;
use crate::protocol::hello::MediaKind;
use crate::protocol::{IceServer, ParticipantId, PeerId, PeerMessage, Refusal, RoomId};
use crate::session::Participant;

/// An event of the connection to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The client is registered, for the first time or again.
    Registered,
    /// The connection to the server ended. Peers that are connected stay connected.
    Lost {
        /// The server closed the connection in order (code 1000), as it does when the peer of a 1-1 call is gone.
        in_order: bool,
    },
    /// A problem that does not end the connection, in words: an attempt to register again failed for a reason that was
    /// not reported before, and another attempt follows; or a STUN or TURN server of the signalling server is not used.
    Warning(String),
    /// The connection ended for good: the client does not register again. No event follows.
    Ended(ConnectError),
    /// The STUN and TURN servers to use from now on.
    IceServers(Vec<IceServer>),
    /// The server refused a request of the client.
    Refused(Refusal),
    /// A message of the server or of the other peer of a call is useless, for this reason.
    Junk(String),
    /// The server accepted the client's call.
    Accepted,
    /// This peer calls the client. Not every server names the caller.
    Caller(PeerId),
    /// A message of the other peer of a call.
    Peer(PeerMessage),
    /// The client is in the room, for the first time or again after [`Event::Lost`].
    Joined {
        /// The id that the server gave the client, if any.
        me: Option<PeerId>,
        /// The peers that joined before the client. The client offers to them and is the polite side.
        peers: Vec<PeerId>,
        /// Descriptions of some of the participants, from the application behind the server.
        descriptions: Vec<(ParticipantId, serde_json::Value)>,
    },
    /// The connection with this peer carries the media of these participants, not of the peer itself. Replaces the
    /// announcement before; may come before [`Event::Joined`].
    Participants(PeerId, Vec<Participant>),
    /// A peer joined the room.
    PeerJoined(PeerId),
    /// A peer left the room.
    PeerLeft(PeerId),
    /// A message of a peer of the room.
    From(PeerId, PeerMessage),
    /// A message of a peer of the room is useless, for this reason.
    JunkFrom(PeerId, String),
    /// The application behind the server describes a participant; null removes the description.
    Described(ParticipantId, serde_json::Value),
    /// The client is asked to mute what it sends: by this moderator of the room, or by the back end of the server.
    MuteRequested(MediaKind, Option<PeerId>),
    /// The client's token ends in so many seconds, and the registration with it unless the server gets the next token.
    TokenExpires(u64),
    /// The server refused the client's next token, for this reason; the one before counts on.
    TokenRefused(String),
    /// The back end of the server asks the client to leave its room and to join this one.
    Moved(RoomId),
    /// An event of the application behind the server: the name and the data.
    Application(String, serde_json::Value),
}
