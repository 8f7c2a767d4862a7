//! Pipelines as gst-launch text: named texts of `pipelines/` (compiled in; files in the user's own folder take
//! precedence), their parameters, and parsing with an error that names the invalid part.

use std::path::PathBuf;

use gst::prelude::*;

use super::error::MediaError;

/// Folder of `pipelines/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folder {
    /// Sources of media.
    Source,
    /// Encoders.
    Encode,
    /// Outputs of received media.
    Output,
}

impl Folder {
    /// Returns the name of the folder.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Encode => "encode",
            Self::Output => "output",
        }
    }
}

macro_rules! built_in {
    ($($folder:ident / $dir:literal / $name:literal),* $(,)?) => {
        &[$((Folder::$folder, $name,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/", $dir, "/", $name, ".launch")))),*]
    };
}

/// Files of `pipelines/`: folder, name, text.
pub const BUILT_IN: &[(Folder, &str, &str)] = built_in![
    Source / "source" / "camera",
    Source / "source" / "camera-h264",
    Source / "source" / "screen",
    Source / "source" / "test",
    Source / "source" / "smpte",
    Source / "source" / "file",
    Source / "source" / "rtsp",
    Source / "source" / "microphone",
    Source / "source" / "alsa",
    Source / "source" / "pulse",
    Source / "source" / "tone",
    Source / "source" / "silence",
    Encode / "encode" / "av1",
    Encode / "encode" / "av1-nv",
    Encode / "encode" / "av1-va",
    Encode / "encode" / "h264",
    Encode / "encode" / "h264-nv",
    Encode / "encode" / "h264-openh264",
    Encode / "encode" / "h264-v4l2",
    Encode / "encode" / "h264-va",
    Encode / "encode" / "h264-vaapi",
    Encode / "encode" / "h264-valp",
    Encode / "encode" / "h264-vt",
    Encode / "encode" / "h265",
    Encode / "encode" / "h265-nv",
    Encode / "encode" / "h265-va",
    Encode / "encode" / "h265-vt",
    Encode / "encode" / "opus",
    Encode / "encode" / "pcma",
    Encode / "encode" / "pcmu",
    Encode / "encode" / "vp8",
    Encode / "encode" / "vp8-v4l2",
    Encode / "encode" / "vp8-vaapi",
    Encode / "encode" / "vp9",
    Encode / "encode" / "vp9-vaapi",
    Output / "output" / "window",
    Output / "output" / "speaker",
];

/// Returns the folder of the user's own pipelines, `$XDG_CONFIG_HOME/roomtone/pipelines`.
fn own_folder() -> Option<PathBuf> {
    Some(crate::paths::config_dir()?.join("pipelines"))
}

/// Returns the file of a named pipeline; the user's own file takes precedence.
fn file(folder: Folder, name: &str) -> Result<String, MediaError> {
    let is_plain = name.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_');
    let own = own_folder().filter(|_| is_plain);
    let own = own.map(|dir| dir.join(folder.as_str()).join(format!("{name}.launch")));
    let own = own.and_then(|path| std::fs::read_to_string(path).ok());
    let built_in = || {
        BUILT_IN.iter().find(|(f, n, _)| *f == folder && *n == name).map(|(_, _, text)| (*text).to_owned())
    };
    let unknown =
        || MediaError::UnknownName { kind: folder.as_str(), name: name.to_owned(), known: names(folder) };
    own.or_else(built_in).ok_or_else(unknown)
}

/// Returns the text of a named pipeline, without comments.
pub fn named(folder: Folder, name: &str) -> Result<String, MediaError> {
    Ok(file(folder, name)?.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join(" "))
}

/// Returns the description of a named pipeline, which is its first comment.
pub fn about(folder: Folder, name: &str) -> String {
    let file = file(folder, name).unwrap_or_default();
    file.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or_default().to_owned()
}

/// Returns the names of the pipelines in a folder, including the user's own.
pub fn names(folder: Folder) -> Vec<String> {
    let built_in = BUILT_IN.iter().filter(|(f, _, _)| *f == folder).map(|(_, name, _)| (*name).to_owned());
    let own = own_folder().and_then(|dir| std::fs::read_dir(dir.join(folder.as_str())).ok());
    let own = own
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".launch").map(str::to_owned));
    let mut names: Vec<String> = built_in.chain(own).collect();
    names.sort();
    names.dedup();
    names
}

/// Replaces `{name}` and `{name:default}` by values. Values that are not plain words are quoted.
pub fn fill(text: &str, values: &[(&str, Option<String>)]) -> Result<String, MediaError> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((inside, behind)) = after.split_once('}') else { break };
        filled.push_str(before);
        let (name, default) = match inside.split_once(':') {
            Some((name, default)) => (name, Some(default.to_owned())),
            None => (inside, None),
        };
        match values.iter().find(|(n, _)| *n == name) {
            Some((_, value)) => match value.clone().or(default) {
                Some(value) => filled.push_str(&quote(&value)),
                None if name == "device" => return Err(MediaError::NoDevice),
                None => return Err(MediaError::Parameter(format!("this source needs a {name}"))),
            },
            // GStreamer uses braces itself, for lists.
            None => filled.extend(["{", inside, "}"]),
        }
        rest = behind;
    }
    Ok(filled + rest)
}

