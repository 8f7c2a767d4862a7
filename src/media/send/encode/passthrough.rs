//! Decision whether a peer gets an encoded source unchanged.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::time::{Duration, Instant};

/// Passthrough for one peer. It is on at first, ends when the estimate has been too low for a while, and resumes when
/// there is room.
#[derive(Debug, Default)]
pub(super) struct Passthrough {
    is_off: bool,
    /// Time since which the opposite decision would be right.
    since: Option<Instant>,
}

impl Passthrough {
    /// Ratio of estimate and source rate below which passthrough ends. It is below 1, because a source's rate varies.
    const TOO_LITTLE: f64 = 0.9;
    const ROOM: f64 = 1.2;
    const PATIENCE: Duration = Duration::from_secs(1);

    /// Accepts the bandwidth estimate and the source's rate, in bit/s; returns whether passthrough is on.
    pub(super) fn update(&mut self, now: Instant, allowed: u32, rate: u32) -> bool {
        let share = f64::from(allowed) / f64::from(rate.max(1));
        let is_wrong = if self.is_off { share > Self::ROOM } else { share < Self::TOO_LITTLE };
        if !is_wrong {
            self.since = None;
        } else if now.saturating_duration_since(*self.since.get_or_insert(now)) >= Self::PATIENCE {
            (self.is_off, self.since) = (!self.is_off, None);
        }
        self.is_on()
    }

    /// Returns whether passthrough is on.
    pub(super) fn is_on(&self) -> bool {
        !self.is_off
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passthrough_stops_on_a_narrow_path_and_resumes_on_a_wide_one() {
        let (mut pass, start) = (Passthrough::default(), Instant::now());
        let mut at = |ms, allowed| pass.update(start + Duration::from_millis(ms), allowed, 1_000_000);
        assert!(at(0, 1_000_000) && at(200, 950_000));
        assert!(at(400, 500_000) && at(800, 500_000) && at(1000, 950_000), "not for a moment");
        assert!(at(1200, 500_000) && !at(2200, 500_000));
        assert!(!at(2400, 1_100_000) && !at(5000, 1_100_000), "with room alone");
        assert!(!at(6000, 1_300_000) && at(7000, 1_300_000));
    }
}
