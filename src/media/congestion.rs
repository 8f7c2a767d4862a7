//! How much the network takes to a peer: estimated by `rtpgccbwe` from transport-wide feedback (Google congestion
//! control), or from the losses that a peer reports which does not speak that.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;

/// Between two looks at the estimate.
pub(super) const LOOK: Duration = Duration::from_millis(200);

/// More is never asked of a network, in bit/s.
const MOST: u32 = 400_000_000;

/// Less is hardly a call, in bit/s.
const LEAST: u32 = 100_000;

/// What a packet of sound takes besides the sound: headers of RTP, SRTP, UDP and IP, 50 times a second, in bit/s.
const SOUND_HEADERS: u32 = 24_000;

/// Below that for all together sound makes do with less (bit/s).
const NARROW: u32 = 200_000;

/// How what the network takes is given to what is sent, in bit/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    /// For each stream of sound.
    pub(super) sound: u32,
    /// For each stream of pictures.
    pub(super) pictures: u32,
}

impl Shares {
    /// Sound first; what is left is for the pictures, less a twentieth for their packets' headers.
    pub(super) fn of(all: u32, sounds: u32, pictures: u32, sound_wanted: u32) -> Self {
        let sound = if all < NARROW { sound_wanted / 2 } else { sound_wanted };
        let left = all.saturating_sub(sounds.saturating_mul(sound.saturating_add(SOUND_HEADERS)));
        Self { sound, pictures: left / 20 * 19 / pictures.max(1) }
    }
}

/// An estimate by the losses alone, for peers without transport-wide feedback.
#[derive(Debug)]
pub(super) struct ByLoss {
    rate: u32,
    changed: Option<Instant>,
}

impl ByLoss {
    /// Begins with that rate, in bit/s.
    pub(super) fn new(rate: u32) -> Self {
        Self { rate, changed: None }
    }

    /// Takes the losses that the peer reports, in 1/256 (RFC 3550, 6.4.1); the rate from now on.
    pub(super) fn update(&mut self, now: Instant, lost: u8, most: u32) -> u32 {
        const PAUSE: Duration = Duration::from_secs(1);
        if self.changed.is_some_and(|at| now.saturating_duration_since(at) < PAUSE) {
            return self.rate;
        }
        let share = f64::from(lost) / 256.0;
        // As the loss controller of draft-ietf-rmcat-gcc-02, 6.
        let factor = match share {
            share if share > 0.1 => 1.0 - share / 2.0,
            share if share < 0.02 => 1.05,
            _ => 1.0,
        };
        self.changed = Some(now);
        self.rate = (f64::from(self.rate) * factor).min(f64::from(most)) as u32;
        self.rate
    }
}

/// Growth beyond the estimator's own, which is 8 % a second (draft-ietf-rmcat-gcc-02, 5.5) and has no probes: when all
/// has been well for a while there is more room than that.
#[derive(Debug, Default)]
pub(super) struct Growth {
    last: u32,
    /// Since when the estimate did not come down and nothing was lost.
    well: Option<Instant>,
    grown: Option<Instant>,
}

impl Growth {
    const PATIENCE: Duration = Duration::from_secs(5);
    const PAUSE: Duration = Duration::from_secs(1);

    /// Takes the estimate and the losses; the estimate to go on with, where it is to grow. All in bit/s.
    pub(super) fn update(&mut self, now: Instant, estimate: u32, lost: u8, most: u32) -> Option<u32> {
        let is_well = estimate >= self.last && lost == 0;
        self.last = estimate;
        if !is_well {
            self.well = None;
            return None;
        }
        let well = *self.well.get_or_insert(now);
        let is_time = self.grown.is_none_or(|at| now.saturating_duration_since(at) >= Self::PAUSE);
        if !is_time || now.saturating_duration_since(well) < Self::PATIENCE || estimate >= most {
            return None;
        }
        self.grown = Some(now);
        self.last = estimate.saturating_add(estimate / 5).min(most);
        Some(self.last)
    }
}

/// What transport-wide feedback tells of the way there: what is lost on it, and what waits. Losses while nothing waits are the
/// network's nature, as over radio, and no sign that it is full; the estimator takes more than 10 % for too much in any
/// case (draft-ietf-rmcat-gcc-02, 6), and goes down to nothing.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// The least time over it in this [`Way::WINDOW`] and in the one before, in ns; the clocks at its ends differ.
    least: [Option<i64>; 2],
    turned: Option<Duration>,
    /// Means of the last packets: the share that is lost, and what the others waited in ns.
    lost: f64,
    waits: f64,
}

