//! The HELLO/SESSION/ROOM protocol: text messages over a WebSocket, as the GStreamer WebRTC demos speak them, and
//! roomtone's extensions. A client sees the extensions only if it asks for them, by the query `roomtone=1` in the URL
//! of its WebSocket ([`EXTENSION_QUERY`]).

use std::fmt;

use super::Secret;
use super::ice::IceServer;
use super::id::{IdError, PeerId, RoomId};
use super::refusal::Refusal;

/// Part of a URL's query by which a client asks for roomtone's extensions.
pub const EXTENSION_QUERY: &str = "roomtone=1";
/// Extension for clients with [`EXTENSION_QUERY`]: such a client may send this in any phase, also in a session, and
/// the server answers [`PONG`] instead of forwarding the text to the peer. A page needs `PING` to notice a dead
/// connection, because browsers hide the pings of WebSockets (RFC 6455, 5.5.2) from pages.
pub const PING: &str = "PING";
/// Answer to [`PING`].
pub const PONG: &str = "PONG";
/// Extension for clients with [`EXTENSION_QUERY`]: the beginning of a message with the client's next token, in any phase. The
/// server answers `TOKEN_OK` or `TOKEN_REFUSED` instead of forwarding the text to the peer.
pub const TOKEN: &str = "TOKEN ";
/// The beginning of the server's messages about a client's token. The server forwards no text that begins like this to a client
/// with [`EXTENSION_QUERY`], so that no peer can imitate them.
pub const ABOUT_TOKEN: &str = "TOKEN_";
/// Reason in the close frame (code 1008) of a connection whose token has ended.
pub const TOKEN_ENDED: &str = "your token has ended";
/// Header of the server's answer to the upgrade of a client with [`EXTENSION_QUERY`]: the names of extensions that a client may
/// rely on in a call. It cannot come from a peer.
pub const EXTENSIONS: &str = "roomtone-extensions";
/// Value of [`EXTENSIONS`]: the server handles [`TOKEN`] and [`ABOUT_TOKEN`]. Without it a client must not send its token on the
/// connection: the server could forward the text to the peer of a call.
pub const TOKENS_HANDLED: &str = "token";
/// Extension: the last part of the path that answers `GET` with `{"iceServers": [...]}` to a client whose token is
/// accepted. The connection of a call cannot carry the request, because all of its text is forwarded to the peer.
pub const ADMISSION: &str = "admission";
/// Value of the header `Server` (RFC 9110, 10.2.4) of a server that accepts `SESSION` before it has answered `HELLO`.
/// While the server probes the holder of the client's id, it refuses `SESSION` and closes the connection: the client
/// then sends the two one after the other.
pub const SERVER: &str = "roomtone";

/// Extension for clients with [`EXTENSION_QUERY`]: the first word of a request to watch peers, and of the news about them.
pub const PRESENCE: &str = "PRESENCE";

/// Presence of a peer, as a client may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The peer can be called.
    Free,
    /// The peer is in a call or in a room.
    Busy,
    /// The peer is not registered, or not for this client to see.
    Gone,
}

impl fmt::Display for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Free => "free",
            Self::Busy => "busy",
            Self::Gone => "gone",
        })
    }
}

impl std::str::FromStr for Presence {
    type Err = HelloError;

    fn from_str(text: &str) -> Result<Self, HelloError> {
        match text.trim() {
            "free" => Ok(Self::Free),
            "busy" => Ok(Self::Busy),
            "gone" => Ok(Self::Gone),
            _ => Err(HelloError::Presence),
        }
    }
}

/// Maximum number of peers that a client watches at a time.
pub const MAX_WATCHED: usize = 100;

/// Kind of media that a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum MediaKind {
    /// Audio.
    Audio,
    /// Video.
    Video,
}

impl fmt::Display for MediaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Audio => "audio",
            Self::Video => "video",
        })
    }
}

impl std::str::FromStr for MediaKind {
    type Err = HelloError;

    fn from_str(text: &str) -> Result<Self, HelloError> {
        match text.trim() {
            "audio" => Ok(Self::Audio),
            "video" => Ok(Self::Video),
            _ => Err(HelloError::Kind),
        }
    }
}

