//! The driver of WebSockets: connects by `ws://` or `wss://`, sends and receives frames, and detects a silent server. Runs
//! on any executor that lets `async-io` run (smol, async-std).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::client::IntoClientRequest;
use async_tungstenite::tungstenite::handshake::client::Request;
use async_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use async_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use async_tungstenite::tungstenite::{Error as WsError, Message};
use futures_util::SinkExt;
use smol::future::yield_now;
use smol::io::{AsyncRead, AsyncWrite};
use smol::stream::StreamExt as _;
use url::Url;

use super::super::error::{ABNORMAL, ConnectError, NO_STATUS, brief};
use super::super::reconnect::retry_after;
use super::super::registry::advice;
use super::super::signaller::{Endpoint, Frame, Headers};
use super::super::silence::{Duty, Silence};
use super::super::target::Target;
use super::dial::{dial, upgrade_error};
use crate::base::stream::Stream;
use crate::base::timeout::{timeout, timeout_at};
use crate::protocol::MAX_MESSAGE;

/// Time limit for connecting, including the proxy, TLS and the upgrade.
const CONNECT: Duration = Duration::from_secs(10);
/// Time without progress in writing after which the server counts as gone. A server that waits for another client may leave
/// messages unread for 10 s, so the limit is twice that.
const WRITE: Duration = Duration::from_secs(20);
/// Maximum number of messages that wait to be written: a server that leaves more unread counts as gone.
const MAX_OUTBOX: usize = 1024;
/// Time limit for a closing handshake, including the time to write the messages that wait.
const CLOSE: Duration = Duration::from_secs(1);
/// Number of rounds of [`Socket::receive`] after which other tasks run.
const BATCH: usize = 16;

/// A stream that records the time of the last bytes received, even within an incomplete message.
struct TimedStream {
    stream: Box<dyn Stream>,
    last_received: Instant,
}

impl AsyncRead for TimedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Ok(1..)) = read {
            self.last_received = Instant::now();
        }
        read
    }
}

impl AsyncWrite for TimedStream {
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

/// An open connection.
pub struct Socket {
    ws: WebSocketStream<TimedStream>,
    headers: Headers,
    /// Messages that are not written yet.
    outbox: VecDeque<Message>,
    /// Time by which writing has to make progress; `None` if nothing waits.
    write_until: Option<Instant>,
    /// Whether the server left so many messages unread that all of them were dropped. The connection ends: no more is
    /// written, and [`Socket::receive`] reports the end.
    is_overrun: bool,
    /// Number of rounds of [`Socket::receive`].
    rounds: usize,
    silence: Silence,
    server: Option<IpAddr>,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Socket")
    }
}

impl Socket {
    /// Returns the header fields of the server's response to the upgrade.
    pub fn headers(&self) -> Headers {
        self.headers.clone()
    }

    /// Returns the server's IP address on this connection; none if it is unknown (behind a proxy).
    pub fn server_address(&self) -> Option<IpAddr> {
        self.server
    }

    /// Connects to the server's URL.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the server is not reached, refuses, or has not opened the WebSocket within 10 s.
    pub async fn connect(target: &Target) -> Result<Self, ConnectError> {
        Self::connect_to(target, &target.endpoint()).await
    }

    /// Connects to an endpoint, with the settings of a target.
    ///
    /// # Errors
    ///
    /// The errors of [`Socket::connect`].
    pub async fn connect_to(target: &Target, endpoint: &Endpoint) -> Result<Self, ConnectError> {
        let opened = timeout(CONNECT, Self::upgrade(target, endpoint)).await;
        opened.unwrap_or_else(|| {
            let reason = format!("no answer within {} s", CONNECT.as_secs());
            Err(ConnectError::Unreachable(target.name(), reason))
        })
    }

    async fn upgrade(target: &Target, endpoint: &Endpoint) -> Result<Self, ConnectError> {
        let request = request(endpoint).map_err(|_| ConnectError::Url(target.name()))?;
        let (stream, server) = dial(&target.at(&endpoint.url)).await?;
        let stream = TimedStream { stream, last_received: Instant::now() };
        let config = WebSocketConfig::default()
            .read_buffer_size(16 * 1024)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let opened = async_tungstenite::client_async_with_config(request, stream, Some(config)).await;
        let (ws, response) = opened.map_err(|error| match error {
            WsError::Http(response) => upgrade_refused(target, &response),
            error => upgrade_error(target, error),
        })?;
        let silence = Silence::new(Instant::now(), target.silence);
        let (headers, outbox) = (headers(response.headers()), VecDeque::new());
        Ok(Self { ws, headers, outbox, write_until: None, is_overrun: false, rounds: 0, silence, server })
    }

    /// Lowers the limit on the server's silence.
    pub(super) fn shorten_silence(&mut self, longest: Duration) {
        self.silence.shorten(longest);
    }