impl Way {
    /// The share of losses that is borne; more is a network that polices what comes, without letting it wait.
    const BORNE: std::ops::RangeInclusive<f64> = 0.03..=0.2;
    /// So much packets wait by chance, in ns.
    const CHANCE: f64 = 20e6;
    const WINDOW: Duration = Duration::from_secs(10);
    /// The weight of one packet.
    const WEIGHT: f64 = 0.01;

    /// Takes when a packet left, and when it arrived, where it did: each by the clock there.
    pub(super) fn take(&mut self, left: Duration, arrived: Option<Duration>) {
        self.lost += (f64::from(u8::from(arrived.is_none())) - self.lost) * Self::WEIGHT;
        let Some(arrived) = arrived else { return };
        let nanos = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        let took = nanos(arrived).saturating_sub(nanos(left));
        if left.saturating_sub(*self.turned.get_or_insert(left)) > Self::WINDOW {
            self.turned = Some(left);
            self.least = [None, self.least[0]];
        }
        self.least[0] = Some(self.least[0].map_or(took, |least| least.min(took)));
        let least = self.least.into_iter().flatten().min().unwrap_or(took);
        self.waits += (took.saturating_sub(least) as f64 - self.waits) * Self::WEIGHT;
    }

    /// Whether what is lost is lost by the network's nature.
    pub(super) fn is_noisy(&self) -> bool {
        Self::BORNE.contains(&self.lost) && self.waits < Self::CHANCE
    }
}

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

/// The estimate of one connection.
#[derive(Debug)]
pub(super) struct Congestion {
    by_loss: Mutex<ByLoss>,
    growth: Mutex<Growth>,
    most: u32,
    last: AtomicU32,
    /// Losses are the network's nature.
    is_noisy: AtomicBool,
}

/// An estimator beside the way of a stream of pictures. It is fed by the feedback for all that the connection sends,
/// which comes up every way into webrtcbin. In the way it would hold packets back until they fit the estimate exactly,
/// so that each picture would take as long to leave as until the next one.
#[derive(Debug)]
pub(super) struct Estimator {
    element: gst::Element,
    is_heard: Arc<AtomicBool>,
    way: Arc<Mutex<Way>>,
}

impl Estimator {
    /// Beside that pad, over which packets leave; it begins with that rate (bit/s). None where there is no element
    /// for it.
    pub(super) fn beside(pad: &gst::Pad, pipeline: &gst::Pipeline, start: u32) -> Option<Self> {
        let element = gst::ElementFactory::make("rtpgccbwe")
            .property("min-bitrate", LEAST)
            .property("max-bitrate", MOST)
            .property("estimated-bitrate", start.max(LEAST))
            .build()
            .ok()?;
        pipeline.add(&element).ok()?;
        element.sync_state_with_parent().ok()?;
        let is_heard = Arc::new(AtomicBool::new(false));
        let heard = is_heard.clone();
        element.connect_notify(Some("estimated-bitrate"), move |_, _| heard.store(true, Ordering::Relaxed));
        let way = Arc::new(Mutex::new(Way::default()));
        let (feed, of) = (element.static_pad("src")?.downgrade(), way.clone());
        pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
            let event = info.event().filter(|event| event.has_name("RTPTWCCPackets"));
            if let (Some(event), Some(feed)) = (event, feed.upgrade()) {
                let mut way = of.lock().unwrap_or_else(PoisonError::into_inner);
                packets(event).into_iter().for_each(|(left, arrived)| way.take(left, arrived));
                drop(way);
                feed.send_event(event.to_owned());
            }
            gst::PadProbeReturn::Ok
        });
        Some(Self { element, is_heard, way })
    }

    /// Goes on from that, in bit/s.
    pub(super) fn go_on_from(&self, estimate: u32) {
        self.element.set_property("estimated-bitrate", estimate);
    }

    /// Whether losses are the network's nature.
    pub(super) fn is_noisy(&self) -> bool {
        self.way.lock().unwrap_or_else(PoisonError::into_inner).is_noisy()
    }

    /// What it found, in bit/s; none before the first feedback.
    pub(super) fn found(&self) -> Option<u32> {
        self.is_heard.load(Ordering::Relaxed).then(|| self.element.property("estimated-bitrate"))
    }
}

/// When the packets that a feedback names left, and when they arrived, where they did.
fn packets(event: &gst::EventRef) -> Vec<(Duration, Option<Duration>)> {
    let all = event.structure().and_then(|all| all.get::<gst::glib::ValueArray>("packets").ok());
    let one = |packet: gst::Structure| {
        let time = |name| packet.get::<gst::ClockTime>(name).ok().map(Duration::from);
        Some((time("local-ts")?, time("remote-ts").filter(|_| packet.get::<bool>("lost") == Ok(false))))
    };
    all.iter().flat_map(|all| all.iter()).filter_map(|packet| one(packet.get().ok()?)).collect()
}

