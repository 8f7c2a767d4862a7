//! Whether a peer is sent an encoded source as it is.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::time::{Duration, Instant};

/// What the network lets through for one peer, beside what the source takes. It is passed on to begin with; not any more
/// when too little has been allowed for a while; and again when there is room.
#[derive(Debug, Default)]
pub(super) struct Pass {
    is_off: bool,
    /// Since when it should be the other way.
    since: Option<Instant>,
}

impl Pass {
    /// So much too little is borne: what a source takes is not always the same.
    const TOO_LITTLE: f64 = 0.9;
    const ROOM: f64 = 1.2;
    const PATIENCE: Duration = Duration::from_secs(1);

    /// Takes what is allowed and what the source takes, in bit/s; whether it is passed on from now on.
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

    /// Whether it is passed on.
    pub(super) fn is_on(&self) -> bool {
        !self.is_off
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_with_a_network_that_stays_narrow_and_comes_back_with_one_that_stays_wide() {
        let (mut pass, start) = (Pass::default(), Instant::now());
        let mut at = |ms, allowed| pass.update(start + Duration::from_millis(ms), allowed, 1_000_000);
        assert!(at(0, 1_000_000) && at(200, 950_000));
        assert!(at(400, 500_000) && at(800, 500_000) && at(1000, 950_000), "not for a moment");
        assert!(at(1200, 500_000) && !at(2200, 500_000));
        assert!(!at(2400, 1_100_000) && !at(5000, 1_100_000), "with room alone");
        assert!(!at(6000, 1_300_000) && at(7000, 1_300_000));
    }
}
