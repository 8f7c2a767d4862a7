//! The server that a client connects to: address, protocol, trust and proxy.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use url::{Host, Url};

use super::error::ConnectError;
use super::proxy::{Proxies, Proxy};
use super::signaller::{Capabilities, Endpoint, Registration, Signaller};
use super::silence::LONGEST_SILENCE;
use crate::protocol::Secret;
use crate::protocol::ssp::Version;
use crate::tls::{ClientCertificate, Trust};

/// Creates a back end; the function returns random numbers from 0 to 1, by which the pauses between attempts vary.
pub(super) type Start = fn(&Target, Registration, fn() -> f64) -> Box<dyn Signaller>;

/// A signalling protocol: an entry of the registry.
pub struct Protocol {
    /// The kind of server, for error messages.
    pub(super) server: &'static str,
    /// The URL schemes, without and with TLS.
    pub(super) schemes: [&'static str; 2],
    /// The path of a URL that names none.
    pub(super) default_path: &'static str,
    /// The path at which roomtone's own server speaks the protocol.
    pub(super) usual_path: &'static str,
    /// The query that is appended to the URL; empty for none.
    pub(super) query: &'static str,
    /// The abilities of the protocol.
    pub(super) capabilities: Capabilities,
    /// Creates the back end.
    pub(super) start: Start,
    /// Returns whether a server's text belongs to the protocol.
    pub(super) recognises: fn(&str) -> bool,
}

impl PartialEq for Protocol {
    fn eq(&self, other: &Self) -> bool {
        self.schemes == other.schemes
    }
}

impl Eq for Protocol {}

impl std::fmt::Debug for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.schemes)
    }
}

/// A server's address, and the settings of a connection to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    url: Url,
    /// The interface of a link-local address (the zone of RFC 4007, 11), by name or number.
    zone: Option<String>,
    pub(super) trust: Trust,
    pub(super) own: Option<ClientCertificate>,
    proxies: Proxies,
    protocol: &'static Protocol,
    /// The version of ssp; other protocols ignore the version.
    pub(super) version: Version,
    /// The query that is appended to the address; empty for none.
    query: &'static str,
    token: Option<Secret>,
    pub(super) silence: Duration,
}

impl Target {
    /// Returns a server with default settings. `url` is a `ws` or `wss` URL with a host.
    pub(super) fn new(protocol: &'static Protocol, mut url: Url, zone: Option<String>, trust: Trust) -> Self {
        url.set_fragment(None);
        if url.path() == "/" {
            url.set_path(protocol.default_path);
        }
        Self {
            url,
            zone,
            trust,
            own: None,
            proxies: Proxies::default(),
            protocol,
            version: Version::Auto,
            query: protocol.query,
            token: None,
            silence: LONGEST_SILENCE,
        }
    }

    /// Returns the address for people, without its secret parts.
    pub fn name(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        let _ = url.set_password(None);
        let _ = url.set_username("");
        let name = url.to_string().trim_end_matches('/').to_owned();
        match &self.zone {
            Some(zone) => name.replacen(']', &format!("%{zone}]"), 1),
            None => name,
        }
    }

    /// Sets the version of ssp; other protocols ignore the version.
    pub fn ssp_version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// Sets the token that the client sends to the server.
    pub fn token(mut self, token: Option<Secret>) -> Self {
        self.token = token;
        self
    }

    /// Sets the certificate that the client presents if the server asks for one.
    pub fn client_certificate(mut self, own: Option<ClientCertificate>) -> Self {
        self.own = own;
        self
    }

    /// Sets the proxy settings.
    pub fn proxies(mut self, proxies: Proxies) -> Self {
        self.proxies = proxies;
        self
    }

    /// Sets the limit on the server's silence (default: [`LONGEST_SILENCE`]).
    pub fn silence(mut self, longest: Duration) -> Self {
        self.silence = longest;
        self
    }

    /// Returns the abilities of the server's protocol.
    pub fn capabilities(&self) -> Capabilities {
        self.protocol.capabilities
    }

    /// Returns the URL, with its secret parts.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// Returns the server's host for people: a name, or an address.
    pub fn host_name(&self) -> String {
        self.url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned()
    }

