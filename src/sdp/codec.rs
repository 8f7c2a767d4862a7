//! Codecs and their payload types in an m-line (RFC 8866, 6.6).

use super::{Media, Section};

/// Audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Sound.
    Audio,
    /// Pictures.
    Video,
}

impl Kind {
    /// Both, in the order of the m-lines that we offer.
    pub const ALL: [Self; 2] = [Self::Video, Self::Audio];

    /// `audio` or `video`, as on an m-line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }

    /// The kind of an m-line; none for data.
    pub fn of(media: &Media) -> Option<Self> {
        match media.kind.as_str() {
            "audio" => Some(Self::Audio),
            "video" => Some(Self::Video),
            _ => None,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The codecs that roomtone speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// VP8 (RFC 7741).
    Vp8,
    /// H.264, constrained baseline, packetization mode 1 (RFC 6184).
    H264,
    /// Opus (RFC 7587).
    Opus,
}

impl Codec {
    /// All of them, the preferred first within a kind.
    pub const ALL: [Self; 3] = [Self::Vp8, Self::H264, Self::Opus];

    /// The codec of a kind that every peer has (RFC 7742, RFC 7874).
    pub fn default_of(kind: Kind) -> Self {
        match kind {
            Kind::Video => Self::Vp8,
            Kind::Audio => Self::Opus,
        }
    }

    /// What it carries.
    pub fn kind(self) -> Kind {
        match self {
            Self::Vp8 | Self::H264 => Kind::Video,
            Self::Opus => Kind::Audio,
        }
    }

    /// The encoding name in SDP, in capitals, as GStreamer's RTP caps have it.
    pub fn encoding_name(self) -> &'static str {
        match self {
            Self::Vp8 => "VP8",
            Self::H264 => "H264",
            Self::Opus => "OPUS",
        }
    }

    /// The codec of that encoding name, in any case.
    pub fn from_encoding_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.encoding_name().eq_ignore_ascii_case(name))
    }

    /// The RTP clock, in Hz.
    pub fn clock_rate(self) -> u32 {
        match self.kind() {
            Kind::Video => 90_000,
            Kind::Audio => 48_000,
        }
    }

    /// The payload type that we offer it with.
    pub fn payload_type(self) -> u8 {
        match self {
            Self::Vp8 => 96,
            Self::H264 => 102,
            Self::Opus => 111,
        }
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Vp8 => "VP8",
            Self::H264 => "H.264",
            Self::Opus => "Opus",
        })
    }
}

/// One payload type of an m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The payload type.
    pub pt: u8,
    /// Its codec.
    pub codec: Codec,
    /// Its format parameters (`a=fmtp`), in their order.
    pub fmtp: Vec<(String, String)>,
    /// Its feedback messages (`a=rtcp-fb`), `nack pli` and the like.
    pub feedback: Vec<String>,
}

impl Payload {
    /// A format parameter's value.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.fmtp.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// H.264: packetization mode 1 and (constrained) baseline, which is what we encode;
    /// the better fit has the higher rank, none is unusable.
    fn rank(&self) -> Option<u8> {
        if self.codec != Codec::H264 {
            return Some(0);
        }
        let profile = self.parameter("profile-level-id").unwrap_or("42e01f").to_ascii_lowercase();
        match (self.parameter("packetization-mode"), profile.get(..4)) {
            (Some("1"), Some("42e0" | "42c0")) => Some(2),
            (Some("1"), Some("4200")) => Some(1),
            _ => None,
        }
    }
}

/// Only these reach caps and pipeline texts.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
}

/// The payload types of an m-line that we could take, best first by our preference.
pub fn usable(media: &Media, preference: &[Codec]) -> Vec<Payload> {
    let mut all: Vec<(usize, u8, Payload)> = media
        .attributes("rtpmap")
        .filter_map(|map| {
            let (pt, map) = map.split_once(' ')?;
            let mut parts = map.trim().split('/');
            let codec = Codec::from_encoding_name(parts.next()?)?;
            let rate: u32 = parts.next()?.parse().ok()?;
            let number: u8 = pt.parse().ok().filter(|pt| *pt < 128)?;
            let at = preference.iter().position(|c| *c == codec)?;
            if rate != codec.clock_rate() || Kind::of(media) != Some(codec.kind()) {
                return None;
            }
            let fmtp = media.attributes("fmtp").filter_map(|v| v.split_once(' ')).filter(|(n, _)| *n == pt);
            let fmtp = fmtp.flat_map(|(_, v)| v.split(';')).filter_map(|p| p.trim().split_once('='));
            let fmtp = fmtp.map(|(k, v)| (k.trim(), v.trim())).filter(|(k, v)| is_token(k) && is_token(v));
            let fmtp = fmtp.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            let feedback = media.attributes("rtcp-fb").filter_map(|v| v.split_once(' '));
            let feedback = feedback.filter(|(n, _)| *n == pt || *n == "*").map(|(_, v)| v.trim().to_owned());
            let payload = Payload { pt: number, codec, fmtp, feedback: feedback.collect() };
            Some((at, payload.rank()?, payload))
        })
        .collect();
    all.sort_by_key(|(at, rank, _)| (*at, u8::MAX - rank));
    all.into_iter().map(|(_, _, payload)| payload).collect()
}

/// Writes into an H.264 m-line what browsers ask for, constrained baseline with any level:
/// webrtcbin writes the encoder's own profile or none, and Firefox then refuses the line.
pub fn declare_h264(media: &mut Media, level: &str) {
    let pts: Vec<String> = media
        .attributes("rtpmap")
        .filter_map(|map| map.split_once(' '))
        .filter(|(_, map)| map.to_ascii_uppercase().starts_with("H264/"))
        .map(|(pt, _)| pt.to_owned())
        .collect();
    for pt in pts {
        let wanted =
            format!("{pt} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e0{level}");
        media.lines.retain(|line| {
            line.as_attribute().is_none_or(|(n, v)| n != "fmtp" || v.split(' ').next() != Some(&pt))
        });
        media.lines.push(super::Line::attribute("fmtp", &wanted));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Sdp, tests::CHROMIUM};
    use super::*;

    #[test]
    fn payloads_come_in_our_order_of_preference() {
        let sdp = Sdp::parse(CHROMIUM).unwrap();
        let video = usable(&sdp.media[1], &[Codec::Vp8, Codec::H264]);
        assert_eq!(video.iter().map(|p| p.pt).collect::<Vec<_>>(), [96, 109, 107]);
        let video = usable(&sdp.media[1], &[Codec::H264, Codec::Vp8]);
        assert_eq!(video.iter().map(|p| p.pt).collect::<Vec<_>>(), [109, 107, 96]);
        assert!(video[0].feedback.contains(&"nack pli".to_owned()));
        let audio = usable(&sdp.media[0], &[Codec::Opus]);
        assert_eq!((audio.len(), audio[0].pt), (1, 111));
        assert!(usable(&sdp.media[2], &Codec::ALL).is_empty());
    }

    #[test]
    fn h264_is_declared_as_constrained_baseline() {
        let text = "v=0\nm=video 9 X 102\na=rtpmap:102 H264/90000\na=fmtp:102 packetization-mode=1\n";
        let mut sdp = Sdp::parse(text).unwrap();
        declare_h264(&mut sdp.media[0], "1f");
        let fmtp = "102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
        assert_eq!(sdp.media[0].attributes("fmtp").collect::<Vec<_>>(), [fmtp]);
    }
}
