//! The permissions of a connection, as the server read them from its token.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::protocol::{PeerId, RoomId};

/// See the module. The default permits everything and has no description.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grant {
    /// The only name that the connection may register; any if none.
    pub name: Option<PeerId>,
    /// The only rooms that the connection may join; any if none. A connection limited to rooms neither calls nor is
    /// called.
    pub rooms: Option<BTreeSet<RoomId>>,
    /// The description of the peer from the start.
    pub description: Value,
}

impl Grant {
    pub(super) fn allows_name(&self, name: &PeerId) -> bool {
        self.name.as_ref().is_none_or(|only| only == name)
    }

    pub(super) fn allows_room(&self, room: &RoomId) -> bool {
        self.rooms.as_ref().is_none_or(|rooms| rooms.contains(room))
    }

    pub(super) fn allows_calls(&self) -> bool {
        self.rooms.is_none()
    }
}
