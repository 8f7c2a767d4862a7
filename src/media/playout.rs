//! How long what a peer sends waits to be put in order: as short as the network lets it be. Packets that come
//! unevenly need a reserve, and those that are lost need the time to be asked for and sent again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::stats::Stats;
use super::transport::JitterBuffers;

/// What the jitter buffers begin with, and the least that they have: packets of one picture come one after another.
pub const LEAST: Duration = Duration::from_millis(10);
/// Later than that nobody talks to each other; what takes longer is lost.
pub const MOST: Duration = Duration::from_millis(500);
/// A packet is missed when those of the next picture come, 15 a second being slow.
const MISSED: Duration = Duration::from_millis(70);
/// How long a loss, or a packet that came too late, speaks for a longer delay.
const MEMORY: Duration = Duration::from_secs(30);
/// A shorter delay is come to in small steps, for each is a jump in what is seen and heard: an eighth, and at least that.
const STEP: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_secs(2);
/// So long it stays after it grew.
const REST: Duration = Duration::from_secs(10);
/// It grows for packets that came too late, no faster than that, and no longer than that: what comes later still, comes
/// over a network that is too full, and waiting does not empty it.
const LATE_PAUSE: Duration = Duration::from_millis(500);
const LATE_MOST: Duration = Duration::from_millis(250);

/// How long received media waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Latency {
    /// As the network wants it.
    #[default]
    Auto,
    /// So long.
    Fixed(Duration),
}

/// What the jitter buffers of a connection tell, since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sample {
    /// How unevenly packets come (RFC 3550, 6.4.1); of the worst stream.
    pub jitter: Duration,
    /// The round trip, where it is known.
    pub round_trip: Option<Duration>,
    /// Packets that did not come, or too late, or were asked for again.
    pub missed: u64,
    /// Packets that came too late.
    pub late: u64,
}

/// The delay of one connection.
#[derive(Debug)]
pub struct Playout {
    delay: Duration,
    before: Sample,
    /// Until when losses are to be made good.
    lossy: Option<Instant>,
    /// When the delay may be shortened next.
    shorten: Option<Instant>,
    /// When it grew last for packets that came too late.
    grown: Option<Instant>,
}

impl Default for Playout {
    fn default() -> Self {
        Self { delay: LEAST, before: Sample::default(), lossy: None, shorten: None, grown: None }
    }
}

impl Playout {
    /// Takes what the jitter buffers tell by now; the delay to set, where it changes.
    pub fn update(&mut self, now: Instant, sample: Sample) -> Option<Duration> {
        let before = std::mem::replace(&mut self.before, sample);
        if sample.missed > before.missed {
            self.lossy = Some(now + MEMORY);
        }
        let again = match (self.lossy, sample.round_trip) {
            // Some of the round trip's own unevenness is in it.
            (Some(until), Some(trip)) if now < until => trip + trip / 4 + MISSED,
            _ => Duration::ZERO,
        };
        let mut wanted = (4 * sample.jitter + again).clamp(LEAST, MOST);
        let is_time = self.grown.is_none_or(|at| now.saturating_duration_since(at) >= LATE_PAUSE);
        if sample.late > before.late && is_time {
            self.grown = Some(now);
            wanted = wanted.max((self.delay + STEP.max(self.delay / 4)).min(LATE_MOST));
        }
        if wanted > self.delay {
            self.delay = wanted;
            self.shorten = Some(now + REST);
            return Some(wanted);
        }
        if wanted + STEP > self.delay || self.shorten.is_some_and(|at| now < at) {
            return None;
        }
        let eighth = Duration::from_millis(self.delay.as_millis() as u64 / 8);
        self.delay -= STEP.max(eighth).min(self.delay - wanted);
        self.shorten = Some(now + PAUSE);
        Some(self.delay)
    }
}

/// The delay of one webrtcbin.
#[derive(Debug)]
pub(super) struct Delay {
    latency: Latency,
    buffers: JitterBuffers,
    playout: Mutex<Playout>,
}

impl Delay {
    pub(super) fn of(webrtc: &gst::Element, latency: Latency, buffers: JitterBuffers) -> Self {
        set(
            webrtc,
            match latency {
                Latency::Auto => LEAST,
                Latency::Fixed(delay) => delay,
            },
        );
        Self { latency, buffers, playout: Mutex::default() }
    }

    /// Looks at the jitter buffers, and sets their delay where it is to change.
    pub(super) fn follow(&self, webrtc: &gst::Element, round_trip: Option<Duration>) {
        if self.latency != Latency::Auto {
            return;
        }
        let sample = self.sample(round_trip);
        let mut playout = self.playout.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(delay) = playout.update(Instant::now(), sample) {
            tracing::debug!("received media waits {delay:?} now: {sample:?}");
            set(webrtc, delay);
        }
    }

