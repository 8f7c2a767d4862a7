//! Sources that deliver encoded video: network cameras, files, cameras with an encoder. Their frames pass through
//! unchanged to peers that can use them, and are decoded once for all others.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gst::prelude::*;
use gst_utils::StreamProducer;

pub(crate) use super::gop::DecoderFeed;
use super::gop::RecentFrames;
use crate::base::lock::lock;
use crate::media::gst::error::MediaError;
use crate::media::gst::{inventory, launch};
use crate::sdp::Codec;

/// Maximum time between key frames for passthrough: a peer that lost a packet has frozen video until the next one,
/// and a peer that joins has none.
pub const KEY_FRAMES: Duration = Duration::from_secs(4);

/// Video codecs by the name of their caps.
const NAMES: [(&str, Codec); 5] = [
    ("video/x-h264", Codec::H264),
    ("video/x-h265", Codec::H265),
    ("video/x-vp8", Codec::Vp8),
    ("video/x-vp9", Codec::Vp9),
    ("video/x-av1", Codec::Av1),
];

/// Returns the profiles that every decoder of a codec supports; caps without a profile count as one of them.
fn profiles(codec: Codec) -> &'static [&'static str] {
    match codec {
        Codec::H264 => {
            &["constrained-baseline", "baseline", "main", "constrained-high", "progressive-high", "high"]
        }
        Codec::H265 | Codec::Av1 => &["main"],
        Codec::Vp9 => &["0"],
        Codec::Vp8 => &["0", "1", "2", "3"],
        Codec::Opus | Codec::Pcmu | Codec::Pcma => &[],
    }
}

/// Returns the codec of encoded video caps.
pub(crate) fn codec_of(caps: &gst::CapsRef) -> Option<Codec> {
    let name = caps.structure(0)?.name();
    NAMES.iter().find(|(of, _)| *of == name.as_str()).map(|(_, codec)| *codec)
}

/// Returns the caps of encoded video that can pass through, as text.
pub(crate) fn caps() -> String {
    let sendable = NAMES.iter().filter(|(_, codec)| inventory::check_codec(*codec).is_ok());
    sendable.map(|(name, _)| *name).collect::<Vec<_>>().join(";")
}

/// Returns whether a pipeline's text ends in encoded video.
pub(crate) fn ends_encoded(text: &str) -> bool {
    let Ok(bin) = launch::parse_bin(text) else { return false };
    let caps = bin.static_pad("src").map(|pad| pad.query_caps(None));
    let is_encoded = |of: &gst::StructureRef| NAMES.iter().any(|(name, _)| *name == of.name().as_str());
    caps.is_some_and(|caps| !caps.is_any() && !caps.is_empty() && caps.iter().all(is_encoded))
}

/// Returns the elements between the source and the payloader as gst-launch text; they make whole frames with their
/// parameter sets.
pub(crate) fn through(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => "h264parse config-interval=-1 ! video/x-h264,stream-format=byte-stream,alignment=au",
        Codec::H265 => "h265parse config-interval=-1 ! video/x-h265,stream-format=byte-stream,alignment=au",
        Codec::Vp9 => "vp9parse ! video/x-vp9,alignment=super-frame",
        Codec::Av1 => "av1parse ! video/x-av1,stream-format=obu-stream,alignment=tu",
        Codec::Vp8 | Codec::Opus | Codec::Pcmu | Codec::Pcma => "identity",
    }
}

/// Reason why a source does not pass through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Obstacle {
    /// Frames are not in display order (B-frames), and RTP receivers do not reorder them.
    Order = 1,
    /// More time than [`KEY_FRAMES`] lies between key frames.
    KeyFrames,
    /// Not every decoder supports the profile.
    Profile,
    /// The frames cannot be parsed.
    Broken,
    /// The user wants another frame size.
    Size,
    /// The video is stored rotated or mirrored, as by a phone that is held upright.
    Turned,
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Order => f.write_str("it has B-frames"),
            Self::KeyFrames => write!(f, "more than {} s lie between its key frames", KEY_FRAMES.as_secs()),
            Self::Size => f.write_str("another size is wanted"),
            Self::Turned => f.write_str("it is stored turned, and is sent upright"),
            Self::Broken => f.write_str("its frames cannot be read"),
            Self::Profile => f.write_str("its profile is not one that everybody decodes"),
        }
    }
}

/// Observations of a source's encoded frames.
#[derive(Debug, Default)]
pub struct FrameWatch {
    /// Times and sizes of the frames of the last [`FrameWatch::WINDOW`].
    recent: VecDeque<(Duration, usize)>,
    bytes: usize,
    last: Option<Duration>,
    key: Option<Duration>,
    keys: u32,
}

impl FrameWatch {
    const WINDOW: Duration = Duration::from_secs(3);

