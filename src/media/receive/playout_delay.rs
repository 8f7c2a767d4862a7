//! The playout delay of received media, and the time that jitter buffers wait for retransmissions; both as short as the
//! network allows.
//!
//! Consumers play each packet one playout delay after its expected arrival; the delay absorbs jitter. A jitter buffer
//! forwards packets at once, and holds them only behind a missing one: with NACK (RFC 4585) until a retransmission can
//! have come, which takes a round trip and may be longer than the playout delay, else for the playout delay. Frequent
//! losses raise the playout delay, too; rare ones do not.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Initial and minimum playout delay, unless the user fixed one. The packets of a frame arrive one after another within
/// about this time.
pub const PLAYOUT_MIN: Duration = Duration::from_millis(10);
/// Maximum playout delay, unless the user fixed one: a longer delay makes a conversation impossible. Media that is
/// later is shown late, or not played.
pub const PLAYOUT_MAX: Duration = Duration::from_millis(500);
/// Maximum of a playout delay that the user fixed.
pub const FIXED_MAX: Duration = Duration::from_secs(5);
/// Maximum time to wait for a retransmission, unless the user fixed a longer delay. After that time, a new key frame
/// repairs the picture as fast.
pub const REPAIR_MAX: Duration = Duration::from_secs(1);
/// Assumed round trip where none is measured.
const ASSUMED_ROUND_TRIP: Duration = Duration::from_millis(100);
/// Time after which a loss is noticed, by the next frame: the interval of frames at 15 frames per second.
const LOSS_NOTICED_AFTER: Duration = Duration::from_millis(70);
/// Margin after the latest expected arrival of a retransmission until the packet is requested again.
const RETRY_MARGIN: Duration = Duration::from_millis(20);
/// Age up to which samples are considered.
const WINDOW: Duration = Duration::from_secs(10);
/// Percentage of packets of streams with NACK that arrive within the playout delay, and minimum number of packets for a
/// decision (one or two seconds of media). These streams are video, which is still shown when it is late.
const WITH_NACK: (u64, u64) = (90, 100);
/// Percentage and minimum number for all other streams. These are mostly audio, which is not played when it is late.
const WITHOUT_NACK: (u64, u64) = (98, 50);
/// Minimum by which the delay falls; otherwise it falls by an eighth.
const FALL_MIN: Duration = Duration::from_millis(20);
/// Pause between a change and the next fall, which is a visible and audible jump.
const FALL_PAUSE: Duration = Duration::from_secs(1);
/// Minimum by which the delay rises for packets that arrived too late; otherwise it rises by a quarter.
const RISE_MIN: Duration = Duration::from_millis(20);
/// Pause between two rises for packets that arrived too late, whose lateness is not measured.
const RISE_PAUSE: Duration = Duration::from_millis(500);

/// Setting of the playout delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Latency {
    /// Adapted to the network.
    #[default]
    Auto,
    /// Fixed, at [`FIXED_MAX`] at most.
    Fixed(Duration),
}

/// Number of packets by their lateness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lateness([u32; Lateness::BUCKETS]);

impl Lateness {
    /// Number of buckets; the last one contains all later packets.
    pub const BUCKETS: usize = PLAYOUT_MAX.as_millis() as usize / Self::BUCKET_MS as usize;
    const BUCKET_MS: u64 = 10;

    /// Returns the bucket of a packet with this lateness.
    pub fn bucket(late: Duration) -> usize {
        (late.as_millis() as usize / Self::BUCKET_MS as usize).min(Self::BUCKETS - 1)
    }

    /// Adds `count` packets to a bucket.
    pub fn add(&mut self, bucket: usize, count: u32) {
        if let Some(here) = self.0.get_mut(bucket) {
            *here = here.saturating_add(count);
        }
    }

    /// Returns the delay within which `percent` of the packets arrived; `None` if there are fewer than `least` packets.
    fn within(&self, (percent, least): (u64, u64)) -> Option<Duration> {
        let all = self.total();
        let mut seen = 0;
        let is_enough = |count: &u32| {
            seen += u64::from(*count);
            seen * 100 >= all * percent
        };
        let bucket = self.0.iter().position(is_enough).filter(|_| all >= least)?;
        Some(Duration::from_millis((bucket as u64 + 1) * Self::BUCKET_MS))
    }

    fn total(&self) -> u64 {
        self.0.iter().map(|count| u64::from(*count)).sum()
    }
}

impl Default for Lateness {
    fn default() -> Self {
        Self([0; Self::BUCKETS])
    }
}

