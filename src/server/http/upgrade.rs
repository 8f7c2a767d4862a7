//! Upgrades HTTP requests to WebSockets.

use std::net::IpAddr;
use std::sync::Arc;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::handshake::derive_accept_key;
use async_tungstenite::tungstenite::protocol::Role;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, StatusCode};
use smol_hyper::rt::FuturesIo;

use super::caller::Caller;
use super::polling;
use super::reply::{Reply, text, too_many_connects};
use crate::base::random::{NoRandomness, secret_id};
use crate::hub::Grant;
use crate::protocol::hello::{EXTENSION_QUERY, EXTENSIONS, SERVER, TOKENS_HANDLED};
use crate::server::codec::Codec;
use crate::server::codec::framing::{Framing, SocketIo};
use crate::server::expiry::{Admission, Lease};
use crate::server::metrics::Limit;
use crate::server::sessions::Session;
use crate::server::shared::Shared;
use crate::server::stream::Io;
use crate::server::token::endpoint_id;
use crate::server::{connection, token};

fn holds(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
}

pub(in crate::server) fn is_upgrade(headers: &HeaderMap) -> bool {
    holds(headers, header::UPGRADE, "websocket") && holds(headers, header::CONNECTION, "upgrade")
}

/// The client of a new WebSocket.
enum Client {
    /// A session that began over HTTP moves to the WebSocket.
    Session(Arc<Session>),
    /// A new client with these permissions.
    New(Admission),
}

/// Answers a request for a WebSocket, and serves the WebSocket in another task of the server.
pub(super) async fn upgrade(
    mut request: Request<Incoming>,
    shared: Arc<Shared>,
    caller: Caller,
) -> Result<Reply, NoRandomness> {
    let from = caller.address;
    let headers = request.headers();
    let version = headers.get(header::SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| version == Some(b"13")) else {
        return Ok(text(StatusCode::BAD_REQUEST, "not a WebSocket of version 13\n"));
    };
    let mut reply = switching_protocols(derive_accept_key(key.as_bytes()));
    if let Err(wait) = shared.count_connect(from) {
        return Ok(too_many_connects(wait));
    }
    let client = match client(&request, &shared, from).await {
        Ok(client) => client,
        Err(refusal) => return Ok(*refusal),
    };
    let id = match &client {
        Client::New(admission) => endpoint_id(&admission.grant)?,
        Client::Session(_) => endpoint_id(&Grant::default())?,
    };
    let query = request.uri().query().unwrap_or_default();
    let extended = query.split('&').any(|part| part == EXTENSION_QUERY);
    let codec = Codec::of(request.uri().path(), extended, id);
    let framing = match polling::is_path(request.uri().path()) {
        false if codec.is_extended() => Framing::Extended,
        false => Framing::Plain,
        true => {
            let handshake = polling::handshake(secret_id()?, &shared.timeouts, false);
            Framing::SocketIo(SocketIo::with_handshake(secret_id()?, handshake))
        }
    };
    if codec.is_extended() {
        reply.headers_mut().insert(EXTENSIONS, HeaderValue::from_static(TOKENS_HANDLED));
    }
    // The connection outlives its HTTP half: it is counted anew, without a bound if it is counted for the client already.
    let most = if caller.is_counted() { usize::MAX } else { shared.live().per_address };
    let Some(guard) = shared.board.admit(from, most) else {
        shared.board.metrics.count_limited(Limit::Connections);
        return Ok(text(StatusCode::TOO_MANY_REQUESTS, "too many connections from this address\n"));
    };
    let upgraded = hyper::upgrade::on(&mut request);
    let Some(connections) = shared.connections.upgrade() else {
        return Ok(text(StatusCode::SERVICE_UNAVAILABLE, "the server stops\n"));
    };
    connections.spawn(async move {
        let _counted = guard;
        let Some(mut ws) = web_socket(upgraded).await else { return };
        match client {
            // Boxed, because this future is larger than all others in the same task.
            Client::Session(session) => Box::pin(polling::upgrade(ws, session, shared, from)).await,
            Client::New(admission) => serve(&mut ws, &shared, (from, admission), codec, framing).await,
        }
    });
    Ok(reply)
}

/// Serves the WebSocket of a new client at an address.
async fn serve(
    ws: &mut WebSocketStream<Io>,
    shared: &Arc<Shared>,
    (from, Admission { grant, until }): (IpAddr, Admission),
    codec: Codec,
    framing: Framing,
) {
    let lease = Lease { until, verify: shared.renewal(from), limit: shared.message_limit(from) };
    connection::serve(ws, shared.board.clone(), (from, grant, lease), codec, framing, shared.timeouts).await;
}

/// Returns the client that a request names, or the response that refuses it.
async fn client(request: &Request<Incoming>, shared: &Shared, from: IpAddr) -> Result<Client, Box<Reply>> {
    if polling::is_path(request.uri().path()) {
        let query = polling::Query::parse(request.uri().query().unwrap_or_default());
        if !query.is_known() {
            return Err(polling::error(5, "Unsupported protocol version").into());
        }
        if let Some(sid) = query.sid {
            let session = shared.sessions.find(&sid, token::shown(request).as_deref());
            return session
                .map(Client::Session)
                .ok_or_else(|| polling::error(1, "Session ID unknown").into());
        }
    }
    shared.admit(request, from).await.map(Client::New).map_err(|denied| Box::new(denied.into()))
}

/// Returns the WebSocket of an upgraded connection, which may read little until its peer has registered.
async fn web_socket(upgraded: OnUpgrade) -> Option<WebSocketStream<Io>> {
    let parts = upgraded.await.ok()?.downcast::<FuturesIo<Io>>().ok()?;
    let (mut io, read) = (parts.io.into_inner(), parts.read_buf.to_vec());
    io.allow(Some(connection::MAX_UNREGISTERED));
    // Frees the rest of hyper's buffer: the connection may last for days.
    drop(parts.read_buf);
    let config = Some(connection::config());
    Some(WebSocketStream::from_partially_read(io, read, Role::Server, config).await)
}

fn switching_protocols(accept: String) -> Reply {
    let mut reply = text(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = reply.headers_mut();
    headers.clear();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SERVER, HeaderValue::from_static(SERVER));
    if let Ok(accept) = HeaderValue::try_from(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    reply
}
