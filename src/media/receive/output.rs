//! Outputs of received media: a window, a loudspeaker, or a user's pipeline.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use gst::prelude::*;
use gst_utils::{ConsumptionLink, StreamProducer};
use smol::channel::{Receiver, Sender, bounded};

use super::track::{Counters, Track};
use super::{concealment, playout_delay};
use crate::base::lock::lock;
use crate::base::tasks::Tasks;
use crate::media::gst::error::MediaError;
use crate::media::gst::launch::{self, Folder};
use crate::media::gst::pipeline::{self, BusEvent, Owned};
use crate::media::gst::voice::Reference;
use crate::media::gst::{inventory, level};
use crate::sdp::Kind;

/// Length of a loudspeaker's buffer and of its periods, in µs.
const SPEAKER: [(&str, i64); 2] = [("buffer-time", 50_000), ("latency-time", 10_000)];

/// Lowers the reserves of the sinks: by default sinks grant 20 ms for processing, and loudspeakers buffer 200 ms.
/// Decoding takes less than the playout delay, and a late frame is better shown late than not at all.
fn lower_reserves(pipeline: &gst::Pipeline, kind: Kind) {
    let set = move |element: &gst::Element| {
        if element.has_property("processing-deadline") {
            element.set_property("processing-deadline", 0_u64);
        }
        if kind == Kind::Video && element.has_property("max-lateness") {
            element.set_property("max-lateness", -1_i64);
        }
        for (name, time) in SPEAKER {
            // A value that the user chose stays.
            let spec = element.find_property(name);
            let default = spec.and_then(|spec| spec.default_value().get::<i64>().ok());
            if default.is_some_and(|default| element.property::<i64>(name) == default) {
                element.set_property(name, time);
            }
        }
    };
    pipeline.iterate_recurse().into_iter().filter_map(Result::ok).for_each(|element| set(&element));
    // An autovideosink adds its sink later.
    pipeline.connect_deep_element_added(move |_, _, element| set(element));
}

/// Shows the first frame at once: its time is moved back by the minimum playout delay, which only protects later frames
/// from jitter.
fn show_first_at_once(appsrc: &gst_app::AppSrc) {
    let reserve = gst::ClockTime::try_from(playout_delay::PLAYOUT_MIN).unwrap_or_default();
    let Some(pad) = appsrc.static_pad("src") else { return };
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(buffer) = info.buffer_mut() {
            let buffer = buffer.make_mut();
            buffer.set_pts(buffer.pts().map(|time| time.saturating_sub(reserve)));
            buffer.set_dts(buffer.dts().map(|time| time.saturating_sub(reserve)));
        }
        gst::PadProbeReturn::Remove
    });
}

/// A running output of one track.
#[derive(Debug)]
pub struct Output(Arc<Place>);

/// Place of an output's elements, which other decoders may replace.
#[derive(Debug)]
struct Place {
    current: Mutex<Current>,
    restarts: Tasks,
}

#[derive(Debug)]
struct Current {
    /// Producer of the current track.
    producer: StreamProducer,
    /// The elements; absent while others replace them.
    running: Option<Running>,
}

impl Place {
    fn new(producer: &StreamProducer) -> Arc<Self> {
        let current = Mutex::new(Current { producer: producer.clone(), running: None });
        Arc::new(Self { current, restarts: Tasks::new(MAX_RESTARTS) })
    }
}

#[derive(Debug)]
struct Running {
    link: ConsumptionLink,
    _pipeline: Owned,
}

/// A choice for playing a track: the text of the whole pipeline, and the decoder in it.
#[derive(Debug, Clone)]
struct Decoding {
    text: String,
    decoder: &'static str,
}

/// Returns the text of an output's whole pipeline: the decoder, and the named or given pipeline.
fn text(kind: Kind, decoder: &str, output: &str, peer: &str) -> Result<String, MediaError> {
    let output = match output.contains('!') || output.split_whitespace().count() > 1 {
        true => output.to_owned(),
        false => match launch::named(Folder::Output, output) {
            // The name of a single element is a pipeline, too.
            Err(MediaError::UnknownName { .. }) if inventory::is_installed(output) => output.to_owned(),
            named => named?,
        },
    };
    let output = launch::fill(&output, &[("peer", Some(peer.to_owned()))])?;
    let convert = match kind {
        Kind::Video => "videoconvert",
        Kind::Audio => "audioconvert ! audio/x-raw,format=S16LE ! identity name=meter ! audioresample",
    };
    Ok(format!("appsrc name=in ! {decoder} ! {convert} ! {output}"))
}

