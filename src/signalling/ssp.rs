//! The back end for ssp, the protocol of pools, in which the server assigns the ids.
//!
//! RTCPool and PyRTC speak version 2 of ssp since their versions 3 and 2. No server states its version; the names of the
//! server's events show it.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::error::{ConnectError, NORMAL, PROTOCOL_ERROR};
use super::event::Event;
use super::signaller::{Capabilities, ConnId, Frame, In, Out, ServerRequest, Signaller};
use super::socketio::{self, SocketIo};
use super::target::{Protocol, Target};
use crate::protocol::hello::TOKEN_ENDED;
use crate::protocol::id::IdError;
use crate::protocol::ssp::{ClientEvent, ServerEvent, Version};
use crate::protocol::{PeerId, PeerMessage, Refusal, RoomId, SdpKind};

/// The protocol's entry in the registry.
pub(super) const PROTOCOL: Protocol = Protocol {
    server: "a server of pools",
    schemes: ["ssp+ws", "ssp+wss"],
    default_path: "/",
    usual_path: "/ssp",
    query: "",
    capabilities: Capabilities { calls: false, assigns_ids: true, single_exchange: false },
    start: |target, registration, _| Box::new(Ssp::new(target, registration.room)),
    recognises: |text| {
        let value: Result<Value, _> = serde_json::from_str(text);
        value.is_ok_and(|value| value["type"].is_string())
    },
};

/// The registry's entry of ssp within socket.io.
pub(super) const OVER_SOCKETIO: Protocol = Protocol {
    server: "a server of pools behind socket.io",
    schemes: ["ssp+http", "ssp+https"],
    default_path: socketio::PATH,
    usual_path: socketio::PATH,
    query: socketio::QUERY,
    start: |target, registration, _| {
        let ssp = Ssp::new(target, registration.room);
        Box::new(SocketIo::new(target, Box::new(ssp)))
    },
    recognises: socketio::is_greeting,
    ..PROTOCOL
};

/// The reason given to the user when the server closed the pool.
const CLOSED_POOL: &str = "it closed the pool";
/// The largest number of foreign ids that are remembered because they contain characters that a [`PeerId`] escapes.
const MAX_ODD: usize = 4096;
/// PyRTC never answers a client whose first bytes arrive a moment after the TCP connection. Before its first success, the
/// client therefore abandons a connection after this time and opens another one, [`IMPATIENT`] times.
const MOMENT: Duration = Duration::from_secs(2);
const IMPATIENT: u32 = 2;

/// The back end.
#[derive(Debug)]
pub struct Ssp {
    target: Target,
    room: Option<RoomId>,
    conn: ConnId,
    /// The number of connections that may still be abandoned, and the time of the next abandonment.
    impatient: u32,
    abandon_at: Option<Instant>,
    is_in: bool,
    /// A token has come that is newer than the one of this connection.
    has_next_token: bool,
    version: Version,
    /// The foreign form of ids that contain characters which a [`PeerId`] escapes.
    odd: BTreeMap<PeerId, String>,
    outputs: VecDeque<Out>,
}

