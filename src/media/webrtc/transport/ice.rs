//! ICE: servers, policies and libnice's settings (RFC 8445).

use std::net::IpAddr;

use gst::prelude::*;

use crate::protocol::{IceKind, IceServer, IceUrl};

/// Settings of ICE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceConfig {
    /// STUN and TURN servers. libnice does not support TURN over TLS.
    pub servers: Vec<IceServer>,
    /// Whether only relayed paths are used.
    pub relay_only: bool,
    /// Whether TCP candidates are used.
    pub tcp: bool,
    /// Local addresses to use; if empty, all.
    pub addresses: Vec<IpAddr>,
}

impl Default for IceConfig {
    fn default() -> Self {
        Self { servers: vec![], relay_only: false, tcp: true, addresses: vec![] }
    }
}

/// Returns a TURN server in webrtcbin's form: user and password percent-encoded in the address.
fn turn_uri(url: &IceUrl, server: &IceServer) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let user = encode(server.username.as_deref().unwrap_or_default());
    let password = encode(server.credential.as_ref().map_or("", |secret| &secret.0));
    url.to_string().replacen(':', &format!("://{user}:{password}@"), 1)
}

/// Sets the servers of a webrtcbin, and settings of libnice that webrtcbin does not expose: no UPnP (which opens
/// listeners), checks every 5 ms instead of 20 ms, and consent checks that notice a broken path.
pub(crate) fn set_up(webrtc: &gst::Element, config: &IceConfig) {
    let mut has_stun = false;
    for server in &config.servers {
        for url in server.urls.iter().filter_map(|url| url.parse::<IceUrl>().ok()) {
            match url.kind {
                // webrtcbin accepts one STUN server.
                IceKind::Stun if !std::mem::replace(&mut has_stun, true) => {
                    webrtc.set_property("stun-server", url.to_string().replacen(':', "://", 1));
                }
                IceKind::Stun | IceKind::TurnTls => {}
                IceKind::TurnUdp | IceKind::TurnTcp => {
                    let uri = turn_uri(&url, server);
                    if !webrtc.emit_by_name::<bool>("add-turn-server", &[&uri]) {
                        tracing::warn!("webrtcbin rejects the TURN server {url}");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Secret;

    #[test]
    fn a_turn_server_has_the_form_that_webrtcbin_expects() {
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
}
