//! Growing, jittered pauses between attempts to reach a server.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);

/// Counts attempts; give it chance from outside.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause before the next attempt: doubling from 250 ms to 30 s, of which `chance` (0 to 1)
    /// takes away up to a half, so that clients of a server that restarts do not come all at once.
    pub fn next_pause(&mut self, chance: f64) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures += 1;
        pause.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0)
    }

    /// An attempt succeeded.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..9).map(|_| backoff.next_pause(0.0).as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        assert_eq!(backoff.next_pause(1.0), LONGEST / 2);
        backoff.reset();
        assert_eq!(backoff.next_pause(0.0), FIRST);
        (0..100).for_each(|_| assert!(backoff.next_pause(0.5) <= LONGEST));
    }
}
