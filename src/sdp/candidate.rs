//! Candidates (RFC 8839, 5.1). They are parsed before webrtcbin gets them: a candidate with a host name would make this
//! machine ask a name server.

use std::net::IpAddr;

/// Maximum length of a candidate attribute, in bytes.
pub const MAX_CANDIDATE: usize = 1024;
/// Lowest port that is tried at any address, apart from [`WEB_PORTS`](super::reach::WEB_PORTS).
pub const LEAST_PORT: u16 = 1024;

/// The fields of a candidate that roomtone reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateLine {
    /// `host`, `srflx`, `prflx` or `relay`.
    pub kind: String,
    /// Whether the transport is UDP; otherwise it is TCP.
    pub is_udp: bool,
    /// The address.
    pub address: IpAddr,
    /// Port at that address.
    pub port: u16,
    /// Whether its owner connects to us (`tcptype active`: RFC 6544, 4.5): nothing is sent to its port then.
    pub is_active: bool,
    /// The attribute with single spaces between its words, which makes every later parser see the same words.
    pub text: String,
    /// The ICE user fragment, if the candidate names one.
    pub ufrag: Option<String>,
}

/// Reason to drop a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CandidateError {
    /// Longer than [`MAX_CANDIDATE`].
    #[error("a candidate that is too long")]
    TooLong,
    /// Not the attribute's grammar.
    #[error("a malformed candidate")]
    Malformed,
    /// An mDNS name (`….local`) of a browser, and well-formed otherwise. To look it up takes a machine that
    /// can, in the same network; the peer-reflexive path connects without it.
    #[error("a candidate with an mDNS name")]
    Mdns,
    /// An mDNS name with a port below [`LEAST_PORT`].
    #[error("a candidate with an mDNS name and a port below 1024")]
    Port,
    /// Another host name; it is not looked up.
    #[error("a candidate with a host name")]
    HostName,
}

/// Returns whether a name is one that browsers make for a page (draft-ietf-mmusic-mdns-ice-candidates, 3.1.1).
fn is_mdns(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let uuid = name.strip_suffix(".local");
    uuid.is_some_and(|uuid| uuid.len() == 36 && uuid.chars().all(|c| c.is_ascii_hexdigit() || c == '-'))
}

impl CandidateLine {
    /// Parses `candidate:foundation component transport priority address port typ kind …`.
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
        let port = port.parse::<u16>().map_err(|_| Malformed)?;
        let is_udp = match transport.to_ascii_lowercase().as_str() {
            "udp" => true,
            "tcp" => false,
            _ => return Err(Malformed),
        };
        if !["host", "srflx", "prflx", "relay"].contains(kind) {
            return Err(Malformed);
        }
        let of =
            |name: &'static str| rest.chunks_exact(2).filter(move |pair| pair[0] == name).map(|pair| pair[1]);
        let is_active = !is_udp && of("tcptype").eq(["active"]);
        let address = address.parse().map_err(|_| match is_mdns(address) {
            true if port < LEAST_PORT && !is_active => CandidateError::Port,
            true => CandidateError::Mdns,
            false => CandidateError::HostName,
        })?;
        let ufrag = of("ufrag").next().map(str::to_owned);
        let text = format!("candidate:{}", words.join(" "));
        Ok(Self { kind: (*kind).to_owned(), is_udp, address, port, is_active, text, ufrag })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn candidates_of_browsers_and_libnice_are_parsed() {
        let chromium =
            "candidate:1 1 udp 2122260223 192.0.2.7 50071 typ host generation 0 ufrag 4ZcD network-id 1";
        let line = CandidateLine::parse(chromium).unwrap();
        assert_eq!((line.kind.as_str(), line.is_udp, line.ufrag.as_deref()), ("host", true, Some("4ZcD")));
        assert_eq!((line.port, line.text.as_str()), (50071, chromium));
        let spaced = CandidateLine::parse("a=candidate:1  1 udp  7 192.0.2.7 50071 typ host ").unwrap();
        assert_eq!(spaced.text, "candidate:1 1 udp 7 192.0.2.7 50071 typ host");
        let nice = "candidate:5 1 TCP 1010828031 fe80::1 9 typ host tcptype active";
        assert!(!CandidateLine::parse(nice).unwrap().is_udp);
        let parse =
            |address: &str| CandidateLine::parse(&format!("candidate:1 1 udp 1 {address} 9000 typ host"));
        let browsers = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0.local";
        assert_eq!(parse(browsers), Err(CandidateError::Mdns));
        let low = CandidateLine::parse(&format!("candidate:1 1 udp 1 {browsers} 22 typ host"));
        assert_eq!(low, Err(CandidateError::Port));
        let active = format!("candidate:1 1 tcp 1 {browsers} 9 typ host tcptype active");
        assert_eq!(CandidateLine::parse(&active), Err(CandidateError::Mdns));
        assert_eq!(parse("router.local"), Err(CandidateError::HostName));
        assert_eq!(parse("evil.example"), Err(CandidateError::HostName));
        assert_eq!(CandidateLine::parse("candidate:junk"), Err(CandidateError::Malformed));
        assert_eq!(CandidateLine::parse(&"x".repeat(2000)), Err(CandidateError::TooLong));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "(a=)?(candidate:)?([a-z0-9.:]{1,12} ){0,12}\\PC{0,10}") {
            let _ = CandidateLine::parse(&text);
        }
    }
}
