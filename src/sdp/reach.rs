//! Rule for the addresses to which our side sends packets: those of a peer's candidates, and those of STUN and TURN
//! servers that a signalling server names. A peer or a server could otherwise make our side send packets, over UDP or
//! TCP, to hosts that only this machine can reach.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::candidate::{CandidateLine, LEAST_PORT};
use crate::base::net::Network;

/// Ports below [`LEAST_PORT`] that are allowed at public addresses: TURN servers and media servers use them.
pub const WEB_PORTS: [u16; 2] = [80, 443];

/// Addresses of metadata services of clouds, which give a machine its credentials.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Reason why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The address belongs to no single machine: unspecified, multicast or broadcast.
    Nobody,
    /// The address is a cloud's metadata service.
    Metadata,
    /// The address is loopback or link-local, and the signalling server is neither on this machine nor on this link.
    Local,
    /// The port is below [`LEAST_PORT`], and not one of [`WEB_PORTS`] at a public address.
    Port,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "no machine's address",
            Self::Metadata => "an address of cloud metadata",
            Self::Local => "a loopback or link-local address, and the server is on another machine",
            Self::Port => "a port below 1024",
        })
    }
}

/// Class of an address, without regard to the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Nobody,
    Metadata,
    Local,
    Private,
    Public,
}

/// Addresses to which our side may send packets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reach {
    /// Whether the signalling server is on this machine or on this link: peers may then be there, too.
    pub local: bool,
    /// Networks that the user allows in addition, with all ports.
    pub allowed: Vec<Network>,
}

impl Reach {
    /// Returns why a candidate is refused; `None` if it is accepted.
    pub fn refuses(&self, candidate: &CandidateLine) -> Option<Refused> {
        // Our side sends nothing to the port of an active candidate (RFC 6544): the peer opens the connection.
        self.check(candidate.address, Some(candidate.port).filter(|_| !candidate.is_active))
    }

    /// Returns why a STUN or TURN server that the signalling server names is refused; `None` if it is accepted.
    pub fn refuses_server(&self, at: SocketAddr) -> Option<Refused> {
        self.check(at.ip(), Some(at.port()))
    }

    fn check(&self, address: IpAddr, port: Option<u16>) -> Option<Refused> {
        let forms = forms(address);
        if forms.iter().any(|form| self.allowed.iter().any(|network| network.contains(*form))) {
            return None;
        }
        let refused = |form: &IpAddr| match class(*form) {
            Class::Nobody => Some(Refused::Nobody),
            Class::Metadata => Some(Refused::Metadata),
            Class::Local if !self.local => Some(Refused::Local),
            _ if port.is_none_or(|port| port >= LEAST_PORT) => None,
            Class::Public if port.is_some_and(|port| WEB_PORTS.contains(&port)) => None,
            Class::Local | Class::Private | Class::Public => Some(Refused::Port),
        };
        forms.iter().find_map(refused)
    }
}

/// Returns whether an address is loopback or link-local.
pub fn is_local(address: IpAddr) -> bool {
    forms(address).iter().any(|form| class(*form) == Class::Local)
}

/// Returns whether an address belongs to a machine of the public internet.
pub fn is_public(address: IpAddr) -> bool {
    forms(address).iter().all(|form| class(*form) == Class::Public)
}

/// Returns `address` and the IPv4 addresses embedded in it: a translator or tunnel may deliver a packet for `address`
/// to one of these.
fn forms(address: IpAddr) -> Vec<IpAddr> {
    let mut forms = vec![address];
    let IpAddr::V6(v6) = address else { return forms };
    let words = v6.segments();
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    let last = v4(words[6], words[7]);
    match words {
        // The unspecified and the loopback address embed nothing.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => {}
        // IPv4-compatible and IPv4-mapped (RFC 4291, 2.5.5), translated (RFC 2765), NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => {
            forms.push(last)
        }
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => forms.push(last),
        // NAT64 with a local prefix (RFC 8215): the IPv4 address is at the end, or on both sides of bits 64 to 71.
        [0x64, 0xff9b, 1, high, low, rest, ..] => {
            let either = [last, v4(high, (low << 8) | (rest >> 8))];
            forms.extend(either.into_iter().filter(|form| !form.is_unspecified()));
        }
        // 6to4 (RFC 3056) and Teredo (RFC 4380).
        [0x2002, high, low, ..] => forms.push(v4(high, low)),
        [0x2001, 0, high, low, ..] => forms.extend([v4(high, low), v4(!words[6], !words[7])]),
        // ISATAP (RFC 5214).
        [.., 0 | 0x200, 0x5efe, _, _] => forms.push(last),
        _ => {}
    }
    forms
}

