//! The RTP session of a webrtcbin: its limits, its report interval and its counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gst::prelude::*;

use crate::media::gst::{elements, rtp};

/// Maximum number of streams received from a peer: each costs a thread, and `rtpbin` has no limit by default.
pub(crate) const MAX_STREAMS: usize = 32;

/// Sets what webrtcbin's RTP session does not let a peer or chance decide.
pub(crate) fn set_up(webrtc: &gst::Element) {
    /// Between reports, on average: RFC 3550 (6.2) has 5 s, and one that only receives is heard by these alone.
    const REPORTS: gst::ClockTime = gst::ClockTime::from_seconds(1);
    /// What a call takes, in bit/s, of which feedback may have a twentieth. By itself the session takes it for what came so
    /// far, at the start nothing: a request for what was lost waits half a second for its turn (RFC 4585, 3.5.2) then.
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

/// The packets that error correction made good.
pub(crate) fn repaired(webrtc: &gst::Element) -> u64 {
    let decoders = elements::all_of(webrtc, "rtpulpfecdec").into_iter();
    decoders.map(|decoder| u64::from(decoder.property::<u32>("recovered"))).sum()
}

/// Counts the packets of media and reports that come in: those whose absence says something. Data channels
/// may be silent for as long as they like, and ICE's own checks are not seen here.
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
