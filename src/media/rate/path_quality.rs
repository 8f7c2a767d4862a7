//! What transport-wide feedback tells of the way to a peer.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::collections::VecDeque;
use std::time::Duration;

/// A packet: when it left, when it arrived, where it did, each by the clock there; and its length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passed {
    pub(super) left: Duration,
    pub(super) arrived: Option<Duration>,
    pub(super) bits: u32,
}

/// What is seen of the way now.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Seen {
    /// What is lost is lost by the network's nature.
    pub(super) is_noisy: bool,
    /// How long packets wait.
    pub(super) wait: Duration,
    /// What arrived of late, in bit/s; none where too little did to tell.
    pub(super) arrived: Option<u32>,
    /// The same when packets had to wait last, where that was since the last look: what the way takes, in bit/s.
    pub(super) full: Option<u32>,
}

/// What transport-wide feedback tells of the way there: what is lost on it, and what waits. Losses while nothing waits are the
/// network's nature, as over radio, and no sign that it is full; the estimator takes more than 10 % for too much in any
/// case (draft-ietf-rmcat-gcc-02, 6), and goes down to nothing.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// The least time over it in this [`Way::WINDOW`] and in the one before, in ns; the clocks at its ends differ.
    least: [Option<i64>; 2],
    turned: Option<Duration>,
    /// Means of the last packets: the share that is lost, and what the others waited in ns.
    lost: f64,
    waits: f64,
    /// The same of the very last ones.
    wait: f64,
    /// When the last ones arrived, and their bits.
    arrivals: VecDeque<(Duration, u32)>,
    full: Option<u32>,
}

impl Way {
    /// The share of losses that is borne; more is a network that polices what comes, without letting it wait.
    const BORNE: std::ops::RangeInclusive<f64> = 0.03..=0.2;
    /// So much packets wait by chance, in ns.
    const CHANCE: f64 = 20e6;
    const WINDOW: Duration = Duration::from_secs(10);
    /// The weight of one packet.
    const WEIGHT: f64 = 0.01;
    const QUICK: f64 = 0.1;
    /// Longer than the last packets of a picture wait for the first: there is a queue.
    const QUEUE: f64 = 35e6;
    /// What arrived within so long at least and at most is what the way takes, where packets wait.
    const RATE: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(500)];
    /// What arrives within that arrives at once.
    const AT_ONCE: Duration = Duration::from_millis(5);
    /// No more packets than that are looked at: a peer may say that all arrived at once.
    const PACKETS: usize = 4096;

    /// Takes what became of a packet.
    pub(super) fn take(&mut self, Passed { left, arrived, bits }: Passed) {
        self.lost += (f64::from(u8::from(arrived.is_none())) - self.lost) * Self::WEIGHT;
        let Some(arrived) = arrived else { return };
        let nanos = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        let took = nanos(arrived).saturating_sub(nanos(left));
        if left.saturating_sub(*self.turned.get_or_insert(left)) > Self::WINDOW {
            self.turned = Some(left);
            self.least = [None, self.least[0]];
        }
        self.least[0] = Some(self.least[0].map_or(took, |least| least.min(took)));
        let least = self.least.into_iter().flatten().min().unwrap_or(took);
        let waited = took.saturating_sub(least) as f64;
        self.waits += (waited - self.waits) * Self::WEIGHT;
        self.wait += (waited - self.wait) * Self::QUICK;
        self.arrivals.push_back((arrived, bits));
        let is_old = |(at, _): &(Duration, u32)| arrived.saturating_sub(*at) > Self::RATE[1];
        while self.arrivals.len() > Self::PACKETS || self.arrivals.front().is_some_and(is_old) {
            self.arrivals.pop_front();
        }
        if self.wait >= Self::QUEUE {
            self.full = self.rate().or(self.full);
        }
    }

    fn rate(&self) -> Option<u32> {
        let (first, last) = self.arrivals.front().zip(self.arrivals.back())?;
        let span = last.0.saturating_sub(first.0);
        // What came first, all at once, came before the span began.
        let within = self.arrivals.iter().filter(|(at, _)| at.saturating_sub(first.0) > Self::AT_ONCE);
        let bits: f64 = within.map(|(_, bits)| f64::from(*bits)).sum();
        (span >= Self::RATE[0]).then(|| (bits / span.as_secs_f64()) as u32)
    }

    /// What is seen of it now.
    pub(super) fn look(&mut self) -> Seen {
        Seen {
            is_noisy: Self::BORNE.contains(&self.lost) && self.waits < Self::CHANCE,
            wait: Duration::from_nanos(self.wait.max(0.0) as u64),
            arrived: self.rate(),
            full: self.full.take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_while_nothing_waits_are_noise() {
        const MS: Duration = Duration::from_millis(1);
        // So many of a thousand are lost; the others take that long, by a clock that is an hour ahead.
        let after = |lost: u32, took: &dyn Fn(u32) -> u32| {
            let mut way = Way::default();
            for n in 0..1000_u32 {
                let left = n * 10 * MS;
                let arrives = n * 7919 % 1000 >= lost;
                let arrived = arrives.then(|| left + Duration::from_secs(3600) + took(n) * MS);
                way.take(Passed { left, arrived, bits: 9600 });
            }
            way.look().is_noisy
        };
        let even = |n| 50 + n % 7;
        assert!(after(100, &even));
        assert!(!after(0, &even), "nothing is lost");
        assert!(!after(400, &even), "too much is");
        assert!(!after(100, &|n| 50 + n / 10), "what is lost of a queue that grows is no noise");
    }

    #[test]
    fn what_a_full_way_takes_is_seen_and_that_it_is_empty_again() {
        const MS: Duration = Duration::from_millis(1);
        let (mut way, mut free) = (Way::default(), Duration::ZERO);
        assert_eq!(way.look(), Seen::default());
        // 1.2 Mbit/s for two seconds through what takes 1 Mbit/s, then half of it.
        let mut send = |way: &mut Way, from: u32, every: u32, count: u32| {
            for n in 0..count {
                let left = (from + n * every) * MS;
                free = free.max(left) + Duration::from_micros(9600);
                way.take(Passed { left, arrived: Some(free + 50 * MS), bits: 9600 });
            }
        };
        send(&mut way, 0, 8, 250);
        let full = way.look();
        assert!((980_000..1_020_000).contains(&full.arrived.unwrap()), "{full:?}");
        assert_eq!(full.full, full.arrived);
        assert_eq!(way.look().full, None, "nothing since");
        assert!(full.wait > 200 * MS, "{full:?}");
        send(&mut way, 2000, 20, 100);
        let empty = way.look();
        assert!((470_000..490_000).contains(&empty.arrived.unwrap()), "{empty:?}");
        assert!(empty.wait < MS, "{empty:?}");
    }

    #[test]
    fn a_peer_that_says_that_all_arrives_at_once_takes_no_memory() {
        let mut way = Way::default();
        for n in 0..100_000 {
            let left = Duration::from_millis(n);
            way.take(Passed { left, arrived: Some(Duration::ZERO), bits: u32::MAX });
        }
        assert!(way.arrivals.len() <= Way::PACKETS);
        assert_eq!(way.look().arrived, None);
    }
}
