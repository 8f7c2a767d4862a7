//! The driver of one WebSocket: passes received messages to the switchboard, sends the mailbox, pings, and ends the
//! connection when a timer says so.

mod lease;

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::error::ProtocolError;
use async_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use async_tungstenite::tungstenite::{Error, Message};
use futures_util::{FutureExt, SinkExt};
use smol::future::yield_now;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::stream::Stream;

use super::codec::Codec;
use super::codec::framing::{Decoded, Framing};
use super::expiry::{Admission, Expiry, Lease, Refused, Verify};
use super::mailbox::{Inbox, Mail, Outgoing, Parked};
use super::stream::{Gauge, Io, is_too_much};
use super::switchboard::{Outcome, Switchboard};
use super::timeouts::Timeouts;
use super::timers::{Due, Timers};
use crate::base::limit::Bucket;
use crate::base::timeout::timeout;
use crate::hub::{ConnId, Grant, Input};
use crate::protocol::MAX_MESSAGE;
use crate::protocol::hello::TOKEN_ENDED;

/// The most bytes that the server reads from a peer before the peer has registered.
pub(super) const MAX_UNREGISTERED: usize = 8 * 1024;
/// The buffer for reading and dropping the rest of a closed connection, in bytes.
const DROP_BUFFER: usize = 4 * 1024;

/// The bytes that the driver sends before it checks for incoming messages.
const SENT_PER_TURN: usize = 64 * 1024;
/// The events handled before the task yields to the other tasks of its thread.
const EVENTS_PER_TURN: usize = 16;

/// The names that a peer may list at once, and the names regained per second (see [`Outcome::listed`]); the server stops
/// reading a peer that lists more until the debt is refilled.
///
/// [`Outcome::listed`]: super::switchboard::Outcome::listed
const LISTED: (u32, u32) = (4000, 400);

/// Returns the limits of a WebSocket. The buffers are small: a server holds many connections that are mostly idle.
pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(2 * 1024)
        .write_buffer_size(8 * 1024)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

/// The reason for which the server closes a connection whose peer does not answer pings.
const SILENT: &str = "no answer to pings";

/// The way in which a connection ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The connection is lost, or the peer stopped reading: nothing more can be sent.
    Gone(&'static str),
    /// The peer sent a close frame, which is answered with the same code.
    Answer,
    /// The server sends a close frame with this code and reason.
    Close(u16, &'static str),
}

impl End {
    fn reason(self) -> &'static str {
        match self {
            Self::Gone(reason) | Self::Close(_, reason) => reason,
            Self::Answer => "closed by the peer",
        }
    }

    /// Returns the reason in one word, for the events of back ends.
    fn word(self) -> &'static str {
        match self {
            Self::Close(_, TOKEN_ENDED) => "token_ended",
            Self::Close(_, SILENT) => "no_answer",
            Self::Gone(_) | Self::Close(..) | Self::Answer => "closed",
        }
    }

    /// Returns the close code that RFC 6455, 7.4.1 defines for a read error.
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
    In(Option<Result<Message, Error>>),
    /// The receivers accepted all messages of the peer.
    Released,
    /// The verification of the peer's next token has ended.
    Renewed(Result<Admission, Refused>),
    /// A probe was sent while the peer is not being read.
    Probed,
    Tick,
    End(End),
}

/// Opens a connection for a WebSocket and serves it until it ends.
pub(super) fn serve(
    ws: &mut WebSocketStream<Io>,
    board: Arc<Switchboard>,
    (address, grant, lease): (IpAddr, Grant, Lease),
    codec: Codec,
    framing: Framing,
    timeouts: Timeouts,
) -> impl Future<Output = ()> + Send {
    let inbox = board.open(codec, address, grant, ws.get_ref().gauge().clone());
    tracing::debug!(conn = inbox.id.0, "opened");
    async move { drive(ws, &inbox, &board, framing, lease, timeouts).await }
}

