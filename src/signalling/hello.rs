//! The back end for the HELLO/SESSION/ROOM protocol, in 1-1 calls and in rooms.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::collections::VecDeque;
use std::time::Instant;

use super::error::{ConnectError, NORMAL};
use super::event::Event;
use super::signaller::{
    Capabilities, ConnId, Frame, Headers, In, Out, Registration, Request, RequestId, Response, ServerRequest,
    Signaller, header,
};
use super::target::{Protocol, Target};
use crate::protocol::hello::{
    ABOUT_TOKEN, ADMISSION, ClientMessage, EXTENSION_QUERY, EXTENSIONS, SERVER, ServerMessage,
    TOKENS_HANDLED, refusal,
};
use crate::protocol::{IceServer, PeerId, PeerMessage, Secret};

/// The protocol's entry in the registry.
pub(super) const PROTOCOL: Protocol = Protocol {
    server: "a server of rooms",
    schemes: ["ws", "wss"],
    default_path: "/",
    usual_path: "/",
    query: EXTENSION_QUERY,
    capabilities: Capabilities { calls: true, assigns_ids: false, single_exchange: false },
    start: |target, registration, _| Box::new(Hello::new(target, registration)),
    recognises: |text| ServerMessage::parse(text).is_ok(),
};

/// The state of the conversation with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No connection.
    Down,
    /// The WebSocket is being opened, or `HELLO` is sent.
    Registering,
    /// Registered and idle.
    Lobby,
    /// `SESSION` is sent.
    Dialling,
    /// In a session: all text is the other peer's.
    Session,
    /// `ROOM` is sent.
    Joining,
    /// In a room.
    Room,
}

/// The back end.
#[derive(Debug)]
pub struct Hello {
    target: Target,
    registration: Registration,
    conn: ConnId,
    request: RequestId,
    phase: Phase,
    /// `SESSION` is sent, possibly before the answer to `HELLO`.
    has_dialled: bool,
    /// The server handles tokens on this connection, and forwards none to the peer of a call.
    handles_tokens: bool,
    /// The tokens that were sent and not answered yet, at most [`MAX_SHOWN`].
    shown: VecDeque<Secret>,
    outputs: VecDeque<Out>,
}

/// The most tokens that wait for the server's answer.
const MAX_SHOWN: usize = 8;

impl Hello {
    /// Returns the back end for a client that is not connected yet.
    pub fn new(target: &Target, registration: Registration) -> Self {
        Self {
            target: target.clone(),
            registration,
            conn: ConnId::default(),
            request: RequestId::default(),
            phase: Phase::Down,
            has_dialled: false,
            handles_tokens: false,
            shown: VecDeque::new(),
            outputs: VecDeque::new(),
        }
    }

    fn connect(&mut self) {
        // The last token may be in use already, unlike the one before, which is about to end.
        if let Some(token) = self.shown.pop_back() {
            self.target.set_token(token);
        }
        self.shown.clear();
        self.conn = ConnId(self.conn.0 + 1);
        (self.phase, self.has_dialled, self.handles_tokens) = (Phase::Registering, false, false);
        self.outputs.push_back(Out::Connect(self.conn, self.target.endpoint()));
    }

    fn send(&mut self, text: String) {
        self.outputs.push_back(Out::Send(self.conn, Frame::Text(text)));
    }

    fn report(&mut self, event: Event) {
        self.outputs.push_back(Out::Event(event));
    }

    fn opened(&mut self, headers: &Headers) {
        let extensions = header(headers, EXTENSIONS).unwrap_or_default();
        self.handles_tokens = extensions.split(',').any(|name| name.trim() == TOKENS_HANDLED);
        self.send(ClientMessage::Hello(self.registration.id.clone()).to_string());
        // Other servers refuse `SESSION` before they have answered `HELLO`.
        let reads_ahead = header(headers, "server") == Some(SERVER);
        if let Some(peer) = self.registration.calls.take().filter(|_| reads_ahead) {
            self.dial(&peer);
        }
    }

    fn dial(&mut self, peer: &PeerId) {
        if self.phase != Phase::Registering {
            self.phase = Phase::Dialling;
        }
        if !std::mem::replace(&mut self.has_dialled, true) {
            self.send(ClientMessage::Session(peer.clone()).to_string());
        }
    }

