//! ssp over socket.io: long polling over HTTP, and the change of a session to a WebSocket.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::Message;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use smol::stream::StreamExt;

use super::reply::{Reply, read_body, text, too_often, too_slow};
use crate::base::random::{NoRandomness, secret_id};
use crate::base::secret::Sealed;
use crate::base::timeout::timeout;
use crate::protocol::MAX_MESSAGE;
use crate::protocol::socketio::{self, Handshake, Packet};
use crate::server::codec::Codec;
use crate::server::codec::framing::Framing;
use crate::server::codec::ssp::Endpoint;
use crate::server::expiry::{Admission, Lease};
use crate::server::metrics::Limit;
use crate::server::sessions::{LOOK, Session};
use crate::server::shared::Shared;
use crate::server::stream::Io;
use crate::server::timeouts::Timeouts;
use crate::server::token::endpoint_id;
use crate::server::{connection, token};

/// The time limit for the change to a WebSocket.
const UPGRADE: Duration = Duration::from_secs(10);

/// The parameters in the query of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::server) struct Query {
    version: Option<String>,
    pub(super) sid: Option<String>,
}

impl Query {
    pub(in crate::server) fn parse(query: &str) -> Self {
        let mut read = Self::default();
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "EIO" => read.version = Some(value.into_owned()),
                "sid" => read.sid = Some(value.into_owned()),
                _ => {}
            }
        }
        read
    }

    pub(in crate::server) fn is_known(&self) -> bool {
        self.version.as_deref() == Some("4")
    }
}

/// Returns whether a path is socket.io's.
pub(in crate::server) fn is_path(path: &str) -> bool {
    path.trim_end_matches('/') == socketio::PATH
}

pub(super) fn handshake(sid: String, timeouts: &Timeouts, upgrades: bool) -> Handshake {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Handshake {
        sid,
        ping_interval: ms(timeouts.ping),
        ping_timeout: ms(timeouts.silence.saturating_sub(timeouts.ping)),
        upgrades,
        max_payload: MAX_MESSAGE,
    }
}

/// Returns an error response with a code of engine.io.
pub(super) fn error(code: u8, words: &str) -> Reply {
    text(StatusCode::BAD_REQUEST, serde_json::json!({"code": code, "message": words}).to_string())
}

/// Ends the session if the request that holds this guard is dropped before it is answered: the client has gone.
struct Waiting<'a> {
    shared: &'a Shared,
    session: &'a Session,
    is_answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            end(self.shared, self.session);
        }
    }
}

/// Ends a session and reports the end to the hub.
fn end(shared: &Shared, session: &Session) {
    if !session.is_done.swap(true, Ordering::Relaxed) {
        shared.board.end(session.inbox.id, "closed");
    }
    shared.sessions.remove(&session.sid);
}

/// Ends the sessions whose client is gone, whenever there are any.
pub(in crate::server) async fn end_sessions(shared: &Shared) {
    loop {
        smol::Timer::after(LOOK).await;
        for session in shared.sessions.over(&shared.board, &shared.timeouts) {
            end(shared, &session);
        }
    }
}

/// Answers a request of a polling client.
pub(super) async fn handle(
    request: Request<Incoming>,
    shared: Arc<Shared>,
    address: IpAddr,
) -> Result<Reply, NoRandomness> {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    if !query.is_known() {
        return Ok(error(5, "Unsupported protocol version"));
    }
    let token = token::shown(&request);
    match &query.sid {
        Some(sid) => Ok(match shared.sessions.find(sid, token.as_deref()) {
            Some(session) => serve(request, &shared, &session).await,
            None => error(1, "Session ID unknown"),
        }),
        None if request.method() == Method::GET && shared.count_connect(address).is_err() => Ok(too_often()),
        None if request.method() == Method::GET => match shared.admit(&request, address).await {
            Ok(admission) => open(&shared, address, admission, token),
            Err(denied) => Ok(denied.into()),
        },
        None => Ok(error(2, "Bad handshake method")),
    }
}