/// Returns the pad that played audio passes.
fn meter(pipeline: &gst::Pipeline) -> Option<gst::Pad> {
    pipeline.by_name("meter")?.static_pad("src")
}

/// Returns an error if an output cannot be built, before a call begins.
pub fn check(kind: Kind, output: &str) -> Result<(), MediaError> {
    launch::parse(&text(kind, "identity", output, "peer")?).map(|_| ())
}

impl Output {
    /// Decodes a track into an output: a name of `pipelines/output`, or the text of a pipeline, which may contain
    /// `{peer}`. `reference` receives the played audio. Failures of the output go to `failures` and affect nothing
    /// else.
    pub fn start(
        track: &Track,
        output: &str,
        peer: &str,
        reference: Option<&Arc<Reference>>,
        failures: Sender<String>,
    ) -> Result<Self, MediaError> {
        let decodings = inventory::decoders(track.codec)?.into_iter().map(|choice| {
            let text = text(track.kind(), choice.pipeline, output, peer)?;
            Ok(Decoding { text, decoder: choice.element })
        });
        let counters = track.counters.clone();
        let setting = Setting {
            kind: track.kind(),
            meter: Some(counters),
            reference: reference.cloned(),
            failures,
            is_reported: Arc::default(),
        };
        Self::run(&track.producer, decodings.collect::<Result<_, MediaError>>()?, setting)
    }

    /// Continues with another track of the same codec.
    pub fn switch_to(&mut self, track: &Track) {
        let mut current = lock(&self.0.current);
        current.producer = track.producer.clone();
        current.running.iter_mut().for_each(|running| running.follow(&track.producer));
    }

    /// Shows or plays raw frames, as [`Self::start`] does with a track.
    pub(crate) fn of_raw(
        kind: Kind,
        producer: &StreamProducer,
        output: &str,
        reference: Option<&Arc<Reference>>,
        failures: Sender<String>,
    ) -> Result<Self, MediaError> {
        let decoding = Decoding { text: text(kind, "queue", output, "room")?, decoder: "" };
        let setting = Setting {
            kind,
            meter: None,
            reference: reference.cloned(),
            failures,
            is_reported: Arc::default(),
        };
        Self::run(producer, vec![decoding], setting)
    }

    fn run(
        producer: &StreamProducer,
        decodings: Vec<Decoding>,
        setting: Setting,
    ) -> Result<Self, MediaError> {
        let place = Place::new(producer);
        start(&place, decodings, setting)?;
        Ok(Self(place))
    }
}

