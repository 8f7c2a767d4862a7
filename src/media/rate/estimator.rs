//! Bandwidth estimate of a connection: by `rtpgccbwe` from transport-wide feedback (Google congestion control), or from
//! reported losses if the peer sends no such feedback.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::correction::{ByLoss, Correction};
use super::path_quality::{PacketFate, PathQuality, PathState};
use super::retransmissions::RetransmissionLimit;
use crate::base::lock::lock;
use crate::base::tasks::Tasks;
use crate::media::gst::{elements, rtp};

/// Interval between two updates of the estimate.
pub(crate) const UPDATE_INTERVAL: Duration = Duration::from_millis(200);

/// Maximum estimate, in bit/s.
const MOST: u32 = 400_000_000;

/// Minimum estimate, in bit/s; a call needs more.
const LEAST: u32 = 100_000;

/// Maximum number of second copies of retransmission requests that wait at a time.
const MAX_COPIES: usize = 256;

/// Rate of the headers of an audio stream, in bit/s: RTP, SRTP, UDP and IP, 50 packets a second.
const AUDIO_HEADERS: u32 = 24_000;

/// Estimate below which audio gets half its rate, in bit/s.
const NARROW: u32 = 200_000;

/// Division of the estimate among the sent streams, in bit/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Share of each audio stream.
    pub(crate) audio: u32,
    /// Share of each video stream.
    pub(crate) video: u32,
}

impl Shares {
    /// Divides `all` bit/s: audio first, then video, less 5 % for the headers of video packets.
    pub(crate) fn of(all: u32, audio_streams: u32, video_streams: u32, audio_wanted: u32) -> Self {
        let audio = if all < NARROW { audio_wanted / 2 } else { audio_wanted };
        let left = all.saturating_sub(audio_streams.saturating_mul(audio.saturating_add(AUDIO_HEADERS)));
        Self { audio, video: left / 20 * 19 / video_streams.max(1) }
    }
}

/// Bandwidth estimate of one connection.
#[derive(Debug)]
pub(crate) struct BandwidthEstimate {
    by_loss: Mutex<ByLoss>,
    correction: Mutex<Correction>,
    most: u32,
    last: AtomicU32,
    /// Whether losses are due to the path's nature, not to congestion.
    is_noisy: AtomicBool,
    /// Whether the peer has reported on received packets: until then the estimate is only its start value.
    is_known: AtomicBool,
    /// Second copies of retransmission requests.
    copies: Tasks,
}

/// An estimator beside a video stream. It receives the feedback for all packets of the connection, which goes up every
/// path into webrtcbin. Inside the stream's path it would hold packets back to pace them at the estimate, so that a
/// frame would need a whole frame interval to leave.
#[derive(Debug)]
pub(crate) struct Estimator {
    element: gst::Element,
    has_feedback: Arc<AtomicBool>,
    path: Arc<Mutex<PathQuality>>,
}

impl Estimator {
    /// Creates an estimator for the packets that leave over `pad`, starting at `start` bit/s; returns `None` if the
    /// element is not installed.
    pub(crate) fn beside(pad: &gst::Pad, pipeline: &gst::Pipeline, start: u32) -> Option<Self> {
        let element = gst::ElementFactory::make("rtpgccbwe")
            .property("min-bitrate", LEAST)
            .property("max-bitrate", MOST)
            .property("estimated-bitrate", start.max(LEAST))
            .build()
            .ok()?;
        pipeline.add(&element).ok()?;
        element.sync_state_with_parent().ok()?;
        let has_feedback = Arc::new(AtomicBool::new(false));
        let feedback = has_feedback.clone();
        element
            .connect_notify(Some("estimated-bitrate"), move |_, _| feedback.store(true, Ordering::Relaxed));
        let path = Arc::new(Mutex::new(PathQuality::default()));
        let (feed, of) = (element.static_pad("src")?.downgrade(), path.clone());
        pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
            let event = info.event().filter(|event| event.has_name("RTPTWCCPackets"));
            if let (Some(event), Some(feed)) = (event, feed.upgrade()) {
                let mut path = lock(&of);
                packets(event).into_iter().for_each(|packet| path.accept(packet));
                drop(path);
                feed.send_event(event.to_owned());
            }
            gst::PadProbeReturn::Ok
        });
        Some(Self { element, has_feedback, path })
    }

    /// Continues from this estimate, in bit/s.
    pub(crate) fn continue_from(&self, estimate: u32) {
        self.element.set_property("estimated-bitrate", estimate);
    }

    /// Returns the current findings; `None` before the first feedback.
    pub(crate) fn finding(&self) -> Option<Finding> {
        let estimate = || self.element.property("estimated-bitrate");
        let seen = || lock(&self.path).update();
        self.has_feedback.load(Ordering::Relaxed).then(|| Finding { estimate: estimate(), seen: seen() })
    }
}

