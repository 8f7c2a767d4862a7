//! A gate for data channels, closed until the peer's certificate is verified.

use std::sync::{Arc, Mutex};

use gst::prelude::*;

use crate::base::lock::lock;
use crate::media::gst::elements;

/// Holds back all data of data channels, including their opening, until the peer is verified. Media has a gate of its
/// own before webrtcbin.
#[derive(Debug, Default)]
pub(crate) struct DataGate(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    is_open: bool,
    pads: Vec<(gst::glib::WeakRef<gst::Pad>, gst::PadProbeId)>,
}

impl DataGate {
    /// Installs a gate for the data channels that this webrtcbin opens from now on.
    pub(crate) fn before(webrtc: &gst::Element) -> Arc<Self> {
        let gate = Arc::new(Self::default());
        let held = gate.clone();
        elements::on_added(webrtc, &["sctpenc"], move |element| {
            element.static_pad("src").iter().for_each(|pad| held.hold(pad));
        });
        gate
    }

    fn hold(&self, pad: &gst::Pad) {
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        let mut held = lock(&self.0);
        if !held.is_open
            && let Some(probe) =
                pad.add_probe(gst::PadProbeType::BLOCK | kinds, |_, _| gst::PadProbeReturn::Ok)
        {
            held.pads.push((pad.downgrade(), probe));
        }
    }

    /// Releases held data, and lets all later data pass.
    pub(crate) fn open(&self) {
        let pads = {
            let mut held = lock(&self.0);
            held.is_open = true;
            std::mem::take(&mut held.pads)
        };
        for (pad, probe) in pads {
            if let Some(pad) = pad.upgrade() {
                pad.remove_probe(probe);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn data_waits_until_the_peer_is_verified() {
        crate::media::gst::init().unwrap();
        let pipeline =
            gst::parse::launch("fakesrc num-buffers=1 ! identity name=enc ! fakesink name=sink").unwrap();
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        let (gate, received) = (DataGate::default(), Arc::new(AtomicU64::new(0)));
        let pad = |name, pad| pipeline.by_name(name).unwrap().static_pad(pad).unwrap();
        gate.hold(&pad("enc", "src"));
        let count = received.clone();
        pad("sink", "sink").add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            gst::PadProbeReturn::Ok
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(received.load(Ordering::Relaxed), 0);
        gate.open();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while received.load(Ordering::Relaxed) == 0 {
            assert!(std::time::Instant::now() < until, "the data still waits");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        // An open gate holds nothing back, and a gate that stays closed does not keep a pipeline from stopping.
        gate.hold(&pad("enc", "sink"));
        assert!(lock(&gate.0).pads.is_empty());
        pipeline.set_state(gst::State::Null).unwrap();
        DataGate::default().hold(&pad("enc", "src"));
        pipeline.set_state(gst::State::Playing).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        pipeline.set_state(gst::State::Null).unwrap();
    }
}
