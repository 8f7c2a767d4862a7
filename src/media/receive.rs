//! What a peer sends: every pad that webrtcbin makes is linked at once, one that is not wanted to
//! nowhere, for an unlinked one stops all media of the bundle.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gst::prelude::*;
use gst_utils::{StreamProducer, streamproducer::ProducerSettings};

use super::level::Meter;
use super::{MediaError, launch, rtp};
use crate::sdp::{Codec, Kind};

/// The largest picture taken, in pixels (a little more than 4096x2304): what is larger is not given to a
/// decoder, which would take memory for it.
pub const MAX_PIXELS: u64 = 10_000_000;

/// Whether a picture of that size is decoded.
pub(super) fn is_taken(width: u32, height: u32) -> bool {
    u64::from(width) * u64::from(height) <= MAX_PIXELS
}

/// Where what is not wanted goes.
const NOWHERE: &str = "fakesink sync=false async=false";

/// Counters of one received stream.
#[derive(Debug, Default)]
pub struct Counters {
    /// Whole frames (packets of sound) since the start.
    pub frames: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// Width of the picture, 0 until known.
    pub width: AtomicU32,
    /// Height of the picture, 0 until known.
    pub height: AtomicU32,
    /// How loud it is, where it is played.
    pub meter: Meter,
}

/// A stream of a peer, encoded as it came.
#[derive(Debug, Clone)]
pub struct Track {
    /// Its m-line, by which it stays the same for as long as the connection lasts.
    pub mline: usize,
    /// Its codec.
    pub codec: Codec,
    /// Its frames.
    pub producer: StreamProducer,
    /// Its counters.
    pub counters: Arc<Counters>,
    gate: Arc<Gate>,
}

/// Holds the first frame, which is a key frame, until somebody is there to take it.
#[derive(Debug)]
struct Gate(Mutex<Option<(gst::glib::WeakRef<gst::Pad>, gst::PadProbeId)>>);

impl Gate {
    /// What comes is held no longer than that.
    const PATIENCE: Duration = Duration::from_millis(150);

    fn before(appsink: &gst_app::AppSink) -> Arc<Self> {
        let pad = appsink.static_pad("sink");
        let hold = gst::PadProbeType::BLOCK | gst::PadProbeType::BUFFER;
        let held = pad.and_then(|pad| {
            let probe = pad.add_probe(hold, |_, _| gst::PadProbeReturn::Ok)?;
            Some((pad.downgrade(), probe))
        });
        let gate = Arc::new(Self(Mutex::new(held)));
        let later = gate.clone();
        smol::spawn(async move {
            smol::Timer::after(Self::PATIENCE).await;
            later.open();
        })
        .detach();
        gate
    }

    fn open(&self) {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((pad, probe)) = held.and_then(|(pad, probe)| Some((pad.upgrade()?, probe))) {
            pad.remove_probe(probe);
        }
    }
}

impl Track {
    /// Whoever takes it is there: it flows, beginning with its first frame. Without this it does so a little later.
    pub fn flow(&self) {
        self.gate.open();
    }

    /// Audio or video.
    pub fn kind(&self) -> Kind {
        self.codec.kind()
    }
}

