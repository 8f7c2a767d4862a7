//! How our side negotiates, and how it says that it does not.

use std::time::Duration;

use super::STEP;
use super::watch::Patience;
use crate::protocol::{Description, PeerMessage, SdpKind};
use crate::sdp::{self, Kind, Reach, Sdp};

/// The answer to an offer that is not taken, with the reason for the peer; nothing where it is no offer.
pub fn decline(offer: &Description, reason: &str) -> Option<PeerMessage> {
    let offered = Sdp::parse(&offer.sdp).ok().filter(|_| offer.kind == SdpKind::Offer)?;
    let sdp = sdp::decline::decline(&offered, reason).to_string();
    Some(PeerMessage::Description(Description { kind: SdpKind::Answer, sdp }))
}

/// How our side negotiates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// In a collision this side gives way.
    pub polite: bool,
    /// The kinds of media that it means to send or receive.
    pub wanted: Vec<Kind>,
    /// How long the peer may take for its first description: a person may have to be asked.
    pub ring: Duration,
    /// Candidates with mDNS names are taken.
    pub mdns: bool,
    /// Range of the peer's addresses that are tried.
    pub reach: Reach,
    /// When a path counts as broken, and as lost.
    pub patience: Patience,
    /// Whether this side is the first of the two to make a new path when one breaks.
    pub reconnects_first: bool,
    /// The media layer can forget an offer that it made and that adds m-lines.
    pub forgets: bool,
    /// In a pool nobody has to offer, and ids last only as long as the connection to the server.
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
