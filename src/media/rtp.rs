//! RTP caps, payloaders and depayloaders of the codecs.

use crate::sdp::{Codec, Payload};

/// Feedback that both sides can do (RFC 4585, RFC 5104).
const FEEDBACK: [(&str, &str); 3] =
    [("nack", "rtcp-fb-nack"), ("nack pli", "rtcp-fb-nack-pli"), ("ccm fir", "rtcp-fb-ccm-fir")];

/// The payload that we offer for a codec.
pub(super) fn offered(codec: Codec) -> Payload {
    let fmtp = match codec {
        Codec::H264 => vec![("packetization-mode".to_owned(), "1".to_owned())],
        Codec::Opus => {
            vec![("minptime".to_owned(), "10".to_owned()), ("useinbandfec".to_owned(), "1".to_owned())]
        }
        Codec::Vp8 => vec![],
    };
    let feedback = match codec {
        Codec::Vp8 | Codec::H264 => FEEDBACK.iter().map(|(name, _)| (*name).to_owned()).collect(),
        Codec::Opus => vec![],
    };
    Payload { pt: codec.payload_type(), codec, fmtp, feedback }
}

/// The caps of exactly one payload type, as webrtcbin wants them for a transceiver; with the SSRC
/// that we send with, which it writes into the SDP.
pub(super) fn caps(payload: &Payload, ssrc: Option<u32>) -> gst::Caps {
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
    gst::Caps::from(caps.build())
}

/// What makes RTP of an encoded stream, in gst-launch words.
pub(super) fn payloader(payload: &Payload, ssrc: u32) -> String {
    let pt = payload.pt;
    match payload.codec {
        Codec::Vp8 => format!("rtpvp8pay pt={pt} ssrc={ssrc} mtu=1200 picture-id-mode=15-bit"),
        // The stream's own level differs from the one agreed, which webrtcbin takes for another format;
        // with level asymmetry allowed (RFC 6184, 8.2.2) it is none.
        Codec::H264 => {
            let agreed = payload.parameter("profile-level-id").unwrap_or("42e01f");
            format!(
                "h264parse ! rtph264pay pt={pt} ssrc={ssrc} mtu=1200 config-interval=-1 aggregate-mode=zero-latency ! \
                 capssetter caps=\"application/x-rtp,profile-level-id=(string){agreed}\""
            )
        }
        Codec::Opus => format!("rtpopuspay pt={pt} ssrc={ssrc} mtu=1200"),
    }
}

/// What makes an encoded stream of RTP, in gst-launch words.
pub(super) fn depayloader(codec: Codec) -> &'static str {
    match codec {
        Codec::Vp8 => "rtpvp8depay request-keyframe=true wait-for-keyframe=true",
        Codec::H264 => {
            "rtph264depay request-keyframe=true wait-for-keyframe=true ! h264parse ! \
             video/x-h264,stream-format=byte-stream,alignment=au"
        }
        Codec::Opus => "rtpopusdepay",
    }
}