    /// Accepts a frame's time, its size in bytes and whether it is a key frame; returns a newly found obstacle.
    pub fn accept(&mut self, time: Duration, bytes: usize, is_key: bool) -> Option<Obstacle> {
        let is_back = self.last.is_some_and(|last| time < last);
        if is_back && is_key {
            // The source restarted.
            *self = Self::default();
        }
        self.recent.push_back((time, bytes));
        self.bytes += bytes;
        while self.recent.front().is_some_and(|(first, _)| time.saturating_sub(*first) > Self::WINDOW) {
            self.bytes -= self.recent.pop_front().map_or(0, |(_, bytes)| bytes);
        }
        self.last = Some(time);
        if is_key {
            self.key = Some(time);
            self.keys += 1;
        }
        if is_back && !is_key {
            return Some(Obstacle::Order);
        }
        let key = *self.key.get_or_insert(time);
        (time.saturating_sub(key) > KEY_FRAMES).then_some(Obstacle::KeyFrames)
    }

    /// Returns whether the interval of key frames is known to suffice.
    pub fn is_proven(&self) -> bool {
        self.keys > 1
    }

    /// Returns the bitrate in bit/s; `None` during the first second.
    pub fn rate(&self) -> Option<u32> {
        let span = self.last?.saturating_sub(self.recent.front()?.0).as_secs_f64();
        (span >= 1.0).then(|| (self.bytes as f64 * 8.0 / span).min(f64::from(u32::MAX)) as u32)
    }
}

/// Returns the value of videoflip's `video-direction` that turns video with this `image-orientation` upright.
fn turn(orientation: &str) -> &'static str {
    match orientation {
        "rotate-90" => "90r",
        "rotate-180" => "180",
        "rotate-270" => "90l",
        "flip-rotate-0" => "horiz",
        "flip-rotate-90" => "ur-ll",
        "flip-rotate-180" => "vert",
        "flip-rotate-270" => "ul-lr",
        _ => UPRIGHT,
    }
}

const UPRIGHT: &str = "identity";

/// Observer of encoded frames, attached before it is known whether the source delivers any.
#[derive(Debug, Clone)]
pub(crate) struct Tap {
    observed: Arc<Observed>,
    recent_frames: RecentFrames,
}

impl Tap {
    /// Attaches an observer to this sink pad, from the first frame on.
    pub(crate) fn on(pad: &gst::Pad) -> Self {
        let tap = Self { observed: Arc::default(), recent_frames: RecentFrames::new() };
        let (to, recent_frames, watch) =
            (tap.observed.clone(), tap.recent_frames.clone(), Mutex::new(FrameWatch::default()));
        let types = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        pad.add_probe(types, move |pad, info| {
            if let Some(gst::EventView::Tag(event)) = info.event().map(|event| event.view()) {
                let orientation = event.tag().get::<gst::tags::ImageOrientation>();
                to.turn(orientation.map_or(UPRIGHT, |orientation| turn(orientation.get())));
            }
            let (Some(buffer), Some(caps)) = (info.buffer(), pad.current_caps()) else {
                return gst::PadProbeReturn::Ok;
            };
            let is_key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
            recent_frames.push(buffer, &caps, is_key);
            if let Some(time) = buffer.pts() {
                let mut watch = lock(&watch);
                let found = watch.accept(time.into(), buffer.size(), is_key);
                let odd = is_key && !has_common_profile(&caps);
                if let Some(found) = found.or(odd.then_some(Obstacle::Profile)) {
                    to.refuse(found);
                }
                to.is_proven.fetch_or(watch.is_proven(), Ordering::Relaxed);
                to.rate.store(watch.rate().unwrap_or_default(), Ordering::Relaxed);
            }
            gst::PadProbeReturn::Ok
        });
        tap
    }
}

/// The encoded frames of a source.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Codec of the frames.
    pub codec: Codec,
    /// Producer of the frames.
    pub(crate) producer: StreamProducer,
    tap: Tap,
}

#[derive(Debug)]
struct Observed {
    /// Bitrate in bit/s; 0 until known.
    rate: AtomicU32,
    /// Number of the first obstacle; 0 if there is none.
    obstacle: AtomicU8,
    is_proven: AtomicBool,
    /// Value of videoflip's `video-direction` that turns the video upright.
    turn: Mutex<&'static str>,
}

impl Default for Observed {
    fn default() -> Self {
        let turn = Mutex::new(UPRIGHT);
        Self { rate: AtomicU32::new(0), obstacle: AtomicU8::new(0), is_proven: AtomicBool::new(false), turn }
    }
}

impl Observed {
    fn refuse(&self, obstacle: Obstacle) {
        if self.obstacle.swap(obstacle as u8, Ordering::Relaxed) == 0 {
            tracing::warn!("the source's frames are encoded again: {obstacle}");
        }
    }

