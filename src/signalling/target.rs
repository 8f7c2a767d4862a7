//! The server that a client connects to: address, protocol, trust and proxy. Pure.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use url::{Host, Url};

use super::error::ConnectError;
use super::proxy::{Proxies, Proxy};
use super::silence::LONGEST_SILENCE;
use crate::protocol::hello::EXTENSION_QUERY;
use crate::protocol::ssp::Version;
use crate::protocol::{Secret, socketio};
use crate::tls::{ClientCertificate, Trust};

/// The protocol of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The HELLO/SESSION/ROOM protocol.
    Hello,
    /// ssp, the protocol of pools, in this version.
    Ssp(Version),
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
    protocol: Protocol,
    /// A query parameter that is appended to the address.
    query: Option<&'static str>,
    /// Messages are wrapped in socket.io packets.
    pub(super) is_socketio: bool,
    token: Option<Secret>,
    pub(super) silence: Duration,
}

impl Target {
    /// Parses `ws://…` or `wss://…`, optionally prefixed by `ssp+`, or `ssp+http(s)://…` for socket.io; a bare
    /// `host:port` means `wss://`. A link-local address includes its interface: `wss://[fe80::1%eth0]:8443`.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Url`] if the text is not a server's address.
    pub fn parse(text: &str, trust: Trust) -> Result<Self, ConnectError> {
        let wrong = || ConnectError::Url(text.to_owned());
        let (text, zone) = without_zone(text);
        let full = if text.contains("://") { text } else { format!("wss://{text}") };
        let (protocol, full) = match full.strip_prefix("ssp+") {
            Some(rest) => (Protocol::Ssp(Version::Auto), rest),
            None => (Protocol::Hello, full.as_str()),
        };
        let is_socketio = protocol != Protocol::Hello && full.starts_with("http");
        // The transport of socket.io is a WebSocket as well.
        let full = if is_socketio { full.replacen("http", "ws", 1) } else { full.to_owned() };
        let mut url = Url::parse(&full).map_err(|_| wrong())?;
        if !matches!(url.scheme(), "ws" | "wss") || url.host().is_none() {
            return Err(wrong());
        }
        url.set_fragment(None);
        if is_socketio {
            if url.path() == "/" {
                url.set_path(&format!("{}/", socketio::PATH));
            }
            url.query_pairs_mut().append_pair("EIO", "4").append_pair("transport", "websocket");
        }
        let query = (protocol == Protocol::Hello).then_some(EXTENSION_QUERY);
        let (own, proxies, token) = (None, Proxies::default(), None);
        Ok(Self {
            url,
            zone,
            trust,
            own,
            proxies,
            protocol,
            query,
            is_socketio,
            token,
            silence: LONGEST_SILENCE,
        })
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
        if let Protocol::Ssp(speaks) = &mut self.protocol {
            *speaks = version;
        }
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

    /// Returns the protocol of the server.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Sets whether the client asks for roomtone's protocol additions.
    pub fn extended(mut self, extended: bool) -> Self {
        self.query = extended.then_some(EXTENSION_QUERY);
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

    /// Returns advice for people if the server speaks another protocol at this path.
    pub fn suggestion(&self) -> String {
        let name = self.name();
        match self.protocol {
            Protocol::Hello if self.url.path().trim_end_matches('/').ends_with("/ssp") => {
                format!("the URL of this server's pools is ssp+{name}")
            }
            Protocol::Hello => format!("the URL of a server of pools is ssp+{name}"),
            Protocol::Ssp(_) if self.is_socketio => "is it a server of pools behind socket.io?".to_owned(),
            Protocol::Ssp(_) if self.url.path() == "/" => format!(
                "the URL of a roomtone server's pools is ssp+{name}/ssp, and of a server of rooms {name}"
            ),
            Protocol::Ssp(_) => format!("the URL of a server of rooms is {name}"),
        }
    }

    /// Returns the HTTP URL of the file `name` in the folder of the server's address (RFC 3986, 5.2), which a proxy in
    /// front of the server may have put below a base path. The URL has no query.
    pub fn beside(&self, name: &str) -> Url {
        let mut url = self.url.join(name).unwrap_or_else(|_| self.url.clone());
        url.set_query(None);
        let _ = url.set_scheme(if self.is_tls() { "https" } else { "http" });
        url
    }

    /// Returns the target of a request to another URL, with the same settings.
    pub(super) fn at(&self, url: &Url) -> Self {
        Self { url: url.clone(), ..self.clone() }
    }

    /// Returns the token that the client sends to the server.
    pub(super) fn shown_token(&self) -> Option<&Secret> {
        self.token.as_ref()
    }

    /// Returns the request URL, including its secret parts.
    pub(super) fn request_url(&self) -> String {
        let mut url = self.url.clone();
        if let Some(token) = &self.token {
            url.query_pairs_mut().append_pair("token", &token.0);
        }
        let Some(wanted) = self.query else { return url.to_string() };
        let query = match url.query() {
            Some(query) if !query.is_empty() => format!("{query}&{wanted}"),
            _ => wanted.to_owned(),
        };
        url.set_query(Some(&query));
        url.to_string()
    }
}

/// Splits the zone (RFC 6874, or the common unescaped form) from an address, since [`Url`] rejects zones. Adds the
/// brackets to a bare IPv6 address.
fn without_zone(text: &str) -> (String, Option<String>) {
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
        let url = |text| target(text).request_url();
        assert_eq!(url("ssp+https://a"), "wss://a/socket.io/?EIO=4&transport=websocket");
        assert_eq!(url("ssp+http://a:1/x/?k=v"), "ws://a:1/x/?k=v&EIO=4&transport=websocket");
        assert_eq!(url("ssp+ws://a:1/x"), "ws://a:1/x");
        assert_eq!(url("wss://a/b?c=d"), "wss://a/b?c=d&roomtone=1");
        let beside = |text| target(text).beside("x").to_string();
        assert_eq!(beside("wss://a:1/b/c?d=e"), "https://a:1/b/x");
        assert_eq!((beside("ws://a/b/"), beside("ws://a")), ("http://a/b/x".into(), "http://a/x".into()));
    }

    #[test]
    fn a_link_local_address_has_its_interface() {
        for text in ["wss://[fe80::1%eth0]:8443/x", "wss://[fe80::1%25eth0]:8443/x"] {
            let target = target(text);
            assert_eq!((target.zone(), target.lacks_zone()), (Some("eth0"), false));
            assert_eq!(target.name(), "wss://[fe80::1%eth0]:8443/x");
            assert_eq!(target.request_url(), "wss://[fe80::1]:8443/x?roomtone=1", "no Host has a zone");
        }
        let bare = target("fe80::1%eth0");
        assert_eq!((bare.name(), bare.zone()), ("wss://[fe80::1%eth0]".to_owned(), Some("eth0")));
        assert_eq!(target("[fe80::1%25]:1").zone(), Some("25"), "a number");
        assert_eq!(target("ssp+wss://[fe80::1%2]/ssp").name(), "wss://[fe80::1%2]/ssp");
        assert!(target("[fe80::1]:1").lacks_zone() && !target("::1").lacks_zone());
        assert_eq!(target("ws://example.org/a%20b").zone(), None);
        assert!(Target::parse("ws://[fe80::1%]", Trust::System).is_err());
    }

    #[test]
    fn the_likely_address_is_suggested() {
        assert!(target("ssp+ws://h:1").suggestion().contains("is ssp+ws://h:1/ssp,"));
        assert!(target("ws://h:1/ssp").suggestion().ends_with("is ssp+ws://h:1/ssp"));
        assert!(target("ssp+ws://h:1/x").suggestion().ends_with("is ws://h:1/x"));
    }
}
