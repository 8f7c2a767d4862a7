//! Configuration of a capture source, and the text of its pipeline.

use std::path::PathBuf;

use super::size;
use crate::media::gst::error::MediaError;
use crate::media::gst::inventory;
use crate::media::gst::launch::{self, Folder};
use crate::media::gst::voice::{SHAPE, Voice};
use crate::media::send::encoded_source;
use crate::sdp::Kind;

/// Configuration of the capture source of one media kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceConfig {
    /// The name of a file in `pipelines/source`, or the text of a pipeline (recognised by its `!`).
    pub source: String,
    /// Value of the placeholder `{device}`; for `{uri}`, a path or an address.
    pub device: Option<String>,
    /// Width and height of the video in pixels; if absent, the source's own size, at most 1280x720.
    pub size: Option<(u32, u32)>,
    /// Maximum frame rate in frames per second.
    pub fps: u32,
    /// Voice processing of the captured audio.
    pub voice: Voice,
}

/// Sources that pick up the audio of a loudspeaker in the same room, so that echo cancellation applies to them.
pub const MICROPHONES: [&str; 3] = ["microphone", "pulse", "alsa"];

/// Name of the source that reads a file: its frames are paced, and it is played in a loop.
pub(super) const FILE: &str = "file";
/// Name of the source that reads a network camera over RTSP.
const RTSP: &str = "rtsp";
/// Sources whose `{device}` names a device of this machine.
const DEVICES: [&str; 5] = ["camera", "camera-h264", "microphone", "pulse", "alsa"];

/// Named sources of video alone, and of audio alone.
const OF_ONE_KIND: [(Kind, &[&str]); 2] = [
    (Kind::Video, &["camera", "camera-h264", "screen", "test", "smpte"]),
    (Kind::Audio, &["microphone", "pulse", "alsa", "tone", "silence"]),
];

/// Raw caps of any memory type, which `decodebin` exposes without a further decoder.
const RAW: &str = "video/x-raw(ANY);audio/x-raw(ANY);text/x-raw(ANY)";

impl SourceConfig {
    /// Returns the configuration of a named pipeline of `pipelines/source`, with 30 frames per second and no device.
    pub fn named(source: &str) -> Self {
        Self { source: source.to_owned(), device: None, size: None, fps: 30, voice: Voice::AsItIs }
    }

    /// Returns whether the source reads a file or a file's address; such a source is paced and played in a loop.
    pub(super) fn is_file(&self) -> bool {
        self.source == FILE
    }

    /// Returns whether the source reads a file of a web server.
    pub(super) fn is_web(&self) -> bool {
        let is_web = |uri: &str| uri.starts_with("http:") || uri.starts_with("https:");
        self.is_file() && self.device.as_deref().is_some_and(is_web)
    }

    /// Returns whether the source reads a network camera, which may start later than this program.
    pub(crate) fn is_network(&self) -> bool {
        self.source == RTSP
    }

    /// Returns the source's name for messages, without the password of an address.
    pub(crate) fn name(&self, kind: Kind) -> String {
        let device = self.device.as_deref().map(without_password);
        match (self.source.as_str(), device) {
            (FILE, Some(device)) => format!("the file {device}"),
            (RTSP, Some(device)) => format!("the camera {device}"),
            (source, _) if source.contains('!') => format!("the {kind} pipeline"),
            (source, Some(device)) => format!("the {kind} source '{source}' ({device})"),
            (source, None) => format!("the {kind} source '{source}'"),
        }
    }

