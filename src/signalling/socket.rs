//! The driver of WebSockets: connects by `ws://` or `wss://`, sends and receives text. Nothing here
//! knows what the text means. It runs on any executor that lets `async-io` run (smol, async-std).

use std::net::IpAddr;
use std::time::Duration;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use async_tungstenite::tungstenite::{Error as WsError, Message};
use futures_rustls::TlsConnector;
use futures_rustls::rustls::pki_types::ServerName;
use futures_util::SinkExt;
use smol::future::{or, yield_now};
use smol::net::TcpStream;
use smol::stream::StreamExt;
use url::{Host, Url};

use crate::protocol::room::{EXTENSION_QUERY, SERVER};
use crate::protocol::socketio::{self, Packet};
use crate::protocol::ssp::Version;
use crate::protocol::{MAX_MESSAGE, Secret};
use crate::tls::{Trust, client_config};

/// How long connecting may take, with TLS and the upgrade.
const CONNECT: Duration = Duration::from_secs(10);
/// No close frame came; one without a code came (RFC 6455, 7.4.1).
const ABNORMAL: u16 = 1006;
const NO_STATUS: u16 = 1005;
/// How long a message may take to leave.
const WRITE: Duration = Duration::from_secs(10);
/// The messages that are taken of a server in one go.
const TURN: usize = 16;

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HELLO, SESSION, ROOM.
    Room,
    /// ssp, the protocol of pools, in that version.
    Ssp(Version),
}

/// Which server, and whether to believe it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    url: Url,
    trust: Trust,
    protocol: Protocol,
    extended: bool,
    /// Lines go wrapped in packets of socket.io.
    socketio: bool,
    token: Option<Secret>,
}

/// Why there is no connection to a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Not a URL of a WebSocket.
    #[error(
        "'{0}' is no server's address: it looks like wss://example.org:8443 or ws://127.0.0.1:8443, and that of a server of pools like ssp+wss://example.org/ssp, or ssp+https://example.org for one behind socket.io"
    )]
    Url(String),
    /// The file of trusted certificates cannot be used.
    #[error("the trusted certificates cannot be read: {0}")]
    Trust(String),
    /// Nothing answers there.
    #[error("the server {0} is not reachable: {1}")]
    Unreachable(String, String),
    /// Its certificate is not one that is trusted.
    #[error(
        "the certificate of {0} is not trusted: {1}; give its certificate with --ca FILE, or use --insecure to trust anybody"
    )]
    Certificate(String, String),
    /// TLS failed in another way.
    #[error("no TLS with {0}: {1}; is it a ws:// server?")]
    Tls(String, String),
    /// It answers, but speaks no WebSocket.
    #[error("{0} does not speak WebSocket: {1}")]
    NotWebSocket(String, String),
    /// It wants a token, or another one (--token).
    #[error("{0} does not let us in: {1}")]
    Denied(String, String),
    /// The connection broke.
    #[error("the connection to the server broke: {0}")]
    Broken(String),
}

impl ConnectError {
    /// Whether trying again later may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable(..) | Self::Broken(_) | Self::NotWebSocket(..) | Self::Tls(..) => true,
            Self::Url(_) | Self::Trust(_) | Self::Certificate(..) | Self::Denied(..) => false,
        }
    }
}

impl Target {
    /// Reads `ws://…` or `wss://…`, these with `ssp+` before them, or `ssp+http(s)://…` for socket.io; a bare `host:port` is taken as `wss://`.
    pub fn parse(text: &str, trust: Trust) -> Result<Self, ConnectError> {
        let wrong = || ConnectError::Url(text.to_owned());
        let full = if text.contains("://") { text.to_owned() } else { format!("wss://{text}") };
        let (protocol, full) = match full.strip_prefix("ssp+") {
            Some(rest) => (Protocol::Ssp(Version::Auto), rest),
            None => (Protocol::Room, full.as_str()),
        };
        let socketio = protocol != Protocol::Room && full.starts_with("http");
        // Whose transport is a WebSocket here too.
        let full = if socketio { full.replacen("http", "ws", 1) } else { full.to_owned() };
        let mut url = Url::parse(&full).map_err(|_| wrong())?;
        if !matches!(url.scheme(), "ws" | "wss") || url.host().is_none() {
            return Err(wrong());
        }
        url.set_fragment(None);
        if socketio {
            if url.path() == "/" {
                url.set_path(&format!("{}/", socketio::PATH));
            }
            url.query_pairs_mut().append_pair("EIO", "4").append_pair("transport", "websocket");
        }
        Ok(Self { url, trust, protocol, extended: protocol == Protocol::Room, socketio, token: None })
    }

    /// The address for people, without what may be secret in it.
    pub fn name(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        let _ = url.set_password(None);
        let _ = url.set_username("");
        url.to_string().trim_end_matches('/').to_owned()
    }

    /// The same server, which speaks that version of ssp, if it speaks ssp.
    pub fn ssp_version(mut self, version: Version) -> Self {
        if let Protocol::Ssp(speaks) = &mut self.protocol {
            *speaks = version;
        }
        self
    }

