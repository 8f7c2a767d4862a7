//! The API for back ends, version 1: keys with scopes, JSON in and out, an audit line for each order.

mod error;
mod orders;
mod routes;
mod stream;

use std::net::IpAddr;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode};

use self::error::ApiError;
use self::routes::{Found, find};
use super::api::names_below;
use super::reply::{Reply, reply};
use crate::base::net::is_this_machine;
use crate::base::random::secret_id;
use crate::server::api_keys::Scope;
use crate::server::metrics::Limit;
use crate::server::shared::Shared;
use crate::server::{token, trace};

/// The prefix of all paths.
pub(super) const PREFIX: &str = "/api/v1/";
/// The description of the API (OpenAPI 3.1).
pub(super) const OPENAPI: &str = include_str!("openapi.json");
/// The name of the API secret in the log.
const SECRET: &str = "api-secret";

/// Answers a request below [`PREFIX`].
pub(super) async fn handle(request: Request<Incoming>, shared: &Shared, from: IpAddr) -> Reply {
    let own = trace::request_id(request.headers()).map(str::to_owned);
    let id = own.unwrap_or_else(|| secret_id().unwrap_or_default());
    let place = trace::traceparent(request.headers()).unwrap_or_default().to_owned();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut key = String::new();
    let answer = answer(request, shared, from, &mut key).await;
    let is_refused = answer.is_err();
    let mut reply = answer.unwrap_or_else(|error| error.reply(&id));
    if method != Method::GET || is_refused {
        let status = reply.status().as_u16();
        tracing::info!(
            target: "roomtone::audit",
            key, %from, %method, path, status, request = id, traceparent = place, "api"
        );
    }
    if let Ok(id) = HeaderValue::try_from(id) {
        reply.headers_mut().insert(trace::REQUEST_ID, id);
    }
    reply
}

async fn answer(
    request: Request<Incoming>,
    shared: &Shared,
    from: IpAddr,
    key: &mut String,
) -> Result<Reply, ApiError> {
    let names = names_below(PREFIX, request.uri().path());
    let path: Vec<&str> = names.iter().map(String::as_str).collect();
    if path == ["openapi.json"] {
        return match *request.method() {
            Method::GET => Ok(reply(StatusCode::OK, "application/json", OPENAPI)),
            _ => Err(ApiError::Method(vec![Method::GET])),
        };
    }
    let scopes = authorize(&request, shared, from, key)?;
    let (operation, name) = match find(request.method(), &path) {
        Found::Route(_, scope, _) if !scopes(scope) => return Err(ApiError::Scope(scope)),
        Found::Route(operation, _, name) => (operation, name),
        Found::Methods(methods) => return Err(ApiError::Method(methods)),
        Found::Nothing => return Err(ApiError::NoPath),
    };
    let (head, body) = request.into_parts();
    let query = head.uri.query().unwrap_or_default();
    orders::execute(operation, name, (query, &head.headers), body, shared).await
}

/// Returns the scopes of a request's key, and stores its name in `name`.
fn authorize(
    request: &Request<Incoming>,
    shared: &Shared,
    from: IpAddr,
    name: &mut String,
) -> Result<Box<dyn Fn(Scope) -> bool + Send>, ApiError> {
    let live = shared.live();
    if live.api_secret.is_none() && live.api_keys.is_empty() {
        return Err(ApiError::NoApi);
    }
    if !live.api_remote && !is_this_machine(from) {
        return Err(ApiError::Remote);
    }
    let given = token::bearer(request).ok_or(ApiError::NoKey)?;
    if let Some(wait) = shared.api_guesses.wait(from.into()) {
        shared.board.metrics.count_limited(Limit::Guesses);
        return Err(ApiError::Later(wait));
    }
    let is_secret = live.api_secret.as_ref().is_some_and(|secret| secret.is(given));
    let scopes: Box<dyn Fn(Scope) -> bool + Send> = match live.api_keys.find(given).cloned() {
        Some(key) => {
            name.clone_from(&key.name);
            Box::new(move |scope| key.allows(scope))
        }
        None if is_secret => {
            SECRET.clone_into(name);
            Box::new(|_| true)
        }
        None => {
            shared.api_guesses.record(from.into());
            return Err(ApiError::NoKey);
        }
    };
    match shared.api_rates.take(Instant::now(), name) {
        Ok(()) => Ok(scopes),
        Err(wait) => {
            shared.board.metrics.count_limited(Limit::Api);
            Err(ApiError::Later(wait))
        }
    }
}
