//! Correction of the bandwidth estimate beside the estimator, and an estimate without transport-wide feedback.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::time::{Duration, Instant};

use super::path_quality::PathState;

/// Estimate from reported losses alone, for peers without transport-wide feedback.
#[derive(Debug)]
pub(super) struct ByLoss {
    rate: u32,
    changed: Option<Instant>,
}

impl ByLoss {
    /// Starts at `rate`, in bit/s.
    pub(super) fn new(rate: u32) -> Self {
        Self { rate, changed: None }
    }

    /// Accepts the loss that the peer reports, in 1/256 (RFC 3550, 6.4.1); returns the estimate, in bit/s and at most
    /// `most`. The estimate changes once a second at most.
    pub(super) fn update(&mut self, now: Instant, lost: u8, most: u32) -> u32 {
        const PAUSE: Duration = Duration::from_secs(1);
        if self.changed.is_some_and(|at| now.saturating_duration_since(at) < PAUSE) {
            return self.rate;
        }
        let share = f64::from(lost) / 256.0;
        // Factors of the loss-based controller of draft-ietf-rmcat-gcc-02, 6.
        let factor = match share {
            share if share > 0.1 => 1.0 - share / 2.0,
            share if share < 0.02 => 1.05,
            _ => 1.0,
        };
        self.changed = Some(now);
        self.rate = (f64::from(self.rate) * factor).min(f64::from(most)) as u32;
        self.rate
    }
}

/// Correction of the estimator, which knows delay trends alone and sends no probes (draft-ietf-rmcat-gcc-02, 5.5):
///
/// - The estimator grows by 8 % a second. After a while without congestion there is more capacity than that, and at the
///   start, before the first congestion, the capacity is unknown: the correction grows in larger steps.
/// - While the path is full, the rate of arriving packets is its capacity. The estimator needs a second to notice, falls
///   for as long as the queue lasts, far below the capacity, and needs many seconds to return. The correction lowers the
///   estimate at once when the queue is long, and raises it back to nearly the capacity once the queue is empty.
#[derive(Debug, Default)]
pub(super) struct Correction {
    last: u32,
    /// Whether the path has shown congestion, which ends the start phase.
    settled: bool,
    /// Time since which the estimate has not fallen and nothing was lost.
    well: Option<Instant>,
    grown: Option<Instant>,
    /// Capacity of the path when it was full last, in bit/s, and the time of that.
    full: Option<(Instant, u32)>,
    /// Whether the estimate has fallen since it was raised back to the capacity.
    fell: bool,
    /// Number of times the estimate was lowered since the queue was empty, and the time of the last one.
    downs: (u32, Option<Instant>),
}

impl Correction {
    /// Time without congestion before the first step up, and pause between two steps.
    const PATIENCE: Duration = Duration::from_secs(5);
    const PAUSE: Duration = Duration::from_secs(1);
    /// The same at the start. A step that is too large shows after a round trip and the estimator's time to detect a
    /// trend.
    const FIRST_PATIENCE: Duration = Duration::from_secs(1);
    const FIRST_PAUSE: Duration = Duration::from_millis(600);
    /// The queue counts as empty up to the first waiting time, and as long from the second on.
    const EMPTY: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_millis(100);
    /// Validity of a measured capacity.
    const MEMORY: Duration = Duration::from_secs(6);
    /// Share of the capacity that the estimate returns to, and is lowered to, in percent; the rest empties the queue.
    const BACK: u32 = 90;
    const DOWN: u32 = 75;
    /// Maximum number of times that the estimate is lowered in a row, and the minimum time between: the first may
    /// answer to packets from before. If packets still wait as long, the queue is not ours.
    const DOWNS: u32 = 2;
    const DOWN_PAUSE: Duration = Duration::from_millis(500);

