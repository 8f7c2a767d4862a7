//! The way from an HTTP request to a WebSocket.

use std::net::IpAddr;
use std::sync::Arc;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::handshake::derive_accept_key;
use async_tungstenite::tungstenite::protocol::Role;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use smol_hyper::rt::FuturesIo;

use super::polling;
use super::reply::{Reply, text};
use crate::base::random::{NoRandomness, secret_id};
use crate::hub::Grant;
use crate::protocol::room::{EXTENSION_QUERY, SERVER};
use crate::server::codec::Codec;
use crate::server::codec::framing::{Framing, SocketIo};
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

pub(super) fn upgrade(
    mut request: Request<Incoming>,
    shared: Arc<Shared>,
    from: IpAddr,
) -> Result<Reply, NoRandomness> {
    let headers = request.headers();
    let version = headers.get(header::SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| version == Some(b"13")) else {
        return Ok(text(StatusCode::BAD_REQUEST, "not a WebSocket of version 13\n"));
    };
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    let extended = request.uri().query().unwrap_or_default().split('&').any(|part| part == EXTENSION_QUERY);
    let query = polling::Query::parse(request.uri().query().unwrap_or_default());
    let is_socketio = polling::is_path(request.uri().path());
    if is_socketio && !query.is_known() {
        return Ok(polling::error(5, "Unsupported protocol version"));
    }
    // Either a session that began over HTTP moves to this WebSocket, or a new client connects.
    let began = match query.sid.filter(|_| is_socketio) {
        Some(sid) => match shared.sessions.find(&sid, token::shown(&request).as_deref()) {
            Some(session) => Ok(session),
            None => return Ok(polling::error(1, "Session ID unknown")),
        },
        None => match shared.grant(&request, from) {
            Ok(grant) => Err(grant),
            Err(denied) => return Ok(denied.into()),
        },
    };
    let id = endpoint_id(began.as_ref().err().unwrap_or(&Grant::default()))?;
    let codec = Codec::of(request.uri().path(), extended, id);
    let framing = match is_socketio {
        false if codec.is_extended() => Framing::Extended,
        false => Framing::Plain,
        true => {
            let handshake = polling::handshake(secret_id()?, &shared.timeouts, false);
            Framing::SocketIo(SocketIo::with_handshake(secret_id()?, handshake))
        }
    };
    let upgraded = hyper::upgrade::on(&mut request);
    smol::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let Ok(parts) = upgraded.downcast::<FuturesIo<Io>>() else { return };
        let (mut io, read) = (parts.io.into_inner(), parts.read_buf.to_vec());
        io.allow(Some(connection::MAX_UNREGISTERED));
        // The rest of hyper's buffer goes: the connection may last for days.
        drop(parts.read_buf);
        let config = Some(connection::config());
        let mut ws = WebSocketStream::from_partially_read(io, read, Role::Server, config).await;
        // The connection outlives its HTTP half: it is counted anew, without a bound.
        let guard = shared.board.admit(from, usize::MAX);
        match began {
            // Boxed, because this future is larger than all others in the same task.
            Ok(session) => Box::pin(polling::upgrade(ws, session, shared)).await,
            Err(grant) => {
                let board = shared.board.clone();
                connection::serve(&mut ws, board, (from, grant), codec, framing, shared.timeouts).await;
            }
        }
        drop(guard);
    })
    .detach();
    let mut reply = text(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = reply.headers_mut();
    headers.clear();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SERVER, HeaderValue::from_static(SERVER));
    if let Ok(accept) = accept {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    Ok(reply)
}
