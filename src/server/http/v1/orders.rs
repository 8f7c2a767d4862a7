//! The operations of the API.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value, json};

use super::error::ApiError;
use super::routes::Operation;
use super::stream;
use crate::hub::{Admin, Hub, Presence};
use crate::protocol::ssp::ServerEvent;
use crate::protocol::{PeerId, RoomId};
use crate::server::blocks::MAX_TIME;
use crate::server::http::reply::{Reply, read_body, reply, text};
use crate::server::metrics::Limit;
use crate::server::shared::Shared;
use crate::server::token;

/// The most entries of a page, and the number without a wish.
const PAGE: usize = 100;
/// The most ids in one question about presence.
const MAX_IDS: usize = 100;
/// The pause after which to try again while too many orders wait for the engine.
const ENGINE: Duration = Duration::from_secs(5);
/// The longest body of an order, in bytes.
const MAX_ORDER: usize = 16 * 1024;
/// The longest description, in bytes.
const MAX_DESCRIPTION: usize = 64 * 1024;
/// The time that a token is valid without a wish, in seconds.
const VALID: u64 = 3600;
/// The longest time that a token may be valid, in seconds.
const MAX_VALID: u64 = 30 * 24 * 3600;

/// Executes an operation for the name in its path.
pub(super) async fn execute(
    operation: Operation,
    name: &str,
    (query, headers): (&str, &HeaderMap),
    body: Incoming,
    shared: &Shared,
) -> Result<Reply, ApiError> {
    let board = &shared.board;
    match operation {
        Operation::Counts => {
            let (connections, peers, rooms) = board.counts();
            Ok(ok(&json!({"connections": connections, "peers": peers, "rooms": rooms})))
        }
        Operation::ListRooms => rooms(query, shared),
        Operation::ReadRoom => room(name, query, shared),
        Operation::CloseRoom => {
            let room: RoomId = name.parse().map_err(|_| ApiError::NotFound("room"))?;
            give(shared, Admin::Close(room), "room")
        }
        Operation::ListPeers => peers(query, shared),
        Operation::ReadPeer => {
            let peer = peer(name)?;
            match board.with_hub(|hub| (hub.presence(&peer), hub.description(&peer))) {
                (Presence::Offline, _) => Err(ApiError::NotFound("peer")),
                (presence, description) => {
                    let mut entry = entry(&peer, &presence);
                    entry["description"] = description;
                    Ok(ok(&entry))
                }
            }
        }
        Operation::RemovePeer => remove(peer(name)?, body, shared).await,
        Operation::DescribePeer => {
            let peer = peer(name)?;
            let body = read_body(body, MAX_DESCRIPTION).await.ok_or(ApiError::TooLong(MAX_DESCRIPTION))?;
            let description: Value = parsed(&body)?;
            give(shared, Admin::Describe(peer, description), "peer")
        }
        Operation::MovePeer => move_peer(&peer(name)?, body, shared).await,
        Operation::MutePeer => mute(peer(name)?, body, shared).await,
        Operation::SendEvent => send(peer(name)?, body, shared).await,
        Operation::MakeToken => make_token(body, shared).await,
        Operation::ListNodes => Ok(nodes(shared)),
        Operation::Drain => Ok(drain(true, shared)),
        Operation::EndDrain => Ok(drain(false, shared)),
        Operation::StreamEvents => stream::events(headers, query, shared),
    }
}

fn ok(body: &Value) -> Reply {
    reply(StatusCode::OK, "application/json", body.to_string())
}

/// Describes the servers that form this service: this one alone.
fn nodes(shared: &Shared) -> Reply {
    let (connections, peers, rooms) = shared.board.counts();
    let state = if shared.is_draining() { "draining" } else { "serving" };
    let node = json!({
        "run": shared.board.events.run,
        "version": env!("CARGO_PKG_VERSION"),
        "state": state,
        "connections": connections,
        "peers": peers,
        "rooms": rooms,
        "calls": shared.board.with_hub(Hub::calls),
    });
    ok(&json!({"nodes": [node]}))
}

/// Lets the server report that new clients should go elsewhere, or should come again.
fn drain(is_draining: bool, shared: &Shared) -> Reply {
    shared.drain(is_draining);
    text(StatusCode::NO_CONTENT, "")
}

