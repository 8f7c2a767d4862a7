//! Codecs, encoders and decoders that are installed on this machine, and the packages of those that are missing.

use std::collections::BTreeSet;
use std::sync::Mutex;

use gst::prelude::*;

pub use super::devices::{Device, has_display, has_speaker, sources};
use super::error::MediaError;
pub use super::packages::{PARTS, Part, advice, is_installed};
use crate::base::lock::lock;
use crate::sdp::Codec;

/// Returns an error if an element that every call needs is missing.
pub fn check() -> Result<(), MediaError> {
    match PARTS.iter().find(|part| part.required && !is_installed(part.element)) {
        Some(part) => Err(MediaError::MissingElement { element: part.element.to_owned() }),
        None => Ok(()),
    }
}

/// An element that encodes or decodes a codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The codec.
    pub codec: Codec,
    /// Name of the GStreamer element.
    pub element: &'static str,
    /// For an encoder the name of its pipeline in `pipelines/encode`, for a decoder gst-launch text.
    pub pipeline: &'static str,
    /// Whether the element works in hardware.
    pub hardware: bool,
}

const fn hard(codec: Codec, element: &'static str, pipeline: &'static str) -> Choice {
    Choice { codec, element, pipeline, hardware: true }
}

const fn soft(codec: Codec, element: &'static str, pipeline: &'static str) -> Choice {
    Choice { codec, element, pipeline, hardware: false }
}

/// Encoders that roomtone has a pipeline for; software encoders in the order of preference.
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

/// Decoders that roomtone uses; software decoders in the order of preference. The Opus decoder conceals lost packets,
/// with the data of the next packet if that contains them (RFC 6716, 2.1.7).
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

/// Returns the installed choices of a codec with their ranks, best first: hardware by rank, then software, which has no
/// rank. GStreamer registers hardware elements only where the hardware is.
fn installed(all: &[Choice], codec: Codec) -> Vec<(Option<gst::Rank>, Choice)> {
    let found = all.iter().filter(|choice| choice.codec == codec).filter_map(|choice| {
        let rank = gst::ElementFactory::find(choice.element)?.rank();
        Some((choice.hardware.then_some(rank), *choice))
    });
    let mut found: Vec<_> = found.collect();
    found.sort_by_key(|(rank, _)| std::cmp::Reverse(*rank));
    found
}

/// Returns an error if no choice was found; it names the first software element as the one to install.
fn some(found: Vec<Choice>, all: &[Choice], codec: Codec) -> Result<Vec<Choice>, MediaError> {
    let first = all.iter().find(|choice| choice.codec == codec && !choice.hardware);
    match found.is_empty() {
        true => {
            Err(MediaError::MissingElement { element: first.map_or("", |choice| choice.element).to_owned() })
        }
        false => Ok(found),
    }
}

/// Returns the installed encoders of a codec, best first, the wanted one before all others.
pub fn encoders(codec: Codec, wanted: Option<&str>) -> Result<Vec<Choice>, MediaError> {
    let mut found: Vec<_> = installed(ENCODERS, codec).into_iter().map(|(_, choice)| choice).collect();
    found.sort_by_key(|choice| Some(choice.element) != wanted);
    some(found, ENCODERS, codec)
}

/// Returns the encoder of a codec that is used unless it fails.
pub fn encoder(codec: Codec) -> Result<Choice, MediaError> {
    let missing = || MediaError::MissingElement { element: codec.to_string() };
    encoders(codec, None)?.into_iter().next().ok_or_else(missing)
}

/// Hardware decoders that have failed.
static GIVEN_UP: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());

/// Excludes a hardware decoder that failed from further use; software decoders are never excluded.
pub(crate) fn give_up(decoder: &'static str) {
    if DECODERS.iter().any(|choice| choice.hardware && choice.element == decoder) {
        lock(&GIVEN_UP).insert(decoder);
    }
}

/// Returns the installed decoders of a codec, best first, without hardware decoders that failed or whose rank excludes
/// them from automatic use.
pub fn decoders(codec: Codec) -> Result<Vec<Choice>, MediaError> {
    let given_up = lock(&GIVEN_UP);
    let mut found = installed(DECODERS, codec);
    found.retain(|(rank, choice)| *rank != Some(gst::Rank::NONE) && !given_up.contains(choice.element));
    some(found.into_iter().map(|(_, choice)| choice).collect(), DECODERS, codec)
}

/// Returns the software decoder of a codec; unlike a hardware decoder, it is available for as long as its pipeline
/// runs.
pub fn software_decoder(codec: Codec) -> Result<Choice, MediaError> {
    let software = decoders(codec)?.into_iter().find(|choice| !choice.hardware);
    software.ok_or_else(|| MediaError::MissingElement { element: codec.to_string() })
}

/// Returns the elements that sending and receiving a codec needs besides the encoder and the decoder.
fn between(codec: Codec) -> &'static [&'static str] {
    match codec {
        Codec::Vp9 => &["vp9parse"],
        Codec::Av1 => &["rtpav1pay", "rtpav1depay", "av1parse"],
        Codec::H264 => &["h264parse"],
        Codec::H265 => &["h265parse"],
        Codec::Vp8 | Codec::Opus | Codec::Pcmu | Codec::Pcma => &[],
    }
}

/// Returns an error if a codec cannot be both encoded and decoded on this machine.
pub fn check_codec(codec: Codec) -> Result<(), MediaError> {
    encoder(codec)?;
    decoders(codec)?;
    match between(codec).iter().find(|element| !is_installed(element)) {
        Some(element) => Err(MediaError::MissingElement { element: (*element).to_owned() }),
        None => Ok(()),
    }
}

/// Codecs that work on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Codecs {
    /// All codecs, the preferred ones first.
    pub all: Vec<Codec>,
    /// Codecs that the user chose, in the user's order.
    pub preferred: Vec<Codec>,
}

/// Returns the codecs that work on this machine, and warns of wanted codecs that do not. A wanted encoder element moves
/// its codec to the front if no codec of its kind is wanted.
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