/// Message of a client to a server, outside of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage {
    /// `HELLO <uid>`: registers the client under this id.
    Hello(PeerId),
    /// `SESSION <uid>`: calls that peer (1-1).
    Session(PeerId),
    /// `ROOM <room>`: joins a room; the first client creates it.
    Room(RoomId),
    /// `ROOM_PEER_MSG <to> <body>`: sends a message to one peer of the room.
    RoomPeerMsg {
        /// The recipient.
        to: PeerId,
        /// The message, forwarded unchanged.
        body: String,
    },
    /// `ROOM_PEER_LIST`: requests the other peers of the room.
    RoomPeerList,
    /// `ROOM_PEER_REMOVE <uid>` (extension): removes a member from the room, as its moderator.
    RoomPeerRemove(PeerId),
    /// `ROOM_PEER_MUTE <uid> audio|video` (extension): asks a member to mute what it sends, as a moderator of the room.
    RoomPeerMute(PeerId, MediaKind),
    /// `PEER_LIST` (extension): requests the peers that can be called.
    PeerList,
    /// `PRESENCE <uid>…` (extension): requests the presence of these peers, and news about it from then on; replaces the request
    /// before.
    Presence(Vec<PeerId>),
    /// `TOKEN <token>` (extension): the client's next token. May be sent in any phase.
    Token(Secret),
}

/// Message of a server to a client, outside of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerMessage {
    /// `HELLO`: the client is registered.
    Hello,
    /// `SESSION_OK`: the call is established; all further text goes to the other peer.
    SessionOk,
    /// `ROOM_OK <peers…>`: the client is in the room, together with these peers.
    RoomOk(Vec<PeerId>),
    /// `ROOM_PEER_MSG <from> <body>`.
    RoomPeerMsg {
        /// The sender.
        from: PeerId,
        /// The message, unchanged.
        body: String,
    },
    /// `ROOM_PEER_JOINED <uid>`.
    RoomPeerJoined(PeerId),
    /// `ROOM_PEER_LEFT <uid>`.
    RoomPeerLeft(PeerId),
    /// `ROOM_PEER_LIST <peers…>`: the other peers of the room.
    RoomPeerList(Vec<PeerId>),
    /// `ERROR <text>`.
    Error(String),
    /// `PEER_LIST <peers…>` (extension): the registered peers that are neither in a call nor in a room.
    PeerList(Vec<PeerId>),
    /// `SESSION_FROM <uid>` (extension): this peer calls the client; its messages follow.
    SessionFrom(PeerId),
    /// `ROOM_PEER_DESCRIBED <uid> <json>` (extension): the back end's description of a peer of the room; null removes
    /// it.
    RoomPeerDescribed(PeerId, serde_json::Value),
    /// `ROOM_MODERATOR` (extension): the client may moderate the room. Follows `ROOM_OK`.
    RoomModerator,
    /// `ROOM_MOVE <room>` (extension): the back end asks the client to leave its room and to join this one.
    RoomMove(RoomId),
    /// `MUTE audio|video [<uid>]` (extension): the client is asked to mute what it sends, by that moderator or by the back
    /// end.
    Mute(MediaKind, Option<PeerId>),
    /// `PRESENCE <uid> free|busy|gone` (extension): the presence of a peer that the client watches.
    Presence(PeerId, Presence),
    /// `TOKEN_EXPIRES <seconds>` (extension): the client's token ends then, and its connection with it. Comes in any phase.
    TokenExpires(u64),
    /// `TOKEN_OK` (extension): the next token is accepted. Comes in any phase.
    TokenOk,
    /// `TOKEN_REFUSED <text>` (extension): the next token is not accepted, and the one before counts on. Comes in any phase.
    TokenRefused(String),
    /// `ICE_SERVERS <json>` (extension): the STUN and TURN servers to use from now on, as WebRTC's
    /// `iceServers`. Precedes `HELLO`, `SESSION_OK`, `SESSION_FROM` and `ROOM_OK`.
    IceServers(Vec<IceServer>),
}

