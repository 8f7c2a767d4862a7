//! An encoder of one source; its rate, frame size and frame rate can change while it runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use gst_utils::{ConsumptionLink, StreamProducer, streamproducer::ProducerSettings};

use super::shape::Shape;
use super::threads;
use crate::base::lock::lock;
use crate::media::gst::error::MediaError;
use crate::media::gst::launch;
use crate::media::gst::pipeline::{BusEvent, Owned};
use crate::media::send::capture::Capture;
use crate::media::send::encoded_source::{self, Encoded};
use crate::media::send::last_frame::LastFrame;
use crate::sdp::{Codec, Kind};

/// Minimum relative change of the bitrate that is applied.
const NOTICEABLE: f64 = 0.03;

/// Raw frames to encode, and the decoder that makes them if the source is encoded.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    pub(super) kind: Kind,
    pub(super) fps: u32,
    pub(super) producer: StreamProducer,
    pub(super) _decoded: Option<Arc<Capture>>,
}

/// An encoder of one source, or the passthrough of an encoded one. It runs for as long as a sender holds it.
#[derive(Debug)]
pub struct Encoder {
    codec: Codec,
    producer: StreamProducer,
    link: Mutex<ConsumptionLink>,
    owned: Owned,
    /// Source of the frames.
    from: Mutex<Input>,
    /// The property for the bitrate, and its unit in bit/s.
    rate: Option<(Settings, String, u32)>,
    bitrate: AtomicU32,
    /// Shape of the encoded frames, and the size of the source that it was chosen for.
    shape: Mutex<(Shape, (u32, u32))>,
    fps: u32,
    is_broken: Arc<AtomicBool>,
    /// Time of the last request for a key frame.
    forced: Arc<Mutex<Option<Instant>>>,
    /// The last raw frame.
    last_frame: Option<LastFrame>,
}

#[derive(Debug)]
enum Input {
    Raw { _held: Raw },
    Encoded(Encoded),
}

/// Elements around the encoding ones.
struct Parts {
    owned: Owned,
    appsrc: gst_app::AppSrc,
    producer: StreamProducer,
    is_broken: Arc<AtomicBool>,
    forced: Arc<Mutex<Option<Instant>>>,
}

/// Builds a pipeline from raw to encoded frames around gst-launch text. Later errors go to `failed`.
fn build(through: &str, failed: impl Fn(String) + Send + 'static) -> Result<Parts, MediaError> {
    let text = format!("appsrc name=in ! {through} ! appsink name=out max-buffers=100 drop=false");
    let pipeline = launch::parse(&text)?;
    let appsrc: gst_app::AppSrc = launch::by_name(&pipeline, "in")?;
    let appsink: gst_app::AppSink = launch::by_name(&pipeline, "out")?;
    let is_broken = Arc::new(AtomicBool::new(false));
    let broken = is_broken.clone();
    let owned = Owned::new(pipeline, move |_, event| {
        if let BusEvent::Error(element, reason) = event
            && !broken.swap(true, Ordering::Relaxed)
        {
            failed(format!("{reason} ({element})"));
        }
    });
    let forced = limit_key_frames(&appsink);
    hold_back_end(&appsink);
    use_common_times(&appsink);
    let producer = StreamProducer::with(&appsink, ProducerSettings { sync: false });
    Ok(Parts { owned, appsrc, producer, is_broken, forced })
}

