//! How long what a peer sends waits until it is shown or played, and how long is waited for what was lost: as short as the
//! network lets it be. Packets that come unevenly need a reserve; those that are lost take a round trip to come again, but
//! only where that is often is all the rest made to wait for it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What comes begins to wait, and the least that it does: packets of one picture come one after another.
pub const LEAST: Duration = Duration::from_millis(10);
/// Later than that nobody talks to each other; what takes longer is shown late, and not heard.
pub const MOST: Duration = Duration::from_millis(500);
/// So long what was lost is waited for at most: a new key frame takes no longer.
pub const REPAIR_MOST: Duration = Duration::from_secs(1);
/// A round trip, as long as none is known.
const TRIP: Duration = Duration::from_millis(100);
/// A packet is missed when those of the next picture come, 15 a second being slow.
const MISSED: Duration = Duration::from_millis(70);
/// What was asked for is asked for again so long after it should have come.
const SPARE: Duration = Duration::from_millis(20);
/// What came speaks for that long.
const WINDOW: Duration = Duration::from_secs(10);
/// The share that is to be there in time, of a hundred, and how many packets say nothing yet: a second's or two. What is shown
/// late is seen, what is played late is not heard.
const PICTURES: (u64, u64) = (90, 100);
const SOUND: (u64, u64) = (98, 50);
/// A shorter delay is come to in small steps, for each is a jump in what is seen and heard: an eighth, and at least that.
const STEP: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_secs(1);
/// So long it stays after it grew for packets that came too late, which are not among those that came.
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

/// How long after its time packets were there: how many of each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Late([u32; Late::STEPS]);

impl Late {
    /// Of 10 ms each; the last one has all that was later.
    pub const STEPS: usize = MOST.as_millis() as usize / Self::LENGTH as usize;
    const LENGTH: u64 = 10;

    /// The step of a packet that was so late.
    pub fn step(late: Duration) -> usize {
        (late.as_millis() as usize / Self::LENGTH as usize).min(Self::STEPS - 1)
    }

    /// Counts packets in that step.
    pub fn add(&mut self, step: usize, count: u32) {
        if let Some(here) = self.0.get_mut(step) {
            *here = here.saturating_add(count);
        }
    }

    /// After how long so many of a hundred were there; none where there are too few to tell.
    fn within(&self, (percent, least): (u64, u64)) -> Option<Duration> {
        let all: u64 = self.0.iter().map(|count| u64::from(*count)).sum();
        let mut seen = 0;
        let is_enough = |count: &u32| {
            seen += u64::from(*count);
            seen * 100 >= all * percent
        };
        let step = self.0.iter().position(is_enough).filter(|_| all >= least)?;
        Some(Duration::from_millis((step as u64 + 1) * Self::LENGTH))
    }
}

impl Default for Late {
    fn default() -> Self {
        Self([0; Self::STEPS])
    }
}

/// What the jitter buffers of a connection tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sample {
    /// How unevenly packets come (RFC 3550, 6.4.1); of the worst stream.
    pub jitter: Duration,
    /// The round trip, where it is known.
    pub round_trip: Option<Duration>,
    /// Since the last sample, of streams whose losses are repaired: when packets could be given on.
    pub pictures: Late,
    /// Of all others: when packets came.
    pub sound: Late,
    /// Packets of those that came after others were given up for them, since the start.
    pub too_late: u64,
}

/// The delays of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delays {
    /// Until what comes is shown or played.
    pub playout: Duration,
    /// Until what was lost and asked for again is given up; no shorter.
    pub repair: Duration,
    /// Until what was asked for is asked for once more.
    pub retry: Duration,
}

/// What the delays of one connection follow.
#[derive(Debug)]
pub struct Playout {
    delays: Delays,
    /// The user's own.
    fixed: Option<Duration>,
    window: VecDeque<(Instant, Late, Late)>,
    too_late: u64,
    /// When the delay may be shortened next.
    shorten: Option<Instant>,
    /// When it grew last for packets that came too late.
    grown: Option<Instant>,
}

/// How long what was lost is waited for, and after how long it is asked for again, with that round trip: it may be lost once
/// more on its way. Where even the first answer comes too late there is nothing to wait for, and error correction has its turn
/// at once.
fn again(trip: Duration) -> (Duration, Duration) {
    // Some of the round trip's own unevenness is in it.
    let retry = (trip + trip / 4 + SPARE).min(REPAIR_MOST);
    let repair = if trip + MISSED < REPAIR_MOST { MISSED + 2 * retry } else { Duration::ZERO };
    (repair, retry)
}

