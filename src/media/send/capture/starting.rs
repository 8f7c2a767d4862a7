//! A source's pipeline until its first frame.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_utils::{StreamProducer, streamproducer::ProducerSettings};
use smol::channel::{Receiver, Sender, bounded};

use super::config::SourceConfig;
use super::end::{End, Fault};
use super::pace::{self, Pacer};
use super::raw_frames;
use crate::base::lock::lock;
use crate::base::timeout::timeout;
use crate::media::gst::error::MediaError;
use crate::media::gst::launch;
use crate::media::gst::level::{self, Meter};
use crate::media::gst::pipeline::{BusEvent, Owned, epoch};
use crate::media::send::encoded_source::Tap;
use crate::media::send::last_frame::LastFrame;
use crate::sdp::Kind;

/// Maximum time until the first frame of a source.
const FIRST_FRAME: Duration = Duration::from_secs(10);

/// Minimum time between two starts of a looped file, so that a very short file does not seek without pause.
const ROUND: Duration = Duration::from_millis(200);

/// Wakes the source's waiting thread on drop.
#[derive(Debug)]
pub(super) struct Stop(pub(super) Arc<Pacer>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Pipeline and shared state of a source.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) is_muted: Arc<AtomicBool>,
    pub(super) meter: Arc<Meter>,
    pub(super) ended: Receiver<End>,
    /// Sends to `ended`; keeps the channel open as long as the source exists.
    pub(super) over: Sender<End>,
    pub(super) stop: Stop,
    pub(super) owned: Owned,
    pub(super) tasks: Vec<smol::Task<()>>,
}

/// A source before its first frame.
pub(super) struct Starting {
    pub(super) running: Running,
    pub(super) started: Receiver<Result<(), Fault>>,
    pub(super) last_frame: Option<LastFrame>,
    pub(super) tap: Option<Tap>,
}

pub(super) type Sink = (StreamProducer, gst_app::AppSink);

impl Starting {
    pub(super) fn new(kind: Kind, config: &SourceConfig) -> Result<Self, MediaError> {
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
        let pacer = Pacer::new(base.saturating_sub(epoch()), config.is_file());
        let (end, ends) = bounded(1);
        let meter = Arc::new(Meter::default());
        let is_muted = Arc::new(AtomicBool::new(false));
        let sink = |name: &str| pipeline.by_name(name).and_then(|element| element.static_pad("sink"));
        for pad in ["time", "encoded"].into_iter().filter_map(sink) {
            pace::retime(&pad, pacer.clone(), first.clone(), end.clone());
        }
        let tap = sink("encoded").map(|pad| Tap::on(&pad));
        let last_frame = raw_frames::prepare(&pipeline, kind, config, &is_muted);
        if let (Kind::Audio, Some(pad)) = (kind, sink("out")) {
            let meter = meter.clone();
            level::watch(&pad, move |samples| meter.measure(samples));
        }
        let loops = play_again((&pipeline, ends), kind, config, (pacer.clone(), over.clone()));
        let stop = Stop(pacer);
        let running = Running { is_muted, meter, ended, over, stop, owned, tasks: vec![loops] };
        Ok(Self { running, started, last_frame, tap })
    }

    /// Waits for the first frame.
    pub(super) async fn first_frame(&self) -> Result<(), Fault> {
        let failed = |why: String| Err(Fault::Failed(why));
        match timeout(FIRST_FRAME, self.started.recv()).await {
            Some(Ok(started)) => started,
            Some(Err(_)) => failed("the source was dropped".to_owned()),
            None => failed(format!("no frame arrived within {} s", FIRST_FRAME.as_secs())),
        }
    }

    /// Returns the appsinks that the pipeline has, `out` and `encoded`, each with its producer for consumers.
    pub(super) fn sinks(&self) -> [Option<Sink>; 2] {
        let produce =
            |sink: gst_app::AppSink| (StreamProducer::with(&sink, ProducerSettings { sync: false }), sink);
        ["out", "encoded"].map(|name| self.running.owned.pipeline().by_name(name).and_downcast().map(produce))
    }
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
                    *lock(&unknown) = Some(name);
                }
                None
            });
        }
        let first = first.clone();
        element.connect_no_more_pads(move |element| {
            if element.src_pads().iter().any(|pad| pad.is_linked()) {
                return;
            }
            let unknown = lock(&unknown).take();
            let fault = unknown.map_or(Fault::Lacks, |name| {
                Fault::Failed(format!(
                    "no decoder of {name} is installed; `roomtone doctor` lists what is missing"
                ))
            });
            let _ = first.try_send(Err(fault));
        });
    }
}

/// Plays a file from its start at its end, and reports the end of any other source to `over`. A still picture never ends.
/// A file of a web server is opened again, because not all web servers can seek and they say so too late.
fn play_again(
    (pipeline, ends): (&gst::Pipeline, Receiver<()>),
    kind: Kind,
    config: &SourceConfig,
    (pacer, over): (Arc<Pacer>, Sender<End>),
) -> smol::Task<()> {
    let weak = pipeline.downgrade();
    let (is_file, is_web) = (config.is_file(), config.is_web());
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
                end = Some(if waits { End::Finished } else { End::Stopped("it ended".to_owned()) });
                continue;
            }
            smol::Timer::after(ROUND.saturating_sub(began.elapsed())).await;
            began = Instant::now();
            if is_web {
                end = Some(End::Again);
                continue;
            }
            pacer.begin_again();
            let again =
                smol::unblock(move || pipeline.seek_simple(gst::SeekFlags::FLUSH, gst::ClockTime::ZERO));
            if let Err(error) = again.await {
                tracing::debug!("the file is opened again: {error}");
                end = Some(End::Stopped("it ended".to_owned()));
            }
        }
        if let Some(end) = end {
            let _ = over.try_send(end);
        }
    })
}