/// Executes an order, unless too many wait for the engine that connects several servers.
fn give(shared: &Shared, admin: Admin, what: &'static str) -> Result<Reply, ApiError> {
    if !shared.board.takes_orders() {
        return Err(ApiError::Later(ENGINE));
    }
    done(shared.board.admin(admin), what)
}

fn done(is_found: bool, what: &'static str) -> Result<Reply, ApiError> {
    match is_found {
        true => Ok(text(StatusCode::NO_CONTENT, "")),
        false => Err(ApiError::NotFound(what)),
    }
}

fn peer(name: &str) -> Result<PeerId, ApiError> {
    name.parse().map_err(|_| ApiError::NotFound("peer"))
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::Invalid(format!("the body: {error}")))
}

/// Reads a number of seconds: an integer, which JSON may write with a fraction of zero, and not null.
fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let number = Number::deserialize(from)?;
    // 2^53: beyond it a number with a fraction is not exact (RFC 8259, 6).
    let whole =
        |number: f64| (number.fract() == 0.0 && (0.0..9e15).contains(&number)).then_some(number as u64);
    let seconds = number.as_u64().or_else(|| number.as_f64().and_then(whole));
    seconds.map(Some).ok_or_else(|| D::Error::custom(format!("{number} is no number of seconds")))
}

/// Reads the JSON body of an order; an empty body is an empty object.
async fn order<T: DeserializeOwned>(body: Incoming) -> Result<T, ApiError> {
    let body = read_body(body, MAX_ORDER).await.ok_or(ApiError::TooLong(MAX_ORDER))?;
    parsed(if body.is_empty() { b"{}" } else { &body })
}

/// The place in a list.
struct Page {
    after: String,
    limit: usize,
}

impl Page {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let mut page = Self { after: String::new(), limit: PAGE };
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "after" => page.after = value.into_owned(),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=PAGE).contains(limit));
                    let why = || ApiError::Invalid(format!("limit is a number from 1 to {PAGE}"));
                    page.limit = limit.ok_or_else(why)?;
                }
                other => return Err(ApiError::Invalid(format!("the parameter '{other}' is unknown"))),
            }
        }
        Ok(page)
    }

    /// Returns the entries of the page, sorted by name, and the name after which the next page begins, if there is one.
    fn of<T>(&self, all: impl Iterator<Item = (String, T)>) -> (Vec<(String, T)>, Option<String>) {
        let mut all: Vec<_> = all.filter(|(name, _)| *name > self.after).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        let is_more = all.len() > self.limit;
        all.truncate(self.limit);
        let next = all.last().filter(|_| is_more).map(|(name, _)| name.clone());
        (all, next)
    }
}

/// Limits the rate of lists, each of which looks at all peers or rooms.
fn count_list(shared: &Shared) -> Result<(), ApiError> {
    if shared.board.may_list(Instant::now()) {
        return Ok(());
    }
    shared.board.metrics.count_limited(Limit::Lists);
    Err(ApiError::Later(Duration::ZERO))
}

fn rooms(query: &str, shared: &Shared) -> Result<Reply, ApiError> {
    let page = Page::parse(query)?;
    count_list(shared)?;
    let (rooms, next) = shared
        .board
        .with_hub(|hub| page.of(hub.rooms().map(|(name, peers)| (name.to_string(), peers.len()))));
    let rooms: Vec<_> =
        rooms.into_iter().map(|(room, peers)| json!({"room": room, "peers": peers})).collect();
    Ok(ok(&json!({"rooms": rooms, "next": next})))
}

fn room(name: &str, query: &str, shared: &Shared) -> Result<Reply, ApiError> {
    let page = Page::parse(query)?;
    let room: RoomId = name.parse().map_err(|_| ApiError::NotFound("room"))?;
    let members = shared.board.with_hub(|hub| hub.members(&room)).ok_or(ApiError::NotFound("room"))?;
    let (peers, next) = page.of(members.iter().map(|peer| (peer.to_string(), ())));
    let peers: Vec<_> = peers.into_iter().map(|(peer, ())| peer).collect();
    Ok(ok(&json!({"room": room.to_string(), "peers": peers, "next": next})))
}