    fn renew_ice_servers(&mut self) {
        self.request = RequestId(self.request.0 + 1);
        let token =
            self.target.token_text().map(|token| ("authorization".to_owned(), format!("Bearer {token}")));
        let url = self.target.beside(ADMISSION);
        let request = Request { method: "GET", url, headers: token.into_iter().collect(), body: vec![] };
        self.outputs.push_back(Out::Request(self.request, request));
    }

    /// Handles the answer of [`ADMISSION`]. A server without that resource answers 404; its next registration names
    /// fresh servers.
    fn response(&mut self, response: &Response) {
        let answer: serde_json::Value = serde_json::from_slice(&response.body).unwrap_or_default();
        if response.status == 200
            && let Some(servers) = IceServer::parse_list(&answer["iceServers"].to_string())
        {
            self.report(Event::IceServers(servers));
        }
    }

    fn text(&mut self, line: &str) {
        // Relayed text can look like anything, the server's own messages included.
        if self.phase == Phase::Session {
            return self.report(peer_message(line));
        }
        let event = match (ServerMessage::parse(line), self.phase) {
            (Ok(ServerMessage::IceServers(servers)), _) => Event::IceServers(servers),
            (Ok(ServerMessage::Hello), Phase::Registering) => return self.registered(),
            (Ok(ServerMessage::SessionOk), Phase::Dialling) => {
                self.phase = Phase::Session;
                Event::Accepted
            }
            (Ok(ServerMessage::SessionFrom(peer)), Phase::Lobby) => {
                self.phase = Phase::Session;
                Event::Caller(peer)
            }
            (Ok(ServerMessage::Error(text)), Phase::Registering) => {
                return self.refused(ConnectError::Refused(refusal(text)));
            }
            (Ok(ServerMessage::Error(text)), phase) => {
                if phase == Phase::Dialling {
                    (self.phase, self.has_dialled) = (Phase::Lobby, false);
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
                Event::Described((&peer).into(), description)
            }
            (Ok(ServerMessage::RoomPeerMsg { from, body }), Phase::Room) => match PeerMessage::parse(&body) {
                Ok(message) => Event::From(from, message),
                Err(error) => Event::JunkFrom(from, error.to_string()),
            },
            (Ok(ServerMessage::Mute(kind, by)), Phase::Room) => Event::MuteRequested(kind, by),
            (Ok(ServerMessage::RoomMove(room)), Phase::Room) => Event::Moved(room),
            // The server decides about each request of a moderator.
            (Ok(ServerMessage::RoomModerator), Phase::Room) => return,
            // The first message of a caller whom the server did not announce.
            (_, Phase::Lobby) => {
                self.phase = Phase::Session;
                peer_message(line)
            }
            (
                _,
                Phase::Down
                | Phase::Registering
                | Phase::Dialling
                | Phase::Session
                | Phase::Joining
                | Phase::Room,
            ) => Event::Junk("something that is not part of the protocol here".to_owned()),
        };
        self.report(event);
    }

    /// Handles a message about the client's token, which the server sends in any phase; returns false if it is none.
    fn token_message(&mut self, line: &str) -> bool {
        match ServerMessage::parse(line) {
            Ok(ServerMessage::TokenExpires(seconds)) => self.report(Event::TokenExpires(seconds)),
            Ok(ServerMessage::TokenRefused(why)) => {
                self.shown.pop_front();
                self.report(Event::TokenRefused(why));
            }
            Ok(ServerMessage::TokenOk) => {
                if let Some(token) = self.shown.pop_front() {
                    self.target.set_token(token);
                }
            }
            Ok(_) | Err(_) => return false,
        }
        true
    }

    fn ask(&mut self, request: ServerRequest) {
        let message = match request {
            ServerRequest::Token(token) => return self.show_token(token),
            ServerRequest::Remove(peer) => ClientMessage::RoomPeerRemove(peer),
            ServerRequest::Mute(peer, kind) => ClientMessage::RoomPeerMute(peer, kind),
        };
        if self.phase == Phase::Room {
            self.send(message.to_string());
        }
    }

    /// Shows the server the client's next token. A server that does not handle tokens gets it with the next connection only: on
    /// this one it could forward the token to the peer.
    fn show_token(&mut self, token: Secret) {
        if !self.handles_tokens || matches!(self.phase, Phase::Down | Phase::Registering) {
            return self.target.set_token(token);
        }
        if self.shown.len() >= MAX_SHOWN {
            return self
                .report(Event::TokenRefused("the server has not answered the last tokens".to_owned()));
        }
        self.send(ClientMessage::Token(token.clone()).to_string());
        self.shown.push_back(token);
    }

    fn registered(&mut self) {
        self.phase = if self.has_dialled { Phase::Dialling } else { Phase::Lobby };
        self.report(Event::Registered);
        if let Some(room) = self.registration.room.clone() {
            self.phase = Phase::Joining;
            self.send(ClientMessage::Room(room).to_string());
        }
    }

    /// Handles a refusal before the client is registered. `SESSION` together with `HELLO` may have been too early, while
    /// the server asked the holder of the client's id whether it is alive: then registers once more without a call.
    fn refused(&mut self, error: ConnectError) {
        if self.has_dialled {
            self.outputs.push_back(Out::Close(self.conn));
            self.connect();
        } else {
            self.report(Event::Ended(error));
        }
    }

    fn closed(&mut self, code: u16, reason: &str) {
        let phase = std::mem::replace(&mut self.phase, Phase::Down);
        match (ConnectError::closed_early(&self.target.name(), code, reason), phase) {
            (error @ ConnectError::Dismissed(_), _) => self.report(Event::Ended(error)),
            (_, Phase::Lobby | Phase::Dialling | Phase::Session | Phase::Room) => {
                self.report(Event::Lost { in_order: code == NORMAL });
            }
            (ConnectError::Refused(_), _) => {
                self.refused(ConnectError::Refused(refusal(reason.to_owned())));
            }
            (error, Phase::Down | Phase::Registering | Phase::Joining) => self.report(Event::Ended(error)),
        }
    }
}

impl Signaller for Hello {
    fn handle(&mut self, _now: Instant, input: In) {
        match input {
            In::Register => self.connect(),
            In::Call(peer) => self.dial(&peer),
            In::Send { to: None, message } => self.send(message.to_string()),
            In::Send { to: Some(to), message } => {
                self.send(ClientMessage::RoomPeerMsg { to, body: message.to_string() }.to_string());
            }
            In::RenewIceServers => self.renew_ice_servers(),
            In::Ask(request) => self.ask(request),
            In::Opened(conn, headers) if conn == self.conn => self.opened(&headers),
            In::Frame(conn, frame) if conn == self.conn => match frame {
                Frame::Text(line)
                    if self.handles_tokens && line.starts_with(ABOUT_TOKEN) && self.token_message(&line) => {}
                Frame::Text(line) => self.text(&line),
                Frame::Binary(_) => {}
                Frame::Closed(code, reason) => self.closed(code, &reason),
            },
            In::Failed(conn, error) if conn == self.conn => {
                self.phase = Phase::Down;
                self.report(Event::Ended(error));
            }
            In::Response(id, Ok(response)) if id == self.request => self.response(&response),
            In::Opened(..) | In::Frame(..) | In::Failed(..) | In::Response(..) | In::Timeout => {}
            // The protocol has no words for application events; reconnecting is not a back end's.
            In::Application(..) | In::Reconnect(_) | In::Release(_) | In::Close => {}
        }
    }

