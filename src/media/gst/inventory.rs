//! What is installed here: devices, codecs, and what is missing with the package that brings it.

use std::collections::BTreeSet;
use std::sync::Mutex;

use gst::prelude::*;

pub use super::devices::{Device, has_display, has_speaker, sources};
use super::error::MediaError;
pub use super::packages::{PARTS, Part, advice, is_installed};
use crate::base::lock::lock;
use crate::sdp::Codec;

/// Refuses to go on when something that every call needs is missing.
pub fn check() -> Result<(), MediaError> {
    match PARTS.iter().find(|part| part.required && !is_installed(part.element)) {
        Some(part) => Err(MediaError::MissingElement { element: part.element.to_owned() }),
        None => Ok(()),
    }
}

/// An element that encodes or decodes a codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Of what.
    pub codec: Codec,
    /// The element.
    pub element: &'static str,
    /// The way through it: of an encoder the name of its pipeline in `pipelines/encode`, of a decoder gst-launch words.
    pub way: &'static str,
    /// In hardware.
    pub hardware: bool,
}

const fn hard(codec: Codec, element: &'static str, way: &'static str) -> Choice {
    Choice { codec, element, way, hardware: true }
}

const fn soft(codec: Codec, element: &'static str, way: &'static str) -> Choice {
    Choice { codec, element, way, hardware: false }
}

/// Every encoder that roomtone has a pipeline for, software in the order of preference.
pub const ENCODERS: &[Choice] = &[
    hard(Codec::Vp8, "vaapivp8enc", "vp8-vaapi"),
    hard(Codec::Vp8, "v4l2vp8enc", "vp8-v4l2"),
    soft(Codec::Vp8, "vp8enc", "vp8"),
    hard(Codec::H264, "vah264enc", "h264-va"),
    hard(Codec::H264, "vah264lpenc", "h264-valp"),
    hard(Codec::H264, "nvh264enc", "h264-nv"),
    hard(Codec::H264, "vtenc_h264_hw", "h264-vt"),
    hard(Codec::H264, "v4l2h264enc", "h264-v4l2"),
    hard(Codec::H264, "vaapih264enc", "h264-vaapi"),
    soft(Codec::H264, "x264enc", "h264"),
    soft(Codec::H264, "openh264enc", "h264-openh264"),
    hard(Codec::Vp9, "vaapivp9enc", "vp9-vaapi"),
    soft(Codec::Vp9, "vp9enc", "vp9"),
    hard(Codec::Av1, "vaav1enc", "av1-va"),
    hard(Codec::Av1, "nvav1enc", "av1-nv"),
    soft(Codec::Av1, "av1enc", "av1"),
    hard(Codec::H265, "vah265enc", "h265-va"),
    hard(Codec::H265, "nvh265enc", "h265-nv"),
    hard(Codec::H265, "vtenc_h265_hw", "h265-vt"),
    soft(Codec::H265, "x265enc", "h265"),
    soft(Codec::Opus, "opusenc", "opus"),
    soft(Codec::Pcmu, "mulawenc", "pcmu"),
    soft(Codec::Pcma, "alawenc", "pcma"),
];

/// Every decoder that roomtone uses, software in the order of preference. What is lost of Opus is made up, from the packet
/// after it where that has it too (RFC 6716, 2.1.7).
pub const DECODERS: &[Choice] = &[
    hard(Codec::Vp8, "vavp8dec", "vavp8dec"),
    hard(Codec::Vp8, "nvvp8dec", "nvvp8dec"),
    hard(Codec::Vp8, "v4l2vp8dec", "v4l2vp8dec"),
    soft(Codec::Vp8, "vp8dec", "vp8dec"),
    soft(Codec::Vp8, "avdec_vp8", "avdec_vp8"),
    hard(Codec::H264, "vah264dec", "h264parse ! vah264dec"),
    hard(Codec::H264, "nvh264dec", "h264parse ! nvh264dec"),
    hard(Codec::H264, "vtdec_hw", "h264parse ! vtdec_hw"),
    hard(Codec::H264, "v4l2h264dec", "h264parse ! v4l2h264dec"),
    soft(Codec::H264, "avdec_h264", "avdec_h264"),
    soft(Codec::H264, "openh264dec", "openh264dec"),
    hard(Codec::Vp9, "vavp9dec", "vp9parse ! vavp9dec"),
    hard(Codec::Vp9, "nvvp9dec", "vp9parse ! nvvp9dec"),
    hard(Codec::Vp9, "v4l2vp9dec", "vp9parse ! v4l2vp9dec"),
    soft(Codec::Vp9, "vp9dec", "vp9dec"),
    soft(Codec::Vp9, "avdec_vp9", "avdec_vp9"),
    hard(Codec::Av1, "vaav1dec", "av1parse ! vaav1dec"),
    hard(Codec::Av1, "nvav1dec", "av1parse ! nvav1dec"),
    soft(Codec::Av1, "dav1ddec", "dav1ddec"),
    soft(Codec::Av1, "avdec_av1", "avdec_av1"),
    soft(Codec::Av1, "av1dec", "av1dec"),
    hard(Codec::H265, "vah265dec", "h265parse ! vah265dec"),
    hard(Codec::H265, "nvh265dec", "h265parse ! nvh265dec"),
    hard(Codec::H265, "vtdec_hw", "h265parse ! vtdec_hw"),
    hard(Codec::H265, "v4l2h265dec", "h265parse ! v4l2h265dec"),
    soft(Codec::H265, "avdec_h265", "avdec_h265"),
    soft(Codec::H265, "libde265dec", "libde265dec"),
    soft(Codec::Opus, "opusdec", "opusdec plc=true"),
    soft(Codec::Pcmu, "mulawdec", "mulawdec"),
    soft(Codec::Pcma, "alawdec", "alawdec"),
];

