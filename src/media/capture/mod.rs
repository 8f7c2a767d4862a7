//! Capture once: a source of each kind makes raw frames of one shape, for any number of encoders; or it gives encoded
//! pictures, as they come ([`super::encoded`]).

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
use super::again::Again;
use super::encoded::{Encoded, Feed, Obstacle, Tap};
use super::level::{self, Meter};
use super::pipeline::{BusEvent, Owned};
use super::voice::Voice;
use super::{MediaError, launch};
use crate::sdp::Kind;

/// How long a source has for its first frame.
const FIRST_FRAME: Duration = Duration::from_secs(10);

/// A picture that stays the last one for so long is given again: a still picture is a source like others, and so is one
/// with a picture a minute.
const STILL: Duration = Duration::from_millis(500);

/// A film is played again so long after it began at the earliest.
const ROUND: Duration = Duration::from_millis(200);

/// What a source gives.
#[derive(Debug, Clone)]
pub(super) enum Frames {
    /// Raw frames of one shape.
    Raw(StreamProducer),
    /// Encoded pictures, as they come.
    Encoded(Encoded),
}

/// Why a source gives no frames any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// It was not there when it was to start: the reason.
    Absent(String),
    /// It failed, or a live source came to its end: the reason.
    Stopped(String),
    /// A pipeline that is not live was read to its end.
    Finished,
}

/// Why a source does not give its first frame.
#[derive(Debug)]
enum Fault {
    /// It has no media of the kind.
    Lacks,
    Failed(String),
}

/// Ends the waiting of a source's thread when the source is let go.
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
    /// Its own end of the channel, so that the channel lasts as long as the source.
    _over: Sender<End>,
    /// The source's frames that it decodes, where it does. Before the pipeline that they lead into.
    _feed: Option<Feed>,
    _stop: Stop,
    _pipeline: Owned,
    _tasks: Vec<smol::Task<()>>,
}

/// The next source's number.
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
        // A live source has its time; others get it as they are played.
        let base = gst::SystemClock::obtain().time();
        pipeline.set_base_time(base);
        // Frames go on as they come: who sends them is not to wait for as long as some might be late (with rtspsrc, two
        // seconds).
        pipeline.set_latency(gst::ClockTime::ZERO);
        let pacer = Pacer::new(base.saturating_sub(super::pipeline::epoch()), config.is_file());
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

    /// The source's ends, ready for consumers, where the pipeline has them.
    fn sinks(&self) -> [Option<Sink>; 2] {
        let produce =
            |sink: gst_app::AppSink| (StreamProducer::with(&sink, ProducerSettings { sync: false }), sink);
        ["out", "encoded"].map(|name| self.pipeline.by_name(name).and_downcast().map(produce))
    }
}

impl Capture {
    /// Starts a source and waits for its first frame. What is to be told of it while it runs, short of its end, goes to
    /// `failures`.
    ///
    /// # Errors
    ///
    /// [`MediaError::File`] where a file is not there, [`MediaError::NoMedia`] where it has no media of the kind, and
    /// others where the pipeline is wrong or gives no frame within ten seconds.
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

    /// Black or silence in place of a source that is away. `end` is told of at once, where there is one.
    pub(super) async fn stand_in(
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

    /// The number of this source, which no other one has.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// What it was started with, or what it stands in for.
    pub(super) fn config(&self) -> &SourceConfig {
        &self.config
    }

    /// Where its end is told, once.
    pub(super) fn ended(&self) -> Receiver<End> {
        self.ended.clone()
    }

    /// Audio or video.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The raw frames of encoded pictures: another source, which begins with what is shown now.
    pub(super) fn decoded(&self, encoded: &Encoded, failures: Sender<String>) -> Result<Self, MediaError> {
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

/// Brings a pipeline's raw frames into shape for encoders: pictures have a sane rate, and the last one can be given again;
/// what is muted is black or silence.
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

/// Gives the last picture again, as long as no other one comes.
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

/// Whether an element's source pads come as it finds what there is.
fn gives_pads_later(element: &gst::Element) -> bool {
    let is_later = |template: &gst::PadTemplate| {
        template.direction() == gst::PadDirection::Src && template.presence() == gst::PadPresence::Sometimes
    };
    element.pad_template_list().iter().any(is_later)
}

/// Tells `first` where what gives pads as it finds them has found all, and none is of the kind: a film without sound.
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

/// Plays a file again whenever it came to its end; tells `over` of other ends. A still picture has none.
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
