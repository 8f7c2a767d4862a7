//! Names that nobody may register for a time.
//!
//! Pure: no clock, sockets, files or random numbers.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::protocol::PeerId;

/// The most names that are blocked at a time; the one whose time ends first is forgotten first.
const MAX_BLOCKED: usize = 10_000;
/// The longest time.
pub(super) const MAX_TIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Blocks(HashMap<PeerId, Instant>);

impl Blocks {
    /// Blocks a name for a time, which replaces the time before.
    pub(super) fn block(&mut self, now: Instant, name: PeerId, time: Duration) {
        self.0.retain(|_, until| *until > now);
        if self.0.len() >= MAX_BLOCKED {
            let first = self.0.iter().min_by_key(|(_, until)| **until).map(|(name, _)| name.clone());
            first.and_then(|first| self.0.remove(&first));
        }
        self.0.insert(name, now + time.min(MAX_TIME));
    }

    pub(super) fn is_blocked(&self, now: Instant, name: &PeerId) -> bool {
        self.0.get(name).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_blocked_until_its_time_is_over() {
        let (mut blocks, now) = (Blocks::default(), Instant::now());
        let ann: PeerId = "ann".parse().unwrap();
        let seconds = Duration::from_secs;
        blocks.block(now, ann.clone(), seconds(10));
        assert!(blocks.is_blocked(now + seconds(9), &ann) && !blocks.is_blocked(now + seconds(10), &ann));
        assert!(!blocks.is_blocked(now, &"bob".parse().unwrap()));
        blocks.block(now, ann.clone(), seconds(0));
        assert!(!blocks.is_blocked(now, &ann), "the last order counts");
        for n in 0..MAX_BLOCKED + 5 {
            blocks.block(now, format!("p{n}").parse().unwrap(), seconds(100 + n as u64));
        }
        assert_eq!(blocks.0.len(), MAX_BLOCKED);
        assert!(!blocks.is_blocked(now, &"p0".parse().unwrap()));
        assert!(blocks.is_blocked(now, &"p9".parse().unwrap()));
    }
}
