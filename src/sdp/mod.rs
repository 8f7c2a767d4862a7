//! Reading, checking and rewriting SDP (RFC 8866, as JSEP uses it: RFC 8829). Pure: no GStreamer.
//!
//! A description is kept as lines, so that attributes that roomtone does not know pass through unchanged. A description of
//! a peer is checked ([`validate()`]) before it is used, and rewritten for webrtcbin by [`webrtcbin`] alone.
//!
//! Pure: no file of this folder has a clock, chance, a socket or GStreamer.

// A new message must make the compiler ask what to do with it.
#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

pub mod candidate;
pub mod codec;
pub mod decline;
pub mod direction;
pub mod fingerprint;
pub mod payload;
pub mod reach;
pub mod validate;
pub mod webrtcbin;

pub use candidate::{CandidateError, CandidateLine};
pub use codec::{Codec, Kind, Payload};
pub use direction::Direction;
pub use reach::Reach;
pub use validate::{add_missing_mids, validate};

use std::fmt;

/// Maximum size of a description in bytes. Chromium's largest with thirty m-lines has about 100 KB.
pub const MAX_SDP: usize = 256 * 1024;
/// Maximum number of m-lines.
pub const MAX_MLINES: usize = 64;

/// Reason to refuse a description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SdpError {
    /// Larger than [`MAX_SDP`].
    #[error("an SDP of {0} bytes is too large")]
    TooLarge(usize),
    /// Does not begin with `v=0`.
    #[error("no SDP: it does not begin with v=0")]
    NoVersion,
    /// A line that is not `x=…`.
    #[error("line {0} of the SDP is malformed")]
    BadLine(usize),
    /// More than [`MAX_MLINES`] m-lines, or none.
    #[error("an SDP with {0} m-lines")]
    MLines(usize),
    /// A mid that is not one word (RFC 5888, 4).
    #[error("the SDP has a malformed mid")]
    BadMid,
    /// A mid given twice.
    #[error("the SDP gives two m-lines one mid")]
    DuplicateMid,
    /// A BUNDLE group with a mid that no m-line has.
    #[error("the SDP's BUNDLE group names a mid that is not there")]
    BundleMid,
    /// Two extensions in a bundle share a header extension id (RFC 8843, 9.2).
    #[error("the SDP uses one header extension id twice")]
    Extmap,
    /// The m-lines of an answer are not those of the offer (RFC 3264, 6).
    #[error("the answer does not have the m-lines of the offer")]
    OtherLines,
    /// No `ice-ufrag` or `ice-pwd`.
    #[error("the SDP has no ICE credentials")]
    NoIce,
    /// No `fingerprint`.
    #[error("the SDP has no DTLS fingerprint")]
    NoFingerprint,
}

/// Value of the session attribute `tool` (RFC 8866, 6.4) in descriptions of roomtone.
const TOOL: &str = "roomtone";

/// Names roomtone as the author of a description.
pub fn mark_as_roomtone(sdp: &mut Sdp) {
    sdp.set_attribute("tool", TOOL);
}

/// Returns whether a description names roomtone as its author. Its page and its native client replace their connection
/// when the peer does; other peers may keep their DTLS connection for the whole call.
pub fn is_of_roomtone(sdp: &Sdp) -> bool {
    sdp.attribute("tool") == Some(TOOL)
}

/// A line, `x=value`.
#[derive(Clone, PartialEq, Eq)]
pub struct Line {
    /// The letter before the `=`.
    pub letter: char,
    /// The text after the equals sign.
    pub value: String,
}

impl Line {
    /// Returns the line `a=name:value`, or `a=name` if the value is empty.
    pub fn attribute(name: &str, value: &str) -> Self {
        let value = if value.is_empty() { name.to_owned() } else { format!("{name}:{value}") };
        Self { letter: 'a', value }
    }

    /// Returns name and value of an attribute line (`a=name:value`, `a=name`).
    pub fn as_attribute(&self) -> Option<(&str, &str)> {
        (self.letter == 'a').then(|| self.value.split_once(':').unwrap_or((&self.value, "")))
    }
}

/// Attribute access shared by the session and its media sections.
pub trait Section {
    /// The section's lines.
    fn lines(&self) -> &[Line];
    /// The section's lines, to be changed.
    fn lines_mut(&mut self) -> &mut Vec<Line>;

