//! The house keeps its order: who may import whom, and what the pure layers do without.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

use std::path::{Path, PathBuf};

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The layer of a file and its code, without tests and comments.
fn sources() -> Vec<(String, PathBuf, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let layer = |path: &Path| {
        let first = path.strip_prefix(&src).unwrap().components().next().unwrap();
        first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
    };
    let code = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap().to_owned();
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    };
    let all = files(&src)
        .into_iter()
        .filter(|path| !path.ends_with("tests.rs") && !path.iter().any(|part| part == "tests"));
    all.map(|path| (layer(&path), path.clone(), code(&path))).collect()
}

/// Returns the layers that a layer may import: `bin → cli → app → {media, signalling, server} → {session, hub} →
/// {protocol, sdp}`, and `tls`, `paths` and `base` where needed.
fn may_import(layer: &str) -> &'static [&'static str] {
    match layer {
        "base" => &[],
        "protocol" | "sdp" | "tls" | "paths" => &["base"],
        "session" | "hub" => &["base", "protocol", "sdp"],
        "media" => &["base", "protocol", "sdp", "session", "paths"],
        "signalling" => &["base", "protocol", "sdp", "session", "tls"],
        "server" => &["base", "protocol", "hub", "tls", "paths"],
        "app" => {
            &["base", "protocol", "sdp", "session", "hub", "media", "signalling", "server", "tls", "paths"]
        }
        "tester" => &["base", "protocol", "signalling"],
        "cli" => &[
            "base",
            "app",
            "tester",
            "protocol",
            "sdp",
            "hub",
            "media",
            "signalling",
            "server",
            "tls",
            "paths",
        ],
        "bin" | "lib" => &["cli"],
        other => panic!("what layer is {other}?"),
    }
}

/// An example is to be read in a minute.
#[test]
fn examples_are_short() {
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")).unwrap() {
        let path = entry.unwrap().path();
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines < 60, "{} has {lines} lines", path.display());
    }
}

#[test]
fn no_layer_imports_what_stands_above_it() {
    for (layer, path, code) in sources() {
        for part in code.split("crate::").skip(1).chain(code.split("roomtone::").skip(1)) {
            let target: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let is_layer = [
                "base",
                "protocol",
                "sdp",
                "session",
                "hub",
                "media",
                "signalling",
                "server",
                "app",
                "cli",
                "tls",
                "paths",
            ];
            if is_layer.contains(&target.as_str()) && target != layer {
                let allowed = may_import(&layer).contains(&target.as_str());
                assert!(allowed, "{} ({layer}) imports {target}", path.display());
            }
        }
    }
}

#[test]
fn the_pure_layers_do_without_sockets_clocks_chance_and_gstreamer() {
    const IMPURE: [&str; 15] = [
        "gst::",
        "gst_",
        "smol",
        "async_",
        "tokio",
        "std::net::Tcp",
        "std::net::Udp",
        "std::fs",
        "std::thread",
        "std::env",
        "fastrand",
        "rand::",
        "Instant::now",
        "SystemTime",
        "println!",
    ];
    let is_back_end = |path: &Path| {
        path.parent().is_some_and(|folder| folder.ends_with("signalling"))
            && !path.ends_with("turn.rs")
            && !path.ends_with("mod.rs")
    };
    let mut looked = 0;
    for (layer, path, code) in sources() {
        if ["protocol", "session", "hub", "sdp"].contains(&layer.as_str())
            || is_back_end(&path)
            || ["codec/mod.rs", "codec/hello.rs", "codec/ssp.rs", "names.rs"]
                .iter()
                .any(|file| path.ends_with(format!("server/{file}")))
        {
            looked += 1;
            for word in IMPURE {
                assert!(!code.contains(word), "{} holds {word}", path.display());
            }
        }
    }
    assert!(looked > 15, "only {looked} pure files");
}

/// Checks that no layer of the server uses `fastrand`, whose output predicts its later numbers: values from the server
/// grant access.
#[test]
fn what_the_server_gives_out_cannot_be_guessed() {
    let mut looked = 0;
    for (layer, path, code) in sources() {
        if ["server", "hub", "protocol", "base"].contains(&layer.as_str()) {
            looked += 1;
            assert!(!code.contains("fastrand"), "{} makes guessable values", path.display());
        }
    }
    assert!(looked > 25, "only {looked} files");
}

#[test]
fn only_media_knows_gstreamer_and_no_program_knows_tokio() {
    for (layer, path, code) in sources() {
        assert!(layer == "media" || !code.contains("gst::"), "{} knows GStreamer", path.display());
        assert!(!code.contains("tokio"), "{} knows tokio", path.display());
    }
}

#[test]
fn no_file_grows_into_a_heap() {
    for (_, path, code) in sources() {
        let lines = code.lines().count();
        assert!(lines <= 500, "{} has {lines} lines before its tests", path.display());
    }
}
