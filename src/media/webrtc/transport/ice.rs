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

/// TURN servers of a connection, in webrtcbin's form. webrtcbin keeps each server that it was given.
#[derive(Debug, Default)]
pub(crate) struct TurnServers {
    given: Vec<String>,
    wanted: Vec<String>,
}

impl TurnServers {
    /// Returns the servers of a connection that was opened with `config`.
    pub(crate) fn given(config: &IceConfig) -> Self {
        let given = turn_uris(&config.servers);
        Self { wanted: given.clone(), given }
    }

    /// Wants the servers of `config` for the next transport.
    pub(crate) fn want(&mut self, config: &IceConfig) {
        self.wanted = turn_uris(&config.servers);
    }

    /// Returns the wanted servers that webrtcbin does not have, and counts them as given.
    pub(crate) fn take_new(&mut self) -> Vec<String> {
        let new: Vec<_> = self.wanted.iter().filter(|uri| !self.given.contains(uri)).cloned().collect();
        self.given.extend(new.iter().cloned());
        new
    }
}

/// Returns the TURN servers that libnice supports, in webrtcbin's form.
fn turn_uris(servers: &[IceServer]) -> Vec<String> {
    let is_turn = |url: &IceUrl| matches!(url.kind, IceKind::TurnUdp | IceKind::TurnTcp);
    let uris = servers.iter().flat_map(|server| {
        let urls = server.urls.iter().filter_map(|url| url.parse::<IceUrl>().ok());
        urls.filter(is_turn).map(move |url| turn_uri(&url, server))
    });
    uris.collect()
}

/// Gives webrtcbin a TURN server. The address contains a password, and is not logged.
pub(crate) fn add_turn_server(webrtc: &gst::Element, uri: &str) {
    if !webrtc.emit_by_name::<bool>("add-turn-server", &[&uri]) {
        let address = uri.rsplit_once('@').map_or("", |(_, address)| address);
        tracing::warn!("webrtcbin rejects the TURN server {address}");
    }
}

/// Returns the STUN server of a connection: webrtcbin accepts one.
fn stun_server(config: &IceConfig) -> Option<IceUrl> {
    let mut urls = config.servers.iter().flat_map(|server| &server.urls).filter_map(|url| url.parse().ok());
    urls.find(|url: &IceUrl| url.kind == IceKind::Stun)
}

/// Uses the STUN server of `config` from now on, if its host is an address. webrtcbin gives libnice its STUN server before
/// the first offer only, and libnice accepts no names.
pub(crate) fn use_stun_server(webrtc: &gst::Element, config: &IceConfig) {
    let server = stun_server(config).filter(|url| url.host.parse::<IpAddr>().is_ok());
    if let (Some(url), Some(agent)) = (server, libnice(webrtc)) {
        agent.set_property("stun-server", &url.host);
        agent.set_property("stun-server-port", u32::from(url.port));
    }
}

/// Returns the agent of libnice behind a webrtcbin.
fn libnice(webrtc: &gst::Element) -> Option<gst::glib::Object> {
    let ice = webrtc.property::<Option<gst::glib::Object>>("ice-agent")?;
    Some(ice).filter(|ice| ice.has_property("agent"))?.property("agent")
}

/// Sets the servers of a webrtcbin, and settings of libnice that webrtcbin does not expose: no UPnP (which opens
/// listeners), checks every 5 ms instead of 20 ms, and consent checks that notice a broken path.
pub(crate) fn set_up(webrtc: &gst::Element, config: &IceConfig) {
    if let Some(url) = stun_server(config) {
        webrtc.set_property("stun-server", url.to_string().replacen(':', "://", 1));
    }
    turn_uris(&config.servers).iter().for_each(|uri| add_turn_server(webrtc, uri));
    if config.relay_only {
        webrtc.set_property_from_str("ice-transport-policy", "relay");
    }
    let Some(ice) = webrtc.property::<Option<gst::glib::Object>>("ice-agent") else { return };
    for address in &config.addresses {
        if gst::glib::subclass::SignalId::lookup("add-local-ip-address", ice.type_()).is_some() {
            ice.emit_by_name::<bool>("add-local-ip-address", &[&address.to_string()]);
        }
    }
    let Some(agent) = libnice(webrtc) else { return };
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

    /// Tests that a restart gets the TURN user that the signalling server named since, once.
    #[test]
    fn a_restart_gets_the_turn_users_of_its_time() {
        let servers = |user: &str| {
            let urls =
                ["stun:192.0.2.1:3478", "turn:192.0.2.1:3478", "turns:192.0.2.1:5349"].map(str::to_owned);
            let credential = Some(Secret("secret".into()));
            let server = IceServer { urls: urls.to_vec(), username: Some(user.into()), credential };
            IceConfig { servers: vec![server], ..IceConfig::default() }
        };
        let mut turn = TurnServers::given(&servers("1000"));
        assert_eq!(turn.take_new(), Vec::<String>::new());
        turn.want(&servers("2000"));
        assert_eq!(turn.take_new(), ["turn://2000:secret@192.0.2.1:3478?transport=udp"]);
        assert_eq!(turn.take_new(), Vec::<String>::new());
    }
}
