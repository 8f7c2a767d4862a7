//! What the sound of a microphone goes through: what the speaker plays is taken out of it (echo cancellation), and noise
//! too, and it is brought to one level. By WebRTC's own signal processing (`webrtcdsp`), where that is installed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gst::prelude::*;

use super::error::MediaError;
use super::pipeline::{BusEvent, Owned};
use super::{inventory, launch};

/// The one shape of captured sound, which the signal processing takes.
pub(crate) const SHAPE: &str = "audio/x-raw,format=S16LE,layout=interleaved,rate=48000,channels=1";

/// Sound is taken to be played so much before its time: what comes late of an echo is cancelled, what comes before it is
/// expected is not, and sound cards do not know to the millisecond when they play. (With PulseAudio, by tests/it/voice.rs:
/// 12 to 34 dB less of an echo without this in three runs, 44 dB with it.)
const EARLY: gst::ClockTime = gst::ClockTime::from_mseconds(20);
/// So much before it is played the signal processing takes it, and not later: webrtcdsp takes it by its source's latency
/// before. Together with [`EARLY`] it is less than a speaker holds (50 ms), so that what comes last still comes in time.
const AHEAD: gst::ClockTime = gst::ClockTime::from_mseconds(20);

/// What becomes of captured sound before it is encoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Voice {
    /// Nothing.
    #[default]
    AsItIs,
    /// Less noise, and one level.
    Clean,
    /// The same without what the speaker plays: the name of what hears it ([`Reference::name`]).
    WithoutEcho(String),
}

impl Voice {
    /// What it goes through, in gst-launch words with a `!` at their end.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::AsItIs => String::new(),
            Self::Clean => "webrtcdsp echo-cancel=false ! ".to_owned(),
            Self::WithoutEcho(reference) => format!("webrtcdsp probe={reference} ! "),
        }
    }
}

/// Hears what is played, so that it can be taken out of what a microphone hears. There is one for a process's speaker;
/// where several outputs play side by side it hears the first of them.
#[derive(Debug)]
pub struct Reference {
    name: String,
    appsrc: gst_app::AppSrc,
    /// Where what was heard ends when it is played.
    sink: gst::Element,
    is_taken: Arc<AtomicBool>,
    _owned: Owned,
}

impl Reference {
    /// Starts to hear; none where what it takes is not installed.
    pub fn start() -> Result<Option<Arc<Self>>, MediaError> {
        if !["webrtcdsp", "webrtcechoprobe"].into_iter().all(inventory::is_installed) {
            return Ok(None);
        }
        let name = format!("heard-{:08x}", fastrand::u32(..));
        // The sink holds each buffer until it is played. What is to be heard by then is before the queue.
        let text = format!(
            "appsrc name=in is-live=true format=time max-time=1000000000 leaky-type=downstream ! audioconvert ! \
             audioresample ! {SHAPE} ! webrtcechoprobe name={name} ! queue leaky=downstream ! \
             fakesink name=played sync=true async=false processing-deadline=0"
        );
        let pipeline = launch::parse(&text)?;
        let appsrc: gst_app::AppSrc = launch::by_name(&pipeline, "in")?;
        appsrc.set_latency(AHEAD, gst::ClockTime::NONE);
        let sink = launch::by_name(&pipeline, "played")?;
        let owned = Owned::new(pipeline, |_, event| {
            if let BusEvent::Error(element, reason) = event {
                tracing::warn!("echo is not cancelled any more: {reason} ({element})");
            }
        });
        owned.play()?;
        Ok(Some(Arc::new(Self { name, appsrc, sink, is_taken: Arc::default(), _owned: owned })))
    }

    /// What [`Voice::WithoutEcho`] takes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Hears what goes over this pad to be played, until the pad is gone, unless it hears another one.
    pub(crate) fn hear(&self, pad: &gst::Pad) {
        let Some(taken) = Taken::take(&self.is_taken) else { return };
        let (appsrc, sink) = (self.appsrc.clone(), self.sink.clone());
        let types = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_UPSTREAM;
        pad.add_probe(types, move |pad, info| {
            let _held = &taken;
            if let Some(gst::EventView::Latency(latency)) = info.event().map(|event| event.view()) {
                // So much later than its time it is played.
                sink.set_property("render-delay", latency.latency().saturating_sub(EARLY + AHEAD));
            }
            if let Some(sample) = info.buffer().and_then(|buffer| played(pad, buffer)) {
                let _ = appsrc.push_sample(&sample);
            }
            gst::PadProbeReturn::Ok
        });
    }
}

/// Who is heard.
struct Taken(Arc<AtomicBool>);

impl Taken {
    fn take(is_taken: &Arc<AtomicBool>) -> Option<Self> {
        (!is_taken.swap(true, Ordering::Relaxed)).then(|| Self(is_taken.clone()))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// The same sound with its time on the common base.
fn played(pad: &gst::Pad, buffer: &gst::Buffer) -> Option<gst::Sample> {
    let segment = pad.sticky_event::<gst::event::Segment>(0)?;
    let time = segment.segment().downcast_ref::<gst::ClockTime>()?.to_running_time(buffer.pts());
    let mut buffer = buffer.copy();
    buffer.make_mut().set_pts(time?);
    Some(gst::Sample::builder().buffer(&buffer).caps(&pad.current_caps()?).build())
}
