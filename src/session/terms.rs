//! Settings of a negotiation, and the answer that declines an offer.

use std::time::Duration;

use super::STEP;
use super::watch::Patience;
use crate::protocol::{Description, PeerMessage, SdpKind};
use crate::sdp::{self, Kind, Reach, Sdp};

/// Returns the answer that declines an offer and contains the reason; `None` if `offer` is not a valid offer.
pub fn decline(offer: &Description, reason: &str) -> Option<PeerMessage> {
    let offered = Sdp::parse(&offer.sdp).ok().filter(|_| offer.kind == SdpKind::Offer)?;
    let sdp = sdp::decline::decline(&offered, reason).to_string();
    Some(PeerMessage::Description(Description { kind: SdpKind::Answer, sdp }))
}

/// Settings of a negotiation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Whether this side gives way if the offers of both sides collide ("polite peer" of perfect negotiation).
    pub polite: bool,
    /// Kinds of media that our side wants to send or receive.
    pub wanted: Vec<Kind>,
    /// Maximum time until the peer's first description, for which the peer may have to ask a person.
    pub ring: Duration,
    /// Whether candidates with mDNS names are accepted.
    pub mdns: bool,
    /// Addresses of the peer to which our side sends packets.
    pub reach: Reach,
    /// Times after which a path counts as broken, and as lost.
    pub patience: Patience,
    /// Whether this side reconnects before the other side when a path breaks.
    pub reconnects_first: bool,
    /// Whether webrtcbin can drop an offer of ours that adds m-lines; some versions then end the process.
    pub drops_added_lines: bool,
    /// Whether the peer is a media server that answers one offer on each connection, and makes none. The offer is applied
    /// together with the answer, because the server's STUN and TURN servers come with the answer; a broken path, and a
    /// server that closes the connection, take a fresh connection.
    pub single_exchange: bool,
    /// Whether the call belongs to a pool: no side has to offer, and ids last only as long as the connection to the
    /// server.
    pub pool: bool,
}

impl Terms {
    /// Returns the settings for a peer that does not ask a person before it answers.
    pub fn new(polite: bool, wanted: Vec<Kind>) -> Self {
        Self {
            polite,
            wanted,
            ring: STEP,
            mdns: false,
            reach: Reach::default(),
            patience: Patience::default(),
            reconnects_first: polite,
            drops_added_lines: true,
            single_exchange: false,
            pool: false,
        }
    }
}
