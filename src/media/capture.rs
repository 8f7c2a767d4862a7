//! Capture once: a source of each kind makes raw frames of one shape, for any number of encoders; or it gives encoded
//! pictures, as they come ([`super::encoded`]).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gst::prelude::*;
use gst_utils::{ConsumptionLink, StreamProducer, streamproducer::ProducerSettings};
use smol::channel::{Receiver, Sender};

use super::encoded::{self, Encoded, Obstacle};
use super::launch::{self, Folder};
use super::level::{self, Meter};
use super::pipeline::{BusEvent, Owned};
use super::voice::{SHAPE, Voice};
use super::{MediaError, inventory};
use crate::sdp::Kind;

/// How long a source has for its first frame.
const FIRST_FRAME: Duration = Duration::from_secs(10);

/// What to capture, of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceConfig {
    /// The name of a pipeline of `pipelines/source`, or a pipeline's text (it holds a `!`).
    pub source: String,
    /// What stands for `{device}`.
    pub device: Option<String>,
    /// Width and height in pixels; else the source's own, at most 1280x720.
    pub size: Option<(u32, u32)>,
    /// Frames a second.
    pub fps: u32,
    /// What becomes of sound.
    pub voice: Voice,
}

/// The sources that hear what a speaker in the same room plays.
pub const MICROPHONES: [&str; 3] = ["microphone", "pulse", "alsa"];

const DEFAULT_SIZE: (u32, u32) = (1280, 720);

impl SourceConfig {
    /// A pipeline of `pipelines/source` by its name, with 30 frames a second.
    pub fn named(source: &str) -> Self {
        Self { source: source.to_owned(), device: None, size: None, fps: 30, voice: Voice::AsItIs }
    }

    /// The whole pipeline: the source, and what brings its media into one shape. Pictures that are encoded already come
    /// out at another end.
    fn text(&self, kind: Kind) -> Result<String, MediaError> {
        let is_text = self.source.contains('!');
        let source = match is_text {
            true => self.source.clone(),
            false => launch::named(Folder::Source, &self.source)?,
        };
        if self.device.is_some() && !source.contains("{device") {
            let name = &self.source;
            return Err(MediaError::Parameter(format!("the source '{name}' takes no device")));
        }
        let (width, height) = self.size.unwrap_or(DEFAULT_SIZE);
        let (can_pass, encoded) = (source.contains("{encoded}"), encoded::caps());
        let left = if kind == Kind::Video { format!("{encoded};{RAW}") } else { RAW.to_owned() };
        let source = launch::fill(
            &source,
            &[
                ("device", self.device.clone()),
                ("width", Some(width.to_string())),
                ("height", Some(height.to_string())),
                ("fps", Some(self.fps.to_string())),
                ("encoded", Some(left)),
                ("kind", Some(kind.to_string())),
            ],
        )?;
        let pass = "appsink name=encoded max-buffers=50 async=false";
        Ok(match kind {
            Kind::Video if can_pass => {
                let raw = self.pictures();
                format!(
                    "{source} source. ! capsfilter caps=\"{encoded}\" ! {pass} source. ! {raw} async=false"
                )
            }
            Kind::Video if is_text && encoded::ends_encoded(&source) => format!("{source} ! {pass}"),
            Kind::Video => format!("{source} ! {}", self.pictures()),
            Kind::Audio => format!(
                "{source} ! audioconvert ! audioresample ! {SHAPE} ! identity name=time ! {} \
                 appsink name=out max-buffers=50 drop=true",
                self.voice.text()
            ),
        })
    }

    /// From whatever pictures to those of one shape.
    fn pictures(&self) -> String {
        let (width, height) = self.size.unwrap_or(DEFAULT_SIZE);
        let size = match self.size {
            Some((width, height)) => format!("width={width},height={height}"),
            None => format!("width=[16,{width}],height=[16,{height}]"),
        };
        // Frames are left out, and none is added: for that each would wait for the next.
        format!(
            "videoconvert ! videoscale ! videorate drop-only=true max-rate={} ! \
             video/x-raw,format=I420,{size},pixel-aspect-ratio=1/1 ! \
             appsink name=out max-buffers=4 drop=true",
            self.fps
        )
    }
}

/// What is decoded of a file or of a camera in the network, as decodebin has it by itself.
const RAW: &str = "video/x-raw(ANY);audio/x-raw(ANY);text/x-raw(ANY)";

