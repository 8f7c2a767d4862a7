//! URLs of a server's page.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Event;
use crate::base::net::is_this_machine;
use crate::server::{Server, tls};

/// Returns the URLs of a server's page as events: for this machine without TLS, for others with TLS. The query selects
/// what the page does: `?call=ID`, `?room=NAME`, or nothing.
pub fn page_urls(server: &Server, plain: bool, query: &str) -> Vec<Event> {
    let address = server.address();
    let is_for_this_machine = |ip: IpAddr| ip.is_unspecified() || is_this_machine(ip);
    let mut urls = Vec::new();
    if is_for_this_machine(address.ip()) || plain {
        let ip = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
        let url = format!("http://{}/{query}", SocketAddr::new(ip, address.port()));
        urls.push(Event::Listening { url, fingerprint: None });
    }
    if let Some(fingerprint) = server.fingerprint() {
        let ips = if address.ip().is_unspecified() { tls::addresses() } else { vec![address.ip()] };
        let reachable = |ip: &IpAddr| address.is_ipv6() || ip.is_ipv4();
        urls.extend(ips.into_iter().filter(reachable).map(|ip| Event::Listening {
            url: format!("https://{}/{query}", SocketAddr::new(ip, address.port())),
            fingerprint: Some(fingerprint.to_owned()),
        }));
    }
    urls
}
