//! The driver of WebSockets: connects by `ws://` or `wss://`, sends and receives text. Nothing here
//! knows what the text means. It runs on any executor that lets `async-io` run (smol, async-std).

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::http::{HeaderMap, Response, StatusCode};
use async_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use async_tungstenite::tungstenite::{Error as WsError, Message};
use futures_util::SinkExt;
use smol::future::{or, yield_now};
use smol::io::{AsyncRead, AsyncWrite};
use smol::stream::StreamExt;

use super::super::error::ConnectError;
use super::super::reconnect::retry_after;
use super::super::silence::{Duty, Silence};
use super::super::target::Target;
use super::dial::{Stream, dial, upgrade_error};
use crate::protocol::MAX_MESSAGE;
use crate::protocol::hello::SERVER;
use crate::protocol::socketio::Packet;

/// The time limit for connecting, including the proxy, TLS and the upgrade.
const CONNECT: Duration = Duration::from_secs(10);
/// No close frame came; one without a code came (RFC 6455, 7.4.1).
const ABNORMAL: u16 = 1006;
const NO_STATUS: u16 = 1005;
/// How long a message may take to leave.
const WRITE: Duration = Duration::from_secs(10);
/// The messages that are taken of a server in one go.
const TURN: usize = 16;
/// The longest text of a server that is quoted in errors, in characters.
const MAX_WORDS: usize = 200;

/// A stream that records the time of the last bytes received, even within an incomplete message.
struct Heard {
    stream: Box<dyn Stream>,
    at: Instant,
}

