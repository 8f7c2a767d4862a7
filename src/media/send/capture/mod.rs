//! Captures each source once: a source produces raw frames in one format for any number of encoders, or passes encoded
//! frames through unchanged ([`super::encoded_source`]).

mod config;
mod pace;
mod silence;
mod size;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_utils::{StreamProducer, streamproducer::ProducerSettings};
use smol::channel::{Receiver, Sender, bounded};

pub use self::config::{MICROPHONES, SourceConfig};
use self::pace::Pacer;
use super::encoded_source::{Encoded, Feed, Obstacle, Tap};
use super::last_frame::Again;
use super::voice::Voice;
use crate::media::gst::error::MediaError;
use crate::media::gst::launch;
use crate::media::gst::level::{self, Meter};
use crate::media::gst::pipeline::{BusEvent, Owned};
use crate::sdp::Kind;

/// Maximum time until the first frame of a source.
const FIRST_FRAME: Duration = Duration::from_secs(10);

/// Age at which the last video frame is repeated, so that a still picture, or a source with one frame a minute, works
/// like any other source.
const STILL: Duration = Duration::from_millis(500);

/// Minimum time between two starts of a looped file, so that a very short file does not seek without pause.
const ROUND: Duration = Duration::from_millis(200);

/// Output of a source.
#[derive(Debug, Clone)]
pub(crate) enum Frames {
    /// Raw frames in one format.
    Raw(StreamProducer),
    /// Encoded video frames, unchanged.
    Encoded(Encoded),
}

/// Reason why a source stopped delivering frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// The source was not available at its start; holds the reason.
    Absent(String),
    /// The source failed, or a live source reached its end; holds the reason.
    Stopped(String),
    /// A source that is not live reached its end.
    Finished,
}

/// Reason why a source does not deliver its first frame.
#[derive(Debug)]
enum Fault {
    /// The source has no media of the requested kind.
    Lacks,
    Failed(String),
}

