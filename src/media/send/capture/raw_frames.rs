//! Raw frames on their way to the encoders: rate, size, mute, and the repetition of the last video frame.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gst::prelude::*;

use super::config::SourceConfig;
use super::{pace, size};
use crate::media::send::last_frame::LastFrame;
use crate::sdp::Kind;

/// Age at which the last video frame is repeated, so that a still picture, or a source with one frame a minute, works
/// like any other source.
const STILL: Duration = Duration::from_millis(500);

/// Prepares raw frames for encoders: limits the frame rate, sets the frame size, and overwrites muted frames with black
/// or silence. Returns a handle that repeats the last video frame.
pub(super) fn prepare(
    pipeline: &gst::Pipeline,
    kind: Kind,
    config: &SourceConfig,
    is_muted: &Arc<AtomicBool>,
) -> Option<LastFrame> {
    let sink = |name: &str| pipeline.by_name(name).and_then(|element| element.static_pad("sink"));
    if let (Kind::Video, Some(pad)) = (kind, sink("time")) {
        pace::thin(&pad, config.fps);
        size::limit(pipeline, config.size);
    }
    let last_frame = pipeline.by_name("end").and_then(|end| LastFrame::after(&end));
    if let Some(pad) = sink("out") {
        mute(&pad, kind, is_muted.clone());
    }
    last_frame
}

/// Repeats the last video frame every 500 ms while no new frame arrives.
pub(super) fn repeat(last_frame: LastFrame) -> smol::Task<()> {
    smol::spawn(async move {
        loop {
            smol::Timer::after(STILL / 2).await;
            if last_frame.age().is_some_and(|age| age >= STILL) {
                last_frame.repeat();
            }
        }
    })
}

/// Overwrites frames with silence or black (I420: luma 16, chroma 128) while muted.
fn mute(pad: &gst::Pad, kind: Kind, is_muted: Arc<AtomicBool>) {
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if !is_muted.load(Ordering::Relaxed) {
            return gst::PadProbeReturn::Ok;
        }
        if let Some(buffer) = info.buffer_mut()
            && let Ok(mut map) = buffer.make_mut().map_writable()
        {
            match kind {
                Kind::Audio => map.fill(0),
                Kind::Video => {
                    let half = map.len() / 3 * 2;
                    let (luma, chroma) = map.split_at_mut(half);
                    luma.fill(16);
                    chroma.fill(128);
                }
            }
        }
        gst::PadProbeReturn::Ok
    });
}
