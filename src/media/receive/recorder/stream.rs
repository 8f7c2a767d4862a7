//! A stream of a recording, from its producer to the muxer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gst::prelude::*;
use gst_utils::streamproducer::ConsumerSettings;
use gst_utils::{ConsumptionLink, StreamProducer};

use crate::media::gst::launch;
use crate::media::gst::pipeline::running_time;
use crate::media::receive::playout_delay;
use crate::media::receive::track::{Counters, Track};
use crate::sdp::{Codec, Kind};

/// Maximum time that a frame has waited in a jitter buffer: behind a lost packet, for a fixed playout delay.
const WAIT_MAX: gst::ClockTime = gst::ClockTime::from_mseconds(playout_delay::FIXED_MAX.as_millis() as u64);

/// Silence after which a stream is left out of the rest of the file, because the muxer makes the others wait for it;
/// less than [`QUEUE`].
const QUIET: gst::ClockTime = gst::ClockTime::from_seconds(5);

/// Maximum length of a stream that is queued while it waits for the others, in ns.
const QUEUE: u64 = 20_000_000_000;

/// Maximum time until the first frame of a stream, which is a key frame, is in the file; less than [`QUEUE`].
const FIRST: Duration = Duration::from_secs(15);

/// A stream to be recorded.
pub(crate) struct Input {
    pub(crate) producer: StreamProducer,
    pub(crate) kind: Kind,
    /// Counters of the peer's track; absent for other streams.
    pub(crate) counters: Option<Arc<Counters>>,
    /// Elements in front of the muxer, as gst-launch text.
    pub(crate) through: String,
    /// Maximum duration of queued frames. Encoded frames are small, and none may be dropped; raw frames are large, and
    /// a machine that cannot keep up drops some.
    pub(crate) most: gst::ClockTime,
}

impl Input {
    pub(super) fn of(track: &Track) -> Self {
        // The muxer accepts H.264 as stored in MP4, with the parameter sets in the caps. For codecs without a parser,
        // the caps select the muxer's pad.
        let parse = match track.codec {
            Codec::H264 => "h264parse ! video/x-h264,stream-format=avc,alignment=au",
            Codec::H265 => "h265parse ! video/x-h265,stream-format=hvc1,alignment=au",
            Codec::Av1 => "av1parse ! video/x-av1,stream-format=obu-stream,alignment=tu",
            Codec::Vp9 => "vp9parse ! video/x-vp9,alignment=super-frame",
            Codec::Opus => "opusparse",
            Codec::Vp8 | Codec::Pcmu | Codec::Pcma => "identity",
        };
        let most = gst::ClockTime::from_seconds(10);
        let (producer, counters) = (track.producer.clone(), Some(track.counters.clone()));
        Self { producer, kind: track.kind(), counters, through: parse.to_owned(), most }
    }
}

/// Elements of one stream, up to the muxer.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) producer: StreamProducer,
    pub(super) link: ConsumptionLink,
    pub(super) kind: Kind,
    pub(super) source: gst_app::AppSrc,
    /// Pad that leads to the muxer; blocked until the recording begins.
    pub(super) end: gst::Pad,
    pub(super) hold: Option<gst::PadProbeId>,
    /// Arrival time of the last frame, in ns of the running time; 0 before the first frame.
    pub(super) last: Arc<AtomicU64>,
    pub(super) counters: Option<Arc<Counters>>,
    pub(super) left_out: Option<LeftOut>,
}

/// Reason why a stream is left out of the rest of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeftOut {
    /// No key frame arrived in time.
    NeverBegan,
    /// The stream stopped after this many frames.
    Stopped(u64),
}

impl Stream {
    /// Builds the elements of a stream in the recorder's pipeline. Frames are queued until [`Self::hold`] is removed.
    pub(super) fn start(
        input: &Input,
        pipeline: &gst::Pipeline,
        clock: Arc<Clock>,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let text = format!(
            "appsrc name=in ! {} ! identity name=same ! \
             queue name=end max-size-time={QUEUE} max-size-buffers=0 max-size-bytes=0",
            input.through
        );
        let bin = launch::parse_bin_ending(&text, "end")?;
        let source: gst_app::AppSrc = launch::by_name(&bin, "in")?;
        let same: gst::Element = launch::by_name(&bin, "same")?;
        let last = Arc::new(AtomicU64::new(0));
        from_zero(&source, clock, last.clone());
        source.static_pad("src").iter().for_each(drop_gaps);
        same.static_pad("src").iter().for_each(keep_first_caps);
        let end = bin.static_pad("src").ok_or("a stream has no end")?;
        let hold = end.add_probe(gst::PadProbeType::BLOCK_DOWNSTREAM, |_, _| gst::PadProbeReturn::Ok);
        pipeline.add(&bin)?;
        // The appsrc must be live and have its format set before it starts.
        let settings = ConsumerSettings { max_time: input.most, ..Default::default() };
        StreamProducer::configure_consumer_with(&source, settings.clone());
        bin.sync_state_with_parent()?;
        let link = input.producer.add_consumer_with(&source, settings)?;
        let (producer, counters, kind) = (input.producer.clone(), input.counters.clone(), input.kind);
        Ok(Self { producer, link, kind, source, end, hold, last, counters, left_out: None })
    }

