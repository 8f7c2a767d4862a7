//! Growing, jittered pauses between attempts.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::time::Duration;

/// Computes the pause that follows each failed attempt. The caller supplies the randomness.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Returns a backoff whose pauses double from `first` up to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// Returns the pause before the next attempt. `chance` (0 to 1) shortens the pause by up to one half, to spread the
    /// attempts of many clients.
    pub fn next_pause(&mut self, chance: f64) -> Duration {
        let pause = self.first.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        pause.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0)
    }

    /// Returns whether no attempt has failed since the start or the last [`Backoff::reset`].
    pub fn is_fresh(&self) -> bool {
        self.failures == 0
    }

    /// Restarts at the first pause, after an attempt that succeeded and held.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew_after_a_success() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_secs(30));
        let mut backoff = Backoff::new(first, longest);
        let pauses: Vec<u64> = (0..7).map(|_| backoff.next_pause(0.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(backoff.next_pause(1.0), longest / 2);
        backoff.reset();
        assert_eq!(backoff.next_pause(0.0), first);
        (0..100).for_each(|_| assert!(backoff.next_pause(0.5) <= longest));
    }
}