impl Playout {
    /// At the start of a connection.
    pub fn new(latency: Latency) -> Self {
        let fixed = match latency {
            Latency::Auto => None,
            Latency::Fixed(delay) => Some(delay),
        };
        let playout = fixed.unwrap_or(LEAST);
        let (repair, retry) = again(TRIP);
        let delays = Delays { playout, repair: playout.max(repair), retry };
        Self { delays, fixed, window: VecDeque::new(), too_late: 0, shorten: None, grown: None }
    }

    /// Returns the delays as they are now.
    pub fn delays(&self) -> Delays {
        self.delays
    }

    /// Takes what the jitter buffers tell by now; the delays to set.
    pub fn update(&mut self, now: Instant, sample: Sample) -> Delays {
        if self.fixed.is_none() {
            self.follow(now, &sample);
        }
        let (repair, retry) = again(sample.round_trip.unwrap_or(TRIP));
        let uneven = if repair.is_zero() { repair } else { 4 * sample.jitter };
        let repair = (repair + uneven).min(REPAIR_MOST).max(self.delays.playout);
        // Each change makes all that is linked ask for its latency.
        if repair > self.delays.repair || repair * 4 / 3 < self.delays.repair {
            self.delays.repair = repair;
        }
        self.delays.retry = retry;
        self.delays
    }

