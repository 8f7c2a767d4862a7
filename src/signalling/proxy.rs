//! Chooses the HTTP proxy for a server from `https_proxy`, `all_proxy` and `no_proxy`, with curl's rules. The
//! environment comes in as a function.
//!
//! As in curl, servers on this machine are no exception unless `NO_PROXY=localhost,127.0.0.1` names them, and
//! `HTTP_PROXY` in capitals is ignored (a web server sets the variable from a request's `Proxy` header).
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use url::{Host, Url};

use crate::protocol::Secret;

/// The variables that name a proxy, in order of precedence, for `wss://` and for `ws://`.
const FOR_TLS: [&str; 4] = ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
const FOR_PLAIN: [&str; 3] = ["http_proxy", "all_proxy", "ALL_PROXY"];
const EXCEPT: [&str; 2] = ["no_proxy", "NO_PROXY"];

/// The proxy settings of the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// The variable that applies to `wss://` (below: `ws://`), and its value, which may contain a password.
    tls: Option<(&'static str, Secret)>,
    plain: Option<(&'static str, Secret)>,
    /// Hosts that are reached without a proxy, in lower case.
    except: Vec<String>,
}

/// The proxy through which a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// The environment variable that names the proxy.
    pub variable: &'static str,
    /// The proxy's host name or address.
    pub host: String,
    /// The proxy's port.
    pub port: u16,
    /// The connection to the proxy itself uses TLS.
    pub is_tls: bool,
    /// The value of the `Proxy-Authorization` header (RFC 7617).
    pub authorization: Option<Secret>,
}

/// An environment variable whose value is not an HTTP proxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {reason}; an HTTP proxy looks like http://USER:PASSWORD@HOST:PORT")]
pub struct ProxyError {
    /// The name of the environment variable.
    pub variable: &'static str,
    /// The fault of the value; the value itself is omitted because it may contain a password.
    pub reason: String,
}

impl Proxies {
    /// Reads the environment through the function `variable`.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: &[&'static str]| {
            let found = names.iter().find_map(|name| Some((*name, variable(name)?)));
            found.filter(|(_, value)| !value.trim().is_empty())
        };
        let proxy = |names: &[&'static str]| first(names).map(|(name, value)| (name, Secret(value)));
        let except = first(&EXCEPT).map(|(_, value)| value).unwrap_or_default();
        let entries = except.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty());
        Self {
            tls: proxy(&FOR_TLS),
            plain: proxy(&FOR_PLAIN),
            except: entries.map(str::to_lowercase).collect(),
        }
    }

    /// Returns the proxy for a host, if the environment sets one.
    ///
    /// # Errors
    ///
    /// [`ProxyError`] if the value of the variable that applies is not an HTTP proxy.
    pub fn choose(&self, is_tls: bool, host: &Host<&str>) -> Result<Option<Proxy>, ProxyError> {
        let Some((variable, value)) = (if is_tls { &self.tls } else { &self.plain }) else { return Ok(None) };
        if self.except.iter().any(|entry| is_excepted(entry, host)) {
            return Ok(None);
        }
        Proxy::parse(variable, value.0.trim()).map(Some)
    }
}

