//! The header of the PROXY protocol, versions 1 and 2, with which a proxy names the client of a TCP connection
//! (haproxy.org, proxy-protocol.txt).
//!
//! Pure: no clock, sockets, files or random numbers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::from_utf8;

/// The first bytes of version 1.
const TEXT: &[u8] = b"PROXY ";
/// The first bytes of version 2.
const BINARY: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1, with its end of line.
const MAX_TEXT: usize = 107;
/// The fixed part of version 2: the first bytes, version and command, family, length.
const FIXED: usize = 16;
/// The most bytes of addresses and further fields in version 2: a certificate of the client is the longest of them.
const MAX_FIELDS: usize = 4096;
/// The most bytes of a header.
pub(super) const MAX: usize = FIXED + MAX_FIELDS;

/// The reason why a header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("a line of version 1 is malformed")]
    Text,
    #[error("a header of version 1 is longer than {MAX_TEXT} bytes")]
    TextTooLong,
    #[error("the version or command of a binary header is unknown")]
    Version,
    #[error("a binary header is shorter than its addresses")]
    Short,
    #[error("a binary header has more than {MAX_FIELDS} bytes of fields")]
    TooLong,
}

/// The result of parsing the bytes that arrived so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parsed {
    /// The connection does not begin with a header.
    None,
    /// Bytes are missing: at least so many from the beginning of the header have to arrive.
    Partial(usize),
    /// A header of this length in bytes. The client is unknown if the proxy itself opened the connection, or does not know
    /// the client's address.
    Complete(usize, Option<SocketAddr>),
}

/// Parses the beginning of a connection.
pub(super) fn parse(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    for start in [TEXT, BINARY] {
        if bytes.len() < start.len() && start.starts_with(bytes) {
            return Ok(Parsed::Partial(start.len()));
        }
    }
    match bytes {
        _ if bytes.starts_with(TEXT) => text(bytes),
        _ if bytes.starts_with(BINARY) => binary(bytes),
        _ => Ok(Parsed::None),
    }
}

fn text(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    let limit = bytes.len().min(MAX_TEXT);
    let Some(end) = bytes[..limit].windows(2).position(|two| two == b"\r\n") else {
        return match bytes.len() < MAX_TEXT {
            true => Ok(Parsed::Partial(bytes.len() + 1)),
            false => Err(HeaderError::TextTooLong),
        };
    };
    let line = from_utf8(&bytes[TEXT.len()..end]).map_err(|_| HeaderError::Text)?;
    let parts: Vec<&str> = line.split(' ').collect();
    let client = match parts.as_slice() {
        ["UNKNOWN", ..] => None,
        ["TCP4", from, to, port, to_port] => {
            let (from, _): (Ipv4Addr, Ipv4Addr) = (parsed(from)?, parsed(to)?);
            Some(client(from.into(), port, to_port)?)
        }
        ["TCP6", from, to, port, to_port] => {
            let (from, _): (Ipv6Addr, Ipv6Addr) = (parsed(from)?, parsed(to)?);
            Some(client(from.into(), port, to_port)?)
        }
        _ => return Err(HeaderError::Text),
    };
    Ok(Parsed::Complete(end + 2, client))
}

fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, HeaderError> {
    text.parse().map_err(|_| HeaderError::Text)
}

fn client(address: IpAddr, port: &str, to_port: &str) -> Result<SocketAddr, HeaderError> {
    let _: u16 = parsed(to_port)?;
    Ok(SocketAddr::new(address.to_canonical(), parsed(port)?))
}