    fn follow(&mut self, now: Instant, sample: &Sample) {
        let is_old = |(at, ..): &(Instant, Late, Late)| now.saturating_duration_since(*at) >= WINDOW;
        while self.window.front().is_some_and(is_old) {
            self.window.pop_front();
        }
        self.window.push_back((now, sample.pictures, sample.sound));
        let all = |of: fn(&(Instant, Late, Late)) -> &Late| {
            let mut all = Late::default();
            let counts = self.window.iter().flat_map(|one| of(one).0.iter().enumerate());
            counts.for_each(|(step, count)| all.add(step, *count));
            all
        };
        let (pictures, sound) = (all(|one| &one.1).within(PICTURES), all(|one| &one.2).within(SOUND));
        let late = pictures.max(sound).unwrap_or_default();
        let delay = self.delays.playout;
        let mut stays = PAUSE;
        let mut wanted = late.clamp(LEAST, MOST);
        let is_time = self.grown.is_none_or(|at| now.saturating_duration_since(at) >= LATE_PAUSE);
        let before = std::mem::replace(&mut self.too_late, sample.too_late);
        if sample.too_late > before && is_time {
            self.grown = Some(now);
            stays = REST;
            wanted = wanted.max((delay + STEP.max(delay / 4)).min(LATE_MOST));
        }
        if wanted > delay {
            tracing::debug!(?pictures, ?sound, "received media waits {wanted:?} now");
            self.delays.playout = wanted;
            self.shorten = Some(now + stays);
        } else if wanted + STEP <= delay && self.shorten.is_none_or(|at| at <= now) {
            let eighth = Duration::from_millis(delay.as_millis() as u64 / 8);
            self.delays.playout -= STEP.max(eighth).min(delay - wanted);
            self.shorten = Some(now + PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn late(counts: &[(u64, u32)]) -> Late {
        let mut late = Late::default();
        counts.iter().for_each(|(ms, count)| late.add(Late::step(Duration::from_millis(*ms)), *count));
        late
    }

    /// 90 packets of pictures and 50 of sound, so many of which are so late.
    fn second(pictures: (u64, u32), sound: (u64, u32)) -> Sample {
        Sample {
            jitter: 2 * MS,
            round_trip: Some(80 * MS),
            pictures: late(&[(2, 90 - pictures.1), pictures]),
            sound: late(&[(2, 50 - sound.1), sound]),
            too_late: 0,
        }
    }

    const CLEAN: ((u64, u32), (u64, u32)) = ((2, 0), (2, 0));

    #[test]
    fn a_rare_loss_is_waited_for_and_makes_nobody_else_wait() {
        let (mut playout, start) = (Playout::new(Latency::Auto), Instant::now());
        for n in 0..60_u32 {
            let sample = if n % 5 == 4 { second((130, 6), (2, 0)) } else { second(CLEAN.0, CLEAN.1) };
            let delays = playout.update(start + n * 1000 * MS, sample);
            assert_eq!(delays, Delays { playout: LEAST, repair: 360 * MS, retry: 120 * MS });
        }
    }

    #[test]
    fn where_losses_are_often_all_waits_until_they_came_again_and_no_longer_than_they_last() {
        let (mut playout, mut now) = (Playout::new(Latency::Auto), Instant::now());
        let lossy = second((130, 30), (2, 0));
        for delay in [LEAST, 140 * MS, 140 * MS] {
            now += 1000 * MS;
            assert_eq!(playout.update(now, lossy).playout, delay);
        }
        // Ten seconds after the last loss it comes back, step by step.
        let mut seen = vec![];
        for _ in 0..30 {
            now += 1000 * MS;
            seen.push(playout.update(now, second(CLEAN.0, CLEAN.1)).playout.as_millis() as u64);
        }
        seen.dedup();
        assert_eq!(seen, [140, 120, 100, 80, 60, 40, 20]);
    }

    #[test]
    fn sound_that_comes_late_is_not_heard_so_nearly_all_of_it_is_waited_for() {
        let (mut playout, now) = (Playout::new(Latency::Auto), Instant::now());
        assert_eq!(playout.update(now, second((2, 0), (90, 2))).playout, 100 * MS);
        let mut playout = Playout::new(Latency::Auto);
        assert_eq!(playout.update(now, second((2, 0), (90, 1))).playout, LEAST);
    }

    #[test]
    fn what_cannot_come_again_in_time_is_not_waited_for() {
        let mut playout = Playout::new(Latency::Auto);
        let far = |ms| Sample { round_trip: Some(ms * MS), ..second(CLEAN.0, CLEAN.1) };
        assert_eq!(playout.update(Instant::now(), far(900)).repair, REPAIR_MOST);
        assert_eq!(playout.update(Instant::now(), far(1000)).repair, LEAST);
    }

    #[test]
    fn too_few_packets_say_nothing() {
        let mut playout = Playout::new(Latency::Auto);
        let first = Sample { pictures: late(&[(300, 40)]), ..Sample::default() };
        assert_eq!(playout.update(Instant::now(), first).playout, LEAST);
    }

    #[test]
    fn packets_that_come_unevenly_or_too_late_give_more_time() {
        let mut playout = Playout::new(Latency::Auto);
        let now = Instant::now();
        let uneven = Sample { sound: late(&[(50, 90), (110, 10)]), jitter: 30 * MS, ..Sample::default() };
        assert_eq!(playout.update(now, uneven).playout, 120 * MS);
        let lost = Sample { too_late: 3, ..Sample::default() };
        assert_eq!(playout.update(now, lost).playout, 150 * MS);
        assert_eq!(playout.update(now, Sample { too_late: 4, ..lost }).playout, 150 * MS, "not at once");
        let worst = Sample { sound: late(&[(3000, 10_000)]), jitter: Duration::from_secs(3), ..lost };
        let delays = playout.update(now, worst);
        assert_eq!((delays.playout, delays.repair), (MOST, REPAIR_MOST));
    }

    #[test]
    fn what_the_user_chose_stays_and_losses_are_waited_for_nonetheless() {
        let mut playout = Playout::new(Latency::Fixed(50 * MS));
        let lossy = second((400, 60), (400, 40));
        let delays = playout.update(Instant::now(), lossy);
        assert_eq!((delays.playout, delays.repair), (50 * MS, 360 * MS));
        let mut playout = Playout::new(Latency::Fixed(5000 * MS));
        let delays = playout.update(Instant::now(), lossy);
        assert_eq!((delays.playout, delays.repair), (5000 * MS, 5000 * MS));
    }

    proptest! {
        /// Whatever is measured, nonsense included, the delays stay within their bounds.
        #[test]
        fn it_stays_within_bounds(
            samples in prop::collection::vec((
                0..2000_u64, prop::option::of(0..5000_u64), any::<u64>(), 0..60_u64,
                prop::collection::vec((0..200_usize, any::<u32>()), 0..4)
            ), 0..50)
        ) {
            let (mut playout, mut now) = (Playout::new(Latency::Auto), Instant::now());
            for (jitter, trip, too_late, pause, counts) in samples {
                now += Duration::from_secs(pause);
                let round_trip = trip.map(Duration::from_millis);
                let mut late = Late::default();
                counts.into_iter().for_each(|(step, count)| late.add(step, count));
                let jitter = Duration::from_millis(jitter);
                let delays = playout.update(now, Sample { jitter, round_trip, pictures: late, sound: late, too_late });
                prop_assert!((LEAST..=MOST).contains(&delays.playout));
                prop_assert!((delays.playout..=REPAIR_MOST).contains(&delays.repair));
            }
        }
    }
}
