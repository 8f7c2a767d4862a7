//! Rules for addresses: whether an address is this machine, and which addresses belong to the same owner.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The network part of an IPv6 address: the upper 64 bits, since a customer usually gets a whole /64 (RFC 6177).
const NETWORK: u128 = !0 << 64;

/// Converts an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2) to IPv4: a socket bound to `[::]` reports IPv4 clients in
/// the mapped form.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Returns whether an address is loopback (127.0.0.0/8 or ::1), IPv4-mapped or not.
pub fn is_this_machine(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// The owner of an address, to which all per-address limits apply: a single IPv4 address, or an IPv6 /64 network.
/// IPv4-mapped addresses belong to the owner of the IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(pub u128);

impl From<IpAddr> for Owner {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            // A mapped address differs from every /64 network in its lower 64 bits.
            IpAddr::V4(address) => address.to_ipv6_mapped().into(),
            IpAddr::V6(address) => u128::from(address) & NETWORK,
        })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = Ipv6Addr::from(self.0);
        match address.to_ipv4_mapped() {
            Some(address) => address.fmt(f),
            None => write!(f, "{address}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(text: &str) -> Owner {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn an_owner_is_an_ipv4_address_or_an_ipv6_network() {
        assert_eq!(owner("203.0.113.7"), owner("::ffff:203.0.113.7"));
        assert_ne!(owner("203.0.113.7"), owner("203.0.113.8"));
        assert_eq!(owner("2001:db8:1:2::1"), owner("2001:db8:1:2:ffff::9"));
        assert_ne!(owner("2001:db8:1:2::1"), owner("2001:db8:1:3::1"));
        assert_ne!(owner("::1"), owner("127.0.0.1"));
        assert_ne!(owner("0.0.0.0"), owner("::"));
        assert_eq!(owner("::ffff:203.0.113.7").to_string(), "203.0.113.7");
        assert_eq!(owner("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
    }

    #[test]
    fn this_machine_is_loopback_in_any_form() {
        let here = |text: &str| is_this_machine(text.parse().unwrap());
        assert!(here("127.0.0.1") && here("127.8.9.1") && here("::1") && here("::ffff:127.0.0.1"));
        assert!(!here("192.0.2.1") && !here("::ffff:192.0.2.1") && !here("::") && !here("fe80::1"));
        let mapped: SocketAddr = "[::ffff:127.0.0.1]:80".parse().unwrap();
        assert_eq!(canonical(mapped), "127.0.0.1:80".parse().unwrap());
    }
}