impl Encoder {
    /// Starts an encoder given as gst-launch text, at `bitrate` bit/s. Later errors go to `failed`.
    pub(super) fn start(
        (codec, text): (Codec, &str),
        bitrate: u32,
        raw: Raw,
        failed: impl Fn(String) + Send + 'static,
    ) -> Result<Self, MediaError> {
        let filled = launch::fill(
            text,
            &[("bitrate", Some((bitrate / 1000).to_string())), ("bitrate_bps", Some(bitrate.to_string()))],
        )?;
        let adapt = match codec.kind() {
            Kind::Video => "videorate name=rate drop-only=true ! videoscale ! capsfilter name=shape !",
            Kind::Audio => "audioconvert ! audioresample !",
        };
        let parts = build(&format!("{adapt} {filled}"), failed)?;
        if let Some(pad) = parts.appsrc.static_pad("src") {
            threads::adapt(parts.owned.pipeline(), &pad);
        }
        let last_frame = parts.owned.pipeline().by_name("rate").and_then(|rate| LastFrame::after(&rate));
        let rate = rate_property(text).and_then(|(name, unit)| {
            let elements = parts.owned.pipeline().iterate_elements().into_iter().filter_map(Result::ok);
            let encodes = |element: &gst::Element| {
                let class = element.factory().and_then(|f| f.metadata("klass").map(str::to_owned));
                class.is_some_and(|class| class.contains("Encoder")) && element.has_property(&name)
            };
            elements.into_iter().find(encodes).map(|element| (Settings::of(element), name, unit))
        });
        let mut settings = gst_utils::streamproducer::ConsumerSettings::default();
        // Two frames may wait: a slow encoder drops frames instead of queueing them.
        if raw.kind == Kind::Video {
            settings.max_time = gst::ClockTime::from_mseconds(u64::from(2000 / raw.fps.max(1)));
        }
        let (producer, fps) = (raw.producer.clone(), raw.fps);
        let encoder = Self::run(codec, parts, Input::Raw { _held: raw }, &producer, settings)?;
        Ok(Self { rate, bitrate: AtomicU32::new(bitrate), fps, last_frame, ..encoder })
    }

