//! What lies below webrtcbin: ICE's settings, the DTLS connection, and whose certificate it has.

pub(crate) mod certificate;
pub(crate) mod handshake;
pub(crate) mod source_limit;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_rustls::rustls::pki_types::CertificateDer;
use futures_rustls::rustls::pki_types::pem::PemObject;
use gst::prelude::*;
use gst_webrtc::WebRTCDTLSTransport;

use crate::protocol::{IceKind, IceServer, IceUrl};
use crate::sdp::fingerprint::{self, Fingerprint, Hash};

/// How a path to the peer is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceConfig {
    /// STUN and TURN servers. TURN over TLS is not among what libnice speaks.
    pub servers: Vec<IceServer>,
    /// By TURN servers alone.
    pub relay_only: bool,
    /// Over TCP too.
    pub tcp: bool,
    /// From these addresses alone, where there are any.
    pub addresses: Vec<IpAddr>,
}

impl Default for IceConfig {
    fn default() -> Self {
        Self { servers: vec![], relay_only: false, tcp: true, addresses: vec![] }
    }
}

/// webrtcbin's own form of a TURN server: user and password in the address, percent-encoded.
fn turn_uri(url: &IceUrl, server: &IceServer) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let user = encode(server.username.as_deref().unwrap_or_default());
    let password = encode(server.credential.as_ref().map_or("", |secret| &secret.0));
    url.to_string().replacen(':', &format!("://{user}:{password}@"), 1)
}

/// Tells webrtcbin about the servers, and libnice's settings that webrtcbin does not show: no UPnP (it
/// opens listeners), checks every 5 ms instead of 20, and consent checks that notice a dead path.
pub(crate) fn set_up_ice(webrtc: &gst::Element, config: &IceConfig) {
    let mut has_stun = false;
    for server in &config.servers {
        for url in server.urls.iter().filter_map(|url| url.parse::<IceUrl>().ok()) {
            match url.kind {
                // It takes one.
                IceKind::Stun if !std::mem::replace(&mut has_stun, true) => {
                    webrtc.set_property("stun-server", url.to_string().replacen(':', "://", 1));
                }
                IceKind::Stun | IceKind::TurnTls => {}
                IceKind::TurnUdp | IceKind::TurnTcp => {
                    let uri = turn_uri(&url, server);
                    if !webrtc.emit_by_name::<bool>("add-turn-server", &[&uri]) {
                        tracing::warn!("webrtcbin does not take the TURN server {url}");
                    }
                }
            }
        }
    }
    if config.relay_only {
        webrtc.set_property_from_str("ice-transport-policy", "relay");
    }
    let Some(ice) = webrtc.property::<Option<gst::glib::Object>>("ice-agent") else { return };
    for address in &config.addresses {
        if gst::glib::subclass::SignalId::lookup("add-local-ip-address", ice.type_()).is_some() {
            ice.emit_by_name::<bool>("add-local-ip-address", &[&address.to_string()]);
        }
    }
    let agent = Some(ice).filter(|ice| ice.has_property("agent"));
    let Some(agent) = agent.and_then(|ice| ice.property::<Option<gst::glib::Object>>("agent")) else {
        return;
    };
    for (name, value) in [("upnp", false), ("keepalive-conncheck", true), ("ice-tcp", config.tcp)] {
        if agent.find_property(name).is_some_and(|p| p.flags().contains(gst::glib::ParamFlags::WRITABLE)) {
            agent.set_property(name, value);
        }
    }
    if agent.has_property("stun-pacing-timer") {
        agent.set_property("stun-pacing-timer", 5_u32);
    }
}

/// Does something with each element of these kinds that webrtcbin makes from now on.
pub(crate) fn with_each(
    webrtc: &gst::Element,
    factories: &'static [&'static str],
    work: impl Fn(&gst::Element) + Send + Sync + 'static,
) {
    webrtc.connect("deep-element-added", false, move |args| {
        let element = args.get(2)?.get::<gst::Element>().ok()?;
        if element.factory().is_some_and(|of| factories.contains(&of.name().as_str())) {
            work(&element);
        }
        None
    });
}

/// Maximum number of streams received from a peer: each costs a thread, and `rtpbin` has no limit by default.
pub(crate) const MAX_STREAMS: usize = 32;