fn quote(value: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-:".contains(c);
    match value.chars().all(is_plain) && !value.is_empty() {
        true => value.to_owned(),
        false => format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
    }
}

/// Builds a pipeline from a text.
pub fn parse(text: &str) -> Result<gst::Pipeline, MediaError> {
    let element = parse_with(text, |context| {
        gst::parse::launch_full(text, Some(context), gst::ParseFlags::FATAL_ERRORS)
    })?;
    element.downcast().or_else(|element| {
        let pipeline = gst::Pipeline::new();
        pipeline.add(&element).map_err(|error| breaks(text, &error.to_string()))?;
        Ok(pipeline)
    })
}

/// Builds a bin from a text; its unlinked pads become the bin's pads.
pub fn parse_bin(text: &str) -> Result<gst::Bin, MediaError> {
    parse_with(text, |context| {
        gst::parse::bin_from_description_full(text, true, Some(context), gst::ParseFlags::FATAL_ERRORS)
    })?
    .downcast()
    .map_err(|_| breaks(text, "it does not describe a bin"))
}

/// Builds a bin from a text as [`parse_bin`] does, but leaves its unlinked pads inside the bin.
pub(crate) fn parse_open_bin(text: &str) -> Result<gst::Bin, MediaError> {
    parse_with(text, |context| {
        gst::parse::bin_from_description_full(text, false, Some(context), gst::ParseFlags::FATAL_ERRORS)
    })?
    .downcast()
    .map_err(|_| breaks(text, "it does not describe a bin"))
}

/// Plays a pipeline until its end of stream. Waits 60 s at most.
pub fn run_to_end(pipeline: &gst::Pipeline) -> Result<(), MediaError> {
    let failed = |reason: String| MediaError::pipeline("playing a pipeline", reason);
    pipeline.set_state(gst::State::Playing).map_err(|error| failed(error.to_string()))?;
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let message =
        pipeline.bus().and_then(|bus| bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &ends));
    let _ = pipeline.set_state(gst::State::Null);
    match message.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Eos(_)) => Ok(()),
        Some(gst::MessageView::Error(error)) => Err(failed(error.error().to_string())),
        _ => Err(failed("it has no end".to_owned())),
    }
}

/// Returns the element with this name in a pipeline or bin.
pub fn by_name<T: IsA<gst::Element>>(bin: &impl IsA<gst::Bin>, name: &str) -> Result<T, MediaError> {
    let element = bin.by_name(name).and_then(|element| element.downcast().ok());
    element.ok_or_else(|| MediaError::pipeline("building a pipeline", format!("no element '{name}'")))
}

/// Builds a bin from a text; the `src` pad of the element named `end` becomes the bin's only pad. Other unlinked pads
/// stay inside: a textoverlay whose text pad is exposed would wait for text.
pub fn parse_bin_ending(text: &str, end: &str) -> Result<gst::Bin, MediaError> {
    let bin = parse_open_bin(text)?;
    let src = bin.by_name(end).and_then(|element| element.static_pad("src"));
    let src = src.ok_or_else(|| breaks(text, "it has no end"))?;
    let ghost = gst::GhostPad::with_target(&src).map_err(|error| breaks(text, &error.to_string()))?;
    ghost
        .set_active(true)
        .and_then(|()| bin.add_pad(&ghost))
        .map_err(|error| breaks(text, &error.to_string()))?;
    Ok(bin)
}

