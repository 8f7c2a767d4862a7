//! Where received media goes: a window, a speaker, or a pipeline of the user's.

use gst::prelude::*;
use gst_utils::{ConsumptionLink, StreamProducer};
use smol::channel::Sender;

use super::launch::{self, Folder};
use super::pipeline::{BusEvent, Owned};
use super::receive::Track;
use super::voice::Reference;
use super::{MediaError, inventory, level};
use crate::sdp::Kind;

/// What a speaker holds, and plays at once, in µs.
const SPEAKER: [(&str, i64); 2] = [("buffer-time", 50_000), ("latency-time", 10_000)];

/// Sinks give all before them 20 ms to do their work, and speakers hold 200 ms. Decoding takes less than what comes waits
/// anyway, and a picture that is late is better shown late than not at all.
fn hurry(pipeline: &gst::Pipeline, kind: Kind) {
    let set = move |element: &gst::Element| {
        if element.has_property("processing-deadline") {
            element.set_property("processing-deadline", 0_u64);
        }
        if kind == Kind::Video && element.has_property("max-lateness") {
            element.set_property("max-lateness", -1_i64);
        }
        for (name, time) in SPEAKER.iter().filter(|(name, _)| element.has_property(name)) {
            element.set_property(name, time);
        }
    };
    pipeline.iterate_recurse().into_iter().filter_map(Result::ok).for_each(|element| set(&element));
    // Those that are made later, by an autovideosink.
    pipeline.connect_deep_element_added(move |_, _, element| set(element));
}

/// A running output of one track.
#[derive(Debug)]
pub struct Output {
    link: ConsumptionLink,
    pipeline: Owned,
}

/// The whole pipeline of an output: its decoder, and the named or given pipeline.
fn text(kind: Kind, decoder: &str, output: &str, peer: &str) -> Result<String, MediaError> {
    let output = match output.contains('!') || output.split_whitespace().count() > 1 {
        true => output.to_owned(),
        false => match launch::named(Folder::Output, output) {
            // A lone element is a pipeline too.
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

/// Where sound goes by on its way to be played.
fn meter(pipeline: &gst::Pipeline) -> Option<gst::Pad> {
    pipeline.by_name("meter")?.static_pad("src")
}

/// Refuses an output that could not be built, before a call begins.
pub fn check(kind: Kind, output: &str) -> Result<(), MediaError> {
    launch::parse(&text(kind, "identity", output, "peer")?).map(|_| ())
}

impl Output {
    /// Decodes a track into an output: a name of `pipelines/output` or a pipeline's text, which may
    /// hold `{peer}`. What it plays is heard by `reference`. Its failure goes to `failures` and stops nothing else.
    pub fn start(
        track: &Track,
        output: &str,
        peer: &str,
        reference: Option<&Reference>,
        failures: Sender<String>,
    ) -> Result<Self, MediaError> {
        let text = text(track.kind(), inventory::decoder(track.codec)?, output, peer)?;
        let output = Self::run(track.kind(), &track.producer, &text, reference, failures)?;
        if let Some(pad) = meter(output.pipeline.pipeline()) {
            let counters = track.counters.clone();
            level::watch(&pad, move |samples| counters.meter.take(samples));
        }
        Ok(output)
    }

    /// Goes on with another track of the same codec.
    pub fn follow(&mut self, track: &Track) {
        if let Err(error) = self.link.change_producer(&track.producer, false) {
            tracing::warn!("an output does not go on: {error}");
        }
    }

    /// The same of raw frames.
    pub(super) fn of_raw(
        kind: Kind,
        producer: &StreamProducer,
        output: &str,
        reference: Option<&Reference>,
        failures: Sender<String>,
    ) -> Result<Self, MediaError> {
        Self::run(kind, producer, &text(kind, "queue", output, "room")?, reference, failures)
    }

    fn run(
        kind: Kind,
        producer: &StreamProducer,
        text: &str,
        reference: Option<&Reference>,
        failures: Sender<String>,
    ) -> Result<Self, MediaError> {
        let pipeline = launch::parse(text)?;
        let appsrc: gst_app::AppSrc = launch::by_name(&pipeline, "in")?;
        hurry(&pipeline, kind);
        if let Some((reference, pad)) = reference.zip(meter(&pipeline)) {
            reference.hear(&pad);
        }
        let owned = Owned::new(pipeline, move |_, event| {
            if let BusEvent::Error(element, reason) = event {
                let _ = failures.try_send(format!("the {kind} output stopped: {reason} ({element})"));
            }
        });
        let link = producer.add_consumer(&appsrc);
        let link = link.map_err(|error| MediaError::WebRtc(error.to_string()))?;
        owned.play()?;
        Ok(Self { link, pipeline: owned })
    }
}
