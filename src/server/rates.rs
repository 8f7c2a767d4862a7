//! A limit on the rate of each of many users, such as the owners of addresses.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::base::limit::Bucket;
use crate::base::lock::lock;

/// The most users that are remembered; the longest inactive one is forgotten first.
const USERS: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Rates<K> {
    burst: u32,
    a_second: u32,
    buckets: Mutex<HashMap<K, (Bucket, Instant)>>,
}

impl<K: Hash + Eq + Clone> Rates<K> {
    /// Returns a limit of `burst` actions at once, and `a_second` in the long run, for each user.
    pub(super) fn new((burst, a_second): (u32, u32)) -> Self {
        Self { burst, a_second, buckets: Mutex::default() }
    }

    /// Counts an action; the error is the time until the user may act again.
    pub(super) fn take(&self, now: Instant, user: &K) -> Result<(), Duration> {
        let mut buckets = lock(&self.buckets);
        if buckets.len() >= USERS && !buckets.contains_key(user) {
            make_room(&mut buckets, now);
        }
        let new = || (Bucket::new(self.burst, self.a_second), now);
        let (bucket, last) = buckets.entry(user.clone()).or_insert_with(new);
        *last = now;
        match bucket.take(now) {
            true => Ok(()),
            false => Err(bucket.wait(now)),
        }
    }
}

/// Forgets the users that may act as if they were new, or else the longest inactive one.
fn make_room<K: Hash + Eq + Clone>(buckets: &mut HashMap<K, (Bucket, Instant)>, now: Instant) {
    buckets.retain(|_, (bucket, _)| !bucket.is_full(now));
    if buckets.len() >= USERS {
        let oldest = buckets.iter().min_by_key(|(_, (_, last))| *last).map(|(user, _)| user.clone());
        oldest.and_then(|oldest| buckets.remove(&oldest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_a_rate_of_its_own() {
        let (rates, now) = (Rates::new((3, 2)), Instant::now());
        assert_eq!((0..10).filter(|_| rates.take(now, &"ann").is_ok()).count(), 3);
        assert_eq!((0..10).filter(|_| rates.take(now, &"bob").is_ok()).count(), 3);
        let wait = rates.take(now, &"ann").unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(500), "{wait:?}");
        assert!(rates.take(now + wait, &"ann").is_ok());
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_least_active() {
        let (rates, now) = (Rates::new((1, 1)), Instant::now());
        for user in 0..USERS + 10 {
            assert!(rates.take(now + Duration::from_nanos(user as u64), &user).is_ok());
        }
        assert_eq!(lock(&rates.buckets).len(), USERS);
        let at = now + Duration::from_millis(1);
        assert!(rates.take(at, &(USERS + 9)).is_err(), "the last one is remembered");
        assert!(rates.take(at, &0).is_ok(), "the first one was forgotten");
    }
}
