//! What is installed here: devices, codecs, and what is missing with the package that brings it.

use gst::prelude::*;

use super::MediaError;
use crate::sdp::{Codec, Kind};

/// An element that roomtone uses, and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The element's name.
    pub element: &'static str,
    /// Its Debian package.
    pub package: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// Without it no call is possible.
    pub required: bool,
}

const fn part(element: &'static str, package: &'static str, purpose: &'static str, required: bool) -> Part {
    Part { element, package, purpose, required }
}

/// Every element that roomtone's own pipelines may use.
pub const PARTS: &[Part] = &[
    part("webrtcbin", "gstreamer1.0-plugins-bad", "the call itself", true),
    part("nicesrc", "gstreamer1.0-nice", "ICE, the network path", true),
    part("dtlsdec", "gstreamer1.0-plugins-bad", "encryption", true),
    part("srtpdec", "gstreamer1.0-plugins-bad", "encryption", true),
    part("sctpdec", "gstreamer1.0-plugins-bad", "data channels, the chat", true),
    part("rtpbin", "gstreamer1.0-plugins-good", "RTP", true),
    part("appsrc", "gstreamer1.0-plugins-base", "the way between pipelines", true),
    part("videoconvert", "gstreamer1.0-plugins-base", "pictures", true),
    part("audioconvert", "gstreamer1.0-plugins-base", "sound", true),
    part("vp8enc", "gstreamer1.0-plugins-good", "sending VP8", true),
    part("vp8dec", "gstreamer1.0-plugins-good", "showing VP8", true),
    part("opusenc", "gstreamer1.0-plugins-base", "sending Opus", true),
    part("opusdec", "gstreamer1.0-plugins-base", "playing Opus", true),
    part("x264enc", "gstreamer1.0-plugins-ugly", "sending H.264", false),
    part("openh264enc", "gstreamer1.0-plugins-bad", "sending H.264 without x264", false),
    part("h264parse", "gstreamer1.0-plugins-bad", "H.264", false),
    part("avdec_h264", "gstreamer1.0-libav", "showing H.264", false),
    part("openh264dec", "gstreamer1.0-plugins-bad", "showing H.264 without libav", false),
    part("matroskamux", "gstreamer1.0-plugins-good", "recording", false),
    part("v4l2src", "gstreamer1.0-plugins-good", "cameras", false),
    part("ximagesrc", "gstreamer1.0-plugins-good", "the screen as a source", false),
    part("rtspsrc", "gstreamer1.0-plugins-good", "network cameras", false),
    part("autovideosink", "gstreamer1.0-plugins-good", "windows", false),
    part("ximagesink", "gstreamer1.0-x", "windows under X11", false),
    part("pulsesrc", "gstreamer1.0-pulseaudio", "microphones and speakers by PulseAudio or PipeWire", false),
    part("alsasrc", "gstreamer1.0-alsa", "microphones and speakers by ALSA", false),
];

/// Whether an element is installed, asked of the registry.
pub fn is_installed(element: &str) -> bool {
    gst::ElementFactory::find(element).is_some()
}

/// How to get an element that is missing.
pub fn advice(element: &str) -> String {
    match PARTS.iter().find(|part| part.element == element) {
        Some(part) => format!("on Debian and Ubuntu: apt install {}", part.package),
        None => "`gst-inspect-1.0` lists the elements that are installed".to_owned(),
    }
}

/// Refuses to go on when something that every call needs is missing.
pub fn check() -> Result<(), MediaError> {
    match PARTS.iter().find(|part| part.required && !is_installed(part.element)) {
        Some(part) => Err(MediaError::MissingElement { element: part.element.to_owned() }),
        None => Ok(()),
    }
}

fn first_installed<T: Copy>(choices: &[(&'static str, T)]) -> Result<T, MediaError> {
    let found = choices.iter().find(|(element, _)| is_installed(element));
    found
        .map(|(_, choice)| *choice)
        .ok_or_else(|| MediaError::MissingElement { element: choices[0].0.to_owned() })
}

/// The name of the pipeline of `pipelines/encode` for a codec.
pub fn encoder(codec: Codec) -> Result<&'static str, MediaError> {
    match codec {
        Codec::Vp8 => first_installed(&[("vp8enc", "vp8")]),
        Codec::H264 => first_installed(&[("x264enc", "h264"), ("openh264enc", "h264-openh264")]),
        Codec::Opus => first_installed(&[("opusenc", "opus")]),
    }
}

/// The decoder of a codec, as an element's name.
pub fn decoder(codec: Codec) -> Result<&'static str, MediaError> {
    let choices: &[&'static str] = match codec {
        Codec::Vp8 => &["vp8dec"],
        Codec::H264 => &["avdec_h264", "openh264dec"],
        Codec::Opus => &["opusdec"],
    };
    first_installed(&choices.iter().map(|element| (*element, *element)).collect::<Vec<_>>())
}

/// A device that GStreamer knows of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name for people.
    pub name: String,
    /// The options that choose it.
    pub options: String,
    /// Audio or video.
    pub kind: Kind,
}

/// The devices that media can be captured from.
pub fn sources() -> Vec<Device> {
    devices(&[("Video/Source", Kind::Video), ("Audio/Source", Kind::Audio)])
}

/// Whether there is a display to show a window on (X11 or Wayland).
pub fn has_display() -> bool {
    ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some())
}

/// Whether sound can be played.
pub fn has_speaker() -> bool {
    !devices(&[("Audio/Sink", Kind::Audio)]).is_empty()
}

fn devices(classes: &[(&str, Kind)]) -> Vec<Device> {
    let mut found = Vec::new();
    for (class, kind) in classes {
        let monitor = gst::DeviceMonitor::new();
        if monitor.add_filter(Some(class), None).is_none() || monitor.start().is_err() {
            continue;
        }
        found.extend(monitor.devices().iter().map(|device| {
            let properties = device.properties();
            let text = |key| properties.as_ref().and_then(|p| p.get::<String>(key).ok());
            let options = match (kind, text("device.path"), text("node.name"), text("alsa.card")) {
                (Kind::Video, Some(path), _, _) => format!("--video camera --device {path}"),
                (Kind::Audio, _, Some(name), _) => format!("--audio pulse --audio-device {name}"),
                (Kind::Audio, _, None, Some(card)) => format!("--audio alsa --audio-device hw:{card}"),
                (Kind::Audio, ..) => "--audio microphone".to_owned(),
                (Kind::Video, ..) => "--video camera".to_owned(),
            };
            Device { name: device.display_name().to_string(), options, kind: *kind }
        }));
        monitor.stop();
    }
    found
}
