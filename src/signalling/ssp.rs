//! ssp as a client speaks it: in pools, in which the server gives the ids. Pure: events in, events out. RTCPool and
//! PyRTC speak version 2 since their versions 3 and 2; nobody says which it is, but the words show it.
//!
//! Pure: no clock, chance, socket or GStreamer.

use serde_json::Value;
use std::collections::BTreeMap;

use super::backend::{Backend, Closing, foreign};
use super::error::ConnectError;
use super::event::Event;
use crate::protocol::id::IdError;
use crate::protocol::ssp::{ClientEvent, ServerEvent, Version};
use crate::protocol::{PeerId, PeerMessage, Refusal, RoomId, SdpKind};

/// What the server says to one that speaks version 2, if it does not.
const NOT_TWO: &str = "RTC action 'sdp' not recognized.";

/// Close code "protocol error" (RFC 6455, 7.4.1).
const PROTOCOL_ERROR: u16 = 1002;

/// The reason given to the user when the server closed the pool.
const CLOSED_POOL: &str = "it closed the pool";

/// The client's side of the protocol on one connection.
#[derive(Debug, Default)]
pub struct Ssp {
    is_in: bool,
    version: Version,
    /// What those are called in the pool whose ids may not stand here as they are.
    odd: BTreeMap<PeerId, String>,
}

/// The most ids with characters that ours may not have that are remembered.
const MAX_ODD: usize = 4096;

impl Ssp {
    /// A connection just opened, to a server of that version.
    pub fn new(version: Version) -> Self {
        Self { version, ..Self::default() }
    }

    /// What we call an endpoint.
    fn id(&mut self, text: &str) -> Result<PeerId, IdError> {
        let id = PeerId::from_foreign(text)?;
        if id.as_str() != text && self.odd.len() < MAX_ODD {
            self.odd.insert(id.clone(), text.to_owned());
        }
        Ok(id)
    }

    /// The server's words are those of this version; false where it was known to speak the other one, and says
    /// this for those who do not.
    fn speaks(&mut self, version: Version) -> bool {
        if self.version == Version::Auto {
            self.version = version;
        }
        self.version == version
    }

    /// Returns the event for a message of the server: none if the message is a repetition in the other version's words.
    ///
    /// # Errors
    ///
    /// [`IdError`] if the message names an endpoint whose id is not one.
    fn event(&mut self, event: ServerEvent) -> Result<Option<Event>, IdError> {
        Ok(Some(match event {
            ServerEvent::Joined { id: me, peers, descriptions, .. } => {
                self.is_in = true;
                let described = descriptions.into_iter().filter(|(_, description)| !description.is_null());
                Event::Joined {
                    me: self.id(&me).ok(),
                    peers: peers.iter().filter_map(|peer| self.id(peer).ok()).collect(),
                    descriptions: described
                        .filter_map(|(peer, what)| Some((self.id(&peer).ok()?, what)))
                        .collect(),
                }
            }
            ServerEvent::Peer(peer) if self.speaks(Version::Two) => Event::PeerJoined(self.id(&peer)?),
            ServerEvent::RequestOffers(peer) if self.speaks(Version::One) => {
                Event::PeerJoined(self.id(&peer)?)
            }
            ServerEvent::Close(peer) => Event::PeerLeft(self.id(&peer)?),
            ServerEvent::Describe(peer, description) => Event::Described(self.id(&peer)?, description),
            ServerEvent::Stop => Event::Ended(ConnectError::Dismissed(CLOSED_POOL.to_owned())),
            ServerEvent::Error { message, .. } if message == NOT_TWO && self.speaks(Version::One) => {
                return Ok(None);
            }
            ServerEvent::Error { message, reason } => Event::Refused(Refusal::Other(match reason {
                Some(reason) => format!("{message} ({reason})"),
                None => message,
            })),
            ServerEvent::Sdp(from, description) if self.speaks(Version::Two) => {
                Event::From(self.id(&from)?, PeerMessage::Description(description))
            }
            ServerEvent::Offer(from, description) | ServerEvent::Answer(from, description)
                if self.speaks(Version::One) =>
            {
                Event::From(self.id(&from)?, PeerMessage::Description(description))
            }
            ServerEvent::Candidate(from, candidate) => Event::From(self.id(&from)?, candidate),
            ServerEvent::Other(kind, data) => Event::Application(kind, Value::Object(data)),
            // A server that speaks both versions says both, and means the same.
            ServerEvent::Peer(_)
            | ServerEvent::RequestOffers(_)
            | ServerEvent::Sdp(..)
            | ServerEvent::Offer(..)
            | ServerEvent::Answer(..) => return Ok(None),
        }))
    }
}