    /// Returns the protocol of the server.
    pub(super) fn protocol(&self) -> &'static Protocol {
        self.protocol
    }

    /// Sets whether the client asks for roomtone's protocol additions.
    pub fn extended(mut self, extended: bool) -> Self {
        self.query = if extended { self.protocol.query } else { "" };
        self
    }

    /// Returns whether any certificate of the server is accepted.
    pub fn is_insecure(&self) -> bool {
        self.trust == Trust::Anybody
    }

    /// Returns whether the connection uses TLS.
    pub(super) fn is_tls(&self) -> bool {
        matches!(self.url.scheme(), "wss" | "https")
    }

    /// Returns the host and the port.
    pub(super) fn host_and_port(&self) -> Option<(Host<&str>, u16)> {
        Some((self.url.host()?, self.url.port_or_known_default().unwrap_or(443)))
    }

    /// Returns the interface of a link-local address.
    pub(super) fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// Returns whether the address is link-local but names no interface.
    pub(super) fn lacks_zone(&self) -> bool {
        let is_local = |ip: Ipv6Addr| ip.is_unicast_link_local();
        self.zone.is_none() && matches!(self.url.host(), Some(Host::Ipv6(ip)) if is_local(ip))
    }

    /// Returns the proxy for this server, if the settings name one.
    pub(super) fn proxy(&self) -> Result<Option<Proxy>, ConnectError> {
        let Some(host) = self.url.host() else { return Ok(None) };
        let proxy = self.proxies.choose(self.is_tls(), &host);
        proxy.map_err(|error| ConnectError::Proxy(self.name(), error.to_string()))
    }

    /// Returns whether the URL names no path.
    pub(super) fn is_at_root(&self) -> bool {
        self.url.path() == "/" || self.url.path() == self.protocol.default_path
    }

    /// Returns the kind of server and the URL, for people, of the same host for another protocol. A URL without a path
    /// gets the protocol's usual path.
    pub(super) fn like(&self, protocol: &Protocol) -> String {
        let mut like = self.clone();
        if self.is_at_root() {
            like.url.set_path(protocol.usual_path);
        }
        format!("{} is {}", protocol.server, like.full_name(protocol))
    }

    /// Returns the URL, for people, of the same host and port with TLS if this URL has none, or without TLS if it has.
    pub(super) fn with_other_tls(&self) -> String {
        let (mut other, port) = (self.clone(), self.url.port_or_known_default());
        let _ = other.url.set_scheme(if self.is_tls() { "ws" } else { "wss" });
        let _ = other.url.set_port(port);
        other.full_name(self.protocol)
    }

    /// Returns the URL, for people, of the server with TLS at the host and port to which a server without TLS redirects.
    pub(super) fn redirected(&self, to: &Url) -> String {
        let mut other = self.clone();
        let _ = other.url.set_scheme("wss");
        let _ = other.url.set_host(to.host_str());
        let _ = other.url.set_port(to.port());
        other.full_name(self.protocol)
    }

    /// Returns the address for people, with the scheme that a protocol has in URLs.
    fn full_name(&self, protocol: &Protocol) -> String {
        let name = self.name();
        let rest = name.split_once("://").map_or("", |(_, rest)| rest);
        format!("{}://{rest}", protocol.schemes[usize::from(self.is_tls())])
    }

    /// Returns the HTTP URL of the file `name` in the folder of the server's address (RFC 3986, 5.2), which a proxy in
    /// front of the server may have put below a base path. The URL has no query.
    pub fn beside(&self, name: &str) -> Url {
        let mut url = self.url.join(name).unwrap_or_else(|_| self.url.clone());
        url.set_query(None);
        let _ = url.set_scheme(if self.is_tls() { "https" } else { "http" });
        url
    }

    /// Returns the target of a request to another URL, with the same settings. Another host gets no client certificate.
    pub(super) fn at(&self, url: &Url) -> Self {
        let own = self.own.clone().filter(|_| url.host() == self.url.host());
        Self { url: url.clone(), own, ..self.clone() }
    }

    /// Replaces the token that the client sends to the server.
    pub(super) fn set_token(&mut self, token: Secret) {
        self.token = Some(token);
    }

    /// Returns the token that the client sends to the server, in plain text.
    pub(super) fn token_text(&self) -> Option<&str> {
        self.token.as_ref().map(|token| token.0.as_str())
    }

    /// Returns the endpoint of a WebSocket, with the URL's secret parts.
    pub(super) fn endpoint(&self) -> Endpoint {
        let mut url = self.url.clone();
        if let Some(token) = &self.token {
            url.query_pairs_mut().append_pair("token", &token.0);
        }
        if !self.query.is_empty() {
            let query = match url.query() {
                Some(query) if !query.is_empty() => format!("{query}&{}", self.query),
                _ => self.query.to_owned(),
            };
            url.set_query(Some(&query));
        }
        Endpoint { url, subprotocols: vec![], headers: vec![] }
    }
}