    /// What was asked for again, and what came.
    pub(super) fn add_to(&self, stats: &mut Stats) {
        for buffer in self.buffers() {
            let found = buffer.property::<gst::Structure>("stats");
            stats.packets_requested += found.get::<u64>("rtx-count").unwrap_or_default();
            stats.packets_recovered += found.get::<u64>("rtx-success-count").unwrap_or_default();
        }
    }

    fn buffers(&self) -> Vec<gst::Element> {
        let buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        buffers.iter().filter_map(|(_, buffer)| buffer.upgrade()).collect()
    }

    fn sample(&self, round_trip: Option<Duration>) -> Sample {
        let mut all = Sample { round_trip, ..Sample::default() };
        for buffer in self.buffers() {
            let stats = buffer.property::<gst::Structure>("stats");
            let number = |name: &str| stats.get::<u64>(name).unwrap_or_default();
            all.jitter = all.jitter.max(Duration::from_nanos(number("avg-jitter")));
            all.missed += number("num-lost") + number("num-late") + number("rtx-count");
            all.late += number("num-late");
            let trip = Duration::from_nanos(number("rtx-rtt"));
            if all.round_trip.is_none() && !trip.is_zero() {
                all.round_trip = Some(trip);
            }
        }
        all
    }
}

fn set(webrtc: &gst::Element, delay: Duration) {
    webrtc.set_property("latency", u32::try_from(delay.as_millis()).unwrap_or(u32::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_begins_short_and_what_comes_too_late_makes_it_longer_at_once() {
        let (mut playout, start) = (Playout::default(), Instant::now());
        let clean = Sample { jitter: 2 * MS, round_trip: None, ..Sample::default() };
        assert_eq!(playout.update(start, clean), None);
        let late = |late| Sample { late, ..clean };
        let grown: Vec<_> =
            (1..5).filter_map(|n| playout.update(start + n * 500 * MS, late(u64::from(n)))).collect();
        assert_eq!(grown, [30 * MS, 50 * MS, 70 * MS, 90 * MS]);
        assert_eq!(playout.update(start + 9000 * MS, late(4)), None, "for a while");
    }

    #[test]
    fn a_clean_network_keeps_it_short_and_losses_give_time_to_send_again() {
        let mut playout = Playout::default();
        let mut now = Instant::now();
        let clean = Sample { jitter: 2 * MS, round_trip: Some(80 * MS), ..Sample::default() };
        assert_eq!(playout.update(now, clean), None);
        let lossy = Sample { missed: 1, ..clean };
        assert_eq!(playout.update(now, lossy), Some(178 * MS));
        assert_eq!(playout.update(now, lossy), None);
        // Long after the last loss it comes back, step by step.
        now += MEMORY;
        assert_eq!(playout.update(now, lossy), Some(156 * MS));
        assert_eq!(playout.update(now, lossy), None);
        for expected in [136, 116, 96, 76, 56, 36, 16] {
            now += PAUSE;
            assert_eq!(playout.update(now, lossy), Some(expected * MS));
        }
        now += PAUSE;
        assert_eq!(playout.update(now, lossy), None, "near enough");
    }

    #[test]
    fn packets_that_come_unevenly_or_too_late_give_more_time() {
        let mut playout = Playout::default();
        let now = Instant::now();
        let uneven = Sample { jitter: 30 * MS, ..Sample::default() };
        assert_eq!(playout.update(now, uneven), Some(120 * MS));
        let late = Sample { late: 3, missed: 3, ..uneven };
        assert_eq!(playout.update(now, late), Some(150 * MS));
        let worst = Sample { jitter: Duration::from_secs(3), ..late };
        assert_eq!(playout.update(now, worst), Some(MOST));
    }

    proptest! {
        /// Whatever is measured, nonsense included, the delay stays within its bounds.
        #[test]
        fn it_stays_within_bounds(
            samples in prop::collection::vec((0..2000_u64, prop::option::of(0..5000_u64), any::<u64>(), any::<u64>(), 0..60_u64), 0..50)
        ) {
            let (mut playout, mut now) = (Playout::default(), Instant::now());
            for (jitter, trip, missed, late, pause) in samples {
                now += Duration::from_secs(pause);
                let round_trip = trip.map(Duration::from_millis);
                let sample = Sample { jitter: Duration::from_millis(jitter), round_trip, missed, late };
                if let Some(delay) = playout.update(now, sample) {
                    prop_assert!((LEAST..=MOST).contains(&delay) && delay == playout.delay);
                }
                prop_assert!(playout.delay >= LEAST);
            }
        }
    }
}
