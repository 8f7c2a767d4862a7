//! What the server answers to plain HTTP: the page, its health, and the way up to a WebSocket.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::handshake::derive_accept_key;
use async_tungstenite::tungstenite::protocol::Role;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;
use smol::future::or;
use smol_hyper::rt::FuturesIo;

use super::dialect::{Dialect, SocketIo};
use super::edge::Edge;
use super::{Io, Shared, api, connection, socketio};
use crate::protocol::room::{EXTENSION_QUERY, SERVER};

/// A script of the page.
macro_rules! script {
    ($name:literal) => {
        (
            concat!("/", $name, ".js"),
            "text/javascript; charset=utf-8",
            include_str!(concat!("page/", $name, ".js")),
        )
    };
}

/// The page's files: path, type, content.
const FILES: [(&str, &str, &str); 23] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
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

/// The path that answers what [`admission`] says.
const ADMISSION: &str = "/admission";

/// Nothing from elsewhere, nothing inline, no frames around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    media-src 'self' blob: mediastream:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

pub(super) type Reply = Response<Full<Bytes>>;

pub(super) fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    reply
}

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    reply(status, "text/plain; charset=utf-8", body)
}

/// Answers one request of a connection; `secure` says whether it came over TLS.
pub(super) async fn handle(
    request: Request<Incoming>,
    shared: Arc<Shared>,
    from: SocketAddr,
    secure: bool,
) -> Result<Reply, Infallible> {
    // Without TLS only this machine is served, unless the user chose so: others are shown the way.
    if !secure && !shared.plain && !from.ip().is_loopback() {
        return Ok(to_https(&request));
    }
    if is_upgrade(request.headers()) {
        return Ok(upgrade(request, shared, from));
    }
    if request.uri().path().starts_with(api::PREFIX) {
        if !shared.api_remote && !from.ip().is_loopback() {
            return Ok(text(
                StatusCode::FORBIDDEN,
                "orders are taken of this machine alone (--api-remote)\n",
            ));
        }
        let answer = api::handle(request, &shared.board, shared.api_secret.as_ref());
        return Ok(or(answer, too_slow(shared.timeouts.body)).await);
    }
    if socketio::is_path(request.uri().path()) {
        let Some(origin) = allowed_origin(request.headers(), &shared.allowed_origins) else {
            return Ok(text(StatusCode::FORBIDDEN, FOREIGN));
        };
        let mut reply = socketio::handle(request, shared, from.ip()).await;
        let headers = reply.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        return Ok(reply);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n"));
    }
    let path = request.uri().path();
    if path == "/health" {
        let (connections, peers, rooms) = shared.board.counts();
        let body = format!("OK\nconnections {connections}\npeers {peers}\nrooms {rooms}\n");
        return Ok(text(StatusCode::OK, body));
    }
    if path == ADMISSION {
        return Ok(admission(&request, &shared));
    }
    Ok(match FILES.iter().find(|(name, _, _)| *name == path) {
        Some((_, kind, content)) => reply(StatusCode::OK, kind, *content),
        None => text(StatusCode::NOT_FOUND, "there is nothing here; the page is at /\n"),
    })
}

/// Answers, after that time, a request whose body does not come.
pub(super) async fn too_slow(after: Duration) -> Reply {
    smol::Timer::after(after).await;
    text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n")
}

/// Tells whether a WebSocket of this token would be let in, which a page cannot see from a WebSocket that fails; and
/// names the STUN and TURN servers, so that a page can renew its TURN user in the middle of a call.
fn admission<B>(request: &Request<B>, shared: &Shared) -> Reply {
    let mut reply = match shared.grant(request) {
        Ok(_) => {
            let servers = json!({"iceServers": shared.board.ice_servers()});
            reply(StatusCode::OK, "application/json", servers.to_string())
        }
        Err(why) => text(StatusCode::UNAUTHORIZED, format!("{why}\n")),
    };
    reply.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

fn to_https(request: &Request<Incoming>) -> Reply {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let location = HeaderValue::try_from(format!("https://{host}{}", request.uri()));
    let mut reply = text(StatusCode::PERMANENT_REDIRECT, "this server speaks TLS to other machines\n");
    if let Ok(location) = location {
        reply.headers_mut().insert(header::LOCATION, location);
    }
    reply
}

fn holds(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    holds(headers, header::UPGRADE, "websocket") && holds(headers, header::CONNECTION, "upgrade")
}

/// A page of another site may not use a browser to come in here, unless it is allowed to.
fn origin_is_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    if allowed.iter().any(|allowed| allowed == "*" || allowed.trim_end_matches('/') == origin) {
        return true;
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let own = origin.split_once("://").map(|(_, authority)| authority);
    own.is_some() && own == host
}

const FOREIGN: &str = "this page's origin is not allowed here (--allow-origin)\n";

/// The page's origin, where there is one, if it is allowed.
fn allowed_origin(headers: &HeaderMap, allowed: &[String]) -> Option<Option<HeaderValue>> {
    origin_is_allowed(headers, allowed).then(|| headers.get(header::ORIGIN).cloned())
}

fn upgrade(mut request: Request<Incoming>, shared: Arc<Shared>, from: SocketAddr) -> Reply {
    let headers = request.headers();
    if !origin_is_allowed(headers, &shared.allowed_origins) {
        return text(StatusCode::FORBIDDEN, FOREIGN);
    }
    let version = headers.get(header::SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes);
    let Some(key) = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| version == Some(b"13")) else {
        return text(StatusCode::BAD_REQUEST, "not a WebSocket of version 13\n");
    };
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    let extended = request.uri().query().unwrap_or_default().split('&').any(|part| part == EXTENSION_QUERY);
    let query = socketio::Query::parse(request.uri().query().unwrap_or_default());
    let is_socketio = socketio::is_path(request.uri().path());
    if is_socketio && !query.is_known() {
        return socketio::error(5, "Unsupported protocol version");
    }
    let grant = match shared.grant(&request) {
        Ok(grant) => grant,
        Err(why) => return text(StatusCode::UNAUTHORIZED, format!("{why}\n")),
    };
    let edge = Edge::of(request.uri().path(), extended);
    let is_extended = edge.is_extended();
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
        let guard = shared.count_socket(from.ip());
        let dialect = match (is_socketio, query.sid) {
            (false, _) if is_extended => Dialect::Extended,
            (false, _) => Dialect::Plain,
            (true, None) => {
                let sid = format!("{:032x}", fastrand::u128(..));
                let greeting = Some(socketio::handshake(sid, &shared.timeouts, false));
                Dialect::SocketIo(SocketIo { greeting, is_in: false })
            }
            (true, Some(sid)) => {
                // Apart, for it takes more room than all others need, who wait in the same task.
                Box::pin(socketio::upgrade(ws, &sid, shared)).await;
                return drop(guard);
            }
        };
        connection::serve(&mut ws, shared.board.clone(), (from.ip(), grant), edge, dialect, shared.timeouts)
            .await;
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
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_page_and_allowed_origins_come_in() {
        let headers = |origin: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("192.0.2.1:8443"));
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            headers
        };
        let none: &[String] = &[];
        assert!(origin_is_allowed(&HeaderMap::new(), none), "not a browser");
        assert!(origin_is_allowed(&headers("https://192.0.2.1:8443"), none));
        assert!(!origin_is_allowed(&headers("https://evil.example"), none));
        assert!(!origin_is_allowed(&headers("null"), none));
        assert!(origin_is_allowed(&headers("https://app.example"), &["https://app.example/".to_owned()]));
        assert!(origin_is_allowed(&headers("https://any.example"), &["*".to_owned()]));
    }
}