/// Findings of an estimator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Finding {
    /// Bandwidth estimate in bit/s.
    pub(crate) estimate: u32,
    seen: PathState,
}

/// Returns the packets of a feedback event.
fn packets(event: &gst::EventRef) -> Vec<PacketFate> {
    let all = event.structure().and_then(|all| all.get::<gst::glib::ValueArray>("packets").ok());
    let one = |packet: gst::Structure| {
        let time = |name| packet.get::<gst::ClockTime>(name).ok().map(Duration::from);
        let arrived = time("remote-ts").filter(|_| packet.get::<bool>("lost") == Ok(false));
        Some(PacketFate {
            left: time("local-ts")?,
            arrived,
            bits: packet.get::<u32>("size").ok()?.saturating_mul(8),
        })
    };
    all.iter().flat_map(|all| all.iter()).filter_map(|packet| one(packet.get().ok()?)).collect()
}

impl BandwidthEstimate {
    /// Starts at `start` bit/s for all streams together; the estimate stays below `most`.
    pub(crate) fn of(start: u32, most: u32) -> Self {
        Self {
            by_loss: Mutex::new(ByLoss::new(start)),
            correction: Mutex::default(),
            most,
            last: AtomicU32::new(start),
            is_noisy: AtomicBool::new(false),
            is_known: AtomicBool::new(false),
            copies: Tasks::new(MAX_COPIES),
        }
    }

    /// Notes that the peer has reported on received packets, by transport feedback or RTCP reports.
    pub(crate) fn note_report(&self) {
        self.is_known.store(true, Ordering::Relaxed);
    }

    /// Returns the bandwidth estimate in bit/s; `None` before the peer's first report.
    pub(crate) fn known(&self) -> Option<u32> {
        self.is_known.load(Ordering::Relaxed).then(|| self.last())
    }

    /// Returns the bandwidth estimate in bit/s, from an estimator's findings or from the reported loss (in 1/256), and
    /// the estimate that the estimators are to continue from if it differs from theirs. Losses that are noise do not
    /// lower the estimate.
    pub(crate) fn update(&self, found: Option<Finding>, lost: u8) -> (u32, Option<u32>) {
        let now = Instant::now();
        let is_noisy = found.is_some_and(|found| found.seen.is_noisy);
        self.is_noisy.store(is_noisy, Ordering::Relaxed);
        let rate = match &found {
            Some(Finding { estimate, seen }) => {
                let (estimate, lost) =
                    if is_noisy { (self.last().max(*estimate), 0) } else { (*estimate, lost) };
                let mut correction = lock(&self.correction);
                correction.update(now, estimate, seen, lost, self.most).unwrap_or(estimate)
            }
            None => {
                let mut by_loss = lock(&self.by_loss);
                by_loss.update(now, lost, self.most)
            }
        };
        self.last.store(rate, Ordering::Relaxed);
        (rate, found.filter(|found| found.estimate != rate).map(|_| rate))
    }

