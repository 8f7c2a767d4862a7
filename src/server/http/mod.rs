//! What the server answers to plain HTTP: the page, its health, and the way up to a WebSocket.

pub(super) mod api;
pub(super) mod polling;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::handshake::derive_accept_key;
use async_tungstenite::tungstenite::protocol::Role;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use smol::future::or;
use smol_hyper::rt::FuturesIo;
use url::Host;

use super::codec::Edge;
use super::codec::framing::{Dialect, SocketIo};
use super::names::{WrongHost, origin_is_allowed};
use super::token::TokenError;
use super::{Io, Shared, connection, token};
use crate::base::net::is_this_machine;
use crate::base::random::{NoRandomness, secret_id};
use crate::hub::Grant;
use crate::protocol::PeerId;
use crate::protocol::room::{EXTENSION_QUERY, ICE_QUERY, SERVER, ServerMessage};

/// Expands to the entry of one script of the page: path, content type and content.
macro_rules! script {
    ($name:literal) => {
        (
            concat!("/", $name, ".js"),
            "text/javascript; charset=utf-8",
            include_str!(concat!("../page/", $name, ".js")),
        )
    };
}

/// The page's files: path, type, content.
const FILES: [(&str, &str, &str); 23] = [
    ("/", "text/html; charset=utf-8", include_str!("../page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("../page/style.css")),
    ("/icon.svg", "image/svg+xml", include_str!("../page/icon.svg")),
    script!("address"),
    script!("admission"),
    script!("app"),
    script!("backoff"),
    script!("call"),
    script!("calls"),
    script!("camera"),
    script!("chat"),
    script!("clock"),
    script!("lobby"),
    script!("names"),
    script!("play"),
    script!("prepare"),
    script!("room"),
    script!("rooms"),
    script!("signalling"),
    script!("stats"),
    script!("ticker"),
    script!("view"),
    script!("watch"),
];

/// The path that [`admission`] answers.
const ADMISSION: &str = "/admission";

/// Nothing from elsewhere, nothing inline, no frames around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    media-src 'self' blob: mediastream:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// Further headers of every response: only the page itself may use camera, microphone and screen; no `Referer` reveals
/// an address that may contain a token; browsers do not guess content types; other sites can neither frame or embed the
/// page nor keep a reference to its window.
const HARDENING: [(HeaderName, &str); 6] = [
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(self), microphone=(self), display-capture=(self)",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The HSTS header: browsers require TLS for 180 days (RFC 6797).
const INSIST: &str = "max-age=15552000";
/// The most bytes of an oversized body that are read and dropped before the error response.
const MAX_DROPPED: usize = 16 << 20;

pub(in crate::server) type Reply = Response<Full<Bytes>>;

pub(in crate::server) fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    for (name, value) in &HARDENING {
        headers.insert(name, HeaderValue::from_static(value));
    }
    reply
}

pub(in crate::server) fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    reply(status, "text/plain; charset=utf-8", body)
}

/// The reason why the secret of a request is rejected.
#[derive(Debug, thiserror::Error)]
pub(in crate::server) enum Denied {
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The owner of the address sent too many wrong secrets; contains the time to wait.
    #[error("too many wrong secrets came from your address: try again in {} s", .0.as_secs() + 1)]
    Later(Duration),
}

impl From<Denied> for Reply {
    fn from(denied: Denied) -> Self {
        let status = match denied {
            Denied::Token(_) => StatusCode::UNAUTHORIZED,
            Denied::Later(_) => StatusCode::TOO_MANY_REQUESTS,
        };
        let mut reply = text(status, format!("{denied}\n"));
        let headers = reply.headers_mut();
        match denied {
            // A client that was registered before ends only at this challenge (RFC 6750, 3.1), which no proxy sends.
            Denied::Token(TokenError::Forged(_) | TokenError::Refused(_)) => {
                let words = HeaderValue::from_static(r#"Bearer error="invalid_token""#);
                headers.insert(header::WWW_AUTHENTICATE, words);
            }
            Denied::Token(TokenError::Missing) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Denied::Later(wait) => {
                headers.insert(header::RETRY_AFTER, (wait.as_secs() + 1).into());
            }
        }
        reply
    }
}

fn no_randomness(error: NoRandomness) -> Reply {
    tracing::error!("{error}");
    text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))
}

