//! The claims of a token, as permissions.
//!
//! Pure: no clock, sockets, files or random numbers.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use crate::hub::{Calls, Grant, Moderates, Rooms};
use crate::protocol::{PeerId, RoomId};

/// The latest time that a token may contain, in seconds since 1970: the largest interoperable integer of JSON (RFC
/// 8259, 6).
const LATEST: f64 = 9_007_199_254_740_991.0;

/// The claims of a token other than its times (`exp`, which is required, `nbf` and `iat`), audience and issuer.
#[derive(Debug, Deserialize)]
struct Claims {
    /// The only id that the client may register.
    sub: Option<String>,
    /// The only rooms or pools that the client may join.
    rooms: Option<Vec<String>>,
    /// Beginnings of the names of further rooms that it may join. A claim of its own: a name in `rooms` may come from a
    /// user, who must not widen the token.
    room_prefixes: Option<Vec<String>>,
    /// Whether the client may call and be called, or the only peers of such calls.
    calls: Option<CallsClaim>,
    /// Whether lists of callable peers leave the client out.
    #[serde(default)]
    hidden: bool,
    /// Whether the client may create a room by joining it.
    create: Option<bool>,
    /// Whether the client may moderate the rooms that it is in, or the only rooms that it may moderate.
    moderate: Option<ModerateClaim>,
    /// The description that other members of the room receive.
    #[serde(default)]
    description: Value,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum CallsClaim {
    All(bool),
    Peers(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ModerateClaim {
    All(bool),
    Rooms(Vec<String>),
}

/// Converts the claims of an authentic token to permissions; the error is a text for the bearer.
pub(super) fn grant(claims: Value) -> Result<Grant, String> {
    // The library ignores a time that it cannot parse (CVE-2026-25537).
    for key in ["exp", "nbf", "iat"] {
        let is_time = |time: &Value| time.as_f64().is_some_and(|time| (0.0..=LATEST).contains(&time));
        if claims.get(key).is_some_and(|time| !is_time(time)) {
            return Err(format!("its {key} is not a time: a number of seconds since 1970 is required"));
        }
    }
    let claims: Claims = serde_json::from_value(claims).map_err(|error| error.to_string())?;
    let id = |text: &str| PeerId::from_foreign(text).map_err(|error| format!("its sub: {error}"));
    let rooms = rooms(claims.rooms, claims.room_prefixes)?;
    Ok(Grant {
        name: claims.sub.as_deref().map(id).transpose()?,
        // A client that is limited to rooms does not call, unless its token says so.
        calls: calls(claims.calls, rooms.is_none())?,
        rooms,
        is_hidden: claims.hidden,
        creates_rooms: claims.create.unwrap_or(true),
        moderates: moderates(claims.moderate)?,
        description: claims.description,
    })
}

fn rooms(names: Option<Vec<String>>, prefixes: Option<Vec<String>>) -> Result<Option<Rooms>, String> {
    if names.is_none() && prefixes.is_none() {
        return Ok(None);
    }
    let name =
        |text: String| RoomId::from_foreign(&text).map_err(|error| format!("one of its rooms: {error}"));
    // In the form in which names are stored.
    let prefix = |text: String| match RoomId::from_foreign(&text) {
        Ok(prefix) => Ok(prefix.as_str().to_owned()),
        Err(error) => Err(format!("one of its room_prefixes: {error}")),
    };
    Ok(Some(Rooms {
        names: names.unwrap_or_default().into_iter().map(name).collect::<Result<_, _>>()?,
        prefixes: prefixes.unwrap_or_default().into_iter().map(prefix).collect::<Result<_, _>>()?,
    }))
}

fn moderates(claim: Option<ModerateClaim>) -> Result<Moderates, String> {
    let rooms = match claim {
        None | Some(ModerateClaim::All(false)) => return Ok(Moderates::None),
        Some(ModerateClaim::All(true)) => return Ok(Moderates::All),
        Some(ModerateClaim::Rooms(rooms)) => rooms,
    };
    let room =
        |text: &String| RoomId::from_foreign(text).map_err(|error| format!("one of its moderate: {error}"));
    rooms.iter().map(room).collect::<Result<_, _>>().map(Moderates::Rooms)
}

fn calls(claim: Option<CallsClaim>, otherwise: bool) -> Result<Calls, String> {
    let peers = match claim {
        None if otherwise => return Ok(Calls::All),
        Some(CallsClaim::All(true)) => return Ok(Calls::All),
        None | Some(CallsClaim::All(false)) => return Ok(Calls::None),
        Some(CallsClaim::Peers(peers)) => peers,
    };
    let peer =
        |text: &String| PeerId::from_foreign(text).map_err(|error| format!("one of its calls: {error}"));
    peers.iter().map(peer).collect::<Result<BTreeSet<_>, _>>().map(Calls::Peers)
}
