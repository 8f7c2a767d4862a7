//! The life of one WebSocket: lines in, queue out, pings between, and time-outs.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::error::ProtocolError;
use async_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use async_tungstenite::tungstenite::{Error, Message};
use futures_util::SinkExt;
use smol::future::{or, yield_now};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::stream::StreamExt;

use super::Timeouts;
use super::dialect::{Dialect, Heard};
use super::edge::Edge;
use super::mailbox::{Inbox, Mail, Outgoing};
use super::room::Rejection;
use super::stream::{Io, is_too_much};
use super::switchboard::Switchboard;
use crate::hub::{Grant, Input};
use crate::protocol::MAX_MESSAGE;

/// The most bytes that are read of a peer before it has registered.
pub(super) const MAX_UNKNOWN: usize = 8 * 1024;
/// How long one message may take to leave.
const WRITE: Duration = Duration::from_secs(20);
/// How many bytes of a closed connection are read, and dropped, at a time.
const DROPPED: usize = 4 * 1024;

/// So many messages at most leave before it is looked what came.
const TOGETHER: usize = 64;
/// After so much without a pause it is the turn of others, who share the thread.
const TURN: usize = 16;

/// Small buffers: a server holds many connections that are mostly idle.
pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(2 * 1024)
        .write_buffer_size(8 * 1024)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

/// How a connection ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// Nothing more can be said to the peer: it is gone, or takes nothing.
    Gone(&'static str),
    /// The peer sent a close frame, which is answered with its own code.
    Answer,
    /// The peer is sent a close frame with this code and these words.
    Close(u16, &'static str),
}

impl End {
    fn words(self) -> &'static str {
        match self {
            Self::Gone(words) | Self::Close(_, words) => words,
            Self::Answer => "closed by the peer",
        }
    }

    /// Returns the end that RFC 6455, 7.4.1 wants after something that cannot be read.
    fn of(error: &Error) -> Self {
        match error {
            Error::Capacity(_) => Self::Close(1009, "message too big"),
            Error::Utf8(_) => Self::Close(1007, "text that is not UTF-8"),
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Gone("broken"),
            Error::Protocol(_) => Self::Close(1002, "against the WebSocket protocol"),
            Error::Io(error) if is_too_much(error) => Self::Close(1009, "too much before it registered"),
            _ => Self::Gone("broken"),
        }
    }
}

enum Event {
    Out(Mail),
    In(Option<Result<Message, Error>>),
    Tick,
}

async fn after(time: Duration) {
    smol::Timer::after(time).await;
}

/// Serves a WebSocket until it ends, and tells the switchboard of its end.
pub(super) fn serve(
    ws: &mut WebSocketStream<Io>,
    board: Arc<Switchboard>,
    (address, grant): (IpAddr, Grant),
    edge: Edge,
    dialect: Dialect,
    timeouts: Timeouts,
) -> impl Future<Output = ()> + Send {
    let inbox = board.open(edge, address, grant);
    tracing::debug!(conn = inbox.id.0, "opened");
    async move { talk(ws, &inbox, &board, dialect, timeouts).await }
}

/// The same for a connection that the switchboard knows already.
pub(super) async fn talk(
    ws: &mut WebSocketStream<Io>,
    inbox: &Inbox,
    board: &Arc<Switchboard>,
    dialect: Dialect,
    timeouts: Timeouts,
) {
    let _talk = board.talk();
    let id = inbox.id;
    let mut dialect = dialect;
    let end = converse(ws, inbox, board, &mut dialect, timeouts).await;
    // Before the goodbyes, which take a peer's time: its name is free, and others know.
    board.handle(Input::Closed(id));
    tracing::debug!(conn = id.0, reason = end.words(), "closes");
    match (end, dialect.farewell()) {
        (End::Gone(_), _) => {}
        (End::Answer, _) => close(ws, None, None, timeouts.closing).await,
        (End::Close(code, words), farewell) => {
            close(ws, farewell, Some((code, words)), timeouts.closing).await;
        }
    }
}