/// Answers one request of a connection; `secure` says whether it came over TLS.
pub(in crate::server) async fn handle(
    request: Request<Incoming>,
    shared: Arc<Shared>,
    from: SocketAddr,
    secure: bool,
) -> Result<Reply, Infallible> {
    // Load balancers check the health without a `Host` header and without TLS.
    if is_health(&request) {
        return Ok(health(&shared));
    }
    let host = match shared.names.check(&request, |name| shared.is_certified(name)) {
        Ok(host) => host,
        Err(error) => return Ok(wrong_host(&error)),
    };
    let insists = secure && insists_on_tls(&host, &shared);
    let mut reply = answer(request, shared, from, secure).await;
    if insists && reply.status() != StatusCode::SWITCHING_PROTOCOLS {
        reply.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(INSIST));
    }
    Ok(reply)
}

/// Answers a request whose `Host` is valid.
async fn answer(request: Request<Incoming>, shared: Arc<Shared>, from: SocketAddr, secure: bool) -> Reply {
    // Without TLS only this machine is served, unless the user chose so: others are shown the way.
    if !secure && !shared.plain && !is_this_machine(from.ip()) {
        return to_https(&request);
    }
    if !origin_is_allowed(request.headers(), &shared.allowed_origins, secure) {
        return foreign_origin(&request);
    }
    if is_upgrade(request.headers()) {
        return upgrade(request, shared, from.ip()).unwrap_or_else(no_randomness);
    }
    let path = request.uri().path();
    if path.starts_with(api::PREFIX) {
        return or(api::handle(request, &shared, from.ip()), too_slow(shared.timeouts.body)).await;
    }
    if polling::is_path(path) {
        // The origin was checked above.
        let origin = request.headers().get(header::ORIGIN).cloned();
        let mut reply = polling::handle(request, shared, from.ip()).await.unwrap_or_else(no_randomness);
        let headers = reply.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        return reply;
    }
    if !is_read(request.method()) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    if path == ADMISSION {
        return admission(&request, &shared, from.ip());
    }
    match FILES.iter().find(|(name, _, _)| *name == path) {
        Some((_, kind, content)) => reply(StatusCode::OK, kind, *content),
        None => text(StatusCode::NOT_FOUND, "there is nothing here; the page is at /\n"),
    }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Returns whether a request asks for the server's health; a WebSocket may use any path and does not count.
fn is_health(request: &Request<Incoming>) -> bool {
    request.uri().path() == "/health" && is_read(request.method()) && !is_upgrade(request.headers())
}

/// Answers that the server is alive; includes the counts only if no tokens are needed.
fn health(shared: &Shared) -> Reply {
    if shared.tokens.is_some() {
        return text(StatusCode::OK, "OK\n");
    }
    let (connections, peers, rooms) = shared.board.counts();
    text(StatusCode::OK, format!("OK\nconnections {connections}\npeers {peers}\nrooms {rooms}\n"))
}

fn wrong_host(error: &WrongHost) -> Reply {
    let status = match error {
        WrongHost::Count(_) | WrongHost::Malformed => StatusCode::BAD_REQUEST,
        WrongHost::Foreign(_) => StatusCode::MISDIRECTED_REQUEST,
    };
    tracing::debug!("a request is refused: {error}");
    text(status, format!("{error}\n"))
}

/// Returns whether to send HSTS. Browsers then require TLS on all ports of the name, and offer no exception for an
/// untrusted certificate; so only a certificate from the operator and a public DNS name qualify.
fn insists_on_tls(host: &Host, shared: &Shared) -> bool {
    let is_given = shared.identity.as_ref().is_some_and(|identity| !identity.is_own());
    is_given && matches!(host, Host::Domain(name) if !name.trim_end_matches('.').ends_with("localhost"))
}

/// Returns the body if it has at most `most` bytes. Reads a longer body up to [`MAX_DROPPED`] and drops it: closing a
/// connection with unread bytes would send a reset, and the client could lose the response.
pub(in crate::server) async fn read_body(mut body: Incoming, most: usize) -> Option<Vec<u8>> {
    let (mut kept, mut length) = (vec![], 0);
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length > MAX_DROPPED {
            return None;
        }
        if length <= most {
            kept.extend_from_slice(&data);
        }
    }
    (length <= most).then_some(kept)
}