fn parse_with<T>(
    text: &str,
    parse: impl FnOnce(&mut gst::ParseContext) -> Result<T, gst::glib::Error>,
) -> Result<T, MediaError> {
    let mut context = gst::ParseContext::new();
    parse(&mut context).map_err(|error| match context.missing_elements().first() {
        Some(element) if error.matches(gst::ParseError::NoSuchElement) => {
            MediaError::MissingElement { element: element.to_string() }
        }
        _ => breaks(text, error.message()),
    })
}

/// Finds the invalid part between two `!` by parsing longer and longer beginnings of the text.
fn breaks(text: &str, reason: &str) -> MediaError {
    let parts: Vec<&str> = text.split('!').collect();
    let works = |n: &usize| gst::parse::launch(&parts[..*n].join("!")).is_ok();
    let at = (1..=parts.len()).find(|n| !works(n)).map_or(text, |n| parts[n - 1]);
    MediaError::Text { at: at.trim().to_owned(), reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_pipeline_is_parsed() {
        crate::media::gst::init().unwrap();
        for dir in ["source", "encode", "output"] {
            let files = std::fs::read_dir(format!("{}/pipelines/{dir}", env!("CARGO_MANIFEST_DIR"))).unwrap();
            for file in files {
                let name = file.unwrap().file_name().into_string().unwrap().replace(".launch", "");
                let found = BUILT_IN.iter().find(|(f, n, _)| f.as_str() == dir && *n == name);
                let (folder, name, _) = found.unwrap_or_else(|| panic!("{dir}/{name} is not built in"));
                let some = |text: &str| Some(text.to_owned());
                let text = fill(
                    &named(*folder, name).unwrap(),
                    &[
                        ("device", some("x")),
                        ("width", some("64")),
                        ("height", some("48")),
                        ("fps", some("10")),
                        ("encoded", some("video/x-h264")),
                        ("kind", some("video")),
                        ("bitrate", some("500")),
                        ("bitrate_bps", some("500000")),
                    ],
                );
                // Hardware elements exist only where the hardware is.
                let is_here = |element: &crate::media::gst::inventory::Choice| {
                    element.pipeline != *name || crate::media::gst::inventory::is_installed(element.element)
                };
                if *folder == Folder::Encode && !crate::media::gst::inventory::ENCODERS.iter().all(is_here) {
                    continue;
                }
                // A text cannot end in caps, so that a converter follows the source.
                let text = match folder {
                    Folder::Source | Folder::Encode => text.unwrap() + " ! identity",
                    Folder::Output => text.unwrap(),
                };
                parse_bin(&text).unwrap_or_else(|error| panic!("{dir}/{name}: {error}"));
            }
        }
    }

    #[test]
    fn a_broken_text_says_where() {
        crate::media::gst::init().unwrap();
        let error = |text| parse(text).unwrap_err().to_string();
        insta::assert_snapshot!(error("videotestsrc ! vp8enc deadlin=1 ! fakesink"),
            @r#"the pipeline breaks at 'vp8enc deadlin=1': no property "deadlin" in element "vp8enc""#);
        let missing = error("videotestsrc ! nosuchelement ! fakesink");
        assert!(missing.starts_with("the GStreamer element 'nosuchelement' is missing"), "{missing}");
    }

    #[test]
    fn parameters_are_filled_and_quoted() {
        let fill = |text, device: Option<&str>| fill(text, &[("device", device.map(str::to_owned))]);
        assert_eq!(fill("a d={device:x y}", None).unwrap(), "a d=\"x y\"");
        assert_eq!(fill("a d={device}", Some("/dev/video0")).unwrap(), "a d=/dev/video0");
        assert_eq!(fill("a d={device}", Some("x ! \"y\"")).unwrap(), "a d=\"x ! \\\"y\\\"\"");
        assert_eq!(fill("a caps={1,2}", None).unwrap(), "a caps={1,2}");
        assert_eq!(
            fill("a d={device}", None).unwrap_err().to_string(),
            "this source needs a device, a file or an address"
        );
    }
}