    /// Returns the values of all attributes of that name.
    fn attributes<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.lines().iter().filter_map(Line::as_attribute).filter(move |(n, _)| *n == name).map(|(_, v)| v)
    }

    /// Returns the value of the first attribute of that name.
    fn attribute(&self, name: &str) -> Option<&str> {
        self.lines().iter().filter_map(Line::as_attribute).find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// Sets an attribute in place of all of that name, where the first stood, or at the end.
    fn set_attribute(&mut self, name: &str, value: &str) {
        let is_it = |line: &Line| line.as_attribute().is_some_and(|(n, _)| n == name);
        let at = self.lines().iter().position(is_it).unwrap_or(self.lines().len());
        self.lines_mut().retain(|line| !is_it(line));
        self.lines_mut().insert(at, Line::attribute(name, value));
    }

    /// Removes all attributes of that name.
    fn remove_attribute(&mut self, name: &str) {
        self.lines_mut().retain(|line| line.as_attribute().is_none_or(|(n, _)| n != name));
    }
}

/// A media section: an m-line and what follows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Media {
    /// `audio`, `video`, `application`, …
    pub kind: String,
    /// Port (0: rejected), protocol and formats, as they stand after the kind.
    pub rest: String,
    /// The lines after the m-line.
    pub lines: Vec<Line>,
}

impl Media {
    /// The section's mid (RFC 5888).
    pub fn mid(&self) -> Option<&str> {
        self.attribute("mid").filter(|mid| !mid.is_empty())
    }

    /// Returns whether the m-line is rejected: its port is 0, and it is not merely bundled (RFC 8843, 6).
    pub fn is_rejected(&self) -> bool {
        self.rest.split(' ').next() == Some("0") && self.attribute("bundle-only").is_none()
    }

    /// Returns protocol and formats: the text behind the port.
    pub fn formats(&self) -> &str {
        self.rest.split_once(' ').map_or("", |(_, formats)| formats)
    }

    /// Gives an m-line of port 0 a port, as an m-line has that is in use and not only bundled.
    pub(crate) fn give_port(&mut self) {
        self.remove_attribute("bundle-only");
        if self.rest.split(' ').next() == Some("0") {
            self.rest = format!("9 {}", self.formats());
        }
    }
}

impl Section for Media {
    fn lines(&self) -> &[Line] {
        &self.lines
    }
    fn lines_mut(&mut self) -> &mut Vec<Line> {
        &mut self.lines
    }
}

/// A whole description.
#[derive(Clone, PartialEq, Eq)]
pub struct Sdp {
    /// The lines before the first m-line, `v=0` first.
    pub session: Vec<Line>,
    /// The media sections in their order.
    pub media: Vec<Media>,
}

impl Section for Sdp {
    fn lines(&self) -> &[Line] {
        &self.session
    }
    fn lines_mut(&mut self) -> &mut Vec<Line> {
        &mut self.session
    }
}

impl Sdp {
    /// Parses a description; line ends may be CRLF or LF.
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        if text.len() > MAX_SDP {
            return Err(SdpError::TooLarge(text.len()));
        }
        if text.lines().next().map(str::trim_end) != Some("v=0") {
            return Err(SdpError::NoVersion);
        }
        let mut sdp = Self { session: Vec::new(), media: Vec::new() };
        for (i, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if line.is_empty() {
                continue;
            }
            let bad = SdpError::BadLine(i + 1);
            let mut chars = line.chars();
            let (Some(letter @ 'a'..='z'), Some('=')) = (chars.next(), chars.next()) else { return Err(bad) };
            let value = chars.as_str();
            if value.chars().any(char::is_control) {
                return Err(bad);
            }
            match (letter, sdp.media.last_mut()) {
                ('m', _) => {
                    let (kind, rest) = value.split_once(' ').ok_or(bad.clone())?;
                    // `port proto formats…`: webrtcbin counts on all three.
                    if rest.split(' ').filter(|word| !word.is_empty()).count() < 3 {
                        return Err(bad);
                    }
                    sdp.media.push(Media { kind: kind.into(), rest: rest.into(), lines: Vec::new() });
                    if sdp.media.len() > MAX_MLINES {
                        return Err(SdpError::MLines(sdp.media.len()));
                    }
                }
                (_, Some(media)) => media.lines.push(Line { letter, value: value.into() }),
                (_, None) => sdp.session.push(Line { letter, value: value.into() }),
            }
        }
        if sdp.media.is_empty() {
            return Err(SdpError::MLines(0));
        }
        Ok(sdp)
    }

    /// The mid of the m-line with that index.
    pub fn mid(&self, mline: u32) -> Option<&str> {
        self.media.get(mline as usize)?.mid()
    }

    /// Returns the ICE user fragment; descriptions with different ones belong to different transports (RFC 8839, 4.4.1.1.1).
    pub fn ufrag(&self) -> Option<&str> {
        self.media.iter().find(|media| !media.is_rejected()).and_then(|media| media.attribute("ice-ufrag"))
    }

    /// Returns the certificate's fingerprint in the first m-line that is not rejected.
    pub fn certificate(&self) -> Option<&str> {
        self.media.iter().find(|media| !media.is_rejected()).and_then(|media| media.attribute("fingerprint"))
    }

    /// Returns whether an answer has the m-lines of this offer, in its order and with its mids (RFC 3264, 6).
    pub fn is_answered_by(&self, answer: &Self) -> bool {
        let same = |(ours, theirs): (&Media, &Media)| ours.mid() == theirs.mid() && ours.kind == theirs.kind;
        self.media.len() == answer.media.len() && self.media.iter().zip(&answer.media).all(same)
    }

    /// The index of the m-line with that mid.
    pub fn mline(&self, mid: &str) -> Option<u32> {
        self.media.iter().position(|media| media.mid() == Some(mid)).and_then(|i| i.try_into().ok())
    }
}