impl Congestion {
    /// Begins with that rate for all together (bit/s), and goes up to that one.
    pub(super) fn of(start: u32, most: u32) -> Self {
        Self {
            by_loss: Mutex::new(ByLoss::new(start)),
            growth: Mutex::default(),
            most,
            last: AtomicU32::new(start),
            is_noisy: AtomicBool::new(false),
        }
    }

    /// What the network takes, in bit/s: as an estimator found, or by the losses that the peer reports (in 1/256). Where
    /// what is lost is noise, it does not come down. And what the estimator is to go on from, where that is something else.
    pub(super) fn look(&self, found: Option<u32>, lost: u8, is_noisy: bool) -> (u32, Option<u32>) {
        let now = Instant::now();
        self.is_noisy.store(is_noisy, Ordering::Relaxed);
        let (rate, grown) = match found {
            Some(found) if is_noisy && found < self.last() => (self.last(), Some(self.last())),
            Some(found) => {
                let mut growth = self.growth.lock().unwrap_or_else(PoisonError::into_inner);
                let grown = growth.update(now, found, lost, self.most);
                (grown.unwrap_or(found), grown)
            }
            None => {
                let mut by_loss = self.by_loss.lock().unwrap_or_else(PoisonError::into_inner);
                (by_loss.update(now, lost, self.most), None)
            }
        };
        self.last.store(rate, Ordering::Relaxed);
        (rate, grown)
    }

