//! What is sent again.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::time::Instant;

/// How much may be sent again: a share of what the network takes, or what is lost in a full network fills it further.
#[derive(Debug)]
pub(super) struct Repeats {
    left: f64,
    at: Option<Instant>,
}

impl Repeats {
    const SHARE: f64 = 0.25;
    /// So much may come at once, in bits: half a second of the share, and at least the packets of a large picture.
    const AT_ONCE: (f64, f64) = (0.5, 20.0 * PACKET);

    pub(super) fn new() -> Self {
        Self { left: Self::AT_ONCE.1, at: None }
    }

    /// Whether one packet may be sent again now, at that estimate (bit/s).
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

/// A packet of pictures, in bits.
const PACKET: f64 = 1200.0 * 8.0;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_more_than_a_share_is_sent_again() {
        let (mut repeats, start) = (Repeats::new(), Instant::now());
        // A peer that asks for everything again and again, for ten seconds.
        let allowed =
            (0..10_000).filter(|ms| repeats.allow(start + Duration::from_millis(*ms), 960_000)).count();
        assert!((260..=280).contains(&allowed), "{allowed} packets");
    }
}
