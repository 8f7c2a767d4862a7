//! The times at which a key set is read again.
//!
//! Pure: no clock, sockets, files or random numbers.

use std::time::{Duration, Instant};

/// The age at which a key set is read again.
const REFRESH: Duration = Duration::from_secs(600);
/// The pause after an attempt, successful or not, before the next one for an unknown key or after a failure.
const PAUSE: Duration = Duration::from_secs(30);
/// The age at which a key set that could not be read again is not used any more.
const KEEP: Duration = Duration::from_secs(24 * 3600);

/// The times of the last attempts to read a key set.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Freshness {
    success: Option<Instant>,
    attempt: Option<Instant>,
}

impl Freshness {
    /// Records an attempt to read the set.
    pub(super) fn record(&mut self, now: Instant, is_success: bool) {
        self.attempt = Some(now);
        if is_success {
            self.success = Some(now);
        }
    }

    /// Returns whether the last attempt succeeded.
    pub(super) fn is_current(&self) -> bool {
        self.success.is_some() && self.success == self.attempt
    }

    /// Returns the time of the next regular attempt; none for at once.
    pub(super) fn next(&self) -> Option<Instant> {
        Some(self.attempt? + if self.is_current() { REFRESH } else { PAUSE })
    }

    /// Returns whether an unknown key is a reason to read the set now.
    pub(super) fn may_retry(&self, now: Instant) -> bool {
        self.attempt.is_none_or(|attempt| now >= attempt + PAUSE)
    }

    /// Returns whether the set is young enough to be used.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        self.success.is_some_and(|success| now < success + KEEP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_read_every_10_minutes_and_30_s_after_a_failure() {
        let start = Instant::now();
        let mut freshness = Freshness::default();
        assert!(freshness.next().is_none() && freshness.may_retry(start) && !freshness.is_usable(start));
        freshness.record(start, true);
        assert!(freshness.is_current());
        assert_eq!(freshness.next(), Some(start + REFRESH));
        freshness.record(start + REFRESH, false);
        assert!(!freshness.is_current());
        assert_eq!(freshness.next(), Some(start + REFRESH + PAUSE));
        // The last set that was read stays in use for a day.
        assert!(freshness.is_usable(start + KEEP - PAUSE) && !freshness.is_usable(start + KEEP));
    }

    #[test]
    fn unknown_keys_cause_at_most_one_attempt_in_30_s() {
        let start = Instant::now();
        for is_success in [true, false] {
            let mut freshness = Freshness::default();
            freshness.record(start, is_success);
            assert!(!freshness.may_retry(start + PAUSE - Duration::from_millis(1)));
            assert!(freshness.may_retry(start + PAUSE));
        }
    }
}
