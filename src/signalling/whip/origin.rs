//! Rules for the origins (RFC 6454) that an endpoint names in redirects and in `Location`: the origins that get the token,
//! and those that are asked at all. A public server could otherwise send requests into the user's network.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::net::IpAddr;

use url::{Host, Url};

use crate::base::net::is_protected;
use crate::sdp::reach;

/// Extent of the network that a host is in, widest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Extent {
    /// Any host with a name, and public addresses.
    Public,
    /// Private addresses, such as 10.0.0.0/8.
    Private,
    /// Loopback and link-local addresses, `localhost`, and addresses of no single machine.
    Local,
}

fn extent_of(address: IpAddr) -> Extent {
    match (reach::is_public(address), reach::is_local(address)) {
        (true, _) => Extent::Public,
        (false, false) if !address.is_unspecified() => Extent::Private,
        _ => Extent::Local,
    }
}

fn is_localhost(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    name == "localhost" || name.ends_with(".localhost")
}

fn extent(url: &Url) -> Extent {
    match url.host() {
        Some(Host::Ipv4(ip)) => extent_of(ip.into()),
        Some(Host::Ipv6(ip)) => extent_of(ip.into()),
        Some(Host::Domain(name)) if is_localhost(name) => Extent::Local,
        Some(Host::Domain(_)) | None => Extent::Public,
    }
}

/// Returns whether a request may go to a URL that the endpoint names: the URL's host is in no narrower network than the
/// endpoint, which is at the address `server` if that is known. Names are not looked up.
pub(super) fn permits(endpoint: &Url, server: Option<IpAddr>, named: &Url) -> bool {
    let own = server.map_or(Extent::Public, extent_of).max(extent(endpoint));
    named.host() == endpoint.host() || extent(named) <= own
}

/// Returns whether a request to `url` has the token for `endpoint`: at the same origin, and where `https` takes the place
/// of `http` at the same host and port, or at the default ports of both.
pub(super) fn gets_token(endpoint: &Url, url: &Url) -> bool {
    let is_same_place = endpoint.host() == url.host() && endpoint.port() == url.port();
    url.origin() == endpoint.origin()
        || endpoint.scheme() == "http" && url.scheme() == "https" && is_same_place
}

/// Returns whether others on the path to an endpoint can read a token: over `http` beyond this machine.
pub(super) fn is_readable(endpoint: &Url) -> bool {
    !is_protected(endpoint) && !endpoint.domain().is_some_and(is_localhost)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_server_names_no_host_of_a_narrower_network() {
        let permits = |endpoint: &str, server: Option<&str>, named: &str| {
            permits(&url(endpoint), server.map(|text| text.parse().unwrap()), &url(named))
        };
        let locals = [
            "http://127.0.0.1:80",
            "http://localhost/",
            "http://a.localhost.",
            "http://[::1]",
            "http://0.0.0.0",
        ];
        let locals =
            [&locals[..], &["http://169.254.1.1", "http://[fe80::1]", "http://[::ffff:127.0.0.1]"]].concat();
        let privates =
            ["http://10.0.0.1", "http://192.168.1.1", "http://[fd12::1]", "http://169.254.169.254"];
        let publics = ["http://8.8.8.8", "http://example.net:1", "http://[2606:4700::1]"];
        for (endpoint, server, may) in [
            ("https://example.org", None, [true, false, false]),
            ("https://8.8.8.8", Some("8.8.8.8"), [true, false, false]),
            ("http://192.168.7.7", None, [true, true, false]),
            ("http://media.lan", Some("192.168.7.7"), [true, true, false]),
            ("http://127.0.0.1:8889", None, [true, true, true]),
            ("http://localhost:8889", None, [true, true, true]),
        ] {
            for (named, may) in [&publics[..], &privates, &locals].into_iter().zip(may) {
                for named in named {
                    assert_eq!(permits(endpoint, server, named), may, "{endpoint} {server:?} {named}");
                }
            }
        }
        assert!(permits("http://[fe80::1]:1", None, "http://[fe80::1]:2/session"));
    }

    #[test]
    fn a_token_is_for_the_origin_and_for_its_https() {
        let gets = |endpoint: &str, other: &str| gets_token(&url(endpoint), &url(other));
        assert!(gets("https://a/x", "https://a:443/y") && gets("http://a", "https://a/x"));
        assert!(gets("http://a:8080", "https://a:8080"));
        for (endpoint, other) in [
            ("https://a", "http://a"),
            ("http://a", "https://b"),
            ("http://a", "https://a:8443"),
            ("http://a:8080", "https://a"),
            ("https://a", "https://a:8443"),
            ("https://a", "https://b.a"),
        ] {
            assert!(!gets(endpoint, other), "{endpoint} {other}");
        }
    }

    #[test]
    fn a_token_over_http_is_readable_beyond_this_machine() {
        for hidden in
            ["https://a", "http://127.0.0.1:1", "http://[::1]", "http://localhost", "http://x.localhost"]
        {
            assert!(!is_readable(&url(hidden)), "{hidden}");
        }
        for readable in ["http://a", "http://10.0.0.1", "http://localhost.example.org"] {
            assert!(is_readable(&url(readable)), "{readable}");
        }
    }
}
