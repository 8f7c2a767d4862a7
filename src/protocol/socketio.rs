//! The part of socket.io that ssp needs: Engine.IO 4 with text packets, the default namespace, events with one
//! argument (github.com/socketio: engine.io-protocol 4, socket.io-protocol 5). The name of an event is ssp's `type`,
//! and the argument is the `data`.

use serde_json::{Value, json};

/// Path at which clients expect socket.io.
pub const PATH: &str = "/socket.io";
/// Separator of the packets in an HTTP body.
const SEPARATOR: char = '\u{1e}';

/// First packet of a session, sent by the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake {
    /// Id of the session, which each of its requests contains.
    pub sid: String,
    /// Interval between the server's pings, in ms.
    pub ping_interval: u64,
    /// Time limit for the answer to a ping, in ms.
    pub ping_timeout: u64,
    /// Whether the session can move to a WebSocket.
    pub upgrades: bool,
    /// Maximum size of an HTTP body, in bytes.
    pub max_payload: usize,
}

/// Packet of Engine.IO or Socket.IO.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// `0`: begins the session.
    Open(Handshake),
    /// `1`: ends the session.
    Close,
    /// `2`: a ping, answered by a pong with the same data; `2probe` tests a new WebSocket.
    Ping(String),
    /// `3`: a pong.
    Pong(String),
    /// `5`: moves the session to the WebSocket.
    Upgrade,
    /// `6`: no content; completes a waiting request.
    Noop,
    /// `40`: joins the namespace; the server answers with an id.
    Connect(Option<String>),
    /// `41`: leaves the namespace.
    Disconnect,
    /// `42["type",data]`, as ssp's `{"type":…,"data":…}`.
    Event(String),
    /// `44`: refuses the namespace, for this reason.
    ConnectError(String),
}

/// Error of a text that is not a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a known packet of socket.io")]
pub struct NoPacket;

impl Packet {
    /// Parses a packet.
    pub fn parse(text: &str) -> Result<Self, NoPacket> {
        let mut rest = text.chars();
        match (rest.next().ok_or(NoPacket)?, rest.as_str()) {
            ('0', json) => handshake(json).map(Self::Open),
            ('1', _) => Ok(Self::Close),
            ('2', data) => Ok(Self::Ping(data.to_owned())),
            ('3', data) => Ok(Self::Pong(data.to_owned())),
            ('4', message) => Self::message(message),
            ('5', _) => Ok(Self::Upgrade),
            ('6', _) => Ok(Self::Noop),
            _ => Err(NoPacket),
        }
    }

    fn message(text: &str) -> Result<Self, NoPacket> {
        let mut rest = text.chars();
        let kind = rest.next().ok_or(NoPacket)?;
        let rest = rest.as_str();
        // The path of another namespace comes first.
        if rest.starts_with('/') {
            return Err(NoPacket);
        }
        match kind {
            '0' => Ok(Self::Connect(field(rest, "sid"))),
            '1' => Ok(Self::Disconnect),
            // An id before the array requests an acknowledgement, which ssp does not have.
            '2' => event(rest.trim_start_matches(|c: char| c.is_ascii_digit())).map(Self::Event),
            '4' => Ok(Self::ConnectError(field(rest, "message").unwrap_or_default())),
            _ => Err(NoPacket),
        }
    }
}

fn field(json: &str, name: &str) -> Option<String> {
    serde_json::from_str::<Value>(json).ok()?.get(name)?.as_str().map(str::to_owned)
}

fn handshake(json: &str) -> Result<Handshake, NoPacket> {
    let value: Value = serde_json::from_str(json).map_err(|_| NoPacket)?;
    let number = |name: &str| value[name].as_u64();
    Ok(Handshake {
        sid: value["sid"].as_str().ok_or(NoPacket)?.to_owned(),
        ping_interval: number("pingInterval").ok_or(NoPacket)?,
        ping_timeout: number("pingTimeout").ok_or(NoPacket)?,
        upgrades: value["upgrades"].as_array().is_some_and(|all| all.contains(&json!("websocket"))),
        max_payload: number("maxPayload").and_then(|n| n.try_into().ok()).unwrap_or(usize::MAX),
    })
}

/// Converts `["type",data]` to ssp's form. The data is empty if the argument is missing or not an object.
fn event(json: &str) -> Result<String, NoPacket> {
    let Ok(Value::Array(mut parts)) = serde_json::from_str(json) else { return Err(NoPacket) };
    if parts.is_empty() || !parts[0].is_string() {
        return Err(NoPacket);
    }
    let data = if parts.len() > 1 { parts.swap_remove(1) } else { Value::Null };
    let data = if data.is_object() { data } else { json!({}) };
    Ok(json!({"type": parts[0], "data": data}).to_string())
}

