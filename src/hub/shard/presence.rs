//! Presence of the peers of other shards that clients of this one watch. The engine reports no changes of peers, so that the
//! shard reads them again and again.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Shard;
use super::data::{Key, Place};
use super::jobs::{Job, Plan, Seen};
use super::plan::{Reads, read};
use crate::hub::ConnId;
use crate::protocol::PeerId;

/// The most peers that are read; further ones count as gone.
const LOOKED: usize = 2_000;
/// The most peers that one transaction reads: each may have a description of 64 KiB.
const PORTION: usize = 50;

impl Shard {
    /// Reads where these peers are; [`Shard::poll_looked`] returns each when it is known. Does nothing while earlier reads are
    /// under way.
    pub fn look(&mut self, now: Instant, names: BTreeSet<PeerId>) {
        if self.looking > 0 {
            return;
        }
        self.seen.retain(|name, _| names.contains(name));
        let names: Vec<PeerId> = names.into_iter().take(LOOKED).collect();
        for portion in names.chunks(PORTION) {
            self.looking += 1;
            self.jobs.push_back((now, Job::Look { names: portion.to_vec() }));
        }
        self.advance(now);
    }

    pub(super) fn plan_look(&mut self, names: &[PeerId], reads: Reads<'_>) -> Plan {
        if reads.0.is_none() {
            return read(names.iter().map(Key::peer));
        }
        for name in names {
            match reads.peer(name).flatten() {
                Some((_, record)) => {
                    let is_free = record.place == Place::Lobby;
                    let seen = Seen { is_free, is_hidden: record.is_hidden, calls: record.calls };
                    self.seen.insert(name.clone(), seen);
                }
                None => drop(self.seen.remove(name)),
            }
            self.looked.push_back(name.clone());
        }
        self.looking -= 1;
        Plan::Done
    }

    /// Returns the next peer that was read, if there is one.
    pub fn poll_looked(&mut self) -> Option<PeerId> {
        self.looked.pop_front()
    }

    /// Returns whether a peer that was read last is free, as far as an own connection may see it; none if it is gone.
    pub fn sees(&self, conn: ConnId, name: &PeerId) -> Option<bool> {
        let seen = self.seen.get(name).filter(|seen| !seen.is_hidden)?;
        let own = self.hub.name(conn)?;
        let may = seen.calls.allow(&own) && self.hub.may(conn, |grant| grant.calls.allow(name));
        may.then_some(seen.is_free)
    }
}
