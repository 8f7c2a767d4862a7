//! Sessions of socket.io clients that poll: each has a mailbox as a WebSocket has, and outlives the requests of its client.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use smol::channel::{Receiver, Sender, bounded};
use smol::future::or;

use super::codec::framing::{Decoded, SocketIo};
use super::connection;
use super::mailbox::{Inbox, Mail, Outgoing};
use super::switchboard::{Counted, Switchboard};
use super::timeouts::Timeouts;
use crate::base::lock::lock;
use crate::base::secret::Sealed;
use crate::base::timeout::timeout_at;
use crate::hub::Input;
use crate::protocol::socketio::Packet;

/// The most packets in one response.
const BATCH: usize = 64;
/// The bytes above which no packet is added to a response.
const BATCH_BYTES: usize = 128 * 1024;
/// The most replies of the server itself that wait for one client.
const REPLIES: usize = 64;
/// The interval at which a client's request looks whether an earlier one has been answered.
const ASKED: Duration = Duration::from_millis(5);
/// The interval at which the sessions are checked for their end.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// The sessions that began over HTTP, by session id.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    all: Mutex<HashMap<String, Arc<Session>>>,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) sid: String,
    /// The token with which the session began, if tokens are needed: the session id alone does not authorize.
    token: Option<Sealed>,
    pub(super) inbox: Inbox,
    state: Mutex<State>,
    /// Replies of the server itself: pongs, and packets that change the transport.
    pub(super) replies: (Sender<Packet>, Receiver<Packet>),
    /// The lock of the one request at a time that waits for packets.
    pub(super) turn: smol::lock::Mutex<()>,
    /// The lock of the one request at a time that delivers packets.
    pub(super) post: smol::lock::Mutex<()>,
    /// The session has moved to a WebSocket, or has ended.
    pub(super) is_done: AtomicBool,
    /// The end of the client's permissions.
    pub(super) until: Option<Instant>,
    _counted: Counted,
}

#[derive(Debug)]
struct State {
    io: SocketIo,
    began: Instant,
    heard: Instant,
    /// The time of the last request that fetched packets.
    fetched: Instant,
    ping_at: Instant,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        lock(&self.all)
    }

    pub(super) fn insert(&self, session: Arc<Session>) {
        self.lock().insert(session.sid.clone(), session);
    }

    pub(super) fn remove(&self, sid: &str) {
        self.lock().remove(sid);
    }

    /// Returns the sessions whose client is gone.
    pub(super) fn over(&self, board: &Switchboard, timeouts: &Timeouts) -> Vec<Arc<Session>> {
        self.lock().values().filter(|session| session.is_over(board, timeouts)).cloned().collect()
    }

    /// Returns the session `sid` if `token` equals the token with which the session began; a session without a token
    /// accepts any.
    pub(super) fn find(&self, sid: &str, token: Option<&str>) -> Option<Arc<Session>> {
        let session = self.lock().get(sid).cloned()?;
        let is_its = match (&session.token, token) {
            (None, _) => true,
            (Some(sealed), Some(token)) => sealed.is(token),
            (Some(_), None) => false,
        };
        Some(session).filter(|session| is_its && !session.is_done.load(Ordering::Relaxed))
    }
}

impl Session {
    /// Returns a session whose handshake was answered at `now`.
    pub(super) fn new(
        (sid, socket_id): (String, String),
        token: Option<Sealed>,
        inbox: Inbox,
        counted: Counted,
        (now, until, timeouts): (Instant, Option<Instant>, &Timeouts),
    ) -> Self {
        Self {
            sid,
            token,
            inbox,
            state: Mutex::new(State {
                io: SocketIo::new(socket_id),
                began: now,
                heard: now,
                fetched: now,
                ping_at: now + timeouts.ping,
            }),
            replies: bounded(REPLIES),
            turn: smol::lock::Mutex::new(()),
            post: smol::lock::Mutex::new(()),
            is_done: AtomicBool::new(false),
            until,
            _counted: counted,
        }
    }

