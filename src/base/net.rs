//! Rules for addresses: whether an address is this machine, and which addresses belong to the same owner.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use url::{Host, Position, Url};

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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

/// A range of addresses: `10.0.0.0/8`, or a single address. A range contains addresses of its own family only, and an
/// IPv4-mapped address counts as IPv4, in the range's text and as a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// First address of the range, IPv4 in its mapped form.
    first: u128,
    mask: u128,
}

/// The text of a [`Network`] is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an address or a network is wanted, as in 127.0.0.1, 10.0.0.0/8 or 2001:db8::/32, without bits beyond the prefix"
)]
pub struct NetworkError;

impl Network {
    /// Returns whether the range contains an address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = mapped(address);
        is_ipv4(address) == is_ipv4(self.first) && address & self.mask == self.first
    }
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        Self { first: mapped(address), mask: u128::MAX }
    }
}

/// Returns whether a number is an IPv4 address in its mapped form.
fn is_ipv4(address: u128) -> bool {
    Ipv6Addr::from(address).to_ipv4_mapped().is_some()
}

/// Returns the address as a number; IPv4 addresses in their mapped form.
fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().into(),
        IpAddr::V6(address) => address.into(),
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// Bits of the address beyond the prefix have to be zero: they suggest that another prefix was meant.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let all: u32 = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => all,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().ok().filter(|bits| *bits <= all).ok_or(NetworkError)?
            }
            Some(_) => return Err(NetworkError),
        };
        let mask = u128::MAX.checked_shl(all - bits).unwrap_or(0);
        let first = mapped(address);
        match first & !mask {
            0 => Ok(Self { first, mask }),
            _ => Err(NetworkError),
        }
    }
}

/// Returns whether nobody on the way can replace what a URL answers: over `https`, or over `http` on this machine.
pub fn is_protected(url: &Url) -> bool {
    let is_here = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(_)) | None => false,
    };
    url.scheme() == "https" || (url.scheme() == "http" && is_here)
}

/// Returns a URL for people, without user, password, query and fragment, which may be secrets.
pub fn without_secrets(url: &Url) -> String {
    [&url[..Position::BeforeUsername], &url[Position::BeforeHost..Position::AfterPath]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_the_addresses_of_its_prefix() {
        let holds = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("192.0.2.7", "192.0.2.7") && !holds("192.0.2.7", "192.0.2.8"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.1.1") && !holds("10.0.0.0/8", "::a01:101"));
        assert!(holds("0.0.0.0/0", "203.0.113.1") && !holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1") && !holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("::/0", "2001:db8::1") && holds("::1", "::1"));
        // Each family has ranges of its own, and a mapped address is IPv4.
        assert!(!holds("::/0", "203.0.113.1") && !holds("::/0", "::ffff:203.0.113.1"));
        assert!(holds("::ffff:10.0.0.0/104", "10.1.1.1") && !holds("::ffff:10.0.0.0/104", "11.0.0.1"));
        let one = Network::from("::ffff:192.0.2.7".parse::<IpAddr>().unwrap());
        assert_eq!(Ok(one), "192.0.2.7".parse());
        let wrong = [
            "",
            "10",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.1/8",
            "::1/0",
            "2001:db8::/129",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0/8",
            "::ffff:0:0/90",
            "a/8",
            "/8",
        ];
        for wrong in wrong {
            assert_eq!(wrong.parse::<Network>(), Err(NetworkError), "{wrong}");
        }
    }

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

    #[test]
    fn a_url_is_shown_without_its_secrets() {
        let url = Url::parse("https://user:password@host:8443/hook?key=secret#part").unwrap();
        assert_eq!(without_secrets(&url), "https://host:8443/hook");
    }
}