impl Backend for Ssp {
    fn hello(&self) -> Option<String> {
        None
    }

    fn handle_text(&mut self, text: &str) -> Option<Event> {
        match ServerEvent::parse(text).map(|event| self.event(event)) {
            Ok(Ok(event)) => event,
            Ok(Err(_)) => Some(Event::Junk("an id that is none".to_owned())),
            // Every ssp message is JSON; other text belongs to another protocol.
            Err(_) if !self.is_in && !text.trim_start().starts_with('{') => Some(foreign(text)),
            Err(_) => Some(Event::Junk("something that is not part of the protocol".to_owned())),
        }
    }

    fn dial(&mut self, _: &PeerId) -> Option<String> {
        None
    }

    fn join(&mut self, room: &RoomId) -> String {
        ClientEvent::Join(room.to_foreign()).to_string()
    }

    fn address(&self, to: Option<&PeerId>, message: &PeerMessage) -> Option<String> {
        let to = to?;
        let to = self.odd.get(to).cloned().unwrap_or_else(|| to.to_string());
        match message {
            PeerMessage::Description(sdp) => Some(match (self.version, sdp.kind) {
                (Version::One, SdpKind::Offer) => ClientEvent::Offers(vec![(to, sdp.clone())]),
                (Version::One, SdpKind::Answer) => ClientEvent::Answer(to, sdp.clone()),
                (Version::Auto | Version::Two, _) => ClientEvent::Sdp(to, sdp.clone()),
            }),
            PeerMessage::Candidate(_) | PeerMessage::EndOfCandidates => {
                Some(ClientEvent::Candidate(to, message.clone()))
            }
            PeerMessage::OfferRequest | PeerMessage::Placeholder => None,
        }
        .map(|event| event.to_string())
    }

    fn tell(&self, kind: &str, data: &Value) -> Option<String> {
        // Those of the protocol are not the application's to say.
        let is_own = !kind.starts_with("rtc:");
        is_own.then_some(ClientEvent::Other(kind.to_owned(), data.as_object()?.clone()).to_string())
    }

    fn is_free(&self) -> bool {
        !self.is_in
    }

