//! A page of the list of rooms with their peers, as the API without a version returns it.
//!
//! Pure: no clock, sockets, files or random numbers.

use serde_json::{Value, json};

use super::codec::descriptions::text_length;
use crate::protocol::PeerId;

/// The most bytes of peers in one page of rooms, except for a page with a single peer.
const PAGE: usize = 512 * 1024;

/// A place in the list of rooms: behind this peer of this room.
#[derive(Debug, Clone, Default)]
pub(super) struct After {
    pub(super) room: String,
    pub(super) peer: String,
}

/// Returns the rooms behind the place `after`, sorted by name, with their peers (sorted by id) and descriptions; and the
/// place where the next page begins, if there is one.
pub(super) fn page(
    all: impl Iterator<Item = (String, Vec<PeerId>)>,
    after: &After,
    describe: impl Fn(&PeerId) -> Value,
) -> (Value, Option<After>) {
    let mut all: Vec<_> = all.filter(|(name, _)| *name >= after.room).collect();
    all.sort();
    let (mut rooms, mut bytes, mut last) = (vec![], 0, after.clone());
    for (name, mut peers) in all {
        peers.sort_by_key(PeerId::to_string);
        // The room that ended the previous page contributes only its remaining peers.
        let is_rest = name == after.room;
        let mut page_peers = vec![];
        for id in peers.into_iter().filter(|id| !is_rest || id.to_string() > after.peer) {
            let peer = json!({"description": describe(&id), "id": id.to_string()});
            bytes += text_length(&peer);
            if bytes > PAGE && !(rooms.is_empty() && page_peers.is_empty()) {
                if !page_peers.is_empty() {
                    rooms.push(json!({"room": name, "peers": page_peers}));
                }
                return (rooms.into(), Some(last));
            }
            last = After { room: name.clone(), peer: id.to_string() };
            page_peers.push(peer);
        }
        if !page_peers.is_empty() {
            rooms.push(json!({"room": name, "peers": page_peers}));
        }
    }
    (rooms.into(), None)
}