async fn converse(
    ws: &mut WebSocketStream<Io>,
    inbox: &Inbox,
    board: &Arc<Switchboard>,
    dialect: &mut Dialect,
    timeouts: Timeouts,
) -> End {
    if let Some(greeting) = dialect.greeting()
        && let Some(reason) = write(ws, Message::text(greeting), inbox).await
    {
        return reason;
    }
    let mut heard = Instant::now();
    // One timer for all of the connection: one for each message would cost more than the message.
    let mut timer = smol::Timer::after(timeouts.hello);
    let (mut done, mut is_known) = (0, false);
    loop {
        if !is_known && board.is_registered(inbox.id) {
            is_known = true;
            ws.get_mut().allow(None);
        }
        done += 1;
        if done % TURN == 0 {
            yield_now().await;
        }
        let mail = async { Event::Out(inbox.next().await) };
        let socket = async { Event::In(ws.next().await) };
        let tick = async {
            (&mut timer).await;
            Event::Tick
        };
        match or(or(mail, socket), tick).await {
            Event::Out(Mail::Killed) => return End::Gone("too slow"),
            Event::Out(Mail::Ended) => return End::Gone("ended by the hub"),
            Event::Out(Mail::Message(first)) => {
                if let Some(reason) = pass_on(ws, inbox, dialect, first).await {
                    return reason;
                }
            }
            Event::In(message) => {
                heard = Instant::now();
                let rejection = match message {
                    Some(Ok(Message::Text(text))) => match dialect.read(text.as_str()) {
                        Heard::Line(line) => board.line(inbox.id, line).err(),
                        Heard::Alive => {
                            board.handle(Input::Alive(inbox.id));
                            None
                        }
                        Heard::Reply(text) => match write(ws, Message::text(text), inbox).await {
                            Some(reason) => return reason,
                            None => None,
                        },
                        Heard::End => return End::Close(1000, "closed by the peer"),
                        Heard::Nothing => None,
                    },
                    Some(Ok(Message::Binary(_))) => board.binary(inbox.id),
                    Some(Ok(Message::Pong(_))) => {
                        board.handle(Input::Alive(inbox.id));
                        None
                    }
                    Some(Ok(Message::Ping(_) | Message::Frame(_))) => None,
                    Some(Ok(Message::Close(_))) | None => return End::Answer,
                    Some(Err(error)) => return End::of(&error),
                };
                match rejection {
                    None => {}
                    Some(Rejection::Error(text)) => {
                        let text = Message::text(dialect.write(text));
                        if let Some(reason) = write(ws, text, inbox).await {
                            return reason;
                        }
                    }
                    Some(Rejection::Close(code, words)) => return End::Close(code, words),
                }
            }
            Event::Tick if heard.elapsed() > timeouts.silence => {
                return End::Close(1001, "no answer to pings");
            }
            Event::Tick if board.is_registered(inbox.id) => {
                timer.set_after(timeouts.ping);
                if let Some(reason) = write(ws, dialect.ping(), inbox).await {
                    return reason;
                }
            }
            Event::Tick => return End::Close(1002, "invalid protocol"),
        }
    }
}

/// Sends what waits, with one write where it is little; gives a reason where the connection must end.
async fn pass_on(
    ws: &mut WebSocketStream<Io>,
    inbox: &Inbox,
    dialect: &mut Dialect,
    first: Outgoing,
) -> Option<End> {
    let rest = std::iter::from_fn(|| inbox.try_next());
    for outgoing in std::iter::once(first).chain(rest).take(TOGETHER) {
        let message = match outgoing {
            Outgoing::Text(text) => Message::text(dialect.write(text)),
            Outgoing::Ping => dialect.ping(),
            Outgoing::Close(code, words) => return Some(End::Close(code, words)),
        };
        if let Some(reason) = in_time(ws.feed(message), inbox).await {
            return Some(reason);
        }
    }
    in_time(ws.flush(), inbox).await
}

/// What is rarely under way has memory of its own: within the connection's task all that are idle would hold it, too.
type Apart<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Sends a message; gives a reason where the connection must end.
fn write<'a>(ws: &'a mut WebSocketStream<Io>, message: Message, inbox: &'a Inbox) -> Apart<'a, Option<End>> {
    Box::pin(in_time(ws.send(message), inbox))
}

async fn in_time(sending: impl Future<Output = Result<(), Error>>, inbox: &Inbox) -> Option<End> {
    let send = async { sending.await.err().map(|_| End::Gone("broken")) };
    let late = async {
        or(inbox.killed(), after(WRITE)).await;
        Some(End::Gone("too slow"))
    };
    or(send, late).await
}

/// Says goodbye and ends the connection: a close frame where there is one to send, or else the answer to the peer's,
/// then FIN at once (RFC 6455, 7.1.1: the server is the first to end the connection). What the peer still sends is read
/// and dropped for that time: a socket that is closed with bytes unread is reset, and a reset would take the close frame
/// from the peer. A peer may send without end: others have their turn after each part of it.
pub(super) fn close<'a>(
    ws: &'a mut WebSocketStream<Io>,
    farewell: Option<String>,
    frame: Option<(u16, &'static str)>,
    time: Duration,
) -> Apart<'a, ()> {
    let handshake = async move {
        if let Some(farewell) = farewell {
            let _ = ws.send(Message::text(farewell)).await;
        }
        if let Some((code, words)) = frame {
            let _ = ws.close(Some(CloseFrame { code: code.into(), reason: words.into() })).await;
        }
        // Where the peer was the first to close, the answer to its frame waits here.
        let _ = ws.flush().await;
        let io = ws.get_mut();
        io.allow(None);
        if io.close().await.is_ok() {
            let mut dropped = vec![0; DROPPED];
            while let Ok(1..) = io.read(&mut dropped).await {
                yield_now().await;
            }
        }
    };
    Box::pin(or(handshake, after(time)))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc;
    use std::task::{Context, Poll};

    use async_tungstenite::tungstenite::protocol::Role;
    use smol::io::{AsyncRead, AsyncWrite};

    use super::*;

    /// A peer that sends empty messages (RFC 6455, 5.2) faster than they are read, and takes everything.
    struct Endless(usize);

    impl AsyncRead for Endless {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            to: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let frame = [0x81, 0x80, 0, 0, 0, 0].into_iter().cycle().skip(self.0 % 6);
            to.iter_mut().zip(frame).for_each(|(to, byte)| *to = byte);
            self.0 += to.len();
            Poll::Ready(Ok(to.len()))
        }
    }

    impl AsyncWrite for Endless {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(from.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn who_sends_without_end_is_closed_all_the_same() {
        let (ended, end) = mpsc::channel();
        std::thread::spawn(move || {
            smol::block_on(async {
                let io = Io::new(Endless(0), Arc::default());
                let mut ws = WebSocketStream::from_raw_socket(io, Role::Server, Some(config())).await;
                close(&mut ws, None, Some((1002, "invalid protocol")), Duration::from_secs(1)).await;
                let _ = ended.send(());
            });
        });
        end.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}
