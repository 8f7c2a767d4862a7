//! Candidates (RFC 8839, 5.1), read before webrtcbin sees them: one with a host name would make
//! this machine ask a name server.

use std::net::IpAddr;

/// The longest candidate attribute taken, in bytes.
pub const MAX_CANDIDATE: usize = 1024;

/// What a candidate says of itself, as far as roomtone asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateLine {
    /// `host`, `srflx`, `prflx` or `relay`.
    pub kind: String,
    /// UDP, or else TCP.
    pub is_udp: bool,
    /// The address it stands for.
    pub address: IpAddr,
    /// The ICE user fragment, where it is said.
    pub ufrag: Option<String>,
}

/// Why a candidate is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CandidateError {
    /// Longer than [`MAX_CANDIDATE`].
    #[error("a candidate that is too long")]
    TooLong,
    /// Not the attribute's grammar.
    #[error("a malformed candidate")]
    Malformed,
    /// An mDNS name (`….local`); the peer-reflexive path connects without it.
    #[error("a candidate with an mDNS name")]
    Mdns,
    /// Another host name, which we do not look up.
    #[error("a candidate with a host name")]
    HostName,
}

impl CandidateLine {
    /// Reads `candidate:foundation component transport priority address port typ kind …`.
    pub fn parse(text: &str) -> Result<Self, CandidateError> {
        use CandidateError::Malformed;
        if text.len() > MAX_CANDIDATE {
            return Err(CandidateError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(Malformed);
        }
        let text = text.strip_prefix("a=").unwrap_or(text);
        let text = text.strip_prefix("candidate:").ok_or(Malformed)?;
        let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
        let [_foundation, component, transport, priority, address, port, "typ", kind, rest @ ..] = &words[..]
        else {
            return Err(Malformed);
        };
        component.parse::<u16>().map_err(|_| Malformed)?;
        priority.parse::<u32>().map_err(|_| Malformed)?;
        port.parse::<u16>().map_err(|_| Malformed)?;
        let is_udp = match transport.to_ascii_lowercase().as_str() {
            "udp" => true,
            "tcp" => false,
            _ => return Err(Malformed),
        };
        if !["host", "srflx", "prflx", "relay"].contains(kind) {
            return Err(Malformed);
        }
        let address =
            address.parse().map_err(|_| match address.to_ascii_lowercase().ends_with(".local") {
                true => CandidateError::Mdns,
                false => CandidateError::HostName,
            })?;
        let ufrag = rest.chunks_exact(2).find(|pair| pair[0] == "ufrag").map(|pair| pair[1].to_owned());
        Ok(Self { kind: (*kind).to_owned(), is_udp, address, ufrag })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn candidates_of_browsers_and_libnice() {
        let chromium =
            "candidate:1 1 udp 2122260223 192.0.2.7 50071 typ host generation 0 ufrag 4ZcD network-id 1";
        let line = CandidateLine::parse(chromium).unwrap();
        assert_eq!((line.kind.as_str(), line.is_udp, line.ufrag.as_deref()), ("host", true, Some("4ZcD")));
        let nice = "candidate:5 1 TCP 1010828031 fe80::1 9 typ host tcptype active";
        assert!(!CandidateLine::parse(nice).unwrap().is_udp);
        let parse =
            |address: &str| CandidateLine::parse(&format!("candidate:1 1 udp 1 {address} 9 typ host"));
        assert_eq!(parse("1f4c.local"), Err(CandidateError::Mdns));
        assert_eq!(parse("evil.example"), Err(CandidateError::HostName));
        assert_eq!(CandidateLine::parse("candidate:junk"), Err(CandidateError::Malformed));
        assert_eq!(CandidateLine::parse(&"x".repeat(2000)), Err(CandidateError::TooLong));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(a=)?(candidate:)?([a-z0-9.:]{1,12} ){0,12}\\PC{0,10}") {
            let _ = CandidateLine::parse(&text);
        }
    }
}