/// Wakes the source's waiting thread on drop.
#[derive(Debug)]
struct Stop(Arc<Pacer>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A running source.
#[derive(Debug)]
pub struct Capture {
    id: u64,
    kind: Kind,
    config: SourceConfig,
    frames: Frames,
    is_muted: Arc<AtomicBool>,
    meter: Arc<Meter>,
    ended: Receiver<End>,
    /// Keeps the channel of `ended` open as long as the source exists.
    _over: Sender<End>,
    /// Feed of the decoder if this source decodes another one; dropped before the pipeline that the feed writes to.
    _feed: Option<Feed>,
    _stop: Stop,
    _pipeline: Owned,
    _tasks: Vec<smol::Task<()>>,
}

/// Number of the next source.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A source's pipeline before its first frame.
struct Starting {
    pipeline: gst::Pipeline,
    owned: Owned,
    pacer: Arc<Pacer>,
    stop: Stop,
    started: Receiver<Result<(), Fault>>,
    over: Sender<End>,
    ended: Receiver<End>,
    is_muted: Arc<AtomicBool>,
    meter: Arc<Meter>,
    again: Option<Again>,
    tap: Option<Tap>,
    loops: smol::Task<()>,
}

type Sink = (StreamProducer, gst_app::AppSink);

impl Starting {
    fn new(kind: Kind, config: &SourceConfig) -> Result<Self, MediaError> {
        let pipeline = launch::parse(&config.text(kind)?)?;
        let (first, started) = bounded(4);
        let (over, ended) = bounded(1);
        find_what_it_lacks(&pipeline, kind, &first);
        let (tell, later) = (first.clone(), over.clone());
        let owned = Owned::new(pipeline.clone(), move |_, event| {
            if let BusEvent::Error(element, reason) = event {
                let text = format!("{reason} ({element})");
                if tell.try_send(Err(Fault::Failed(text.clone()))).is_err() {
                    let _ = later.try_send(End::Stopped(text));
                }
            }
        });
        // The base time is now, so that the running time of a live source starts at zero; frames of other sources get
        // their times as they are played.
        let base = gst::SystemClock::obtain().time();
        pipeline.set_base_time(base);
        // Frames leave without latency: a sender need not wait for frames that might be late (2 s with rtspsrc).
        pipeline.set_latency(gst::ClockTime::ZERO);
        let pacer = Pacer::new(base.saturating_sub(crate::media::gst::pipeline::epoch()), config.is_file());
        let (end, ends) = bounded(1);
        let meter = Arc::new(Meter::default());
        let is_muted = Arc::new(AtomicBool::new(false));
        let sink = |name: &str| pipeline.by_name(name).and_then(|element| element.static_pad("sink"));
        for pad in ["time", "encoded"].into_iter().filter_map(sink) {
            pace::retime(&pad, pacer.clone(), first.clone(), end.clone());
        }
        let tap = sink("encoded").map(|pad| Tap::on(&pad));
        let again = finish(&pipeline, kind, config, &is_muted);
        if let (Kind::Audio, Some(pad)) = (kind, sink("out")) {
            let meter = meter.clone();
            level::watch(&pad, move |samples| meter.take(samples));
        }
        let loops = play_again((&pipeline, ends), kind, config.is_file(), (pacer.clone(), over.clone()));
        let stop = Stop(pacer.clone());
        Ok(Self { pipeline, owned, pacer, stop, started, over, ended, is_muted, meter, again, tap, loops })
    }

    /// Returns the appsinks that the pipeline has, `out` and `encoded`, each with its producer for consumers.
    fn sinks(&self) -> [Option<Sink>; 2] {
        let produce =
            |sink: gst_app::AppSink| (StreamProducer::with(&sink, ProducerSettings { sync: false }), sink);
        ["out", "encoded"].map(|name| self.pipeline.by_name(name).and_downcast().map(produce))
    }
}

impl Capture {
    /// Starts a source and waits for its first frame. Reports about the running source, except for its end, are sent to
    /// `failures`.
    ///
    /// # Errors
    ///
    /// Returns [`MediaError::File`] if a file does not exist or cannot be read, [`MediaError::NoMedia`] if the source
    /// has no media of the kind, and other errors if the pipeline is invalid or delivers no frame within ten seconds.
    pub async fn start(
        kind: Kind,
        config: &SourceConfig,
        failures: Sender<String>,
    ) -> Result<Self, MediaError> {
        config.check()?;
        let starting = Starting::new(kind, config)?;
        let [raw, encoded] = starting.sinks();
        let playing = starting.owned.play();
        match first_frame(&starting.started).await {
            Ok(()) => {}
            Err(Fault::Lacks) => return Err(MediaError::NoMedia { name: config.name(kind), kind }),
            Err(Fault::Failed(reason)) => {
                drop(playing);
                return Err(config.error(kind, reason));
            }
        }
        let Starting {
            pipeline,
            owned,
            pacer,
            stop,
            started,
            over,
            ended,
            is_muted,
            meter,
            again,
            tap,
            loops,
        } = starting;
        while let Ok(told) = started.try_recv() {
            if let Err(Fault::Failed(reason)) = told {
                let _ = over.try_send(End::Stopped(reason));
            }
        }
        drop(started);
        let frames = choose(&pipeline, raw, encoded.zip(tap))?;
        if let (Frames::Encoded(encoded), Some(_)) = (&frames, config.size) {
            encoded.refuse(Obstacle::Size);
        }
        let again = again.filter(|_| matches!(frames, Frames::Raw(_)));
        let names = (config.name(kind), config.is_network());
        let silence = silence::watch(pacer, names, failures, over.clone());
        let tasks = [loops, silence].into_iter().chain(again.map(repeat)).collect();
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            kind,
            config: config.clone(),
            frames,
            is_muted,
            meter,
            ended,
            _over: over,
            _feed: None,
            _stop: stop,
            _pipeline: owned,
            _tasks: tasks,
        })
    }

    /// Starts a black or silent source that stands in for an unavailable one. If `end` is given, the stand-in reports
    /// that end at once.
    pub(crate) async fn stand_in(
        kind: Kind,
        config: &SourceConfig,
        end: Option<End>,
        failures: Sender<String>,
    ) -> Result<Self, MediaError> {
        let (width, height) = config.size.unwrap_or((640, 360));
        let source = match kind {
            Kind::Audio => "silence".to_owned(),
            Kind::Video => format!(
                "videotestsrc is-live=true pattern=black ! \
                 video/x-raw,width={width},height={height},framerate=5/1"
            ),
        };
        let stand_in = SourceConfig { source, device: None, voice: Voice::AsItIs, ..config.clone() };
        let started = Self::start(kind, &stand_in, failures).await?;
        if let Some(end) = end {
            let _ = started._over.try_send(end);
        }
        Ok(Self { config: config.clone(), ..started })
    }

    /// Returns the number of this source, unique within the process.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Returns the configuration the source was started with; a stand-in returns the one of the source it replaces.
    pub(crate) fn config(&self) -> &SourceConfig {
        &self.config
    }

    /// Returns the receiver of the source's end, which is sent at most once.
    pub(crate) fn ended(&self) -> Receiver<End> {
        self.ended.clone()
    }

    /// Returns the media kind of the source.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Decodes the encoded frames into a new source of raw frames, which starts at the current frame.
    pub(crate) fn decoded(&self, encoded: &Encoded, failures: Sender<String>) -> Result<Self, MediaError> {
        let text = format!(
            "appsrc name=in format=time is-live=true max-bytes=0 ! decodebin ! {}",
            self.config.pictures(encoded.turn())
        );
        let pipeline = launch::parse(&text)?;
        let appsrc: gst_app::AppSrc = launch::by_name(&pipeline, "in")?;
        let appsink: gst_app::AppSink = launch::by_name(&pipeline, "out")?;
        let kind = self.kind;
        let owned = Owned::new(pipeline.clone(), move |_, event| {
            if let BusEvent::Error(element, reason) = event {
                let _ =
                    failures.try_send(format!("the {kind} source cannot be decoded: {reason} ({element})"));
            }
        });
        let again = finish(&pipeline, kind, &self.config, &self.is_muted);
        let producer = StreamProducer::with(&appsink, ProducerSettings { sync: false });
        owned.play()?;
        let (over, ended) = bounded(1);
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            kind,
            config: self.config.clone(),
            frames: Frames::Raw(producer),
            is_muted: self.is_muted.clone(),
            meter: self.meter.clone(),
            ended,
            _over: over,
            _feed: Some(
                encoded.feed(appsrc, pipeline.by_name("time").and_then(|time| time.static_pad("sink"))),
            ),
            _stop: Stop(Pacer::new(gst::ClockTime::ZERO, false)),
            _pipeline: owned,
            _tasks: again.map(repeat).into_iter().collect(),
        })
    }

    /// Returns the maximum frame rate of the video, in frames per second.
    pub(crate) fn fps(&self) -> u32 {
        self.config.fps
    }

    /// Returns the level of the captured audio, if it was measured within the last two seconds.
    pub(crate) fn level(&self) -> Option<u8> {
        self.meter.level()
    }

    /// Returns the output of the source.
    pub(crate) fn frames(&self) -> &Frames {
        &self.frames
    }

    /// Mutes the source: sends silence or black until unmuted. The peers need no renegotiation.
    pub fn set_muted(&self, muted: bool) {
        self.is_muted.store(muted, Ordering::Relaxed);
    }

    /// Returns the shared mute flag, which follows later changes.
    pub(crate) fn mutes(&self) -> Arc<AtomicBool> {
        self.is_muted.clone()
    }

    /// Returns whether the source is muted.
    pub fn is_muted(&self) -> bool {
        self.is_muted.load(Ordering::Relaxed)
    }
}