impl Running {
    fn follow(&mut self, producer: &StreamProducer) {
        if let Err(error) = self.link.change_producer(producer, false) {
            tracing::warn!("an output does not continue: {error}");
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        let running = lock(&self.0.current).running.take();
        drop(running);
    }
}

/// Settings of an output that all its decoders share.
#[derive(Debug, Clone)]
struct Setting {
    kind: Kind,
    meter: Option<Arc<Counters>>,
    reference: Option<Arc<Reference>>,
    failures: Sender<String>,
    /// Whether a decoding failure of the stream was reported already.
    is_reported: Arc<AtomicBool>,
}

/// Pause before decoding restarts after the last available decoder failed: the peer may cause an error with each frame.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Maximum number of restarts at a time: the new elements may fail before the task that started them has ended.
const MAX_RESTARTS: usize = 4;

/// Starts the first choice that works. If its decoder fails later, the next choice replaces it.
fn start(place: &Arc<Place>, mut decodings: Vec<Decoding>, setting: Setting) -> Result<(), MediaError> {
    let decoding = decodings.remove(0);
    let producer = lock(&place.current).producer.clone();
    let (in_place, is_in_place) = bounded(1);
    let started = play(place, &producer, (&decoding, &decodings), &setting, is_in_place);
    match (started, decodings.first()) {
        (Ok(mut running), _) => {
            let mut current = lock(&place.current);
            if current.producer != producer {
                running.follow(&current.producer);
            }
            current.running = Some(running);
            drop(current);
            let _ = in_place.try_send(());
            Ok(())
        }
        (Err(error), None) => Err(error),
        (Err(error), Some(next)) => {
            drop(in_place);
            // A decoder that does not even start fails for every stream.
            inventory::give_up(decoding.decoder);
            fell_back(decoding.decoder, next.decoder, &error.to_string());
            start(place, decodings, setting)
        }
    }
}

/// Starts the elements of a choice; `others` may replace them once `is_in_place` has a value.
fn play(
    place: &Arc<Place>,
    producer: &StreamProducer,
    (decoding, others): (&Decoding, &[Decoding]),
    setting: &Setting,
    is_in_place: Receiver<()>,
) -> Result<Running, MediaError> {
    let pipeline = launch::parse(&decoding.text)?;
    let appsrc: gst_app::AppSrc = launch::by_name(&pipeline, "in")?;
    lower_reserves(&pipeline, setting.kind);
    concealment::after_first_loss(&pipeline);
    if let Some(pad) = meter(&pipeline) {
        setting.reference.iter().for_each(|reference| reference.listen(&pad));
        if let Some(counters) = setting.meter.clone() {
            level::watch(&pad, move |samples| counters.meter.measure(samples));
        }
    }
    let (weak, of, others, again) =
        (Arc::downgrade(place), decoding.decoder, others.to_vec(), setting.clone());
    let this = decoding.clone();
    let is_over = AtomicBool::new(false);
    let owned = Owned::new(pipeline, move |_, event| {
        let BusEvent::Error(element, reason) = event else { return };
        // A failing element makes others fail, which report errors, too.
        if is_over.swap(true, Ordering::Relaxed) {
            return;
        }
        if of.is_empty() || !element.starts_with(of) {
            let kind = again.kind;
            let _ = again.failures.try_send(format!("the {kind} output stopped: {reason} ({element})"));
            return;
        }
        // A decoder's error at run time concerns only this stream, so that the decoder stays in use for others.
        let (decodings, rest) = match others.first() {
            Some(next) => {
                fell_back(of, next.decoder, &reason);
                (others.clone(), Duration::ZERO)
            }
            None => {
                if !again.is_reported.swap(true, Ordering::Relaxed) {
                    let text = format!("some of the {} cannot be decoded: {reason} ({element})", again.kind);
                    let _ = again.failures.try_send(text);
                }
                (vec![this.clone()], RESTART_PAUSE)
            }
        };
        if let Some(place) = weak.upgrade() {
            let is_in_place = is_in_place.clone();
            place.restarts.spawn(restart(weak.clone(), decodings, again.clone(), rest, is_in_place));
        }
    });
    pipeline::hold_for_latency(&appsrc, playout_delay::REPAIR_MAX);
    if setting.kind == Kind::Video {
        show_first_at_once(&appsrc);
    }
    let link = producer.add_consumer(&appsrc)?;
    owned.play()?;
    Ok(Running { link, _pipeline: owned })
}

/// Replaces the elements of an output after a pause, unless the output was dropped meanwhile. A decoder may fail before its
/// elements are in place; if their start fails altogether, it replaces them itself.
async fn restart(
    place: Weak<Place>,
    decodings: Vec<Decoding>,
    setting: Setting,
    pause: Duration,
    is_in_place: Receiver<()>,
) {
    if is_in_place.recv().await.is_err() {
        return;
    }
    smol::Timer::after(pause).await;
    let Some(place) = place.upgrade() else { return };
    let old = lock(&place.current).running.take();
    drop(old);
    let (kind, failures) = (setting.kind, setting.failures.clone());
    if let Err(error) = start(&place, decodings, setting) {
        let _ = failures.try_send(format!("the {kind} output stopped: {error}"));
    }
}

fn fell_back(decoder: &'static str, next: &str, error: &str) {
    tracing::warn!("{decoder} does not decode: {error}; {next} replaces it");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::send::encode::Encoders;
    use crate::media::test_media;
    use crate::sdp::Codec;

    /// Returns the pipeline of the elements that are in place.
    fn playing(output: &Output) -> Option<gst::Pipeline> {
        lock(&output.0.current).running.as_ref().map(|running| running._pipeline.pipeline().clone())
    }

    fn setting(encoders: &Encoders) -> Setting {
        let failures = encoders.failures().clone();
        Setting { kind: Kind::Video, meter: None, reference: None, failures, is_reported: Arc::default() }
    }

    #[test]
    fn the_place_is_not_locked_while_a_decoder_starts() {
        let (encoders, _failed) = smol::block_on(test_media::pictures());
        let (_seat, encoder) = encoders.join(Codec::Vp8).unwrap();
        let text = text(Kind::Video, "vp8dec", "fakesink sync=false", "peer").unwrap();
        let decodings = vec![Decoding { text, decoder: "vp8dec" }];
        let place = Place::new(encoder.producer());
        let observed = place.clone();
        let (_, steps) = test_media::steps_unlocked(
            move || observed.current.try_lock().is_ok(),
            || start(&place, decodings, setting(&encoders)).unwrap(),
        );
        assert!(steps.contains("\"vp8dec\"") && steps.contains("completed state change"), "{steps}");
    }

    #[test]
    fn the_next_decoder_replaces_a_failed_one() {
        smol::block_on(async {
            let (encoders, failed) = test_media::pictures().await;
            let (_seat, encoder) = encoders.join(Codec::Vp8).unwrap();
            let decoding = |decoder: &str, name| Decoding {
                text: text(Kind::Video, decoder, "identity name=shown ! fakesink sync=false", "peer")
                    .unwrap(),
                decoder: name,
            };
            let decodings = vec![
                decoding("nosuchdec", "nosuchdec"),
                decoding("identity name=failing error-after=20 ! vp8dec", "failing"),
                decoding("vp8dec", "vp8dec"),
            ];
            let output = Output::run(encoder.producer(), decodings, setting(&encoders)).unwrap();
            let first = playing(&output).unwrap();
            // Another decoder takes over in time, and its frames are shown.
            loop {
                smol::Timer::after(std::time::Duration::from_millis(20)).await;
                let Some(now) = playing(&output).filter(|now| *now != first) else { continue };
                let shown = now.by_name("shown").and_then(|shown| shown.static_pad("src")).unwrap();
                if shown.current_caps().is_some() {
                    break;
                }
            }
            assert!(failed.is_empty());
        });
    }

    #[test]
    fn the_last_decoder_is_restarted_and_reported_once() {
        smol::block_on(async {
            let (encoders, failed) = test_media::pictures().await;
            let (_seat, encoder) = encoders.join(Codec::Vp8).unwrap();
            let decoder = "identity name=failing error-after=5 ! vp8dec";
            let text = text(Kind::Video, decoder, "fakesink sync=false", "peer").unwrap();
            let decodings = vec![Decoding { text, decoder: "failing" }];
            let output = Output::run(encoder.producer(), decodings, setting(&encoders)).unwrap();
            let mut seen = Vec::new();
            while seen.len() < 3 {
                smol::Timer::after(Duration::from_millis(20)).await;
                seen.extend(playing(&output).filter(|now| !seen.contains(now)));
            }
            assert!(failed.recv().await.unwrap().starts_with("some of the video cannot be decoded"));
            assert!(failed.is_empty(), "{:?}", failed.try_recv());
        });
    }

    /// Lets a decoder fail while the start of its pipeline has not ended: the thread that starts it waits, at each step of
    /// GStreamer, longer than the pause between two frames.
    #[test]
    fn a_decoder_that_fails_during_its_start_is_replaced_after_it() {
        let (encoders, failed) = smol::block_on(test_media::pictures());
        let (_seat, encoder) = encoders.join(Codec::Vp8).unwrap();
        let decoding = |decoder: &str, name| Decoding {
            text: text(Kind::Video, decoder, "fakesink sync=false async=false", "peer").unwrap(),
            decoder: name,
        };
        let decodings = vec![
            decoding("identity name=failing error-after=1 ! vp8dec", "failing"),
            decoding("vp8dec", "vp8dec"),
        ];
        let slowly = || {
            // waits for: frames, of which one comes in 33 ms
            std::thread::sleep(Duration::from_millis(100));
            true
        };
        let run = || Output::run(encoder.producer(), decodings, setting(&encoders)).unwrap();
        let (output, _) = test_media::steps_unlocked(slowly, run);
        test_media::wait("the second decoder", || {
            playing(&output).is_some_and(|pipeline| pipeline.by_name("failing").is_none())
        });
        assert!(failed.is_empty());
    }
}
