//! Codecs and their payload types in an m-line (RFC 8866, 6.6).

use super::{Media, Section};

/// Audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Audio.
    Audio,
    /// Video.
    Video,
}

impl Kind {
    /// Both kinds, in the order of the m-lines that our side offers.
    pub const ALL: [Self; 2] = [Self::Video, Self::Audio];

    /// Returns `audio` or `video`, as on an m-line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
        }
    }

    /// Returns the kind of an m-line; `None` for data channels and unknown kinds.
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
        f.pad(self.as_str())
    }
}

/// A codec that roomtone supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// VP8 (RFC 7741).
    Vp8,
    /// H.264, constrained baseline, packetization mode 1 (RFC 6184).
    H264,
    /// VP9, profile 0 (RFC 9628).
    Vp9,
    /// AV1 (RTP payload format of the Alliance for Open Media).
    Av1,
    /// H.265 (RFC 7798).
    H265,
    /// Opus (RFC 7587).
    Opus,
    /// G.711, µ-law (RFC 3551, 4.5.14).
    Pcmu,
    /// G.711, A-law (RFC 3551, 4.5.14).
    Pcma,
}

impl Codec {
    /// All codecs; within a kind, the preferred ones come first.
    pub const ALL: [Self; 8] =
        [Self::Vp8, Self::H264, Self::Vp9, Self::Av1, Self::H265, Self::Opus, Self::Pcmu, Self::Pcma];

    /// Returns the codec of a kind that every peer supports (RFC 7742, RFC 7874).
    pub fn default_of(kind: Kind) -> Self {
        match kind {
            Kind::Video => Self::Vp8,
            Kind::Audio => Self::Opus,
        }
    }

    /// Returns the kind of media that the codec encodes.
    pub fn kind(self) -> Kind {
        match self {
            Self::Vp8 | Self::H264 | Self::Vp9 | Self::Av1 | Self::H265 => Kind::Video,
            Self::Opus | Self::Pcmu | Self::Pcma => Kind::Audio,
        }
    }

    /// Returns the encoding name of SDP, in capitals as in GStreamer's RTP caps.
    pub fn encoding_name(self) -> &'static str {
        match self {
            Self::Vp8 => "VP8",
            Self::H264 => "H264",
            Self::Vp9 => "VP9",
            Self::Av1 => "AV1",
            Self::H265 => "H265",
            Self::Opus => "OPUS",
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
        }
    }

    /// Returns the codec with this encoding name; ignores case.
    pub fn from_encoding_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.encoding_name().eq_ignore_ascii_case(name))
    }

    /// Returns the RTP clock rate, in Hz.
    pub fn clock_rate(self) -> u32 {
        match self {
            Self::Opus => 48_000,
            Self::Pcmu | Self::Pcma => 8_000,
            Self::Vp8 | Self::H264 | Self::Vp9 | Self::Av1 | Self::H265 => 90_000,
        }
    }

    /// Returns the payload type under which our side offers the codec.
    pub fn payload_type(self) -> u8 {
        match self {
            Self::Vp8 => 96,
            Self::H264 => 102,
            Self::Vp9 => 98,
            Self::Av1 => 104,
            Self::H265 => 106,
            Self::Opus => 111,
            // Static payload types (RFC 3551, 6).
            Self::Pcmu => 0,
            Self::Pcma => 8,
        }
    }
}

impl std::fmt::Display for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Vp8 => "VP8",
            Self::H264 => "H.264",
            Self::Vp9 => "VP9",
            Self::Av1 => "AV1",
            Self::H265 => "H.265",
            Self::Opus => "Opus",
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
        })
    }
}

impl std::str::FromStr for Codec {
    type Err = String;

    /// Parses a codec of an option: `vp8`, `h264`, `opus` and so on, with or without dots, in any case.
    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(|codec| codec.encoding_name().to_lowercase()).join(", ");
        let plain = text.trim().replace('.', "");
        Self::from_encoding_name(&plain).ok_or_else(|| format!("'{text}' is no codec: {}", known()))
    }
}

/// URI of the header extension for transport-wide feedback, from which the bandwidth is estimated.
pub const TRANSPORT_CC: &str = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";

/// A payload type of an m-line, with its codec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// Number of the payload type.
    pub pt: u8,
    /// Codec.
    pub codec: Codec,
    /// Format parameters (`a=fmtp`), in the order of the m-line.
    pub fmtp: Vec<(String, String)>,
    /// Feedback messages (`a=rtcp-fb`), such as `nack pli`.
    pub feedback: Vec<String>,
    /// Number of the header extension [`TRANSPORT_CC`]; `None` if the m-line lacks the extension or the feedback.
    pub transport_cc: Option<u8>,
}

impl Payload {
    /// Returns the value of a format parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.fmtp.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns how well the payload type fits our encoders: the better it fits, the higher the rank; `None` if it
    /// cannot be used. H.264 needs packetization mode 1 and (constrained) baseline; VP9 and AV1 need profile 0 with
    /// eight bits.
    fn rank(&self) -> Option<u8> {
        let is_first = |name| self.parameter(name).is_none_or(|profile| profile == "0");
        match self.codec {
            Codec::H264 => {}
            Codec::Vp9 => return is_first("profile-id").then_some(0),
            Codec::Av1 => return is_first("profile").then_some(0),
            Codec::Vp8 | Codec::H265 | Codec::Opus | Codec::Pcmu | Codec::Pcma => return Some(0),
        }
        let profile = self.parameter("profile-level-id").unwrap_or("42e01f").to_ascii_lowercase();
        match (self.parameter("packetization-mode"), profile.get(..4)) {
            (Some("1"), Some("42e0" | "42c0")) => Some(2),
            (Some("1"), Some("4200")) => Some(1),
            _ => None,
        }
    }
}