    fn handle_close(&self, code: u16, reason: &str) -> Closing {
        match (code, reason) {
            // Servers of the room protocol close with "protocol error" (RFC 6455, 7.4.1) if the first message is not
            // HELLO.
            (PROTOCOL_ERROR, reason) => Closing::Foreign(format!("{code} {reason}")),
            (_, "") => Closing::Silent,
            (_, reason) => Closing::Refused(Refusal::Other(reason.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Description, SdpKind};

    #[test]
    fn a_pool_is_entered_and_tells_of_its_endpoints() {
        let mut client = Ssp::new(Version::Auto);
        let id = |text: &str| PeerId::from_foreign(text).unwrap();
        let room = RoomId::from_foreign("the attic").unwrap();
        assert_eq!(client.join(&room), r#"{"data":{"pool":"the attic"},"type":"rtc:join"}"#);
        let joined = ServerEvent::Joined {
            id: "me".into(),
            pool: "the attic".into(),
            peers: vec!["an odd\none".into()],
            descriptions: vec![],
        };
        let odd = id("an odd\none");
        assert_eq!(
            client.handle_text(&joined.to_string()),
            Some(Event::Joined { me: Some(id("me")), peers: vec![odd.clone()], descriptions: vec![] })
        );
        assert_eq!(
            client.handle_text(&ServerEvent::Peer("bob".into()).to_string()),
            Some(Event::PeerJoined(id("bob")))
        );
        assert_eq!(client.handle_text(&ServerEvent::RequestOffers("bob".into()).to_string()), None);
        assert_eq!(
            client.handle_text(&ServerEvent::Close("bob".into()).to_string()),
            Some(Event::PeerLeft(id("bob")))
        );
        assert_eq!(
            client.handle_text(&ServerEvent::Stop.to_string()),
            Some(Event::Ended(ConnectError::Dismissed(CLOSED_POOL.into())))
        );
        let offer = Description { kind: SdpKind::Offer, sdp: "v=0".into() };
        let sdp = ServerEvent::Sdp("an odd\none".into(), offer.clone()).to_string();
        let message = PeerMessage::Description(offer);
        assert_eq!(client.handle_text(&sdp), Some(Event::From(odd.clone(), message.clone())));
        let line = client.address(Some(&odd), &message).unwrap();
        assert!(line.contains(r#""to":"an odd\none""#), "{line}");
        assert_eq!(client.address(Some(&odd), &PeerMessage::OfferRequest), None);
        // One that only looks encoded is taken as it is.
        client.handle_text(&ServerEvent::Peer("%41 ".into()).to_string());
        client.handle_text(&ServerEvent::Peer("%41".into()).to_string());
        for name in ["%41", "%41 "] {
            let line = client.address(Some(&id(name)), &message).unwrap();
            assert!(line.contains(&format!(r#""to":"{name}""#)), "{line}");
        }
    }

    #[test]
    fn a_server_of_rooms_is_no_server_of_pools() {
        let mut client = Ssp::new(Version::Auto);
        assert_eq!(
            client.handle_text("ERROR unknown command"),
            Some(Event::Foreign("ERROR unknown command".into()))
        );
        assert!(matches!(client.handle_text(r#"{"type": 1}"#), Some(Event::Junk(_))));
        let closing = client.handle_close(1002, "invalid protocol");
        assert_eq!(closing, Closing::Foreign("1002 invalid protocol".into()));
        assert_eq!(client.handle_close(1006, ""), Closing::Silent);
    }

    #[test]
    fn the_version_is_known_by_what_the_server_says() {
        let offer = Description { kind: SdpKind::Offer, sdp: "v=0".into() };
        let message = PeerMessage::Description(offer.clone());
        let bob = PeerId::from_foreign("bob").unwrap();
        let sdp = || ServerEvent::Sdp("bob".into(), offer.clone()).to_string();
        let of_one = || ServerEvent::Offer("bob".into(), offer.clone()).to_string();
        let said = |client: &Ssp| client.address(Some(&bob), &message).unwrap();
        // One that speaks both says everything twice.
        let mut both = Ssp::new(Version::Auto);
        assert_eq!(both.handle_text(&sdp()), Some(Event::From(bob.clone(), message.clone())));
        assert_eq!(both.handle_text(&of_one()), None);
        assert!(said(&both).contains("rtc:sdp"));
        // One of age shows it by its own words, or by not understanding ours.
        let mut old = Ssp::new(Version::Auto);
        assert_eq!(
            old.handle_text(&ServerEvent::RequestOffers("bob".into()).to_string()),
            Some(Event::PeerJoined(bob.clone()))
        );
        assert!(said(&old).contains("rtc:offers"));
        assert_eq!(old.handle_text(&of_one()), Some(Event::From(bob.clone(), message.clone())));
        let mut deaf = Ssp::new(Version::Auto);
        let error = ServerEvent::Error { message: NOT_TWO.into(), reason: None };
        assert_eq!(deaf.handle_text(&error.to_string()), None);
        let answer = PeerMessage::Description(Description { kind: SdpKind::Answer, sdp: "v=0".into() });
        assert!(deaf.address(Some(&bob), &answer).unwrap().contains("rtc:answer"));
        // Who chose is not talked out of it.
        let mut chosen = Ssp::new(Version::Two);
        assert_eq!(chosen.handle_text(&of_one()), None);
        assert!(said(&chosen).contains("rtc:sdp"));
    }
}
