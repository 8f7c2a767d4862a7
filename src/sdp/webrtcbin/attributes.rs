//! Attributes that webrtcbin leaves out, writes wrongly, or cannot read.

use super::codecs;
use super::setup::Setup;
use crate::sdp::{Line, Media, Sdp, Section};

/// Completes an offer that webrtcbin made: the profile of H.264, retransmission for each codec, and an open DTLS role.
pub(super) fn complete_offer(offer: &mut Sdp) {
    for media in &mut offer.media {
        codecs::declare_h264(media, "1f");
        codecs::offer_retransmission(media);
    }
    Setup::leave_open(offer);
}

/// Writes the fingerprint of our certificate into a description that webrtcbin made: its own (1.22) hashes the key, too.
pub(super) fn name_certificate(ours: &mut Sdp, fingerprint: &str) {
    for media in ours.media.iter_mut().filter(|media| media.attribute("fingerprint").is_some()) {
        media.set_attribute("fingerprint", fingerprint);
    }
}

/// Removes the lines of a peer's m-line that webrtcbin cannot read.
pub(super) fn clean(media: &mut Media) {
    strip_opus(media);
    drop_wrong_sources(media);
}

/// An SSRC is a number of 32 bits (RFC 5576, 4.1), and webrtcbin wants none to be 0.
fn drop_wrong_sources(media: &mut Media) {
    media.lines.retain(|line| {
        let Some(("ssrc", value)) = line.as_attribute() else { return true };
        value.split(' ').next().is_some_and(|id| id.parse::<u32>().is_ok_and(|id| id != 0))
    });
}

/// `sprop-*` of Opus describe what the peer sends; webrtcbin wants them equal to ours.
fn strip_opus(media: &mut Media) {
    if media.kind != "audio" {
        return;
    }
    media.lines.retain_mut(|line| {
        let Some(("fmtp", value)) = line.as_attribute() else { return true };
        let Some((pt, parameters)) = value.split_once(' ') else { return true };
        let parameters = parameters.split(';').map(str::trim);
        let kept: Vec<&str> = parameters.filter(|p| !p.is_empty() && !p.starts_with("sprop-")).collect();
        let is_left = !kept.is_empty();
        *line = Line::attribute("fmtp", &format!("{pt} {}", kept.join(";")));
        is_left
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdp::tests::CHROMIUM;

    #[test]
    fn an_offer_of_chromium_loses_its_opus_sprop_alone() {
        let mut sdp = Sdp::parse(CHROMIUM).unwrap();
        sdp.media.iter_mut().for_each(clean);
        assert_eq!(sdp.media[0].attribute("fmtp"), Some("111 minptime=10;useinbandfec=1"));
        let stripped = CHROMIUM.replace("sprop-stereo=1;", "").replace(";sprop-maxcapturerate=16000", "");
        assert_eq!(sdp, Sdp::parse(&stripped).unwrap());
    }
}