    /// Starts the passthrough of an encoded source. While the source is muted, no frames pass.
    pub(super) fn pass(
        encoded: &Encoded,
        is_muted: Arc<AtomicBool>,
        failed: impl Fn(String) + Send + 'static,
    ) -> Result<Self, MediaError> {
        let parts = build(encoded_source::through(encoded.codec), failed)?;
        if let Some(pad) = parts.appsrc.static_pad("src") {
            // After a pause the stream continues with a key frame.
            let is_held = AtomicBool::new(false);
            pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
                let is_delta =
                    info.buffer().is_some_and(|buffer| buffer.flags().contains(gst::BufferFlags::DELTA_UNIT));
                let holds = is_muted.load(Ordering::Relaxed) || is_held.load(Ordering::Relaxed) && is_delta;
                is_held.store(holds, Ordering::Relaxed);
                if holds { gst::PadProbeReturn::Drop } else { gst::PadProbeReturn::Ok }
            });
        }
        let settings = gst_utils::streamproducer::ConsumerSettings {
            // No encoded frame may be dropped.
            max_time: gst::ClockTime::SECOND,
            ..Default::default()
        };
        Self::run(encoded.codec, parts, Input::Encoded(encoded.clone()), &encoded.producer, settings)
    }

    fn run(
        codec: Codec,
        parts: Parts,
        from: Input,
        producer: &StreamProducer,
        settings: gst_utils::streamproducer::ConsumerSettings,
    ) -> Result<Self, MediaError> {
        let mut link = ConsumptionLink::disconnected_with(parts.appsrc, settings);
        connect(&mut link, producer)?;
        parts.owned.play()?;
        Ok(Self {
            codec,
            producer: parts.producer,
            link: Mutex::new(link),
            owned: parts.owned,
            from: Mutex::new(from),
            rate: None,
            bitrate: AtomicU32::new(0),
            shape: Mutex::new((Shape::WHOLE, (0, 0))),
            fps: 0,
            is_broken: parts.is_broken,
            forced: parts.forced,
            last_frame: None,
        })
    }

    /// Returns the producer of the encoded frames.
    pub fn producer(&self) -> &StreamProducer {
        &self.producer
    }

    /// Returns the set bitrate, or the measured one of an encoded source, in bit/s; 0 until measured.
    pub fn bitrate(&self) -> u32 {
        match &*lock(&self.from) {
            Input::Raw { .. } => self.bitrate.load(Ordering::Relaxed),
            Input::Encoded(encoded) => encoded.rate().unwrap_or_default(),
        }
    }

    /// Returns whether this is the passthrough of an encoded source.
    pub fn passes(&self) -> bool {
        matches!(&*lock(&self.from), Input::Encoded(_))
    }

    /// Runs `act` once, right before the next key frame leaves. Drops `act` if `is_wanted` is false by then.
    pub(crate) fn at_key_frame(&self, is_wanted: Arc<AtomicBool>, act: impl FnOnce() + Send + 'static) {
        let Some(pad) = self.producer.appsink().static_pad("sink") else { return };
        let act = Mutex::new(Some(act));
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let is_delta =
                info.buffer().is_none_or(|buffer| buffer.flags().contains(gst::BufferFlags::DELTA_UNIT));
            if !is_wanted.load(Ordering::Relaxed) {
                return gst::PadProbeReturn::Remove;
            }
            if is_delta {
                return gst::PadProbeReturn::Ok;
            }
            if let Some(act) = lock(&act).take() {
                act();
            }
            gst::PadProbeReturn::Remove
        });
    }

    /// Serves a peer that joins: requests a key frame and repeats the last raw frame, so that there is one to encode.
    pub(crate) fn serve_newcomer(&self) {
        let before = *lock(&self.forced);
        if let Some(pad) = self.producer.appsink().static_pad("sink") {
            pad.push_event(gst_video::UpstreamForceKeyUnitEvent::builder().all_headers(true).build());
        }
        if before != *lock(&self.forced) {
            self.last_frame.iter().for_each(LastFrame::repeat);
        }
    }

    /// Audio or video.
    pub(super) fn kind(&self) -> Kind {
        self.codec.kind()
    }

    /// Returns whether the encoder has stopped with an error.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }

    /// Continues with the frames of another source.
    pub(super) fn set_source(&self, raw: Raw) -> Result<(), MediaError> {
        connect(&mut lock(&self.link), &raw.producer)?;
        *lock(&self.from) = Input::Raw { _held: raw };
        Ok(())
    }

    /// Sets the bitrate (bit/s), and the frame size and frame rate that suit it.
    pub(super) fn set_bitrate(&self, bitrate: u32) {
        let before = self.bitrate();
        let Some((settings, name, unit)) = &self.rate else { return };
        if f64::from(bitrate.abs_diff(before)) >= f64::from(before) * NOTICEABLE {
            self.bitrate.store(bitrate, Ordering::Relaxed);
            settings.set(name, bitrate / unit);
        }
        if self.kind() == Kind::Video {
            self.fit(self.bitrate());
        }
    }

    /// Sets the expected packet loss of an encoder with forward error correction, in percent.
    pub(super) fn set_loss(&self, percent: u32) {
        const NAME: &str = "packet-loss-percentage";
        if let Some((settings, ..)) = self.rate.as_ref().filter(|(of, ..)| of.element.has_property(NAME)) {
            settings.set(NAME, percent.min(100));
        }
    }

    fn fit(&self, bitrate: u32) {
        let pipeline = self.owned.pipeline();
        let (Some(rate), Some(filter)) = (pipeline.by_name("rate"), pipeline.by_name("shape")) else {
            return;
        };
        let caps = lock(&self.link).appsrc().static_pad("src").and_then(|pad| pad.current_caps());
        let side = |key| caps.as_ref()?.structure(0)?.get::<i32>(key).ok()?.try_into().ok();
        let (Some(width), Some(height)) = (side("width"), side("height")) else { return };
        let size: (u32, u32) = (width, height);
        let mut shape = lock(&self.shape);
        let new = shape.0.at(bitrate, size, self.fps);
        // The source may have changed its size.
        if (new, size) == *shape {
            return;
        }
        tracing::debug!("{} at {bitrate} bit/s: {new:?} of {size:?}", self.codec);
        let frames = if new.fps == 1 { i32::MAX } else { (self.fps / new.fps).max(1).cast_signed() };
        rate.set_property("max-rate", frames);
        let mut wanted = gst::Caps::builder("video/x-raw");
        if new.size != 1 {
            let (width, height) = new.of(size);
            wanted = wanted.field("width", width.cast_signed()).field("height", height.cast_signed());
        }
        filter.set_property("caps", wanted.build());
        *shape = (new, size);
    }
}