fn class(address: IpAddr) -> Class {
    if METADATA.contains(&address) {
        return Class::Metadata;
    }
    match address {
        IpAddr::V4(v4) => match v4.octets() {
            [0 | 224..=239, ..] | [255, 255, 255, 255] => Class::Nobody,
            [127, ..] | [169, 254, ..] => Class::Local,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Class::Private,
            // Addresses for protocol assignments, for benchmarks, and reserved ones.
            [192, 0, 0, _] | [198, 18 | 19, ..] | [240..=255, ..] => Class::Private,
            _ => Class::Public,
        },
        IpAddr::V6(v6) => match v6.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] | [0xff00..=0xffff, ..] => Class::Nobody,
            [0, 0, 0, 0, 0, 0, 0, 1] | [0xfe80..=0xfebf, ..] => Class::Local,
            [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Class::Private,
            _ => Class::Public,
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(address: &str, port: u16, more: &str) -> CandidateLine {
        let transport = if more.is_empty() { "udp" } else { "tcp" };
        CandidateLine::parse(&format!("candidate:1 1 {transport} 1 {address} {port} typ host {more}"))
            .unwrap()
    }

    fn reach(local: bool, allowed: &[&str]) -> Reach {
        Reach { local, allowed: allowed.iter().map(|text| text.parse().unwrap()).collect() }
    }

    #[test]
    fn addresses_are_refused_by_class_and_port() {
        use Refused::{Local, Metadata, Nobody, Port};
        for (address, port, elsewhere, here) in [
            ("8.8.8.8", 50000, None, None),
            ("8.8.8.8", 1024, None, None),
            ("8.8.8.8", 1023, Some(Port), Some(Port)),
            ("8.8.8.8", 443, None, None),
            ("8.8.8.8", 80, None, None),
            ("8.8.8.8", 22, Some(Port), Some(Port)),
            ("2606:4700::1", 443, None, None),
            ("2606:4700::1", 53, Some(Port), Some(Port)),
            ("10.78.1.2", 50000, None, None),
            ("192.168.1.1", 443, Some(Port), Some(Port)),
            ("172.31.0.1", 80, Some(Port), Some(Port)),
            ("172.32.0.1", 80, None, None),
            ("100.64.0.1", 80, Some(Port), Some(Port)),
            ("fd12::1", 80, Some(Port), Some(Port)),
            ("fd12::1", 8000, None, None),
            ("fec0::1", 80, Some(Port), Some(Port)),
            ("127.0.0.1", 50000, Some(Local), None),
            ("127.0.0.1", 443, Some(Local), Some(Port)),
            ("127.9.9.9", 22, Some(Local), Some(Port)),
            ("::1", 50000, Some(Local), None),
            ("169.254.1.1", 50000, Some(Local), None),
            ("fe80::1", 50000, Some(Local), None),
            ("febf::1", 50000, Some(Local), None),
            ("169.254.169.254", 50000, Some(Metadata), Some(Metadata)),
            ("169.254.169.254", 80, Some(Metadata), Some(Metadata)),
            ("fd00:ec2::254", 50000, Some(Metadata), Some(Metadata)),
            ("168.63.129.16", 80, Some(Metadata), Some(Metadata)),
            ("0.0.0.0", 50000, Some(Nobody), Some(Nobody)),
            ("0.1.2.3", 50000, Some(Nobody), Some(Nobody)),
            ("224.0.0.251", 5353, Some(Nobody), Some(Nobody)),
            ("255.255.255.255", 50000, Some(Nobody), Some(Nobody)),
            ("::", 50000, Some(Nobody), Some(Nobody)),
            ("ff02::fb", 5353, Some(Nobody), Some(Nobody)),
            // IPv6 addresses that embed IPv4 addresses.
            ("::ffff:127.0.0.1", 50000, Some(Local), None),
            ("::ffff:192.168.1.1", 80, Some(Port), Some(Port)),
            ("::ffff:8.8.8.8", 443, None, None),
            ("::127.0.0.1", 50000, Some(Local), None),
            ("::ffff:0:127.0.0.1", 50000, Some(Local), None),
            ("64:ff9b::169.254.169.254", 50000, Some(Metadata), Some(Metadata)),
            ("64:ff9b::10.0.0.1", 80, Some(Port), Some(Port)),
            ("64:ff9b::8.8.8.8", 80, None, None),
            ("64:ff9b:1::127.0.0.1", 50000, Some(Local), None),
            ("64:ff9b:1:a9fe:00a9:fe00::", 50000, Some(Metadata), Some(Metadata)),
            ("2002:7f00:1::1", 50000, Some(Local), None),
            ("2001:0:7f00:1::f7f7:f7f7", 50000, Some(Local), None),
            ("2001:0:808:808:0:0:80ff:fffe", 50000, Some(Local), None),
            ("2600::5efe:127.0.0.1", 50000, Some(Local), None),
        ] {
            let line = candidate(address, port, "");
            assert_eq!(reach(false, &[]).refuses(&line), elsewhere, "{address} {port}, the server elsewhere");
            assert_eq!(reach(true, &[]).refuses(&line), here, "{address} {port}, the server here");
            assert_eq!(
                reach(false, &["0.0.0.0/0", "::/0"]).refuses(&line),
                None,
                "{address} {port}, allowed"
            );
            let line = candidate(address, port, "tcptype passive");
            assert_eq!(reach(false, &[]).refuses(&line), elsewhere, "{address} {port} over TCP");
        }
    }

    #[test]
    fn an_active_tcp_candidate_may_have_any_port() {
        let active = |more: &str| reach(false, &[]).refuses(&candidate("192.168.1.1", 9, more));
        assert_eq!(active("tcptype active"), None);
        for not_active in ["tcptype passive", "tcptype so", "generation 0", "tcptype active tcptype passive"]
        {
            assert_eq!(active(not_active), Some(Refused::Port), "{not_active}");
        }
        let udp = "candidate:1 1 udp 1 192.168.1.1 9 typ host tcptype active";
        assert_eq!(reach(false, &[]).refuses(&CandidateLine::parse(udp).unwrap()), Some(Refused::Port));
    }

    #[test]
    fn networks_that_the_user_allows_are_accepted() {
        let refuses =
            |allowed: &[&str], address: &str| reach(false, allowed).refuses(&candidate(address, 22, ""));
        assert_eq!(refuses(&["192.168.7.0/24"], "192.168.7.9"), None);
        assert_eq!(refuses(&["192.168.7.0/24"], "::ffff:192.168.7.9"), None);
        assert_eq!(refuses(&["192.168.7.0/24"], "192.168.8.9"), Some(Refused::Port));
        assert_eq!(refuses(&["10.1.2.3", "fd00::/8"], "fd77::1"), None);
        assert_eq!(refuses(&["10.1.2.3"], "10.1.2.3"), None);
        assert_eq!(refuses(&["10.1.2.3"], "10.1.2.4"), Some(Refused::Port));
    }

    #[test]
    fn an_address_is_local_in_any_form() {
        for local in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "fe80::1", "169.254.3.4"] {
            assert!(is_local(local.parse().unwrap()), "{local}");
        }
        for other in ["10.0.0.1", "8.8.8.8", "::", "fd00::1", "2606:4700::1"] {
            assert!(!is_local(other.parse().unwrap()), "{other}");
        }
    }

    /// Returns IPv6 addresses that embed an IPv4 address.
    fn embeddings(v4: Ipv4Addr) -> Vec<IpAddr> {
        let [a, b, c, d] = v4.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let v6 = |words: [u16; 8]| IpAddr::from(words);
        vec![
            v6([0, 0, 0, 0, 0, 0xffff, high, low]),
            v6([0, 0, 0, 0, 0xffff, 0, high, low]),
            v6([0x64, 0xff9b, 0, 0, 0, 0, high, low]),
            v6([0x64, 0xff9b, 1, 0, 0, 0, high, low]),
            v6([0x2002, high, low, 0, 0, 0, 0, 1]),
        ]
    }

    proptest! {
        /// Tests that an address is refused in every IPv6 form if it is refused in IPv4.
        #[test]
        fn no_ipv6_form_of_a_refused_address_is_accepted(bits in any::<u32>(), port in any::<u16>(), local in any::<bool>()) {
            let v4 = Ipv4Addr::from_bits(bits);
            let refuses = |address: IpAddr| reach(local, &[]).refuses(&candidate(&address.to_string(), port, ""));
            let own = refuses(IpAddr::V4(v4));
            for form in embeddings(v4) {
                prop_assert!(own.is_none() || refuses(form).is_some(), "{v4} as {form}, port {port}");
            }
        }

        /// Compares with the classification of the standard library.
        #[test]
        fn every_accepted_address_obeys_the_rule(
            bits in prop_oneof![any::<u128>(), any::<u32>().prop_map(|v4| 0xffff_0000_0000 | u128::from(v4))],
            port in any::<u16>(),
        ) {
            let address = IpAddr::from(Ipv6Addr::from_bits(bits)).to_canonical();
            if reach(false, &[]).refuses(&candidate(&address.to_string(), port, "")).is_none() {
                prop_assert!(!address.is_unspecified() && !address.is_multicast() && !address.is_loopback());
                prop_assert!(port >= LEAST_PORT || WEB_PORTS.contains(&port));
                let is_private = match address {
                    IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || v4.is_broadcast(),
                    IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
                };
                prop_assert!(!is_private || port >= LEAST_PORT);
            }
        }
    }
}