impl std::fmt::Display for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(handshake) => {
                let upgrades: &[&str] = if handshake.upgrades { &["websocket"] } else { &[] };
                let json = json!({
                    "sid": handshake.sid,
                    "upgrades": upgrades,
                    "pingInterval": handshake.ping_interval,
                    "pingTimeout": handshake.ping_timeout,
                    "maxPayload": handshake.max_payload,
                });
                write!(f, "0{json}")
            }
            Self::Close => f.write_str("1"),
            Self::Ping(data) => write!(f, "2{data}"),
            Self::Pong(data) => write!(f, "3{data}"),
            Self::Upgrade => f.write_str("5"),
            Self::Noop => f.write_str("6"),
            Self::Connect(None) => f.write_str("40"),
            Self::Connect(Some(sid)) => write!(f, "40{}", json!({"sid": sid})),
            Self::Disconnect => f.write_str("41"),
            Self::ConnectError(why) => write!(f, "44{}", json!({"message": why})),
            Self::Event(ssp) => {
                let event: Value = serde_json::from_str(ssp).unwrap_or_default();
                let data = event.get("data").cloned().unwrap_or_else(|| json!({}));
                write!(f, "42{}", json!([event["type"].as_str().unwrap_or_default(), data]))
            }
        }
    }
}

/// Parses the packets of an HTTP body.
pub fn split(body: &str) -> impl Iterator<Item = Result<Packet, NoPacket>> {
    body.split(SEPARATOR).map(Packet::parse)
}

/// Joins packets into an HTTP body.
pub fn join(packets: &[Packet]) -> String {
    let texts: Vec<String> = packets.iter().map(Packet::to_string).collect();
    texts.join(&SEPARATOR.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all() -> Vec<(Packet, &'static str)> {
        let handshake = Handshake {
            sid: "abc".into(),
            ping_interval: 25_000,
            ping_timeout: 20_000,
            upgrades: true,
            max_payload: 1_000_000,
        };
        vec![
            (
                Packet::Open(handshake),
                r#"0{"maxPayload":1000000,"pingInterval":25000,"pingTimeout":20000,"sid":"abc","upgrades":["websocket"]}"#,
            ),
            (Packet::Close, "1"),
            (Packet::Ping("probe".into()), "2probe"),
            (Packet::Pong(String::new()), "3"),
            (Packet::Upgrade, "5"),
            (Packet::Noop, "6"),
            (Packet::Connect(None), "40"),
            (Packet::Connect(Some("x".into())), r#"40{"sid":"x"}"#),
            (Packet::Disconnect, "41"),
            (Packet::ConnectError("no".into()), r#"44{"message":"no"}"#),
            (
                Packet::Event(r#"{"data":{"pool":"room"},"type":"rtc:join"}"#.into()),
                r#"42["rtc:join",{"pool":"room"}]"#,
            ),
        ]
    }

    #[test]
    fn packets_match_the_text_of_the_protocol() {
        for (packet, text) in all() {
            assert_eq!(packet.to_string(), text);
            assert_eq!(Packet::parse(text), Ok(packet), "{text}");
        }
    }

    #[test]
    fn events_of_other_shapes_are_parsed() {
        let event = |text: &str| match Packet::parse(text) {
            Ok(Packet::Event(ssp)) => ssp,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(event(r#"42["rtc:x"]"#), r#"{"data":{},"type":"rtc:x"}"#);
        assert_eq!(event(r#"42["x",7]"#), r#"{"data":{},"type":"x"}"#);
        assert_eq!(event(r#"4217["x",{"a":1},2]"#), r#"{"data":{"a":1},"type":"x"}"#);
        for junk in
            ["", "9", "4", "42", "42[]", "42[1]", "42{}", "42/other,[\"x\"]", "0", "0{}", "43[]", "\u{1e}"]
        {
            assert_eq!(Packet::parse(junk), Err(NoPacket), "{junk:?}");
        }
    }

    #[test]
    fn a_body_contains_several_packets() {
        let packets = [Packet::Noop, Packet::Ping(String::new()), Packet::Close];
        assert_eq!(join(&packets), "6\u{1e}2\u{1e}1");
        let read: Vec<_> = split("6\u{1e}2\u{1e}x\u{1e}1").collect();
        assert_eq!(
            read,
            [Ok(Packet::Noop), Ok(Packet::Ping(String::new())), Err(NoPacket), Ok(Packet::Close)]
        );
    }

    proptest! {
        #[test]
        fn arbitrary_packets_survive_a_round_trip(text in "\\PC*", digits in "[0-9]{0,3}") {
            let text = format!("{digits}{text}");
            if let Ok(packet) = Packet::parse(&text) {
                let again = packet.to_string();
                prop_assert_eq!(Packet::parse(&again), Ok(packet));
            }
        }
    }
}