    /// Ends the stream in the file.
    pub(super) fn end(&mut self) {
        self.link.disconnect();
        let _ = self.source.end_of_stream();
    }

    fn frames(&self) -> u64 {
        self.counters.as_ref().map_or(0, |counters| counters.frames.load(Ordering::Relaxed))
    }

    /// Returns the reason to leave out the stream if it holds up the others; `since` is the time since the recording
    /// began.
    fn is_missed(&self, since: Duration) -> Option<LeftOut> {
        let last = self.last.load(Ordering::Relaxed);
        let is_quiet = || running_time() >= gst::ClockTime::from_nseconds(last) + QUIET;
        match (self.left_out, last) {
            (Some(_), _) => None,
            (None, 0) => (since >= FIRST).then_some(LeftOut::NeverBegan),
            (None, _) => is_quiet().then(|| LeftOut::Stopped(self.frames())),
        }
    }
}

/// Timeline of a file: zero is the first recorded frame, not the start of the process. The start of the recording would
/// be wrong too: frames that arrive then bear times from before their wait in the jitter buffer, and would be lost as
/// older than the file.
#[derive(Debug)]
pub(super) struct Clock {
    origin: OnceLock<gst::ClockTime>,
    earliest: gst::ClockTime,
}

impl Clock {
    /// Starts a timeline; frames that are older than the longest wait in a jitter buffer get time zero.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self::at(running_time()))
    }

    fn at(now: gst::ClockTime) -> Self {
        Self { origin: OnceLock::new(), earliest: now.saturating_sub(WAIT_MAX) }
    }

    /// Returns whether a frame has reached the file.
    pub(super) fn has_begun(&self) -> bool {
        self.origin.get().is_some()
    }

    fn in_file(&self, pts: gst::ClockTime) -> gst::ClockTime {
        pts.saturating_sub(*self.origin.get_or_init(|| pts.max(self.earliest)))
    }
}

/// Leaves out the streams that hold up the others. Returns the kinds of the streams without any frame in the file.
pub(super) fn leave_out(streams: &mut [Stream], since: Duration) -> Vec<Kind> {
    let mut empty = Vec::new();
    for stream in streams {
        let Some(why) = stream.is_missed(since) else { continue };
        stream.left_out = Some(why);
        stream.end();
        if why == LeftOut::NeverBegan {
            empty.push(stream.kind);
        }
    }
    empty
}

fn from_zero(source: &gst_app::AppSrc, clock: Arc<Clock>, last: Arc<AtomicU64>) {
    let Some(pad) = source.static_pad("src") else { return };
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer_mut() {
            last.store(running_time().nseconds(), Ordering::Relaxed);
            let pts = buffer.pts().map(|pts| clock.in_file(pts));
            let buffer = buffer.make_mut();
            buffer.set_pts(pts);
            buffer.set_dts(gst::ClockTime::NONE);
        }
        gst::PadProbeReturn::Ok
    });
}

/// Drops the events that stand for lost packets. A parser that meets one before its first frame makes up caps, which the
/// muxer refuses.
fn drop_gaps(pad: &gst::Pad) {
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
        match info.event().is_some_and(|event| event.type_() == gst::EventType::Gap) {
            true => gst::PadProbeReturn::Drop,
            false => gst::PadProbeReturn::Ok,
        }
    });
}

/// Drops all caps but the first. Senders change their frame size with the bandwidth, and a mix changes its colorimetry
/// with its inputs. Key frames contain all that decoders need (VP8 the size; H.264 and H.265 the parameter sets, sent
/// in the stream), but the muxer would stop at new caps.
fn keep_first_caps(pad: &gst::Pad) {
    let seen = Arc::new(AtomicBool::new(false));
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let is_caps = info.event().is_some_and(|event| event.type_() == gst::EventType::Caps);
        match is_caps && seen.swap(true, Ordering::Relaxed) {
            true => gst::PadProbeReturn::Handled,
            false => gst::PadProbeReturn::Ok,
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_waited_for_the_longest_playout_delay_keep_their_distance() {
        let seconds = gst::ClockTime::from_seconds;
        let clock = Clock::at(seconds(100));
        assert_eq!([95, 96, 101].map(|at| clock.in_file(seconds(at))), [0, 1, 6].map(seconds));
        // No frame can be older; a time that is wrong does not move the others.
        let clock = Clock::at(seconds(100));
        assert_eq!([1, 96, 101].map(|at| clock.in_file(seconds(at))), [0, 1, 6].map(seconds));
    }
}
