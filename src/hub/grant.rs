//! The permissions of a connection, as the server read them from its token.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::moderation::Moderates;
use crate::protocol::{PeerId, RoomId};

/// See the module. The default permits everything and has no description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The only name that the connection may register; any if none.
    pub name: Option<PeerId>,
    /// The only rooms that the connection may join; any if none.
    pub rooms: Option<Rooms>,
    /// The peers that the connection may call and be called by.
    pub calls: Calls,
    /// Whether lists of peers that can be called leave the connection out.
    pub is_hidden: bool,
    /// Whether the connection creates a room by joining it.
    pub creates_rooms: bool,
    /// The rooms that the connection may moderate.
    pub moderates: Moderates,
    /// The description of the peer from the start.
    pub description: Value,
}

/// A set of rooms.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rooms {
    /// Rooms by their names.
    pub names: BTreeSet<RoomId>,
    /// Rooms whose name begins with one of these texts.
    pub prefixes: Vec<String>,
}

/// The peers that a connection may call and be called by.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Calls {
    /// All peers.
    #[default]
    All,
    /// Only these peers: no other peer exists for the connection outside its rooms.
    Peers(BTreeSet<PeerId>),
    /// None: the connection is visible only to the peers in its room, and sees only those.
    None,
}

impl Default for Grant {
    fn default() -> Self {
        Self {
            name: None,
            rooms: None,
            calls: Calls::All,
            is_hidden: false,
            creates_rooms: true,
            moderates: Moderates::None,
            description: Value::Null,
        }
    }
}

impl Grant {
    pub(super) fn allows_name(&self, name: &PeerId) -> bool {
        self.name.as_ref().is_none_or(|only| only == name)
    }

    pub(super) fn allows_room(&self, room: &RoomId) -> bool {
        self.rooms.as_ref().is_none_or(|rooms| rooms.contains(room))
    }
}

impl Rooms {
    /// Returns whether a room is one of them.
    pub fn contains(&self, room: &RoomId) -> bool {
        let begins = |prefix: &String| room.as_str().starts_with(prefix.as_str());
        self.names.contains(room) || self.prefixes.iter().any(begins)
    }
}

impl Calls {
    /// Returns whether a call with this peer is allowed, in either direction.
    pub(super) fn allow(&self, peer: &PeerId) -> bool {
        match self {
            Self::All => true,
            Self::Peers(peers) => peers.contains(peer),
            Self::None => false,
        }
    }
}