fn connect(link: &mut ConsumptionLink, producer: &StreamProducer) -> Result<(), MediaError> {
    Ok(link.change_producer(producer, false)?)
}

/// Returns the property that a pipeline's text sets to the bitrate, and its unit in bit/s.
fn rate_property(text: &str) -> Option<(String, u32)> {
    text.split_whitespace().find_map(|word| {
        let (name, value) = word.split_once('=')?;
        let unit = match value {
            "{bitrate}" => 1000,
            "{bitrate_bps}" => 1,
            _ => return None,
        };
        Some((name.to_owned(), unit))
    })
}

/// Properties of an encoder that change while it runs: they are set in the encoder's streaming thread, before its next
/// frame. av1enc (1.22 to 1.28) passes a new bitrate to libaom in the caller's thread, and libaom (3.14) aborts the
/// process if it encodes a frame at the same time.
#[derive(Debug)]
struct Settings {
    element: gst::Element,
    /// Latest value of each property that is not set yet.
    waiting: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl Settings {
    fn of(element: gst::Element) -> Self {
        let waiting: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
        if let Some(pad) = element.static_pad("sink") {
            let waiting = waiting.clone();
            pad.add_probe(gst::PadProbeType::BUFFER, move |pad, _| {
                let now = std::mem::take(&mut *lock(&waiting));
                for (name, value) in now {
                    pad.parent_element().iter().for_each(|element| set_number(element, &name, value));
                }
                gst::PadProbeReturn::Ok
            });
        }
        Self { element, waiting }
    }

    fn set(&self, name: &str, value: u32) {
        lock(&self.waiting).insert(name.to_owned(), value);
    }
}

/// Sets a property of any integer type, clamped to its bounds.
fn set_number(element: &gst::Element, name: &str, value: u32) {
    let Some(spec) = element.find_property(name) else { return };
    let number = i64::from(value);
    macro_rules! fitted {
        ($spec:ty, $number:ty) => {
            spec.downcast_ref::<$spec>().map(|spec| {
                let bounds = (spec.minimum().into(), spec.maximum().into());
                let fitted: i64 = number.clamp(bounds.0, bounds.1);
                <$number>::try_from(fitted).unwrap_or_default().to_value()
            })
        };
    }
    let fitted = fitted!(gst::glib::ParamSpecInt, i32).or_else(|| fitted!(gst::glib::ParamSpecUInt, u32));
    if let Some(value) = fitted {
        element.set_property_from_value(name, &value);
    }
}

/// Lets requests for key frames through with a pause in between: every peer may request one, and each costs all peers
/// bandwidth. Peers that still need one repeat a dropped request. The encoders' own limit,
/// `min-force-key-unit-interval`, makes x264enc (1.22) drop requests for ever, because its times are shifted.
fn limit_key_frames(appsink: &gst_app::AppSink) -> Arc<Mutex<Option<Instant>>> {
    const PAUSE: Duration = Duration::from_millis(200);
    let forced: Arc<Mutex<Option<Instant>>> = Arc::default();
    let (Some(pad), last) = (appsink.static_pad("sink"), forced.clone()) else { return forced };
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
        if info.event().is_none_or(|event| gst_video::UpstreamForceKeyUnitEvent::parse(event).is_err()) {
            return gst::PadProbeReturn::Ok;
        }
        let mut last = lock(&last);
        if last.is_some_and(|at| at.elapsed() < PAUSE) {
            // Handled instead of Drop: after Drop, GStreamer frees an event that the binding has taken.
            return gst::PadProbeReturn::Handled;
        }
        *last = Some(Instant::now());
        gst::PadProbeReturn::Ok
    });
    forced
}

