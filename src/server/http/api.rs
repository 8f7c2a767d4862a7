//! The API for back ends over HTTP, with a secret: list rooms and peers, describe a peer, remove a peer, close a room.

use std::net::IpAddr;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::reply::{Reply, read_body, reply, text, too_often};
use crate::base::net::is_this_machine;
use crate::hub::Admin;
use crate::server::metrics::Limit;
use crate::server::rooms_page::After;
use crate::server::shared::Shared;
use crate::server::switchboard::Switchboard;
use crate::server::token::{self, Denied};

/// The prefix of all paths of the API.
pub(in crate::server) const PREFIX: &str = "/api/";
/// The largest description, in bytes.
const MAX_DESCRIPTION: usize = 64 * 1024;

/// Answers a request below [`PREFIX`] from the address `from`; responds 404 if the server has no API secret.
pub(in crate::server) async fn handle(request: Request<Incoming>, shared: &Shared, from: IpAddr) -> Reply {
    if let Some(refusal) = refuse(&request, shared, from) {
        return refusal;
    }
    let board = &shared.board;
    let (head, body) = request.into_parts();
    let path = names(head.uri.path());
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let done = match (&head.method, path.as_slice()) {
        (&Method::GET, ["rooms"]) => return rooms(board, head.uri.query().unwrap_or_default()),
        (&Method::GET, ["counts"]) => {
            let (connections, peers, rooms) = board.counts();
            let counts = json!({"connections": connections, "peers": peers, "rooms": rooms});
            return reply(StatusCode::OK, "application/json", counts.to_string());
        }
        (&Method::DELETE, ["rooms", room]) => room.parse().ok().map(Admin::Close),
        (&Method::DELETE, ["peers", peer]) => peer.parse().ok().map(Admin::Remove),
        (&Method::PUT, ["peers", peer, "description"]) => {
            let Some(body) = read_body(body, MAX_DESCRIPTION).await else {
                return text(StatusCode::PAYLOAD_TOO_LARGE, "a description may have at most 64 KiB\n");
            };
            let Ok(description) = serde_json::from_slice::<Value>(&body) else {
                return text(StatusCode::BAD_REQUEST, "a description has to be JSON\n");
            };
            peer.parse().ok().map(|peer| Admin::Describe(peer, description))
        }
        _ => {
            return text(
                StatusCode::NOT_FOUND,
                "GET rooms, GET counts, DELETE rooms/NAME, DELETE peers/ID, PUT peers/ID/description\n",
            );
        }
    };
    if !board.takes_orders() {
        return text(
            StatusCode::TOO_MANY_REQUESTS,
            "too many requests wait for the engine: try again later\n",
        );
    }
    match done.is_some_and(|admin| board.admin(admin)) {
        true => text(StatusCode::NO_CONTENT, ""),
        false => text(StatusCode::NOT_FOUND, "no peer or room has this name\n"),
    }
}

/// Returns the decoded segments of a path below [`PREFIX`]; none if a segment is not UTF-8.
pub(in crate::server) fn names(path: &str) -> Vec<String> {
    names_below(PREFIX, path)
}

/// Returns the decoded segments of a path below a prefix; none if a segment is not UTF-8.
pub(super) fn names_below(prefix: &str, path: &str) -> Vec<String> {
    let path = path.strip_prefix(prefix).unwrap_or_default();
    let names = path.split('/').map(|part| percent_decode_str(part).decode_utf8());
    names.map(|name| Some(name.ok()?.into_owned())).collect::<Option<_>>().unwrap_or_default()
}

/// Returns one page of the rooms, with the address of the next page in the `Link` header (RFC 8288).
fn rooms(board: &Switchboard, query: &str) -> Reply {
    let mut after = After::default();
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*key {
            "after" => after.room = value.into_owned(),
            "peer" => after.peer = value.into_owned(),
            _ => {}
        }
    }
    let Some((rooms, next)) = board.rooms(&after, Instant::now()) else {
        board.metrics.count_limited(Limit::Lists);
        return too_often();
    };
    let mut reply = reply(StatusCode::OK, "application/json", rooms.to_string());
    let link = next.map(|next| {
        let pairs = [("after", next.room), ("peer", next.peer)];
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        HeaderValue::try_from(format!("<{PREFIX}rooms?{query}>; rel=\"next\""))
    });
    if let Some(Ok(link)) = link {
        reply.headers_mut().insert(header::LINK, link);
    }
    reply
}

/// Returns the error response to a request that is not authorized; none if the request is authorized.
fn refuse(request: &Request<Incoming>, shared: &Shared, from: IpAddr) -> Option<Reply> {
    let live = shared.live();
    if !live.api_remote && !is_this_machine(from) {
        return Some(text(
            StatusCode::FORBIDDEN,
            "the API is open to this machine only (setting api-remote)\n",
        ));
    }
    let Some(secret) = &live.api_secret else {
        return Some(text(StatusCode::NOT_FOUND, "this server has no API (setting api-secret)\n"));
    };
    let wanted = || text(StatusCode::UNAUTHORIZED, "the header 'Authorization: Bearer SECRET' is required\n");
    let Some(given) = token::bearer(request) else { return Some(wanted()) };
    if let Some(wait) = shared.api_guesses.wait(from.into()) {
        shared.board.metrics.count_limited(Limit::Guesses);
        return Some(Denied::Later(wait).into());
    }
    if secret.is(given) {
        return None;
    }
    shared.api_guesses.record(from.into());
    Some(wanted())
}