    /// Limits the retransmissions of a webrtcbin to a share of the estimate. If losses are noise, a retransmission is
    /// lost as often as any packet, and there is no time for a second request, so that each retransmission is sent
    /// twice.
    pub(crate) fn limit_retransmissions(self: &Arc<Self>, webrtc: &gst::Element) {
        /// Marks the second copy of a request.
        const TWICE: &str = "twice";
        /// Pause between the two copies: packets are often lost together.
        const APART: Duration = Duration::from_millis(3);
        let own = Arc::downgrade(self);
        elements::on_added(webrtc, &["rtprtxsend"], move |element| {
            let (own, limit) = (own.clone(), Mutex::new(RetransmissionLimit::new()));
            let Some(pad) = element.static_pad("src") else { return };
            pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |pad, info| {
                let (Some(own), Some(request)) = (own.upgrade(), rtp::retransmission_request(info)) else {
                    return gst::PadProbeReturn::Ok;
                };
                let mut limit = lock(&limit);
                if !limit.allow(Instant::now(), own.last()) {
                    return gst::PadProbeReturn::Handled;
                }
                if own.is_noisy.load(Ordering::Relaxed) && !request.has_field(TWICE) {
                    let (pad, mut request) = (pad.downgrade(), request.to_owned());
                    request.set(TWICE, true);
                    own.copies.spawn(async move {
                        smol::Timer::after(APART).await;
                        if let Some(pad) = pad.upgrade() {
                            pad.send_event(gst::event::CustomUpstream::new(request));
                        }
                    });
                }
                gst::PadProbeReturn::Ok
            });
        });
    }

    /// Returns the current estimate in bit/s.
    pub(crate) fn last(&self) -> u32 {
        self.last.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(estimate: u32, is_noisy: bool) -> Option<Finding> {
        Some(Finding { estimate, seen: PathState { is_noisy, ..PathState::default() } })
    }

    #[test]
    fn retransmissions_are_doubled_where_losses_are_noise() {
        crate::media::gst::init().unwrap();
        let bandwidth = Arc::new(BandwidthEstimate::of(1_000_000, MOST));
        let bin = gst::Pipeline::new();
        bandwidth.limit_retransmissions(bin.upcast_ref());
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
        bandwidth.update(found(1_000_000, true), 25);
        ask();
        let until = Instant::now() + Duration::from_secs(60);
        while seen.load(Ordering::Relaxed) < 3 {
            assert!(Instant::now() < until, "not twice");
            std::thread::sleep(Duration::from_millis(1));
        }
        // Each packet is sent twice at most, and all within the limit.
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(seen.load(Ordering::Relaxed), 3);
        (0..1000).for_each(|_| ask());
        std::thread::sleep(Duration::from_millis(50));
        assert!(seen.load(Ordering::Relaxed) < 100, "{seen:?}");
    }

    #[test]
    fn audio_gets_its_share_first() {
        assert_eq!(Shares::of(1_072_000, 1, 1, 48_000), Shares { audio: 48_000, video: 950_000 });
        assert_eq!(Shares::of(100_000, 1, 1, 48_000), Shares { audio: 24_000, video: 49_400 });
        assert_eq!(Shares::of(0, 1, 1, 48_000), Shares { audio: 24_000, video: 0 });
        assert_eq!(Shares::of(2_000_000, 0, 2, 48_000).video, 950_000);
    }

    #[test]
    fn noise_does_not_lower_the_estimate() {
        let bandwidth = BandwidthEstimate::of(1_000_000, 2_000_000);
        assert_eq!(bandwidth.update(found(1_000_000, true), 26), (1_000_000, None));
        assert_eq!(bandwidth.update(found(950_000, true), 26), (1_000_000, Some(1_000_000)));
        assert_eq!(bandwidth.update(found(900_000, false), 26), (900_000, None));
        assert_eq!(bandwidth.update(found(950_000, true), 26), (950_000, None), "it may grow");
    }

    proptest! {
        /// Arbitrary reports cause no overflow, and the shares never exceed the estimate.
        #[test]
        fn arbitrary_reports_give_no_more_than_the_estimate(
            all: u32, audio_streams in 0..50_u32, video_streams in 0..50_u32, wanted: u32, losses in prop::collection::vec(any::<u8>(), 0..50)
        ) {
            let shares = Shares::of(all, audio_streams, video_streams, wanted);
            prop_assert!(u64::from(shares.video) * u64::from(video_streams) <= u64::from(all));
            let (mut by_loss, mut now) = (ByLoss::new(all), Instant::now());
            for lost in losses {
                now += Duration::from_secs(1);
                prop_assert!(by_loss.update(now, lost, wanted) <= wanted.max(all));
            }
        }
    }
}
