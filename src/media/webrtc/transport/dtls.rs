//! DTLS: the transports of a connection, and the comparison of the peer's certificates with its description.

use futures_rustls::rustls::pki_types::CertificateDer;
use futures_rustls::rustls::pki_types::pem::PemObject;
use gst::prelude::*;
use gst_webrtc::WebRTCDTLSTransport;

use crate::sdp::fingerprint::{self, Fingerprint, Hash};

/// Returns the DTLS transports of all m-lines, each once. Media and data share one transport, but an unused m-line may
/// have none, or an unused one of its own.
pub(crate) fn transports(webrtc: &gst::Element) -> Vec<WebRTCDTLSTransport> {
    let mut found: Vec<WebRTCDTLSTransport> = vec![];
    let get =
        |i: i32| webrtc.emit_by_name::<Option<gst_webrtc::WebRTCRTPTransceiver>>("get-transceiver", &[&i]);
    let of_media = (0..).map_while(get).flat_map(|transceiver| {
        let receiver = transceiver.receiver().and_then(|receiver| receiver.transport());
        [receiver, transceiver.sender().and_then(|sender| sender.transport())]
    });
    let sctp = webrtc.property::<Option<gst::glib::Object>>("sctp-transport");
    let of_data = sctp.and_then(|sctp| sctp.property::<Option<WebRTCDTLSTransport>>("transport"));
    for transport in of_media.flatten().chain(of_data) {
        if !found.contains(&transport) {
            found.push(transport);
        }
    }
    found
}

/// Result of the comparison of the peer's certificate with its description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    /// The peer has shown no certificate yet.
    Unknown,
    /// Every certificate of the peer is named in its description.
    Named,
    /// A certificate of the peer is not named in its description.
    Another,
}

/// Compares the certificates that the peer showed in DTLS, on any transport, with the fingerprints in its description;
/// a single certificate without a fingerprint there fails the comparison.
pub(crate) fn identify(webrtc: &gst::Element, named: &[Fingerprint]) -> Identity {
    let shown: Vec<String> = transports(webrtc)
        .iter()
        .filter_map(|transport| transport.remote_certificate())
        .map(Into::into)
        .collect();
    identity(shown.iter().map(String::as_str), named)
}

fn identity<'a>(shown: impl Iterator<Item = &'a str>, named: &[Fingerprint]) -> Identity {
    let mut found = Identity::Unknown;
    for pem in shown.filter(|pem| !pem.is_empty()) {
        let is_named = CertificateDer::from_pem_slice(pem.as_bytes()).is_ok_and(|der| is_named(&der, named));
        if !is_named {
            return Identity::Another;
        }
        found = Identity::Named;
    }
    found
}

fn is_named(certificate: &[u8], named: &[Fingerprint]) -> bool {
    fingerprint::matches(named, |hash| {
        let algorithm = match hash {
            Hash::Sha1 => &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => &ring::digest::SHA256,
            Hash::Sha384 => &ring::digest::SHA384,
            Hash::Sha512 => &ring::digest::SHA512,
        };
        ring::digest::digest(algorithm, certificate).as_ref().to_vec()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_certificate_that_a_peer_shows_must_be_named() {
        let of = |byte: u8| {
            format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", {
                use base64::Engine;
                base64::engine::general_purpose::STANDARD.encode([byte; 40])
            })
        };
        let named = |byte: u8| {
            let digest = ring::digest::digest(&ring::digest::SHA256, &[byte; 40]).as_ref().to_vec();
            vec![Fingerprint { hash: Hash::Sha256, digest }]
        };
        let (one, two) = (of(1), of(2));
        let find = |shown: &[&str], named: &[Fingerprint]| identity(shown.iter().copied(), named);
        assert_eq!(find(&[], &named(1)), Identity::Unknown);
        assert_eq!(find(&[""], &named(1)), Identity::Unknown, "an m-line without a connection");
        assert_eq!(find(&["", &one], &named(1)), Identity::Named, "on any m-line");
        assert_eq!(find(&[&one], &named(2)), Identity::Another);
        assert_eq!(find(&[&one, &two], &named(1)), Identity::Another);
        assert_eq!(find(&["nonsense"], &named(1)), Identity::Another);
        assert_eq!(find(&[&one], &[]), Identity::Another);
    }
}
