//! The media of a room in one window and one loudspeaker: videos in a grid, audio mixed, both recorded if wanted. Peers
//! may join and leave at any time.

pub mod layout;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use gst::prelude::*;
use gst_utils::{ConsumptionLink, StreamProducer, streamproducer::ProducerSettings};
use smol::channel::Sender;

use super::output::Output;
use super::recorder::{Input as RecordInput, Recorded, Recorder};
use super::track::Track;
use super::{concealment, playout_delay};
use crate::base::lock::lock;
use crate::base::tasks::Tasks;
use crate::media::gst::error::MediaError;
use crate::media::gst::pipeline::{self, BusEvent, Owned};
use crate::media::gst::voice::Reference;
use crate::media::gst::{inventory, isolated_bin, launch, level};
use crate::sdp::{Codec, Kind};

/// Size of the window in pixels, and frames per second.
const WIDTH: u32 = 1280;
const HEIGHT: u32 = 720;
const FPS: u32 = 30;
/// Maximum delay of a peer's media behind the earliest, to be mixed in time.
const LATENCY: gst::ClockTime = gst::ClockTime::from_mseconds(150);
/// Maximum number of inputs that are being removed at a time.
const MAX_REMOVALS: usize = 1024;

/// A peer's media in a mix; leaves the mix when dropped.
#[derive(Debug)]
pub struct MixedTrack {
    mixer: Arc<Mixer>,
    number: u64,
}

impl MixedTrack {
    /// Continues with another track of the same codec; the last frame stays until the new track's first one.
    pub fn switch_to(&self, track: &Track) {
        let mut inputs = lock(&self.mixer.inputs);
        let input = inputs.all.iter_mut().find(|input| input.number == self.number);
        if let Some(Err(error)) = input.map(|input| input.link.change_producer(&track.producer, false)) {
            tracing::warn!("a mixed track does not continue: {error}");
        }
    }

    /// Sets the text under the video.
    pub fn label(&self, label: &str) {
        let inputs = lock(&self.mixer.inputs);
        let input = inputs.all.iter().find(|input| input.number == self.number);
        if let Some(text) = input.and_then(|input| input.bin.by_name("text")) {
            write(&text, label);
        }
    }
}

impl Drop for MixedTrack {
    fn drop(&mut self) {
        self.mixer.remove_later(self.number);
    }
}

#[derive(Debug)]
struct Input {
    number: u64,
    progress: Progress,
    /// Display name of the peer.
    label: String,
    bin: gst::Bin,
    pad: gst::Pad,
    link: ConsumptionLink,
}

/// Progress of an input's start, which runs without the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Starting,
    /// The input is to be removed once its start has ended.
    Cancelled,
    Started,
}

#[derive(Debug, Default)]
struct Inputs {
    all: Vec<Input>,
    next: u64,
}

#[derive(Debug)]
struct Mixer {
    kind: Kind,
    inputs: Mutex<Inputs>,
    mix: gst::Element,
    producer: StreamProducer,
    removals: Tasks,
    owned: Owned,
}

impl Mixer {
    fn start(kind: Kind, failures: Sender<String>) -> Result<Arc<Self>, MediaError> {
        // The test source keeps the mix running without peers. A sink that waits for its first frame (`async`) would stop the mix
        // for good if an input is removed in that moment.
        let text = match kind {
            Kind::Video => format!(
                "videotestsrc is-live=true pattern=black ! {caps} ! compositor name=mix background=black \
                 min-upstream-latency={latency} ! {caps} ! appsink name=out async=false max-buffers=4 drop=true",
                caps =
                    format_args!("video/x-raw,format=I420,width={WIDTH},height={HEIGHT},framerate={FPS}/1"),
                latency = LATENCY.nseconds(),
            ),
            Kind::Audio => format!(
                "audiotestsrc is-live=true wave=silence samplesperbuffer=480 ! {caps} ! audiomixer name=mix \
                 min-upstream-latency={latency} ! {caps} ! appsink name=out async=false max-buffers=50 drop=true",
                caps = "audio/x-raw,format=S16LE,layout=interleaved,rate=48000,channels=2",
                latency = LATENCY.nseconds(),
            ),
        };
        let pipeline = launch::parse(&text)?;
        let mix: gst::Element = launch::by_name(&pipeline, "mix")?;
        let appsink: gst_app::AppSink = launch::by_name(&pipeline, "out")?;
        let mixer = Arc::new(OnceLock::<Weak<Self>>::new());
        let of = mixer.clone();
        let owned = Owned::new(pipeline, move |_, event| match event {
            BusEvent::Error(element, reason) => {
                let _ = failures.try_send(format!("the room's {kind} stopped: {reason} ({element})"));
            }
            // A peer's undecodable media must not affect the others.
            BusEvent::Part(part, reason) => {
                let mixer = of.get().and_then(Weak::upgrade);
                if let Some((mixer, number, label)) = mixer.and_then(|mixer| mixer.input_of(&part)) {
                    let text =
                        format!("the {kind} of {label} cannot be decoded and leaves the room's: {reason}");
                    let _ = failures.try_send(text);
                    mixer.remove_later(number);
                }
            }
            BusEvent::Eos => {}
        });
        let producer = StreamProducer::with(&appsink, ProducerSettings { sync: false });
        owned.play()?;
        let removals = Tasks::new(MAX_REMOVALS);
        let made = Arc::new(Self { kind, inputs: Mutex::default(), mix, producer, removals, owned });
        let _ = mixer.set(Arc::downgrade(&made));
        Ok(made)
    }