/// What a source gives.
#[derive(Debug, Clone)]
pub(super) enum Frames {
    /// Raw frames of one shape.
    Raw(StreamProducer),
    /// Encoded pictures, as they come.
    Encoded(Encoded),
}

/// A running source.
#[derive(Debug)]
pub struct Capture {
    kind: Kind,
    config: SourceConfig,
    frames: Frames,
    is_muted: Arc<AtomicBool>,
    meter: Arc<Meter>,
    /// What it decodes, where it does. Before the pipeline that this leads into.
    _link: Option<ConsumptionLink>,
    _pipeline: Owned,
    _ends: Option<smol::Task<()>>,
}

impl Capture {
    /// Starts a source and waits for its first frame. Later errors, and the end of a source that
    /// does not loop, go to `failures`.
    pub async fn start(
        kind: Kind,
        config: &SourceConfig,
        failures: Sender<String>,
    ) -> Result<Self, MediaError> {
        let pipeline = launch::parse(&config.text(kind)?)?;
        let sink = |name: &str| pipeline.by_name(name).and_downcast::<gst_app::AppSink>();
        let (raw, encoded) = (sink("out"), sink("encoded"));
        let (first, started) = smol::channel::bounded::<Result<(), String>>(4);
        let (first_error, later) = (first.clone(), failures.clone());
        let owned = Owned::new(pipeline.clone(), move |_, event| {
            if let BusEvent::Error(element, reason) = event {
                let text = format!("{reason} ({element})");
                if first_error.try_send(Err(text.clone())).is_err() {
                    let _ = later.try_send(format!("the {kind} source stopped: {text}"));
                }
            }
        });
        // A live source has its time; a file gets it as it is played.
        let is_file = config.source == FILE;
        let base = gst::SystemClock::obtain().time();
        pipeline.set_base_time(base);
        // Frames go on as they come: who sends them is not to wait for as long as some might be late (with rtspsrc, two
        // seconds).
        pipeline.set_latency(gst::ClockTime::ZERO);
        let shift = (!is_file).then(|| base.saturating_sub(super::pipeline::epoch()));
        let (end, ended) = smol::channel::bounded(1);
        let pace = Arc::new(Mutex::new(Pace { shift, ..Pace::default() }));
        let is_muted = Arc::new(AtomicBool::new(false));
        let meter = Arc::new(Meter::default());
        // Sound has its time before it is compared with what is played.
        let timed = pipeline.by_name("time").and_then(|timed| timed.static_pad("sink"));
        let raw_pad = raw.as_ref().and_then(|sink| sink.static_pad("sink"));
        let encoded_pad = encoded.as_ref().and_then(|sink| sink.static_pad("sink"));
        for pad in [timed.or(raw_pad.clone()), encoded_pad].iter().flatten() {
            retime(pad, pace.clone(), first.clone(), end.clone());
        }
        if let Some(pad) = &raw_pad {
            mute(pad, kind, is_muted.clone());
            if kind == Kind::Audio {
                let meter = meter.clone();
                level::watch(pad, move |samples| meter.take(samples));
            }
        }
        drop((first, end));
        let produce =
            |sink: gst_app::AppSink| (StreamProducer::with(&sink, ProducerSettings { sync: false }), sink);
        let (raw, encoded) = (raw.map(produce), encoded.map(produce));
        let weak = pipeline.downgrade();
        let ends = smol::spawn(async move {
            while ended.recv().await.is_ok() {
                let Some(pipeline) = weak.upgrade().filter(|_| is_file) else { break };
                lock(&pace).shift = None;
                let again =
                    smol::unblock(move || pipeline.seek_simple(gst::SeekFlags::FLUSH, gst::ClockTime::ZERO));
                if again.await.is_err() {
                    break;
                }
            }
            let _ = failures.try_send(format!("the {kind} source came to its end"));
        });

        let playing = owned.play();
        match first_frame(&started).await {
            Ok(()) => {
                drop(started);
                let frames = choose(&pipeline, raw, encoded)?;
                if let (Frames::Encoded(encoded), Some(_)) = (&frames, config.size) {
                    encoded.refuse(Obstacle::Size);
                }
                Ok(Self {
                    kind,
                    config: config.clone(),
                    frames,
                    is_muted,
                    meter,
                    _link: None,
                    _pipeline: owned,
                    _ends: Some(ends),
                })
            }
            Err(reason) => {
                drop(playing);
                let there: Vec<String> =
                    inventory::sources().into_iter().filter(|d| d.kind == kind).map(|d| d.options).collect();
                let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
                Err(MediaError::Source { kind, reason, there })
            }
        }
    }