    /// The same server, to which this token is shown.
    pub fn token(mut self, token: Option<Secret>) -> Self {
        self.token = token;
        self
    }

    /// What it speaks.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The same server, without asking for roomtone's additions, or asking for them.
    pub fn extended(mut self, extended: bool) -> Self {
        self.extended = extended;
        self
    }

    /// Whether the server is believed whatever certificate it has.
    pub fn is_insecure(&self) -> bool {
        self.trust == Trust::Anybody
    }

    fn request_url(&self) -> String {
        let mut url = self.url.clone();
        if let Some(token) = &self.token {
            url.query_pairs_mut().append_pair("token", &token.0);
        }
        if !self.extended {
            return url.to_string();
        }
        let query = match url.query() {
            Some(query) if !query.is_empty() => format!("{query}&{EXTENSION_QUERY}"),
            _ => EXTENSION_QUERY.to_owned(),
        };
        url.set_query(Some(&query));
        url.to_string()
    }
}

trait Stream: smol::io::AsyncRead + smol::io::AsyncWrite + Send + Unpin {}
impl<T: smol::io::AsyncRead + smol::io::AsyncWrite + Send + Unpin> Stream for T {}

/// What comes from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A message.
    Text(String),
    /// Something that is no text, of so many bytes.
    Binary(usize),
    /// The connection ended: the close code (1006: none came, RFC 6455, 7.4.1) and the words with it.
    Closed(u16, String),
}

/// An open connection.
pub struct Socket {
    ws: WebSocketStream<Box<dyn Stream>>,
    socketio: bool,
    reads_ahead: bool,
    received: usize,
    server: Option<IpAddr>,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Socket")
    }
}

impl Socket {
    /// The server may be told more before it has answered the first line.
    pub fn reads_ahead(&self) -> bool {
        self.reads_ahead
    }

    /// The address that the server has on this connection; nothing where that is not known.
    pub fn server_address(&self) -> Option<IpAddr> {
        self.server
    }

    /// Connects.
    pub async fn connect(target: &Target) -> Result<Self, ConnectError> {
        let late = async {
            smol::Timer::after(CONNECT).await;
            let reason = format!("no answer within {} s", CONNECT.as_secs());
            Err(ConnectError::Unreachable(target.name(), reason))
        };
        or(Self::open(target), late).await
    }