    /// Accepts the estimate, the path's quality and the loss (in 1/256). Returns the estimate to continue with if it
    /// differs. All rates are in bit/s.
    pub(super) fn update(
        &mut self,
        now: Instant,
        estimate: u32,
        seen: &PathState,
        lost: u8,
        most: u32,
    ) -> Option<u32> {
        let fell = estimate < self.last;
        self.last = estimate;
        self.fell |= fell;
        if fell || lost > 0 {
            (self.well, self.settled) = (None, true);
        }
        let well = now.saturating_duration_since(*self.well.get_or_insert(now));
        if let Some(full) = seen.full {
            self.full = Some((now, full));
        }
        let is_known = |(at, _): &(Instant, u32)| now.saturating_duration_since(*at) < Self::MEMORY;
        let full = self.full.filter(is_known).map(|(_, rate)| rate);
        if seen.wait < Self::EMPTY {
            self.downs.0 = 0;
        }
        let other = match full {
            Some(full) => self.near_full(now, estimate, seen.wait, lost == 0, (full, most)),
            None if fell || lost > 0 || estimate >= most => None,
            // Unused capacity does not show.
            None if seen.arrived.is_none_or(|arrived| arrived < estimate / 2) => None,
            None => self.grow(now, estimate, well).map(|other| other.min(most)),
        };
        self.last = other.unwrap_or(estimate);
        other
    }

    fn near_full(
        &mut self,
        now: Instant,
        estimate: u32,
        wait: Duration,
        is_whole: bool,
        (full, most): (u32, u32),
    ) -> Option<u32> {
        let (back, down) = ((full / 100 * Self::BACK).min(most), full / 100 * Self::DOWN);
        let (downs, last) = self.downs;
        let is_time = last.is_none_or(|at| now.saturating_duration_since(at) >= Self::DOWN_PAUSE);
        if wait >= Self::LONG && estimate > down && downs < Self::DOWNS && is_time {
            self.downs = (downs + 1, Some(now));
            (self.fell, self.well, self.settled) = (true, None, true);
            return Some(down);
        }
        if self.fell && is_whole && wait < Self::EMPTY && estimate < back {
            self.fell = false;
            return Some(back);
        }
        None
    }

