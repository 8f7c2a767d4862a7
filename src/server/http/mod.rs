//! Answers HTTP requests: the page, the server's health, the API, long polling, and the upgrade to a WebSocket.

mod api;
mod caller;
mod page;
pub(super) mod polling;
pub(super) mod reply;
mod upgrade;
mod v1;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use serde_json::json;
use url::Host;

use super::names::{WrongHost, origin_is_allowed};
use super::shared::Shared;
use crate::base::net::is_this_machine;
use crate::base::timeout::timeout;
use crate::protocol::hello::ADMISSION;
use caller::{Caller, caller};
use reply::{Reply, no_randomness, reply, text, too_slow};

pub(super) use api::names as api_names;
pub(super) use polling::{Query, is_path as is_polling};
pub(super) use upgrade::is_upgrade;

/// The HSTS header: browsers require TLS for 180 days (RFC 6797).
const INSIST: &str = "max-age=15552000";

/// Answers one request of a connection; `secure` says whether it came over TLS.
pub(super) async fn handle(
    request: Request<Incoming>,
    shared: Arc<Shared>,
    from: SocketAddr,
    secure: bool,
) -> Result<Reply, Infallible> {
    let (since, board) = (Instant::now(), shared.board.clone());
    let reply = checked(request, shared, from, secure).await;
    board.metrics.time_request(since, reply.status().as_u16());
    Ok(reply)
}

/// Answers a request whose `Host` and client have to be checked.
async fn checked(request: Request<Incoming>, shared: Arc<Shared>, from: SocketAddr, secure: bool) -> Reply {
    // Load balancers check the health without a `Host` header and without TLS.
    if let Some(question) = health_question(&request) {
        return health(&question, &shared);
    }
    let live = shared.live();
    let host = match live.names.check(&request, |name| live.is_certified(name)) {
        Ok(host) => host,
        Err(error) => return wrong_host(&error),
    };
    let insists = secure && insists_on_tls(&host, &shared);
    let mut reply = match caller(&request, &shared, from.ip()) {
        Ok(caller) => answer(request, shared, caller, secure).await,
        Err(refusal) => *refusal,
    };
    if insists && reply.status() != StatusCode::SWITCHING_PROTOCOLS {
        reply.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static(INSIST));
    }
    reply
}

/// Answers a request whose `Host` is valid.
async fn answer(request: Request<Incoming>, shared: Arc<Shared>, caller: Caller, secure: bool) -> Reply {
    let from = caller.address;
    // Without TLS only this machine is served, unless the operator allows more: others are redirected.
    if !secure && !shared.plain && !is_this_machine(caller.connection) {
        return to_https(&request);
    }
    if !origin_is_allowed(request.headers(), &shared.live().allowed_origins, secure) {
        return foreign_origin(&request);
    }
    if is_upgrade(request.headers()) {
        return upgrade::upgrade(request, shared, caller).await.unwrap_or_else(no_randomness);
    }
    let path = request.uri().path();
    if path.starts_with(v1::PREFIX) {
        let answer = timeout(shared.timeouts.body, v1::handle(request, &shared, from)).await;
        return answer.unwrap_or_else(too_slow);
    }
    if path.starts_with(api::PREFIX) {
        let answer = timeout(shared.timeouts.body, api::handle(request, &shared, from)).await;
        return answer.unwrap_or_else(too_slow);
    }
    if is_polling(path) {
        // The origin was checked above.
        let origin = request.headers().get(header::ORIGIN).cloned();
        let mut reply = polling::handle(request, shared, from).await.unwrap_or_else(no_randomness);
        let headers = reply.headers_mut();
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        return reply;
    }
    if !is_read(request.method()) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed\n");
    }
    // Beside any path, since a WebSocket may have any path.
    if path.rsplit('/').next() == Some(ADMISSION) {
        return admission(&request, &shared, from).await;
    }
    page::file(path)
        .unwrap_or_else(|| text(StatusCode::NOT_FOUND, "nothing is at this path; the page is at /\n"))
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// A question about the server's health.
enum Health {
    /// Whether it is alive, with its counts if no tokens are needed.
    Counts,
    /// Whether it is alive: a server that is not should be started again.
    Live,
    /// Whether new clients should come.
    Ready,
}

/// Returns the question about the server's health that a request asks, if any; a WebSocket may use any path and does not
/// count.
fn health_question(request: &Request<Incoming>) -> Option<Health> {
    if !is_read(request.method()) || is_upgrade(request.headers()) {
        return None;
    }
    match request.uri().path() {
        "/health" => Some(Health::Counts),
        "/health/live" => Some(Health::Live),
        "/health/ready" => Some(Health::Ready),
        _ => None,
    }
}

fn health(question: &Health, shared: &Shared) -> Reply {
    // The answer waits for the hub, like all clients do.
    let (connections, peers, rooms) = shared.board.counts();
    match question {
        Health::Counts if !shared.live().needs_tokens() => {
            text(StatusCode::OK, format!("OK\nconnections {connections}\npeers {peers}\nrooms {rooms}\n"))
        }
        Health::Ready if shared.is_draining() => {
            text(StatusCode::SERVICE_UNAVAILABLE, "new clients should go elsewhere\n")
        }
        #[cfg(feature = "engine")]
        Health::Ready if shared.board.is_away() => {
            text(StatusCode::SERVICE_UNAVAILABLE, "the engine is away\n")
        }
        Health::Counts | Health::Live | Health::Ready => text(StatusCode::OK, "OK\n"),
    }
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
    let is_given = shared.live().identity.as_ref().is_some_and(|identity| !identity.is_own());
    is_given && matches!(host, Host::Domain(name) if !name.trim_end_matches('.').ends_with("localhost"))
}

/// Reports whether a WebSocket with this token would be accepted, since a page cannot read the response of a failed
/// WebSocket. Lists the STUN and TURN servers, which lets a page renew its TURN credentials during a call.
async fn admission<B>(request: &Request<B>, shared: &Shared, from: IpAddr) -> Reply {
    let mut reply = match shared.admit(request, from).await {
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
    let mut reply = text(StatusCode::PERMANENT_REDIRECT, "this server requires TLS from other machines\n");
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
            "pages of the origin '{origin}' are not allowed at '{host}': add the origin to the server's setting \
             allow-origin, or let the proxy in front of the server forward the Host header\n"
        ),
    )
}
