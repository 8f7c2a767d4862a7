//! Inputs and outputs of the state machines of links, rooms and calls.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::time::Duration;

use super::candidate_summary::CandidateSummary;
use super::delivery;
use super::effect::{Effect, EffectId};
use crate::protocol::{Candidate, PeerId, PeerMessage, Refusal};
use crate::sdp::Sdp;

/// State of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionState {
    /// ICE and DTLS are connected.
    Connected,
    /// ICE or DTLS failed, before or after a path was found.
    Failed,
    /// The peer closed its side (DTLS close).
    Closed,
    /// The peer's certificate differs from the fingerprint in its description.
    Forged,
}

/// An input of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A message of the peer.
    Peer(PeerMessage),
    /// The peer sent a text that is not a message, for this reason.
    Junk(String),
    /// The effect with this id ended: with the description that it created, in the form that the peer gets, or with
    /// `None` if it creates none; or it failed, for the reason in the error.
    Result(EffectId, Result<Option<Sdp>, String>),
    /// The connection found a candidate of ours; its user fragment is not set.
    LocalCandidate(Candidate),
    /// The connection changed.
    Connection(ConnectionState),
    /// A packet of the peer arrived. Contains whether media arrived, not only reports.
    Heard(bool),
    /// Numbers of sent packets and of the peer's reports on their arrival.
    Report(delivery::Report),
    /// The local network changed.
    NetworkChanged,
    /// Our side has to make an offer, since its media or channels changed.
    Negotiate,
    /// Our side wants a new path.
    Renew,
    /// The server reports that the peer is gone.
    PeerGone,
    /// Whether messages reach the peer.
    Reachable(bool),
    /// Our side ends the call.
    HangUp,
}

/// An output of a link, a room or a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A message for the peer.
    Send(PeerMessage),
    /// A task for the connection.
    Effect(Effect),
    /// ICE and DTLS are connected, for the first time or again.
    Connected,
    /// The path broke; a new one is being negotiated.
    Reconnecting,
    /// A message was dropped, or a peer is left out; everything else goes on.
    Warning(String),
    /// The call ended, also one that has no link yet. The last output of a link or a call.
    Ended(EndReason),
    /// Descriptions will be exchanged with the peer. From rooms and calls.
    Connecting,
    /// The peer is in the room.
    Joined,
    /// The peer is no longer in the room; the link with the peer is over, if there was one.
    Left,
    /// A call requests a session with this peer from the server.
    Dial(PeerId),
    /// A call learned the caller's id; some servers do not send it.
    Caller(PeerId),
    /// A call asks our side whether it accepts.
    Ask,
    /// Another peer calls during this call: the server has to end the session with that peer.
    Busy,
}

/// Reason for the end of a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndReason {
    /// Our side hung up.
    #[error("hung up")]
    HungUp,
    /// The peer hung up, or its connection to the server broke.
    #[error("the peer hung up")]
    PeerHungUp,
    /// The server refused the call.
    #[error("the server refused the call: {0}")]
    Refused(Refusal),
    /// Our side did not accept the call, for this reason.
    #[error("the call was not accepted: {0}")]
    NotTaken(String),
    /// The peer declined the call, for this reason.
    #[error("the peer declined: {0}")]
    Declined(String),
    /// A step failed, or took too long.
    #[error("waiting for {step}: {reason}")]
    Negotiation {
        /// The pending step.
        step: &'static str,
        /// The cause.
        reason: String,
    },
    /// The descriptions were exchanged, but no path to the peer was found.
    #[error("no network path to the peer was found; {0}")]
    NoPath(CandidateSummary),
    /// The peer's certificate differs from its description: the relay of the descriptions may have changed them.
    #[error("the peer's certificate is not the one in its description: somebody sits between the two")]
    Forged,
    /// The path to the peer broke.
    #[error("the connection to the peer broke")]
    Lost,
}

impl EndReason {
    /// Returns the end of a call whose step took longer than `after`.
    pub(super) fn timed_out(step: &'static str, after: Duration) -> Self {
        Self::Negotiation { step, reason: format!("nothing came for {} s", after.as_secs()) }
    }
}