/// Sets what webrtcbin's RTP session does not let a peer or chance decide.
pub(crate) fn set_up_rtp(webrtc: &gst::Element) {
    /// Between reports, on average: RFC 3550 (6.2) has 5 s, and one that only receives is heard by these alone.
    const REPORTS: gst::ClockTime = gst::ClockTime::from_seconds(1);
    /// What a call takes, in bit/s, of which feedback may have a twentieth. By itself the session takes it for what came so
    /// far, at the start nothing: a request for what was lost waits half a second for its turn (RFC 4585, 3.5.2) then.
    const BANDWIDTH: f64 = 2e6;
    if let Some(rtpbin) = webrtc.downcast_ref::<gst::Bin>().and_then(|bin| bin.by_name("rtpbin")) {
        rtpbin.set_property("max-streams", MAX_STREAMS as u32);
    }
    with_each(webrtc, &["rtpsession"], |element| {
        let session = element.property::<gst::glib::Object>("internal-session");
        session.set_property("rtcp-min-interval", REPORTS.nseconds());
        session.set_property("bandwidth", BANDWIDTH);
    });
}

/// The request to send a packet again that goes by, where it is one; it names the packet's `seqnum`.
pub(crate) fn repeat_request<'a>(info: &'a gst::PadProbeInfo<'_>) -> Option<&'a gst::StructureRef> {
    let request = info.event().and_then(|event| event.structure());
    request.filter(|request| request.name() == "GstRTPRetransmissionRequest")
}

/// Holds back what data channels send, their opening among it, until it is known who the peer is. Media has its own gate
/// before webrtcbin.
#[derive(Debug, Default)]
pub(crate) struct DataGate(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    is_open: bool,
    pads: Vec<(gst::glib::WeakRef<gst::Pad>, gst::PadProbeId)>,
}

impl DataGate {
    /// Before the data channels that this webrtcbin will have.
    pub(crate) fn before(webrtc: &gst::Element) -> Arc<Self> {
        let gate = Arc::new(Self::default());
        let held = gate.clone();
        with_each(webrtc, &["sctpenc"], move |element| {
            element.static_pad("src").iter().for_each(|pad| held.hold(pad));
        });
        gate
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, pad: &gst::Pad) {
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        let mut held = self.lock();
        if !held.is_open
            && let Some(probe) =
                pad.add_probe(gst::PadProbeType::BLOCK | kinds, |_, _| gst::PadProbeReturn::Ok)
        {
            held.pads.push((pad.downgrade(), probe));
        }
    }

    /// Lets all go that waits, and what comes.
    pub(crate) fn open(&self) {
        let pads = {
            let mut held = self.lock();
            held.is_open = true;
            std::mem::take(&mut held.pads)
        };
        for (pad, probe) in pads {
            if let Some(pad) = pad.upgrade() {
                pad.remove_probe(probe);
            }
        }
    }
}

/// The elements of that kind that are within, however deep.
pub(crate) fn elements(within: &gst::Element, factory: &'static str) -> Vec<gst::Element> {
    let all = within.downcast_ref::<gst::Bin>().map(|bin| bin.iterate_recurse());
    let is_it = |element: &gst::Element| element.factory().is_some_and(|of| of.name() == factory);
    all.into_iter().flatten().filter_map(Result::ok).filter(is_it).collect()
}

/// The packets that error correction made good.
pub(crate) fn repaired(webrtc: &gst::Element) -> u64 {
    let decoders = elements(webrtc, "rtpulpfecdec").into_iter();
    decoders.map(|decoder| u64::from(decoder.property::<u32>("recovered"))).sum()
}

/// By which a packet of a connection tells what it is (RFC 7983, 7).
pub(crate) fn first_byte(packet: &gst::BufferRef) -> Option<u8> {
    let mut first = [0];
    packet.copy_to_slice(0, &mut first).is_ok().then_some(first[0])
}

/// Counts the packets of media and reports that come in: those whose absence says something. Data channels
/// may be silent for as long as they like, and ICE's own checks are not seen here.
pub(crate) fn count_packets(webrtc: &gst::Element) -> Arc<AtomicU64> {
    let packets = Arc::new(AtomicU64::new(0));
    let counter = packets.clone();
    with_each(webrtc, &["nicesrc"], move |element| {
        let (counter, Some(pad)) = (counter.clone(), element.static_pad("src")) else { return };
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        pad.add_probe(kinds, move |_, info| {
            let is_rtp =
                |buffer: &gst::BufferRef| first_byte(buffer).is_some_and(|first| (128..192).contains(&first));
            let alone = info.buffer().is_some_and(|buffer| is_rtp(buffer));
            if alone || info.buffer_list().is_some_and(|list| list.iter().any(is_rtp)) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            gst::PadProbeReturn::Ok
        });
    });
    packets
}

