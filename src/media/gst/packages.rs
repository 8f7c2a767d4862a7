//! Elements that roomtone uses, and the Debian packages that contain them.

/// An element that roomtone uses, with the package that contains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Name of the element.
    pub element: &'static str,
    /// Debian package that contains the element.
    pub package: &'static str,
    /// Purpose of the element, in a few words.
    pub purpose: &'static str,
    /// Whether every call needs the element.
    pub required: bool,
}

const fn part(element: &'static str, package: &'static str, purpose: &'static str, required: bool) -> Part {
    Part { element, package, purpose, required }
}

/// Elements that roomtone's own pipelines may use.
pub const PARTS: &[Part] = &[
    part("webrtcbin", "gstreamer1.0-plugins-bad", "the call itself", true),
    part("nicesrc", "gstreamer1.0-nice", "ICE, the network path", true),
    part("dtlsdec", "gstreamer1.0-plugins-bad", "encryption", true),
    part("srtpdec", "gstreamer1.0-plugins-bad", "encryption", true),
    part("sctpdec", "gstreamer1.0-plugins-bad", "data channels, the chat", true),
    part("rtpbin", "gstreamer1.0-plugins-good", "RTP", true),
    part("appsrc", "gstreamer1.0-plugins-base", "connections between pipelines", true),
    part("videoconvert", "gstreamer1.0-plugins-base", "video conversion", true),
    part("audioconvert", "gstreamer1.0-plugins-base", "audio conversion", true),
    part("vp8enc", "gstreamer1.0-plugins-good", "sending VP8", true),
    part("vp8dec", "gstreamer1.0-plugins-good", "showing VP8", true),
    part("opusenc", "gstreamer1.0-plugins-base", "sending Opus", true),
    part("opusdec", "gstreamer1.0-plugins-base", "playing Opus", true),
    part("x264enc", "gstreamer1.0-plugins-ugly", "sending H.264", false),
    part("openh264enc", "gstreamer1.0-plugins-bad", "sending H.264 without x264", false),
    part("h264parse", "gstreamer1.0-plugins-bad", "H.264", false),
    part("vp9enc", "gstreamer1.0-plugins-good", "sending VP9", false),
    part("vp9dec", "gstreamer1.0-plugins-good", "showing VP9", false),
    part("av1enc", "gstreamer1.0-plugins-bad", "sending AV1", false),
    part("av1dec", "gstreamer1.0-plugins-bad", "showing AV1", false),
    part("x265enc", "gstreamer1.0-plugins-bad", "sending H.265", false),
    part("avdec_h265", "gstreamer1.0-libav", "showing H.265", false),
    part("mulawenc", "gstreamer1.0-plugins-good", "G.711, for gateways", false),
    part("alawenc", "gstreamer1.0-plugins-good", "G.711, for gateways", false),
    part("avdec_h264", "gstreamer1.0-libav", "showing H.264", false),
    part("openh264dec", "gstreamer1.0-plugins-bad", "showing H.264 without libav", false),
    part("matroskamux", "gstreamer1.0-plugins-good", "recording", false),
    part("v4l2src", "gstreamer1.0-plugins-good", "cameras", false),
    part("ximagesrc", "gstreamer1.0-plugins-good", "the screen as a source", false),
    part("rtspsrc", "gstreamer1.0-plugins-good", "network cameras", false),
    part("souphttpsrc", "gstreamer1.0-plugins-good", "films of the web", false),
    part("autovideosink", "gstreamer1.0-plugins-good", "windows", false),
    part("ximagesink", "gstreamer1.0-x", "windows under X11", false),
    part("pulsesrc", "gstreamer1.0-pulseaudio", "microphones and speakers by PulseAudio or PipeWire", false),
    part("webrtcdsp", "gstreamer1.0-plugins-bad", "cancelling echo, less noise", false),
    part("alsasrc", "gstreamer1.0-alsa", "microphones and speakers by ALSA", false),
];

/// Returns whether an element is in GStreamer's registry.
pub fn is_installed(element: &str) -> bool {
    gst::ElementFactory::find(element).is_some()
}

/// Returns how to install a missing element.
pub fn advice(element: &str) -> String {
    match PARTS.iter().find(|part| part.element == element) {
        Some(part) => format!("on Debian and Ubuntu: apt install {}", part.package),
        None => "`gst-inspect-1.0` lists the elements that are installed".to_owned(),
    }
}
