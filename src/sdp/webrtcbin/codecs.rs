//! Parameters of codecs that webrtcbin leaves out of its offers.

use crate::sdp::codec::{Codec, Kind, Payload, usable};
use crate::sdp::{Line, Media, Section};

/// Writes the parameters of H.264 that browsers want: constrained baseline at `level`, with any other level accepted.
/// webrtcbin writes the encoder's own profile or none, and Firefox then rejects the m-line.
pub(super) fn declare_h264(media: &mut Media, level: &str) {
    let pts: Vec<String> = media
        .attributes("rtpmap")
        .filter_map(|map| map.split_once(' '))
        .filter(|(_, map)| map.to_ascii_uppercase().starts_with("H264/"))
        .map(|(pt, _)| pt.to_owned())
        .collect();
    for pt in pts {
        let wanted =
            format!("{pt} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e0{level}");
        media.lines.retain(|line| {
            line.as_attribute().is_none_or(|(n, v)| n != "fmtp" || v.split(' ').next() != Some(&pt))
        });
        media.lines.push(Line::attribute("fmtp", &wanted));
    }
}

/// Gives every video codec in an offer of ours a payload type for retransmission (RFC 4588, 8.1), the next number if it is
/// free. webrtcbin does so for the first codec alone.
pub(super) fn offer_retransmission(media: &mut Media) {
    let mut taken: Vec<u8> =
        media.attributes("rtpmap").filter_map(|map| map.split(' ').next()?.parse().ok()).collect();
    let has = |media: &Media, apt: &str| {
        media.attributes("fmtp").any(|fmtp| fmtp.split_once(' ').is_some_and(|(_, value)| value == apt))
    };
    let is_asked =
        |media: &Media, pt: u8| media.attributes("rtcp-fb").any(|feedback| feedback == format!("{pt} nack"));
    for Payload { pt, codec, .. } in usable(media, &Codec::ALL, &[]) {
        let apt = format!("apt={pt}");
        if codec.kind() != Kind::Video || has(media, &apt) || !is_asked(media, pt) {
            continue;
        }
        let Some(free) = (pt..127).chain(96..pt).find(|free| !taken.contains(free)) else { continue };
        taken.push(free);
        media.rest.push_str(&format!(" {free}"));
        media.lines.push(Line::attribute("rtpmap", &format!("{free} rtx/90000")));
        media.lines.push(Line::attribute("fmtp", &format!("{free} {apt}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdp::Sdp;

    #[test]
    fn every_video_codec_of_an_offer_has_retransmission() {
        let text = "v=0\nm=video 9 X 96 98 97\na=rtpmap:96 VP8/90000\na=rtcp-fb:96 nack\na=rtpmap:98 VP9/90000\n\
                    a=rtcp-fb:98 nack\na=rtpmap:97 rtx/90000\na=fmtp:97 apt=96\n";
        let mut sdp = Sdp::parse(text).unwrap();
        offer_retransmission(&mut sdp.media[0]);
        assert_eq!(sdp.media[0].rest, "9 X 96 98 97 99");
        assert_eq!(sdp.media[0].attributes("fmtp").collect::<Vec<_>>(), ["97 apt=96", "99 apt=98"]);
        let once = sdp.clone();
        offer_retransmission(&mut sdp.media[0]);
        assert!(sdp == once, "a second time changes nothing");
    }

    #[test]
    fn h264_is_declared_as_constrained_baseline() {
        let text = "v=0\nm=video 9 X 102\na=rtpmap:102 H264/90000\na=fmtp:102 packetization-mode=1\n";
        let mut sdp = Sdp::parse(text).unwrap();
        declare_h264(&mut sdp.media[0], "1f");
        let fmtp = "102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
        assert_eq!(sdp.media[0].attributes("fmtp").collect::<Vec<_>>(), [fmtp]);
    }
}
