//! The presence that clients watch: which connection hears of which peers, and what it heard last.
//!
//! Pure: no clock, sockets, files or random numbers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::hub::ConnId;
use crate::protocol::PeerId;
use crate::protocol::hello::{MAX_WATCHED, Presence};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Watches {
    /// By connection: the peers, each with what the connection heard last.
    watched: HashMap<ConnId, BTreeMap<PeerId, Presence>>,
    watchers: HashMap<PeerId, BTreeSet<ConnId>>,
}

impl Watches {
    /// Replaces the peers that a connection watches, each with its presence now.
    pub(super) fn replace(&mut self, conn: ConnId, peers: impl IntoIterator<Item = (PeerId, Presence)>) {
        self.end(conn);
        let watched: BTreeMap<PeerId, Presence> = peers.into_iter().take(MAX_WATCHED).collect();
        for peer in watched.keys() {
            self.watchers.entry(peer.clone()).or_default().insert(conn);
        }
        if !watched.is_empty() {
            self.watched.insert(conn, watched);
        }
    }

    /// Forgets a connection.
    pub(super) fn end(&mut self, conn: ConnId) {
        for peer in self.watched.remove(&conn).unwrap_or_default().into_keys() {
            if let Some(watchers) = self.watchers.get_mut(&peer) {
                watchers.remove(&conn);
                if watchers.is_empty() {
                    self.watchers.remove(&peer);
                }
            }
        }
    }

    /// Returns the peers that a connection watches.
    pub(super) fn watched(&self, conn: ConnId) -> impl Iterator<Item = &PeerId> {
        self.watched.get(&conn).into_iter().flat_map(BTreeMap::keys)
    }

    /// Returns all peers that are watched.
    #[cfg(feature = "engine")]
    pub(super) fn names(&self) -> impl Iterator<Item = &PeerId> {
        self.watchers.keys()
    }

    /// Returns the connections to which the presence of a peer is news; `presence` returns it as a connection may see it.
    pub(super) fn changed(
        &mut self,
        peer: &PeerId,
        presence: impl Fn(ConnId) -> Presence,
    ) -> Vec<(ConnId, Presence)> {
        let mut news = vec![];
        for conn in self.watchers.get(peer).into_iter().flatten() {
            let now = presence(*conn);
            let last = self.watched.get_mut(conn).and_then(|watched| watched.get_mut(peer));
            if last.is_some_and(|last| std::mem::replace(last, now) != now) {
                news.push((*conn, now));
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_hears_of_each_change_once() {
        let [ann, bob] = ["ann", "bob"].map(|name| name.parse::<PeerId>().unwrap());
        let mut watches = Watches::default();
        watches.replace(ConnId(1), [(ann.clone(), Presence::Free), (bob.clone(), Presence::Gone)]);
        watches.replace(ConnId(2), [(ann.clone(), Presence::Gone)]);
        assert_eq!(watches.changed(&ann, |_| Presence::Free), [(ConnId(2), Presence::Free)]);
        assert_eq!(watches.changed(&ann, |_| Presence::Free), []);
        // The second may not see her any more.
        let seen = |conn| if conn == ConnId(2) { Presence::Gone } else { Presence::Free };
        assert_eq!(watches.changed(&ann, seen), [(ConnId(2), Presence::Gone)]);
        watches.replace(ConnId(1), [(ann.clone(), Presence::Free)]);
        assert_eq!(
            (watches.watched(ConnId(1)).collect(), watches.watched(ConnId(9)).count()),
            (vec![&ann], 0)
        );
        assert_eq!(watches.changed(&bob, |_| Presence::Busy), []);
        watches.end(ConnId(1));
        watches.end(ConnId(2));
        assert!(watches.watched.is_empty() && watches.watchers.is_empty());
        let many = (0..MAX_WATCHED + 5).map(|n| (format!("p{n}").parse().unwrap(), Presence::Gone));
        watches.replace(ConnId(3), many);
        assert_eq!(watches.watchers.len(), MAX_WATCHED);
    }
}
