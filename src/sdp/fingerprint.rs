//! Fingerprint of a certificate in SDP (RFC 8122, 5). It binds the DTLS connection to the description: the peer has to show
//! the certificate that its description names.

use super::{Sdp, Section};

/// A hash function of fingerprints that is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hash {
    /// SHA-1: weak, and still named by old peers.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Hash {
    fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "sha-1" => Self::Sha1,
            "sha-256" => Self::Sha256,
            "sha-384" => Self::Sha384,
            "sha-512" => Self::Sha512,
            _ => return None,
        })
    }
}

/// A certificate's fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// The hash function.
    pub hash: Hash,
    /// The digest.
    pub digest: Vec<u8>,
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.hash {
            Hash::Sha1 => "sha-1",
            Hash::Sha256 => "sha-256",
            Hash::Sha384 => "sha-384",
            Hash::Sha512 => "sha-512",
        })?;
        self.digest
            .iter()
            .enumerate()
            .try_for_each(|(i, byte)| write!(f, "{}{byte:02X}", if i == 0 { ' ' } else { ':' }))
    }
}

impl Fingerprint {
    /// Parses `sha-256 AB:CD:…`; returns `None` for an unknown function or a malformed digest.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, digest) = text.trim().split_once(' ')?;
        let is_hex = |pair: &str| pair.len() == 2 && pair.chars().all(|c| c.is_ascii_hexdigit());
        let byte = |pair: &str| u8::from_str_radix(pair, 16).ok().filter(|_| is_hex(pair));
        let digest = digest.trim().split(':').map(byte).collect::<Option<Vec<u8>>>()?;
        Some(Self { hash: Hash::parse(name)?, digest })
    }

    /// Returns the fingerprints of all m-lines of a description.
    pub fn all(sdp: &Sdp) -> Vec<Self> {
        let mut all: Vec<Self> = sdp
            .media
            .iter()
            .flat_map(|media| media.attributes("fingerprint").filter_map(Self::parse))
            .collect();
        all.dedup();
        all
    }
}

/// Returns whether a certificate has one of the named fingerprints. Only fingerprints of the strongest hash function count
/// (RFC 8122, 5.1); `digest` returns the certificate's own digest.
pub fn matches(named: &[Fingerprint], digest: impl Fn(Hash) -> Vec<u8>) -> bool {
    let Some(strongest) = named.iter().map(|fingerprint| fingerprint.hash).max() else { return false };
    let own = digest(strongest);
    named.iter().any(|fingerprint| fingerprint.hash == strongest && fingerprint.digest == own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_hash_decides() {
        let parse = |text: &str| Fingerprint::parse(text).unwrap();
        // The digests of a pretended certificate.
        let digest = |hash| match hash {
            Hash::Sha1 => vec![1],
            Hash::Sha256 => vec![2, 0x5a],
            Hash::Sha384 | Hash::Sha512 => vec![5],
        };
        assert!(matches(&[parse("sha-256 02:5A")], digest));
        assert!(matches(&[parse("SHA-256 02:5a"), parse("sha-1 FF")], digest));
        assert!(matches(&[parse("sha-256 00:00"), parse("sha-256 02:5A")], digest), "one of several");
        assert!(
            !matches(&[parse("sha-1 01"), parse("sha-256 00:00")], digest),
            "a match of a weaker function does not count"
        );
        assert!(!matches(&[], digest));
        for wrong in ["md5 AA", "sha-256", "sha-256 ABC", "sha-256 X1", "sha-256 +1", ""] {
            assert_eq!(Fingerprint::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_fingerprint_is_parsed_from_its_text() {
        for text in ["sha-1 FF", "sha-256 02:5A", "sha-384 00:01:02", "sha-512 0A"] {
            assert_eq!(Fingerprint::parse(text).unwrap().to_string(), text);
        }
    }
}