/// Measurements of a connection's jitter buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sample {
    /// Jitter of the worst stream (RFC 3550, 6.4.1).
    pub jitter: Duration,
    /// Round trip; `None` if unknown.
    pub round_trip: Option<Duration>,
    /// Packets of streams with NACK since the last sample, by their lateness when the buffer forwarded them: a packet
    /// behind a lost one is as late as the retransmission.
    pub with_nack: Lateness,
    /// Packets of all other streams since the last sample, by their lateness on arrival.
    pub without_nack: Lateness,
    /// Number of packets of these other streams since the last sample that arrived after the buffer had skipped them.
    pub too_late: u64,
}

/// Delays of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// Playout delay.
    pub playout: Duration,
    /// Time to wait for a retransmission; never shorter than the playout delay.
    pub repair: Duration,
    /// Time between two requests for the same packet.
    pub retry: Duration,
}

/// State of a connection's delays.
#[derive(Debug)]
pub struct PlayoutDelay {
    delays: Delays,
    /// Delay that the user chose.
    fixed: Option<Duration>,
    /// Samples within [`WINDOW`].
    window: VecDeque<(Instant, Sample)>,
    /// Earliest time of the next fall.
    next_fall: Option<Instant>,
    /// Time of the last rise for packets that arrived too late.
    last_rise: Option<Instant>,
}

/// Returns the time to wait for a retransmission, and the time between two requests, for a round trip and a jitter. If
/// [`REPAIR_MAX`] allows, the wait leaves time for a second request, because a retransmission may be lost, too. The wait
/// is zero if even the first retransmission would arrive after [`REPAIR_MAX`]; packets then wait for the playout delay
/// alone.
fn repair_times(trip: Duration, jitter: Duration) -> (Duration, Duration) {
    // A quarter for the variation of the round trip.
    let retry = (trip + trip / 4 + RETRY_MARGIN).min(REPAIR_MAX);
    if trip + LOSS_NOTICED_AFTER >= REPAIR_MAX {
        return (Duration::ZERO, retry);
    }
    // Almost all packets arrive within four times the mean deviation (as in RFC 6298, 2.3).
    ((LOSS_NOTICED_AFTER + 2 * retry + 4 * jitter).min(REPAIR_MAX), retry)
}

impl PlayoutDelay {
    /// Returns the initial state for a setting.
    pub fn new(latency: Latency) -> Self {
        let fixed = match latency {
            Latency::Auto => None,
            Latency::Fixed(delay) => Some(delay.min(FIXED_MAX)),
        };
        let playout = fixed.unwrap_or(PLAYOUT_MIN);
        let (repair, retry) = repair_times(ASSUMED_ROUND_TRIP, Duration::ZERO);
        let delays = Delays { playout, repair: playout.max(repair), retry };
        Self { delays, fixed, window: VecDeque::new(), next_fall: None, last_rise: None }
    }

    /// Returns the delays as they are now.
    pub fn delays(&self) -> Delays {
        self.delays
    }

    /// Accepts a sample of the jitter buffers; returns the delays to set.
    pub fn update(&mut self, now: Instant, sample: Sample) -> Delays {
        if self.fixed.is_none() {
            self.adapt(now, sample);
        }
        let (repair, retry) = repair_times(sample.round_trip.unwrap_or(ASSUMED_ROUND_TRIP), sample.jitter);
        let repair = repair.max(self.delays.playout);
        // Each change makes all linked elements query the latency. Small decreases, which gain little, are ignored; an
        // increase saves packets.
        if repair > self.delays.repair || repair * 4 / 3 < self.delays.repair {
            self.delays.repair = repair;
        }
        self.delays.retry = retry;
        self.delays
    }