/// Sets the time of encoded frames to the common base, in one endless segment, and removes their decoding time (DTS).
/// x264enc shifts its times by 1000 hours; a payloader that then gets frames of another encoder would continue from the
/// last DTS, and would send nothing until the times reach it.
fn use_common_times(appsink: &gst_app::AppSink) {
    let Some(pad) = appsink.static_pad("sink") else { return };
    let segment = Mutex::new(gst::FormattedSegment::<gst::ClockTime>::new());
    let types = gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::BUFFER;
    pad.add_probe(types, move |_, info| {
        if let Some(gst::EventView::Segment(new)) = info.event().map(|event| event.view()) {
            if let Some(new) = new.segment().downcast_ref::<gst::ClockTime>() {
                *lock(&segment) = new.clone();
            }
            let endless = gst::FormattedSegment::<gst::ClockTime>::new();
            info.data = Some(gst::PadProbeData::Event(gst::event::Segment::new(&endless)));
        }
        if let Some(buffer) = info.buffer_mut() {
            let time = buffer.pts().and_then(|pts| lock(&segment).to_running_time(pts));
            let buffer = buffer.make_mut();
            buffer.set_pts(time);
            buffer.set_dts(gst::ClockTime::NONE);
        }
        gst::PadProbeReturn::Ok
    });
}

/// Drops the end of stream. An encoder that fails ends its stream; its senders get another encoder, and an end of
/// stream would end all media of their connections.
fn hold_back_end(appsink: &gst_app::AppSink) {
    let Some(pad) = appsink.static_pad("sink") else { return };
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, |_, info| {
        match info.event().is_some_and(|event| event.type_() == gst::EventType::Eos) {
            true => gst::PadProbeReturn::Handled,
            false => gst::PadProbeReturn::Ok,
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_property_of_the_bitrate_is_found_in_the_text() {
        let found = |text| rate_property(text);
        assert_eq!(found("x264enc a=1 bitrate={bitrate} ! c"), Some(("bitrate".into(), 1000)));
        assert_eq!(found("vp8enc target-bitrate={bitrate_bps}"), Some(("target-bitrate".into(), 1)));
        assert_eq!(found("mulawenc"), None);
    }

    #[test]
    fn properties_change_in_the_encoding_thread_only() {
        crate::media::gst::init().unwrap();
        let text =
            "videotestsrc is-live=true ! video/x-raw,width=16,height=16 ! identity name=some ! fakesink";
        let pipeline = launch::parse(text).unwrap();
        let element = pipeline.by_name("some").unwrap();
        let (set, threads) = std::sync::mpsc::channel();
        let (encodes, encoding) = (set.clone(), element.static_pad("src").unwrap());
        element.connect_notify(Some("sleep-time"), move |_, _| {
            let _ = set.send(std::thread::current().id());
        });
        let settings = Settings::of(element);
        settings.set("sleep-time", 1);
        settings.set("sleep-time", 2);
        assert!(threads.try_recv().is_err(), "not before a frame");
        encoding.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            let _ = encodes.send(std::thread::current().id());
            gst::PadProbeReturn::Ok
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        let seen: Vec<_> = threads.iter().take(3).collect();
        pipeline.set_state(gst::State::Null).unwrap();
        // The property change causes the first notification, frames cause the other two.
        assert_eq!((seen[0], seen[0]), (seen[1], seen[2]));
        assert_ne!(seen[0], std::thread::current().id());
        assert_eq!(settings.element.property::<u32>("sleep-time"), 2);
    }
}