    /// Adds a frame to those that wait to be written: by [`Socket::flush`], or by [`Socket::receive`] while it waits.
    pub fn queue(&mut self, frame: Frame) {
        self.push(match frame {
            Frame::Text(text) => Message::text(text),
            Frame::Binary(bytes) => Message::binary(bytes),
            Frame::Closed(code, reason) => {
                Message::Close(Some(CloseFrame { code: code.into(), reason: reason.into() }))
            }
        });
    }

    fn push(&mut self, message: Message) {
        if self.outbox.len() >= MAX_OUTBOX {
            self.write();
        }
        if self.is_overrun || self.outbox.len() >= MAX_OUTBOX {
            // The next `receive` reports the end.
            self.is_overrun = true;
            return self.outbox.clear();
        }
        self.write_until.get_or_insert(Instant::now() + WRITE);
        self.outbox.push_back(message);
    }

    /// Writes as much of what waits as the socket accepts now.
    pub(super) fn write(&mut self) {
        // `receive` registers the waker for the rest.
        let _ = self.poll_write(&mut Context::from_waker(Waker::noop()));
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        if self.write_until.is_none() || self.is_overrun {
            return Poll::Ready(Ok(()));
        }
        let written = ready!(self.poll_outbox(context));
        self.write_until = None;
        self.outbox.clear();
        Poll::Ready(written)
    }

    fn poll_outbox(&mut self, context: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        while !self.outbox.is_empty() {
            ready!(self.ws.poll_ready_unpin(context))?;
            self.write_until = Some(Instant::now() + WRITE);
            if let Some(message) = self.outbox.pop_front() {
                self.ws.start_send_unpin(message)?;
            }
        }
        self.ws.poll_flush_unpin(context)
    }

    /// Writes all frames that wait. Cancel-safe: the next call continues.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Broken`] if the connection ended, or not all is written within 20 s. Messages that an overrun dropped
    /// are no error here: [`Socket::receive`] reports the end.
    pub async fn flush(&mut self) -> Result<(), ConnectError> {
        match timeout(WRITE, poll_fn(|context| self.poll_write(context))).await {
            Some(written) => written.map_err(|error| ConnectError::Broken(error.to_string())),
            None => Err(ConnectError::Broken(UNREAD.to_owned())),
        }
    }

    /// Sends a text.
    ///
    /// # Errors
    ///
    /// The errors of [`Socket::flush`].
    pub async fn send(&mut self, text: String) -> Result<(), ConnectError> {
        self.queue(Frame::Text(text));
        self.flush().await
    }

    /// Sends binary data.
    ///
    /// # Errors
    ///
    /// The errors of [`Socket::flush`].
    pub async fn send_binary(&mut self, bytes: Vec<u8>) -> Result<(), ConnectError> {
        self.queue(Frame::Binary(bytes));
        self.flush().await
    }

    /// Writes what waits, and returns the next message or `None` at the end of the connection.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Message, WsError>>> {
        // The next read reports an error of the connection again, after the messages that arrived before.
        let _ = self.poll_write(context);
        self.ws.poll_next(context)
    }

    /// Returns the next message; meanwhile writes the messages that wait and answers pings. Pings a server after two thirds of
    /// the limit on its silence. Returns [`Frame::Closed`] after the limit, and if the server does not read. Cancel-safe:
    /// dropping the future loses no message.
    pub async fn receive(&mut self) -> Frame {
        loop {
            // A server that sends without end must not keep other tasks from running.
            self.rounds = self.rounds.wrapping_add(1);
            if self.rounds.is_multiple_of(BATCH) {
                yield_now().await;
            }
            let now = Instant::now();
            if self.is_overrun || self.write_until.is_some_and(|until| until <= now) {
                return Frame::Closed(ABNORMAL, UNREAD.to_owned());
            }
            self.silence.heard(self.ws.get_ref().last_received);
            let until = match self.silence.duty(now) {
                Duty::Wait(until) => self.write_until.into_iter().chain([until]).min(),
                Duty::Ping => {
                    self.push(Message::Ping(Default::default()));
                    self.silence.pinged();
                    continue;
                }
                Duty::GiveUp => {
                    let longest = self.silence.longest().as_secs();
                    return Frame::Closed(ABNORMAL, format!("the server sent nothing for {longest} s"));
                }
            };
            let message = timeout_at(until, poll_fn(|context| self.poll_next(context))).await;
            if let Some(frame) = message.and_then(frame) {
                return frame;
            }
        }
    }

    /// Writes the messages that wait, and closes the WebSocket; waits at most one second for that and for the server's close
    /// frame.
    pub async fn close(mut self) {
        self.push(Message::Close(None));
        let handshake = async {
            while let Some(Ok(_)) = poll_fn(|context| self.poll_next(context)).await {
                // A server that sends without end must not keep the time limit from passing.
                yield_now().await;
            }
        };
        timeout(CLOSE, handshake).await;
    }
}