    /// Audio or video.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The raw frames of encoded pictures: another source, which begins with their next key frame.
    pub(super) fn decoded(&self, encoded: &Encoded, failures: Sender<String>) -> Result<Self, MediaError> {
        let text = format!("appsrc name=in ! decodebin ! {}", self.config.pictures());
        let pipeline = launch::parse(&text)?;
        let appsrc: gst_app::AppSrc = launch::by_name(&pipeline, "in")?;
        let appsink: gst_app::AppSink = launch::by_name(&pipeline, "out")?;
        let kind = self.kind;
        let owned = Owned::new(pipeline, move |_, event| {
            if let BusEvent::Error(element, reason) = event {
                let _ =
                    failures.try_send(format!("the {kind} source cannot be decoded: {reason} ({element})"));
            }
        });
        if let Some(pad) = appsink.static_pad("sink") {
            mute(&pad, kind, self.is_muted.clone());
        }
        let producer = StreamProducer::with(&appsink, ProducerSettings { sync: false });
        let link = encoded.producer.add_consumer(&appsrc);
        let link = link.map_err(|error| MediaError::WebRtc(error.to_string()))?;
        owned.play()?;
        Ok(Self {
            kind,
            config: self.config.clone(),
            frames: Frames::Raw(producer),
            is_muted: self.is_muted.clone(),
            meter: self.meter.clone(),
            _pipeline: owned,
            _ends: None,
            _link: Some(link),
        })
    }

    /// Frames a second, of pictures.
    pub(super) fn fps(&self) -> u32 {
        self.config.fps
    }

    /// How loud what is sent is, where that was measured of late.
    pub(super) fn level(&self) -> Option<u8> {
        self.meter.level()
    }

    /// What it gives.
    pub(super) fn frames(&self) -> &Frames {
        &self.frames
    }

    /// Silence or black from now on, or the source again. Nothing is negotiated.
    pub fn set_muted(&self, muted: bool) {
        self.is_muted.store(muted, Ordering::Relaxed);
    }

    /// The same, as it changes.
    pub(super) fn mutes(&self) -> Arc<AtomicBool> {
        self.is_muted.clone()
    }

    /// Whether silence or black is sent.
    pub fn is_muted(&self) -> bool {
        self.is_muted.load(Ordering::Relaxed)
    }
}

/// Of a source's two ends the one that something came to; the other is taken away, for it would not take part in a seek.
fn choose(
    pipeline: &gst::Pipeline,
    raw: Option<(StreamProducer, gst_app::AppSink)>,
    encoded: Option<(StreamProducer, gst_app::AppSink)>,
) -> Result<Frames, MediaError> {
    let came = |(_, sink): &(StreamProducer, gst_app::AppSink)| {
        sink.static_pad("sink").is_some_and(|pad| pad.current_caps().is_some())
    };
    let is_encoded = encoded.as_ref().is_some_and(came);
    let (chosen, other) = if is_encoded { (encoded, raw) } else { (raw, encoded) };
    if let Some((producer, sink)) = other {
        drop(producer);
        let _ = pipeline.remove(&sink);
        let _ = sink.set_state(gst::State::Null);
    }
    let nothing = || MediaError::WebRtc("the source has no end".to_owned());
    let (producer, sink) = chosen.ok_or_else(nothing)?;
    Ok(match is_encoded {
        true => Frames::Encoded(Encoded::of(&sink, producer)?),
        false => Frames::Raw(producer),
    })
}

/// The source that is paced and looped.
const FILE: &str = "file";

async fn first_frame(started: &Receiver<Result<(), String>>) -> Result<(), String> {
    let nothing = async {
        smol::Timer::after(FIRST_FRAME).await;
        Err(format!("no frame came within {} s", FIRST_FRAME.as_secs()))
    };
    smol::future::or(async { started.recv().await.unwrap_or_else(|_| Err("it is gone".into())) }, nothing)
        .await
}

