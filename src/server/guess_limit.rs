//! Slows clients that guess secrets, and logs the guesses at a limited rate.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::base::limit::Bucket;
use crate::base::lock::lock;
use crate::base::net::Owner;

/// The number of wrong secrets that one owner of addresses may send in a burst.
const BURST: u32 = 10;
/// The time to regain one attempt.
const PAUSE: Duration = Duration::from_secs(5);
/// The shortest time between two log lines about one owner.
const LOG_PAUSE: Duration = Duration::from_secs(60);
/// The most owners that are remembered; the longest inactive owner is removed first.
const OWNERS: usize = 4096;

/// The wrong secrets of each owner of addresses.
#[derive(Debug, Default)]
struct Guesses(HashMap<Owner, Guesser>);

#[derive(Debug)]
struct Guesser {
    bucket: Bucket,
    last: Instant,
    /// The time of the last log line about this owner; `unlogged` counts the guesses since then.
    logged: Option<Instant>,
    unlogged: u64,
}

impl Guesses {
    /// Returns the time until an owner may try again; none if the owner may try now.
    fn wait(&self, now: Instant, owner: Owner) -> Option<Duration> {
        let wait = self.0.get(&owner)?.bucket.wait(now);
        (!wait.is_zero()).then_some(wait)
    }

    /// Counts a wrong secret; returns the number of guesses to log now, if any.
    fn record(&mut self, now: Instant, owner: Owner) -> Option<u64> {
        if self.0.len() >= OWNERS && !self.0.contains_key(&owner) {
            self.make_room(now);
        }
        let new = || Guesser { bucket: Bucket::every(BURST, PAUSE), last: now, logged: None, unlogged: 0 };
        let guesser = self.0.entry(owner).or_insert_with(new);
        guesser.bucket.take(now);
        guesser.last = now;
        guesser.unlogged += 1;
        if guesser.logged.is_some_and(|at| now.saturating_duration_since(at) < LOG_PAUSE) {
            return None;
        }
        guesser.logged = Some(now);
        Some(std::mem::take(&mut guesser.unlogged))
    }

    fn make_room(&mut self, now: Instant) {
        self.0.retain(|_, guesser| !guesser.bucket.is_full(now));
        while self.0.len() >= OWNERS {
            let oldest = self.0.iter().min_by_key(|(_, guesser)| guesser.last).map(|(owner, _)| *owner);
            let Some(oldest) = oldest else { return };
            self.0.remove(&oldest);
        }
    }
}

/// Counts wrong secrets of one kind (tokens, or the secret of the API).
#[derive(Debug)]
pub(super) struct GuessLimit {
    what: &'static str,
    guesses: Mutex<Guesses>,
}

impl GuessLimit {
    /// Returns a limit; `what` names the kind of secret in the log.
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, guesses: Mutex::default() }
    }

    /// Returns the time until an owner that sent too many wrong secrets may try again; none if it may try now.
    pub(super) fn wait(&self, owner: Owner) -> Option<Duration> {
        lock(&self.guesses).wait(Instant::now(), owner)
    }

    /// Counts a wrong secret of an owner, and logs it at a limited rate.
    pub(super) fn record(&self, owner: Owner) {
        let now = Instant::now();
        let to_log = lock(&self.guesses).record(now, owner);
        if let Some(count) = to_log {
            tracing::warn!("{count} wrong {} from {owner}", self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_slowed_for_their_owner_alone_and_logged_once_a_minute() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        let (bad, good) = (Owner(1), Owner(2));
        let logged: Vec<_> = (0..BURST).map(|_| guesses.record(now, bad)).collect();
        assert_eq!(logged.iter().flatten().collect::<Vec<_>>(), [&1]);
        let wait = guesses.wait(now, bad).unwrap();
        assert!(wait > PAUSE / 2 && wait <= PAUSE, "{wait:?}");
        assert_eq!(guesses.wait(now, good), None);
        // After a minute the remaining guesses are logged; in the long run, one guess per [`PAUSE`] is allowed.
        let mut at = now;
        let mut seen = 0;
        while at < now + LOG_PAUSE * 10 {
            at += Duration::from_millis(100);
            if guesses.wait(at, bad).is_none() {
                seen += 1;
                guesses.record(at, bad);
            }
        }
        assert!((110..=130).contains(&seen), "{seen} in ten minutes");
        assert_eq!(guesses.wait(at + PAUSE * 2, bad), None);
    }

    #[test]
    fn guesses_since_the_last_log_line_are_logged_together() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        assert_eq!(guesses.record(now, Owner(1)), Some(1));
        assert_eq!((0..5).filter_map(|_| guesses.record(now, Owner(1))).count(), 0);
        assert_eq!(guesses.record(now + LOG_PAUSE, Owner(1)), Some(6));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_least_active() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        let most = OWNERS as u128 + 50;
        for n in 0..most {
            let at = now + Duration::from_micros(n as u64);
            for _ in 0..BURST {
                let _ = guesses.record(at, Owner(n));
            }
        }
        assert_eq!(guesses.0.len(), OWNERS);
        let last = most - 1;
        let at = now + Duration::from_secs(1);
        assert!(guesses.wait(at, Owner(last)).is_some() && guesses.wait(at, Owner(0)).is_none());
    }
}
