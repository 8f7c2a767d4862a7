//! What a connection may do, as whoever admitted it says.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::protocol::{PeerId, RoomId};

/// See the module. By default everything, and nothing is said of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grant {
    /// The only name that it may take.
    pub name: Option<PeerId>,
    /// The only rooms that it may enter. With some it makes and takes no calls.
    pub rooms: Option<BTreeSet<RoomId>>,
    /// What is said of it from the start.
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