/// Answers a request that belongs to a session.
async fn serve(request: Request<Incoming>, shared: &Shared, session: &Session) -> Reply {
    match *request.method() {
        Method::GET => {
            let Some(_turn) = session.turn.try_lock() else {
                return error(3, "Bad request");
            };
            session.fetches(Instant::now());
            let mut waiting = Waiting { shared, session, is_answered: false };
            let packets = session.next(&shared.timeouts).await;
            waiting.is_answered = true;
            session.fetches(Instant::now());
            if packets.contains(&Packet::Close) {
                end(shared, session);
            }
            text(StatusCode::OK, socketio::join(&packets))
        }
        Method::POST => {
            // A client has one POST at a time (engine.io), so messages that wait for a receiver slow the client down.
            let Some(_post) = session.post.try_lock() else {
                return error(3, "Bad request");
            };
            let is_known = shared.board.is_registered(session.inbox.id);
            let most = if is_known { MAX_MESSAGE } else { connection::MAX_UNREGISTERED };
            let body = read_body(request.into_body(), most);
            let Some(body) = timeout(shared.timeouts.body, body).await else { return too_slow() };
            let Some(body) = body.and_then(|body| String::from_utf8(body).ok()) else {
                return text(StatusCode::PAYLOAD_TOO_LARGE, "too large, or no text\n");
            };
            for packet in socketio::split(&body) {
                let Ok(packet) = packet else { continue };
                if session.handle(packet, &shared.board, &shared.timeouts).await {
                    end(shared, session);
                    let _ = session.replies.0.try_send(Packet::Close);
                    break;
                }
            }
            text(StatusCode::OK, "ok")
        }
        _ => error(3, "Bad request"),
    }
}

/// Opens a session, which is bound to `token` if the server needs tokens.
fn open(
    shared: &Arc<Shared>,
    address: IpAddr,
    Admission { grant, until }: Admission,
    token: Option<String>,
) -> Result<Reply, NoRandomness> {
    let token = token.filter(|_| shared.live().needs_tokens());
    let token = token.map(|token| Sealed::new(&token)).transpose()?;
    let (sid, id, endpoint) = (secret_id()?, secret_id()?, endpoint_id(&grant)?);
    let Some(counted) = shared.board.admit(address, shared.live().per_address) else {
        shared.board.metrics.count_limited(Limit::Connections);
        return Ok(text(StatusCode::TOO_MANY_REQUESTS, "too many connections from this address\n"));
    };
    let inbox = shared.board.open(Codec::Ssp(Endpoint::new(endpoint)), address, grant, Arc::default());
    let times = (Instant::now(), until, &shared.timeouts);
    let session = Session::new((sid, id), token, inbox, counted, times);
    let open = Packet::Open(handshake(session.sid.clone(), &shared.timeouts, true));
    shared.sessions.insert(Arc::new(session));
    Ok(text(StatusCode::OK, open.to_string()))
}

/// Moves a session from polling to a WebSocket.
pub(super) async fn upgrade(
    mut ws: WebSocketStream<Io>,
    session: Arc<Session>,
    shared: Arc<Shared>,
    from: IpAddr,
) {
    let change = async {
        while let Some(Ok(Message::Text(text))) = ws.next().await {
            match Packet::parse(text.as_str()) {
                Ok(Packet::Ping(data)) => {
                    if ws.send(Message::text(Packet::Pong(data).to_string())).await.is_err() {
                        return false;
                    }
                    // Completes the waiting request, so that the client can change to the WebSocket.
                    let _ = session.replies.0.try_send(Packet::Noop);
                }
                Ok(Packet::Upgrade) => return true,
                _ => return false,
            }
        }
        false
    };
    if timeout(UPGRADE, change).await != Some(true) || session.is_done.swap(true, Ordering::Relaxed) {
        // The session continues by polling. This close frame also answers a close frame of the client.
        let frame = Some((1002, "no change to a WebSocket"));
        return connection::close(&mut ws, None, frame, shared.timeouts.closing).await;
    }
    shared.sessions.remove(&session.sid);
    let _ = session.replies.0.try_send(Packet::Noop);
    let _turn = session.turn.lock().await;
    // Replies that the client has not fetched.
    while let Ok(packet) = session.replies.1.try_recv() {
        if packet != Packet::Noop && ws.send(Message::text(packet.to_string())).await.is_err() {
            break;
        }
    }
    let framing = Framing::SocketIo(session.socket_io());
    // The protocol of pools has no words to renew a token.
    let lease = Lease { until: session.until, verify: None, limit: shared.message_limit(from) };
    connection::drive(&mut ws, &session.inbox, &shared.board, framing, lease, shared.timeouts).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_parsed() {
        let query = Query::parse("EIO=4&transport=polling&t=abc&sid=1%2B2");
        assert!(query.is_known());
        assert_eq!(query.sid.as_deref(), Some("1+2"));
        assert!(!Query::parse("EIO=3").is_known() && !Query::parse("").is_known());
        assert!(is_path("/socket.io/") && is_path("/socket.io") && !is_path("/socket.iox"));
    }
}
