//! The orderly end of a connection.

use gst::prelude::*;

use crate::media::gst::elements;

/// Returns whether a `dtlsenc` has a connection that can be closed.
fn is_connected(encoder: &gst::Element) -> bool {
    let state = encoder.property_value("connection-state");
    gst::glib::EnumValue::from_value(&state).is_some_and(|(_, state)| state.nick() == "connected")
}

/// Sends DTLS's close_notify, which reports our end to the peer at once; webrtcbin does not send it.
pub(crate) fn close_dtls(pipeline: &gst::Pipeline) {
    /// Time for the message to be sent.
    const LINGER: std::time::Duration = std::time::Duration::from_millis(30);
    let mut is_sent = false;
    for encoder in elements::all_of(pipeline.upcast_ref(), "dtlsenc").into_iter().filter(is_connected) {
        for pad in encoder.sink_pads() {
            is_sent |= pad.send_event(gst::event::Eos::new());
        }
    }
    if is_sent {
        std::thread::sleep(LINGER);
    }
}

/// Waits until webrtcbin has finished its queued tasks, at most 2 s; a task that runs while webrtcbin stops leaks
/// memory.
pub(crate) fn finish_work(pipeline: &gst::Pipeline) {
    const LIMIT: std::time::Duration = std::time::Duration::from_secs(2);
    let is_webrtc = |element: &gst::Element| element.factory().is_some_and(|f| f.name() == "webrtcbin");
    for webrtc in pipeline.iterate_elements().into_iter().filter_map(Result::ok).filter(is_webrtc) {
        let (done, wait) = std::sync::mpsc::channel();
        let promise = gst::Promise::with_change_func(move |_| {
            let _ = done.send(());
        });
        webrtc.emit_by_name::<()>("get-stats", &[&None::<gst::Pad>, &promise]);
        if wait.recv_timeout(LIMIT).is_err() {
            tracing::debug!("webrtcbin has not finished its tasks in time");
        }
    }
}