/// Returns the DTLS transports of all m-lines, each once. Media and data share one transport, but an unused m-line may
/// have none, or an unused one of its own.
pub(crate) fn dtls(webrtc: &gst::Element) -> Vec<WebRTCDTLSTransport> {
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
    let shown: Vec<String> =
        dtls(webrtc).iter().filter_map(|transport| transport.remote_certificate()).map(Into::into).collect();
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

/// Whether a `dtlsenc` has a connection that can be closed.
fn is_connected(encoder: &gst::Element) -> bool {
    let state = encoder.property_value("connection-state");
    gst::glib::EnumValue::from_value(&state).is_some_and(|(_, state)| state.nick() == "connected")
}

/// Sends DTLS's close_notify, by which the peer knows at once that we are gone; webrtcbin does not.
pub(crate) fn close_dtls(pipeline: &gst::Pipeline) {
    /// For the few bytes to leave.
    const LINGER: std::time::Duration = std::time::Duration::from_millis(30);
    let mut said = false;
    for encoder in elements(pipeline.upcast_ref(), "dtlsenc").into_iter().filter(is_connected) {
        for pad in encoder.sink_pads() {
            said |= pad.send_event(gst::event::Eos::new());
        }
    }
    if said {
        std::thread::sleep(LINGER);
    }
}

/// Waits until webrtcbin has done what it was told, on its own thread: what it does while it stops, it leaves
/// behind.
pub(crate) fn finish_work(pipeline: &gst::Pipeline) {
    const AT_MOST: std::time::Duration = std::time::Duration::from_secs(2);
    let is_webrtc = |element: &gst::Element| element.factory().is_some_and(|f| f.name() == "webrtcbin");
    for webrtc in pipeline.iterate_elements().into_iter().filter_map(Result::ok).filter(is_webrtc) {
        let (done, wait) = std::sync::mpsc::channel();
        let promise = gst::Promise::with_change_func(move |_| {
            let _ = done.send(());
        });
        webrtc.emit_by_name::<()>("get-stats", &[&None::<gst::Pad>, &promise]);
        if wait.recv_timeout(AT_MOST).is_err() {
            tracing::debug!("webrtcbin does not come to rest");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Secret;

    #[test]
    fn a_turn_server_as_webrtcbin_has_it() {
        let server = IceServer {
            urls: vec![],
            username: Some("86400:room".into()),
            credential: Some(Secret("a/b+c=".into())),
        };
        let url = "turn:[2001:db8::1]:99?transport=tcp".parse().unwrap();
        assert_eq!(
            turn_uri(&url, &server),
            "turn://86400%3Aroom:a%2Fb%2Bc%3D@[2001:db8::1]:99?transport=tcp"
        );
    }

    #[test]
    fn a_peer_is_unknown_until_it_shows_a_certificate_and_each_one_counts() {
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
        assert_eq!(find(&["", &one], &named(1)), Identity::Named, "whichever m-line has it");
        assert_eq!(find(&[&one], &named(2)), Identity::Another);
        assert_eq!(find(&[&one, &two], &named(1)), Identity::Another);
        assert_eq!(find(&["nonsense"], &named(1)), Identity::Another);
        assert_eq!(find(&[&one], &[]), Identity::Another);
    }

    #[test]
    fn what_data_channels_send_waits_until_the_peer_is_known() {
        crate::media::gst::init().unwrap();
        let pipeline =
            gst::parse::launch("fakesrc num-buffers=1 ! identity name=enc ! fakesink name=sink").unwrap();
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        let (gate, came) = (DataGate::default(), Arc::new(AtomicU64::new(0)));
        let pad = |name, pad| pipeline.by_name(name).unwrap().static_pad(pad).unwrap();
        gate.hold(&pad("enc", "src"));
        let count = came.clone();
        pad("sink", "sink").add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            gst::PadProbeReturn::Ok
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(came.load(Ordering::Relaxed), 0);
        gate.open();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while came.load(Ordering::Relaxed) == 0 {
            assert!(std::time::Instant::now() < until, "it waits still");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        // One that comes later does not wait, and one that waits for ever stops nothing.
        gate.hold(&pad("enc", "sink"));
        assert!(gate.lock().pads.is_empty());
        pipeline.set_state(gst::State::Null).unwrap();
        DataGate::default().hold(&pad("enc", "src"));
        pipeline.set_state(gst::State::Playing).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        pipeline.set_state(gst::State::Null).unwrap();
    }
}