/// Keeps the appsink that received caps and removes the other one, because an idle sink would block a flushing seek.
fn choose(
    pipeline: &gst::Pipeline,
    raw: Option<Sink>,
    encoded: Option<(Sink, Tap)>,
) -> Result<Frames, MediaError> {
    let came =
        |sink: &gst_app::AppSink| sink.static_pad("sink").is_some_and(|pad| pad.current_caps().is_some());
    let remove = |(producer, sink): Sink| {
        drop(producer);
        let _ = pipeline.remove(&sink);
        let _ = sink.set_state(gst::State::Null);
    };
    match (raw, encoded) {
        (raw, Some(((producer, sink), tap))) if came(&sink) => {
            raw.into_iter().for_each(remove);
            Ok(Frames::Encoded(Encoded::of(&sink, producer, tap)?))
        }
        (Some((producer, _)), encoded) => {
            encoded.into_iter().for_each(|(sink, _)| remove(sink));
            Ok(Frames::Raw(producer))
        }
        (None, _) => Err(MediaError::WebRtc("the source has no end".to_owned())),
    }
}

/// Prepares raw frames for encoders: limits the frame rate, sets the frame size, and overwrites muted frames with black
/// or silence. Returns a handle that repeats the last video frame.
fn finish(
    pipeline: &gst::Pipeline,
    kind: Kind,
    config: &SourceConfig,
    is_muted: &Arc<AtomicBool>,
) -> Option<Again> {
    let sink = |name: &str| pipeline.by_name(name).and_then(|element| element.static_pad("sink"));
    if let (Kind::Video, Some(pad)) = (kind, sink("time")) {
        pace::thin(&pad, config.fps);
        size::follow(pipeline, config.size);
    }
    let again = pipeline.by_name("end").and_then(|end| Again::after(&end));
    if let Some(pad) = sink("out") {
        mute(&pad, kind, is_muted.clone());
    }
    again
}

