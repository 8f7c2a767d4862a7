//! The number of messages that one read of the inbox asks for. A backlog over a slow network is read in smaller portions, so
//! that each arrives in time.
//!
//! Pure: no clock, sockets, files or random numbers.

use std::time::Duration;

/// The most messages that are read at once.
const MOST: usize = 200;
/// The divisor of a portion that did not arrive in time.
const SMALLER: usize = 4;
/// The longest time of a read after which the next one asks for twice as many messages.
const QUICK: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Portion(usize);

impl Default for Portion {
    fn default() -> Self {
        Self(MOST)
    }
}

impl Portion {
    /// Returns the number of messages to ask for, from 1 to 200.
    pub(super) fn count(&self) -> usize {
        self.0
    }

    /// Notes that a read was answered with so many messages after this time.
    pub(super) fn answered(&mut self, messages: usize, took: Duration) {
        if messages == self.0 && took < QUICK {
            self.0 = (self.0 * 2).min(MOST);
        }
    }

    /// Notes that a read was not answered in time. Returns false if it asked for a single message: no smaller portion is left.
    pub(super) fn shrink(&mut self) -> bool {
        let was_single = self.0 == 1;
        self.0 = (self.0 / SMALLER).max(1);
        !was_single
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// Reads a backlog of messages of `size` bytes over a network that carries `rate` bytes a second. Returns the time, and
    /// the number of reads that were given up; none if a single message does not arrive in time.
    fn read(mut backlog: usize, size: usize, rate: usize) -> Option<(Duration, usize)> {
        let (mut portion, mut time, mut late) = (Portion::default(), Duration::ZERO, 0);
        while backlog > 0 {
            let count = portion.count().min(backlog);
            let took = Duration::from_secs_f64(count as f64 * size as f64 / rate as f64);
            if took > LIMIT {
                (time, late) = (time + LIMIT, late + 1);
                if !portion.shrink() {
                    return None;
                }
            } else {
                (time, backlog) = (time + took, backlog - count);
                portion.answered(count, took);
            }
        }
        Some((time, late))
    }

    #[test]
    fn a_backlog_arrives_over_a_slow_network() {
        // 1,000 messages of 1 MiB at 8 MB/s: 200 of them need 26 s.
        let (time, late) = read(1_000, 1 << 20, 8_000_000).unwrap();
        assert_eq!(late, 2, "200, 50, then 12 at a time");
        assert!(time < Duration::from_secs(150), "{time:?}, where the network needs 131 s");
        assert!(read(100, 1 << 20, 300_000).is_some(), "3.5 s for one message");
        assert!(read(100, 1 << 20, 200_000).is_none(), "5.2 s for one message");
    }

    #[test]
    fn portions_grow_again_where_the_network_is_quick() {
        let mut portion = Portion::default();
        assert!((0..4).all(|_| portion.shrink()));
        assert_eq!((portion.count(), portion.shrink(), portion.count()), (1, false, 1));
        portion.answered(0, Duration::ZERO);
        portion.answered(1, QUICK);
        assert_eq!(portion.count(), 1, "an empty inbox and a slow read show nothing");
        for _ in 0..9 {
            portion.answered(portion.count(), Duration::ZERO);
        }
        assert_eq!(portion.count(), MOST);
    }
}
