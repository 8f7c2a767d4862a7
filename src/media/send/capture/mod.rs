//! Captures each source once: a source produces raw frames in one format for any number of encoders, or passes encoded
//! frames through unchanged ([`super::encoded_source`]).

mod config;
mod end;
mod pace;
mod raw_frames;
mod silence;
mod size;
mod starting;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use gst::prelude::*;
use gst_utils::{StreamProducer, streamproducer::ProducerSettings};
use smol::channel::{Receiver, Sender, bounded};

pub use self::config::{MICROPHONES, SourceConfig};
pub(crate) use self::end::End;
use self::end::Fault;
use self::pace::Pacer;
use self::starting::{Running, Sink, Starting, Stop};
use super::encoded_source::{DecoderFeed, Encoded, Obstacle, Tap};
use crate::media::gst::error::MediaError;
use crate::media::gst::launch;
use crate::media::gst::pipeline::{BusEvent, Owned};
use crate::media::gst::voice::Voice;
use crate::sdp::Kind;

/// Output of a source.
#[derive(Debug, Clone)]
pub(crate) enum Frames {
    /// Raw frames in one format.
    Raw(StreamProducer),
    /// Encoded video frames, unchanged.
    Encoded(Encoded),
}

/// A running source.
#[derive(Debug)]
pub struct Capture {
    id: u64,
    kind: Kind,
    config: SourceConfig,
    frames: Frames,
    /// Feed of the decoder if this source decodes another one; dropped before the pipeline that the feed writes to.
    _feed: Option<DecoderFeed>,
    running: Running,
}

/// Number of the next source.
static NEXT: AtomicU64 = AtomicU64::new(1);

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
        let playing = starting.running.owned.play();
        match starting.first_frame().await {
            Ok(()) => {}
            Err(Fault::Lacks) => return Err(MediaError::NoMedia { name: config.name(kind), kind }),
            Err(Fault::Failed(reason)) => {
                drop(playing);
                return Err(config.error(kind, reason));
            }
        }
        let Starting { mut running, started, last_frame, tap } = starting;
        while let Ok(first) = started.try_recv() {
            if let Err(Fault::Failed(reason)) = first {
                let _ = running.over.try_send(End::Stopped(reason));
            }
        }
        drop(started);
        let frames = choose(running.owned.pipeline(), raw, encoded.zip(tap))?;
        if let (Frames::Encoded(encoded), Some(_)) = (&frames, config.size) {
            encoded.refuse(Obstacle::Size);
        }
        let last_frame = last_frame.filter(|_| matches!(frames, Frames::Raw(_)));
        let names = (config.name(kind), config.is_network());
        let silence = silence::watch(running.stop.0.clone(), names, failures, running.over.clone());
        running.tasks.extend([silence].into_iter().chain(last_frame.map(raw_frames::repeat)));
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Self { id, kind, config: config.clone(), frames, _feed: None, running })
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
            let _ = started.running.over.try_send(end);
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
        self.running.ended.clone()
    }

    /// Returns the media kind of the source.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Decodes the encoded frames into a new source of raw frames, which starts at the current frame.
    pub(crate) fn decoded(&self, encoded: &Encoded, failures: Sender<String>) -> Result<Self, MediaError> {
        let text = format!(
            "appsrc name=in format=time is-live=true max-bytes=0 ! decodebin ! {}",
            self.config.raw_video(encoded.turn())
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
        let last_frame = raw_frames::prepare(&pipeline, kind, &self.config, &self.running.is_muted);
        let producer = StreamProducer::with(&appsink, ProducerSettings { sync: false });
        owned.play()?;
        let (over, ended) = bounded(1);
        let feed = encoded.feed(appsrc, pipeline.by_name("time").and_then(|time| time.static_pad("sink")));
        let running = Running {
            is_muted: self.running.is_muted.clone(),
            meter: self.running.meter.clone(),
            ended,
            over,
            stop: Stop(Pacer::new(gst::ClockTime::ZERO, false)),
            owned,
            tasks: last_frame.map(raw_frames::repeat).into_iter().collect(),
        };
        let (id, config) = (NEXT.fetch_add(1, Ordering::Relaxed), self.config.clone());
        Ok(Self { id, kind, config, frames: Frames::Raw(producer), _feed: Some(feed), running })
    }

    /// Returns the maximum frame rate of the video, in frames per second.
    pub(crate) fn fps(&self) -> u32 {
        self.config.fps
    }

    /// Returns the level of the captured audio, if it was measured within the last two seconds.
    pub(crate) fn level(&self) -> Option<u8> {
        self.running.meter.level()
    }

    /// Returns the output of the source.
    pub(crate) fn frames(&self) -> &Frames {
        &self.frames
    }

    /// Mutes the source: sends silence or black until unmuted. The peers need no renegotiation.
    pub fn set_muted(&self, muted: bool) {
        self.running.is_muted.store(muted, Ordering::Relaxed);
    }

    /// Returns the shared mute flag, which follows later changes.
    pub(crate) fn mutes(&self) -> Arc<AtomicBool> {
        self.running.is_muted.clone()
    }

    /// Returns whether the source is muted.
    pub fn is_muted(&self) -> bool {
        self.running.is_muted.load(Ordering::Relaxed)
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
        (None, _) => Err(MediaError::pipeline("building a source", "no appsink")),
    }
}

#[cfg(test)]
mod tests;
