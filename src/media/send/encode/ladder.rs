//! Which peers share an encode: at most [`RUNGS`], each at the rate of the slowest on it.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::collections::BTreeMap;

/// The most encodes of one source and codec.
pub const RUNGS: usize = 3;

/// What another encode must be worth: the sum over the peers of ln(allowed / made) that it saves. With 0.25 no
/// peer is slowed by more than 22 % as long as there is a rung left.
const WORTH: f64 = 0.25;

/// What a change must save, or it is not made: each costs a key frame.
const INERTIA: f64 = 0.1;

/// Bounds of a rate, and where it begins, in bit/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// Never less.
    pub least: u32,
    /// As long as nothing is known of the network.
    pub start: u32,
    /// Never more.
    pub most: u32,
    /// A source that is encoded already is passed on where it has no more than that.
    pub passed: u32,
}

impl Rates {
    /// From 50 kbit/s up to that; it begins there.
    pub fn up_to(most: u32) -> Self {
        Self { least: most.min(50_000), start: most, most, passed: most }
    }

    /// Always this one.
    pub fn fixed(rate: u32) -> Self {
        Self { least: rate, start: rate, most: rate, passed: rate }
    }
}

#[derive(Debug, Clone, Copy)]
struct Seat {
    allowed: u32,
    rung: usize,
}

/// The peers of one source and codec, by what the network allows each.
#[derive(Debug)]
pub struct Ladder {
    rates: Rates,
    seats: BTreeMap<u64, Seat>,
    next: u64,
}

impl Ladder {
    /// Nobody yet.
    pub fn new(rates: Rates) -> Self {
        Self { rates, seats: BTreeMap::new(), next: 0 }
    }

    /// Somebody comes, with the rate to start from; on the rung whose rate is next to it, or on the first.
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

    /// Somebody goes.
    pub fn leave(&mut self, id: u64) {
        self.seats.remove(&id);
        self.regroup();
    }

    /// The network allows somebody so much, in bit/s.
    pub fn allow(&mut self, id: u64, rate: u32) {
        let rate = rate.clamp(self.rates.least, self.rates.most);
        if let Some(seat) = self.seats.get_mut(&id) {
            seat.allowed = rate;
            self.regroup();
        }
    }

    /// The rung of somebody; the first for who is not there.
    pub fn rung(&self, id: u64) -> usize {
        self.seats.get(&id).map_or(0, |seat| seat.rung)
    }

    /// What is made on a rung, in bit/s: as much as the slowest on it may have.
    pub fn rate(&self, rung: usize) -> u32 {
        self.made(rung).unwrap_or(self.rates.start)
    }

    fn made(&self, rung: usize) -> Option<u32> {
        self.seats.values().filter(|seat| seat.rung == rung).map(|seat| seat.allowed).min()
    }

    /// What a grouping loses: the encodes, and what the peers could have and do not get.
    fn loss(&self, rung_of: impl Fn(u64) -> usize) -> f64 {
        let mut groups: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        self.seats.iter().for_each(|(id, seat)| groups.entry(rung_of(*id)).or_default().push(seat.allowed));
        groups.values().map(|allowed| WORTH + slowed(allowed)).sum()
    }

    /// Takes the best grouping, where it is better enough than the one that is.
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

    /// Gives groups the rungs that most of them are on already.
    fn named(&self, mut groups: Vec<Vec<u64>>) -> BTreeMap<u64, usize> {
        groups.sort_by_key(|group| std::cmp::Reverse(group.len()));
        let mut free: Vec<usize> = (0..RUNGS).collect();
        let mut rungs = BTreeMap::new();
        for group in groups {
            let here = |rung: &usize| group.iter().filter(|id| self.rung(**id) == *rung).count();
            // The first of equals.
            let Some(rung) = free.iter().copied().rev().max_by_key(here) else { break };
            free.retain(|other| *other != rung);
            rungs.extend(group.into_iter().map(|id| (id, rung)));
        }
        rungs
    }
}

/// How much those of a group are slowed by its slowest.
fn slowed(allowed: &[u32]) -> f64 {
    let least = allowed.iter().min().copied().unwrap_or(1).max(1);
    allowed.iter().map(|rate| (f64::from((*rate).max(1)) / f64::from(least)).ln()).sum()
}

/// The best of all ways to cut the peers, slowest first, into at most [`RUNGS`] groups.
fn best_groups(order: &[(u32, u64)]) -> Vec<Vec<u64>> {
    let allowed: Vec<u32> = order.iter().map(|(rate, _)| *rate).collect();
    // best[n]: of the first n peers, the loss and where the groups begin.
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
    fn one_alone_stays_on_its_rung_and_is_followed() {
        let mut ladder = Ladder::new(RATES);
        let id = ladder.enter();
        assert_eq!((ladder.rung(id), ladder.rate(0)), (0, 1_000_000));
        for (allowed, made) in [(300_000, 300_000), (1, 50_000), (9_000_000, 2_000_000), (0, 50_000)] {
            ladder.allow(id, allowed);
            assert_eq!((ladder.rung(id), ladder.rate(0)), (0, made));
        }
    }

    #[test]
    fn equals_share_one_encode_and_a_slow_one_gets_its_own() {
        let mut ladder = Ladder::new(RATES);
        let ids: Vec<u64> = (0..5).map(|_| ladder.enter()).collect();
        ids.iter().for_each(|id| ladder.allow(*id, 2_000_000));
        let fast = ladder.rung(ids[0]);
        assert!(ids.iter().all(|id| ladder.rung(*id) == fast) && ladder.rate(fast) == 2_000_000);
        ladder.allow(ids[2], 200_000);
        let slow = ladder.rung(ids[2]);
        assert!(slow != fast && ladder.rate(slow) == 200_000 && ladder.rate(fast) == 2_000_000);
        // A small difference is not worth an encode, and one that is gone is given up again.
        ladder.allow(ids[2], 1_950_000);
        assert!(ids.iter().all(|id| ladder.rung(*id) == fast));
        assert_eq!(ladder.rate(fast), 1_950_000);
        ladder.leave(ids[2]);
        assert_eq!(ladder.rate(fast), 2_000_000);
    }

    proptest! {
        /// Whatever the network allows and whoever comes and goes: nobody gets more than is allowed, at most three
        /// encodes are made, and as long as one is left nobody is slowed by more than a third.
        #[test]
        fn a_slow_one_does_not_slow_a_fast_one(
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
