//! Summary of the candidates of both sides, for the error of a call that found no network path.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use crate::sdp::{CandidateError, CandidateLine};

/// Counts of candidates by type, ours and the peer's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CandidateSummary {
    ours: BTreeMap<String, usize>,
    theirs: BTreeMap<String, usize>,
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn count(all: &mut BTreeMap<String, usize>, candidate: &str) {
    let kind = match CandidateLine::parse(candidate) {
        // Every machine has IPv6 link-local addresses; they are not tried unless the server is on the link, too.
        Ok(line) if is_link_local(line.address) => "link-local".to_owned(),
        Ok(line) if line.is_udp => line.kind,
        Ok(line) => format!("{} over TCP", line.kind),
        Err(CandidateError::Mdns) => "hidden (mDNS)".to_owned(),
        Err(_) => return,
    };
    *all.entry(kind).or_default() += 1;
}

impl CandidateSummary {
    /// Counts a candidate of ours.
    pub fn ours(&mut self, candidate: &str) {
        count(&mut self.ours, candidate);
    }

    /// Counts the candidates of the peer in `text`: a candidate attribute, or a description.
    pub fn theirs(&mut self, text: &str) {
        for line in text.lines().filter(|line| line.trim_start_matches("a=").starts_with("candidate:")) {
            count(&mut self.theirs, line);
        }
    }
}

impl fmt::Display for CandidateSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |all: &BTreeMap<String, usize>| match all.is_empty() {
            true => "none".to_owned(),
            false => all.iter().map(|(kind, n)| format!("{n} {kind}")).collect::<Vec<_>>().join(", "),
        };
        write!(f, "candidates of ours: {}; of the peer: {}; ", list(&self.ours), list(&self.theirs))?;
        let has_relay = self.ours.contains_key("relay") || self.theirs.contains_key("relay");
        f.write_str(match (self.ours.is_empty(), self.theirs.is_empty(), has_relay) {
            (true, ..) => "this machine found no address to offer: is it in a network, and does its TURN server work?",
            (_, true, _) => "the peer offered no address: its messages may not come through",
            (_, _, true) => "not even a relay connects the two: a firewall may block UDP (try turn:…?transport=tcp or turns:)",
            _ => "a firewall between the two usually needs a TURN server",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_candidates_by_type_and_names_no_address() {
        let mut summary = CandidateSummary::default();
        assert!(summary.to_string().contains("this machine found no address"));
        summary.ours("candidate:1 1 udp 1 192.0.2.1 9 typ host");
        summary.ours("candidate:2 1 TCP 1 192.0.2.1 9 typ host tcptype active");
        assert!(summary.to_string().contains("the peer offered no address"));
        summary.theirs("v=0\r\na=candidate:1 1 udp 1 198.51.100.7 9 typ srflx\r\na=end-of-candidates");
        summary.theirs("candidate:1 1 udp 1 0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0.local 9000 typ host");
        summary.theirs("candidate:1 1 udp 1 fe80::1 9000 typ host");
        let text = summary.to_string();
        assert!(text.starts_with(
            "candidates of ours: 1 host, 1 host over TCP; of the peer: 1 hidden (mDNS), 1 link-local, 1 srflx;"
        ));
        assert!(text.ends_with("TURN server") && !text.contains("192.0.2"), "{text}");
    }
}