/// Error of a line that is not a message of this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// The first word is not a command of the protocol.
    #[error("unknown command")]
    UnknownCommand,
    /// A command lacks its argument.
    #[error("'{0}' needs {1}")]
    Missing(&'static str, &'static str),
    /// The id of a peer is invalid.
    #[error("invalid peer uid: {0}")]
    Peer(IdError),
    /// The id of a room is invalid.
    #[error("invalid room id '{0}'")]
    Room(String),
    /// The id of a room contains an invisible character; the message therefore does not repeat the id.
    #[error("invalid room id: {0}")]
    RoomCharacter(IdError),
    /// The list of ICE servers is not valid JSON of that shape.
    #[error("a list of ICE servers that cannot be read")]
    IceServers,
    /// The kind of media is neither audio nor video.
    #[error("'audio' or 'video' is wanted")]
    Kind,
    /// The presence is none of the three.
    #[error("'free', 'busy' or 'gone' is wanted")]
    Presence,
    /// The client asks for too many peers.
    #[error("at most {MAX_WATCHED} peers can be watched")]
    TooManyPeers,
    /// A number of seconds is malformed.
    #[error("a number of seconds that cannot be read")]
    Seconds,
    /// The description is not valid JSON.
    #[error("a description that cannot be read")]
    Description,
}

/// Returns the meaning of the text of [`ServerMessage::Error`], or of the reason in a close frame. The protocol has no
/// error codes; the demos' server and its relatives use the same words.
pub fn refusal(text: String) -> Refusal {
    match text {
        text if text.contains("not found") => Refusal::PeerNotFound(text),
        text if text.contains("busy") => Refusal::PeerBusy(text),
        text if text == "invalid peer uid" => {
            Refusal::IdTaken(format!("the id is taken or invalid ({text})"))
        }
        text => Refusal::Other(text),
    }
}

/// Returns the first word, and the rest after one white-space character.
fn word(text: &str) -> (&str, Option<&str>) {
    match text.split_once(char::is_whitespace) {
        Some((head, rest)) => (head, Some(rest)),
        None => (text, None),
    }
}

/// Parser of an id: strict in a server, loose in a client ([`PeerId::from_server`]).
type ReadId = fn(&str) -> Result<PeerId, IdError>;

fn peer(text: Option<&str>, command: &'static str, read: ReadId) -> Result<PeerId, HelloError> {
    match text.map(str::trim) {
        None | Some("") => Err(HelloError::Missing(command, "the id of a peer")),
        Some(text) => read(text).map_err(HelloError::Peer),
    }
}

fn peers(text: Option<&str>) -> Result<Vec<PeerId>, HelloError> {
    let words = text.unwrap_or_default().split_whitespace();
    words.map(|word| PeerId::from_server(word).map_err(HelloError::Peer)).collect()
}

/// Parses the id of a peer and the body of a message.
fn addressed(rest: Option<&str>, read: ReadId) -> Result<(PeerId, String), HelloError> {
    const NAME: &str = "ROOM_PEER_MSG";
    let (who, body) = word(rest.unwrap_or_default().trim_start());
    let body = body.ok_or(HelloError::Missing(NAME, "the id of a peer and a message"))?;
    Ok((peer(Some(who), NAME, read)?, body.to_owned()))
}