/// Returns whether a text has only characters that are safe in caps and pipeline texts.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
}

/// Returns the number of the header extension [`TRANSPORT_CC`] in an m-line, if the number fits the one-byte form (RFC
/// 8285, 4.2).
fn transport_cc(media: &Media) -> Option<u8> {
    let extensions = media.attributes("extmap").filter_map(|value| value.trim().split_once(' '));
    let found = extensions.filter(|(_, uri)| uri.split(' ').next() == Some(TRANSPORT_CC));
    let ids = found.filter_map(|(id, _)| id.split('/').next()?.parse().ok());
    ids.into_iter().find(|id| (1..15).contains(id))
}

/// Returns the payload types of an m-line that our side can use, of these codecs: first the `preferred` codecs in that
/// order, then the others in the order of the m-line; within a codec, the payload type that fits best comes first.
pub fn usable(media: &Media, codecs: &[Codec], preferred: &[Codec]) -> Vec<Payload> {
    let extension = transport_cc(media);
    let all: Vec<(u8, Payload)> = media
        .attributes("rtpmap")
        .filter_map(|map| {
            let (pt, map) = map.split_once(' ')?;
            let mut parts = map.trim().split('/');
            let codec = Codec::from_encoding_name(parts.next()?)?;
            let rate: u32 = parts.next()?.parse().ok()?;
            let number: u8 = pt.parse().ok().filter(|pt| *pt < 128)?;
            if !codecs.contains(&codec) || rate != codec.clock_rate() || Kind::of(media) != Some(codec.kind())
            {
                return None;
            }
            let fmtp = media.attributes("fmtp").filter_map(|v| v.split_once(' ')).filter(|(n, _)| *n == pt);
            let fmtp = fmtp.flat_map(|(_, v)| v.split(';')).filter_map(|p| p.trim().split_once('='));
            let fmtp = fmtp.map(|(k, v)| (k.trim(), v.trim())).filter(|(k, v)| is_token(k) && is_token(v));
            let fmtp = fmtp.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
            let feedback = media.attributes("rtcp-fb").filter_map(|v| v.split_once(' '));
            let feedback = feedback.filter(|(n, _)| *n == pt || *n == "*").map(|(_, v)| v.trim().to_owned());
            let feedback: Vec<String> = feedback.collect();
            let transport_cc =
                extension.filter(|_| feedback.iter().any(|feedback| feedback == "transport-cc"));
            let payload = Payload { pt: number, codec, fmtp, feedback, transport_cc };
            Some((payload.rank()?, payload))
        })
        .collect();
    let formats: Vec<&str> = media.rest.split(' ').skip(2).collect();
    let place = |codec: Codec| {
        let of_codec = all.iter().filter(|(_, payload)| payload.codec == codec);
        let positions = of_codec.filter_map(|(_, p)| formats.iter().position(|pt| *pt == p.pt.to_string()));
        let preference = preferred.iter().position(|other| *other == codec).unwrap_or(preferred.len());
        (preference, positions.min().unwrap_or(formats.len()))
    };
    let mut order: Vec<_> =
        all.iter().map(|(rank, payload)| (place(payload.codec), u8::MAX - rank, payload.clone())).collect();
    order.sort_by_key(|(place, rank, _)| (*place, *rank));
    order.into_iter().map(|(_, _, payload)| payload).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Sdp, tests::CHROMIUM};
    use super::*;

    #[test]
    fn payload_types_are_sorted_by_our_preference_and_then_as_offered() {
        let sdp = Sdp::parse(CHROMIUM).unwrap();
        let both = [Codec::Vp8, Codec::H264];
        let video = usable(&sdp.media[1], &both, &[]);
        assert_eq!(video.iter().map(|p| p.pt).collect::<Vec<_>>(), [96, 109, 107]);
        let video = usable(&sdp.media[1], &both, &[Codec::H264]);
        assert_eq!(video.iter().map(|p| p.pt).collect::<Vec<_>>(), [109, 107, 96]);
        assert!(video[0].feedback.contains(&"nack pli".to_owned()));
        let audio = usable(&sdp.media[0], &[Codec::Opus], &[]);
        assert_eq!((audio.len(), audio[0].pt), (1, 111));
        assert!(usable(&sdp.media[2], &Codec::ALL, &[]).is_empty());
    }

    #[test]
    fn transport_wide_feedback_needs_both_lines_and_a_one_byte_number() {
        let found = |lines: &str| {
            let text = format!("v=0\nm=video 9 X 96\na=rtpmap:96 VP8/90000\n{lines}");
            usable(&Sdp::parse(&text).unwrap().media[0], &Codec::ALL, &[])[0].transport_cc
        };
        let feedback = "a=rtcp-fb:96 transport-cc\n";
        assert_eq!(found(&format!("{feedback}a=extmap:5 {TRANSPORT_CC}\n")), Some(5));
        assert_eq!(found(&format!("{feedback}a=extmap:5/sendrecv {TRANSPORT_CC} x\n")), Some(5));
        assert_eq!(found(feedback), None);
        assert_eq!(found(&format!("a=extmap:5 {TRANSPORT_CC}\n")), None);
        assert_eq!(
            found(&format!("{feedback}a=extmap:0 {TRANSPORT_CC}\na=extmap:4096 {TRANSPORT_CC}\n")),
            None
        );
    }
}
