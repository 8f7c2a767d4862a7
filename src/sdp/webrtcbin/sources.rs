//! The m-line of a received track, and the stream that the m-line belongs to. webrtcbin names the m-line, too, but not
//! always the right one under BUNDLE.

use crate::sdp::{Kind, Media, Sdp, Section};

/// Maximum length of a stream's id in bytes (RFC 8830, 2); an m-line with a longer id belongs to no stream.
const MAX_STREAM: usize = 64;

/// The peer's m-lines.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    lines: Vec<Line>,
}

#[derive(Debug, Clone)]
struct Line {
    kind: Option<Kind>,
    /// The SSRCs that the m-line names (RFC 5576).
    ssrcs: Vec<u32>,
    /// Id of the stream (RFC 8830).
    stream: Option<String>,
}

impl Line {
    fn of(media: &Media) -> Self {
        let ssrcs = media.attributes("ssrc").filter_map(|value| value.split(' ').next()?.parse().ok());
        // Older endpoints name the stream for each SSRC.
        let by_source = media.attributes("ssrc").filter_map(|value| value.split_once(" msid:"));
        let mut streams = media.attributes("msid").chain(by_source.map(|(_, msid)| msid));
        let stream = streams.next().and_then(|msid| msid.split(' ').next());
        let stream = stream.filter(|id| !id.is_empty() && *id != "-" && id.len() <= MAX_STREAM);
        Self { kind: Kind::of(media), ssrcs: ssrcs.collect(), stream: stream.map(str::to_owned) }
    }
}

impl Sources {
    /// Collects the sources of a peer's description.
    pub fn of(sdp: &Sdp) -> Self {
        Self { lines: sdp.media.iter().map(Line::of).collect() }
    }

    /// Returns the id of the stream that an m-line belongs to; `None` if the description names none.
    pub fn stream(&self, mline: usize) -> Option<&str> {
        self.lines.get(mline)?.stream.as_deref()
    }

    /// Returns the m-line of a stream with this SSRC and kind: the m-line that names the SSRC, or else `guess` if that is of
    /// the kind and not `taken`, or else the first m-line of the kind that is not `taken`.
    pub fn mline(&self, ssrc: Option<u32>, kind: Kind, guess: usize, taken: &[usize]) -> usize {
        let named = self.lines.iter().position(|line| ssrc.is_some_and(|ssrc| line.ssrcs.contains(&ssrc)));
        let is_free = |at: &usize| !taken.contains(at);
        let is_kind = |at: &usize| self.lines.get(*at).is_some_and(|line| line.kind == Some(kind));
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
    #[test]
    fn an_m_line_names_its_stream_itself_or_at_an_ssrc() {
        let long = "x".repeat(MAX_STREAM + 1);
        let text = format!(
            "v=0\r\nm=video 9 X 96\r\na=msid:a track\r\na=ssrc:7 msid:b track\r\nm=audio 9 X 111\r\n\
             a=ssrc:8 cname:x\r\na=ssrc:8 msid:c track\r\nm=audio 9 X 111\r\na=msid:- track\r\n\
             m=audio 9 X 111\r\nm=audio 9 X 111\r\na=msid:{long}\r\n"
        );
        let sources = Sources::of(&Sdp::parse(&text).unwrap());
        let streams: Vec<_> = (0..6).map(|mline| sources.stream(mline)).collect();
        assert_eq!(streams, [Some("a"), Some("c"), None, None, None, None]);
    }
}
