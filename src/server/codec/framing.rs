//! How a protocol's lines go over a WebSocket: as they are, or wrapped in the packets of socket.io. Pure.

use async_tungstenite::tungstenite::Message;

use crate::protocol::room::{PING, PONG};
use crate::protocol::socketio::{Handshake, Packet};

/// See the module.
#[derive(Debug)]
pub(in crate::server) enum Dialect {
    /// A line is a message.
    Plain,
    /// Messages as in `Plain`, plus [`PING`], with which the client checks that the server is alive.
    Extended,
    /// Packets of socket.io.
    SocketIo(SocketIo),
}

/// One client's side of socket.io.
#[derive(Debug, Clone)]
pub(in crate::server) struct SocketIo {
    /// The socket id that the client receives when it enters the namespace.
    id: String,
    /// Said first, where nothing was said by HTTP.
    greeting: Option<Handshake>,
    /// It is in the namespace.
    is_in: bool,
}

/// What a message was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) enum Heard {
    /// A line of the protocol.
    Line(String),
    /// A sign of life.
    Alive,
    /// Something to be answered with this.
    Reply(String),
    /// A goodbye.
    End,
    /// Nothing to us.
    Nothing,
}

impl Dialect {
    pub(in crate::server) fn greeting(&self) -> Option<String> {
        match self {
            Self::Plain | Self::Extended => None,
            Self::SocketIo(io) => io.greeting.clone().map(|handshake| Packet::Open(handshake).to_string()),
        }
    }

    pub(in crate::server) fn read(&mut self, text: &str) -> Heard {
        match self {
            Self::Extended if text == PING => Heard::Reply(PONG.to_owned()),
            Self::Plain | Self::Extended => Heard::Line(text.to_owned()),
            Self::SocketIo(io) => Packet::parse(text).map_or(Heard::Nothing, |packet| io.take(packet)),
        }
    }

    pub(in crate::server) fn write(&self, line: String) -> String {
        match self {
            Self::Plain | Self::Extended => line,
            Self::SocketIo(_) => Packet::Event(line).to_string(),
        }
    }

    pub(in crate::server) fn ping(&self) -> Message {
        match self {
            Self::Plain | Self::Extended => Message::Ping(Default::default()),
            Self::SocketIo(_) => Message::text(Packet::Ping(String::new()).to_string()),
        }
    }

    pub(in crate::server) fn farewell(&self) -> Option<String> {
        match self {
            Self::Plain | Self::Extended => None,
            Self::SocketIo(_) => Some(Packet::Disconnect.to_string()),
        }
    }
}

impl SocketIo {
    /// Returns the state for a client whose handshake took place over HTTP; `id` is its socket id in the namespace.
    pub(in crate::server) fn new(id: String) -> Self {
        Self { id, greeting: None, is_in: false }
    }

    /// Returns the state for a client whose handshake takes place on the WebSocket.
    pub(in crate::server) fn greeted(id: String, greeting: Handshake) -> Self {
        Self { greeting: Some(greeting), ..Self::new(id) }
    }

    /// What a packet means.
    pub(in crate::server) fn take(&mut self, packet: Packet) -> Heard {
        match packet {
            Packet::Event(line) if self.is_in => Heard::Line(line),
            Packet::Connect(_) if !self.is_in => {
                self.is_in = true;
                Heard::Reply(Packet::Connect(Some(self.id.clone())).to_string())
            }
            Packet::Pong(_) => Heard::Alive,
            Packet::Ping(data) => Heard::Reply(Packet::Pong(data).to_string()),
            Packet::Disconnect | Packet::Close => Heard::End,
            Packet::Event(_)
            | Packet::Connect(_)
            | Packet::Open(_)
            | Packet::Upgrade
            | Packet::Noop
            | Packet::ConnectError(_) => Heard::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_count_in_the_namespace_alone() {
        let mut dialect = Dialect::SocketIo(SocketIo::new("abc".to_owned()));
        let join = r#"42["rtc:join",{"pool":"attic"}]"#;
        assert_eq!(dialect.read(join), Heard::Nothing);
        assert_eq!(dialect.read("40"), Heard::Reply(r#"40{"sid":"abc"}"#.to_owned()));
        assert_eq!(dialect.read("40"), Heard::Nothing);
        let line = r#"{"data":{"pool":"attic"},"type":"rtc:join"}"#;
        assert_eq!(dialect.read(join), Heard::Line(line.to_owned()));
        assert_eq!(dialect.write(line.to_owned()), join);
        assert_eq!(dialect.read("2probe"), Heard::Reply("3probe".to_owned()));
        assert_eq!(dialect.read("3"), Heard::Alive);
        assert_eq!(dialect.read("\u{1e}"), Heard::Nothing);
        assert_eq!(dialect.read("41"), Heard::End);
    }
}
