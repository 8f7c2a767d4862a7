//! The zone of a link-local address (RFC 4007): a network interface of this machine.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};

/// Returns the index of a network interface, the zone of a link-local address (RFC 4007, section 11), given by name or
/// number. The error lists the interfaces of this machine.
pub fn interface(zone: &str) -> io::Result<u32> {
    if let Ok(number) = zone.parse() {
        return Ok(number);
    }
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    rustix::net::netdevice::name_to_index(socket, zone).map_err(|_| {
        let all = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
        let mut names: Vec<_> = all.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        io::Error::other(format!("there is no network interface '{zone}'; there are: {}", names.join(", ")))
    })
}

/// Reads an address and a port of IPv6 with the name of an interface, as in `[fe80::1%eth0]:8443`.
pub fn socket_address(text: &str) -> Option<io::Result<SocketAddr>> {
    let (address, rest) = text.strip_prefix('[')?.split_once('%')?;
    let (zone, port) = rest.split_once("]:")?;
    let (address, port) = (address.parse().ok()?, port.parse().ok()?);
    Some(interface(zone).map(|zone| SocketAddrV6::new(address, port, 0, zone).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_known_by_name_and_number_with_or_without_an_address() {
        let zone = |text| socket_address(text).map(|address| address.map_err(|error| error.to_string()));
        let at = |zone| Some(Ok(SocketAddrV6::new("fe80::1".parse().unwrap(), 8443, 0, zone).into()));
        assert_eq!(zone("[fe80::1%lo]:8443"), at(interface("lo").unwrap()));
        assert_eq!(zone("[fe80::1%25]:8443"), at(25));
        let error = zone("[fe80::1%eht0]:8443").unwrap().unwrap_err();
        assert!(
            error.starts_with("there is no network interface 'eht0'; there are: ") && error.contains("lo"),
            "{error}"
        );
        for text in ["[fe80::1]:8443", "fe80::1%lo", "[fe80::1%lo]", "[fe80::x%lo]:1", "[fe80::1%lo]:x", ""] {
            assert_eq!(zone(text), None);
        }
    }
}