fn binary(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    let Some(head) = bytes.get(BINARY.len()..FIXED) else { return Ok(Parsed::Partial(FIXED)) };
    let fields = usize::from(u16::from_be_bytes([head[2], head[3]]));
    if fields > MAX_FIELDS {
        return Err(HeaderError::TooLong);
    }
    let is_local = match head[0] {
        0x20 => true,
        0x21 => false,
        _ => return Err(HeaderError::Version),
    };
    let Some(fields) = bytes.get(FIXED..FIXED + fields) else { return Ok(Parsed::Partial(FIXED + fields)) };
    let port = |at: usize| fields.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
    let client = match head[1] {
        _ if is_local => None,
        // TCP over IPv4: two addresses, two ports.
        0x11 => {
            let address = fields.first_chunk::<4>().ok_or(HeaderError::Short)?;
            let port = port(8).filter(|_| fields.len() >= 12).ok_or(HeaderError::Short)?;
            Some(SocketAddr::new(Ipv4Addr::from(*address).into(), port))
        }
        // TCP over IPv6.
        0x21 => {
            let address = fields.first_chunk::<16>().ok_or(HeaderError::Short)?;
            let port = port(32).filter(|_| fields.len() >= 36).ok_or(HeaderError::Short)?;
            Some(SocketAddr::new(IpAddr::from(*address).to_canonical(), port))
        }
        // Without addresses, datagrams, and sockets of Unix.
        _ => None,
    };
    Ok(Parsed::Complete(FIXED + fields.len(), client))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2(command: u8, family: u8, fields: &[u8]) -> Vec<u8> {
        let length = u16::try_from(fields.len()).unwrap().to_be_bytes();
        [BINARY, &[command, family], &length, fields].concat()
    }

    fn complete(bytes: &[u8]) -> Option<String> {
        match parse(bytes) {
            Ok(Parsed::Complete(length, client)) => {
                assert_eq!(length, bytes.len());
                client.map(|client| client.to_string())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_line_names_the_client() {
        let line = |text: &str| complete(format!("PROXY {text}\r\n").as_bytes());
        assert_eq!(line("TCP4 192.0.2.7 198.51.100.1 56324 443").as_deref(), Some("192.0.2.7:56324"));
        assert_eq!(line("TCP6 2001:db8::7 2001:db8::1 1 2").as_deref(), Some("[2001:db8::7]:1"));
        assert_eq!(line("TCP6 ::ffff:192.0.2.7 ::1 1 2").as_deref(), Some("192.0.2.7:1"), "a mapped address");
        assert_eq!(line("UNKNOWN"), None);
        assert_eq!(line("UNKNOWN ffff::1 ffff::2 65535 65535"), None);
    }

    #[test]
    fn malformed_lines_are_refused() {
        for text in [
            "",
            "TCP4",
            "TCP4 192.0.2.7 198.51.100.1 56324",
            "TCP4 192.0.2.7 198.51.100.1 56324 443 1",
            "TCP4 192.0.2.7  198.51.100.1 56324 443",
            "TCP4 192.0.2.7 198.51.100.1 65536 443",
            "TCP4 192.0.2.7 198.51.100.1 1 -1",
            "TCP4 2001:db8::7 2001:db8::1 1 2",
            "TCP6 192.0.2.7 198.51.100.1 1 2",
            "TCP4 example.org 198.51.100.1 1 2",
            "tcp4 192.0.2.7 198.51.100.1 1 2",
            "UDP4 192.0.2.7 198.51.100.1 1 2",
        ] {
            assert_eq!(parse(format!("PROXY {text}\r\n").as_bytes()), Err(HeaderError::Text), "{text}");
        }
        assert_eq!(parse(b"PROXY \xff\xfe\r\n"), Err(HeaderError::Text));
        assert_eq!(
            parse(format!("PROXY UNKNOWN {}", "x".repeat(200)).as_bytes()),
            Err(HeaderError::TextTooLong)
        );
    }

    #[test]
    fn a_binary_header_names_the_client() {
        let four = [192, 0, 2, 7, 198, 51, 100, 1, 0xdc, 0x04, 1, 187];
        assert_eq!(complete(&v2(0x21, 0x11, &four)).as_deref(), Some("192.0.2.7:56324"));
        let mut six = [0; 36];
        six[..2].copy_from_slice(&[0x20, 0x01]);
        six[33] = 9;
        assert_eq!(complete(&v2(0x21, 0x21, &six)).as_deref(), Some("[2001::]:9"));
        let more = [&four[..], &[4, 0, 1, 7]].concat();
        assert_eq!(complete(&v2(0x21, 0x11, &more)).as_deref(), Some("192.0.2.7:56324"), "further fields");
        assert_eq!(complete(&v2(0x20, 0, &[])), None, "the proxy's own check");
        assert_eq!(complete(&v2(0x20, 0x11, &four)), None, "the proxy's own check");
        for family in [0, 0x12, 0x31, 0x7f] {
            assert_eq!(complete(&v2(0x21, family, &four)), None, "{family:x}");
        }
    }

    #[test]
    fn malformed_binary_headers_are_refused() {
        assert_eq!(parse(&v2(0x21, 0x11, &[0; 11])), Err(HeaderError::Short));
        assert_eq!(parse(&v2(0x21, 0x21, &[0; 35])), Err(HeaderError::Short));
        for command in [0x00, 0x11, 0x22, 0x31, 0xff] {
            assert_eq!(parse(&v2(command, 0x11, &[0; 12])), Err(HeaderError::Version), "{command:x}");
        }
        assert_eq!(parse(&v2(0x21, 0x11, &[0; MAX_FIELDS + 1])[..FIXED]), Err(HeaderError::TooLong));
    }

    #[test]
    fn other_protocols_have_no_header() {
        for start in
            [&b"GET / HTTP/1.1\r\n"[..], b"POST / HTTP/1.1", b"\x16\x03\x01", b"PROXYX", b"\r\n\r\nGET"]
        {
            assert_eq!(parse(start), Ok(Parsed::None), "{start:?}");
        }
    }

    proptest! {
        /// Any bytes: no panic; a header is recognised from every prefix, and none asks for bytes that it has.
        #[test]
        fn every_prefix_of_a_header_is_partial(
            fields in prop::collection::vec(any::<u8>(), 12..300),
            family in any::<u8>(),
            is_text in any::<bool>(),
            after in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let header = match is_text {
                true => b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n".to_vec(),
                false => v2(0x21, if family == 0x21 { 0x11 } else { family }, &fields),
            };
            for length in 0..header.len() {
                match parse(&header[..length]) {
                    Ok(Parsed::Partial(wanted)) => prop_assert!(wanted > length && wanted <= header.len()),
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            let all = [header.clone(), after].concat();
            prop_assert!(matches!(parse(&all), Ok(Parsed::Complete(length, _)) if length == header.len()));
        }

        #[test]
        fn any_bytes_are_parsed(mut bytes in prop::collection::vec(any::<u8>(), 0..200), start in 0..3_usize) {
            let start: &[u8] = [&b""[..], TEXT, BINARY][start];
            bytes.splice(0..0, start.iter().copied());
            if let Ok(Parsed::Complete(length, _)) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
