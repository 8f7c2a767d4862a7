//! Which m-line a received stream belongs to. webrtcbin says so too, and under BUNDLE not always rightly.

use super::{Kind, Sdp, Section};

/// The peer's m-lines: their kinds, and the SSRCs that they name (RFC 5576).
#[derive(Debug, Clone, Default)]
pub struct Sources {
    lines: Vec<(Option<Kind>, Vec<u32>)>,
}

impl Sources {
    /// Collects the sources of a peer's description.
    pub fn of(sdp: &Sdp) -> Self {
        let ssrcs = |line: &super::Media| {
            line.attributes("ssrc").filter_map(|value| value.split(' ').next()?.parse().ok()).collect()
        };
        Self { lines: sdp.media.iter().map(|line| (Kind::of(line), ssrcs(line))).collect() }
    }

    /// The m-line of a stream of that SSRC and kind: the one that names it, or else a `guess` if it is of that
    /// kind, or else the first of that kind that is not `taken`.
    pub fn mline(&self, ssrc: Option<u32>, kind: Kind, guess: usize, taken: &[usize]) -> usize {
        let named = self.lines.iter().position(|(_, ssrcs)| ssrc.is_some_and(|ssrc| ssrcs.contains(&ssrc)));
        let is_free = |at: &usize| !taken.contains(at);
        let is_kind = |at: &usize| self.lines.get(*at).is_some_and(|(of, _)| *of == Some(kind));
        let guessed = || Some(guess).filter(is_kind).filter(is_free);
        let of_kind = || (0..self.lines.len()).find(|at| is_kind(at) && is_free(at));
        named.or_else(guessed).or_else(of_kind).unwrap_or(guess)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_found_by_its_ssrc_or_its_kind() {
        let text = "v=0\r\nm=video 9 X 96\r\na=ssrc:7 cname:x\r\na=ssrc:8 cname:x\r\nm=audio 9 X 111\r\n\
            m=application 9 X y\r\nm=video 9 X 96\r\na=ssrc:9 msid:a b\r\nm=audio 9 X 111\r\n";
        let sources = Sources::of(&Sdp::parse(text).unwrap());
        assert_eq!(sources.mline(Some(9), Kind::Video, 0, &[]), 3);
        assert_eq!(sources.mline(Some(8), Kind::Video, 3, &[]), 0);
        // Not named: what is guessed counts if it can be.
        assert_eq!(sources.mline(Some(1), Kind::Audio, 4, &[]), 4);
        assert_eq!(sources.mline(Some(1), Kind::Audio, 0, &[]), 1);
        assert_eq!(sources.mline(None, Kind::Audio, 1, &[1]), 4);
        assert_eq!(sources.mline(None, Kind::Audio, 99, &[1, 4]), 99);
        assert_eq!(Sources::default().mline(None, Kind::Audio, 2, &[]), 2);
    }
}
