//! Grouping of the peers on at most [`RUNGS`] encoders, each at the rate of its slowest peer.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::collections::BTreeMap;

/// Maximum number of encoders of one source and codec.
pub const RUNGS: usize = 3;

/// Minimum gain of another encoder: the sum over the peers of ln(allowed / made) that it saves. With 0.25 no peer is
/// slowed by more than 22 % while a rung is free.
const WORTH: f64 = 0.25;

/// Minimum gain of a regrouping, because each costs a key frame.
const INERTIA: f64 = 0.1;

/// Bounds and initial value of a bitrate, in bit/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Minimum.
    pub least: u32,
    /// Value until the network is known.
    pub start: u32,
    /// Maximum.
    pub most: u32,
    /// Maximum of an encoded source that passes through.
    pub passed: u32,
}

impl Rates {
    /// Returns rates from 50 kbit/s to `most`, starting at `most`.
    pub fn up_to(most: u32) -> Self {
        Self { least: most.min(50_000), start: most, most, passed: most }
    }

    /// Returns a constant rate.
    pub fn fixed(rate: u32) -> Self {
        Self { least: rate, start: rate, most: rate, passed: rate }
    }
}

#[derive(Debug, Clone, Copy)]
struct Seat {
    allowed: u32,
    rung: usize,
}

/// Peers that receive one codec of one source, by the rate that the network allows each.
#[derive(Debug)]
pub struct Ladder {
    rates: Rates,
    seats: BTreeMap<u64, Seat>,
    next: u64,
}

impl Ladder {
    /// Creates a ladder without peers.
    pub fn new(rates: Rates) -> Self {
        Self { rates, seats: BTreeMap::new(), next: 0 }
    }

    /// Adds a peer with the initial rate, on the rung with the nearest rate; returns the peer's number.
    pub fn enter(&mut self) -> u64 {
        let id = self.next;
        self.next += 1;
        let allowed = self.rates.start;
        let near = |rung: &usize| self.made(*rung).map_or(u32::MAX, |rate| rate.abs_diff(allowed));
        let rung = (0..RUNGS).filter(|rung| self.made(*rung).is_some()).min_by_key(near).unwrap_or(0);
        self.seats.insert(id, Seat { allowed, rung });
        self.regroup();
        id
    }

    /// Removes a peer.
    pub fn leave(&mut self, id: u64) {
        self.seats.remove(&id);
        self.regroup();
    }

    /// Sets the rate that the network allows a peer, in bit/s.
    pub fn allow(&mut self, id: u64, rate: u32) {
        let rate = rate.clamp(self.rates.least, self.rates.most);
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.allowed = rate;
            self.regroup();
        }
    }

    /// Returns the rung of a peer; the first one for an unknown peer.
    pub fn rung(&self, id: u64) -> usize {
        self.seats.get(&id).map_or(0, |seat| seat.rung)
    }

    /// Returns the rate of a rung, in bit/s: the lowest that a peer on it is allowed.
    pub fn rate(&self, rung: usize) -> u32 {
        self.made(rung).unwrap_or(self.rates.start)
    }

    fn made(&self, rung: usize) -> Option<u32> {
        self.seats.values().filter(|seat| seat.rung == rung).map(|seat| seat.allowed).min()
    }

    /// Returns the cost of a grouping: its encoders, and the rate that peers are allowed and do not get.
    fn loss(&self, rung_of: impl Fn(u64) -> usize) -> f64 {
        let mut groups: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        self.seats.iter().for_each(|(id, seat)| groups.entry(rung_of(*id)).or_default().push(seat.allowed));
        groups.values().map(|allowed| WORTH + slowed(allowed)).sum()
    }

    /// Changes to the best grouping if it is better than the present one by [`INERTIA`].
    fn regroup(&mut self) {
        let mut order: Vec<(u32, u64)> = self.seats.iter().map(|(id, seat)| (seat.allowed, *id)).collect();
        order.sort_unstable();
        let best = self.named(best_groups(&order));
        let there = self.loss(|id| self.rung(id));
        if self.loss(|id| best[&id]) + INERTIA < there {
            for (id, seat) in &mut self.seats {
                seat.rung = best[id];
            }
        }
    }

    /// Assigns groups to the rungs that most of their peers are on already.
    fn named(&self, mut groups: Vec<Vec<u64>>) -> BTreeMap<u64, usize> {
        groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
        let mut free: Vec<usize> = (0..RUNGS).collect();
        let mut rungs = BTreeMap::new();
        for group in groups {
            let here = |rung: &usize| group.iter().filter(|id| self.rung(**id) == *rung).count();
            // `max_by_key` returns the last of equals, and the first is wanted.
            let Some(rung) = free.iter().copied().rev().max_by_key(here) else { break };
            free.retain(|other| *other != rung);
            rungs.extend(group.into_iter().map(|id| (id, rung)));
        }
        rungs
    }
}

