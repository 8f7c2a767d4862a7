//! Where received media goes: a window, a speaker, or a pipeline of the user's.

use gst_utils::{ConsumptionLink, StreamProducer};
use smol::channel::Sender;

use super::launch::{self, Folder};
use super::pipeline::{BusEvent, Owned};
use super::receive::Track;
use super::{MediaError, inventory};
use crate::sdp::Kind;

/// A running output of one track.
#[derive(Debug)]
pub struct Output {
    link: ConsumptionLink,
    _pipeline: Owned,
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
        Kind::Audio => "audioconvert ! audioresample",
    };
    Ok(format!("appsrc name=in ! {decoder} ! {convert} ! {output}"))
}

/// Refuses an output that could not be built, before a call begins.
pub fn check(kind: Kind, output: &str) -> Result<(), MediaError> {
    launch::parse(&text(kind, "identity", output, "peer")?).map(|_| ())
}

impl Output {
    /// Decodes a track into an output: a name of `pipelines/output` or a pipeline's text, which may
    /// hold `{peer}`. Its failure goes to `failures` and stops nothing else.
    pub fn start(
        track: &Track,
        output: &str,
        peer: &str,
        failures: Sender<String>,
    ) -> Result<Self, MediaError> {
        let text = text(track.kind(), inventory::decoder(track.codec)?, output, peer)?;
        Self::run(track.kind(), &track.producer, &text, failures)
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
        failures: Sender<String>,
    ) -> Result<Self, MediaError> {
        Self::run(kind, producer, &text(kind, "queue", output, "room")?, failures)
    }

    fn run(
        kind: Kind,
        producer: &StreamProducer,
        text: &str,
        failures: Sender<String>,
    ) -> Result<Self, MediaError> {
        let pipeline = launch::parse(text)?;
        let appsrc: gst_app::AppSrc = launch::by_name(&pipeline, "in")?;
        let owned = Owned::new(pipeline, move |_, event| {
            if let BusEvent::Error(element, reason) = event {
                let _ = failures.try_send(format!("the {kind} output stopped: {reason} ({element})"));
            }
        });
        let link = producer.add_consumer(&appsrc);
        let link = link.map_err(|error| MediaError::WebRtc(error.to_string()))?;
        owned.play()?;
        Ok(Self { link, _pipeline: owned })
    }
}