    /// Returns the input whose elements are in this part.
    fn input_of(self: Arc<Self>, part: &str) -> Option<(Arc<Self>, u64, String)> {
        let found = {
            let inputs = lock(&self.inputs);
            let input = inputs.all.iter().find(|input| input.bin.name() == part)?;
            (input.number, input.label.clone())
        };
        Some((self, found.0, found.1))
    }

    fn add(self: &Arc<Self>, track: &Track, peer: &str) -> Result<MixedTrack, MediaError> {
        let failed = |what: &str| MediaError::pipeline(format!("mixing the media of {peer}"), what);
        // A hardware decoder that fails would end the mix for all peers.
        let decoder = inventory::software_decoder(track.codec)?.pipeline;
        let text = match self.kind {
            Kind::Video => format!(
                "appsrc name=in ! {decoder} ! videoconvert ! textoverlay name=text halignment=left \
                 valignment=bottom shaded-background=true ! queue name=end max-size-buffers=3 leaky=downstream"
            ),
            Kind::Audio => {
                format!(
                    "appsrc name=in ! {decoder} ! audioconvert ! audioresample ! queue name=end leaky=downstream"
                )
            }
        };
        let bin = launch::parse_bin_ending(&text, "end")?;
        isolated_bin::name(&bin);
        concealment::after_first_loss(&bin);
        if let Some(text) = bin.by_name("text") {
            write(&text, peer);
            text.set_property_from_str("font-desc", "Sans 10");
        }
        let appsrc =
            bin.by_name("in").and_downcast::<gst_app::AppSrc>().ok_or_else(|| failed("no appsrc"))?;
        let end = bin.by_name("end").filter(|_| self.kind == Kind::Audio);
        if let Some(pad) = end.and_then(|end| end.static_pad("sink")) {
            let counters = track.counters.clone();
            level::watch(&pad, move |samples| counters.meter.measure(samples));
        }
        pipeline::hold_for_latency(&appsrc, playout_delay::REPAIR_MAX);
        self.owned.pipeline().add(&bin).map_err(|_| failed("add"))?;
        let pad = self.mix.request_pad_simple("sink_%u").ok_or_else(|| failed("no pad"))?;
        let src = bin.static_pad("src").ok_or_else(|| failed("no pad of the decoder"))?;
        src.link(&pad).map_err(|_| failed("link"))?;
        // The appsrc gets its settings, among them its format, before it starts.
        let link = track.producer.add_consumer(&appsrc).map_err(|error| failed(&error.to_string()))?;
        let number = {
            let mut inputs = lock(&self.inputs);
            inputs.next += 1;
            let (number, bin) = (inputs.next, bin.clone());
            let (label, progress) = (peer.to_owned(), Progress::Starting);
            inputs.all.push(Input { number, progress, label, bin, pad, link });
            self.arrange(&inputs);
            number
        };
        let mixed = MixedTrack { mixer: self.clone(), number };
        // The decoder starts without the lock, and may fail meanwhile.
        let started = bin.sync_state_with_parent();
        if self.has_started(number) == Progress::Cancelled {
            self.remove_later(number);
        }
        started.map_err(|_| failed("state"))?;
        Ok(mixed)
    }

    /// Notes that the start of an input has ended; returns its progress before.
    fn has_started(&self, number: u64) -> Progress {
        let mut inputs = lock(&self.inputs);
        let input = inputs.all.iter_mut().find(|input| input.number == number);
        input.map_or(Progress::Started, |input| std::mem::replace(&mut input.progress, Progress::Started))
    }

    /// Removes an input on a worker, because that waits for a streaming thread.
    fn remove_later(self: &Arc<Self>, number: u64) {
        let mixer = Arc::downgrade(self);
        self.removals.spawn(smol::unblock(move || {
            mixer.upgrade().iter().for_each(|mixer| mixer.remove(number));
        }));
    }