    fn grow(&mut self, now: Instant, estimate: u32, well: Duration) -> Option<u32> {
        let (patience, pause, share) = match self.settled {
            true => (Self::PATIENCE, Self::PAUSE, 5),
            false => (Self::FIRST_PATIENCE, Self::FIRST_PAUSE, 3),
        };
        let is_time = self.grown.is_none_or(|at| now.saturating_duration_since(at) >= pause);
        if !is_time || well < patience {
            return None;
        }
        self.grown = Some(now);
        Some(estimate.saturating_add(estimate / share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::rate::estimator::UPDATE_INTERVAL;

    /// Returns the quality of a path without a queue with room for the whole estimate.
    fn clear(estimate: u32) -> PathState {
        PathState { arrived: Some(estimate), ..PathState::default() }
    }

    #[test]
    fn the_estimate_grows_faster_on_a_clear_path() {
        let (mut correction, start) = (Correction::default(), Instant::now());
        let mut estimate = 300_000;
        let mut at = |second: u64, lost, estimate| {
            correction.update(
                start + Duration::from_secs(second),
                estimate,
                &clear(estimate),
                lost,
                1_000_000,
            )
        };
        assert_eq!(at(0, 1, estimate), None, "a loss");
        for second in 1..5 {
            assert_eq!(at(second, 0, estimate), None);
        }
        estimate = at(5, 0, estimate).unwrap();
        assert_eq!(estimate, 360_000);
        assert_eq!(at(6, 1, estimate), None, "a loss");
        assert_eq!(at(10, 0, estimate), None);
        assert_eq!(at(12, 0, estimate - 1), None, "it came down");
        assert_eq!(at(13, 0, estimate), None);
        assert_eq!(at(18, 0, 990_000), Some(1_000_000));
        assert_eq!(at(20, 0, 1_000_000), None, "no more than that");
    }

    #[test]
    fn the_estimate_grows_fast_at_the_start() {
        let (mut correction, start) = (Correction::default(), Instant::now());
        let (mut estimate, mut seen) = (600_000, vec![]);
        for look in 0..20 {
            let now = start + UPDATE_INTERVAL * look;
            if let Some(grown) = correction.update(now, estimate, &clear(estimate), 0, 2_500_000) {
                seen.push((look, grown));
                estimate = grown;
            }
        }
        let steps = [(5, 800_000), (8, 1_066_666), (11, 1_422_221), (14, 1_896_294), (17, 2_500_000)];
        assert_eq!(seen, steps);
        // The capacity is known once the estimate fell.
        for look in 20..40 {
            assert_eq!(
                correction.update(start + UPDATE_INTERVAL * look, 1_000_000, &clear(1_000_000), 0, 2_500_000),
                None
            );
        }
    }

    #[test]
    fn the_estimate_does_not_grow_beyond_what_is_sent() {
        let (mut correction, start) = (Correction::default(), Instant::now());
        for look in 0..100 {
            assert_eq!(
                correction.update(start + UPDATE_INTERVAL * look, 600_000, &clear(200_000), 0, 2_500_000),
                None
            );
        }
        assert!(
            correction
                .update(start + UPDATE_INTERVAL * 100, 600_000, &clear(500_000), 0, 2_500_000)
                .is_some()
        );
    }

    #[test]
    fn the_estimate_returns_to_nearly_the_capacity_once_the_queue_is_empty() {
        let (mut correction, start) = (Correction::default(), Instant::now());
        let mut at = |ms: u64, estimate, wait, full, lost| {
            let seen = PathState { wait: Duration::from_millis(wait), full, ..clear(estimate) };
            correction.update(start + Duration::from_millis(ms), estimate, &seen, lost, 2_500_000)
        };
        assert_eq!(at(0, 1_100_000, 5, None, 0), None);
        assert_eq!(at(200, 1_110_000, 60, Some(1_000_000), 0), None);
        assert_eq!(at(400, 850_000, 80, Some(1_000_000), 0), None);
        assert_eq!(at(600, 600_000, 50, Some(1_000_000), 0), None, "it is full still");
        assert_eq!(at(800, 600_000, 15, None, 3), None, "something was lost");
        assert_eq!(at(1000, 600_000, 15, None, 0), Some(900_000));
        assert_eq!(at(1200, 890_000, 5, None, 0), Some(900_000), "it came down by itself");
        // Near the capacity the estimator's own steps suffice; after a while there may be more.
        let grown: Vec<_> =
            (1400..8000).step_by(200).filter_map(|ms| Some((ms, at(ms, 910_000, 5, None, 0)?))).collect();
        assert_eq!(grown[0], (6600, 1_092_000));
    }

    #[test]
    fn a_long_queue_lowers_the_estimate_at_once_and_not_for_ever() {
        let (mut correction, start) = (Correction::default(), Instant::now());
        let mut at = |ms: u64, estimate, wait, full| {
            let seen = PathState { wait: Duration::from_millis(wait), full, ..clear(estimate) };
            correction.update(start + Duration::from_millis(ms), estimate, &seen, 0, 2_500_000)
        };
        assert_eq!(at(0, 2_000_000, 5, None), None);
        // The capacity is 600 kbit/s now; half of the window arrived before the change.
        assert_eq!(at(200, 2_000_000, 150, Some(1_000_000)), Some(750_000));
        assert_eq!(at(400, 760_000, 250, Some(600_000)), None, "not at once again");
        assert_eq!(at(800, 760_000, 250, Some(600_000)), Some(450_000));
        for ms in (1000..20_000).step_by(200) {
            assert_eq!(at(ms, 500_000, 250, Some(500_000)), None, "it is no queue of ours");
        }
    }

    #[test]
    fn losses_lower_the_rate_which_then_recovers() {
        let (mut by_loss, mut now) = (ByLoss::new(1_000_000), Instant::now());
        assert_eq!(by_loss.update(now, 128, 1_000_000), 750_000);
        assert_eq!(by_loss.update(now, 128, 1_000_000), 750_000, "one report counts once");
        let mut next = |lost| {
            now += Duration::from_secs(1);
            by_loss.update(now, lost, 1_000_000)
        };
        assert_eq!(next(13), 750_000, "5 % is nothing to act on");
        assert_eq!(next(0), 787_500);
        assert_eq!((0..20).map(|_| next(0)).last(), Some(1_000_000));
    }
}
