//! The RTP session of a webrtcbin: its limits, its report interval and its counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gst::prelude::*;

use crate::media::gst::{elements, rtp};

/// Maximum number of streams received from a peer: each costs a thread, and `rtpbin` has no limit by default.
pub(crate) const MAX_STREAMS: usize = 32;

/// Sets the limits and intervals of a webrtcbin's RTP session.
pub(crate) fn set_up(webrtc: &gst::Element) {
    /// Mean interval of RTCP reports. RFC 3550 (6.2) has 5 s, but reports are the only packets of a peer that receives
    /// and does not send.
    const REPORTS: gst::ClockTime = gst::ClockTime::from_seconds(1);
    /// Assumed session bandwidth in bit/s, of which feedback may use 5 %. By default the session uses the rate received
    /// so far, at the start zero, and a retransmission request then waits half a second (RFC 4585, 3.5.2).
    const BANDWIDTH: f64 = 2e6;
    if let Some(rtpbin) = webrtc.downcast_ref::<gst::Bin>().and_then(|bin| bin.by_name("rtpbin")) {
        rtpbin.set_property("max-streams", MAX_STREAMS as u32);
    }
    elements::on_added(webrtc, &["rtpsession"], |element| {
        let session = element.property::<gst::glib::Object>("internal-session");
        session.set_property("rtcp-min-interval", REPORTS.nseconds());
        session.set_property("bandwidth", BANDWIDTH);
    });
}

/// Returns the number of packets that forward error correction recovered.
pub(crate) fn recovered_packets(webrtc: &gst::Element) -> u64 {
    let decoders = elements::all_of(webrtc, "rtpulpfecdec").into_iter();
    decoders.map(|decoder| u64::from(decoder.property::<u32>("recovered"))).sum()
}

/// Counts received RTP and RTCP packets, whose absence means a broken path. Other packets do not count: data channels
/// may be silent for any time, and ICE's own checks do not pass here.
pub(crate) fn count_packets(webrtc: &gst::Element) -> Arc<AtomicU64> {
    let packets = Arc::new(AtomicU64::new(0));
    let counter = packets.clone();
    elements::on_added(webrtc, &["nicesrc"], move |element| {
        let (counter, Some(pad)) = (counter.clone(), element.static_pad("src")) else { return };
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        pad.add_probe(kinds, move |_, info| {
            let is_rtp = |buffer: &gst::BufferRef| {
                rtp::first_byte(buffer).is_some_and(|first| (128..192).contains(&first))
            };
            let alone = info.buffer().is_some_and(|buffer| is_rtp(buffer));
            if alone || info.buffer_list().is_some_and(|list| list.iter().any(is_rtp)) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            gst::PadProbeReturn::Ok
        });
    });
    packets
}