    fn remove(&self, number: u64) {
        let mut inputs = lock(&self.inputs);
        let Some(at) = inputs.all.iter().position(|input| input.number == number) else { return };
        if let Some(starting) = inputs.all.get_mut(at).filter(|input| input.progress != Progress::Started) {
            starting.progress = Progress::Cancelled;
            return;
        }
        let input = inputs.all.remove(at);
        self.arrange(&inputs);
        drop(inputs);
        let Input { bin, pad, link, .. } = input;
        drop(link);
        // A state change of the whole pipeline, which may still be starting, must not start the bin again.
        bin.set_locked_state(true);
        let _ = bin.set_state(gst::State::Null);
        let _ = self.owned.pipeline().remove(&bin);
        let _ = bin.set_state(gst::State::Null);
        self.mix.release_request_pad(&pad);
    }

    /// Sets the position of each video in the grid.
    fn arrange(&self, inputs: &Inputs) {
        if self.kind != Kind::Video {
            return;
        }
        for (input, place) in inputs.all.iter().zip(layout::places(inputs.all.len(), WIDTH, HEIGHT)) {
            let set =
                |name: &str, value: u32| input.pad.set_property(name, i32::try_from(value).unwrap_or(0));
            set("xpos", place.x);
            set("ypos", place.y);
            set("width", place.width);
            set("height", place.height);
            if input.pad.has_property("sizing-policy") {
                input.pad.set_property_from_str("sizing-policy", "keep-aspect-ratio");
            }
        }
    }
}

fn write(overlay: &gst::Element, text: &str) {
    // Pango interprets markup.
    overlay.set_property("text", gst::glib::markup_escape_text(text).as_str());
}

/// Outputs and recording of a room's media.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MixConfig {
    /// Output of the video grid.
    pub show: Option<String>,
    /// Output of the mixed audio.
    pub play: Option<String>,
    /// File for both.
    pub record: Option<PathBuf>,
}

/// The mixed media of a room.
#[derive(Debug)]
pub struct Mix {
    _outputs: Vec<Output>,
    recorder: Mutex<Option<Recorder>>,
    video: Option<Arc<Mixer>>,
    audio: Option<Arc<Mixer>>,
}

impl Mix {
    /// Starts the wanted outputs and the recording. `reference` receives the played audio.
    pub fn start(
        config: &MixConfig,
        reference: Option<&Arc<Reference>>,
        failures: &Sender<String>,
    ) -> Result<Self, MediaError> {
        let mixer = |kind, output: &Option<String>| {
            let wanted = output.is_some() || config.record.is_some();
            wanted.then(|| Mixer::start(kind, failures.clone())).transpose()
        };
        let video = mixer(Kind::Video, &config.show)?;
        let audio = mixer(Kind::Audio, &config.play)?;
        let mut outputs = Vec::new();
        for (mixer, output) in [(&video, &config.show), (&audio, &config.play)] {
            if let (Some(mixer), Some(output)) = (mixer, output) {
                let failures = failures.clone();
                outputs.push(Output::of_raw(mixer.kind, &mixer.producer, output, reference, failures)?);
            }
        }
        let recorder = match (&config.record, &video, &audio) {
            (Some(path), Some(video), Some(audio)) => Some(record(path, video, audio, failures)?),
            _ => None,
        };
        Ok(Self { _outputs: outputs, recorder: Mutex::new(recorder), video, audio })
    }

    fn mixer(&self, kind: Kind) -> Option<&Arc<Mixer>> {
        match kind {
            Kind::Video => self.video.as_ref(),
            Kind::Audio => self.audio.as_ref(),
        }
    }

    /// Adds a peer's track to the mix for as long as the returned mixed track exists; returns `None` if no output or recording
    /// has its kind.
    pub fn add(&self, track: &Track, peer: &str) -> Result<Option<MixedTrack>, MediaError> {
        self.mixer(track.kind()).map(|mixer| mixer.add(track, peer)).transpose()
    }

    /// Returns the labels of the videos.
    #[cfg(test)]
    pub(crate) fn labels(&self) -> Vec<String> {
        let inputs = self.video.iter().flat_map(|mixer| {
            let inputs = lock(&mixer.inputs);
            inputs.all.iter().map(|input| input.label.clone()).collect::<Vec<_>>()
        });
        inputs.collect()
    }

    /// Returns the path of the file being recorded, if any.
    pub fn recording(&self) -> Option<PathBuf> {
        let recorder = lock(&self.recorder);
        recorder.as_ref().map(|recorder| recorder.path().to_owned())
    }

    /// Completes the recording, if there is any.
    pub async fn finish(&self) -> Option<Recorded> {
        let recorder = lock(&self.recorder).take();
        match recorder {
            Some(recorder) => Some(recorder.finish().await),
            None => None,
        }
    }
}

