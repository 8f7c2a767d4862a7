//! The certificate of one connection, with a P-256 key, which takes less than a millisecond to make. webrtcbin's RSA
//! certificate takes 100 to 350 ms; its DTLS elements make one in any case, once in a process (see
//! [`crate::media::gst::warm_up`]).

use crate::media::gst::elements;
use crate::media::gst::error::MediaError;
use crate::sdp::fingerprint::{Fingerprint, Hash};

/// A self-signed certificate with its key, as PEM, and its fingerprint in the form of SDP (RFC 8122, 5).
#[derive(Clone)]
pub(crate) struct Certificate {
    pem: String,
    fingerprint: String,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificate")
    }
}

impl Certificate {
    /// Creates a certificate; each connection has its own, so that connections cannot be linked to one user.
    pub(crate) fn make() -> Result<Self, MediaError> {
        let failed = |error: rcgen::Error| MediaError::Certificate(error.to_string());
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut parameters = rcgen::CertificateParams::new(vec![]).map_err(failed)?;
        parameters.distinguished_name.push(rcgen::DnType::CommonName, "WebRTC");
        let certificate = parameters.self_signed(&key).map_err(failed)?;
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate.der()).as_ref().to_vec();
        let pem = certificate.pem() + &key.serialize_pem();
        Ok(Self { pem, fingerprint: Fingerprint { hash: Hash::Sha256, digest }.to_string() })
    }

    /// Makes the DTLS elements of a webrtcbin use this certificate.
    pub(crate) fn give_to(&self, webrtc: &gst::Element) {
        use gst::prelude::*;
        let pem = self.pem.clone();
        let kinds = &["dtlsdec", "dtlssrtpdec"];
        elements::on_added(webrtc, kinds, move |element| element.set_property("pem", &pem));
    }

    /// Returns the fingerprint as SDP has it.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}