/// Those of a codec that are installed, the best first: in hardware by their rank (of software: none), then in software.
/// GStreamer has those in hardware in its registry only where the hardware is.
fn installed(all: &[Choice], codec: Codec) -> Vec<(Option<gst::Rank>, Choice)> {
    let found = all.iter().filter(|choice| choice.codec == codec).filter_map(|choice| {
        let rank = gst::ElementFactory::find(choice.element)?.rank();
        Some((choice.hardware.then_some(rank), *choice))
    });
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
    found
}

/// Refuses that there is none; the element to install is the first in software.
fn some(found: Vec<Choice>, all: &[Choice], codec: Codec) -> Result<Vec<Choice>, MediaError> {
    let first = all.iter().find(|choice| choice.codec == codec && !choice.hardware);
    match found.is_empty() {
        true => {
            Err(MediaError::MissingElement { element: first.map_or("", |choice| choice.element).to_owned() })
        }
        false => Ok(found),
    }
}

/// The encoders of a codec that are installed, the best first, and before them the one that is wanted.
pub fn encoders(codec: Codec, wanted: Option<&str>) -> Result<Vec<Choice>, MediaError> {
    let mut found: Vec<_> = installed(ENCODERS, codec).into_iter().map(|(_, choice)| choice).collect();
    found.sort_by_key(|choice| Some(choice.element) != wanted);
    some(found, ENCODERS, codec)
}

/// The encoder of a codec that is used here unless it fails.
pub fn encoder(codec: Codec) -> Result<Choice, MediaError> {
    let missing = || MediaError::MissingElement { element: codec.to_string() };
    encoders(codec, None)?.into_iter().next().ok_or_else(missing)
}

/// The decoders in hardware that failed.
static GIVEN_UP: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());

/// A decoder failed: where it is one in hardware, it is not taken again.
pub(crate) fn give_up(decoder: &'static str) {
    if DECODERS.iter().any(|choice| choice.hardware && choice.element == decoder) {
        lock(&GIVEN_UP).insert(decoder);
    }
}

/// The decoders of a codec that are installed, the best first; none in hardware that failed, or whose rank says that it is
/// not to be taken by itself.
pub fn decoders(codec: Codec) -> Result<Vec<Choice>, MediaError> {
    let given_up = lock(&GIVEN_UP);
    let mut found = installed(DECODERS, codec);
    found.retain(|(rank, choice)| *rank != Some(gst::Rank::NONE) && !given_up.contains(choice.element));
    some(found.into_iter().map(|(_, choice)| choice).collect(), DECODERS, codec)
}

/// The decoder of a codec in software, which is there for as long as its pipeline.
pub fn software_decoder(codec: Codec) -> Result<Choice, MediaError> {
    let software = decoders(codec)?.into_iter().find(|choice| !choice.hardware);
    software.ok_or_else(|| MediaError::MissingElement { element: codec.to_string() })
}

/// The pipeline's elements that both ends of a codec take besides the encoder and the decoder.
fn between(codec: Codec) -> &'static [&'static str] {
    match codec {
        Codec::Vp9 => &["vp9parse"],
        Codec::Av1 => &["rtpav1pay", "rtpav1depay", "av1parse"],
        Codec::H264 => &["h264parse"],
        Codec::H265 => &["h265parse"],
        Codec::Vp8 | Codec::Opus | Codec::Pcmu | Codec::Pcma => &[],
    }
}

/// Refuses a codec that cannot be both encoded and decoded here.
pub fn check_codec(codec: Codec) -> Result<(), MediaError> {
    encoder(codec)?;
    decoders(codec)?;
    match between(codec).iter().find(|element| !is_installed(element)) {
        Some(element) => Err(MediaError::MissingElement { element: (*element).to_owned() }),
        None => Ok(()),
    }
}

/// The codecs that work here, and those of them that are preferred.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Codecs {
    /// All, the preferred ones first.
    pub all: Vec<Codec>,
    /// Those that somebody asked for, in that order.
    pub preferred: Vec<Codec>,
}

/// The codecs that work here. One that is wanted and not there is told of. An element to encode with brings its
/// own codec to the front, where none is wanted.
pub fn codecs(wanted: &[Codec], element: Option<&str>) -> Result<Codecs, MediaError> {
    let mut wanted = wanted.to_vec();
    if let Some(element) = element {
        let choice = ENCODERS.iter().find(|choice| choice.element == element);
        let choice = choice.ok_or_else(|| MediaError::UnknownName {
            kind: "encoder",
            name: element.to_owned(),
            known: ENCODERS.iter().map(|choice| choice.element.to_owned()).collect(),
        })?;
        if !is_installed(element) {
            return Err(MediaError::MissingElement { element: element.to_owned() });
        }
        if !wanted.iter().any(|codec| codec.kind() == choice.codec.kind()) {
            wanted.push(choice.codec);
        }
    }
    let mut found = Codecs::default();
    for codec in wanted {
        match check_codec(codec) {
            Ok(()) => found.preferred.push(codec),
            Err(error) => tracing::warn!("{codec} is not used: {error}"),
        }
    }
    found.all = found.preferred.clone();
    found.all.extend(Codec::ALL.into_iter().filter(|codec| check_codec(*codec).is_ok()));
    let mut seen = BTreeSet::new();
    found.all.retain(|codec| seen.insert(*codec));
    Ok(found)
}
