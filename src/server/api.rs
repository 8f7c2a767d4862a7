//! What a back end may ask of the server over HTTP, with a secret: who is in which room, to say who somebody is,
//! to send somebody away, to close a room.

use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode, header};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::http::{Reply, reply, text};
use super::switchboard::Switchboard;
use crate::hub::Admin;
use crate::protocol::Secret;

/// Where it begins.
pub(super) const PREFIX: &str = "/api/";
/// The largest description, in bytes.
const MAX_DESCRIPTION: usize = 64 * 1024;

/// Answers one request below [`PREFIX`]; without a secret there is no such thing here.
pub(super) async fn handle(
    request: Request<Incoming>,
    board: &Arc<Switchboard>,
    secret: Option<&Secret>,
) -> Reply {
    let Some(secret) = secret else {
        return text(StatusCode::NOT_FOUND, "this server takes no orders (--api-secret)\n");
    };
    if !is_known(&request, secret) {
        return text(StatusCode::UNAUTHORIZED, "Authorization: Bearer SECRET is wanted\n");
    }
    let (head, body) = request.into_parts();
    let path = head.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    let path: Option<Vec<String>> = path
        .split('/')
        .map(|part| percent_decode_str(part).decode_utf8().ok().map(|part| part.into_owned()))
        .collect();
    let path = path.unwrap_or_default();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let done = match (&head.method, path.as_slice()) {
        (&Method::GET, ["rooms"]) => {
            return reply(StatusCode::OK, "application/json", board.rooms().to_string());
        }
        (&Method::DELETE, ["rooms", room]) => room.parse().ok().map(Admin::Close),
        (&Method::DELETE, ["peers", peer]) => peer.parse().ok().map(Admin::Remove),
        (&Method::PUT, ["peers", peer, "description"]) => {
            let Some(body) = read(body).await else {
                return text(StatusCode::PAYLOAD_TOO_LARGE, "a description holds 64 KiB at most\n");
            };
            let Ok(description) = serde_json::from_slice::<Value>(&body) else {
                return text(StatusCode::BAD_REQUEST, "a description is JSON\n");
            };
            peer.parse().ok().map(|peer| Admin::Describe(peer, description))
        }
        _ => {
            return text(
                StatusCode::NOT_FOUND,
                "GET rooms, DELETE rooms/NAME, DELETE peers/ID, PUT peers/ID/description\n",
            );
        }
    };
    match done.is_some_and(|admin| board.admin(admin)) {
        true => text(StatusCode::NO_CONTENT, ""),
        false => text(StatusCode::NOT_FOUND, "there is none of that name\n"),
    }
}

/// The body, where it is not too big. One that is, is read all the same: a connection that is closed with bytes
/// unread is reset, and the answer with it.
async fn read(mut body: Incoming) -> Option<Vec<u8>> {
    const AT_MOST: usize = 16 << 20;
    let (mut kept, mut length) = (vec![], 0);
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        length += data.len();
        if length > AT_MOST {
            return None;
        }
        if length <= MAX_DESCRIPTION {
            kept.extend_from_slice(&data);
        }
    }
    (length <= MAX_DESCRIPTION).then_some(kept)
}

/// Whether the request has the secret. Digests are compared, so that time tells nothing.
fn is_known(request: &Request<Incoming>, secret: &Secret) -> bool {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let digest = |text: &str| ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    given
        .and_then(|value| value.strip_prefix("Bearer "))
        .is_some_and(|given| digest(given).as_ref() == digest(&secret.0).as_ref())
}