/// Returns the response to a client that exceeds its request rate.
pub(in crate::server) fn too_often() -> Reply {
    let mut reply = text(StatusCode::TOO_MANY_REQUESTS, "too many requests; try again in a second\n");
    reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    reply
}

/// Returns, after the time `after`, the response to a request whose body is incomplete.
pub(in crate::server) async fn too_slow(after: Duration) -> Reply {
    smol::Timer::after(after).await;
    text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n")
}

/// Reports whether a WebSocket with this token would be accepted, since a page cannot read the response of a failed
/// WebSocket. Lists the STUN and TURN servers, which lets a page renew its TURN credentials during a call.
fn admission<B>(request: &Request<B>, shared: &Shared, from: IpAddr) -> Reply {
    let mut reply = match shared.grant(request, from) {
        Ok(_) => {
            let servers = json!({"iceServers": shared.board.ice_servers()});
            reply(StatusCode::OK, "application/json", servers.to_string())
        }
        Err(denied) => denied.into(),
    };
    reply.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

fn to_https(request: &Request<Incoming>) -> Reply {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let location = HeaderValue::try_from(format!("https://{host}{path}"));
    let mut reply = text(StatusCode::PERMANENT_REDIRECT, "this server speaks TLS to other machines\n");
    if let Ok(location) = location {
        reply.headers_mut().insert(header::LOCATION, location);
    }
    reply
}

fn foreign_origin(request: &Request<Incoming>) -> Reply {
    let value = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("?");
    let (origin, host) = (value(header::ORIGIN), value(header::HOST));
    text(
        StatusCode::FORBIDDEN,
        format!(
            "pages of the origin '{origin}' may not come in here, at '{host}': start the server with \
             --allow-origin {origin}, or let the proxy in front pass the Host header on\n"
        ),
    )
}

fn holds(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
}

pub(in crate::server) fn is_upgrade(headers: &HeaderMap) -> bool {
    holds(headers, header::UPGRADE, "websocket") && holds(headers, header::CONNECTION, "upgrade")
}

/// Returns the id of an endpoint of a pool: the name in the client's token, or else a random id.
pub(in crate::server) fn endpoint_id(grant: &Grant) -> Result<PeerId, NoRandomness> {
    match &grant.name {
        Some(name) => Ok(name.clone()),
        None => secret_id()?.parse().map_err(|_| NoRandomness),
    }
}

fn upgrade(mut request: Request<Incoming>, shared: Arc<Shared>, from: IpAddr) -> Result<Reply, NoRandomness> {
    let headers = request.headers();
    let version = headers.get(header::SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| version == Some(b"13")) else {
        return Ok(text(StatusCode::BAD_REQUEST, "not a WebSocket of version 13\n"));
    };
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    let asks = |what| request.uri().query().unwrap_or_default().split('&').any(|part| part == what);
    let (extended, wants_ice) = (asks(EXTENSION_QUERY), asks(ICE_QUERY));
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
    let edge = Edge::of(request.uri().path(), extended, id);
    let dialect = match is_socketio {
        false if edge.is_extended() => Dialect::Extended,
        false => Dialect::Plain,
        true => {
            let greeting = polling::handshake(secret_id()?, &shared.timeouts, false);
            Dialect::SocketIo(SocketIo::greeted(secret_id()?, greeting))
        }
    };
    let upgraded = hyper::upgrade::on(&mut request);
    smol::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let Ok(parts) = upgraded.downcast::<FuturesIo<Io>>() else { return };
        let (mut io, read) = (parts.io.into_inner(), parts.read_buf.to_vec());
        io.allow(Some(connection::MAX_UNKNOWN));
        // The rest of hyper's buffer goes: the connection may last for days.
        drop(parts.read_buf);
        let config = Some(connection::config());
        let mut ws = WebSocketStream::from_partially_read(io, read, Role::Server, config).await;
        let guard = shared.count_socket(from);
        match began {
            // Boxed, because this future is larger than all others in the same task.
            Ok(session) => Box::pin(polling::upgrade(ws, session, shared)).await,
            Err(_) if wants_ice => {
                let line = ServerMessage::IceServers(shared.board.ice_servers()).to_string();
                Box::pin(connection::tell_once(ws, line, shared.timeouts.closing)).await;
            }
            Err(grant) => {
                let board = shared.board.clone();
                connection::serve(&mut ws, board, (from, grant), edge, dialect, shared.timeouts).await;
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