/// Returns by how much a group's slowest peer slows the others.
fn slowed(allowed: &[u32]) -> f64 {
    let least = allowed.iter().min().copied().unwrap_or(1).max(1);
    allowed.iter().map(|rate| (f64::from((*rate).max(1)) / f64::from(least)).ln()).sum()
}

/// Returns the best division of the peers, ordered by rate, into at most [`RUNGS`] groups.
fn best_groups(order: &[(u32, u64)]) -> Vec<Vec<u64>> {
    let allowed: Vec<u32> = order.iter().map(|(rate, _)| *rate).collect();
    // best[n]: cost and group starts of the first n peers.
    let mut best: Vec<Option<(f64, Vec<usize>)>> = vec![None; order.len() + 1];
    best[0] = Some((0.0, vec![]));
    for _ in 0..RUNGS {
        let before = best.clone();
        for end in 1..=order.len() {
            for begin in 0..end {
                let Some((loss, starts)) = &before[begin] else { continue };
                let loss = loss + WORTH + slowed(&allowed[begin..end]);
                if best[end].as_ref().is_none_or(|(least, _)| loss < *least) {
                    let mut starts = starts.clone();
                    starts.push(begin);
                    best[end] = Some((loss, starts));
                }
            }
        }
    }
    let Some((_, starts)) = best.pop().flatten() else { return vec![] };
    let ends = starts.iter().skip(1).copied().chain([order.len()]);
    let groups = starts.iter().zip(ends);
    groups.map(|(begin, end)| order[*begin..end].iter().map(|(_, id)| *id).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATES: Rates = Rates { least: 50_000, start: 1_000_000, most: 2_000_000, passed: 2_000_000 };

    #[test]
    fn a_lone_peer_stays_on_its_rung_which_follows_its_rate() {
        let mut ladder = Ladder::new(RATES);
        let id = ladder.enter();
        assert_eq!((ladder.rung(id), ladder.rate(0)), (0, 1_000_000));
        for (allowed, made) in [(300_000, 300_000), (1, 50_000), (9_000_000, 2_000_000), (0, 50_000)] {
            ladder.allow(id, allowed);
            assert_eq!((ladder.rung(id), ladder.rate(0)), (0, made));
        }
    }

    #[test]
    fn equal_peers_share_an_encoder_and_a_slow_one_gets_its_own() {
        let mut ladder = Ladder::new(RATES);
        let ids: Vec<u64> = (0..5).map(|_| ladder.enter()).collect();
        ids.iter().for_each(|id| ladder.allow(*id, 2_000_000));
        let fast = ladder.rung(ids[0]);
        assert!(ids.iter().all(|id| ladder.rung(*id) == fast) && ladder.rate(fast) == 2_000_000);
        ladder.allow(ids[2], 200_000);
        let slow = ladder.rung(ids[2]);
        assert!(slow != fast && ladder.rate(slow) == 200_000 && ladder.rate(fast) == 2_000_000);
        // A small difference is not worth an encoder, and an encoder that is no longer worth it stops.
        ladder.allow(ids[2], 1_950_000);
        assert!(ids.iter().all(|id| ladder.rung(*id) == fast));
        assert_eq!(ladder.rate(fast), 1_950_000);
        ladder.leave(ids[2]);
        assert_eq!(ladder.rate(fast), 2_000_000);
    }

    proptest! {
        /// For arbitrary rates, arrivals and departures: no peer gets more than is allowed, at most three encoders run,
        /// and while a rung is free no peer is slowed by more than a third.
        #[test]
        fn a_slow_peer_does_not_slow_a_fast_one(
            steps in prop::collection::vec((0..3_u8, 0..12_usize, any::<u32>(), 1..100_u32), 1..80)
        ) {
            let mut ladder = Ladder::new(RATES);
            let mut there: Vec<u64> = vec![];
            for (what, who, rate, share) in steps {
                match what {
                    0 => there.push(ladder.enter()),
                    1 if !there.is_empty() => ladder.leave(there.remove(who % there.len())),
                    _ if !there.is_empty() => {
                        let rate = if share < 50 { rate } else { RATES.most / 100 * share };
                        ladder.allow(there[who % there.len()], rate);
                    }
                    _ => {}
                }
                let used: std::collections::BTreeSet<usize> = there.iter().map(|id| ladder.rung(*id)).collect();
                prop_assert!(used.iter().all(|rung| *rung < RUNGS));
                for id in &there {
                    let (allowed, made) = (ladder.seats[id].allowed, ladder.rate(ladder.rung(*id)));
                    prop_assert!(made <= allowed && made >= RATES.least);
                    prop_assert!(used.len() == RUNGS || f64::from(made) > f64::from(allowed) * 0.66);
                }
            }
        }
    }
}
