//! Limit of retransmissions.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::time::Instant;

/// Token bucket that limits retransmissions to a share of the estimate; otherwise packets lost to congestion would add
/// to it.
#[derive(Debug)]
pub(super) struct RetransmissionLimit {
    left: f64,
    at: Option<Instant>,
}

impl RetransmissionLimit {
    const SHARE: f64 = 0.25;
    /// Depth of the bucket: seconds of the share, and minimum in bits, the packets of a large frame.
    const AT_ONCE: (f64, f64) = (0.5, 20.0 * PACKET);

    pub(super) fn new() -> Self {
        Self { left: Self::AT_ONCE.1, at: None }
    }

    /// Returns whether one packet may be retransmitted now, at this estimate in bit/s.
    pub(super) fn allow(&mut self, now: Instant, estimate: u32) -> bool {
        let share = f64::from(estimate) * Self::SHARE;
        let since = self.at.map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.at = Some(now);
        self.left = (self.left + share * since).min((share * Self::AT_ONCE.0).max(Self::AT_ONCE.1));
        let allowed = self.left >= PACKET;
        if allowed {
            self.left -= PACKET;
        }
        allowed
    }
}

/// Size of a video packet, in bits.
const PACKET: f64 = 1200.0 * 8.0;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn retransmissions_are_limited_to_a_share() {
        let (mut repeats, start) = (RetransmissionLimit::new(), Instant::now());
        // A peer requests every packet again and again for ten seconds.
        let allowed =
            (0..10_000).filter(|ms| repeats.allow(start + Duration::from_millis(*ms), 960_000)).count();
        assert!((260..=280).contains(&allowed), "{allowed} packets");
    }
}
