//! The host names of this server, as a defence against DNS rebinding: if a foreign name resolves to this machine,
//! browsers treat that page and this server as one origin, and only the `Host` header differs.

use hyper::Request;
use hyper::header::{self, HeaderMap};
use url::Host;

/// The reason why a request's host is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WrongHost {
    /// The number of `Host` headers is not one (RFC 9112, 3.2).
    #[error("a request must have one 'Host' header: this one has {0}")]
    Count(usize),
    #[error("the 'Host' header of this request is not a host name, or differs from the request's address")]
    Malformed,
    #[error(
        "this server does not answer to the name '{0}'. If it is a name of this server (in the DNS, or of a proxy \
         in front of it), add it to the server's setting allow-host"
    )]
    Foreign(String),
}

/// The allowed host names besides IP addresses, `localhost` and the names of the certificate.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<String>);

impl Names {
    /// Parses the host names that the operator allows; the error is the first entry that is not a host name.
    pub(super) fn new(allowed: Vec<String>) -> Result<Self, String> {
        let name = |text: String| match Host::parse(&text) {
            Ok(Host::Domain(name)) if !name.contains('*') => Ok(plain(&name).to_owned()),
            _ => Err(text),
        };
        allowed.into_iter().map(name).collect::<Result<_, _>>().map(Self)
    }

    /// Returns the host of a request if it names this server. `is_certified` returns whether the certificate covers a
    /// name.
    pub(super) fn check<B>(
        &self,
        request: &Request<B>,
        is_certified: impl FnOnce(&str) -> bool,
    ) -> Result<Host, WrongHost> {
        let mut hosts = request.headers().get_all(header::HOST).into_iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(WrongHost::Count(request.headers().get_all(header::HOST).iter().count()));
        };
        let authority = host.to_str().map_err(|_| WrongHost::Malformed)?;
        // An absolute request target (RFC 9112, 3.2.2) takes precedence over the header, so both have to agree.
        let in_address = request.uri().authority();
        if in_address.is_some_and(|address| !address.as_str().eq_ignore_ascii_case(authority)) {
            return Err(WrongHost::Malformed);
        }
        let host = parse(authority).ok_or(WrongHost::Malformed)?;
        let Host::Domain(name) = &host else { return Ok(host) };
        let name = plain(name);
        let is_own = name == "localhost"
            || name.ends_with(".localhost")
            || self.0.iter().any(|own| own == name)
            || is_certified(name);
        if is_own { Ok(host) } else { Err(WrongHost::Foreign(name.to_owned())) }
    }
}

/// Returns the name without a trailing dot (the DNS root).
fn plain(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// Parses `HOST[:PORT]` and returns the host.
fn parse(authority: &str) -> Option<Host> {
    let end = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let (host, port) = match authority[end..].find(':') {
        Some(colon) => (&authority[..end + colon], &authority[end + colon + 1..]),
        None => (authority, ""),
    };
    let is_number =
        port.is_empty() || (port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok());
    Host::parse(host).ok().filter(|_| is_number)
}

/// Returns whether the origin of a request is this server (the host that [`Names::check`] accepted) or an allowed
/// origin; `*` allows all, and requests without `Origin` pass.
pub(super) fn origin_is_allowed(headers: &HeaderMap, allowed: &[String], secure: bool) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    if allowed.iter().any(|allowed| allowed == "*" || allowed.trim_end_matches('/') == origin) {
        return true;
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    match origin.split_once("://") {
        // A proxy in front of the server may add TLS.
        Some(("https", authority)) => host == Some(authority),
        Some(("http", authority)) => !secure && host == Some(authority),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn check(hosts: &[&str], address: &str) -> Result<Host, WrongHost> {
        let names = Names::new(vec!["Call.example.org".into(), "bücher.example.".into()]).unwrap();
        let mut request = Request::builder().uri(address);
        for host in hosts {
            request = request.header("host", *host);
        }
        names.check(&request.body(()).unwrap(), |name| name == "cert.example")
    }

    #[test]
    fn the_own_names_are_addresses_localhost_the_certificates_and_the_allowed_ones() {
        for own in [
            "127.0.0.1",
            "192.0.2.7:8443",
            "[::1]",
            "[2001:db8::1]:8443",
            "localhost",
            "LocalHost:80",
            "localhost.",
            "kiosk.localhost:1",
            "cert.example:8443",
            "call.example.org",
            "CALL.example.org.:443",
            "xn--bcher-kva.example",
            "call.example.org:",
        ] {
            assert!(check(&[own], "/").is_ok(), "{own}: {:?}", check(&[own], "/"));
        }
        for foreign in
            ["evil.example", "localhost.evil.example", "xlocalhost", "call.example.org.evil", "org"]
        {
            assert_eq!(check(&[foreign], "/"), Err(WrongHost::Foreign(foreign.to_owned())), "{foreign}");
        }
        for malformed in
            ["", ":80", "a b", "a:b", "127.0.0.1:99999", "user@localhost", "[::1", "::1", "a/b", "1]2"]
        {
            assert_eq!(check(&[malformed], "/"), Err(WrongHost::Malformed), "{malformed}");
        }
        assert_eq!(check(&[], "/"), Err(WrongHost::Count(0)));
        assert_eq!(check(&["localhost", "localhost"], "/"), Err(WrongHost::Count(2)));
        assert!(check(&["localhost:1"], "http://localhost:1/x").is_ok());
        assert_eq!(check(&["localhost"], "http://evil.example/"), Err(WrongHost::Malformed));
    }

    #[test]
    fn texts_that_are_not_host_names_are_rejected() {
        for wrong in ["", "https://example.org", "example.org:8443", "a b", "127.0.0.1", "*"] {
            assert!(Names::new(vec![wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pages_of_other_origins_are_rejected() {
        let headers = |origin: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("192.0.2.1:8443"));
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            headers
        };
        let none: &[String] = &[];
        assert!(origin_is_allowed(&HeaderMap::new(), none, true), "not a browser");
        assert!(origin_is_allowed(&headers("https://192.0.2.1:8443"), none, true));
        assert!(origin_is_allowed(&headers("http://192.0.2.1:8443"), none, false));
        assert!(!origin_is_allowed(&headers("http://192.0.2.1:8443"), none, true), "another origin");
        assert!(!origin_is_allowed(&headers("https://192.0.2.1"), none, true));
        assert!(!origin_is_allowed(&headers("ftp://192.0.2.1:8443"), none, false));
        assert!(!origin_is_allowed(&headers("https://evil.example"), none, true));
        assert!(!origin_is_allowed(&headers("null"), none, true));
        assert!(origin_is_allowed(
            &headers("https://app.example"),
            &["https://app.example/".to_owned()],
            true
        ));
        assert!(origin_is_allowed(&headers("https://any.example"), &["*".to_owned()], true));
    }
}