/// The reason given for the end of a connection whose server does not read.
const UNREAD: &str = "the server does not read";

/// Converts a WebSocket message for the caller; none if the message concerns only the connection.
fn frame(message: Option<Result<Message, WsError>>) -> Option<Frame> {
    Some(match message {
        Some(Ok(Message::Text(text))) => Frame::Text(text.as_str().to_owned()),
        Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
            Frame::Closed(code.into(), brief(reason.as_str()))
        }
        Some(Ok(Message::Close(None))) => Frame::Closed(NO_STATUS, String::new()),
        None => Frame::Closed(ABNORMAL, String::new()),
        Some(Ok(Message::Binary(bytes))) => Frame::Binary(bytes.to_vec()),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => return None,
        Some(Err(error)) => Frame::Closed(ABNORMAL, error.to_string()),
    })
}

/// Returns the upgrade request for an endpoint.
fn request(endpoint: &Endpoint) -> Result<Request, WsError> {
    let mut request = endpoint.url.as_str().into_client_request()?;
    let mut insert = |name: &str, value: &str| {
        let name = HeaderName::try_from(name).map_err(|error| WsError::HttpFormat(error.into()))?;
        let value = HeaderValue::try_from(value).map_err(|error| WsError::HttpFormat(error.into()))?;
        request.headers_mut().insert(name, value);
        Ok::<(), WsError>(())
    };
    for (name, value) in &endpoint.headers {
        insert(name, value)?;
    }
    if !endpoint.subprotocols.is_empty() {
        insert("sec-websocket-protocol", &endpoint.subprotocols.join(", "))?;
    }
    Ok(request)
}

/// Converts header fields; replaces what is not UTF-8 in their values.
pub(super) fn headers(map: &HeaderMap) -> Headers {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    map.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

/// Converts an HTTP response that refuses the WebSocket upgrade.
fn upgrade_refused(target: &Target, response: &Response<Option<Vec<u8>>>) -> ConnectError {
    let (name, status, headers) = (target.name(), response.status(), response.headers());
    let said = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
    let said = if is_text(headers) { brief(said.trim()) } else { String::new() };
    let shown = if said.is_empty() { status.to_string() } else { said };
    match status {
        StatusCode::UNAUTHORIZED if rejects_token(headers) => ConnectError::TokenEnded(name, shown),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::MISDIRECTED_REQUEST => {
            ConnectError::Denied(name, shown)
        }
        StatusCode::NOT_FOUND => {
            let why = format!("it answered {status}: is the path right? {}", advice(target, None));
            ConnectError::NotWebSocket(name, why)
        }
        status if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => {
            let retry_after = retry_after_header(headers);
            ConnectError::Overloaded { server: name, status: status.to_string(), retry_after }
        }
        _ => {
            let to = header(headers, "location").and_then(|to| Url::parse(to).ok());
            let advice = match to.filter(|to| to.scheme() == "https" && !target.is_tls()) {
                Some(to) => format!("its URL is {}", target.redirected(&to)),
                None => advice(target, None),
            };
            ConnectError::NotWebSocket(name, format!("it answered {status}; {advice}"))
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Returns whether a response's body is plain text for people, as opposed to an HTML page.
fn is_text(headers: &HeaderMap) -> bool {
    header(headers, "content-type").is_none_or(|kind| kind.starts_with("text/plain"))
}

/// Returns whether the server rejects the token as expired, revoked or otherwise invalid (RFC 6750, 3.1), which no proxy
/// reports.
fn rejects_token(headers: &HeaderMap) -> bool {
    header(headers, "www-authenticate").is_some_and(|value| value.contains("invalid_token"))
}

/// Returns the value of `Retry-After`. A date is relative to the response's `Date` header, or else to the local clock.
fn retry_after_header(headers: &HeaderMap) -> Option<Duration> {
    let told = header(headers, "date").and_then(|date| httpdate::parse_http_date(date).ok());
    let now = told.unwrap_or_else(SystemTime::now).duration_since(UNIX_EPOCH).unwrap_or_default();
    retry_after(header(headers, "retry-after")?, now)
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
        let error = upgrade_refused(&target, &response.body(Some(b"<html>go away".to_vec())).unwrap());
        (error.cause(), error.retry_after(), error.to_string())
    }

    #[test]
    fn http_responses_without_a_websocket_have_their_causes() {
        let html = ("content-type", "text/html");
        assert_eq!(cause(200, &[html]).0, Cause::NotWebSocket);
        assert_eq!(cause(302, &[]).0, Cause::NotWebSocket);
        assert!(cause(400, &[]).2.contains("a server of pools is ssp+wss://example.org/ssp"));
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