/// Splits the zone (RFC 6874, or the common unescaped form) from an address, since [`Url`] rejects zones. Adds the
/// brackets to a bare IPv6 address.
pub(super) fn split_zone(text: &str) -> (String, Option<String>) {
    let address = text.split('%').next().unwrap_or_default();
    let text = if address.parse::<Ipv6Addr>().is_ok() { format!("[{text}]") } else { text.to_owned() };
    let found = text.split_once('[').and_then(|(before, rest)| {
        let (inside, after) = rest.split_once(']')?;
        let (address, zone) = inside.split_once('%')?;
        address.parse::<IpAddr>().ok()?;
        let zone = zone.strip_prefix("25").filter(|rest| !rest.is_empty()).unwrap_or(zone);
        (!zone.is_empty()).then(|| (format!("{before}[{address}]{after}"), zone.to_owned()))
    });
    match found {
        Some((text, zone)) => (text, Some(zone)),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        Target::parse(text, Trust::System).unwrap()
    }

    #[test]
    fn addresses_are_read_and_shown_without_secrets() {
        let name = |text| Target::parse(text, Trust::System).map(|t| t.name()).map_err(|e| e.to_string());
        assert_eq!(name("localhost:8443").unwrap(), "wss://localhost:8443");
        assert_eq!(name("ws://u:p@127.0.0.1:1/x?token=t").unwrap(), "ws://127.0.0.1:1/x");
        assert!(name("http://example.org").unwrap_err().contains("wss://"));
        assert!(name("wss://").is_err());
        let url = |text| target(text).endpoint().url.to_string();
        assert_eq!(url("ssp+https://a"), "wss://a/socket.io/?EIO=4&transport=websocket");
        assert_eq!(url("ssp+http://a:1/x/?k=v"), "ws://a:1/x/?k=v&EIO=4&transport=websocket");
        assert_eq!(url("ssp+ws://a:1/x"), "ws://a:1/x");
        assert_eq!(url("wss://a/b?c=d"), "wss://a/b?c=d&roomtone=1");
        let beside = |text| target(text).beside("x").to_string();
        assert_eq!(beside("wss://a:1/b/c?d=e"), "https://a:1/b/x");
        assert_eq!((beside("ws://a/b/"), beside("ws://a")), ("http://a/b/x".into(), "http://a/x".into()));
    }

    #[test]
    fn a_client_certificate_is_for_its_host() {
        let own = ClientCertificate { cert: "cert".into(), key: "key".into() };
        let target = target("wss://example.org:8443/rooms").client_certificate(Some(own));
        let at = |url: &str| target.at(&Url::parse(url).unwrap()).own.is_some();
        assert!(at("https://example.org:8443/x") && at("https://example.org/x"));
        assert!(!at("https://example.net:8443/x") && !at("https://192.0.2.1/x"));
    }

    #[test]
    fn a_link_local_address_has_its_interface() {
        for text in ["wss://[fe80::1%eth0]:8443/x", "wss://[fe80::1%25eth0]:8443/x"] {
            let target = target(text);
            assert_eq!((target.zone(), target.lacks_zone()), (Some("eth0"), false));
            assert_eq!(target.name(), "wss://[fe80::1%eth0]:8443/x");
            assert_eq!(
                target.endpoint().url.as_str(),
                "wss://[fe80::1]:8443/x?roomtone=1",
                "no Host has a zone"
            );
        }
        let bare = target("fe80::1%eth0");
        assert_eq!((bare.name(), bare.zone()), ("wss://[fe80::1%eth0]".to_owned(), Some("eth0")));
        assert_eq!(target("[fe80::1%25]:1").zone(), Some("25"), "a number");
        assert_eq!(target("ssp+wss://[fe80::1%2]/ssp").name(), "wss://[fe80::1%2]/ssp");
        assert!(target("[fe80::1]:1").lacks_zone() && !target("::1").lacks_zone());
        assert_eq!(target("ws://example.org/a%20b").zone(), None);
        assert!(Target::parse("ws://[fe80::1%]", Trust::System).is_err());
    }
}