/// How a source's time becomes the common time.
#[derive(Debug, Default)]
struct Pace {
    segment: gst::FormattedSegment<gst::ClockTime>,
    /// From the source's running time to the common one; none: it begins with the next frame, and
    /// frames wait for their time.
    shift: Option<gst::ClockTime>,
    waits: bool,
    /// The last frame's.
    last: Option<gst::ClockTime>,
}

impl Pace {
    /// A source that goes back by more than that begins anew, now: no encoder takes what was before.
    const ANEW: gst::ClockTime = gst::ClockTime::from_seconds(1);

    /// The common time of a frame, and how long to wait for it.
    fn time(&mut self, pts: gst::ClockTime) -> Option<(gst::ClockTime, Duration)> {
        let running = self.segment.to_running_time(pts)?;
        let now = super::pipeline::running_time();
        let shift = *self.shift.get_or_insert_with(|| {
            self.waits = true;
            now.saturating_sub(running)
        });
        let mut time = running + shift;
        if self.last.is_some_and(|last| time + Self::ANEW < last) {
            (self.shift, time) = (Some(now.saturating_sub(running)), now);
        }
        self.last = Some(time);
        let wait = if self.waits { time.saturating_sub(now) } else { gst::ClockTime::ZERO };
        Some((time, Duration::from(wait).min(Duration::from_secs(1))))
    }
}

fn lock(pace: &Mutex<Pace>) -> std::sync::MutexGuard<'_, Pace> {
    pace.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Gives every buffer before a pad its time on the common base, in one endless segment, whatever
/// the source's own segments are. Tells of the first frame, and of the end, which goes no further.
fn retime(pad: &gst::Pad, pace: Arc<Mutex<Pace>>, first: Sender<Result<(), String>>, end: Sender<()>) {
    let types = gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::BUFFER;
    pad.add_probe(types, move |_, info| {
        match info.event().map(|event| event.view()) {
            Some(gst::EventView::Segment(new)) => {
                if let Some(new) = new.segment().downcast_ref::<gst::ClockTime>() {
                    lock(&pace).segment = new.clone();
                }
                let endless = gst::FormattedSegment::<gst::ClockTime>::new();
                info.data = Some(gst::PadProbeData::Event(gst::event::Segment::new(&endless)));
            }
            Some(gst::EventView::Eos(_)) => {
                let _ = end.try_send(());
                return gst::PadProbeReturn::Handled;
            }
            _ => {}
        }
        if let Some(buffer) = info.buffer_mut() {
            let time = buffer.pts().and_then(|pts| lock(&pace).time(pts));
            let buffer = buffer.make_mut();
            if let Some((time, wait)) = time {
                buffer.set_pts(time);
                // In the source's own thread, which has nothing else to do.
                std::thread::sleep(wait);
            }
            buffer.set_dts(gst::ClockTime::NONE);
            let _ = first.try_send(Ok(()));
        }
        gst::PadProbeReturn::Ok
    });
}

/// Overwrites frames with silence or black (I420: luma 16, chroma 128) while muted.
fn mute(pad: &gst::Pad, kind: Kind, is_muted: Arc<AtomicBool>) {
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if !is_muted.load(Ordering::Relaxed) {
            return gst::PadProbeReturn::Ok;
        }
        if let Some(buffer) = info.buffer_mut()
            && let Ok(mut map) = buffer.make_mut().map_writable()
        {
            match kind {
                Kind::Audio => map.fill(0),
                Kind::Video => {
                    let half = map.len() / 3 * 2;
                    let (luma, chroma) = map.split_at_mut(half);
                    luma.fill(16);
                    chroma.fill(128);
                }
            }
        }
        gst::PadProbeReturn::Ok
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_whose_time_goes_back_goes_on_now() {
        crate::media::init().unwrap();
        let ms = gst::ClockTime::from_mseconds;
        let mut pace = Pace { shift: Some(ms(0)), ..Pace::default() };
        let mut time = |at| pace.time(at).unwrap().0;
        // An hour ahead; a little disorder is none of its.
        assert_eq!(
            [3_600_000, 3_599_900, 3_600_033].map(|at| time(ms(at))),
            [3_600_000, 3_599_900, 3_600_033].map(ms)
        );
        let before = crate::media::pipeline::running_time();
        let now = time(ms(0));
        assert!(before <= now && now <= crate::media::pipeline::running_time(), "{before} {now}");
        assert_eq!(time(ms(33)), now + ms(33));
    }
}
