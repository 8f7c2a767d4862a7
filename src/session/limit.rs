//! How often a peer may do something: a bucket that fills with time and is emptied by doing it.

use std::time::Instant;

/// So many at once, and so many a second in the long run.
#[derive(Debug, Clone)]
pub struct Bucket {
    most: f64,
    a_second: f64,
    left: f64,
    at: Option<Instant>,
}

impl Bucket {
    /// A full one.
    pub fn new(most: u32, a_second: u32) -> Self {
        let most = f64::from(most);
        Self { most, a_second: f64::from(a_second), left: most, at: None }
    }

    /// Takes one; false where none is left.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.at = Some(now);
        self.left = (self.left + passed * self.a_second).min(self.most);
        let is_left = self.left >= 1.0;
        self.left -= if is_left { 1.0 } else { 0.0 };
        is_left
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
}
