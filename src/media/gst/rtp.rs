//! RTP caps, payloaders and depayloaders of the codecs.

use crate::sdp::codec::TRANSPORT_CC;
use crate::sdp::{Codec, Kind, Payload};

/// Feedback types that both sides support (RFC 4585, RFC 5104).
const FEEDBACK: [(&str, &str); 3] =
    [("nack", "rtcp-fb-nack"), ("nack pli", "rtcp-fb-nack-pli"), ("ccm fir", "rtcp-fb-ccm-fir")];

/// Identifier under which we offer the header extension of transport-wide feedback.
const TRANSPORT_CC_ID: u8 = 3;

/// Returns the payload format that we offer for a codec.
pub(crate) fn offered(codec: Codec) -> Payload {
    let fmtp: &[(&str, &str)] = match codec {
        Codec::H264 => &[("packetization-mode", "1")],
        Codec::Opus => &[("minptime", "10"), ("useinbandfec", "1")],
        Codec::Vp9 => &[("profile-id", "0")],
        Codec::Vp8 | Codec::Av1 | Codec::H265 | Codec::Pcmu | Codec::Pcma => &[],
    };
    let fmtp = fmtp.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let mut feedback = vec!["transport-cc".to_owned()];
    if codec.kind() == Kind::Video {
        feedback.extend(FEEDBACK.iter().map(|(name, _)| (*name).to_owned()));
    }
    Payload { pt: codec.payload_type(), codec, fmtp, feedback, transport_cc: Some(TRANSPORT_CC_ID) }
}

/// Returns the payload format that we offer beside agreed ones: all m-lines of a bundle share payload type numbers (RFC
/// 9143, 7.1.1).
pub(crate) fn offered_beside(codec: Codec, known: &[Payload]) -> Payload {
    let mut payload = offered(codec);
    if let Some(same) = known.iter().find(|other| other.codec == codec) {
        payload.pt = same.pt;
    }
    if let Some(id) = known.iter().find_map(|other| other.transport_cc) {
        payload.transport_cc = Some(id);
    }
    payload
}

/// Returns the caps of payload formats as webrtcbin expects them for a transceiver. webrtcbin writes the SSRC, if
/// given, into its descriptions.
pub(crate) fn caps(payloads: &[Payload], ssrc: Option<u32>) -> gst::Caps {
    payloads.iter().map(|payload| structure(payload, ssrc)).collect()
}

fn structure(payload: &Payload, ssrc: Option<u32>) -> gst::Structure {
    let codec = payload.codec;
    let mut caps = gst::Structure::builder("application/x-rtp")
        .field("media", codec.kind().as_str())
        .field("encoding-name", codec.encoding_name())
        .field("clock-rate", codec.clock_rate() as i32)
        .field("payload", i32::from(payload.pt));
    if let Some(ssrc) = ssrc {
        caps = caps.field("ssrc", ssrc);
    }
    if codec == Codec::Opus {
        caps = caps.field("encoding-params", "2");
    }
    // webrtcbin writes level-asymmetry-allowed itself.
    for (key, value) in payload.fmtp.iter().filter(|(key, _)| key != "level-asymmetry-allowed") {
        caps = caps.field(key.as_str(), value.as_str());
    }
    for (name, field) in FEEDBACK {
        if payload.feedback.iter().any(|feedback| feedback == name) {
            caps = caps.field(field, true);
        }
    }
    if let Some(id) = payload.transport_cc {
        caps = caps.field("rtcp-fb-transport-cc", true).field(format!("extmap-{id}"), TRANSPORT_CC);
    }
    caps.build()
}

/// Returns the payloader of a format as gst-launch text.
pub(crate) fn payloader(payload: &Payload, ssrc: u32) -> String {
    let common = format!("pt={} ssrc={ssrc} mtu=1200", payload.pt);
    // Payloaders add the header extensions that the caps behind them contain.
    let extension = payload.transport_cc.map_or_else(String::new, |id| {
        format!(" ! capsfilter caps=\"application/x-rtp,extmap-{id}=(string){TRANSPORT_CC}\"")
    });
    let (before, element, behind) = match payload.codec {
        Codec::Vp8 => ("", "rtpvp8pay picture-id-mode=15-bit", String::new()),
        Codec::Vp9 => ("", "rtpvp9pay picture-id-mode=15-bit", String::new()),
        Codec::Av1 => ("av1parse ! ", "rtpav1pay", String::new()),
        Codec::H265 => ("", "rtph265pay aggregate-mode=zero-latency", String::new()),
        // The stream's own level differs from the agreed one, and webrtcbin treats another level as another format.
        // With level asymmetry allowed (RFC 6184, 8.2.2) the format is the same.
        Codec::H264 => {
            let agreed = payload.parameter("profile-level-id").unwrap_or("42e01f");
            let behind =
                format!(" ! capssetter caps=\"application/x-rtp,profile-level-id=(string){agreed}\"");
            // The encoder puts the parameter sets before each key frame. The payloader would put them before each
            // slice, and a parser at this place that gets a key frame request makes the payloader send them as a frame of
            // their own (1.22).
            ("", "rtph264pay aggregate-mode=zero-latency", behind)
        }
        Codec::Opus => ("", "rtpopuspay", String::new()),
        Codec::Pcmu => ("", "rtppcmupay", String::new()),
        Codec::Pcma => ("", "rtppcmapay", String::new()),
    };
    format!("{before}{element} {common}{extension}{behind}")
}

/// Returns the depayloader of a codec as gst-launch text.
pub(crate) fn depayloader(codec: Codec) -> &'static str {
    match codec {
        Codec::Vp8 => "rtpvp8depay request-keyframe=true wait-for-keyframe=true",
        Codec::Vp9 => "rtpvp9depay request-keyframe=true wait-for-keyframe=true ! vp9parse",
        Codec::Av1 => "rtpav1depay request-keyframe=true wait-for-keyframe=true ! av1parse",
        Codec::H264 => {
            "rtph264depay request-keyframe=true wait-for-keyframe=true ! h264parse ! \
             video/x-h264,stream-format=byte-stream,alignment=au"
        }
        Codec::H265 => {
            // This depayloader (1.22) requests no key frames, so that decoding resumes at the next one.
            "rtph265depay ! h265parse ! \
             video/x-h265,stream-format=byte-stream,alignment=au"
        }
        Codec::Opus => "rtpopusdepay",
        Codec::Pcmu => "rtppcmudepay",
        Codec::Pcma => "rtppcmadepay",
    }
}

/// Returns the first byte of a packet, which distinguishes DTLS, RTP and STUN on one path (RFC 7983, 7).
pub(crate) fn first_byte(packet: &gst::BufferRef) -> Option<u8> {
    let mut first = [0];
    packet.copy_to_slice(0, &mut first).is_ok().then_some(first[0])
}

/// Returns the retransmission request (NACK) at a probe, if the probed event is one; its `seqnum` names the packet.
pub(crate) fn retransmission_request<'a>(info: &'a gst::PadProbeInfo<'_>) -> Option<&'a gst::StructureRef> {
    let request = info.event().and_then(|event| event.structure());
    request.filter(|request| request.name() == "GstRTPRetransmissionRequest")
}
