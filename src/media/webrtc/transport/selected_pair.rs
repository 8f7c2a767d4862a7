//! Types of the candidates of the pair that ICE selected, for statistics.
//!
//! libnice names a selected pair by the foundations of its candidates (RFC 8445, 5.1.1.3). GStreamer must not be asked
//! for the pair: 1.28 writes the credentials of the stream into libnice's candidate then, every later stream with the
//! same address inherits them, and its checks name a wrong user after an ICE restart.

/// Maximum number of foundations that are remembered for each side.
const MAX_KNOWN: usize = 64;
/// Type of a candidate that no side announced.
const UNANNOUNCED: &str = "prflx";

/// Candidates of both sides, and the selected pair.
#[derive(Debug, Default)]
pub(crate) struct SelectedPair {
    ours: Known,
    theirs: Known,
    /// Foundations of the local and the remote candidate.
    selected: Option<(String, String)>,
}

/// Foundations of one side, with the types of their candidates.
#[derive(Debug, Default)]
struct Known(Vec<(String, String)>);

impl Known {
    /// Remembers a candidate, given by its attribute. The oldest foundation makes room for a new one.
    fn add(&mut self, candidate: &str) {
        let Some((foundation, kind)) = read(candidate) else { return };
        self.0.retain(|(known, _)| known != foundation);
        if self.0.len() == MAX_KNOWN {
            self.0.remove(0);
        }
        self.0.push((foundation.to_owned(), kind.to_owned()));
    }

    fn kind(&self, foundation: &str) -> String {
        let known = self.0.iter().find(|(known, _)| known == foundation);
        known.map_or(UNANNOUNCED, |(_, kind)| kind).to_owned()
    }
}

impl SelectedPair {
    /// Remembers a candidate of our side.
    pub(crate) fn add_ours(&mut self, candidate: &str) {
        self.ours.add(candidate);
    }

    /// Remembers a candidate of the peer.
    pub(crate) fn add_theirs(&mut self, candidate: &str) {
        self.theirs.add(candidate);
    }

    /// Records the pair with these foundations as the selected one.
    pub(crate) fn select(&mut self, ours: String, theirs: String) {
        self.selected = Some((ours, theirs));
    }

    /// Returns the types (`host`, `srflx`, `prflx` or `relay`) of the selected local and remote candidates.
    pub(crate) fn types(&self) -> Option<(String, String)> {
        let (ours, theirs) = self.selected.as_ref()?;
        Some((self.ours.kind(ours), self.theirs.kind(theirs)))
    }
}

/// Returns the foundation and the type in a candidate's attribute (RFC 8839, 5.1).
fn read(candidate: &str) -> Option<(&str, &str)> {
    let mut words = candidate.strip_prefix("a=").unwrap_or(candidate).split_ascii_whitespace();
    let foundation = words.next()?.strip_prefix("candidate:")?;
    words.find(|word| *word == "typ")?;
    Some((foundation, words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(foundation: &str, kind: &str) -> String {
        format!("candidate:{foundation} 1 udp 1 192.0.2.1 9000 typ {kind} generation 0")
    }

    #[test]
    fn a_pair_has_the_types_of_the_candidates_with_its_foundations() {
        let mut pair = SelectedPair::default();
        assert_eq!(pair.types(), None);
        pair.add_ours(&candidate("1", "host"));
        pair.add_ours(&format!("a={}", candidate("2", "relay")));
        pair.select("2".into(), "77".into());
        let named = |ours: &str, theirs: &str| Some((ours.to_owned(), theirs.to_owned()));
        assert_eq!(pair.types(), named("relay", "prflx"), "the peer announced no such candidate");
        // The candidate may be announced after the pair was selected.
        pair.add_theirs(&candidate("77", "srflx"));
        assert_eq!(pair.types(), named("relay", "srflx"));
        pair.select("1".into(), "remote3".into());
        assert_eq!(pair.types(), named("host", "prflx"));
    }

    #[test]
    fn a_peer_that_announces_candidates_without_end_fills_no_memory() {
        let mut pair = SelectedPair::default();
        for foundation in 0..1000 {
            pair.add_theirs(&candidate(&foundation.to_string(), "host"));
            pair.add_theirs(&candidate("same", "relay"));
        }
        pair.add_theirs("candidate:junk");
        assert_eq!(pair.theirs.0.len(), MAX_KNOWN);
        pair.select("1".into(), "same".into());
        assert_eq!(pair.types(), Some(("prflx".into(), "relay".into())));
    }
}