impl fmt::Display for Sdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = |f: &mut fmt::Formatter<'_>, lines: &[Line]| {
            lines.iter().try_for_each(|Line { letter, value }| write!(f, "{letter}={value}\r\n"))
        };
        lines(f, &self.session)?;
        self.media.iter().try_for_each(|media| {
            write!(f, "m={} {}\r\n", media.kind, media.rest)?;
            lines(f, &media.lines)
        })
    }
}

impl fmt::Debug for Sdp {
    // SDP contains addresses and keys, which are not to be printed by accident.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sdp({} m-lines)", self.media.len())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An offer in Chromium's shape: audio, video and a data channel in one bundle.
    pub(crate) const CHROMIUM: &str = include_str!("testdata/chromium-offer.sdp");

    #[test]
    fn a_description_is_written_as_it_was_parsed() {
        let sdp = Sdp::parse(CHROMIUM).unwrap();
        let crlf = CHROMIUM.lines().collect::<Vec<_>>().join("\r\n") + "\r\n";
        assert_eq!(sdp.to_string(), crlf);
        assert_eq!(
            sdp.media.iter().map(|m| m.kind.as_str()).collect::<Vec<_>>(),
            ["audio", "video", "application"]
        );
        assert_eq!(sdp.mid(1), Some("1"));
        assert_eq!(sdp.mline("2"), Some(2));
        assert_eq!(sdp.media[0].direction(), Direction { send: true, receive: true });
    }

    #[test]
    fn malformed_descriptions_are_refused() {
        assert_eq!(Sdp::parse(""), Err(SdpError::NoVersion));
        assert_eq!(Sdp::parse("v=0\r\nnonsense\r\n"), Err(SdpError::BadLine(2)));
        assert_eq!(Sdp::parse("v=0\r\ns=-\r\n"), Err(SdpError::MLines(0)));
        assert_eq!(Sdp::parse("v=0\nm=video\n"), Err(SdpError::BadLine(2)));
        assert_eq!(Sdp::parse("v=0\nm=video 9\n"), Err(SdpError::BadLine(2)));
        assert_eq!(
            Sdp::parse(&format!("v=0\n{}", "m=video 9 RTP 1\n".repeat(65))),
            Err(SdpError::MLines(65))
        );
        assert_eq!(Sdp::parse(&"a".repeat(MAX_SDP + 1)), Err(SdpError::TooLarge(MAX_SDP + 1)));
    }

    #[test]
    fn an_attribute_is_set_in_place_of_all_of_its_name() {
        let mut sdp = Sdp::parse("v=0\nm=video 9 RTP 1\na=mid:a\na=setup:actpass\na=setup:active\n").unwrap();
        sdp.media[0].set_attribute("setup", "passive");
        sdp.media[0].set_attribute("new", "");
        assert_eq!(sdp.to_string(), "v=0\r\nm=video 9 RTP 1\r\na=mid:a\r\na=setup:passive\r\na=new\r\n");
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "(v=0\n)?([a-z]=[ -~]{0,12}\r?\n|\\PC{0,20}\n){0,20}") {
            if let Ok(sdp) = Sdp::parse(&text) {
                prop_assert_eq!(Sdp::parse(&sdp.to_string()), Ok(sdp));
            }
        }
    }
}
