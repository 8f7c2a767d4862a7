//! Encode once: an encoder for each codec that some peer negotiated, however many peers there are,
//! stopped when none is left that needs it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_utils::{ConsumptionLink, StreamProducer, streamproducer::ProducerSettings};
use smol::channel::Sender;

use super::capture::Capture;
use super::launch::{self, Folder};
use super::pipeline::{BusEvent, Owned};
use super::{MediaError, inventory};
use crate::sdp::{Codec, Kind};

/// One encode of one source. Whoever sends of it holds it.
#[derive(Debug)]
pub struct Encoder {
    codec: Codec,
    producer: StreamProducer,
    link: Mutex<ConsumptionLink>,
    _pipeline: Owned,
}

impl Encoder {
    /// The encoded stream.
    pub fn producer(&self) -> &StreamProducer {
        &self.producer
    }
}

/// The sources, and the encoders in use.
#[derive(Debug)]
pub struct Encoders {
    kinds: Vec<Kind>,
    bitrate: u32,
    state: Mutex<State>,
    failures: Sender<String>,
}

#[derive(Debug, Default)]
struct State {
    captures: HashMap<Kind, Capture>,
    running: HashMap<Codec, Weak<Encoder>>,
    /// Those that run with or without peers.
    kept: Vec<Arc<Encoder>>,
}

impl Encoders {
    /// Encoders over these sources; the video's bitrate is in kbit/s.
    pub fn new(captures: Vec<Capture>, bitrate: u32, failures: Sender<String>) -> Self {
        let kinds = captures.iter().map(Capture::kind).collect();
        let captures = captures.into_iter().map(|capture| (capture.kind(), capture)).collect();
        Self { kinds, bitrate, state: Mutex::new(State { captures, ..State::default() }), failures }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is something to send of that kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    /// The encoder of that codec, started when nobody used it yet.
    pub fn encoder(&self, codec: Codec) -> Result<Arc<Encoder>, MediaError> {
        let mut state = self.lock();
        if let Some(encoder) = state.running.get(&codec).and_then(Weak::upgrade) {
            return Ok(encoder);
        }
        let capture = state.captures.get(&codec.kind());
        let capture = capture.ok_or_else(|| MediaError::WebRtc(format!("nothing to send as {codec}")))?;
        let encoder = Arc::new(self.start(codec, capture)?);
        state.running.insert(codec, Arc::downgrade(&encoder));
        Ok(encoder)
    }

    /// Starts an encoder that then runs with or without peers: the first peer need not wait for it.
    pub fn keep(&self, codec: Codec) -> Result<(), MediaError> {
        let encoder = self.encoder(codec)?;
        self.lock().kept.push(encoder);
        Ok(())
    }

    /// Silence or black from now on, or the source again; false where nothing of the kind is sent.
    pub fn set_muted(&self, kind: Kind, muted: bool) -> bool {
        self.lock().captures.get(&kind).map(|capture| capture.set_muted(muted)).is_some()
    }

    /// Whether silence or black is sent of that kind.
    pub fn is_muted(&self, kind: Kind) -> bool {
        self.lock().captures.get(&kind).is_some_and(Capture::is_muted)
    }

    /// Another source in place of the one of its kind, for all peers at once; false where nothing of the
    /// kind is sent.
    pub fn replace(&self, capture: Capture) -> Result<bool, MediaError> {
        let mut state = self.lock();
        let Some(old) = state.captures.get(&capture.kind()) else { return Ok(false) };
        capture.set_muted(old.is_muted());
        for encoder in state.running.values().filter_map(Weak::upgrade) {
            if encoder.codec.kind() == capture.kind() {
                let mut link = encoder.link.lock().unwrap_or_else(PoisonError::into_inner);
                let changed = link.change_producer(capture.producer(), false);
                changed.map_err(|error| MediaError::WebRtc(error.to_string()))?;
            }
        }
        state.captures.insert(capture.kind(), capture);
        Ok(true)
    }

    fn start(&self, codec: Codec, capture: &Capture) -> Result<Encoder, MediaError> {
        let text = launch::fill(
            &launch::named(Folder::Encode, inventory::encoder(codec)?)?,
            &[
                ("bitrate", Some(self.bitrate.to_string())),
                ("bitrate_bps", Some((u64::from(self.bitrate) * 1000).to_string())),
            ],
        )?;
        let text = format!("appsrc name=in ! {text} ! appsink name=out max-buffers=100 drop=false");
        let pipeline = launch::parse(&text)?;
        let appsrc: gst_app::AppSrc = launch::by_name(&pipeline, "in")?;
        let appsink: gst_app::AppSink = launch::by_name(&pipeline, "out")?;
        let failures = self.failures.clone();
        let owned = Owned::new(pipeline, move |_, event| {
            if let BusEvent::Error(element, reason) = event {
                let _ = failures.try_send(format!("the {codec} encoder stopped: {reason} ({element})"));
            }
        });
        limit_key_frames(&appsink);
        let producer = StreamProducer::with(&appsink, ProducerSettings { sync: false });
        let mut settings = gst_utils::streamproducer::ConsumerSettings::default();
        // Two frames: a slow encoder drops pictures and does not queue them.
        if capture.kind() == Kind::Video {
            settings.max_time = gst::ClockTime::from_mseconds(u64::from(2000 / capture.fps().max(1)));
        }
        let mut link = ConsumptionLink::disconnected_with(appsrc, settings);
        link.change_producer(capture.producer(), false)
            .map_err(|error| MediaError::WebRtc(error.to_string()))?;
        owned.play()?;
        Ok(Encoder { codec, producer, link: Mutex::new(link), _pipeline: owned })
    }
}

/// At most two forced key frames in a second: every peer may ask, and each costs all of them. What is
/// refused is asked for again by those who still need it. (The encoders' own limit,
/// `min-force-key-unit-interval`, makes x264enc of 1.22 refuse for ever, since its time is shifted.)
fn limit_key_frames(appsink: &gst_app::AppSink) {
    const TWO_IN: Duration = Duration::from_secs(1);
    let Some(pad) = appsink.static_pad("sink") else { return };
    let last: Mutex<[Option<Instant>; 2]> = Mutex::default();
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
        if info.event().is_none_or(|event| gst_video::UpstreamForceKeyUnitEvent::parse(event).is_err()) {
            return gst::PadProbeReturn::Ok;
        }
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last[0].is_some_and(|at| at.elapsed() < TWO_IN) {
            // Not Drop: with it GStreamer is left to free an event that the binding has taken.
            return gst::PadProbeReturn::Handled;
        }
        *last = [last[1], Some(Instant::now())];
        gst::PadProbeReturn::Ok
    });
}