    /// Lets this webrtcbin send again only so much of what is asked for. Where losses are the network's nature, that is lost as
    /// often as the rest, and there is no time to ask for it a second time: it is sent twice.
    pub(super) fn limit_repeats(self: &Arc<Self>, webrtc: &gst::Element) {
        /// Marks what was not asked for.
        const TWICE: &str = "twice";
        /// What is lost is often lost together.
        const APART: Duration = Duration::from_millis(3);
        let own = Arc::downgrade(self);
        super::transport::with_each(webrtc, &["rtprtxsend"], move |element| {
            let (own, repeats) = (own.clone(), Mutex::new(Repeats::new()));
            let Some(pad) = element.static_pad("src") else { return };
            pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |pad, info| {
                let request = info.event().and_then(|event| event.structure());
                let request = request.filter(|request| request.name() == "GstRTPRetransmissionRequest");
                let (Some(own), Some(request)) = (own.upgrade(), request) else {
                    return gst::PadProbeReturn::Ok;
                };
                let mut repeats = repeats.lock().unwrap_or_else(PoisonError::into_inner);
                if !repeats.allow(Instant::now(), own.last()) {
                    return gst::PadProbeReturn::Handled;
                }
                if own.is_noisy.load(Ordering::Relaxed) && !request.has_field(TWICE) {
                    let (pad, mut request) = (pad.downgrade(), request.to_owned());
                    request.set(TWICE, true);
                    smol::spawn(async move {
                        smol::Timer::after(APART).await;
                        if let Some(pad) = pad.upgrade() {
                            pad.send_event(gst::event::CustomUpstream::new(request));
                        }
                    })
                    .detach();
                }
                gst::PadProbeReturn::Ok
            });
        });
    }

    /// Where it is now, in bit/s.
    pub(super) fn last(&self) -> u32 {
        self.last.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_lost_by_nature_is_sent_again_twice() {
        crate::media::init().unwrap();
        let congestion = Arc::new(Congestion::of(1_000_000, MOST));
        let bin = gst::Pipeline::new();
        congestion.limit_repeats(bin.upcast_ref());
        let element = gst::ElementFactory::make("rtprtxsend").build().unwrap();
        bin.add(&element).unwrap();
        let pad = element.static_pad("src").unwrap();
        pad.set_active(true).unwrap();
        let seen = Arc::new(AtomicU32::new(0));
        let count = seen.clone();
        pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            gst::PadProbeReturn::Ok
        });
        let ask = || {
            let request = gst::Structure::builder("GstRTPRetransmissionRequest").field("seqnum", 7_u32);
            pad.send_event(gst::event::CustomUpstream::new(request.field("ssrc", 1_u32).build()));
        };
        ask();
        assert_eq!(seen.load(Ordering::Relaxed), 1);
        congestion.look(Some(1_000_000), 25, true);
        ask();
        let until = Instant::now() + Duration::from_secs(5);
        while seen.load(Ordering::Relaxed) < 3 {
            assert!(Instant::now() < until, "not twice");
            std::thread::sleep(Duration::from_millis(1));
        }
        // No more often than that, and no more than is allowed at all.
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(seen.load(Ordering::Relaxed), 3);
        (0..1000).for_each(|_| ask());
        std::thread::sleep(Duration::from_millis(50));
        assert!(seen.load(Ordering::Relaxed) < 100, "{seen:?}");
    }

    #[test]
    fn sound_comes_first() {
        assert_eq!(Shares::of(1_072_000, 1, 1, 48_000), Shares { sound: 48_000, pictures: 950_000 });
        assert_eq!(Shares::of(100_000, 1, 1, 48_000), Shares { sound: 24_000, pictures: 49_400 });
        assert_eq!(Shares::of(0, 1, 1, 48_000), Shares { sound: 24_000, pictures: 0 });
        assert_eq!(Shares::of(2_000_000, 0, 2, 48_000).pictures, 950_000);
    }

    #[test]
    fn when_all_is_well_for_long_it_grows_faster() {
        let (mut growth, start) = (Growth::default(), Instant::now());
        let mut estimate = 300_000;
        let mut at = |second: u64, lost, estimate| {
            growth.update(start + Duration::from_secs(second), estimate, lost, 1_000_000)
        };
        for second in 0..5 {
            assert_eq!(at(second, 0, estimate), None);
        }
        estimate = at(5, 0, estimate).unwrap();
        assert_eq!(estimate, 360_000);
        assert_eq!(at(6, 1, estimate), None, "a loss");
        assert_eq!(at(7, 0, estimate), None);
        assert_eq!(at(11, 0, estimate - 1), None, "it came down");
        assert_eq!(at(12, 0, estimate), None);
        assert_eq!(at(17, 0, 990_000), Some(1_000_000));
        assert_eq!(at(19, 0, 1_000_000), None, "no more than that");
    }

    #[test]
    fn losses_while_nothing_waits_are_noise() {
        const MS: Duration = Duration::from_millis(1);
        // So many of a thousand are lost; the others take that long, by a clock that is an hour ahead.
        let after = |lost: u32, took: &dyn Fn(u32) -> u32| {
            let mut way = Way::default();
            for n in 0..1000_u32 {
                let left = n * 10 * MS;
                let arrives = n * 7919 % 1000 >= lost;
                way.take(left, arrives.then(|| left + Duration::from_secs(3600) + took(n) * MS));
            }
            way.is_noisy()
        };
        let even = |n| 50 + n % 7;
        assert!(after(100, &even));
        assert!(!after(0, &even), "nothing is lost");
        assert!(!after(400, &even), "too much is");
        assert!(!after(100, &|n| 50 + n / 10), "what is lost of a queue that grows is no noise");
    }

    #[test]
    fn the_estimate_stays_where_it_was_for_noise() {
        let congestion = Congestion::of(1_000_000, 2_000_000);
        assert_eq!(congestion.look(Some(1_000_000), 26, true), (1_000_000, None));
        assert_eq!(congestion.look(Some(950_000), 26, true), (1_000_000, Some(1_000_000)));
        assert_eq!(congestion.look(Some(900_000), 26, false), (900_000, None));
        assert_eq!(congestion.look(Some(950_000), 26, true), (950_000, None), "it may grow");
    }

    #[test]
    fn no_more_than_a_share_is_sent_again() {
        let (mut repeats, start) = (Repeats::new(), Instant::now());
        // A peer that asks for everything again and again, for ten seconds.
        let allowed =
            (0..10_000).filter(|ms| repeats.allow(start + Duration::from_millis(*ms), 960_000)).count();
        assert!((260..=280).contains(&allowed), "{allowed} packets");
    }

    #[test]
    fn losses_bring_the_rate_down_and_it_comes_back() {
        let (mut by_loss, mut now) = (ByLoss::new(1_000_000), Instant::now());
        assert_eq!(by_loss.update(now, 128, 1_000_000), 750_000);
        assert_eq!(by_loss.update(now, 128, 1_000_000), 750_000, "one report counts once");
        let mut next = |lost| {
            now += Duration::from_secs(1);
            by_loss.update(now, lost, 1_000_000)
        };
        assert_eq!(next(13), 750_000, "5 % is nothing to act on");
        assert_eq!(next(0), 787_500);
        assert_eq!((0..20).map(|_| next(0)).last(), Some(1_000_000));
    }

    proptest! {
        /// Whatever a peer reports, nothing overflows and no more is given than there is.
        #[test]
        fn nonsense_gives_no_more_than_there_is(
            all: u32, sounds in 0..50_u32, pictures in 0..50_u32, wanted: u32, losses in prop::collection::vec(any::<u8>(), 0..50)
        ) {
            let shares = Shares::of(all, sounds, pictures, wanted);
            prop_assert!(u64::from(shares.pictures) * u64::from(pictures) <= u64::from(all));
            let (mut by_loss, mut now) = (ByLoss::new(all), Instant::now());
            for lost in losses {
                now += Duration::from_secs(1);
                prop_assert!(by_loss.update(now, lost, wanted) <= wanted.max(all));
            }
        }
    }
}
