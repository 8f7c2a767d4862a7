//! ssp as a client speaks it: in pools, in which the server gives the ids. Pure: events in, events out.
//! Version 2, which RTCPool and PyRTC speak since their versions 3 and 2.

use super::{Backend, Event};
use crate::protocol::ssp::{ClientEvent, ServerEvent};
use crate::protocol::{PeerId, PeerMessage, RoomId};

/// The client's side of the protocol on one connection.
#[derive(Debug, Default)]
pub struct SspClient {
    is_in: bool,
}

fn id(text: &str) -> Option<PeerId> {
    PeerId::from_foreign(text).ok()
}

impl SspClient {
    /// A connection just opened.
    pub fn new() -> Self {
        Self::default()
    }

    fn event(&mut self, event: ServerEvent) -> Option<Event> {
        Some(match event {
            ServerEvent::Joined { id: me, peers, descriptions, .. } => {
                self.is_in = true;
                let described = descriptions.into_iter().filter(|(_, description)| !description.is_null());
                Event::Joined {
                    peers: peers.iter().filter_map(|peer| id(peer)).collect(),
                    me: id(&me),
                    descriptions: described.filter_map(|(peer, what)| Some((id(&peer)?, what))).collect(),
                }
            }
            // A server that speaks both versions says both, and means the same.
            ServerEvent::Peer(peer) => Event::PeerJoined(id(&peer)?),
            ServerEvent::RequestOffers(_) => Event::Nothing,
            ServerEvent::Close(peer) => Event::PeerLeft(id(&peer)?),
            ServerEvent::Describe(peer, description) => Event::Described(id(&peer)?, description),
            ServerEvent::Stop => Event::Stopped,
            ServerEvent::Error { message, reason } => Event::Refused(match reason {
                Some(reason) => format!("{message} ({reason})"),
                None => message,
            }),
            ServerEvent::Sdp(from, description)
            | ServerEvent::Offer(from, description)
            | ServerEvent::Answer(from, description) => {
                Event::From(id(&from)?, PeerMessage::Description(description))
            }
            ServerEvent::Candidate(from, candidate) => Event::From(id(&from)?, candidate),
            ServerEvent::Other(_) => Event::Nothing,
        })
    }
}

impl Backend for SspClient {
    fn hello(&self) -> Option<String> {
        None
    }

    fn handle_text(&mut self, text: &str) -> Event {
        match ServerEvent::parse(text) {
            Ok(event) => self.event(event).unwrap_or_else(|| Event::Junk("an id that is none".to_owned())),
            Err(_) => Event::Junk("something that is not part of the protocol".to_owned()),
        }
    }

    fn dial(&mut self, _: &PeerId) -> Option<String> {
        None
    }

    fn join(&mut self, room: &RoomId) -> String {
        ClientEvent::Join(room.to_foreign()).to_string()
    }

    fn address(&self, to: Option<&PeerId>, message: &PeerMessage) -> Option<String> {
        let to = to?.to_foreign();
        match message {
            PeerMessage::Description(description) => Some(ClientEvent::Sdp(to, description.clone())),
            PeerMessage::Candidate(_) | PeerMessage::EndOfCandidates => {
                Some(ClientEvent::Candidate(to, message.clone()))
            }
            PeerMessage::OfferRequest | PeerMessage::Placeholder => None,
        }
        .map(|event| event.to_string())
    }

    fn is_free(&self) -> bool {
        !self.is_in
    }

    fn handle_close(&self, _: &str) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Description, SdpKind};

    #[test]
    fn a_pool_is_entered_and_tells_of_its_endpoints() {
        let mut client = SspClient::new();
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
            Event::Joined { peers: vec![odd.clone()], me: Some(id("me")), descriptions: vec![] }
        );
        assert_eq!(
            client.handle_text(&ServerEvent::Peer("bob".into()).to_string()),
            Event::PeerJoined(id("bob"))
        );
        assert_eq!(client.handle_text(&ServerEvent::RequestOffers("bob".into()).to_string()), Event::Nothing);
        assert_eq!(
            client.handle_text(&ServerEvent::Close("bob".into()).to_string()),
            Event::PeerLeft(id("bob"))
        );
        assert_eq!(client.handle_text(&ServerEvent::Stop.to_string()), Event::Stopped);
        let offer = Description { kind: SdpKind::Offer, sdp: "v=0".into() };
        let sdp = ServerEvent::Sdp("an odd\none".into(), offer.clone()).to_string();
        let message = PeerMessage::Description(offer);
        assert_eq!(client.handle_text(&sdp), Event::From(odd.clone(), message.clone()));
        let line = client.address(Some(&odd), &message).unwrap();
        assert!(line.contains(r#""to":"an odd\none""#), "{line}");
        assert_eq!(client.address(Some(&odd), &PeerMessage::OfferRequest), None);
    }
}