/// Repeats the last video frame every 500 ms while no new frame arrives.
fn repeat(again: Again) -> smol::Task<()> {
    smol::spawn(async move {
        loop {
            smol::Timer::after(STILL / 2).await;
            if again.age().is_some_and(|age| age >= STILL) {
                again.show();
            }
        }
    })
}

/// Returns whether an element adds its source pads only when it has found its streams.
fn gives_pads_later(element: &gst::Element) -> bool {
    let is_later = |template: &gst::PadTemplate| {
        template.direction() == gst::PadDirection::Src && template.presence() == gst::PadPresence::Sometimes
    };
    element.pad_template_list().iter().any(is_later)
}

/// Reports a fault to `first` when an element that adds its pads late has found all streams and none is of this kind,
/// as with a film without audio, or when no decoder is installed for it.
fn find_what_it_lacks(pipeline: &gst::Pipeline, kind: Kind, first: &Sender<Result<(), Fault>>) {
    let elements = pipeline.iterate_elements().into_iter().filter_map(Result::ok);
    for element in elements.filter(gives_pads_later) {
        let unknown: Arc<Mutex<Option<String>>> = Arc::default();
        if gst::glib::subclass::SignalId::lookup("unknown-type", element.type_()).is_some() {
            let unknown = unknown.clone();
            element.connect("unknown-type", false, move |values| {
                let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
                let name = caps.as_ref().and_then(|caps| Some(caps.structure(0)?.name().to_string()));
                if let Some(name) = name.filter(|name| name.starts_with(kind.as_str())) {
                    *unknown.lock().unwrap_or_else(PoisonError::into_inner) = Some(name);
                }
                None
            });
        }
        let first = first.clone();
        element.connect_no_more_pads(move |element| {
            if element.src_pads().iter().any(|pad| pad.is_linked()) {
                return;
            }
            let unknown = unknown.lock().unwrap_or_else(PoisonError::into_inner).take();
            let fault = unknown.map_or(Fault::Lacks, |name| {
                Fault::Failed(format!(
                    "no decoder of {name} is installed; `roomtone doctor` tells what is missing"
                ))
            });
            let _ = first.try_send(Err(fault));
        });
    }
}

/// Restarts a file at its end, and reports the end of any other source to `over`. A single still picture never ends.
fn play_again(
    (pipeline, ends): (&gst::Pipeline, Receiver<()>),
    kind: Kind,
    is_file: bool,
    (pacer, over): (Arc<Pacer>, Sender<End>),
) -> smol::Task<()> {
    let weak = pipeline.downgrade();
    smol::spawn(async move {
        let mut began = Instant::now();
        let mut end = None;
        while end.is_none() && ends.recv().await.is_ok() {
            let Some(pipeline) = weak.upgrade() else { return };
            let waits = pacer.waits();
            if kind == Kind::Video && waits && pacer.frames() <= 1 {
                continue;
            }
            if !is_file {
                end = Some(if waits { End::Finished } else { End::Stopped("it came to its end".to_owned()) });
                continue;
            }
            smol::Timer::after(ROUND.saturating_sub(began.elapsed())).await;
            began = Instant::now();
            pacer.begin_again();
            let again =
                smol::unblock(move || pipeline.seek_simple(gst::SeekFlags::FLUSH, gst::ClockTime::ZERO));
            if let Err(error) = again.await {
                tracing::debug!("the file is opened again: {error}");
                end = Some(End::Stopped("it came to its end".to_owned()));
            }
        }
        if let Some(end) = end {
            let _ = over.try_send(end);
        }
    })
}

async fn first_frame(started: &Receiver<Result<(), Fault>>) -> Result<(), Fault> {
    let nothing = async {
        smol::Timer::after(FIRST_FRAME).await;
        Err(Fault::Failed(format!("no frame came within {} s", FIRST_FRAME.as_secs())))
    };
    let gone = |_| Err(Fault::Failed("it is gone".to_owned()));
    smol::future::or(async { started.recv().await.unwrap_or_else(gone) }, nothing).await
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
mod tests;
