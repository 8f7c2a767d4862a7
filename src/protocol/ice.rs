//! STUN and TURN servers: their URIs (RFC 7064, RFC 7065), and their list in WebRTC's configuration (`iceServers`),
//! which roomtone's server sends to clients.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Maximum number of servers in a list, and of URIs of one server; further ones are dropped.
pub const MAX_ICE_SERVERS: usize = 8;
/// Maximum length of a URI, user name or password, in bytes.
const MAX_TEXT: usize = 512;

/// Text that `Debug` does not print.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// Protocol and transport of an ICE server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IceKind {
    /// STUN over UDP: returns the client's public address.
    Stun,
    /// TURN over UDP: relays media.
    TurnUdp,
    /// TURN over TCP.
    TurnTcp,
    /// TURN over TLS.
    TurnTls,
}

/// URI of a STUN or TURN server: `stun:host`, `turn:host:port?transport=tcp`, `turns:host`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceUrl {
    /// Protocol and transport.
    pub kind: IceKind,
    /// Host name or address; an IPv6 address has no brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Error of a text that is not the URI of a STUN or TURN server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no STUN or TURN server: stun:HOST, turn:HOST:PORT?transport=udp, turns:HOST")]
pub struct IceUrlError(String);

impl FromStr for IceUrl {
    type Err = IceUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || IceUrlError(text.chars().take(100).collect());
        if text.len() > MAX_TEXT {
            return Err(wrong());
        }
        let (scheme, rest) = text.trim().split_once(':').ok_or_else(wrong)?;
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        let transport = match query {
            "" => None,
            _ => Some(query.strip_prefix("transport=").ok_or_else(wrong)?),
        };
        let (kind, default) = match (scheme.to_ascii_lowercase().as_str(), transport) {
            ("stun", None | Some("udp")) => (IceKind::Stun, 3478),
            ("turn", None | Some("udp")) => (IceKind::TurnUdp, 3478),
            ("turn", Some("tcp")) => (IceKind::TurnTcp, 3478),
            ("turns", None | Some("tcp")) => (IceKind::TurnTls, 5349),
            _ => return Err(wrong()),
        };
        let (host, port) = match address.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':').or((port.is_empty()).then_some(""))),
            None => match address.split_once(':') {
                Some((host, port)) => (host, Some(port).filter(|port| !port.is_empty())),
                None => (address, Some("")),
            },
        };
        let port = match port.ok_or_else(wrong)? {
            "" => default,
            port => port.parse().map_err(|_| wrong())?,
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || "-._:%".contains(c);
        if host.is_empty() || !host.chars().all(is_host) {
            return Err(wrong());
        }
        Ok(Self { kind, host: host.to_owned(), port })
    }
}

impl fmt::Display for IceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, query) = match self.kind {
            IceKind::Stun => ("stun", ""),
            IceKind::TurnUdp => ("turn", "?transport=udp"),
            IceKind::TurnTcp => ("turn", "?transport=tcp"),
            IceKind::TurnTls => ("turns", "?transport=tcp"),
        };
        match self.host.contains(':') {
            true => write!(f, "{scheme}:[{}]:{}{query}", self.host, self.port),
            false => write!(f, "{scheme}:{}:{}{query}", self.host, self.port),
        }
    }
}

/// Entry of `iceServers` (W3C WebRTC, 4.2.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceServer {
    /// URIs of the server.
    pub urls: Vec<String>,
    /// User name for TURN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Password for TURN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Secret>,
}

impl IceServer {
    /// Returns the time since 1970 at which the credentials expire, with which user names of coturn's `use-auth-secret`
    /// begin (draft-uberti-behave-turn-rest, 2.2); `None` for other user names.
    pub fn ends(&self) -> Option<Duration> {
        let user = self.username.as_deref()?;
        let seconds = user.split(':').next().unwrap_or_default();
        // A small number is a user name, not a time.
        seconds.parse().ok().filter(|seconds| *seconds > 1_000_000_000).map(Duration::from_secs)
    }

    /// Parses a list; drops entries and URIs that are invalid, too long or beyond [`MAX_ICE_SERVERS`].
    pub fn parse_list(json: &str) -> Option<Vec<Self>> {
        let servers: Vec<Self> = serde_json::from_str(json).ok()?;
        Some(Self::checked(servers))
    }

    /// Drops servers and URIs that are invalid, too long or beyond [`MAX_ICE_SERVERS`].
    pub fn checked(servers: impl IntoIterator<Item = Self>) -> Vec<Self> {
        let short = |text: &str| text.len() <= MAX_TEXT && !text.chars().any(char::is_control);
        let fits = |server: &Self| {
            server.username.as_deref().is_none_or(short)
                && server.credential.as_ref().is_none_or(|secret| short(&secret.0))
        };
        let clean = |mut server: Self| {
            server.urls.retain(|url| url.parse::<IceUrl>().is_ok());
            server.urls.truncate(MAX_ICE_SERVERS);
            server
        };
        let servers = servers.into_iter().filter(fits).map(clean).filter(|server| !server.urls.is_empty());
        servers.take(MAX_ICE_SERVERS).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn uris_are_parsed_with_default_ports_and_transports() {
        let read = |text: &str| text.parse::<IceUrl>().map(|url| url.to_string()).map_err(|_| ());
        for (text, full) in [
            ("stun:example.org", "stun:example.org:3478"),
            ("stun://192.0.2.1:19302", "stun:192.0.2.1:19302"),
            ("turn:example.org", "turn:example.org:3478?transport=udp"),
            ("turn:[2001:db8::1]:99?transport=tcp", "turn:[2001:db8::1]:99?transport=tcp"),
            ("turns:example.org", "turns:example.org:5349?transport=tcp"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(full), "{text}");
        }
        for wrong in [
            "",
            "example.org",
            "http://example.org",
            "turn:",
            "turn:a:b",
            "turn:a:",
            "turn:a?x=y",
            "turn:a b",
            "turn:a:70000",
            "turn:u:p@a",
            "turn:[::1",
            "turns:a?transport=udp",
        ] {
            assert_eq!(read(wrong), Err(()), "{wrong}");
        }
    }

    #[test]
    fn a_list_is_bounded_and_debug_hides_its_passwords() {
        let json =
            r#"[{"urls":["turn:a","javascript:b"],"username":"u","credential":"geheim"},{"urls":["x"]}]"#;
        let list = IceServer::parse_list(json).unwrap();
        assert_eq!((list.len(), list[0].urls.as_slice()), (1, &["turn:a".to_owned()][..]));
        assert!(!format!("{list:?}").contains("geheim"));
        assert!(serde_json::to_string(&list).unwrap().contains("geheim"));
        let many = format!("[{}]", vec![r#"{"urls":["stun:a"]}"#; 100].join(","));
        assert_eq!(IceServer::parse_list(&many).unwrap().len(), MAX_ICE_SERVERS);
        assert_eq!(IceServer::parse_list("{}"), None);
    }

    proptest! {
        #[test]
        fn a_parsed_uri_survives_a_round_trip(text in "(stun|turns?):\\PC{0,20}") {
            if let Ok(url) = text.parse::<IceUrl>() {
                prop_assert_eq!(url.to_string().parse(), Ok(url));
            }
        }
    }
}
