//! The room protocol as a client speaks it, in 1-1 calls and in rooms. Pure: lines in, events out.
//!
//! Pure: no clock, chance, socket or GStreamer.

use super::backend::{Backend, Closing, foreign};
use super::event::Event;
use crate::protocol::hello::{ClientMessage, ServerMessage, refusal};
use crate::protocol::{PeerId, PeerMessage, Refusal, RoomId};

/// Where the conversation with the server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// `HELLO` is sent.
    Registering,
    /// Registered; nobody called, and we called nobody.
    Lobby,
    /// `SESSION` is sent.
    Dialling,
    /// In a session: all that comes is the other peer's.
    Session,
    /// `ROOM` is sent.
    Joining,
    /// In a room.
    Room,
}

/// The client's side of the protocol on one connection.
#[derive(Debug)]
pub struct Hello {
    phase: Phase,
    id: PeerId,
    /// `SESSION` is sent, whether or not we are registered by now.
    has_dialled: bool,
}

impl Hello {
    /// A connection just opened, for somebody of that name.
    pub fn new(id: &PeerId) -> Self {
        Self { phase: Phase::Registering, id: id.clone(), has_dialled: false }
    }
}

impl Backend for Hello {
    fn hello(&self) -> Option<String> {
        Some(ClientMessage::Hello(self.id.clone()).to_string())
    }

    fn dial(&mut self, peer: &PeerId) -> Option<String> {
        if self.phase != Phase::Registering {
            self.phase = Phase::Dialling;
        }
        let says = !std::mem::replace(&mut self.has_dialled, true);
        says.then(|| ClientMessage::Session(peer.clone()).to_string())
    }

    fn join(&mut self, room: &RoomId) -> String {
        self.phase = Phase::Joining;
        ClientMessage::Room(room.clone()).to_string()
    }

    fn address(&self, to: Option<&PeerId>, message: &PeerMessage) -> Option<String> {
        Some(match to {
            None => message.to_string(),
            Some(to) => ClientMessage::RoomPeerMsg { to: to.clone(), body: message.to_string() }.to_string(),
        })
    }

    fn handle_text(&mut self, line: &str) -> Option<Event> {
        // What is relayed can look like anything, the server's own words too: in a session it is the
        // peer's, and only JSON and OFFER_REQUEST mean something there.
        if self.phase == Phase::Session {
            return Some(peer_message(line));
        }
        Some(match (ServerMessage::parse(line), self.phase) {
            (Ok(ServerMessage::IceServers(servers)), _) => Event::IceServers(servers),
            (Ok(ServerMessage::Hello), Phase::Registering) => {
                self.phase = if self.has_dialled { Phase::Dialling } else { Phase::Lobby };
                Event::Registered
            }
            (Ok(ServerMessage::SessionOk), Phase::Dialling) => {
                self.phase = Phase::Session;
                Event::Accepted
            }
            (Ok(ServerMessage::SessionFrom(peer)), Phase::Lobby) => {
                self.phase = Phase::Session;
                Event::Caller(peer)
            }
            (Ok(ServerMessage::Error(text)), Phase::Registering | Phase::Dialling | Phase::Lobby) => {
                if self.phase == Phase::Dialling {
                    self.phase = Phase::Lobby;
                    self.has_dialled = false;
                }
                Event::Refused(refusal(text))
            }
            (Ok(ServerMessage::RoomOk(peers)), Phase::Joining) => {
                self.phase = Phase::Room;
                Event::Joined { me: None, peers, descriptions: vec![] }
            }
            (Ok(ServerMessage::RoomPeerJoined(peer)), Phase::Room) => Event::PeerJoined(peer),
            (Ok(ServerMessage::RoomPeerLeft(peer)), Phase::Room) => Event::PeerLeft(peer),
            (Ok(ServerMessage::RoomPeerDescribed(peer, description)), Phase::Room) => {
                Event::Described(peer, description)
            }
            (Ok(ServerMessage::RoomPeerMsg { from, body }), Phase::Room) => match PeerMessage::parse(&body) {
                Ok(message) => Event::From(from, message),
                Err(error) => Event::JunkFrom(from, error.to_string()),
            },
            (Ok(ServerMessage::Error(text)), Phase::Joining | Phase::Room) => Event::Refused(refusal(text)),
            (Err(_), Phase::Registering) if is_of_pools(line) => foreign(line),
            // The first word of a caller, whom the server did not announce.
            (_, Phase::Lobby) => {
                self.phase = Phase::Session;
                peer_message(line)
            }
            (_, Phase::Registering | Phase::Dialling | Phase::Session | Phase::Joining | Phase::Room) => {
                Event::Junk("something that is not part of the protocol here".to_owned())
            }
        })
    }

    fn is_free(&self) -> bool {
        self.phase == Phase::Lobby
    }

    fn handle_close(&self, _: u16, reason: &str) -> Closing {
        match reason {
            "" => Closing::Silent,
            "invalid peer uid" => {
                let why = "the id is taken or invalid (invalid peer uid)";
                Closing::Refused(Refusal::Other(why.to_owned()))
            }
            reason => Closing::Refused(refusal(reason.to_owned())),
        }
    }
}

fn peer_message(line: &str) -> Event {
    match PeerMessage::parse(line) {
        Ok(message) => Event::Peer(message),
        Err(error) => Event::Junk(error.to_string()),
    }
}