    fn poll_output(&mut self) -> Option<Out> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn is_idle(&self) -> bool {
        self.phase == Phase::Lobby
    }
}

fn peer_message(line: &str) -> Event {
    match PeerMessage::parse(line) {
        Ok(message) => Event::Peer(message),
        Err(error) => Event::Junk(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::Refusal;
    use crate::signalling::testing::{Run, ann, target};

    fn id(text: &str) -> PeerId {
        text.parse().unwrap()
    }

    fn run(in_room: bool, calls: Option<&str>) -> Run {
        let registration = Registration { calls: calls.map(id), ..ann(in_room) };
        let mut run = Run::new(Hello::new(&target("ws://h/base/x"), registration));
        let (_, endpoint) = run.give(In::Register).connects.remove(0);
        assert_eq!(endpoint.url.as_str(), "ws://h/base/x?roomtone=1");
        run
    }

    fn registered() -> Run {
        registered_at(&[("server", "other")])
    }

    /// Returns a client whose server answers the upgrade with these headers.
    fn registered_at(headers: &[(&str, &str)]) -> Run {
        let mut run = run(false, None);
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let opened = In::Opened(run.conn, headers.collect());
        assert_eq!(run.give(opened).sent, ["HELLO ann"]);
        assert!(!run.signaller.is_idle());
        assert_eq!(run.event("HELLO"), Event::Registered);
        assert!(run.signaller.is_idle());
        run
    }

    #[test]
    fn after_the_call_is_accepted_all_text_is_the_peers() {
        let mut run = registered();
        assert_eq!(run.give(In::Call(id("bob"))).sent, ["SESSION bob"]);
        assert_eq!(run.event("SESSION_OK"), Event::Accepted);
        assert_eq!(run.event("ERROR forged"), Event::Junk("a message that is not JSON".into()));
        assert_eq!(run.event("OFFER_REQUEST"), Event::Peer(PeerMessage::OfferRequest));
        let message = PeerMessage::OfferRequest;
        assert_eq!(run.give(In::Send { to: None, message }).sent, ["OFFER_REQUEST"]);
        assert_eq!(run.close(1000, "").events, [Event::Lost { in_order: true }]);
    }

    #[test]
    fn a_peer_gets_no_token_and_is_not_believed_about_it() {
        // Servers of before or of others forward the text of a call, this one's token included.
        let mut run = registered();
        assert!(run.give(In::Ask(ServerRequest::Token(Secret("next".into())))).sent.is_empty());
        run.give(In::Call(id("bob")));
        assert_eq!(run.event("SESSION_OK"), Event::Accepted);
        assert!(matches!(run.event("TOKEN_EXPIRES 5"), Event::Junk(_)));
        assert!(run.give(In::Ask(ServerRequest::Token(Secret("later".into())))).sent.is_empty());
        run.close(1000, "");
        let (_, endpoint) = run.give(In::Register).connects.remove(0);
        assert!(endpoint.url.as_str().contains("token=later"), "{}", endpoint.url);
    }

    #[test]
    fn the_next_token_is_sent_in_any_phase_and_used_for_the_next_connection() {
        let mut run = registered_at(&[("roomtone-extensions", "other, token")]);
        let token = || In::Ask(ServerRequest::Token(Secret("next".into())));
        assert_eq!(run.event("TOKEN_EXPIRES 25"), Event::TokenExpires(25));
        assert_eq!(run.give(token()).sent, ["TOKEN next"]);
        assert_eq!(run.give(In::Call(id("bob"))).sent, ["SESSION bob"]);
        assert_eq!(run.event("SESSION_OK"), Event::Accepted);
        assert_eq!(run.event("TOKEN_EXPIRES 25"), Event::TokenExpires(25));
        assert_eq!(run.give(token()).sent, ["TOKEN next"]);
        assert!(run.text("TOKEN_OK").events.is_empty());
        assert_eq!(run.event("TOKEN_REFUSED it has expired"), Event::TokenRefused("it has expired".into()));
        run.close(1000, "");
        assert!(run.give(token()).sent.is_empty());
        let (_, endpoint) = run.give(In::Register).connects.remove(0);
        assert!(endpoint.url.as_str().contains("token=next"), "{}", endpoint.url);
    }

    #[test]
    fn a_client_in_a_room_is_asked_to_move() {
        let mut run = run(true, None);
        run.open("other");
        run.text("HELLO");
        run.text("ROOM_OK ");
        assert_eq!(run.event("ROOM_MOVE cellar"), Event::Moved("cellar".parse().unwrap()));
    }

    #[test]
    fn a_refused_token_does_not_replace_the_one_before() {
        let mut run = registered_at(&[("roomtone-extensions", "token")]);
        let show = |run: &mut Run, token: &str| {
            let outs = run.give(In::Ask(ServerRequest::Token(Secret(token.into()))));
            (outs.sent.len(), outs.events.len())
        };
        let next_url = |run: &mut Run| {
            run.close(1000, "");
            run.give(In::Register).connects.remove(0).1.url.to_string()
        };
        assert_eq!((show(&mut run, "good"), show(&mut run, "bad")), ((1, 0), (1, 0)));
        run.text("TOKEN_OK");
        run.text("TOKEN_REFUSED no");
        assert!((0..MAX_SHOWN).all(|_| show(&mut run, "mad") == (1, 0)));
        assert_eq!(show(&mut run, "mad"), (0, 1), "too many wait");
        (0..MAX_SHOWN).for_each(|_| drop(run.text("TOKEN_REFUSED no")));
        let url = next_url(&mut run);
        assert!(url.contains("token=good"), "{url}");
        // The server may have accepted a token whose answer is lost.
        run.give(In::Opened(run.conn, vec![("roomtone-extensions".to_owned(), "token".to_owned())]));
        run.text("HELLO");
        assert_eq!(show(&mut run, "newest"), (1, 0));
        let url = next_url(&mut run);
        assert!(url.contains("token=newest"), "{url}");
    }

    #[test]
    fn a_moderator_asks_in_a_room_alone() {
        let mut run = run(true, None);
        let remove = || In::Ask(ServerRequest::Remove(id("bob")));
        assert!(run.give(remove()).sent.is_empty());
        run.open("other");
        run.text("HELLO");
        run.text("ROOM_OK bob");
        run.text("ROOM_MODERATOR");
        assert_eq!(run.give(remove()).sent, ["ROOM_PEER_REMOVE bob"]);
        let mute = In::Ask(ServerRequest::Mute(id("bob"), crate::protocol::hello::MediaKind::Audio));
        assert_eq!(run.give(mute).sent, ["ROOM_PEER_MUTE bob audio"]);
    }

    #[test]
    fn a_call_is_sent_together_with_the_registration_if_the_server_reads_ahead() {
        let mut run = run(false, Some("bob"));
        assert_eq!(run.open("roomtone").sent, ["HELLO ann", "SESSION bob"]);
        assert_eq!(run.event("HELLO"), Event::Registered);
        assert!(run.give(In::Call(id("bob"))).sent.is_empty(), "it is sent already");
        assert!(!run.signaller.is_idle());
        let busy = Refusal::PeerBusy("peer 'bob' busy".into());
        assert_eq!(run.event("ERROR peer 'bob' busy"), Event::Refused(busy));
        assert!(run.signaller.is_idle());
        assert_eq!(run.give(In::Call(id("bob"))).sent, ["SESSION bob"]);
        let mut other = super::tests::run(false, Some("bob"));
        assert_eq!(other.open("other").sent, ["HELLO ann"]);
    }

    #[test]
    fn a_refused_early_call_is_followed_by_a_registration_alone() {
        for refuse in
            [|run: &mut Run| run.text("ERROR the id is in use"), |run: &mut Run| run.close(1002, "no")]
        {
            let mut run = run(false, Some("bob"));
            run.open("roomtone");
            let outs = refuse(&mut run);
            assert_eq!((outs.connects.len(), outs.events.len()), (1, 0), "{outs:?}");
            assert_eq!(run.open("roomtone").sent, ["HELLO ann"]);
            let refused = Refusal::Other("taken".into());
            assert_eq!(run.event("ERROR taken"), Event::Ended(ConnectError::Refused(refused)));
        }
    }

    #[test]
    fn a_caller_is_reported_with_and_without_an_id() {
        let mut run = registered();
        assert_eq!(run.event("SESSION_FROM bob"), Event::Caller(id("bob")));
        assert!(matches!(run.event("SESSION_FROM eve"), Event::Junk(_)), "forged");
        assert_eq!(registered().event("OFFER_REQUEST"), Event::Peer(PeerMessage::OfferRequest));
    }

    #[test]
    fn a_room_is_joined_and_its_peers_are_reported() {
        let mut run = run(true, None);
        run.open("roomtone");
        let outs = run.text("HELLO");
        assert_eq!((outs.events, outs.sent), (vec![Event::Registered], vec!["ROOM attic".to_owned()]));
        let joined = Event::Joined { me: None, peers: vec![id("bob"), id("cat")], descriptions: vec![] };
        assert_eq!(run.event("ROOM_OK bob cat"), joined);
        assert_eq!(run.event("ROOM_PEER_JOINED dan"), Event::PeerJoined(id("dan")));
        assert_eq!(run.event("ROOM_PEER_LEFT bob"), Event::PeerLeft(id("bob")));
        let from = run.event("ROOM_PEER_MSG cat OFFER_REQUEST");
        assert_eq!(from, Event::From(id("cat"), PeerMessage::OfferRequest));
        assert!(matches!(run.event("ROOM_PEER_MSG cat junk"), Event::JunkFrom(..)));
        let send = In::Send { to: Some(id("cat")), message: PeerMessage::OfferRequest };
        assert_eq!(run.give(send).sent, ["ROOM_PEER_MSG cat OFFER_REQUEST"]);
        assert_eq!(run.close(1001, "restart").events, [Event::Lost { in_order: false }]);
    }

    #[test]
    fn close_codes_before_the_registration_name_the_cause() {
        let ended = |code, reason: &str| {
            let mut run = run(false, None);
            run.open("other");
            match run.close(code, reason).events.remove(0) {
                Event::Ended(error) => error,
                event => panic!("{event:?}"),
            }
        };
        assert_eq!(ended(1008, "kicked"), ConnectError::Dismissed("kicked".into()));
        assert!(matches!(ended(1006, "reset"), ConnectError::Broken(_)));
        assert!(matches!(ended(1001, ""), ConnectError::Broken(_)));
        assert_eq!(ended(1000, "full"), ConnectError::Refused(Refusal::Other("full".into())));
        assert!(ended(1002, "invalid peer uid").to_string().contains("taken"));
        let mut run = registered();
        let dismissed = ConnectError::Dismissed("kicked".into());
        assert_eq!(run.close(1008, "kicked").events, [Event::Ended(dismissed)]);
    }

    #[test]
    fn turn_users_are_renewed_by_http_during_a_session() {
        let registration = ann(false);
        let with_token = target("wss://h/base/x").token(Some(crate::protocol::Secret("secret".into())));
        let mut run = Run::new(Hello::new(&with_token, registration));
        let (_, endpoint) = run.give(In::Register).connects.remove(0);
        assert_eq!(endpoint.url.as_str(), "wss://h/base/x?token=secret&roomtone=1");
        let (id, request) = run.give(In::RenewIceServers).requests.remove(0);
        assert_eq!((request.method, request.url.as_str()), ("GET", "https://h/base/admission"));
        assert_eq!(request.headers, [("authorization".to_owned(), "Bearer secret".to_owned())]);
        let answer = |status, body: &str| {
            let body = body.as_bytes().to_vec();
            In::Response(id, Ok(Response { status, headers: vec![], body, server: None }))
        };
        // An older server has no such resource.
        assert!(run.give(answer(404, "there is nothing here")).events.is_empty());
        assert!(run.give(answer(200, "<html>")).events.is_empty());
        let body =
            r#"{"iceServers": [{"urls": ["turn:example.org"], "username": "1:x", "credential": "y"}]}"#;
        let events = run.give(answer(200, body)).events;
        assert!(matches!(&events[..], [Event::IceServers(servers)] if servers.len() == 1), "{events:?}");
        let (second, _) = run.give(In::RenewIceServers).requests.remove(0);
        assert_ne!(second, id);
        assert!(run.give(answer(200, body)).events.is_empty(), "the answer to an abandoned request");
    }

    proptest! {
        #[test]
        fn any_line_in_any_phase_is_handled(
            lines in prop::collection::vec("(HELLO|SESSION_OK|ROOM_OK|ERROR|\\{.*\\}|\\PC*)( \\PC*)?", 0..8),
            in_room: bool,
        ) {
            let mut run = run(in_room, None);
            run.open("roomtone");
            for line in lines {
                prop_assert!(run.text(line).events.len() <= 1);
            }
        }
    }
}