impl ClientMessage {
    /// Parses a line of a client. Ignores white space around it.
    pub fn parse(line: &str) -> Result<Self, HelloError> {
        let (command, rest) = word(line.trim_start());
        match command {
            "HELLO" => Ok(Self::Hello(peer(rest, "HELLO", str::parse)?)),
            "SESSION" => Ok(Self::Session(peer(rest, "SESSION", str::parse)?)),
            "ROOM" => {
                let name = rest.unwrap_or_default().trim();
                if name.is_empty() {
                    return Err(HelloError::Missing("ROOM", "the name of a room"));
                }
                Ok(Self::Room(name.parse().map_err(|error| match error {
                    IdError::Invisible(_) => HelloError::RoomCharacter(error),
                    IdError::Empty | IdError::TooLong | IdError::BadCharacter | IdError::Reserved => {
                        HelloError::Room(name.to_owned())
                    }
                })?))
            }
            "ROOM_PEER_MSG" => {
                let (to, body) = addressed(rest, str::parse)?;
                Ok(Self::RoomPeerMsg { to, body })
            }
            "ROOM_PEER_LIST" => Ok(Self::RoomPeerList),
            "ROOM_PEER_REMOVE" => Ok(Self::RoomPeerRemove(peer(rest, "ROOM_PEER_REMOVE", str::parse)?)),
            "ROOM_PEER_MUTE" => {
                let (who, kind) = word(rest.unwrap_or_default().trim_start());
                let kind =
                    kind.ok_or(HelloError::Missing("ROOM_PEER_MUTE", "the id of a peer and a kind"))?;
                Ok(Self::RoomPeerMute(peer(Some(who), "ROOM_PEER_MUTE", str::parse)?, kind.parse()?))
            }
            "PEER_LIST" => Ok(Self::PeerList),
            PRESENCE => {
                let words = rest.unwrap_or_default().split_whitespace();
                if words.clone().nth(MAX_WATCHED).is_some() {
                    return Err(HelloError::TooManyPeers);
                }
                let peers = words.map(|word| word.parse().map_err(HelloError::Peer));
                peers.collect::<Result<_, _>>().map(Self::Presence)
            }
            "TOKEN" => match rest.map(str::trim) {
                None | Some("") => Err(HelloError::Missing("TOKEN", "a token")),
                Some(token) => Ok(Self::Token(Secret(token.to_owned()))),
            },
            _ => Err(HelloError::UnknownCommand),
        }
    }
}

impl fmt::Display for ClientMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hello(id) => write!(f, "HELLO {id}"),
            Self::Session(id) => write!(f, "SESSION {id}"),
            Self::Room(room) => write!(f, "ROOM {room}"),
            Self::RoomPeerMsg { to, body } => write!(f, "ROOM_PEER_MSG {to} {body}"),
            Self::RoomPeerList => f.write_str("ROOM_PEER_LIST"),
            Self::RoomPeerRemove(id) => write!(f, "ROOM_PEER_REMOVE {id}"),
            Self::RoomPeerMute(id, kind) => write!(f, "ROOM_PEER_MUTE {id} {kind}"),
            Self::PeerList => f.write_str("PEER_LIST"),
            Self::Presence(peers) => {
                f.write_str(PRESENCE)?;
                peers.iter().try_for_each(|peer| write!(f, " {peer}"))
            }
            Self::Token(token) => write!(f, "{TOKEN}{}", token.0),
        }
    }
}

impl ServerMessage {
    /// Parses a line of a server.
    pub fn parse(line: &str) -> Result<Self, HelloError> {
        let (command, rest) = word(line);
        match command {
            "HELLO" => Ok(Self::Hello),
            "SESSION_OK" => Ok(Self::SessionOk),
            "ROOM_OK" => Ok(Self::RoomOk(peers(rest)?)),
            "ROOM_PEER_MSG" => {
                let (from, body) = addressed(rest, PeerId::from_server)?;
                Ok(Self::RoomPeerMsg { from, body })
            }
            "ROOM_PEER_JOINED" => {
                Ok(Self::RoomPeerJoined(peer(rest, "ROOM_PEER_JOINED", PeerId::from_server)?))
            }
            "ROOM_PEER_LEFT" => Ok(Self::RoomPeerLeft(peer(rest, "ROOM_PEER_LEFT", PeerId::from_server)?)),
            "ROOM_PEER_LIST" => Ok(Self::RoomPeerList(peers(rest)?)),
            "ERROR" => Ok(Self::Error(rest.unwrap_or_default().to_owned())),
            "PEER_LIST" => Ok(Self::PeerList(peers(rest)?)),
            "SESSION_FROM" => Ok(Self::SessionFrom(peer(rest, "SESSION_FROM", PeerId::from_server)?)),
            "ROOM_PEER_DESCRIBED" => {
                let (peer, body) = addressed(rest, PeerId::from_server)?;
                let description = serde_json::from_str(&body);
                Ok(Self::RoomPeerDescribed(peer, description.map_err(|_| HelloError::Description)?))
            }
            "ROOM_MODERATOR" => Ok(Self::RoomModerator),
            "ROOM_MOVE" => {
                let name = rest.unwrap_or_default().trim();
                name.parse().map(Self::RoomMove).map_err(|_| HelloError::Room(name.to_owned()))
            }
            "MUTE" => {
                let (kind, by) = word(rest.unwrap_or_default());
                let by = by.map(|by| peer(Some(by), "MUTE", PeerId::from_server)).transpose()?;
                Ok(Self::Mute(kind.parse()?, by))
            }
            PRESENCE => {
                let (who, presence) = word(rest.unwrap_or_default());
                let who = peer(Some(who), PRESENCE, PeerId::from_server)?;
                Ok(Self::Presence(who, presence.unwrap_or_default().parse()?))
            }
            "TOKEN_EXPIRES" => {
                let seconds = rest.unwrap_or_default().parse();
                seconds.map(Self::TokenExpires).map_err(|_| HelloError::Seconds)
            }
            "TOKEN_OK" => Ok(Self::TokenOk),
            "TOKEN_REFUSED" => Ok(Self::TokenRefused(rest.unwrap_or_default().to_owned())),
            "ICE_SERVERS" => IceServer::parse_list(rest.unwrap_or_default())
                .map(Self::IceServers)
                .ok_or(HelloError::IceServers),
            _ => Err(HelloError::UnknownCommand),
        }
    }
}

