//! The life of one WebSocket: lines in, queue out, pings between, and time-outs.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use async_tungstenite::tungstenite::{Error, Message};
use futures_util::SinkExt;
use smol::future::{or, yield_now};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::stream::StreamExt;

use super::dialect::{Dialect, Heard};
use super::edge::Edge;
use super::mailbox::{Inbox, Mail, Outgoing};
use super::room::Rejection;
use super::switchboard::Switchboard;
use super::{Io, Timeouts};
use crate::hub::{Grant, Input};
use crate::protocol::MAX_MESSAGE;

/// How long one message may take to leave, and the closing handshake to end.
const WRITE: Duration = Duration::from_secs(20);
const CLOSING: Duration = Duration::from_secs(2);

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
    let id = inbox.id;
    let reason = converse(ws, inbox, board, dialect, timeouts).await;
    board.handle(Input::Closed(id));
    tracing::debug!(conn = id.0, reason, "closed");
}

async fn converse(
    ws: &mut WebSocketStream<Io>,
    inbox: &Inbox,
    board: &Arc<Switchboard>,
    mut dialect: Dialect,
    timeouts: Timeouts,
) -> &'static str {
    if let Some(greeting) = dialect.greeting()
        && let Some(reason) = write(ws, Message::text(greeting), inbox).await
    {
        return reason;
    }
    let mut heard = Instant::now();
    // One timer for all of the connection: one for each message would cost more than the message.
    let mut timer = smol::Timer::after(timeouts.hello);
    let mut done = 0;
    loop {
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
            Event::Out(Mail::Killed) => return "too slow",
            Event::Out(Mail::Ended) => return "ended by the hub",
            Event::Out(Mail::Message(first)) => {
                if let Some(reason) = pass_on(ws, inbox, &mut dialect, first).await {
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
                        Heard::End => return "closed by the peer",
                        Heard::Nothing => None,
                    },
                    Some(Ok(Message::Binary(_))) => board.binary(inbox.id),
                    Some(Ok(Message::Pong(_))) => {
                        board.handle(Input::Alive(inbox.id));
                        None
                    }
                    Some(Ok(Message::Ping(_) | Message::Frame(_))) => None,
                    Some(Ok(Message::Close(_))) | None => return "closed by the peer",
                    Some(Err(Error::Capacity(_))) => Some(Rejection::Close(1009, "message too big")),
                    Some(Err(_)) => return "broken",
                };
                match rejection {
                    None => {}
                    Some(Rejection::Error(text)) => {
                        let text = Message::text(dialect.write(text));
                        if let Some(reason) = write(ws, text, inbox).await {
                            return reason;
                        }
                    }
                    Some(Rejection::Close(code, words)) => {
                        close(ws, code, words).await;
                        return words;
                    }
                }
            }
            Event::Tick if heard.elapsed() > timeouts.silence => return "silent",
            Event::Tick if board.is_registered(inbox.id) => {
                timer.set_after(timeouts.ping);
                if let Some(reason) = write(ws, dialect.ping(), inbox).await {
                    return reason;
                }
            }
            Event::Tick => {
                close(ws, 1002, "invalid protocol").await;
                return "no HELLO";
            }
        }
    }
}

/// Sends what waits, with one write where it is little; gives a reason where the connection must end.
async fn pass_on(
    ws: &mut WebSocketStream<Io>,
    inbox: &Inbox,
    dialect: &mut Dialect,
    first: Outgoing,
) -> Option<&'static str> {
    let rest = std::iter::from_fn(|| inbox.try_next());
    for outgoing in std::iter::once(first).chain(rest).take(TOGETHER) {
        let message = match outgoing {
            Outgoing::Text(text) => Message::text(dialect.write(text)),
            Outgoing::Ping => dialect.ping(),
            Outgoing::Close(code, words) => {
                if let Some(farewell) = dialect.farewell() {
                    let _ = write(ws, Message::text(farewell), inbox).await;
                }
                close(ws, code, words).await;
                return Some(words);
            }
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
fn write<'a>(
    ws: &'a mut WebSocketStream<Io>,
    message: Message,
    inbox: &'a Inbox,
) -> Apart<'a, Option<&'static str>> {
    Box::pin(in_time(ws.send(message), inbox))
}

async fn in_time(sending: impl Future<Output = Result<(), Error>>, inbox: &Inbox) -> Option<&'static str> {
    let send = async { sending.await.err().map(|_| "broken") };
    let late = async {
        or(inbox.killed(), after(WRITE)).await;
        Some("too slow")
    };
    or(send, late).await
}

/// Sends a close frame and waits for the peer's. Where the peer's messages can no longer be read (one was
/// too big), what it still sends is read and dropped: a socket closed with bytes unread is reset, and a
/// reset would take the close frame from the peer. It may send without end: others, and the time that it has for
/// that, have their turn after each.
fn close<'a>(ws: &'a mut WebSocketStream<Io>, code: u16, words: &str) -> Apart<'a, ()> {
    let frame = CloseFrame { code: code.into(), reason: words.into() };
    let handshake = async move {
        if ws.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = ws.next().await {
                yield_now().await;
            }
        }
        let io = ws.get_mut();
        if io.close().await.is_ok() {
            let mut dropped = vec![0; 16 * 1024];
            while let Ok(1..) = io.read(&mut dropped).await {
                yield_now().await;
            }
        }
    };
    Box::pin(or(handshake, after(CLOSING)))
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
                let io: Io = Box::pin(Endless(0));
                let mut ws = WebSocketStream::from_raw_socket(io, Role::Server, Some(config())).await;
                close(&mut ws, 1002, "invalid protocol").await;
                let _ = ended.send(());
            });
        });
        end.recv_timeout(CLOSING * 10).unwrap();
    }
}
