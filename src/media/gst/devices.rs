//! Cameras, microphones, speakers and displays of this machine.

use gst::prelude::*;

use crate::sdp::Kind;

/// A device that GStreamer can capture from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Display name.
    pub name: String,
    /// Name of the source in `pipelines/source` that captures from it.
    pub source: &'static str,
    /// The device, as the source expects it; absent for the default device.
    pub device: Option<String>,
    /// Audio or video.
    pub kind: Kind,
}

/// Returns the cameras and microphones of this machine.
pub fn sources() -> Vec<Device> {
    devices(&[("Video/Source", Kind::Video), ("Audio/Source", Kind::Audio)])
}

/// Returns whether there is a display for windows (X11 or Wayland).
pub fn has_display() -> bool {
    ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some())
}

/// Returns whether there is a device to play audio on.
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
            let (source, device_name) =
                match (kind, text("device.path"), text("node.name"), text("alsa.card")) {
                    (Kind::Video, path, ..) => ("camera", path),
                    (Kind::Audio, _, Some(name), _) => ("pulse", Some(name)),
                    (Kind::Audio, _, None, Some(card)) => ("alsa", Some(format!("hw:{card}"))),
                    (Kind::Audio, ..) => ("microphone", None),
                };
            Device { name: device.display_name().to_string(), source, device: device_name, kind: *kind }
        }));
        monitor.stop();
    }
    found
}