    async fn open(target: &Target) -> Result<Self, ConnectError> {
        let name = target.name();
        let unreachable = |reason: String| ConnectError::Unreachable(name.clone(), reason);
        let is_tls = target.url.scheme() == "wss";
        let port = target.url.port_or_known_default().unwrap_or(443);
        let wrong = || ConnectError::Url(name.clone());
        let (tcp, server_name) = match target.url.host().ok_or_else(wrong)? {
            Host::Domain(host) => (
                TcpStream::connect((host, port)).await,
                ServerName::try_from(host.to_owned()).map_err(|_| wrong())?,
            ),
            Host::Ipv4(ip) => {
                (TcpStream::connect((ip, port)).await, ServerName::from(std::net::IpAddr::from(ip)))
            }
            Host::Ipv6(ip) => {
                (TcpStream::connect((ip, port)).await, ServerName::from(std::net::IpAddr::from(ip)))
            }
        };
        let tcp = tcp.map_err(|error| unreachable(error.to_string()))?;
        let _ = tcp.set_nodelay(true);
        let server = tcp.peer_addr().ok().map(|address| address.ip());
        let stream: Box<dyn Stream> = if is_tls {
            let config =
                client_config(&target.trust, None).map_err(|error| ConnectError::Trust(error.to_string()))?;
            let tls = TlsConnector::from(config).connect(server_name, tcp).await;
            Box::new(tls.map_err(|error| tls_error(&name, &error))?)
        } else {
            Box::new(tcp)
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(16 * 1024)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let opened =
            async_tungstenite::client_async_with_config(target.request_url(), stream, Some(config)).await;
        match opened {
            Ok((ws, response)) => {
                let reads_ahead = response.headers().get("server").is_some_and(|name| name == SERVER);
                let mut socket = Self { ws, socketio: false, reads_ahead, received: 0, server };
                if target.socketio {
                    socket.enter(&name).await?;
                    socket.socketio = true;
                }
                Ok(socket)
            }
            Err(WsError::Http(response)) if matches!(response.status().as_u16(), 401 | 403) => {
                let words = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                let words = words.trim().chars().take(200).collect::<String>();
                let status = response.status();
                Err(ConnectError::Denied(name, if words.is_empty() { status.to_string() } else { words }))
            }
            Err(WsError::Http(response)) => {
                Err(ConnectError::NotWebSocket(name, format!("it answered {}", response.status())))
            }
            Err(error) => Err(ConnectError::NotWebSocket(name, error.to_string())),
        }
    }

    /// Enters the default namespace of socket.io.
    async fn enter(&mut self, name: &str) -> Result<(), ConnectError> {
        let refused = |why: &str| ConnectError::NotWebSocket(name.to_owned(), format!("socket.io: {why}"));
        loop {
            let Frame::Text(text) = self.receive().await else { return Err(refused("it hung up")) };
            match Packet::parse(&text) {
                Ok(Packet::Open(_)) => self.send(Packet::Connect(None).to_string()).await?,
                Ok(Packet::Connect(_)) => return Ok(()),
                Ok(Packet::ConnectError(why)) => return Err(refused(&why)),
                Ok(_) => {}
                Err(why) => return Err(refused(&why.to_string())),
            }
        }
    }

    /// Sends a message.
    pub async fn send(&mut self, text: String) -> Result<(), ConnectError> {
        self.send_all([text]).await
    }

    /// Sends messages, which leave together.
    pub async fn send_all(&mut self, texts: impl IntoIterator<Item = String>) -> Result<(), ConnectError> {
        let late = async {
            smol::Timer::after(WRITE).await;
            Err(ConnectError::Broken("the server does not read".to_owned()))
        };
        let send = async {
            for text in texts {
                let text = if self.socketio { Packet::Event(text).to_string() } else { text };
                self.ws.feed(Message::text(text)).await?;
            }
            self.ws.flush().await
        };
        let send = async { send.await.map_err(|error: WsError| ConnectError::Broken(error.to_string())) };
        or(send, late).await
    }

    /// The next message; pings are answered meanwhile. May be dropped while it waits, without loss.
    pub async fn receive(&mut self) -> Frame {
        loop {
            // One who says things without end lets others have their turn.
            self.received = self.received.wrapping_add(1);
            if self.received.is_multiple_of(TURN) {
                yield_now().await;
            }
            return match self.ws.next().await {
                Some(Ok(Message::Text(text))) if self.socketio => match Packet::parse(text.as_str()) {
                    Ok(Packet::Event(line)) => Frame::Text(line),
                    Ok(Packet::Ping(data)) => {
                        let pong = Message::text(Packet::Pong(data).to_string());
                        match self.ws.send(pong).await {
                            Ok(()) => continue,
                            Err(error) => Frame::Closed(ABNORMAL, error.to_string()),
                        }
                    }
                    Ok(Packet::Disconnect | Packet::Close) => Frame::Closed(NO_STATUS, String::new()),
                    // What is meant for others, or for nobody.
                    Ok(_) | Err(_) => continue,
                },
                Some(Ok(Message::Text(text))) => Frame::Text(text.as_str().to_owned()),
                Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
                    Frame::Closed(code.into(), reason.as_str().to_owned())
                }
                Some(Ok(Message::Close(None))) => Frame::Closed(NO_STATUS, String::new()),
                None => Frame::Closed(ABNORMAL, String::new()),
                Some(Ok(Message::Binary(bytes))) => Frame::Binary(bytes.len()),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Err(error)) => Frame::Closed(ABNORMAL, error.to_string()),
            };
        }
    }

    /// Sends bytes, which no protocol here knows: for tests.
    pub async fn send_binary(&mut self, bytes: Vec<u8>) -> Result<(), ConnectError> {
        self.ws.send(Message::binary(bytes)).await.map_err(|error| ConnectError::Broken(error.to_string()))
    }

    /// Says goodbye and waits a moment for the server's.
    pub async fn close(mut self) {
        let handshake = async {
            if self.ws.close(None).await.is_ok() {
                // A server that sends without end does not take the time that this has.
                while let Some(Ok(_)) = self.ws.next().await {
                    yield_now().await;
                }
            }
        };
        let late = async {
            smol::Timer::after(Duration::from_secs(1)).await;
        };
        or(handshake, late).await;
    }
}

fn tls_error(name: &str, error: &std::io::Error) -> ConnectError {
    use futures_rustls::rustls::Error;
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(reason)) => {
            ConnectError::Certificate(name.to_owned(), reason.to_string())
        }
        _ => ConnectError::Tls(name.to_owned(), error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_without_secrets() {
        let name = |text| Target::parse(text, Trust::System).map(|t| t.name()).map_err(|e| e.to_string());
        assert_eq!(name("localhost:8443").unwrap(), "wss://localhost:8443");
        assert_eq!(name("ws://u:p@127.0.0.1:1/x?token=t").unwrap(), "ws://127.0.0.1:1/x");
        assert!(name("http://example.org").unwrap_err().contains("wss://"));
        assert!(name("wss://").is_err());
        let url = |text| Target::parse(text, Trust::System).unwrap().request_url();
        assert_eq!(url("ssp+https://a"), "wss://a/socket.io/?EIO=4&transport=websocket");
        assert_eq!(url("ssp+http://a:1/x/?k=v"), "ws://a:1/x/?k=v&EIO=4&transport=websocket");
        assert_eq!(url("ssp+ws://a:1/x"), "ws://a:1/x");
        let target = Target::parse("wss://a/b?c=d", Trust::System).unwrap();
        assert_eq!(target.request_url(), "wss://a/b?c=d&roomtone=1");
    }
}