impl fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list(f: &mut fmt::Formatter<'_>, name: &str, peers: &[PeerId]) -> fmt::Result {
            // The space is written even without peers: the C client compares with `ROOM_OK `.
            write!(f, "{name} ")?;
            for (i, peer) in peers.iter().enumerate() {
                write!(f, "{}{peer}", if i == 0 { "" } else { " " })?;
            }
            Ok(())
        }
        match self {
            Self::Hello => f.write_str("HELLO"),
            Self::SessionOk => f.write_str("SESSION_OK"),
            Self::RoomOk(peers) => list(f, "ROOM_OK", peers),
            Self::RoomPeerMsg { from, body } => write!(f, "ROOM_PEER_MSG {from} {body}"),
            Self::RoomPeerJoined(id) => write!(f, "ROOM_PEER_JOINED {id}"),
            Self::RoomPeerLeft(id) => write!(f, "ROOM_PEER_LEFT {id}"),
            Self::RoomPeerList(peers) => list(f, "ROOM_PEER_LIST", peers),
            Self::Error(text) => write!(f, "ERROR {text}"),
            Self::PeerList(peers) => list(f, "PEER_LIST", peers),
            Self::SessionFrom(id) => write!(f, "SESSION_FROM {id}"),
            Self::RoomPeerDescribed(id, description) => write!(f, "ROOM_PEER_DESCRIBED {id} {description}"),
            Self::RoomModerator => f.write_str("ROOM_MODERATOR"),
            Self::RoomMove(room) => write!(f, "ROOM_MOVE {room}"),
            Self::Mute(kind, None) => write!(f, "MUTE {kind}"),
            Self::Mute(kind, Some(by)) => write!(f, "MUTE {kind} {by}"),
            Self::Presence(peer, presence) => write!(f, "{PRESENCE} {peer} {presence}"),
            Self::TokenExpires(seconds) => write!(f, "TOKEN_EXPIRES {seconds}"),
            Self::TokenOk => f.write_str("TOKEN_OK"),
            Self::TokenRefused(why) => write!(f, "TOKEN_REFUSED {why}"),
            Self::IceServers(servers) => {
                write!(f, "ICE_SERVERS {}", serde_json::to_string(servers).unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id() -> impl Strategy<Value = PeerId> {
        "[a-zA-Z0-9_.\u{e4}-]{1,20}".prop_map(|text| text.parse().unwrap())
    }

    fn kind() -> impl Strategy<Value = MediaKind> {
        prop_oneof![Just(MediaKind::Audio), Just(MediaKind::Video)]
    }

    fn client() -> impl Strategy<Value = ClientMessage> {
        prop_oneof![
            id().prop_map(ClientMessage::Hello),
            id().prop_map(ClientMessage::Session),
            "[a-z]{8,9}".prop_map(|r| ClientMessage::Room(r.parse().unwrap())),
            (id(), ".*").prop_map(|(to, body)| ClientMessage::RoomPeerMsg { to, body }),
            Just(ClientMessage::RoomPeerList),
            id().prop_map(ClientMessage::RoomPeerRemove),
            (id(), kind()).prop_map(|(id, kind)| ClientMessage::RoomPeerMute(id, kind)),
            Just(ClientMessage::PeerList),
            prop::collection::vec(id(), 0..5).prop_map(ClientMessage::Presence),
            "[a-zA-Z0-9_.-]{1,40}".prop_map(|token| ClientMessage::Token(Secret(token))),
        ]
    }

    fn server() -> impl Strategy<Value = ServerMessage> {
        let ids = || prop::collection::vec(id(), 0..5);
        prop_oneof![
            Just(ServerMessage::Hello),
            Just(ServerMessage::SessionOk),
            ids().prop_map(ServerMessage::RoomOk),
            (id(), ".*").prop_map(|(from, body)| ServerMessage::RoomPeerMsg { from, body }),
            id().prop_map(ServerMessage::RoomPeerJoined),
            id().prop_map(ServerMessage::RoomPeerLeft),
            ids().prop_map(ServerMessage::RoomPeerList),
            ".*".prop_map(ServerMessage::Error),
            ids().prop_map(ServerMessage::PeerList),
            id().prop_map(ServerMessage::SessionFrom),
            (id(), ".*").prop_map(|(id, name)| ServerMessage::RoomPeerDescribed(id, name.into())),
            Just(ServerMessage::RoomModerator),
            "[a-z]{8,9}".prop_map(|room| ServerMessage::RoomMove(room.parse().unwrap())),
            (kind(), prop::option::of(id())).prop_map(|(kind, by)| ServerMessage::Mute(kind, by)),
            (id(), prop_oneof![Just(Presence::Free), Just(Presence::Busy), Just(Presence::Gone)])
                .prop_map(|(id, presence)| ServerMessage::Presence(id, presence)),
            any::<u64>().prop_map(ServerMessage::TokenExpires),
            Just(ServerMessage::TokenOk),
            ".*".prop_map(ServerMessage::TokenRefused),
            Just(ServerMessage::IceServers(vec![IceServer {
                urls: vec!["turn:example.org".into()],
                username: Some("1:x y".into()),
                credential: Some(crate::protocol::Secret("s".into())),
            }])),
        ]
    }

    proptest! {
        #[test]
        fn messages_of_a_client_survive_a_round_trip(message in client()) {
            prop_assert_eq!(ClientMessage::parse(&message.to_string()), Ok(message));
        }

        #[test]
        fn messages_of_a_server_survive_a_round_trip(message in server()) {
            prop_assert_eq!(ServerMessage::parse(&message.to_string()), Ok(message));
        }

        #[test]
        fn perturbed_bytes_never_panic(
            message in server(), at in any::<prop::sample::Index>(), byte in any::<u8>()
        ) {
            let mut bytes = message.to_string().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let text = String::from_utf8_lossy(&bytes);
            let _ = ServerMessage::parse(&text);
            let _ = ClientMessage::parse(&text);
        }
    }

    #[test]
    fn wire_text() {
        let ann: PeerId = "ann".parse().unwrap();
        let bob: PeerId = "bob".parse().unwrap();
        let lines: Vec<String> = vec![
            ClientMessage::Hello(ann.clone()).to_string(),
            ClientMessage::Session(bob.clone()).to_string(),
            ClientMessage::Room("attic".parse().unwrap()).to_string(),
            ClientMessage::RoomPeerMsg { to: bob.clone(), body: "{\"ice\": 1}".into() }.to_string(),
            ClientMessage::RoomPeerList.to_string(),
            ClientMessage::PeerList.to_string(),
            ClientMessage::RoomPeerRemove(bob.clone()).to_string(),
            ClientMessage::RoomPeerMute(bob.clone(), MediaKind::Video).to_string(),
            ServerMessage::Hello.to_string(),
            ServerMessage::SessionOk.to_string(),
            ServerMessage::RoomOk(vec![]).to_string() + "|",
            ServerMessage::RoomOk(vec![ann.clone(), bob.clone()]).to_string(),
            ServerMessage::RoomPeerMsg { from: ann.clone(), body: "x  y".into() }.to_string(),
            ServerMessage::RoomPeerJoined(ann.clone()).to_string(),
            ServerMessage::RoomPeerLeft(ann.clone()).to_string(),
            ServerMessage::RoomPeerList(vec![bob.clone()]).to_string(),
            ServerMessage::Error("peer 'x' not found".into()).to_string(),
            ServerMessage::PeerList(vec![ann, bob.clone()]).to_string(),
            ServerMessage::SessionFrom(bob.clone()).to_string(),
            ServerMessage::RoomModerator.to_string(),
            ServerMessage::RoomMove("cellar".parse().unwrap()).to_string(),
            ServerMessage::Mute(MediaKind::Audio, None).to_string(),
            ServerMessage::Mute(MediaKind::Video, Some(bob)).to_string(),
            ClientMessage::Presence(vec!["ann".parse().unwrap(), "bob".parse().unwrap()]).to_string(),
            ServerMessage::Presence("ann".parse().unwrap(), Presence::Busy).to_string(),
            ClientMessage::Token(Secret("a.b.c".into())).to_string(),
            ServerMessage::TokenExpires(25).to_string(),
            ServerMessage::TokenOk.to_string(),
            ServerMessage::TokenRefused("it has expired".into()).to_string(),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r#"
        HELLO ann
        SESSION bob
        ROOM attic
        ROOM_PEER_MSG bob {"ice": 1}
        ROOM_PEER_LIST
        PEER_LIST
        ROOM_PEER_REMOVE bob
        ROOM_PEER_MUTE bob video
        HELLO
        SESSION_OK
        ROOM_OK |
        ROOM_OK ann bob
        ROOM_PEER_MSG ann x  y
        ROOM_PEER_JOINED ann
        ROOM_PEER_LEFT ann
        ROOM_PEER_LIST bob
        ERROR peer 'x' not found
        PEER_LIST ann bob
        SESSION_FROM bob
        ROOM_MODERATOR
        ROOM_MOVE cellar
        MUTE audio
        MUTE video bob
        PRESENCE ann bob
        PRESENCE ann busy
        TOKEN a.b.c
        TOKEN_EXPIRES 25
        TOKEN_OK
        TOKEN_REFUSED it has expired
        "#);
    }

    #[test]
    fn a_command_without_its_argument_is_an_error() {
        let error = |line| ClientMessage::parse(line).unwrap_err().to_string();
        assert_eq!(error("SESSION"), "'SESSION' needs the id of a peer");
        assert_eq!(error("ROOM  "), "'ROOM' needs the name of a room");
        assert_eq!(error("ROOM a b"), "invalid room id 'a b'");
        assert_eq!(error("ROOM session"), "invalid room id 'session'");
        let invisible = "an id may not hold the invisible character U+200B";
        assert_eq!(error("ROOM a\u{200b}"), format!("invalid room id: {invisible}"));
        assert_eq!(error("SESSION a\u{200b}"), format!("invalid peer uid: {invisible}"));
        let joined = ServerMessage::parse("ROOM_PEER_JOINED a\u{200b}");
        assert!(matches!(joined, Ok(ServerMessage::RoomPeerJoined(_))), "other servers accept the id");
        assert_eq!(error("ROOM_PEER_MSG bob"), "'ROOM_PEER_MSG' needs the id of a peer and a message");
        assert_eq!(error("ROOM_PEER_REMOVE "), "'ROOM_PEER_REMOVE' needs the id of a peer");
        assert_eq!(error("ROOM_PEER_MUTE bob"), "'ROOM_PEER_MUTE' needs the id of a peer and a kind");
        assert_eq!(error("ROOM_PEER_MUTE bob all"), "'audio' or 'video' is wanted");
        assert_eq!(ServerMessage::parse("MUTE"), Err(HelloError::Kind));
        assert_eq!(error("GET /"), "unknown command");
        assert_eq!(
            ClientMessage::parse("  HELLO\t ann \r\n"),
            Ok(ClientMessage::Hello("ann".parse().unwrap()))
        );
    }
}