    fn turn(&self, turn: &'static str) {
        if turn != UPRIGHT {
            *lock(&self.turn) = turn;
            self.refuse(Obstacle::Turned);
        }
    }
}

impl Encoded {
    /// Ends passthrough of this source for good.
    pub(crate) fn refuse(&self, obstacle: Obstacle) {
        self.tap.observed.refuse(obstacle);
    }

    /// Returns the encoded frames that arrived at this appsink, over the pad that `tap` observes.
    pub(crate) fn of(
        appsink: &gst_app::AppSink,
        producer: StreamProducer,
        tap: Tap,
    ) -> Result<Self, MediaError> {
        let failed = || MediaError::pipeline("reading an encoded source", "unknown codec");
        let pad = appsink.static_pad("sink").ok_or_else(failed)?;
        let codec = pad.current_caps().and_then(|caps| codec_of(&caps)).ok_or_else(failed)?;
        Ok(Self { codec, producer, tap })
    }

    /// Feeds a decoder with the frames from the current key frame on. The sink pad `raw`, which the decoded frames
    /// pass, drops those older than the current frame.
    pub(crate) fn feed(&self, appsrc: gst_app::AppSrc, raw: Option<gst::Pad>) -> DecoderFeed {
        self.tap.recent_frames.feed(appsrc, raw)
    }

    /// Returns the value of videoflip's `video-direction` that turns the video upright.
    pub(crate) fn turn(&self) -> &'static str {
        *lock(&self.tap.observed.turn)
    }

    /// Returns the bitrate in bit/s, once known.
    pub fn rate(&self) -> Option<u32> {
        Some(self.tap.observed.rate.load(Ordering::Relaxed)).filter(|rate| *rate > 0)
    }

    /// Returns whether passthrough is proven: a second key frame arrived in time, and no obstacle is known.
    pub fn is_proven(&self) -> bool {
        self.can_pass() && self.tap.observed.is_proven.load(Ordering::Relaxed)
    }

    /// Returns whether no obstacle is known. An obstacle is final.
    pub fn can_pass(&self) -> bool {
        self.tap.observed.obstacle.load(Ordering::Relaxed) == 0
    }
}

fn has_common_profile(caps: &gst::CapsRef) -> bool {
    let profile = caps.structure(0).and_then(|caps| caps.get::<&str>("profile").ok());
    let observed = codec_of(caps).zip(profile);
    observed.is_none_or(|(codec, profile)| profiles(codec).contains(&profile))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn streams_in_order_with_key_frames_pass_through() {
        let mut watch = FrameWatch::default();
        for n in 0..300_u32 {
            assert_eq!(watch.accept(n * 40 * MS, 5000, n % 50 == 0), None);
        }
        assert_eq!(
            watch.rate().unwrap() / 10_000,
            101,
            "25 frames of 5000 bytes, and the one that the window begins with"
        );
        assert_eq!(watch.accept(Duration::ZERO, 10, true), None, "a source may begin anew");
        assert_eq!(watch.rate(), None);
    }

    #[test]
    fn streams_out_of_order_or_without_key_frames_do_not_pass() {
        let mut watch = FrameWatch::default();
        assert_eq!(
            [0, 120, 40].map(|ms| watch.accept(ms * MS, 10, ms == 0)),
            [None, None, Some(Obstacle::Order)]
        );
        let mut watch = FrameWatch::default();
        let found = (0..200_u32).filter_map(|n| watch.accept(n * 40 * MS, 10, n == 0)).next();
        assert_eq!(found, Some(Obstacle::KeyFrames));
    }

    #[test]
    fn texts_that_end_in_encoded_video_are_recognised() {
        crate::media::gst::init().unwrap();
        assert!(ends_encoded("videotestsrc ! x264enc ! h264parse"));
        assert!(ends_encoded("rtspsrc location=rtsp://localhost ! rtph264depay"));
        assert!(!ends_encoded("videotestsrc ! video/x-raw,width=64"));
        assert!(!ends_encoded("videotestsrc ! identity") && !ends_encoded("nonsense"));
    }

    proptest! {
        /// Arbitrary times and sizes cause no overflow, and the window stays small.
        #[test]
        fn arbitrary_frames_are_counted(frames in prop::collection::vec((any::<u32>(), 0..usize::MAX / 1000, any::<bool>()), 0..200)) {
            let mut watch = FrameWatch::default();
            for (ms, bytes, is_key) in frames {
                watch.accept(Duration::from_millis(ms.into()), bytes, is_key);
                prop_assert_eq!(watch.bytes, watch.recent.iter().map(|(_, bytes)| bytes).sum::<usize>());
            }
        }
    }
}