/// Returns whether a server of pools sent the line: an event of ssp, or the greeting of socket.io.
fn is_of_pools(line: &str) -> bool {
    let is_event = || {
        let value: Result<serde_json::Value, _> = serde_json::from_str(line);
        value.is_ok_and(|value| value["type"].is_string())
    };
    line.starts_with("0{") || is_event()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn registered() -> Hello {
        let mut client = Hello::new(&"ann".parse().unwrap());
        assert_eq!(client.hello().as_deref(), Some("HELLO ann"));
        assert_eq!(client.handle_text("HELLO"), Some(Event::Registered));
        client
    }

    #[test]
    fn a_call_is_dialled_and_then_everything_is_the_peers() {
        let mut client = registered();
        assert_eq!(client.dial(&"bob".parse().unwrap()).as_deref(), Some("SESSION bob"));
        assert_eq!(client.handle_text("SESSION_OK"), Some(Event::Accepted));
        assert_eq!(
            client.handle_text("ERROR forged"),
            Some(Event::Junk("a message that is not JSON".into()))
        );
        assert_eq!(client.handle_text("OFFER_REQUEST"), Some(Event::Peer(PeerMessage::OfferRequest)));
    }

    #[test]
    fn a_call_can_be_dialled_before_the_server_answers() {
        let bob: PeerId = "bob".parse().unwrap();
        let mut client = Hello::new(&"ann".parse().unwrap());
        assert_eq!(client.dial(&bob).as_deref(), Some("SESSION bob"));
        assert_eq!(client.handle_text("HELLO"), Some(Event::Registered));
        // It is said already.
        assert!(client.dial(&bob).is_none() && !client.is_free());
        assert_eq!(
            client.handle_text("ERROR peer 'bob' busy"),
            Some(Event::Refused(Refusal::PeerBusy("peer 'bob' busy".into())))
        );
        assert!(client.is_free());
        assert_eq!(client.dial(&bob).as_deref(), Some("SESSION bob"));
        assert_eq!(client.handle_text("SESSION_OK"), Some(Event::Accepted));
    }

    #[test]
    fn a_call_is_taken_with_and_without_the_callers_name() {
        let mut client = registered();
        assert_eq!(client.handle_text("SESSION_FROM bob"), Some(Event::Caller("bob".parse().unwrap())));
        assert!(matches!(client.handle_text("SESSION_FROM eve"), Some(Event::Junk(_))), "forged");
        let mut client = registered();
        assert_eq!(client.handle_text("OFFER_REQUEST"), Some(Event::Peer(PeerMessage::OfferRequest)));
    }

    #[test]
    fn a_room_is_entered_and_tells_of_its_peers() {
        let id = |text: &str| -> PeerId { text.parse().unwrap() };
        let mut client = registered();
        assert_eq!(client.join(&"attic".parse().unwrap()), "ROOM attic");
        assert_eq!(
            client.handle_text("ROOM_OK bob cat"),
            Some(Event::Joined { me: None, peers: vec![id("bob"), id("cat")], descriptions: vec![] })
        );
        assert_eq!(client.handle_text("ROOM_PEER_JOINED dan"), Some(Event::PeerJoined(id("dan"))));
        assert_eq!(client.handle_text("ROOM_PEER_LEFT bob"), Some(Event::PeerLeft(id("bob"))));
        let from = client.handle_text("ROOM_PEER_MSG cat OFFER_REQUEST");
        assert_eq!(from, Some(Event::From(id("cat"), PeerMessage::OfferRequest)));
        assert!(matches!(client.handle_text("ROOM_PEER_MSG cat junk"), Some(Event::JunkFrom(..))));
        let line = client.address(Some(&id("cat")), &PeerMessage::OfferRequest);
        assert_eq!(line.as_deref(), Some("ROOM_PEER_MSG cat OFFER_REQUEST"));
    }

    #[test]
    fn refusals_are_told() {
        let mut client = registered();
        client.dial(&"bob".parse().unwrap());
        assert_eq!(
            client.handle_text("ERROR peer 'bob' busy"),
            Some(Event::Refused(Refusal::PeerBusy("peer 'bob' busy".into())))
        );
        let mut client = Hello::new(&"ann".parse().unwrap());
        let closing = client.handle_close(1002, "invalid peer uid");
        assert!(matches!(closing, Closing::Refused(why) if why.to_string().contains("taken")));
        assert_eq!(client.handle_close(1001, ""), Closing::Silent);
        // The answer of an ssp server to HELLO.
        let error = r#"{"type":"rtc:error","data":{"message":"Please send valid JSON data."}}"#;
        assert!(matches!(client.handle_text("{}"), Some(Event::Junk(_))));
        assert!(
            matches!(client.handle_text(error), Some(Event::Foreign(words)) if words.contains("rtc:error"))
        );
    }

    proptest! {
        #[test]
        fn any_line_in_any_phase_is_taken(lines in prop::collection::vec("(HELLO|SESSION_OK|ERROR|\\{.*\\}|\\PC*)( \\PC*)?", 0..8)) {
            let mut client = Hello::new(&"ann".parse().unwrap());
            for line in lines {
                let _ = client.handle_text(&line);
            }
        }
    }
}
