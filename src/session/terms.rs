//! Terms of a negotiation, and the answer that declines one.

use std::time::Duration;

use super::STEP;
use super::watch::Patience;
use crate::protocol::{Description, PeerMessage, SdpKind};
use crate::sdp::{self, Kind, Reach, Sdp};

/// Returns the answer that declines an offer, with the reason for the peer; `None` if `offer` is none.
pub fn decline(offer: &Description, reason: &str) -> Option<PeerMessage> {
    let offered = Sdp::parse(&offer.sdp).ok().filter(|_| offer.kind == SdpKind::Offer)?;
    let sdp = sdp::decline::decline(&offered, reason).to_string();
    Some(PeerMessage::Description(Description { kind: SdpKind::Answer, sdp }))
}

/// Terms on which our side negotiates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Whether this side gives way in a collision of offers.
    pub polite: bool,
    /// Kinds of media that our side wants to send or receive.
    pub wanted: Vec<Kind>,
    /// Maximum time until the peer's first description: the peer may have to ask a person.
    pub ring: Duration,
    /// Whether candidates with mDNS names are accepted.
    pub mdns: bool,
    /// Range of the peer's addresses that are tried.
    pub reach: Reach,
    /// Time after which a path counts as broken, and as lost.
    pub patience: Patience,
    /// Whether this side is the first of the two to reconnect when a path breaks.
    pub reconnects_first: bool,
    /// Whether the media layer can forget an offer of its own that adds m-lines.
    pub forgets: bool,
    /// Whether the call belongs to a pool: no side has to offer, and ids last only as long as the connection to the server.
    pub pool: bool,
}

impl Terms {
    /// Returns the terms of a side that waits for machines only.
    pub fn new(polite: bool, wanted: Vec<Kind>) -> Self {
        Self {
            polite,
            wanted,
            ring: STEP,
            mdns: false,
            reach: Reach::default(),
            patience: Patience::default(),
            reconnects_first: polite,
            forgets: true,
            pool: false,
        }
    }
}
