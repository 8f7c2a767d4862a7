//! A token bucket that limits a rate. Pure: time comes in as an argument.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::time::{Duration, Instant};

/// A token bucket: allows a burst at once, and a fixed rate in the long run.
#[derive(Debug, Clone)]
pub struct Bucket {
    most: f64,
    a_second: f64,
    left: f64,
    at: Option<Instant>,
}

impl Bucket {
    /// Returns a full bucket of `most` tokens that refills at `a_second` tokens per second.
    pub fn new(most: u32, a_second: u32) -> Self {
        Self::with_rate(most, f64::from(a_second))
    }

    /// Returns a full bucket of `most` tokens that gains one token every `pause` (more than zero).
    pub fn every(most: u32, pause: Duration) -> Self {
        Self::with_rate(most, 1.0 / pause.as_secs_f64())
    }

    fn with_rate(most: u32, a_second: f64) -> Self {
        let most = f64::from(most);
        Self { most, a_second, left: most, at: None }
    }

    /// Takes one token; returns false if the bucket is empty.
    pub fn take(&mut self, now: Instant) -> bool {
        self.left = self.level(now);
        self.at = Some(now);
        let is_left = self.left >= 1.0;
        self.left -= if is_left { 1.0 } else { 0.0 };
        is_left
    }

    /// Returns the time until a token is available: zero if there is one now.
    pub fn wait(&self, now: Instant) -> Duration {
        let missing = (1.0 - self.level(now)).max(0.0);
        Duration::try_from_secs_f64(missing / self.a_second).unwrap_or(Duration::MAX)
    }

    /// Takes `tokens` tokens even if the bucket holds fewer. Returns the time until the debt is refilled: zero if there
    /// is none.
    pub fn charge(&mut self, now: Instant, tokens: u32) -> Duration {
        self.left = self.level(now) - f64::from(tokens);
        self.at = Some(now);
        Duration::try_from_secs_f64((-self.left / self.a_second).max(0.0)).unwrap_or(Duration::MAX)
    }

    /// Returns whether the bucket is full.
    pub fn is_full(&self, now: Instant) -> bool {
        self.level(now) >= self.most
    }

    fn level(&self, now: Instant) -> f64 {
        let passed = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        (self.left + passed * self.a_second).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_a_rate() {
        let (mut bucket, now) = (Bucket::new(10, 2), Instant::now());
        assert_eq!((0..100).filter(|_| bucket.take(now)).count(), 10);
        let later = now + Duration::from_secs(3);
        assert_eq!((0..100).filter(|_| bucket.take(later)).count(), 6);
        let much_later = now + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| bucket.take(much_later)).count(), 10);
    }

    #[test]
    fn a_debt_delays_later_tokens() {
        let (mut bucket, now) = (Bucket::new(1000, 100), Instant::now());
        assert_eq!(bucket.charge(now, 1000), Duration::ZERO);
        assert_eq!(bucket.charge(now, 50), Duration::from_millis(500));
        let later = now + Duration::from_millis(500);
        assert_eq!(bucket.charge(later, 200), Duration::from_secs(2));
    }

    #[test]
    fn an_empty_bucket_returns_the_time_of_the_next_token() {
        let (mut bucket, now) = (Bucket::every(2, Duration::from_secs(5)), Instant::now());
        assert!(bucket.is_full(now) && bucket.wait(now).is_zero());
        assert!(bucket.take(now) && bucket.take(now) && !bucket.take(now));
        let wait = bucket.wait(now).as_secs_f64();
        assert!((4.99..5.01).contains(&wait), "{wait}");
        let later = now + Duration::from_secs(6);
        assert!(bucket.wait(later).is_zero() && !bucket.is_full(later) && bucket.take(later));
        assert!(bucket.is_full(later + Duration::from_secs(60)));
    }
}