    /// Adapts the playout delay to the lateness within [`WINDOW`].
    ///
    /// The lateness of packets that arrived too late is not measured. While they are more than [`WITHOUT_NACK`] allows
    /// (2 % of the packets of streams without NACK), the delay does not fall, and a sample with further ones raises it by
    /// a quarter, at most every [`RISE_PAUSE`] and up to [`PLAYOUT_MAX`]. NetEq, too, counts late packets (up to 2 s) when it
    /// chooses the delay that 95 to 97 % of all packets meet.
    fn adapt(&mut self, now: Instant, sample: Sample) {
        let is_old = |(at, _): &(Instant, Sample)| now.saturating_duration_since(*at) >= WINDOW;
        while self.window.front().is_some_and(is_old) {
            self.window.pop_front();
        }
        self.window.push_back((now, sample));
        let sum = |of: fn(&Sample) -> &Lateness| {
            let mut sum = Lateness::default();
            let counts = self.window.iter().flat_map(|(_, sample)| of(sample).0.iter().enumerate());
            counts.for_each(|(bucket, count)| sum.add(bucket, *count));
            sum
        };
        let (with_nack, without_nack) = (sum(|sample| &sample.with_nack), sum(|sample| &sample.without_nack));
        let too_late = self.window.iter().fold(0_u64, |all, (_, sample)| all.saturating_add(sample.too_late));
        let received = without_nack.total().saturating_add(too_late);
        let measured = with_nack.within(WITH_NACK).max(without_nack.within(WITHOUT_NACK)).unwrap_or_default();
        let delay = self.delays.playout;
        let mut wanted = measured.clamp(PLAYOUT_MIN, PLAYOUT_MAX);
        let is_too_many = too_late.saturating_mul(100) > received.saturating_mul(100 - WITHOUT_NACK.0);
        if received >= WITHOUT_NACK.1 && is_too_many {
            let may_rise = self.last_rise.is_none_or(|at| now.saturating_duration_since(at) >= RISE_PAUSE);
            let mut rise = Duration::ZERO;
            if sample.too_late > 0 && may_rise {
                self.last_rise = Some(now);
                rise = RISE_MIN.max(delay / 4);
            }
            wanted = wanted.max((delay + rise).min(PLAYOUT_MAX));
        }
        if wanted > delay {
            tracing::debug!(?measured, too_late, "the playout delay rises to {wanted:?}");
            self.delays.playout = wanted;
            self.next_fall = Some(now + FALL_PAUSE);
        } else if wanted + FALL_MIN <= delay && self.next_fall.is_none_or(|at| at <= now) {
            let eighth = Duration::from_millis(delay.as_millis() as u64 / 8);
            self.delays.playout -= FALL_MIN.max(eighth).min(delay - wanted);
            self.next_fall = Some(now + FALL_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn counts(packets: &[(u64, u32)]) -> Lateness {
        let mut late = Lateness::default();
        packets.iter().for_each(|(ms, count)| late.add(Lateness::bucket(Duration::from_millis(*ms)), *count));
        late
    }

    /// Returns a second's sample of 90 packets with NACK (video) and 50 without (audio), of which some arrived late.
    fn second(video: (u64, u32), audio: (u64, u32)) -> Sample {
        Sample {
            jitter: 2 * MS,
            round_trip: Some(80 * MS),
            with_nack: counts(&[(2, 90 - video.1), video]),
            without_nack: counts(&[(2, 50 - audio.1), audio]),
            too_late: 0,
        }
    }

    const CLEAN: ((u64, u32), (u64, u32)) = ((2, 0), (2, 0));

    #[test]
    fn rare_losses_do_not_raise_the_playout_delay() {
        let (mut playout, start) = (PlayoutDelay::new(Latency::Auto), Instant::now());
        for n in 0..60_u32 {
            let sample = if n % 5 == 4 { second((130, 6), (2, 0)) } else { second(CLEAN.0, CLEAN.1) };
            let delays = playout.update(start + n * 1000 * MS, sample);
            // The measured 318 ms are less than the initial wait, but not by so much that the wait is lowered.
            assert_eq!(delays, Delays { playout: PLAYOUT_MIN, repair: 360 * MS, retry: 120 * MS });
        }
    }

    #[test]
    fn frequent_losses_raise_the_playout_delay_while_they_last() {
        let (mut playout, mut now) = (PlayoutDelay::new(Latency::Auto), Instant::now());
        let lossy = second((130, 30), (2, 0));
        for delay in [PLAYOUT_MIN, 140 * MS, 140 * MS] {
            now += 1000 * MS;
            assert_eq!(playout.update(now, lossy).playout, delay);
        }
        // The delay falls step by step, once few enough packets of the last ten seconds were late.
        let mut seen = vec![];
        for _ in 0..30 {
            now += 1000 * MS;
            seen.push(playout.update(now, second(CLEAN.0, CLEAN.1)).playout.as_millis() as u64);
        }
        seen.dedup();
        assert_eq!(seen, [140, 120, 100, 80, 60, 40, 20]);
    }

    #[test]
    fn more_than_two_percent_of_late_audio_raises_the_delay() {
        let (mut playout, now) = (PlayoutDelay::new(Latency::Auto), Instant::now());
        assert_eq!(playout.update(now, second((2, 0), (90, 2))).playout, 100 * MS);
        let mut playout = PlayoutDelay::new(Latency::Auto);
        assert_eq!(playout.update(now, second((2, 0), (90, 1))).playout, PLAYOUT_MIN);
    }

    #[test]
    fn retransmissions_after_more_than_a_second_are_not_waited_for() {
        let mut playout = PlayoutDelay::new(Latency::Auto);
        let far = |ms| Sample { round_trip: Some(ms * MS), ..second(CLEAN.0, CLEAN.1) };
        assert_eq!(playout.update(Instant::now(), far(900)).repair, REPAIR_MAX);
        assert_eq!(playout.update(Instant::now(), far(1000)).repair, PLAYOUT_MIN);
    }

    #[test]
    fn too_few_packets_do_not_change_the_delay() {
        let mut playout = PlayoutDelay::new(Latency::Auto);
        let first = Sample { with_nack: counts(&[(300, 40)]), ..Sample::default() };
        assert_eq!(playout.update(Instant::now(), first).playout, PLAYOUT_MIN);
    }

    #[test]
    fn jitter_and_packets_that_arrive_too_late_raise_the_delay() {
        let mut playout = PlayoutDelay::new(Latency::Auto);
        let now = Instant::now();
        let uneven =
            Sample { without_nack: counts(&[(50, 90), (110, 10)]), jitter: 30 * MS, ..Sample::default() };
        assert_eq!(playout.update(now, uneven).playout, 120 * MS);
        let lost = Sample { too_late: 3, ..Sample::default() };
        assert_eq!(playout.update(now, lost).playout, 150 * MS);
        assert_eq!(playout.update(now, Sample { too_late: 1, ..lost }).playout, 150 * MS, "not at once");
        let worst =
            Sample { without_nack: counts(&[(3000, 10_000)]), jitter: Duration::from_secs(3), ..lost };
        let delays = playout.update(now, worst);
        assert_eq!((delays.playout, delays.repair), (PLAYOUT_MAX, REPAIR_MAX));
    }

    /// Returns the delays, in ms, over samples of a second in which `late` of 50 audio packets arrive too late.
    fn with_too_late(playout: &mut PlayoutDelay, now: &mut Instant, seconds: u32, late: u32) -> Vec<u64> {
        let mut seen = vec![];
        for _ in 0..seconds {
            *now += 1000 * MS;
            let too_late = late.into();
            let sample = Sample { without_nack: counts(&[(2, 50 - late)]), too_late, ..Sample::default() };
            seen.push(playout.update(*now, sample).playout.as_millis() as u64);
        }
        seen
    }

    #[test]
    fn packets_that_arrive_too_late_raise_and_hold_any_delay() {
        let (mut playout, mut now) = (PlayoutDelay::new(Latency::Auto), Instant::now());
        assert_eq!(playout.update(now, second((2, 0), (290, 50))).playout, 300 * MS);
        let seen = with_too_late(&mut playout, &mut now, 30, 5);
        assert_eq!((seen[0], seen[1]), (375, 468));
        assert!(seen[2..].iter().all(|delay| *delay == 500), "{seen:?}");
        let seen = with_too_late(&mut playout, &mut now, 60, 0);
        assert!(seen[5] == 500 && seen[59] < 30, "{seen:?}");
    }

    #[test]
    fn rare_packets_that_arrive_too_late_do_not_raise_the_delay() {
        let (mut playout, mut now) = (PlayoutDelay::new(Latency::Auto), Instant::now());
        with_too_late(&mut playout, &mut now, 10, 0);
        assert_eq!(with_too_late(&mut playout, &mut now, 30, 1), [10; 30]);
    }

    #[test]
    fn a_fixed_delay_stays_and_retransmissions_are_waited_for() {
        let mut playout = PlayoutDelay::new(Latency::Fixed(50 * MS));
        let lossy = second((400, 60), (400, 40));
        let delays = playout.update(Instant::now(), lossy);
        assert_eq!((delays.playout, delays.repair), (50 * MS, 360 * MS));
        let mut playout = PlayoutDelay::new(Latency::Fixed(5000 * MS));
        let delays = playout.update(Instant::now(), lossy);
        assert_eq!((delays.playout, delays.repair), (5000 * MS, 5000 * MS));
    }

    proptest! {
        /// Arbitrary measurements keep the delays within their bounds.
        #[test]
        fn the_delays_stay_within_their_bounds(
            samples in prop::collection::vec((
                0..2000_u64, prop::option::of(0..5000_u64), any::<u64>(), 0..60_u64,
                prop::collection::vec((0..200_usize, any::<u32>()), 0..4)
            ), 0..50)
        ) {
            let (mut playout, mut now) = (PlayoutDelay::new(Latency::Auto), Instant::now());
            for (jitter, trip, too_late, pause, counts) in samples {
                now += Duration::from_secs(pause);
                let round_trip = trip.map(Duration::from_millis);
                let mut late = Lateness::default();
                counts.into_iter().for_each(|(bucket, count)| late.add(bucket, count));
                let jitter = Duration::from_millis(jitter);
                let delays = playout.update(now, Sample { jitter, round_trip, with_nack: late, without_nack: late, too_late });
                prop_assert!((PLAYOUT_MIN..=PLAYOUT_MAX).contains(&delays.playout));
                prop_assert!((delays.playout..=REPAIR_MAX).contains(&delays.repair));
            }
        }
    }
}
