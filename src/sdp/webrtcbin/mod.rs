//! Changes to descriptions that webrtcbin needs, or that its own descriptions need. Only the media layer uses this module.

pub mod credentials;
pub mod directions;

pub use credentials::Credentials;

use super::{Sdp, Section, Setup, codec};

/// Completes an offer that webrtcbin made: the profile of H.264, retransmission for each codec, and an open DTLS role.
pub fn complete_offer(offer: &mut Sdp) {
    for media in &mut offer.media {
        codec::declare_h264(media, "1f");
        codec::offer_retransmission(media);
    }
    Setup::leave_open(offer);
}

/// Writes the fingerprint of our certificate into a description that webrtcbin made: its own (1.22) hashes the key, too.
pub fn name_certificate(ours: &mut Sdp, fingerprint: &str) {
    for media in ours.media.iter_mut().filter(|media| media.attribute("fingerprint").is_some()) {
        media.set_attribute("fingerprint", fingerprint);
    }
}