/// Serves a connection that the switchboard has opened until it ends, then reports the end to the switchboard.
pub(super) async fn drive(
    ws: &mut WebSocketStream<Io>,
    inbox: &Inbox,
    board: &Arc<Switchboard>,
    framing: Framing,
    lease: Lease,
    timeouts: Timeouts,
) {
    let _serving = board.serving();
    let id = inbox.id;
    let mut driver = Driver::new(ws, inbox, board, framing, lease, timeouts);
    let end = driver.run().await;
    let disconnect = driver.framing.disconnect();
    // Messages that wait for other peers are dropped with the connection.
    drop(driver);
    // Unregisters before the close handshake, which takes time: the name is free, and other peers are notified.
    board.end(id, end.word());
    tracing::debug!(conn = id.0, reason = end.reason(), "closes");
    match end {
        End::Gone(_) => {}
        End::Answer => close(ws, None, None, timeouts.closing).await,
        End::Close(code, reason) => close(ws, disconnect, Some((code, reason)), timeouts.closing).await,
    }
}

/// The driver of one open WebSocket.
struct Driver<'a> {
    ws: &'a mut WebSocketStream<Io>,
    inbox: &'a Inbox,
    board: &'a Arc<Switchboard>,
    framing: Framing,
    gauge: Arc<Gauge>,
    timers: Timers,
    /// The only timer of the connection: a timer per message would cost more than the message.
    timer: smol::Timer,
    /// The time for which the timer is set.
    armed: Instant,
    /// Messages of the peer that their receivers have no space for; the peer is not read meanwhile.
    parked: Vec<Parked>,
    lists: Bucket,
    messages: Option<Bucket>,
    /// Data was written to the WebSocket and not yet flushed.
    is_flushing: bool,
    /// The time of a ping that is not answered yet.
    pinged: Option<Instant>,
    expiry: Expiry,
    verify: Option<Verify>,
    /// The verification of the peer's next token; the peer is not read meanwhile.
    renewal: Option<Boxed<'static, Result<Admission, Refused>>>,
}

impl<'a> Driver<'a> {
    fn new(
        ws: &'a mut WebSocketStream<Io>,
        inbox: &'a Inbox,
        board: &'a Arc<Switchboard>,
        framing: Framing,
        lease: Lease,
        timeouts: Timeouts,
    ) -> Self {
        let gauge = ws.get_ref().gauge().clone();
        let timers = Timers::new(Instant::now(), timeouts);
        let expiry = Expiry::new(lease.until);
        let armed = timers.next(gauge.flow());
        if let Some(handshake) = framing.handshake() {
            inbox.answer(Outgoing::Packet(handshake));
        }
        Self {
            ws,
            inbox,
            board,
            framing,
            gauge,
            timers,
            timer: smol::Timer::at(armed),
            armed,
            parked: vec![],
            lists: Bucket::new(LISTED.0, LISTED.1),
            messages: lease.limit,
            is_flushing: false,
            pinged: None,
            expiry,
            verify: lease.verify,
            renewal: None,
        }
    }

