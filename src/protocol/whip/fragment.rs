//! Fragments of SDP that carry candidates (RFC 8840, 9; RFC 9725, 4.3).
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::fmt;

/// Maximum number of candidates that are read from a fragment.
pub const MAX_CANDIDATES: usize = 64;
/// Maximum size of a fragment that is read, in bytes.
const MAX_FRAGMENT: usize = 64 * 1024;

/// Candidates of our side, for the transport that all m-lines share.
#[derive(Clone, Copy)]
pub struct Fragment<'a> {
    /// Number of m-lines, whose mids are their indexes.
    pub mlines: usize,
    /// First m-line, without `m=`.
    pub mline: &'a str,
    /// User fragment and password of ICE.
    pub credentials: (&'a str, &'a str),
    /// Candidates, each as the text of its attribute.
    pub candidates: &'a [String],
}

impl fmt::Display for Fragment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mids: Vec<String> = (0..self.mlines).map(|index| index.to_string()).collect();
        let (ufrag, pwd) = self.credentials;
        write!(f, "a=group:BUNDLE {}\r\nm={}\r\na=mid:0\r\n", mids.join(" "), self.mline)?;
        write!(f, "a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\n")?;
        self.candidates.iter().try_for_each(|candidate| write!(f, "a={candidate}\r\n"))
    }
}

/// Returns the candidates in a fragment of the endpoint, each as the text of its attribute; at most [`MAX_CANDIDATES`].
pub fn candidates(fragment: &[u8]) -> Vec<String> {
    let text =
        std::str::from_utf8(fragment).ok().filter(|text| text.len() <= MAX_FRAGMENT).unwrap_or_default();
    let values = text.lines().filter_map(|line| line.trim_end().strip_prefix("a="));
    let candidates =
        values.filter(|value| value.starts_with("candidate:") && !value.contains(char::is_control));
    candidates.take(MAX_CANDIDATES).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_fragment_names_the_bundle_the_m_line_and_the_credentials() {
        let candidate = "candidate:1 1 UDP 1 192.0.2.1 9 typ host".to_owned();
        let fragment = Fragment {
            mlines: 2,
            mline: "video 9 UDP/TLS/RTP/SAVPF 96",
            credentials: ("EsAw", "P2uYro0UCOQ4zxjKXaWCBui1"),
            candidates: std::slice::from_ref(&candidate),
        };
        let text = fragment.to_string();
        assert_eq!(
            text,
            "a=group:BUNDLE 0 1\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:0\r\na=ice-ufrag:EsAw\r\n\
             a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=candidate:1 1 UDP 1 192.0.2.1 9 typ host\r\n"
        );
        assert_eq!(candidates(text.as_bytes()), [candidate]);
    }

    #[test]
    fn junk_and_too_much_are_ignored() {
        assert!(candidates(b"<html>").is_empty() && candidates(&[0xff]).is_empty());
        assert_eq!(candidates("a=candidate:x\n".repeat(100).as_bytes()).len(), MAX_CANDIDATES);
        assert!(candidates(&vec![b'x'; MAX_FRAGMENT + 1]).is_empty());
    }

    proptest! {
        #[test]
        fn any_fragment_is_read(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "(a=candidate:\\PC*\n)*") {
            let _ = candidates(&bytes);
            prop_assert!(candidates(text.as_bytes()).len() <= MAX_CANDIDATES);
        }
    }
}
