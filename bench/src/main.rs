//! `bench-peers TEXT…`: plays a pipeline in gst-launch words that may hold webrtcsink and webrtcsrc, until it
//! is killed.

use gst::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    gst::init()?;
    gstrswebrtc::plugin_register_static()?;
    let text = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let pipeline = gst::parse::launch(&text)?;
    pipeline.set_state(gst::State::Playing)?;
    let bus = pipeline.bus().ok_or("no bus")?;
    for message in bus.iter_timed(gst::ClockTime::NONE) {
        if let gst::MessageView::Error(error) = message.view() {
            return Err(format!("{}: {}", error.error(), error.debug().unwrap_or_default()).into());
        }
    }
    Ok(())
}