    /// Returns the client's socket.io state, for the WebSocket that the session moves to.
    pub(super) fn socket_io(&self) -> SocketIo {
        self.lock().io.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Handles a packet of the client; returns true if the session ends. Waits until the receivers accept the messages.
    pub(super) async fn handle(&self, packet: Packet, board: &Arc<Switchboard>, timeouts: &Timeouts) -> bool {
        let decoded = {
            let mut state = self.lock();
            state.heard = Instant::now();
            state.io.handle(packet)
        };
        match decoded {
            // Requests that the client makes without fetching the answers would use memory without bound.
            Decoded::Message(_) if self.inbox.is_full_of_answers() => true,
            Decoded::Message(text) => {
                let outcome = board.handle_text(self.inbox.id, text);
                connection::settle(outcome.parked, self.inbox.id, board, timeouts.held).await;
                // The engine answers in a few milliseconds, or not within seconds.
                while self.inbox.is_held() && !board.is_closed(self.inbox.id) {
                    smol::Timer::after(ASKED).await;
                }
                outcome.close.is_some()
            }
            Decoded::Reply(text) => {
                let reply = Packet::parse(&text).map(|packet| self.replies.0.try_send(packet));
                !matches!(reply, Ok(Ok(())))
            }
            Decoded::Alive => {
                board.handle(Input::Alive(self.inbox.id));
                false
            }
            Decoded::Close => true,
            Decoded::Token(_) | Decoded::Ignored => false,
        }
    }

    /// Waits for packets for the client, and returns at least one.
    pub(super) async fn next(&self, timeouts: &Timeouts) -> Vec<Packet> {
        let ping_at = self.lock().ping_at;
        let reply = async { self.replies.1.recv().await.ok() };
        let mail = async {
            match self.inbox.next().await {
                Mail::Message(outgoing) => Some(packet(outgoing)),
                Mail::Ended | Mail::Aborted => None,
            }
        };
        let first = timeout_at(Some(ping_at), or(reply, mail)).await.unwrap_or_else(|| {
            self.lock().ping_at = Instant::now() + timeouts.ping;
            Some(Packet::Ping(String::new()))
        });
        let mut packets = vec![first.unwrap_or(Packet::Close)];
        let mut bytes = 0;
        while packets.len() < BATCH && bytes < BATCH_BYTES && !packets.contains(&Packet::Close) {
            match (self.replies.1.try_recv(), self.inbox.try_next()) {
                (Ok(reply), Some(outgoing)) => packets.extend([reply, packet(outgoing)]),
                (Ok(reply), None) => packets.push(reply),
                (Err(_), Some(outgoing)) => packets.push(packet(outgoing)),
                (Err(_), None) => break,
            }
            bytes += packets.last().map_or(0, length);
        }
        packets
    }

    fn is_over(&self, board: &Switchboard, timeouts: &Timeouts) -> bool {
        let state = self.lock();
        let idle = state.began.elapsed() > timeouts.hello && !board.is_registered(self.inbox.id);
        // A request that waits is about to fetch what has come.
        let has_request = self.turn.try_lock().is_none();
        let is_unread = !has_request && !self.inbox.is_empty() && state.fetched.elapsed() > timeouts.unread;
        let has_expired = self.until.is_some_and(|until| until <= Instant::now());
        has_expired || idle || is_unread || state.heard.elapsed() > timeouts.silence
    }

    pub(super) fn fetches(&self, now: Instant) {
        let mut state = self.lock();
        (state.heard, state.fetched) = (now, now);
    }
}

/// Returns the approximate length of a packet, in bytes.
fn length(packet: &Packet) -> usize {
    if let Packet::Event(line) = packet { line.len() } else { 0 }
}

fn packet(outgoing: Outgoing) -> Packet {
    match outgoing {
        Outgoing::Packet(text) => Packet::parse(&text).unwrap_or(Packet::Noop),
        Outgoing::Text(line) => Packet::Event(line),
        Outgoing::Ping => Packet::Ping(String::new()),
        Outgoing::Close(..) => Packet::Close,
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::hub::{Grant, Limits};
    use crate::server::codec::Codec;
    use crate::server::codec::ssp::Endpoint;
    use crate::server::ice::IceServers;

    #[test]
    fn a_client_that_fetches_no_answers_is_ended() {
        smol::block_on(async {
            let board = Switchboard::new(Limits::default(), Duration::from_secs(20), IceServers::default());
            let (timeouts, address) = (Timeouts::default(), IpAddr::from([192, 0, 2, 1]));
            let counted = board.admit(address, 1).unwrap();
            let codec = Codec::Ssp(Endpoint::new("e1".parse().unwrap()));
            let inbox = board.open(codec, address, Grant::default(), Arc::default());
            let ids = ("sid".to_owned(), "id".to_owned());
            let session = Session::new(ids, None, inbox, counted, (Instant::now(), None, &timeouts));
            assert!(!session.handle(Packet::Connect(None), &board, &timeouts).await);
            let wrong = || Packet::Event(r#"{"type":"rtc:dance","data":{}}"#.to_owned());
            let mut handled = 0;
            while !session.handle(wrong(), &board, &timeouts).await {
                handled += 1;
                assert!(handled < 1000, "answers are not bounded");
            }
            assert!(handled > 100, "ended after {handled} requests");
            while session.inbox.try_next().is_some() {}
            assert!(!session.handle(wrong(), &board, &timeouts).await, "fetched answers make room");
        });
    }
}