/// Returns whether an entry of `no_proxy` matches a host: `*`, an address, a network (`10.0.0.0/8`), a domain name, or
/// a parent domain.
fn is_excepted(entry: &str, host: &Host<&str>) -> bool {
    if entry == "*" {
        return true;
    }
    let address: IpAddr = match host {
        Host::Domain(name) => {
            let (name, entry) = (name.trim_end_matches('.').to_lowercase(), entry.trim_end_matches('.'));
            let entry = entry.trim_start_matches('*').trim_start_matches('.');
            let end = name.strip_suffix(entry);
            return !entry.is_empty() && end.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        }
        Host::Ipv4(address) => (*address).into(),
        Host::Ipv6(address) => (*address).into(),
    };
    let entry = entry.trim_start_matches('[').trim_end_matches(']');
    let (network, bits) = match entry.split_once('/') {
        Some((network, bits)) => (network, bits.parse::<u32>().ok()),
        None => (entry, Some(128)),
    };
    let Ok(network) = network.parse::<IpAddr>() else { return false };
    let shared = |a: u128, b: u128, width: u32| {
        bits.is_some_and(|bits| (a ^ b).checked_shr(width.saturating_sub(bits.min(width))).unwrap_or(0) == 0)
    };
    match (network.to_canonical(), address.to_canonical()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => shared(u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => shared(a.into(), b.into(), 128),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

impl Proxy {
    fn parse(variable: &'static str, value: &str) -> Result<Self, ProxyError> {
        let wrong = |reason: &str| ProxyError { variable, reason: reason.to_owned() };
        let full = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
        let url = Url::parse(&full).map_err(|_| wrong("its value is no address"))?;
        let is_tls = match url.scheme() {
            "http" => false,
            "https" => true,
            scheme if scheme.starts_with("socks") => return Err(wrong("SOCKS proxies are not supported")),
            _ => return Err(wrong("its value is no HTTP proxy")),
        };
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| wrong("its value names no host"))?;
        let decoded = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
        let authorization = (!url.username().is_empty() || url.password().is_some()).then(|| {
            let mut both = decoded(url.username());
            both.push(b':');
            both.extend(decoded(url.password().unwrap_or_default()));
            Secret(format!("Basic {}", STANDARD.encode(both)))
        });
        Ok(Self {
            variable,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            // curl defaults to port 1080 for every scheme, which HTTP proxies do not use; the scheme's own port is
            // taken instead.
            port: url.port_or_known_default().unwrap_or(80),
            is_tls,
            authorization,
        })
    }

    /// Returns the proxy's address for people, without user and password.
    pub fn name(&self) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{scheme}://{host}:{} ({})", self.port, self.variable)
    }

    /// Returns the request (RFC 9110, 9.3.6) that opens a tunnel to `authority` (`HOST:PORT`).
    pub fn request(&self, authority: &str) -> String {
        let authorization = self.authorization.as_ref();
        let authorization = authorization.map(|value| format!("Proxy-Authorization: {}\r\n", value.0));
        let authorization = authorization.unwrap_or_default();
        format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{authorization}\r\n")
    }

    /// Parses the head of the proxy's response.
    ///
    /// # Errors
    ///
    /// A text for people that says why the proxy opened no tunnel.
    pub fn answer(&self, head: &str) -> Result<(), String> {
        let (version, status) = head.lines().next().unwrap_or_default().split_once(' ').unwrap_or_default();
        let code = status.get(..3).filter(|_| matches!(version, "HTTP/1.0" | "HTTP/1.1"));
        let code = code.and_then(|code| code.parse::<u16>().ok());
        match code {
            Some(200..300) => Ok(()),
            Some(407) if self.authorization.is_some() => {
                Err(format!("it does not take the user and password in {} (407)", self.variable))
            }
            Some(407) => Err(format!(
                "it wants a user and a password (407): {}=http://USER:PASSWORD@HOST:PORT",
                self.variable
            )),
            Some(_) => Err(format!("it does not connect to the server: {}", status.trim())),
            None => Err("it does not speak HTTP".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Proxies {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name);
        Proxies::read(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    fn chosen(variables: &[(&str, &str)], url: &str) -> Result<Option<Proxy>, ProxyError> {
        let url = Url::parse(url).unwrap();
        proxies(variables).choose(url.scheme() == "wss", &url.host().unwrap())
    }

    #[test]
    fn the_variables_count_in_curls_order() {
        let all = [("ALL_PROXY", "http://d:4"), ("all_proxy", "c:3"), ("HTTPS_PROXY", "http://b:2")];
        let name = |variables: &[(&str, &str)], url: &str| {
            chosen(variables, url).unwrap().map(|proxy| proxy.name()).unwrap_or_default()
        };
        assert_eq!(name(&all, "wss://example.org"), "http://b:2 (HTTPS_PROXY)");
        assert_eq!(name(&all[..2], "wss://example.org"), "http://c:3 (all_proxy)");
        assert_eq!(name(&all[..1], "ws://example.org"), "http://d:4 (ALL_PROXY)");
        assert_eq!(
            name(&[("https_proxy", "https://[::1]"), all[2]], "wss://a"),
            "https://[::1]:443 (https_proxy)"
        );
        assert_eq!(name(&[("HTTP_PROXY", "http://b")], "ws://example.org"), "", "in capitals it is a trap");
        assert_eq!(name(&[("http_proxy", "http://b")], "ws://example.org"), "http://b:80 (http_proxy)");
        assert_eq!(name(&[("https_proxy", ""), all[0]], "wss://a"), "", "set to nothing is no proxy");
    }

    #[test]
    fn hosts_of_no_proxy_are_reached_directly() {
        let is_direct = |except: &str, url: &str| {
            let variables = [("ALL_PROXY", "http://p:1"), ("no_proxy", except)];
            chosen(&variables, url).unwrap().is_none()
        };
        for (except, url) in [
            ("*", "wss://example.org"),
            ("x, Example.org", "wss://www.EXAMPLE.org:8443"),
            (".example.org", "wss://example.org"),
            ("*.example.org", "wss://a.example.org"),
            ("example.org.", "ws://example.org."),
            ("127.0.0.1", "ws://127.0.0.1:8443"),
            ("10.0.0.0/8 ,192.168.0.0/16", "ws://192.168.3.4"),
            ("0.0.0.0/0", "ws://192.168.3.4"),
            ("fe80::/10", "ws://[fe80::1]"),
            ("[::1]", "ws://[::1]"),
            ("::ffff:10.0.0.1", "ws://10.0.0.1"),
        ] {
            assert!(is_direct(except, url), "{except} {url}");
        }
        for (except, url) in [
            ("", "wss://example.org"),
            ("ample.org", "wss://example.org"),
            ("a.example.org", "wss://example.org"),
            (".", "wss://example.org"),
            ("10.0.0.0/8", "ws://11.0.0.1"),
            ("10.0.0.0/x", "ws://10.0.0.0"),
            ("::/0", "ws://10.0.0.0"),
            ("127.0.0.1", "ws://localhost"),
        ] {
            assert!(!is_direct(except, url), "{except} {url}");
        }
    }

    #[test]
    fn a_password_is_decoded_shown_to_the_proxy_and_to_nobody_else() {
        let variables = [("HTTPS_PROXY", "http://ann:p%40ss%3a@proxy.example:3128")];
        let proxy = chosen(&variables, "wss://example.org").unwrap().unwrap();
        // printf ann:p@ss: | base64
        let wanted = "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\
            Proxy-Authorization: Basic YW5uOnBAc3M6\r\n\r\n";
        assert_eq!(proxy.request("example.org:443"), wanted);
        let shown = format!("{proxy:?} {:?} {}", proxies(&variables), proxy.name());
        assert!(!shown.contains("p%40") && !shown.contains("YW5u") && !shown.contains("p@ss"), "{shown}");
        assert!(
            proxy
                .answer("HTTP/1.1 407 Proxy Authentication Required\r\n")
                .unwrap_err()
                .contains("HTTPS_PROXY")
        );
    }

    #[test]
    fn the_error_for_another_kind_of_proxy_names_the_variable() {
        let error = |value| chosen(&[("ALL_PROXY", value)], "wss://a").unwrap_err().to_string();
        assert!(
            error("socks5://secret@h:1").starts_with("ALL_PROXY: SOCKS"),
            "{}",
            error("socks5://secret@h:1")
        );
        assert!(!error("socks5://secret@h:1").contains("secret"));
        assert!(error("http://").contains("http://USER:PASSWORD@HOST:PORT"));
        let proxy = chosen(&[("ALL_PROXY", "p:1")], "wss://a").unwrap().unwrap();
        assert_eq!(proxy.answer("HTTP/1.0 200 Connection established\r\n"), Ok(()));
        assert!(proxy.answer("HTTP/1.1 403 Forbidden").unwrap_err().contains("403 Forbidden"));
        for junk in ["", "SSH-2.0", "HTTP/1.1", "HTTP/1.1 2", "HTTP/1.1 x00", "HTTP/1.ä200"] {
            assert!(proxy.answer(junk).unwrap_err().contains("does not speak HTTP"), "{junk}");
        }
    }
}
