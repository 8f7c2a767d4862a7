//! Slows those who guess secrets, and tells of them once in a while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::base::limit::Bucket;
use crate::base::net::Owner;

/// How many wrong secrets one owner of addresses may show at once.
const BURST: u32 = 10;
/// How long it takes until one more may be shown.
const PAUSE: Duration = Duration::from_secs(5);
/// How often the guesses of one owner are logged, at most.
const TOLD: Duration = Duration::from_secs(60);
/// The most owners that are remembered; the one that was quiet for longest makes room.
const OWNERS: usize = 4096;

/// The wrong secrets of each owner of addresses. Pure.
#[derive(Debug, Default)]
struct Guesses(HashMap<Owner, Guesser>);

#[derive(Debug)]
struct Guesser {
    bucket: Bucket,
    last: Instant,
    /// When its guesses were logged, and how many came since.
    told: Option<Instant>,
    untold: u64,
}

impl Guesses {
    /// Returns how long an owner has to wait until it may show a secret again; nothing where it need not.
    fn wait(&self, now: Instant, owner: Owner) -> Option<Duration> {
        let wait = self.0.get(&owner)?.bucket.wait(now);
        (!wait.is_zero()).then_some(wait)
    }

    /// Counts a wrong secret; returns how many are to be logged now, if any.
    fn wrong(&mut self, now: Instant, owner: Owner) -> Option<u64> {
        if self.0.len() >= OWNERS && !self.0.contains_key(&owner) {
            self.make_room(now);
        }
        let new = || Guesser { bucket: Bucket::every(BURST, PAUSE), last: now, told: None, untold: 0 };
        let guesser = self.0.entry(owner).or_insert_with(new);
        guesser.bucket.take(now);
        guesser.last = now;
        guesser.untold += 1;
        if guesser.told.is_some_and(|told| now.saturating_duration_since(told) < TOLD) {
            return None;
        }
        guesser.told = Some(now);
        Some(std::mem::take(&mut guesser.untold))
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

/// Watches over one kind of secret.
#[derive(Debug)]
pub(super) struct Guard {
    what: &'static str,
    guesses: Mutex<Guesses>,
}

impl Guard {
    /// Returns the guard of what is called so in the log.
    pub(super) fn of(what: &'static str) -> Self {
        Self { what, guesses: Mutex::default() }
    }

    /// Returns how long an owner has to wait, if it showed too many wrong secrets.
    pub(super) fn wait(&self, owner: Owner) -> Option<Duration> {
        self.guesses.lock().unwrap_or_else(PoisonError::into_inner).wait(Instant::now(), owner)
    }

    /// Counts a wrong secret of an owner.
    pub(super) fn wrong(&self, owner: Owner) {
        let now = Instant::now();
        let told = self.guesses.lock().unwrap_or_else(PoisonError::into_inner).wrong(now, owner);
        if let Some(count) = told {
            tracing::warn!("{count} wrong {} from {owner}", self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_slowed_for_their_owner_alone_and_told_once_a_minute() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        let (bad, good) = (Owner(1), Owner(2));
        let told: Vec<_> = (0..BURST).map(|_| guesses.wrong(now, bad)).collect();
        assert_eq!(told.iter().flatten().collect::<Vec<_>>(), [&1]);
        let wait = guesses.wait(now, bad).unwrap();
        assert!(wait > PAUSE / 2 && wait <= PAUSE, "{wait:?}");
        assert_eq!(guesses.wait(now, good), None);
        // A minute later the others are told of; in the long run one guess comes each pause.
        let mut at = now;
        let mut seen = 0;
        while at < now + TOLD * 10 {
            at += Duration::from_millis(100);
            if guesses.wait(at, bad).is_none() {
                seen += 1;
                guesses.wrong(at, bad);
            }
        }
        assert!((110..=130).contains(&seen), "{seen} in ten minutes");
        assert_eq!(guesses.wait(at + PAUSE * 2, bad), None);
    }

    #[test]
    fn what_was_not_told_is_told_together() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        assert_eq!(guesses.wrong(now, Owner(1)), Some(1));
        assert_eq!((0..5).filter_map(|_| guesses.wrong(now, Owner(1))).count(), 0);
        assert_eq!(guesses.wrong(now + TOLD, Owner(1)), Some(6));
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_quietest() {
        let (mut guesses, now) = (Guesses::default(), Instant::now());
        let most = OWNERS as u128 + 50;
        for n in 0..most {
            let at = now + Duration::from_micros(n as u64);
            for _ in 0..BURST {
                let _ = guesses.wrong(at, Owner(n));
            }
        }
        assert_eq!(guesses.0.len(), OWNERS);
        let last = most - 1;
        let at = now + Duration::from_secs(1);
        assert!(guesses.wait(at, Owner(last)).is_some() && guesses.wait(at, Owner(0)).is_none());
    }
}
