//! The proxies in front of the server, whose words about the addresses of clients are believed.

use std::net::IpAddr;

use hyper::header::{HeaderMap, HeaderName};

use crate::base::net::{Network, is_this_machine};

/// The header in which each proxy appends the address that it received a request from.
const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The most addresses that are read from the header.
const MOST: usize = 32;

/// The addresses of trusted proxies.
#[derive(Debug, Clone, Default)]
pub(super) struct Trusted(Vec<Network>);

/// The reason why a trusted proxy's word about a client is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Distrust {
    #[error(
        "X-Forwarded-For is malformed: the proxy in front of this server has to append the client's address"
    )]
    Malformed,
    #[error("X-Forwarded-For has more than {MOST} addresses")]
    TooMany,
    #[error("a proxy on another machine named this machine as its client")]
    Loopback,
}

impl Trusted {
    pub(super) fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// Returns whether the connections of this address are those of a trusted proxy.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Returns the address of the client of a connection from `proxy`, for which the proxy names `client`.
    pub(super) fn named(&self, proxy: IpAddr, client: IpAddr) -> Result<IpAddr, Distrust> {
        match is_this_machine(client) && !is_this_machine(proxy) {
            true => Err(Distrust::Loopback),
            false => Ok(client.to_canonical()),
        }
    }

    /// Returns the address of a request's client: the last address in `X-Forwarded-For` that is not a trusted proxy, since
    /// clients can only write addresses before the proxies' own. A request from another address than a trusted proxy's is
    /// that address' own, whatever the header says.
    pub(super) fn client(&self, from: IpAddr, headers: &HeaderMap) -> Result<IpAddr, Distrust> {
        if self.0.is_empty() || !self.contains(from) {
            return Ok(from);
        }
        let mut client = from;
        let mut seen = 0;
        for value in headers.get_all(FORWARDED).into_iter().rev() {
            let value = value.to_str().map_err(|_| Distrust::Malformed)?;
            for part in value.rsplit(',') {
                seen += 1;
                if seen > MOST {
                    return Err(Distrust::TooMany);
                }
                let address: IpAddr = part.trim().parse().map_err(|_| Distrust::Malformed)?;
                client = self.named(from, address)?;
                if !self.contains(client) {
                    return Ok(client);
                }
            }
        }
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn client(from: &str, headers: &[&str]) -> Result<String, Distrust> {
        let networks = ["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"].map(|text| text.parse().unwrap());
        let mut map = HeaderMap::new();
        for value in headers {
            map.append(FORWARDED, HeaderValue::from_str(value).unwrap());
        }
        let client = Trusted::new(networks.to_vec()).client(from.parse().unwrap(), &map);
        client.map(|client| client.to_string())
    }

    #[test]
    fn the_last_address_that_is_no_proxy_is_the_client() {
        let ok = |from, headers: &[&str]| client(from, headers).unwrap();
        assert_eq!(ok("127.0.0.1", &["192.0.2.7"]), "192.0.2.7");
        assert_eq!(ok("127.0.0.1", &["192.0.2.7, 10.1.2.3"]), "192.0.2.7");
        assert_eq!(ok("10.0.0.1", &["192.0.2.7", "10.1.2.3 ,2001:db8::5"]), "192.0.2.7");
        assert_eq!(ok("10.0.0.1", &["::ffff:192.0.2.7"]), "192.0.2.7", "a mapped address");
        assert_eq!(ok("10.0.0.1", &["10.9.9.9"]), "10.9.9.9", "all of them are proxies");
        assert_eq!(ok("10.0.0.1", &[]), "10.0.0.1", "the proxy itself asks");
    }

    #[test]
    fn addresses_that_a_client_wrote_are_not_believed() {
        let forged = "127.0.0.1, 198.51.100.1, 192.0.2.7";
        assert_eq!(client("10.0.0.1", &[forged]).unwrap(), "192.0.2.7");
        assert_eq!(client("10.0.0.1", &["nonsense", "192.0.2.7"]).unwrap(), "192.0.2.7");
        assert_eq!(client("203.0.113.1", &["198.51.100.1"]).unwrap(), "203.0.113.1", "no proxy of ours");
        assert_eq!(client("203.0.113.1", &["nonsense"]).unwrap(), "203.0.113.1");
    }

    #[test]
    fn what_a_proxy_cannot_have_written_is_refused() {
        for wrong in ["", "unknown", "192.0.2.7:1234", "[2001:db9::1]", "192.0.2.7,", "192.0.2.7, ,10.0.0.1"]
        {
            assert_eq!(client("10.0.0.1", &[wrong]), Err(Distrust::Malformed), "{wrong}");
        }
        assert_eq!(client("10.0.0.1", &["127.0.0.1"]), Err(Distrust::Loopback));
        assert_eq!(client("127.0.0.1", &["127.0.0.1"]).unwrap(), "127.0.0.1");
        let many = vec!["10.0.0.2"; MOST + 1].join(",");
        assert_eq!(client("10.0.0.1", &[&many]), Err(Distrust::TooMany));
    }
}
