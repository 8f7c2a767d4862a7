//! What lies below webrtcbin: ICE's settings, the DTLS connection, and whose certificate it has.

use futures_rustls::rustls::pki_types::CertificateDer;
use futures_rustls::rustls::pki_types::pem::PemObject;
use gst::prelude::*;
use gst_webrtc::WebRTCDTLSTransport;

use crate::sdp::fingerprint::{self, Fingerprint, Hash};

/// libnice's settings that webrtcbin does not show: no UPnP (it opens listeners), checks every 5 ms
/// instead of 20, and consent checks that notice a dead path.
pub(super) fn tune_ice(webrtc: &gst::Element) {
    let ice = webrtc.property::<Option<gst::glib::Object>>("ice-agent");
    let agent = ice.filter(|ice| ice.has_property("agent"));
    let Some(agent) = agent.and_then(|ice| ice.property::<Option<gst::glib::Object>>("agent")) else {
        return;
    };
    for (name, value) in [("upnp", false), ("keepalive-conncheck", true)] {
        if agent.find_property(name).is_some_and(|p| p.flags().contains(gst::glib::ParamFlags::WRITABLE)) {
            agent.set_property(name, value);
        }
    }
    if agent.has_property("stun-pacing-timer") {
        agent.set_property("stun-pacing-timer", 5_u32);
    }
}

/// The DTLS connection, which all media and data share.
pub(super) fn dtls(webrtc: &gst::Element) -> Option<WebRTCDTLSTransport> {
    let first = webrtc.emit_by_name::<Option<gst_webrtc::WebRTCRTPTransceiver>>("get-transceiver", &[&0_i32]);
    let of_media = first.and_then(|transceiver| transceiver.receiver()).and_then(|r| r.transport());
    of_media.or_else(|| {
        let sctp = webrtc.property::<Option<gst::glib::Object>>("sctp-transport")?;
        sctp.property::<Option<WebRTCDTLSTransport>>("transport")
    })
}

/// Whether the certificate that the peer showed in DTLS is one that its description names.
pub(super) fn is_the_one_named(webrtc: &gst::Element, named: &[Fingerprint]) -> bool {
    let shown = dtls(webrtc).and_then(|transport| transport.remote_certificate());
    let Some(der) = shown.and_then(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).ok()) else {
        return false;
    };
    fingerprint::matches(named, |hash| {
        let algorithm = match hash {
            Hash::Sha1 => &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
            Hash::Sha256 => &ring::digest::SHA256,
            Hash::Sha384 => &ring::digest::SHA384,
            Hash::Sha512 => &ring::digest::SHA512,
        };
        ring::digest::digest(algorithm, &der).as_ref().to_vec()
    })
}

/// Whether a `dtlsenc` has a connection that can be closed.
fn is_connected(encoder: &gst::Element) -> bool {
    let state = encoder.property_value("connection-state");
    gst::glib::EnumValue::from_value(&state).is_some_and(|(_, state)| state.nick() == "connected")
}

/// Sends DTLS's close_notify, by which the peer knows at once that we are gone; webrtcbin does not.
pub(super) fn close_dtls(pipeline: &gst::Pipeline) {
    /// For the few bytes to leave.
    const LINGER: std::time::Duration = std::time::Duration::from_millis(30);
    let is_encoder = |element: &gst::Element| {
        element.factory().is_some_and(|factory| factory.name() == "dtlsenc") && is_connected(element)
    };
    let elements = pipeline.iterate_recurse().into_iter().filter_map(Result::ok);
    let mut said = false;
    for encoder in elements.filter(is_encoder) {
        for pad in encoder.sink_pads() {
            said |= pad.send_event(gst::event::Eos::new());
        }
    }
    if said {
        std::thread::sleep(LINGER);
    }
}
