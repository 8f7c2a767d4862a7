//! Filter that drops candidates of the peer before they reach the connection, and reports how many.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::sdp::reach::Refused;
use crate::sdp::{CandidateError, CandidateLine, Reach, Sdp};

/// Maximum number of candidates that one connection gets from messages of the peer, and from one description.
pub const MAX_CANDIDATES: usize = 256;

/// Time from the first dropped candidate to the report: candidates arrive together, and one report counts all.
pub const COUNT: Duration = Duration::from_secs(3);

/// Filter of the candidates of one peer, over all of its connections.
#[derive(Debug)]
pub struct Filter {
    reach: Reach,
    /// Whether candidates with mDNS names, of browsers in the same network, are kept.
    mdns: bool,
    dropped: usize,
    /// Description of the first dropped candidate.
    first: String,
    report_at: Option<Instant>,
    reported: bool,
}

impl Filter {
    /// Returns a filter that has dropped nothing.
    pub fn new(reach: Reach, mdns: bool) -> Self {
        Self { reach, mdns, dropped: 0, first: String::new(), report_at: None, reported: false }
    }

    /// Returns whether the connection may try a candidate; counts the candidates that it may not try.
    pub fn accepts(&mut self, now: Instant, candidate: &CandidateLine) -> bool {
        let Some(why) = self.reach.refuses(candidate) else { return true };
        // Every machine has IPv6 link-local addresses, and libnice sends them to every peer: they are dropped without
        // a report.
        let is_usual = matches!(candidate.address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if !is_usual || why != Refused::Local {
            self.count_dropped(now, candidate, why);
        }
        false
    }

    fn count_dropped(&mut self, now: Instant, candidate: &CandidateLine, why: Refused) {
        self.dropped += 1;
        if self.dropped == 1 {
            self.first = format!("{} port {}: {why}", candidate.address, candidate.port);
            self.report_at = Some(now + COUNT);
        }
    }

    /// Removes candidates from a description that the connection may not try, and those beyond [`MAX_CANDIDATES`].
    pub fn clean(&mut self, now: Instant, sdp: &mut Sdp) {
        let mut kept = 0;
        let mut keep = |value: &str| {
            let is_accepted = match CandidateLine::parse(&format!("candidate:{value}")) {
                Ok(line) => self.accepts(now, &line),
                Err(CandidateError::Mdns) => self.mdns,
                Err(_) => false,
            };
            kept += usize::from(is_accepted);
            is_accepted && kept <= MAX_CANDIDATES
        };
        let media = sdp.media.iter_mut().map(|media| &mut media.lines);
        for lines in std::iter::once(&mut sdp.session).chain(media) {
            lines.retain(|line| match line.as_attribute() {
                Some(("candidate", value)) => keep(value),
                _ => true,
            });
        }
    }

    /// Returns when [`Filter::due`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.report_at
    }

    /// Returns the report of dropped candidates, once: when it is due, or with `at_once` as soon as any candidate was
    /// dropped.
    pub fn due(&mut self, now: Instant, at_once: bool) -> Option<String> {
        let is_due = self.report_at.is_some_and(|at| at_once || at <= now);
        if !is_due {
            return None;
        }
        self.report_at = None;
        (!std::mem::replace(&mut self.reported, true)).then(|| {
            let count = match self.dropped {
                1 => "1 candidate".to_owned(),
                n => format!("{n} candidates, the first of them"),
            };
            format!("{count} {} (such an address is tried only if the user allows it)", self.first)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdp::Section;

    fn line(address: &str, port: u16) -> CandidateLine {
        CandidateLine::parse(&format!("candidate:1 1 udp 1 {address} {port} typ host")).unwrap()
    }

    #[test]
    fn dropped_candidates_are_reported_once_with_their_number() {
        let (mut filter, now) = (Filter::new(Reach::default(), false), Instant::now());
        assert!(filter.accepts(now, &line("192.168.1.7", 50000)));
        assert_eq!((filter.poll_timeout(), filter.due(now, true)), (None, None));
        for port in 1..=40 {
            assert!(!filter.accepts(now, &line("192.168.1.7", port)));
        }
        assert!(!filter.accepts(now, &line("fe80::1", 50000)), "and it is not reported");
        assert_eq!(filter.due(now, false), None);
        let at = filter.poll_timeout().unwrap();
        let text = filter.due(at, false).unwrap();
        assert!(
            text.starts_with("40 candidates, the first of them 192.168.1.7 port 1: a port below 1024"),
            "{text}"
        );
        assert!(!filter.accepts(at, &line("127.0.0.1", 50000)));
        assert_eq!((filter.poll_timeout(), filter.due(at + COUNT, true)), (None, None));
    }

    #[test]
    fn refused_candidates_are_removed_from_a_description() {
        let candidates = [
            ("1 1 udp 1 192.168.1.7 50000 typ host", true),
            ("2 1 udp 1 192.168.1.7 22 typ host", false),
            ("3 1 tcp 1 127.0.0.1 50000 typ host tcptype passive", false),
            ("4 1 tcp 1 192.168.1.7 9 typ host tcptype active", true),
            ("5 1 udp 1 evil.example 50000 typ host", false),
            ("6 1 udp 1 0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0.local 50000 typ host", false),
        ];
        let all: String = candidates.iter().map(|(text, _)| format!("a=candidate:{text}\r\n")).collect();
        let text = format!("v=0\r\n{all}m=video 9 UDP/TLS/RTP/SAVPF 96\r\n{all}a=mid:0\r\n");
        let mut sdp = Sdp::parse(&text).unwrap();
        Filter::new(Reach::default(), false).clean(Instant::now(), &mut sdp);
        let kept: Vec<&str> = candidates.iter().filter(|(_, kept)| *kept).map(|(text, _)| *text).collect();
        assert_eq!(sdp.attributes("candidate").collect::<Vec<_>>(), kept);
        assert_eq!(sdp.media[0].attributes("candidate").collect::<Vec<_>>(), kept);
        let many = "a=candidate:1 1 udp 1 192.0.2.1 50000 typ host\r\n".repeat(2000);
        let mut sdp = Sdp::parse(&format!("v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n{many}")).unwrap();
        Filter::new(Reach::default(), false).clean(Instant::now(), &mut sdp);
        assert_eq!(sdp.media[0].attributes("candidate").count(), MAX_CANDIDATES);
    }
}
