//! Processing of microphone audio by WebRTC's own module (`webrtcdsp`), where installed: echo cancellation, noise
//! suppression and gain control.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gst::prelude::*;

use super::error::MediaError;
use super::pipeline::{BusEvent, Owned};
use super::{inventory, launch};

/// Format of captured audio, which the processing requires.
pub(crate) const SHAPE: &str = "audio/x-raw,format=S16LE,layout=interleaved,rate=48000,channels=1";

/// Assumed lead of the loudspeaker: `webrtcdsp` cancels echo that arrives later than expected, not echo that arrives
/// earlier, and sound cards do not know their playback time to the millisecond. Measured with PulseAudio by
/// tests/it/voice.rs: echo reduced by 12 to 34 dB without the lead in three runs, by 44 dB with it.
const EARLY: gst::ClockTime = gst::ClockTime::from_mseconds(20);
/// Time before playback at which `webrtcdsp` receives the played audio; it looks for the audio its source's latency
/// ahead. The sum with [`EARLY`] is below a loudspeaker's buffer (50 ms), so that even the last samples arrive in time.
const AHEAD: gst::ClockTime = gst::ClockTime::from_mseconds(20);

/// Processing of captured audio before it is encoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Voice {
    /// No processing.
    #[default]
    AsItIs,
    /// Noise suppression and gain control.
    Clean,
    /// The same with echo cancellation; holds the name of the reference ([`Reference::name`]).
    WithoutEcho(String),
}

impl Voice {
    /// Returns the processing elements as gst-launch text with a `!` at the end.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::AsItIs => String::new(),
            Self::Clean => "webrtcdsp echo-cancel=false ! ".to_owned(),
            Self::WithoutEcho(reference) => format!("webrtcdsp probe={reference} ! "),
        }
    }
}

/// Reference signal of the echo cancellation: the audio that is played. A process has one reference; if several outputs
/// play at the same time, the reference contains the first one.
#[derive(Debug)]
pub struct Reference {
    name: String,
    appsrc: gst_app::AppSrc,
    /// Sink that holds each buffer until its playback time.
    sink: gst::Element,
    is_claimed: Arc<AtomicBool>,
    _owned: Owned,
}

impl Reference {
    /// Starts a reference; returns `None` if the elements are not installed.
    pub fn start() -> Result<Option<Arc<Self>>, MediaError> {
        if !["webrtcdsp", "webrtcechoprobe"].into_iter().all(inventory::is_installed) {
            return Ok(None);
        }
        let name = format!("heard-{:08x}", fastrand::u32(..));
        // The sink holds each buffer until it is played; the probe gets the buffer before the queue.
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
        Ok(Some(Arc::new(Self { name, appsrc, sink, is_claimed: Arc::default(), _owned: owned })))
    }

    /// Returns the name for [`Voice::WithoutEcho`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Uses the audio that passes a pad of an output as the reference, until the pad is removed; does nothing if the
    /// reference has an output already.
    pub(crate) fn listen(&self, pad: &gst::Pad) {
        let Some(claim) = Claim::acquire(&self.is_claimed) else { return };
        let (appsrc, sink) = (self.appsrc.clone(), self.sink.clone());
        let types = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_UPSTREAM;
        pad.add_probe(types, move |pad, info| {
            let _held = &claim;
            if let Some(gst::EventView::Latency(latency)) = info.event().map(|event| event.view()) {
                // Audio is played this much later than its timestamp.
                sink.set_property("render-delay", latency.latency().saturating_sub(EARLY + AHEAD));
            }
            if let Some(sample) = info.buffer().and_then(|buffer| played(pad, buffer)) {
                let _ = appsrc.push_sample(&sample);
            }
            gst::PadProbeReturn::Ok
        });
    }
}

/// The claim of one output on the reference, given up when dropped.
struct Claim(Arc<AtomicBool>);

impl Claim {
    fn acquire(is_claimed: &Arc<AtomicBool>) -> Option<Self> {
        (!is_claimed.swap(true, Ordering::Relaxed)).then(|| Self(is_claimed.clone()))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Returns the buffer with its time on the common base.
fn played(pad: &gst::Pad, buffer: &gst::Buffer) -> Option<gst::Sample> {
    let segment = pad.sticky_event::<gst::event::Segment>(0)?;
    let time = segment.segment().downcast_ref::<gst::ClockTime>()?.to_running_time(buffer.pts());
    let mut buffer = buffer.copy();
    buffer.make_mut().set_pts(time?);
    Some(gst::Sample::builder().buffer(&buffer).caps(&pad.current_caps()?).build())
}
