//! Counters of a connection.

use std::time::Duration;

use gst::prelude::*;

/// Counters of a connection since its start, and its measured values. A value that was not measured is absent.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Stats {
    /// Video frames given to the network.
    pub video_frames_sent: u64,
    /// Audio packets sent.
    pub audio_frames_sent: u64,
    /// Complete video frames received.
    pub video_frames_received: u64,
    /// Audio packets received.
    pub audio_frames_received: u64,
    /// Bytes of media received.
    pub bytes_received: u64,
    /// Width in pixels of the last received video frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub width: Option<u32>,
    /// See [`Stats::width`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u32>,
    /// Lost packets, as counted by the RTP session.
    pub packets_lost: i64,
    /// Round trip measured by RTCP, in ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<f64>,
    /// Packets requested again; [`Stats::packets_recovered`] of them arrived in time.
    pub packets_requested: u64,
    /// See [`Stats::packets_requested`].
    pub packets_recovered: u64,
    /// Lost packets recovered by forward error correction.
    pub packets_repaired: u64,
    /// Playout delay of received media, in ms; present once media was received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u32>,
    /// Bandwidth estimate in kbit/s; present while video is sent, once the peer has reported on received packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_kbps: Option<u32>,
    /// Bitrate of the sent video's encoder, in kbit/s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_kbps: Option<u32>,
    /// Level of the sent audio in dB below the maximum; 127 is silence (RFC 6464, 3). Present while audio is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sound_level_sent: Option<u8>,
    /// Level of the loudest received audio stream, in the units of [`Stats::sound_level_sent`]; present while audio is
    /// played and arrives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sound_level_received: Option<u8>,
    /// Type of the selected pair's local candidate: `host`, `srflx`, `prflx` or `relay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_candidate: Option<String>,
    /// Type of the remote candidate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_candidate: Option<String>,
}

/// Returns the statistics of the RTP session's sources. webrtcbin's own statistics are wrong under BUNDLE before 1.26.
fn sources(webrtc: &gst::Element) -> Vec<gst::Structure> {
    let rtpbin = webrtc.downcast_ref::<gst::Bin>().and_then(|bin| bin.by_name("rtpbin"));
    let session = rtpbin
        .and_then(|bin| bin.emit_by_name::<Option<gst::glib::Object>>("get-internal-session", &[&0_u32]));
    let Some(session) = session else { return vec![] };
    let table = session.property::<gst::Structure>("stats");
    let Ok(sources) = table.get::<gst::glib::ValueArray>("source-stats") else { return vec![] };
    sources.iter().filter_map(|value| value.get::<gst::Structure>().ok()).collect()
}

/// Statistics of the RTP session.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Reports {
    /// Whether the peer has reported on the media sent to it.
    pub(crate) has_answer: bool,
    /// Loss that the peer's last reports state, in 1/256 (RFC 3550, 6.4.1), of the worst stream.
    pub(crate) lost: u8,
    /// Round trip in ms, if known.
    pub(crate) round_trip_ms: Option<f64>,
    /// Number of lost packets of the peer.
    pub(crate) missed: i64,
}

impl Reports {
    pub(crate) fn of(webrtc: &gst::Element) -> Self {
        let mut all = Self::default();
        for source in sources(webrtc) {
            if source.get::<bool>("have-rb") == Ok(true)
                && let Ok(lost) = source.get::<u32>("rb-fractionlost")
            {
                all.has_answer = true;
                all.lost = all.lost.max(u8::try_from(lost).unwrap_or(u8::MAX));
            }
            if source.get::<bool>("internal") != Ok(true) {
                all.missed += source.get::<i32>("packets-lost").map_or(0, i64::from).max(0);
                all.round_trip_ms = round_trip(&source).or(all.round_trip_ms);
            }
        }
        all
    }

    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.round_trip_ms.map(|ms| Duration::from_secs_f64(ms.clamp(0.0, 60_000.0) / 1000.0))
    }
}

/// Returns the number of RTP packets that our side has sent, of all streams.
pub(crate) fn packets_sent(webrtc: &gst::Element) -> u64 {
    sources(webrtc)
        .iter()
        .filter(|source| source.get::<bool>("internal") == Ok(true))
        .filter_map(|source| source.get::<u64>("packets-sent").ok())
        .sum()
}

/// Returns the round trip in ms from the peer's last report. A report that answers none of ours has none; GStreamer has
/// 0 there.
fn round_trip(source: &gst::StructureRef) -> Option<f64> {
    let (has, trip) = (source.get::<bool>("have-rb").ok()?, source.get::<u32>("rb-round-trip").ok()?);
    // GStreamer's unit is 1/65536 s (RFC 3550, 6.4.1).
    (has && trip > 0).then(|| f64::from(trip) * 1000.0 / 65536.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_that_answers_none_of_ours_has_no_round_trip() {
        crate::media::gst::init().unwrap();
        let report = |has: bool, trip: u32| {
            let source = gst::Structure::builder("source").field("have-rb", has);
            round_trip(&source.field("rb-round-trip", trip).build())
        };
        assert_eq!(report(true, 65536 / 2), Some(500.0));
        assert_eq!(report(true, 0), None);
        assert_eq!(report(false, 100), None);
    }
}