    /// Checks that the file exists and is no folder, or that an element for the scheme of its address is installed.
    pub(super) fn check(&self) -> Result<(), MediaError> {
        let Some(device) = self.device.as_deref().filter(|_| self.is_file()) else { return Ok(()) };
        let uri = uri(device)?;
        if !uri.starts_with("file:") {
            let scheme = uri.split(':').next().unwrap_or_default();
            let reader = gst::Element::make_from_uri(gst::URIType::Src, &uri, None);
            return match (reader, scheme) {
                (Ok(_), _) => Ok(()),
                (Err(_), "http" | "https") => {
                    Err(MediaError::MissingElement { element: "souphttpsrc".to_owned() })
                }
                (Err(error), _) => Err(MediaError::File { path: device.into(), reason: error.to_string() }),
            };
        }
        let failed = |reason: String| MediaError::File { path: device.to_owned(), reason };
        let (path, _) = gst::glib::filename_from_uri(&uri).map_err(|error| failed(error.to_string()))?;
        let opened = std::fs::File::open(path).and_then(|file| file.metadata());
        match opened {
            Ok(metadata) if metadata.is_dir() => Err(failed("it is a folder".to_owned())),
            Ok(_) => Ok(()),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Returns the error for a source that delivers no frame; for a device, the error lists the devices present.
    pub(super) fn error(&self, kind: Kind, reason: String) -> MediaError {
        let devices = || {
            let there = inventory::sources().into_iter().filter(|device| device.kind == kind);
            let there: Vec<String> = there
                .map(|one| match one.device {
                    Some(device) => format!("{} {device}", one.source),
                    None => one.source.to_owned(),
                })
                .collect();
            if there.is_empty() { "none".to_owned() } else { there.join(", ") }
        };
        let there = DEVICES.contains(&self.source.as_str()).then(devices);
        let advice = match self.is_web() {
            true => "; is its address right and, with https, its certificate one that this machine trusts?",
            false => "",
        };
        let reason = format!("{reason}{advice}");
        MediaError::Source { name: self.name(kind), reason, there }
    }

    /// Checks that a named source does not give the other kind alone.
    fn check_kind(&self, kind: Kind) -> Result<(), MediaError> {
        let has = |names: &[&str]| names.contains(&self.source.as_str());
        let Some((other, _)) = OF_ONE_KIND.iter().find(|(other, names)| *other != kind && has(names)) else {
            return Ok(());
        };
        let names: Vec<&str> =
            OF_ONE_KIND.iter().filter(|(of, _)| *of == kind).flat_map(|(_, names)| *names).copied().collect();
        let (name, names) = (&self.source, names.join(", "));
        Err(MediaError::Parameter(format!(
            "the source '{name}' gives {other} only; sources of {kind} are {names}, {FILE} and {RTSP}"
        )))
    }

    /// Returns the text of the whole pipeline: the source, and the elements that convert its media to one format. Video
    /// that is encoded already leaves by a separate appsink, `encoded`.
    pub(super) fn text(&self, kind: Kind) -> Result<String, MediaError> {
        self.check_kind(kind)?;
        let is_text = self.source.contains('!');
        let source = match is_text {
            true => self.source.clone(),
            false => launch::named(Folder::Source, &self.source)?,
        };
        if self.device.is_some() && !source.contains("{device") && !source.contains("{uri") {
            let name = &self.source;
            return Err(MediaError::Parameter(format!("the source '{name}' accepts no device")));
        }
        if self.device.is_none() && source.contains("{uri}") {
            return Err(MediaError::NoDevice);
        }
        let (width, height) = self.size.unwrap_or(size::MOST);
        let (can_pass, encoded) = (source.contains("{encoded}"), encoded_source::caps());
        let left = if kind == Kind::Video { format!("{encoded};{RAW}") } else { RAW.to_owned() };
        let source = launch::fill(
            &source,
            &[
                ("uri", self.device.as_deref().filter(|_| self.is_file()).map(uri).transpose()?),
                ("device", self.device.clone()),
                ("width", Some(width.to_string())),
                ("height", Some(height.to_string())),
                ("fps", Some(self.fps.to_string())),
                ("encoded", Some(left)),
                ("kind", Some(kind.to_string())),
            ],
        )?;
        let pass = "appsink name=encoded max-buffers=50 async=false";
        Ok(match kind {
            Kind::Video if can_pass => {
                let raw = self.raw_video("auto");
                format!(
                    "{source} source. ! capsfilter caps=\"{encoded}\" ! {pass} source. ! {raw} async=false"
                )
            }
            Kind::Video if is_text && encoded_source::ends_encoded(&source) => format!("{source} ! {pass}"),
            Kind::Video => format!("{source} ! {}", self.raw_video("auto")),
            Kind::Audio => format!(
                "{source} ! audioconvert ! audioresample ! {SHAPE} ! identity name=time ! {} \
                 appsink name=out max-buffers=50 drop=true",
                self.voice.text()
            ),
        })
    }

    /// Returns the elements that convert any raw video to upright I420 frames; [`super::size`] sets the frame size.
    /// `turn` is a value of videoflip's `video-direction`.
    pub(super) fn raw_video(&self, turn: &str) -> String {
        let (width, height) = self.size.unwrap_or(size::MOST);
        format!(
            "videoconvert ! identity name=time ! videoflip video-direction={turn} ! videoscale name=scale ! \
             capsfilter name=end caps=\"video/x-raw,format=I420,width=[16,{width}],height=[16,{height}],\
             pixel-aspect-ratio=1/1\" ! appsink name=out max-buffers=4 drop=true"
        )
    }
}

/// Returns the URI of a file that is given by a path or a URI.
fn uri(device: &str) -> Result<String, MediaError> {
    let scheme = device.split_once("://").map(|(scheme, _)| scheme);
    if scheme.is_some_and(|scheme| !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric())) {
        return Ok(device.to_owned());
    }
    let failed = |reason: String| MediaError::File { path: device.to_owned(), reason };
    let path: PathBuf = std::path::absolute(device).map_err(|error| failed(error.to_string()))?;
    let uri = gst::glib::filename_to_uri(path, None).map_err(|error| failed(error.to_string()))?;
    Ok(uri.to_string())
}

/// Removes the user name and the password from an address.
fn without_password(device: &str) -> String {
    let Some((scheme, rest)) = device.split_once("://") else { return device.to_owned() };
    let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(device: &str) -> SourceConfig {
        SourceConfig { device: Some(device.to_owned()), ..SourceConfig::named(FILE) }
    }

    #[test]
    fn a_source_of_the_other_kind_is_refused_with_the_sources_of_this_one() {
        let error = SourceConfig::named("test").text(Kind::Audio).unwrap_err().to_string();
        assert_eq!(
            error,
            "the source 'test' gives video only; sources of audio are microphone, pulse, alsa, tone, silence, file and rtsp"
        );
        let error = SourceConfig::named("tone").text(Kind::Video).unwrap_err().to_string();
        assert!(
            error.starts_with("the source 'tone' gives audio only; sources of video are camera,"),
            "{error}"
        );
        for (kind, names) in OF_ONE_KIND {
            for name in names {
                assert!(SourceConfig::named(name).check_kind(kind).is_ok());
                assert!(
                    launch::BUILT_IN
                        .iter()
                        .any(|(folder, built_in, _)| (*folder, *built_in) == (Folder::Source, *name))
                );
            }
        }
    }

    #[test]
    fn a_file_is_named_by_a_path_or_an_address() {
        assert_eq!(uri("/a b/ö.mkv").unwrap(), "file:///a%20b/%C3%B6.mkv");
        assert_eq!(uri("https://example.org/a.mp4").unwrap(), "https://example.org/a.mp4");
        assert!(uri("film.mkv").unwrap().starts_with("file:///"));
        assert!(uri("a://b/c").unwrap().starts_with("a:") && uri("x y://b").unwrap().starts_with("file:"));
    }

    #[test]
    fn errors_name_the_missing_file() {
        crate::media::gst::init().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (there, is_folder) = (folder.path().join("a b.mkv"), folder.path().to_str().unwrap());
        std::fs::write(&there, "").unwrap();
        let address = gst::glib::filename_to_uri(&there, None).unwrap();
        assert!(file(there.to_str().unwrap()).check().is_ok() && file(&address).check().is_ok());
        let error = |device: &str| file(device).check().unwrap_err().to_string();
        let missing = error("/nonexistent.mkv");
        assert!(missing.contains("/nonexistent.mkv") && missing.contains("No such file"), "{missing}");
        assert!(error("file:///nonexistent%20.mkv").contains("No such file"));
        assert!(error(is_folder).contains("it is a folder"));
        assert!(error("gopher://example.org/a.mkv").contains("gopher"));
        assert!(file("https://example.org/a.mp4").check().is_ok());
    }

    #[test]
    fn names_hold_no_password() {
        let name = |source, device: &str| {
            SourceConfig { device: Some(device.into()), ..SourceConfig::named(source) }.name(Kind::Video)
        };
        assert_eq!(name("rtsp", "rtsp://me:p@ss@10.0.0.9:554/a@b"), "the camera rtsp://10.0.0.9:554/a@b");
        assert_eq!(name("rtsp", "rtsp://10.0.0.9"), "the camera rtsp://10.0.0.9");
        assert_eq!(name("file", "/a@b.mkv"), "the file /a@b.mkv");
        assert_eq!(SourceConfig::named("camera").name(Kind::Video), "the video source 'camera'");
        assert_eq!(SourceConfig::named("a ! b").name(Kind::Audio), "the audio pipeline");
    }
}
