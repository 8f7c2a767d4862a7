//! The framing of a protocol's messages on a WebSocket: as they are, or in the packets of socket.io.

use crate::protocol::hello::{PING, PONG, TOKEN};
use crate::protocol::socketio::{Handshake, Packet};

/// See the module.
#[derive(Debug)]
pub(in crate::server) enum Framing {
    /// Each text message is a message of the protocol.
    Plain,
    /// As `Plain`, and [`PING`], with which the client checks that the server is alive, and [`TOKEN`] are handled here: both
    /// may come during a call.
    Extended,
    /// Packets of socket.io.
    SocketIo(SocketIo),
}

/// The server's state of one socket.io client.
#[derive(Debug, Clone)]
pub(in crate::server) struct SocketIo {
    /// The socket id that the client receives when it enters the namespace.
    id: String,
    /// The handshake to send first; none if HTTP has carried it.
    handshake: Option<Handshake>,
    is_in_namespace: bool,
}

/// The content of a received text message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) enum Decoded {
    /// A message of the protocol.
    Message(String),
    /// A sign of life.
    Alive,
    /// A request that is answered with this text.
    Reply(String),
    /// The next token of the client.
    Token(String),
    /// The client ends the connection.
    Close,
    Ignored,
}

impl Framing {
    /// Returns the text to send first, if the framing begins with one.
    pub(in crate::server) fn handshake(&self) -> Option<String> {
        match self {
            Self::Plain | Self::Extended => None,
            Self::SocketIo(io) => io.handshake.clone().map(|handshake| Packet::Open(handshake).to_string()),
        }
    }

    pub(in crate::server) fn decode(&mut self, text: &str) -> Decoded {
        match self {
            Self::Extended if text == PING => Decoded::Reply(PONG.to_owned()),
            Self::Extended if text.starts_with(TOKEN) => {
                Decoded::Token(text[TOKEN.len()..].trim().to_owned())
            }
            Self::Plain | Self::Extended => Decoded::Message(text.to_owned()),
            Self::SocketIo(io) => Packet::parse(text).map_or(Decoded::Ignored, |packet| io.handle(packet)),
        }
    }

    pub(in crate::server) fn encode(&self, message: String) -> String {
        match self {
            Self::Plain | Self::Extended => message,
            Self::SocketIo(_) => Packet::Event(message).to_string(),
        }
    }

    /// Returns the text that asks for a sign of life; none where a ping of the WebSocket does.
    pub(in crate::server) fn ping(&self) -> Option<String> {
        match self {
            Self::Plain | Self::Extended => None,
            Self::SocketIo(_) => Some(Packet::Ping(String::new()).to_string()),
        }
    }

    /// Returns the text to send before the server's close frame, if there is one.
    pub(in crate::server) fn disconnect(&self) -> Option<String> {
        match self {
            Self::Plain | Self::Extended => None,
            Self::SocketIo(_) => Some(Packet::Disconnect.to_string()),
        }
    }
}

impl SocketIo {
    /// Returns the state for a client whose handshake took place over HTTP; `id` is its socket id in the namespace.
    pub(in crate::server) fn new(id: String) -> Self {
        Self { id, handshake: None, is_in_namespace: false }
    }

    /// Returns the state for a client whose handshake takes place on the WebSocket.
    pub(in crate::server) fn with_handshake(id: String, handshake: Handshake) -> Self {
        Self { handshake: Some(handshake), ..Self::new(id) }
    }

    /// Handles a packet of the client. Events count only after the client has entered the namespace.
    pub(in crate::server) fn handle(&mut self, packet: Packet) -> Decoded {
        match packet {
            Packet::Event(message) if self.is_in_namespace => Decoded::Message(message),
            Packet::Connect(_) if !self.is_in_namespace => {
                self.is_in_namespace = true;
                Decoded::Reply(Packet::Connect(Some(self.id.clone())).to_string())
            }
            Packet::Pong(_) => Decoded::Alive,
            Packet::Ping(data) => Decoded::Reply(Packet::Pong(data).to_string()),
            Packet::Disconnect | Packet::Close => Decoded::Close,
            Packet::Event(_)
            | Packet::Connect(_)
            | Packet::Open(_)
            | Packet::Upgrade
            | Packet::Noop
            | Packet::ConnectError(_) => Decoded::Ignored,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_handled_for_clients_that_asked() {
        let mut extended = Framing::Extended;
        assert_eq!(extended.decode("PING"), Decoded::Reply("PONG".to_owned()));
        assert_eq!(extended.decode("TOKEN a.b.c"), Decoded::Token("a.b.c".to_owned()));
        for text in ["TOKEN", "TOKENS a", "token a"] {
            assert_eq!(extended.decode(text), Decoded::Message(text.to_owned()));
        }
        assert_eq!(Framing::Plain.decode("TOKEN a"), Decoded::Message("TOKEN a".to_owned()));
    }

    #[test]
    fn events_count_in_the_namespace_alone() {
        let mut framing = Framing::SocketIo(SocketIo::new("abc".to_owned()));
        let join = r#"42["rtc:join",{"pool":"attic"}]"#;
        assert_eq!(framing.decode(join), Decoded::Ignored);
        assert_eq!(framing.decode("40"), Decoded::Reply(r#"40{"sid":"abc"}"#.to_owned()));
        assert_eq!(framing.decode("40"), Decoded::Ignored);
        let line = r#"{"data":{"pool":"attic"},"type":"rtc:join"}"#;
        assert_eq!(framing.decode(join), Decoded::Message(line.to_owned()));
        assert_eq!(framing.encode(line.to_owned()), join);
        assert_eq!(framing.decode("2probe"), Decoded::Reply("3probe".to_owned()));
        assert_eq!(framing.decode("3"), Decoded::Alive);
        assert_eq!(framing.decode("\u{1e}"), Decoded::Ignored);
        assert_eq!(framing.decode("41"), Decoded::Close);
    }
}
