//! Quality of the path to a peer, from transport-wide feedback.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::collections::VecDeque;
use std::time::Duration;

/// A packet: time of sending, time of arrival (`None` if lost) by the peer's clock, and length.
#[derive(Debug, Clone, Copy)]
pub(super) struct PacketFate {
    pub(super) left: Duration,
    pub(super) arrived: Option<Duration>,
    pub(super) bits: u32,
}

/// Observed quality of the path.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct PathState {
    /// Whether losses are due to the path's nature, not to congestion.
    pub(super) is_noisy: bool,
    /// Queueing delay of recent packets.
    pub(super) wait: Duration,
    /// Rate of recent arrivals, in bit/s; `None` if too few packets arrived.
    pub(super) arrived: Option<u32>,
    /// Rate of arrivals while packets last had to queue, in bit/s, which is the path's capacity; `None` if none queued
    /// since the last look.
    pub(super) full: Option<u32>,
}

/// Losses and queueing delay of the path. Losses without a queue are the path's nature, as on radio links, and no sign
/// of congestion; the estimator treats more than 10 % as congestion in any case (draft-ietf-rmcat-gcc-02, 6) and
/// fall to its minimum.
#[derive(Debug, Default)]
pub(super) struct PathQuality {
    /// Minimum transit time in the current and in the previous [`PathQuality::WINDOW`], in ns; it includes the
    /// difference of the two clocks.
    least: [Option<i64>; 2],
    turned: Option<Duration>,
    /// Moving averages over many packets: share of lost ones, and queueing delay of the others in ns.
    lost: f64,
    waits: f64,
    /// Moving average of the queueing delay over few packets, in ns.
    wait: f64,
    /// Arrival times and bits of recent packets.
    arrivals: VecDeque<(Duration, u32)>,
    full: Option<u32>,
}

impl PathQuality {
    /// Range of the loss share that counts as noise. A higher share points to a network that drops excess packets
    /// without queueing them.
    const BORNE: std::ops::RangeInclusive<f64> = 0.03..=0.2;
    /// Queueing delay that occurs by chance, in ns.
    const CHANCE: f64 = 20e6;
    const WINDOW: Duration = Duration::from_secs(10);
    /// Weight of one packet in the averages.
    const WEIGHT: f64 = 0.01;
    const QUICK: f64 = 0.1;
    /// Queueing delay in ns from which there is a queue; the last packets of a frame wait less than that for the first
    /// ones.
    const QUEUE: f64 = 35e6;
    /// Minimum and maximum time span for a rate of arrivals.
    const RATE: [Duration; 2] = [Duration::from_millis(250), Duration::from_millis(500)];
    /// Span within which packets count as arrived at the same time.
    const AT_ONCE: Duration = Duration::from_millis(5);
    /// Maximum number of packets kept: a peer may report that all arrived at once.
    const PACKETS: usize = 4096;

    /// Accepts the fate of a packet.
    pub(super) fn accept(&mut self, PacketFate { left, arrived, bits }: PacketFate) {
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
        // Packets that arrived with the first one belong to the time before the span.
        let within = self.arrivals.iter().filter(|(at, _)| at.saturating_sub(first.0) > Self::AT_ONCE);
        let bits: f64 = within.map(|(_, bits)| f64::from(*bits)).sum();
        (span >= Self::RATE[0]).then(|| (bits / span.as_secs_f64()) as u32)
    }

    /// Returns the quality of the path now.
    pub(super) fn update(&mut self) -> PathState {
        PathState {
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
    fn losses_without_a_queue_are_noise() {
        const MS: Duration = Duration::from_millis(1);
        // Loses `lost` of a thousand packets; the others arrive after `took` ms, by a clock that is an hour ahead.
        let after = |lost: u32, took: &dyn Fn(u32) -> u32| {
            let mut path = PathQuality::default();
            for n in 0..1000_u32 {
                let left = n * 10 * MS;
                let arrives = n * 7919 % 1000 >= lost;
                let arrived = arrives.then(|| left + Duration::from_secs(3600) + took(n) * MS);
                path.accept(PacketFate { left, arrived, bits: 9600 });
            }
            path.update().is_noisy
        };
        let even = |n| 50 + n % 7;
        assert!(after(100, &even));
        assert!(!after(0, &even), "nothing is lost");
        assert!(!after(400, &even), "too much is");
        assert!(!after(100, &|n| 50 + n / 10), "what is lost of a queue that grows is no noise");
    }

    #[test]
    fn the_capacity_of_a_full_path_is_measured_until_its_queue_is_empty() {
        const MS: Duration = Duration::from_millis(1);
        let (mut path, mut free) = (PathQuality::default(), Duration::ZERO);
        assert_eq!(path.update(), PathState::default());
        // Sends 1.2 Mbit/s for two seconds over a path of 1 Mbit/s, then half of that.
        let mut send = |path: &mut PathQuality, from: u32, every: u32, count: u32| {
            for n in 0..count {
                let left = (from + n * every) * MS;
                free = free.max(left) + Duration::from_micros(9600);
                path.accept(PacketFate { left, arrived: Some(free + 50 * MS), bits: 9600 });
            }
        };
        send(&mut path, 0, 8, 250);
        let full = path.update();
        assert!((980_000..1_020_000).contains(&full.arrived.unwrap()), "{full:?}");
        assert_eq!(full.full, full.arrived);
        assert_eq!(path.update().full, None, "nothing since");
        assert!(full.wait > 200 * MS, "{full:?}");
        send(&mut path, 2000, 20, 100);
        let empty = path.update();
        assert!((470_000..490_000).contains(&empty.arrived.unwrap()), "{empty:?}");
        assert!(empty.wait < MS, "{empty:?}");
    }

    #[test]
    fn feedback_with_equal_arrival_times_uses_no_memory() {
        let mut path = PathQuality::default();
        for n in 0..100_000 {
            let left = Duration::from_millis(n);
            path.accept(PacketFate { left, arrived: Some(Duration::ZERO), bits: u32::MAX });
        }
        assert!(path.arrivals.len() <= PathQuality::PACKETS);
        assert_eq!(path.update().arrived, None);
    }
}