fn entry(peer: &PeerId, presence: &Presence) -> Value {
    let (state, room) = match presence {
        Presence::Offline => ("offline", None),
        Presence::Free => ("free", None),
        Presence::Call => ("busy", None),
        Presence::Room(room) => ("busy", Some(room.to_string())),
    };
    json!({"id": peer.to_string(), "state": state, "room": room})
}

/// Returns the presence of the peers that `id` names, or a page of all peers.
fn peers(query: &str, shared: &Shared) -> Result<Reply, ApiError> {
    let asked = url::form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == "id");
    let asked: Vec<String> = asked.map(|(_, id)| id.into_owned()).collect();
    if asked.len() > MAX_IDS {
        return Err(ApiError::Invalid(format!("at most {MAX_IDS} ids can be asked for at once")));
    }
    if !asked.is_empty() {
        let ids = asked.iter().map(|id| id.parse::<PeerId>());
        let ids: Vec<PeerId> =
            ids.collect::<Result<_, _>>().map_err(|error| ApiError::Invalid(format!("an id: {error}")))?;
        let peers: Vec<Value> =
            shared.board.with_hub(|hub| ids.iter().map(|id| entry(id, &hub.presence(id))).collect());
        return Ok(ok(&json!({"peers": peers, "next": null})));
    }
    let page = Page::parse(query)?;
    count_list(shared)?;
    let (peers, next) = shared.board.with_hub(|hub| {
        let (peers, next) = page.of(hub.names().map(|peer| (peer.to_string(), peer.clone())));
        let peers: Vec<Value> = peers.iter().map(|(_, peer)| entry(peer, &hub.presence(peer))).collect();
        (peers, next)
    });
    Ok(ok(&json!({"peers": peers, "next": next})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Removal {
    /// The time for which nobody may register the name, in seconds.
    #[serde(default, deserialize_with = "seconds")]
    block_for: Option<u64>,
}

async fn remove(peer: PeerId, body: Incoming, shared: &Shared) -> Result<Reply, ApiError> {
    let Removal { block_for } = order(body).await?;
    let most = MAX_TIME.as_secs();
    if block_for.is_some_and(|time| !(1..=most).contains(&time)) {
        return Err(ApiError::Invalid(format!("block_for is a number of seconds from 1 to {most}")));
    }
    if let Some(time) = block_for {
        shared.board.block(peer.clone(), Duration::from_secs(time));
    }
    // A name can be blocked before anybody registers it.
    match give(shared, Admin::Remove(peer), "peer") {
        Err(ApiError::NotFound(_)) if block_for.is_some() => done(true, "peer"),
        answer => answer,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mute {
    kind: String,
}

async fn mute(peer: PeerId, body: Incoming, shared: &Shared) -> Result<Reply, ApiError> {
    let Mute { kind } = order(body).await?;
    let kind = kind.parse().map_err(|_| ApiError::Invalid("kind is 'audio' or 'video'".into()))?;
    match shared.board.with_hub(|hub| hub.presence(&peer)) {
        Presence::Offline => Err(ApiError::NotFound("peer")),
        Presence::Room(_) => give(shared, Admin::Mute(peer, kind), "peer"),
        // All text of a call is the other peer's.
        Presence::Free | Presence::Call => Err(ApiError::Conflict("the peer is in no room")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApplicationEvent {
    r#type: String,
    #[serde(default)]
    data: serde_json::Map<String, Value>,
}

/// Events that socket.io reserves (socket.io-protocol 5).
const RESERVED: [&str; 4] = ["connect", "connect_error", "disconnect", "disconnecting"];

async fn send(peer: PeerId, body: Incoming, shared: &Shared) -> Result<Reply, ApiError> {
    let body = read_body(body, MAX_DESCRIPTION).await.ok_or(ApiError::TooLong(MAX_DESCRIPTION))?;
    let ApplicationEvent { r#type, data } = parsed(&body)?;
    let is_usual = |c: char| c.is_ascii_alphanumeric() || ":._-".contains(c);
    let is_name = (1..=64).contains(&r#type.len()) && r#type.chars().all(is_usual);
    if !is_name || r#type.starts_with("rtc:") || RESERVED.contains(&r#type.as_str()) {
        let why = "type has 1 to 64 letters, digits, ':', '.', '-' and '_', and is none of ssp's (rtc:) or socket.io's";
        return Err(ApiError::Invalid(why.into()));
    }
    match shared.board.send_event(&peer, &ServerEvent::Other(r#type, data)) {
        None => Err(ApiError::NotFound("peer")),
        Some(false) => {
            Err(ApiError::Conflict("the peer is no endpoint of a pool: its protocol has no events"))
        }
        Some(true) => done(true, "peer"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Move {
    room: String,
}

async fn move_peer(peer: &PeerId, body: Incoming, shared: &Shared) -> Result<Reply, ApiError> {
    let Move { room } = order(body).await?;
    let room: RoomId = room.parse().map_err(|error| ApiError::Invalid(format!("room: {error}")))?;
    match shared.board.move_peer(peer, room) {
        Ok(()) => done(true, "peer"),
        Err(None) => Err(ApiError::NotFound("peer")),
        Err(Some(why)) => Err(ApiError::Conflict(why)),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenOrder {
    /// The time that the token is valid, in seconds.
    #[serde(default, deserialize_with = "seconds")]
    valid: Option<u64>,
    /// The claims besides times.
    #[serde(default)]
    claims: serde_json::Map<String, Value>,
}

async fn make_token(body: Incoming, shared: &Shared) -> Result<Reply, ApiError> {
    let TokenOrder { valid, mut claims } = order(body).await?;
    let live = shared.live();
    let Some(secret) = &live.signing else {
        return Err(ApiError::Conflict("this server has no secret that signs tokens"));
    };
    let valid = valid.unwrap_or(VALID);
    if !(1..=MAX_VALID).contains(&valid) {
        return Err(ApiError::Invalid(format!("valid is a number of seconds from 1 to {MAX_VALID}")));
    }
    if ["exp", "iat", "nbf"].iter().any(|time| claims.contains_key(*time)) {
        return Err(ApiError::Invalid("the times of a token come from 'valid'".into()));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    claims.insert("iat".into(), json!(now));
    claims.insert("exp".into(), json!(now + valid));
    let claims = Value::Object(claims);
    let token =
        token::check(&claims).and_then(|_| token::sign(&claims, secret)).map_err(ApiError::Invalid)?;
    let mut reply = reply(
        StatusCode::CREATED,
        "application/json",
        json!({"token": token, "expires": now + valid}).to_string(),
    );
    let no_store = hyper::header::HeaderValue::from_static("no-store");
    reply.headers_mut().insert(hyper::header::CACHE_CONTROL, no_store);
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_name_each_entry_once_in_order() {
        let all = || ["c", "a", "e", "b", "d"].into_iter().map(|name| (name.to_owned(), ()));
        let (mut after, mut seen) = (String::new(), vec![]);
        loop {
            let (page, next) = Page { after, limit: 2 }.of(all());
            seen.extend(page.into_iter().map(|(name, ())| name));
            match next {
                Some(next) => after = next,
                None => break,
            }
        }
        assert_eq!(seen, ["a", "b", "c", "d", "e"]);
    }

    #[test]
    fn seconds_are_an_integer_in_any_form_of_json() {
        #[derive(Deserialize)]
        struct Order {
            #[serde(default, deserialize_with = "seconds")]
            time: Option<u64>,
        }
        let read = |text: &str| serde_json::from_str::<Order>(text).map(|order| order.time).ok();
        assert_eq!(read("{}"), Some(None));
        for sixty in ["60", "60.0", "6e1", "6.0E1"] {
            assert_eq!(read(&format!("{{\"time\":{sixty}}}")), Some(Some(60)), "{sixty}");
        }
        for wrong in ["null", "1.5", "-1", "1e300", "\"60\"", "[60]"] {
            assert_eq!(read(&format!("{{\"time\":{wrong}}}")), None, "{wrong}");
        }
    }

    #[test]
    fn a_query_is_checked() {
        let page = Page::parse("after=the+attic&limit=7").unwrap();
        assert_eq!((page.after.as_str(), page.limit), ("the attic", 7));
        for wrong in ["limit=0", "limit=101", "limit=x", "limit=-1", "limt=5"] {
            assert!(matches!(Page::parse(wrong), Err(ApiError::Invalid(_))), "{wrong}");
        }
    }
}