impl AsyncRead for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Ok(1..)) = read {
            self.at = Instant::now();
        }
        read
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

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
    ws: WebSocketStream<Heard>,
    is_socketio: bool,
    reads_ahead: bool,
    received: usize,
    silence: Silence,
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

    /// Returns the server's IP address on this connection; none if it is unknown (behind a proxy).
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
        let (stream, server) = dial(target).await?;
        let stream = Heard { stream, at: Instant::now() };
        let config = WebSocketConfig::default()
            .read_buffer_size(16 * 1024)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let opened =
            async_tungstenite::client_async_with_config(target.request_url(), stream, Some(config)).await;
        let (ws, response) = opened.map_err(|error| match error {
            WsError::Http(response) => refusal(target, &response),
            error => upgrade_error(target, error),
        })?;
        let reads_ahead = response.headers().get("server").is_some_and(|name| name == SERVER);
        let silence = Silence::new(Instant::now(), target.silence);
        let mut socket = Self { ws, is_socketio: false, reads_ahead, received: 0, silence, server };
        if target.is_socketio {
            socket.enter(target).await?;
            socket.is_socketio = true;
        }
        Ok(socket)
    }

    /// Enters the default namespace of socket.io.
    async fn enter(&mut self, target: &Target) -> Result<(), ConnectError> {
        let other = |why: &str| ConnectError::OtherProtocol(target.name(), format!("socket.io: {why}"));
        loop {
            let text = match self.receive().await {
                Frame::Text(text) => text,
                Frame::Binary(_) => continue,
                Frame::Closed(code, why) => {
                    let why = format!("{} closed it ({code} {why}) while socket.io began", target.name());
                    return Err(ConnectError::Broken(why));
                }
            };
            match Packet::parse(&text) {
                Ok(Packet::Open(open)) => {
                    // The server pings every `pingInterval`; a socket.io client gives up after `pingInterval +
                    // pingTimeout` without one.
                    let longest = open.ping_interval.saturating_add(open.ping_timeout);
                    self.silence.shorten(Duration::from_millis(longest));
                    self.send(Packet::Connect(None).to_string()).await?;
                }
                Ok(Packet::Connect(_)) => return Ok(()),
                Ok(Packet::ConnectError(why)) => {
                    return Err(ConnectError::Denied(target.name(), format!("socket.io: {}", words(&why))));
                }
                Ok(_) => {}
                Err(why) => return Err(other(&format!("{why}; {}", target.suggestion()))),
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
                let text = if self.is_socketio { Packet::Event(text).to_string() } else { text };
                self.ws.feed(Message::text(text)).await?;
            }
            self.ws.flush().await
        };
        let send = async { send.await.map_err(|error: WsError| ConnectError::Broken(error.to_string())) };
        or(send, late).await
    }

    /// Returns the next message, and answers pings meanwhile. Pings a server that is silent for too long, then reports
    /// the connection as closed. Cancel-safe: dropping the future loses no message.
    pub async fn receive(&mut self) -> Frame {
        loop {
            // One who says things without end lets others have their turn.
            self.received = self.received.wrapping_add(1);
            if self.received.is_multiple_of(TURN) {
                yield_now().await;
            }
            self.silence.heard(self.ws.get_ref().at);
            let until = match self.silence.duty(Instant::now()) {
                Duty::Wait(until) => until,
                Duty::Ping => {
                    self.ping().await;
                    continue;
                }
                Duty::GiveUp => {
                    let longest = self.silence.longest().as_secs();
                    return Frame::Closed(ABNORMAL, format!("the server said nothing for {longest} s"));
                }
            };
            let message = async { Some(self.ws.next().await) };
            let late = async {
                smol::Timer::at(until).await;
                None
            };
            let Some(message) = or(message, late).await else { continue };
            if let Some(frame) = self.take(message).await {
                return frame;
            }
        }
    }

    /// Converts a WebSocket message for the caller; none if the message concerns only the connection.
    async fn take(&mut self, message: Option<Result<Message, WsError>>) -> Option<Frame> {
        Some(match message {
            Some(Ok(Message::Text(text))) if self.is_socketio => match Packet::parse(text.as_str()) {
                Ok(Packet::Event(line)) => Frame::Text(line),
                Ok(Packet::Ping(data)) => {
                    let pong = Message::text(Packet::Pong(data).to_string());
                    let error = self.ws.send(pong).await.err()?;
                    Frame::Closed(ABNORMAL, error.to_string())
                }
                Ok(Packet::Disconnect | Packet::Close) => Frame::Closed(NO_STATUS, String::new()),
                // Packets for other namespaces, and packets that do not parse.
                Ok(_) | Err(_) => return None,
            },
            Some(Ok(Message::Text(text))) => Frame::Text(text.as_str().to_owned()),
            Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
                Frame::Closed(code.into(), words(reason.as_str()))
            }
            Some(Ok(Message::Close(None))) => Frame::Closed(NO_STATUS, String::new()),
            None => Frame::Closed(ABNORMAL, String::new()),
            Some(Ok(Message::Binary(bytes))) => Frame::Binary(bytes.len()),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return None,
            Some(Err(error)) => Frame::Closed(ABNORMAL, error.to_string()),
        })
    }

    /// Sends a ping, for at most [`WRITE`]: on a dead path even a ping may not leave.
    async fn ping(&mut self) {
        let ping = async {
            // The next read reports the error again.
            let _ = self.ws.send(Message::Ping(Default::default())).await;
        };
        let late = async {
            smol::Timer::after(WRITE).await;
        };
        or(ping, late).await;
        self.silence.pinged();
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

/// Converts an HTTP response that refuses the WebSocket upgrade.
fn refusal(target: &Target, response: &Response<Option<Vec<u8>>>) -> ConnectError {
    let (name, status, headers) = (target.name(), response.status(), response.headers());
    let said = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let said = if is_text(headers) { words(said.trim()) } else { String::new() };
    let shown = if said.is_empty() { status.to_string() } else { said };
    match status {
        StatusCode::UNAUTHORIZED if has_ended(headers) => ConnectError::TokenEnded(name, shown),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST => {
            ConnectError::Denied(name, shown)
        }
        StatusCode::NOT_FOUND => {
            let why = format!("it answered {status}: is the path right? {}", target.suggestion());
            ConnectError::NotWebSocket(name, why)
        }
        status if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => {
            let retry_after = asked_to_wait(headers);
            ConnectError::Overloaded { server: name, status: status.to_string(), retry_after }
        }
        _ => ConnectError::NotWebSocket(name, format!("it answered {status}")),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Returns whether a response's body is plain text for people, as opposed to an HTML page.
fn is_text(headers: &HeaderMap) -> bool {
    header(headers, "content-type").is_none_or(|kind| kind.starts_with("text/plain"))
}

/// Returns whether the server reports the token as expired or revoked (RFC 6750, 3.1), which no proxy reports.
fn has_ended(headers: &HeaderMap) -> bool {
    header(headers, "www-authenticate").is_some_and(|value| value.contains("invalid_token"))
}

/// Returns the value of `Retry-After`. A date is relative to the response's `Date` header, or else to the local clock.
fn asked_to_wait(headers: &HeaderMap) -> Option<Duration> {
    let told = header(headers, "date").and_then(|date| httpdate::parse_http_date(date).ok());
    let now = told.unwrap_or_else(SystemTime::now).duration_since(UNIX_EPOCH).unwrap_or_default();
    retry_after(header(headers, "retry-after")?, now)
}

/// Returns the first [`MAX_WORDS`] characters of a server's text.
fn words(text: &str) -> String {
    text.chars().take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signalling::reconnect::Cause;
    use crate::tls::Trust;

    fn cause(status: u16, headers: &[(&str, &str)]) -> (Cause, Option<Duration>, String) {
        let target = Target::parse("wss://example.org", Trust::System).unwrap();
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let error = refusal(&target, &response.body(Some(b"<html>go away".to_vec())).unwrap());
        (error.cause(), error.retry_after(), error.to_string())
    }

    #[test]
    fn an_answer_without_a_websocket_is_told_apart() {
        let html = ("content-type", "text/html");
        assert_eq!(cause(200, &[html]).0, Cause::NotWebSocket);
        assert_eq!(cause(302, &[]).0, Cause::NotWebSocket);
        assert!(cause(404, &[html]).2.contains("is the path right?"));
        let bearer = ("www-authenticate", r#"Bearer error="invalid_token""#);
        assert_eq!(cause(401, &[bearer]).0, Cause::TokenEnded);
        assert_eq!(cause(401, &[("www-authenticate", "Basic realm=x")]).0, Cause::Denied);
        let (denied, _, words) = cause(403, &[html]);
        assert_eq!((denied, words.contains("html")), (Cause::Denied, false), "{words}");
        let wait = |headers: &[(&str, &str)]| (cause(503, headers).0, cause(429, headers).1);
        assert_eq!(wait(&[("retry-after", "7")]), (Cause::Overloaded, Some(Duration::from_secs(7))));
        assert_eq!(wait(&[]), (Cause::Overloaded, None));
        // The date is relative to the server's clock, not to the local clock.
        let dates =
            [("date", "Sun, 06 Nov 1994 08:49:00 GMT"), ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")];
        assert_eq!(wait(&dates).1, Some(Duration::from_secs(37)));
    }
}