    async fn run(&mut self) -> End {
        let mut done = 0;
        loop {
            done += 1;
            if done % EVENTS_PER_TURN == 0 {
                yield_now().await;
            }
            let end = match poll_fn(|context| self.poll(context)).await {
                Event::In(message) => {
                    self.timers.receive(Instant::now());
                    self.handle(message)
                }
                Event::Released => {
                    self.timers.release(Instant::now());
                    None
                }
                Event::Probed => {
                    self.board.handle(Input::Alive(self.inbox.id));
                    None
                }
                Event::Renewed(renewed) => {
                    self.renewed(renewed);
                    None
                }
                Event::Tick => self.tick(),
                Event::End(end) => Some(end),
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Sends pending messages, then returns the next event. Sending and receiving do not block each other.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        self.note_registration();
        if let Some(event) = self.send(context) {
            return Poll::Ready(event);
        }
        if self.may_read()
            && let Poll::Ready(message) = Pin::new(&mut *self.ws).poll_next(context)
        {
            return Poll::Ready(Event::In(message));
        }
        if !self.parked.is_empty() {
            self.parked.retain_mut(|parked| parked.poll(context).is_pending());
            if self.parked.is_empty() {
                return Poll::Ready(Event::Released);
            }
        }
        if let Some(renewal) = &mut self.renewal
            && let Poll::Ready(renewed) = renewal.as_mut().poll(context)
        {
            self.renewal = None;
            return Poll::Ready(Event::Renewed(renewed));
        }
        let next = self.next_tick();
        if next < self.armed {
            self.arm(next);
        }
        Pin::new(&mut self.timer).poll(context).map(|_| Event::Tick)
    }

    /// Ends the limits for clients that have not registered. A registration may be granted long after its request; its answer in
    /// the inbox wakes the driver.
    fn note_registration(&mut self) {
        if !self.timers.is_registered() && self.board.is_registered(self.inbox.id) {
            self.timers.register();
            self.ws.get_mut().allow(None);
        }
    }

    fn next_tick(&self) -> Instant {
        let next = self.timers.next(self.gauge.flow());
        self.expiry.next(self.timers.is_registered()).map_or(next, |expiry| expiry.min(next))
    }

    fn arm(&mut self, at: Instant) {
        self.armed = at;
        self.timer.set_at(at);
    }

    fn may_read(&self) -> bool {
        self.timers.may_read() && self.renewal.is_none() && self.inbox.may_be_read()
    }

    /// Sends pending messages as far as the socket accepts them, many per write.
    fn send(&mut self, context: &mut Context<'_>) -> Option<Event> {
        let broken = || Some(Event::End(End::Gone("broken")));
        let (mut bytes, mut is_probed) = (0, false);
        loop {
            match self.ws.poll_ready_unpin(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return broken(),
                Poll::Pending => match self.inbox.poll_aborted(context) {
                    Poll::Ready(()) => return Some(Event::End(End::Gone("too slow"))),
                    Poll::Pending => break,
                },
            }
            if bytes >= SENT_PER_TURN {
                context.waker().wake_by_ref();
                break;
            }
            let message = match self.inbox.poll_next(context) {
                Poll::Pending => break,
                Poll::Ready(Mail::Aborted) => return Some(Event::End(End::Gone("too slow"))),
                Poll::Ready(Mail::Ended) => return Some(Event::End(End::Gone("ended by the hub"))),
                Poll::Ready(Mail::Message(Outgoing::Close(code, reason))) => {
                    return Some(Event::End(End::Close(code, reason)));
                }
                Poll::Ready(Mail::Message(Outgoing::Text(text))) => Message::text(self.framing.encode(text)),
                Poll::Ready(Mail::Message(Outgoing::Packet(text))) => Message::text(text),
                Poll::Ready(Mail::Message(Outgoing::Ping)) => {
                    is_probed = !self.may_read();
                    self.ping()
                }
            };
            bytes += message.len() + 1;
            self.is_flushing = true;
            if self.ws.start_send_unpin(message).is_err() {
                return broken();
            }
        }
        if self.is_flushing {
            match self.ws.poll_flush_unpin(context) {
                Poll::Ready(Ok(())) => self.is_flushing = false,
                Poll::Ready(Err(_)) => return broken(),
                Poll::Pending => {}
            }
        }
        // The server itself does not read the peer's answer, so the probe counts as answered.
        is_probed.then_some(Event::Probed)
    }

    /// Handles a message of the peer; returns how the connection ends, if the message ends it.
    fn handle(&mut self, message: Option<Result<Message, Error>>) -> Option<End> {
        let id = self.inbox.id;
        match message {
            Some(Ok(Message::Text(text))) => match self.framing.decode(text.as_str()) {
                Decoded::Message(text) => return self.handle_text(text),
                Decoded::Alive => self.answered(),
                Decoded::Reply(text) => self.inbox.answer(Outgoing::Packet(text)),
                Decoded::Token(token) => self.renew(token),
                Decoded::Close => return Some(End::Close(1000, "closed by the peer")),
                Decoded::Ignored => {}
            },
            Some(Ok(Message::Binary(_))) => {
                return self.board.handle_binary(id).map(|(code, reason)| End::Close(code, reason));
            }
            Some(Ok(Message::Pong(_))) => self.answered(),
            // The library has queued the pong, which still has to be flushed.
            Some(Ok(Message::Ping(_) | Message::Frame(_))) => self.is_flushing = true,
            Some(Ok(Message::Close(_))) | None => return Some(End::Answer),
            Some(Err(error)) => return Some(End::of(&error)),
        }
        None
    }

    fn handle_text(&mut self, text: String) -> Option<End> {
        let Outcome { parked, listed, close } = self.board.handle_text(self.inbox.id, text);
        let now = Instant::now();
        self.slow_down(now);
        self.parked = parked;
        if !self.parked.is_empty() {
            self.timers.hold(now);
        }
        if listed > 0 {
            let wait = self.lists.charge(now, listed);
            if !wait.is_zero() {
                self.timers.pause(now, wait);
            }
        }
        close.map(|(code, reason)| End::Close(code, reason))
    }

    /// Handles the answer to a ping.
    fn answered(&mut self) {
        self.board.handle(Input::Alive(self.inbox.id));
        if let Some(since) = self.pinged.take() {
            self.board.metrics.time_ping(since.elapsed());
        }
    }

    fn ping(&self) -> Message {
        self.framing.ping().map_or_else(|| Message::Ping(Default::default()), Message::text)
    }

    fn tick(&mut self) -> Option<End> {
        let now = Instant::now();
        let due = self.timers.due(now, self.gauge.flow());
        let end = match due {
            Due::Nothing => None,
            Due::Ping => {
                self.is_flushing = true;
                self.pinged.get_or_insert(now);
                match self.ws.start_send_unpin(self.ping()) {
                    Ok(()) => None,
                    Err(_) => Some(End::Gone("broken")),
                }
            }
            Due::Refuse => {
                self.board.refuse(self.inbox.id, std::mem::take(&mut self.parked));
                self.timers.release(now);
                None
            }
            Due::Unread => Some(End::Gone("the peer reads nothing")),
            Due::Silent => Some(End::Close(1001, SILENT)),
            Due::Unregistered => Some(End::Close(1002, "invalid protocol")),
        };
        let end = end.or_else(|| self.expire(now));
        self.arm(self.next_tick());
        end
    }
}

/// Waits until the receivers accept all messages of a peer; refuses the rest after `time`.
pub(super) async fn settle(mut parked: Vec<Parked>, id: ConnId, board: &Switchboard, time: Duration) {
    let accepted = poll_fn(|context| {
        parked.retain_mut(|one| one.poll(context).is_pending());
        if parked.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    });
    timeout(time, accepted).await;
    board.refuse(id, parked);
}

/// A future with memory of its own: within the connection's task every idle connection would reserve that memory.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Closes the connection: sends `disconnect`, then a close frame if `frame` is given, or else the answer to the peer's,
/// then FIN at once (RFC 6455, 7.1.1: the server closes TCP first). Reads and drops the peer's data for at most `time`:
/// closing a socket with unread bytes would send a reset, and the peer could lose the close frame. Yields after each
/// read, since a peer may send without end.
pub(super) fn close<'a>(
    ws: &'a mut WebSocketStream<Io>,
    disconnect: Option<String>,
    frame: Option<(u16, &'static str)>,
    time: Duration,
) -> Boxed<'a, ()> {
    let handshake = async move {
        if let Some(text) = disconnect {
            let _ = ws.send(Message::text(text)).await;
        }
        if let Some((code, reason)) = frame {
            let _ = ws.close(Some(CloseFrame { code: code.into(), reason: reason.into() })).await;
        }
        // If the peer closed first, the answer to its close frame is still queued.
        let _ = ws.flush().await;
        let io = ws.get_mut();
        io.allow(None);
        if io.close().await.is_ok() {
            let mut dropped = vec![0; DROP_BUFFER];
            while let Ok(1..) = io.read(&mut dropped).await {
                yield_now().await;
            }
        }
    };
    Box::pin(timeout(time, handshake).map(|_| ()))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc;
    use std::task::{Context, Poll};

    use async_tungstenite::tungstenite::protocol::Role;
    use smol::io::{AsyncRead, AsyncWrite};

    use super::*;

    /// A peer that sends empty messages (RFC 6455, 5.2) faster than they are read, and accepts everything.
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
    fn back_ends_learn_why_a_connection_ended() {
        assert_eq!(End::Close(1008, "your token has ended").word(), "token_ended");
        assert_eq!(End::Close(1001, "no answer to pings").word(), "no_answer");
        for end in [End::Gone("broken"), End::Answer, End::Close(1009, "message too big")] {
            assert_eq!(end.word(), "closed");
        }
    }

    #[test]
    fn a_peer_that_sends_without_end_is_closed() {
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