fn record(
    path: &Path,
    video: &Mixer,
    audio: &Mixer,
    failures: &Sender<String>,
) -> Result<Recorder, MediaError> {
    let encoder = |codec, bitrate: u32| -> Result<String, MediaError> {
        let text = launch::named(launch::Folder::Encode, inventory::encoder(codec)?.pipeline)?;
        let values =
            [("bitrate", Some(bitrate.to_string())), ("bitrate_bps", Some((bitrate * 1000).to_string()))];
        launch::fill(&text, &values)
    };
    let input = |mixer: &Mixer, through| RecordInput {
        producer: mixer.producer.clone(),
        kind: mixer.kind,
        counters: None,
        through,
        most: gst::ClockTime::SECOND,
    };
    let inputs = [
        input(video, format!("videoconvert ! {}", encoder(Codec::Vp8, 2500)?)),
        input(audio, format!("audioconvert ! {}", encoder(Codec::Opus, 64)?)),
    ];
    let mut recorder = Recorder::open(path, failures.clone())?;
    inputs.iter().try_for_each(|input| recorder.add_input(input))?;
    recorder.begin()?;
    Ok(recorder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::test_media;

    #[test]
    fn the_inputs_are_not_locked_while_a_decoder_starts() {
        let (encoders, failed) = smol::block_on(test_media::pictures());
        let (_seat, encoder) = encoders.join(Codec::Vp8).unwrap();
        let mixer = Mixer::start(Kind::Video, encoders.failures().clone()).unwrap();
        let track = Track::of(Codec::Vp8, encoder.producer());
        let observed = mixer.clone();
        let (mixed, steps) = test_media::steps_unlocked(
            move || observed.inputs.try_lock().is_ok(),
            || mixer.add(&track, "ann").unwrap(),
        );
        assert!(steps.contains("\"vp8dec\"") && steps.contains("completed state change"), "{steps}");
        assert_eq!(lock(&mixer.inputs).all[0].progress, Progress::Started);
        drop(mixed);
        test_media::wait("the input is removed", || lock(&mixer.inputs).all.is_empty());
        assert!(failed.is_empty());
    }

    #[test]
    fn an_input_removed_during_its_start_is_removed_after_it() {
        let (encoders, _failed) = smol::block_on(test_media::pictures());
        let (_seat, encoder) = encoders.join(Codec::Vp8).unwrap();
        let mixer = Mixer::start(Kind::Video, encoders.failures().clone()).unwrap();
        let mixed = mixer.add(&Track::of(Codec::Vp8, encoder.producer()), "ann").unwrap();
        lock(&mixer.inputs).all[0].progress = Progress::Starting;
        mixer.remove(mixed.number);
        assert_eq!(lock(&mixer.inputs).all.len(), 1);
        assert_eq!(mixer.has_started(mixed.number), Progress::Cancelled);
        mixer.remove(mixed.number);
        assert!(lock(&mixer.inputs).all.is_empty());
    }

    #[test]
    fn audio_that_cannot_be_decoded_leaves_the_mix_and_the_others_stay() {
        let (failures, failed) = smol::channel::bounded(16);
        crate::media::init().unwrap();
        let mixer = Mixer::start(Kind::Audio, failures).unwrap();
        let (_ann, tone) = test_media::produce("audiotestsrc is-live=true ! opusenc");
        let (_bob, other) = test_media::produce("audiotestsrc is-live=true ! mulawenc");
        let [ann, bob] = [&tone, &other].map(|producer| Track::of(Codec::Opus, producer));
        [&ann, &bob].iter().for_each(|track| track.flow());
        let audible = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let (counted, out) = (audible.clone(), mixer.producer.appsink().static_pad("sink").unwrap());
        level::watch(&out, move |samples| {
            counted.fetch_add(usize::from(level::of(samples) < 60), std::sync::atomic::Ordering::Relaxed);
        });
        let _mixed = [mixer.add(&ann, "ann").unwrap(), mixer.add(&bob, "bob").unwrap()];
        let report = crate::base::timeout::timeout(std::time::Duration::from_secs(60), failed.recv());
        let report = smol::block_on(report).unwrap().unwrap();
        assert!(report.starts_with("the audio of bob cannot be decoded and leaves the room's: "), "{report}");
        let labels = || lock(&mixer.inputs).all.iter().map(|input| input.label.clone()).collect::<Vec<_>>();
        test_media::wait("bob has left the mix", || labels() == ["ann"]);
        let count = || audible.load(std::sync::atomic::Ordering::Relaxed);
        let before = count();
        test_media::wait("ann is heard", || count() > before + 20);
        assert!(failed.is_empty(), "{:?}", failed.try_recv());
    }
}