/// Links a pad of webrtcbin; gives the track, still without its m-line, where it is one that we can take. `on_first` is called
/// at its first frame, once the picture's size is known.
pub(super) fn link(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    wanted: impl Fn(Kind) -> bool,
    on_first: impl Fn(Codec, &Counters) + Send + Sync + 'static,
) -> Result<Option<Track>, MediaError> {
    let caps = pad.current_caps();
    let name =
        caps.as_ref().and_then(|caps| caps.structure(0)).and_then(|s| s.get::<String>("encoding-name").ok());
    let codec = name.and_then(|name| Codec::from_encoding_name(&name)).filter(|codec| wanted(codec.kind()));
    let text = match codec {
        Some(codec) => format!("{} ! appsink name=out sync=false max-buffers=100", rtp::depayloader(codec)),
        None => NOWHERE.to_owned(),
    };
    let bin = match launch::parse_bin(&text) {
        Ok(bin) => bin,
        Err(error) => {
            tracing::warn!("a received stream is not taken: {error}");
            launch::parse_bin(NOWHERE)?
        }
    };
    let failed = |what: &str| MediaError::WebRtc(format!("a received stream cannot be linked: {what}"));
    let track = match (codec, bin.by_name("out").and_downcast::<gst_app::AppSink>()) {
        (Some(codec), Some(appsink)) => {
            appsink.set_async(false);
            let counters = Arc::new(Counters::default());
            count(&appsink, codec, &counters, on_first);
            let gate = Gate::before(&appsink);
            let producer = StreamProducer::with(&appsink, ProducerSettings { sync: false });
            Some(Track { mline: 0, codec, producer, counters, gate })
        }
        _ => None,
    };
    pipeline.add(&bin).map_err(|_| failed("add"))?;
    bin.sync_state_with_parent().map_err(|_| failed("state"))?;
    let sink = bin.static_pad("sink").ok_or_else(|| failed("no pad"))?;
    refuse_nothing(&sink);
    pad.link(&sink).map_err(|_| failed("link"))?;
    Ok(track)
}

/// webrtcbin asks what a pad is linked to whether it takes what the m-line has, and rejects the m-line where it does not. But
/// a stream that came before the offer with its SSRC may be on the pad of another m-line, of another kind.
fn refuse_nothing(sink: &gst::Pad) {
    let answered = gst::PadProbeType::QUERY_DOWNSTREAM | gst::PadProbeType::PULL;
    sink.add_probe(answered, |_, info| {
        if let Some(gst::QueryViewMut::Caps(caps)) = info.query_mut().map(|query| query.view_mut())
            && caps.result().is_some_and(|caps| caps.is_empty())
            && let Some(filter) = caps.filter_owned()
        {
            caps.set_result(&filter);
        }
        gst::PadProbeReturn::Ok
    });
}

/// The stream's SSRC, as the pad's caps have it.
pub(super) fn ssrc(pad: &gst::Pad) -> Option<u32> {
    pad.current_caps()?.structure(0)?.get("ssrc").ok()
}

fn count(
    appsink: &gst_app::AppSink,
    codec: Codec,
    counters: &Arc<Counters>,
    on_first: impl Fn(Codec, &Counters) + Send + Sync + 'static,
) {
    let Some(pad) = appsink.static_pad("sink") else { return };
    let counters = counters.clone();
    let too_large = AtomicBool::new(false);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let Some(buffer) = info.buffer() else { return gst::PadProbeReturn::Ok };
        // The size may change with a key frame.
        if !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT) {
            read_size(pad, &counters);
        }
        if !is_taken(counters.width.load(Ordering::Relaxed), counters.height.load(Ordering::Relaxed)) {
            if !too_large.swap(true, Ordering::Relaxed) {
                tracing::warn!("a picture that is too large is not taken");
            }
            return gst::PadProbeReturn::Handled;
        }
        counters.bytes.fetch_add(buffer.size() as u64, Ordering::Relaxed);
        if counters.frames.fetch_add(1, Ordering::Relaxed) == 0 {
            on_first(codec, &counters);
        }
        gst::PadProbeReturn::Ok
    });
}

fn read_size(pad: &gst::Pad, counters: &Counters) {
    let caps = pad.current_caps();
    let size = |key| caps.as_ref()?.structure(0)?.get::<i32>(key).ok()?.try_into().ok();
    if let (Some(width), Some(height)) = (size("width"), size("height")) {
        counters.width.store(width, Ordering::Relaxed);
        counters.height.store(height, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_larger_than_any_camera_makes_are_not_decoded() {
        assert!(is_taken(0, 0) && is_taken(3840, 2160) && is_taken(4096, 2304));
        assert!(!is_taken(16383, 16383) && !is_taken(u32::MAX, u32::MAX));
    }
}