impl Ssp {
    /// Returns the back end for a client that is not connected yet.
    pub fn new(target: &Target, room: Option<RoomId>) -> Self {
        Self {
            target: target.clone(),
            room,
            conn: ConnId::default(),
            impatient: IMPATIENT,
            abandon_at: None,
            is_in: false,
            has_next_token: false,
            version: target.version,
            odd: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    fn connect(&mut self, now: Instant) {
        self.conn = ConnId(self.conn.0 + 1);
        self.has_next_token = false;
        self.abandon_at = (self.impatient > 0).then(|| now + MOMENT);
        self.outputs.push_back(Out::Connect(self.conn, self.target.endpoint()));
    }

    fn send(&mut self, event: &ClientEvent) {
        self.outputs.push_back(Out::Send(self.conn, Frame::Text(event.to_string())));
    }

    fn report(&mut self, event: Event) {
        self.outputs.push_back(Out::Event(event));
    }

    fn address(&mut self, to: &PeerId, message: PeerMessage) {
        let to = self.odd.get(to).cloned().unwrap_or_else(|| to.to_string());
        let event = match message {
            PeerMessage::Description(sdp) => match (self.version, sdp.kind) {
                (Version::One, SdpKind::Offer) => ClientEvent::Offers(vec![(to, sdp)]),
                (Version::One, SdpKind::Answer) => ClientEvent::Answer(to, sdp),
                (Version::Auto | Version::Two, _) => ClientEvent::Sdp(to, sdp),
            },
            PeerMessage::Candidate(_) | PeerMessage::EndOfCandidates => ClientEvent::Candidate(to, message),
            PeerMessage::OfferRequest | PeerMessage::Placeholder => return,
        };
        self.send(&event);
    }

    fn opened(&mut self) {
        self.abandon_at = None;
        match self.room.clone() {
            Some(room) => self.send(&ClientEvent::Join(room.to_foreign())),
            None => self.report(Event::Registered),
        }
    }

    fn text(&mut self, text: &str) {
        let event = match ServerEvent::parse(text).map(|event| self.event(event)) {
            Ok(Ok(event)) => event,
            Ok(Err(error)) => Some(Event::Junk(format!("an invalid id: {error}"))),
            Err(_) => Some(Event::Junk("something that is not part of the protocol".to_owned())),
        };
        event.into_iter().for_each(|event| self.report(event));
    }

    /// Returns the id of an endpoint.
    fn id(&mut self, text: &str) -> Result<PeerId, IdError> {
        let id = PeerId::from_foreign(text)?;
        if id.as_str() != text && self.odd.len() < MAX_ODD {
            self.odd.insert(id.clone(), text.to_owned());
        }
        Ok(id)
    }

    /// Notes that the server sent an event of this version. Returns false if the server is known to speak the other
    /// version, and repeats its events for clients of this one.
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
    /// [`IdError`] if the message names an endpoint by an invalid id.
    fn event(&mut self, event: ServerEvent) -> Result<Option<Event>, IdError> {
        Ok(Some(match event {
            ServerEvent::Joined { id: me, peers, descriptions, .. } => {
                (self.is_in, self.impatient) = (true, 0);
                let described = descriptions.into_iter().filter(|(_, description)| !description.is_null());
                Event::Joined {
                    me: self.id(&me).ok(),
                    peers: peers.iter().filter_map(|peer| self.id(peer).ok()).collect(),
                    descriptions: described
                        .filter_map(|(peer, what)| Some(((&self.id(&peer).ok()?).into(), what)))
                        .collect(),
                }
            }
            ServerEvent::Peer(peer) if self.speaks(Version::Two) => Event::PeerJoined(self.id(&peer)?),
            ServerEvent::RequestOffers(peer) if self.speaks(Version::One) => {
                Event::PeerJoined(self.id(&peer)?)
            }
            ServerEvent::Close(peer) => Event::PeerLeft(self.id(&peer)?),
            ServerEvent::Describe(peer, description) => {
                Event::Described((&self.id(&peer)?).into(), description)
            }
            ServerEvent::Stop => Event::Ended(ConnectError::Dismissed(CLOSED_POOL.to_owned())),
            event @ ServerEvent::Error { .. } if event.refuses_version_two() && self.speaks(Version::One) => {
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
            ServerEvent::Peer(_)
            | ServerEvent::RequestOffers(_)
            | ServerEvent::Sdp(..)
            | ServerEvent::Offer(..)
            | ServerEvent::Answer(..) => return Ok(None),
        }))
    }

    fn closed(&mut self, code: u16, reason: &str) {
        let was_in = std::mem::take(&mut self.is_in);
        self.abandon_at = None;
        let name = self.target.name();
        let has_next_token = std::mem::take(&mut self.has_next_token);
        self.report(match ConnectError::closed_early(&name, code, reason) {
            // The protocol has no words for the next token: the client registers again with it.
            _ if was_in && has_next_token && reason == TOKEN_ENDED => Event::Lost { in_order: false },
            error @ ConnectError::Dismissed(_) => Event::Ended(error),
            _ if was_in => Event::Lost { in_order: code == NORMAL },
            // Servers of the HELLO protocol close with "protocol error" if the first message is not `HELLO`.
            _ if code == PROTOCOL_ERROR => {
                Event::Ended(ConnectError::OtherProtocol(name, format!("it said '{code} {reason}'")))
            }
            error => Event::Ended(error),
        });
    }
}

impl Signaller for Ssp {
    fn handle(&mut self, now: Instant, input: In) {
        match input {
            In::Register => {
                (self.is_in, self.version) = (false, self.target.version);
                self.odd.clear();
                self.connect(now);
            }
            In::Send { to: Some(to), message } => self.address(&to, message),
            // The names of the protocol's own events are not the application's to use.
            In::Application(kind, Value::Object(data)) if !kind.starts_with("rtc:") => {
                self.send(&ClientEvent::Other(kind, data));
            }
            In::Opened(conn, _) if conn == self.conn => self.opened(),
            In::Frame(conn, frame) if conn == self.conn => match frame {
                Frame::Text(text) => self.text(&text),
                Frame::Binary(_) => {}
                Frame::Closed(code, reason) => self.closed(code, &reason),
            },
            In::Failed(conn, error) if conn == self.conn => {
                self.abandon_at = None;
                self.report(Event::Ended(error));
            }
            In::Timeout if self.abandon_at.is_some_and(|at| at <= now) => {
                self.impatient -= 1;
                self.outputs.push_back(Out::Close(self.conn));
                self.connect(now);
            }
            In::Opened(..) | In::Frame(..) | In::Failed(..) | In::Response(..) | In::Timeout => {}
            // The protocol has no calls and names no STUN and TURN servers; reconnecting is not a back end's.
            In::Ask(ServerRequest::Token(token)) => {
                self.target.set_token(token);
                self.has_next_token = true;
            }
            In::Ask(_)
            | In::Application(..)
            | In::Call(_)
            | In::Send { to: None, .. }
            | In::RenewIceServers
            | In::Reconnect(_)
            | In::Release(_)
            | In::Close => {}
        }
    }

    fn poll_output(&mut self) -> Option<Out> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.abandon_at
    }

    fn is_idle(&self) -> bool {
        !self.is_in
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Description, Secret};
    use crate::signalling::testing::{Run, ann, target};

    fn run(version: Version) -> Run {
        let room = RoomId::from_foreign("the attic").unwrap();
        let mut run = Run::new(Ssp::new(&target("ssp+ws://h/x").ssp_version(version), Some(room)));
        let (_, endpoint) = run.give(In::Register).connects.remove(0);
        assert_eq!(endpoint.url.as_str(), "ws://h/x");
        assert_eq!(run.open("").sent, [r#"{"data":{"pool":"the attic"},"type":"rtc:join"}"#]);
        run
    }

    fn id(text: &str) -> PeerId {
        PeerId::from_foreign(text).unwrap()
    }

    fn send(run: &mut Run, to: &PeerId, message: &PeerMessage) -> Vec<String> {
        run.give(In::Send { to: Some(to.clone()), message: message.clone() }).sent
    }

    fn joined(peers: &[&str]) -> ServerEvent {
        ServerEvent::Joined {
            id: "me".into(),
            pool: "the attic".into(),
            peers: peers.iter().map(|peer| (*peer).to_owned()).collect(),
            descriptions: vec![],
        }
    }

    #[test]
    fn a_pool_is_joined_and_its_endpoints_are_reported() {
        let mut run = run(Version::Auto);
        let odd = id("an odd\none");
        let event = Event::Joined { me: Some(id("me")), peers: vec![odd.clone()], descriptions: vec![] };
        assert_eq!(run.event(joined(&["an odd\none"])), event);
        assert_eq!(run.event(ServerEvent::Peer("bob".into())), Event::PeerJoined(id("bob")));
        assert!(run.text(ServerEvent::RequestOffers("bob".into())).events.is_empty());
        assert_eq!(run.event(ServerEvent::Close("bob".into())), Event::PeerLeft(id("bob")));
        let offer = Description { kind: SdpKind::Offer, sdp: "v=0".into() };
        let message = PeerMessage::Description(offer.clone());
        let sdp = ServerEvent::Sdp("an odd\none".into(), offer);
        assert_eq!(run.event(sdp), Event::From(odd.clone(), message.clone()));
        let line = send(&mut run, &odd, &message).concat();
        assert!(line.contains(r#""to":"an odd\none""#), "{line}");
        assert!(send(&mut run, &odd, &PeerMessage::OfferRequest).is_empty());
        // An id that only looks escaped is sent as it came.
        run.text(ServerEvent::Peer("%41 ".into()));
        run.text(ServerEvent::Peer("%41".into()));
        for name in ["%41", "%41 "] {
            let line = send(&mut run, &id(name), &message).concat();
            assert!(line.contains(&format!(r#""to":"{name}""#)), "{line}");
        }
        let event = |kind: &str| In::Application(kind.to_owned(), serde_json::json!({}));
        assert_eq!((run.give(event("x")).sent.len(), run.give(event("rtc:x")).sent.len()), (1, 0));
        let closed = Event::Ended(ConnectError::Dismissed(CLOSED_POOL.into()));
        assert_eq!(run.event(ServerEvent::Stop), closed);
    }

    #[test]
    fn close_codes_name_the_cause() {
        let end = |is_in: bool, code, reason| {
            let mut run = run(Version::Auto);
            if is_in {
                run.event(joined(&[]));
            }
            run.close(code, reason).events.remove(0)
        };
        // The answer of a server of the HELLO protocol to our first message.
        let foreign = end(false, 1002, "invalid protocol");
        assert!(
            matches!(foreign, Event::Ended(ConnectError::OtherProtocol(_, why)) if why.contains("1002 invalid"))
        );
        assert!(matches!(end(false, 1006, ""), Event::Ended(ConnectError::Broken(_))));
        assert!(matches!(end(false, 1000, "full"), Event::Ended(ConnectError::Refused(_))));
        assert!(matches!(end(true, 1008, "kicked"), Event::Ended(ConnectError::Dismissed(_))));
        assert_eq!(end(true, 1002, "x"), Event::Lost { in_order: false });
        assert!(matches!(run(Version::Auto).event(r#"{"type": 1}"#), Event::Junk(_)));
    }

    #[test]
    fn a_client_whose_token_has_ended_returns_with_the_next_one() {
        let ended = |has_next: bool, reason: &str| {
            let mut run = run(Version::Auto);
            run.event(joined(&[]));
            if has_next {
                run.give(In::Ask(ServerRequest::Token(Secret("next".into()))));
            }
            let event = run.close(1008, reason).events.remove(0);
            let url = run.give(In::Register).connects.remove(0).1.url.to_string();
            (matches!(event, Event::Ended(ConnectError::Dismissed(_))), event, url)
        };
        let (_, event, url) = ended(true, "your token has ended");
        assert_eq!((event, url.as_str()), (Event::Lost { in_order: false }, "ws://h/x?token=next"));
        assert!(ended(false, "your token has ended").0 && ended(true, "removed").0);
    }

    #[test]
    fn a_connection_that_does_not_open_is_abandoned_twice_before_the_first_success() {
        let mut run = Run::new(Ssp::new(&target("ssp+ws://h"), ann(true).room));
        run.give(In::Register);
        let first = run.conn;
        let outs = run.pass(MOMENT);
        assert_eq!((outs.closed, outs.connects.len()), (vec![first], 1));
        assert_eq!(run.pass(Duration::from_secs(60)).connects.len(), 1);
        assert!(run.give(In::Opened(first, vec![])).sent.is_empty(), "abandoned");
        assert_eq!(run.open("").sent.len(), 1);
        run.event(joined(&[]));
        run.close(1006, "");
        run.give(In::Register);
        assert!(run.pass(Duration::from_secs(60)).connects.is_empty());
    }

    #[test]
    fn the_version_is_known_by_the_servers_events() {
        let offer = Description { kind: SdpKind::Offer, sdp: "v=0".into() };
        let message = PeerMessage::Description(offer.clone());
        let sdp = || ServerEvent::Sdp("bob".into(), offer.clone());
        let of_one = || ServerEvent::Offer("bob".into(), offer.clone());
        let said = |run: &mut Run, message: &PeerMessage| send(run, &id("bob"), message).concat();
        // A server of both versions sends everything twice.
        let mut both = run(Version::Auto);
        assert_eq!(both.event(sdp()), Event::From(id("bob"), message.clone()));
        assert!(both.text(of_one()).events.is_empty());
        assert!(said(&mut both, &message).contains("rtc:sdp"));
        // A server of version 1 shows it by its own events, or by refusing ours.
        let mut old = run(Version::Auto);
        assert_eq!(old.event(ServerEvent::RequestOffers("bob".into())), Event::PeerJoined(id("bob")));
        assert!(said(&mut old, &message).contains("rtc:offers"));
        assert_eq!(old.event(of_one()), Event::From(id("bob"), message.clone()));
        let mut deaf = run(Version::Auto);
        let error = ServerEvent::Error { message: ServerEvent::NOT_TWO.into(), reason: None };
        assert!(deaf.text(error).events.is_empty());
        let answer = PeerMessage::Description(Description { kind: SdpKind::Answer, sdp: "v=0".into() });
        assert!(said(&mut deaf, &answer).contains("rtc:answer"));
        // A version that the user chose is not changed.
        let mut chosen = run(Version::Two);
        assert!(chosen.text(of_one()).events.is_empty());
        assert!(said(&mut chosen, &message).contains("rtc:sdp"));
    }
}
