//! `devices`, `codecs` and `doctor`.

use serde_json::json;

use crate::cli::CliError;
use crate::cli::output::json::json_line;
use crate::cli::output::result_line;
use crate::media;
use crate::media::inventory::{self, PARTS};
use crate::media::launch::{self, Folder};
use crate::sdp::{Codec, Kind};

fn print(json: bool, value: &serde_json::Value, human: &str) {
    match json {
        true => result_line(&json_line(value, time::OffsetDateTime::now_utc())),
        false => result_line(human),
    }
}

/// Lists the devices that media can be captured from, and the names of sources and outputs.
pub(super) fn devices(json: bool) -> Result<(), CliError> {
    media::init()?;
    let found = inventory::sources();
    for kind in Kind::ALL {
        let of_kind: Vec<_> = found.iter().filter(|device| device.kind == kind).collect();
        if !json {
            result_line(match kind {
                Kind::Video => "Cameras:",
                Kind::Audio => "Microphones:",
            });
            if of_kind.is_empty() {
                result_line("  none found");
            }
        }
        for device in of_kind {
            let options = options(device);
            let value =
                json!({"event": "device", "kind": kind.as_str(), "name": device.name, "options": options});
            print(json, &value, &format!("  {:40}  {options}", device.name));
        }
    }
    for (folder, title) in
        [(Folder::Source, "Sources (--video, --audio):"), (Folder::Output, "Outputs (--show, --play):")]
    {
        if !json {
            result_line(title);
        }
        for name in launch::names(folder) {
            let about = launch::about(folder, &name);
            let value = json!({"event": folder.as_str(), "name": name, "about": about});
            print(json, &value, &format!("  {name:12}  {about}"));
        }
    }
    Ok(())
}

/// Returns the options that select a device.
fn options(device: &inventory::Device) -> String {
    let (source, place) = match device.kind {
        Kind::Video => ("--video", "--device"),
        Kind::Audio => ("--audio", "--audio-device"),
    };
    let place = device.device.as_ref().map(|name| format!(" {place} {name}")).unwrap_or_default();
    format!("{source} {}{place}", device.source)
}

/// Lists the codecs in the order of preference, with the elements that encode and decode them, the default first.
pub(super) fn codecs(json: bool) -> Result<(), CliError> {
    media::init()?;
    for codec in Codec::ALL {
        let encoders = inventory::encoders(codec, None);
        let decoder = inventory::decoders(codec).map(|choices| choices[0].element);
        let elements: Vec<&str> = encoders.iter().flatten().map(|choice| choice.element).collect();
        let is_hardware = encoders.iter().flatten().next().is_some_and(|choice| choice.hardware);
        let missing = inventory::check_codec(codec).err().map(|error| error.to_string());
        let is_default = codec == Codec::default_of(codec.kind());
        let value = json!({
            "event": "codec", "name": codec.to_string(), "kind": codec.kind().as_str(),
            "encoder": elements.first(), "encoders": elements, "hardware": is_hardware,
            "decoder": decoder.as_ref().ok(), "default": is_default, "missing": missing,
        });
        let mark = if is_default { "default" } else { "" };
        let text = match (&missing, decoder) {
            (None, Ok(decoder)) => {
                let others = elements.get(1..).filter(|others| !others.is_empty());
                let others = others.map_or_else(String::new, |others| format!(" (or {})", others.join(", ")));
                let place = if is_hardware { ", in hardware" } else { "" };
                let first = elements.first().copied().unwrap_or_default();
                format!("encodes: {first}{place}{others}; decodes: {decoder}")
            }
            (missing, _) => format!("not here: {}", missing.as_deref().unwrap_or_default()),
        };
        print(json, &value, &format!("{codec:6} {:6} {mark:8} {text}", codec.kind()));
    }
    Ok(())
}

/// Lists the parts that are installed and that are missing.
pub(super) fn doctor(json: bool) -> Result<(), CliError> {
    media::init()?;
    let version = media::version();
    print(json, &json!({"event": "gstreamer", "version": version}), &format!("GStreamer {version}"));
    let mut is_complete = true;
    for part in PARTS {
        let is_there = inventory::is_installed(part.element);
        is_complete &= is_there || !part.required;
        let value = json!({
            "event": "part", "element": part.element, "purpose": part.purpose, "installed": is_there,
            "required": part.required, "package": part.package,
        });
        let (mark, rest) = match (is_there, part.required) {
            (true, _) => ("ok     ", String::new()),
            (false, true) => ("MISSING", format!(" -> {}", inventory::advice(part.element))),
            (false, false) => ("missing", format!(" -> {}", inventory::advice(part.element))),
        };
        print(json, &value, &format!("{mark} {:14} {}{rest}", part.element, part.purpose));
    }
    let sources = inventory::sources();
    let has = |kind| sources.iter().any(|device| device.kind == kind);
    let found = [
        ("display", inventory::has_display(), "video is shown in a window", "video is not shown"),
        ("speaker", inventory::has_speaker(), "audio is played", "audio is not played"),
        ("camera", has(Kind::Video), "is sent by default", "the test video is sent instead"),
        ("microphone", has(Kind::Audio), "is sent by default", "a test tone is sent instead"),
    ];
    for (name, is_there, with, without) in found {
        let value = json!({"event": "device", "name": name, "installed": is_there});
        let (mark, text) = if is_there { ("ok     ", with) } else { ("none   ", without) };
        print(json, &value, &format!("{mark} {name:14} {text}"));
    }
    match is_complete {
        true => Ok(()),
        false => Err(CliError::Incomplete),
    }
}
