//! Rules for the structure and the language of the sources. Each rule names the file that breaks it.
//!
//! The lists of known breaches only get shorter: a rule holds for all files that its list does not name.
#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "tests")]

mod imports;
mod sleeps;
mod source;
mod words;

use imports::Imports;
use source::{Source, functions, root, sources};

/// The layers from top to bottom, and the layers that each may import.
const LAYERS: [(&str, &[&str]); 16] = [
    ("lib", &[]),
    ("bin", &["cli"]),
    (
        "cli",
        &[
            "app",
            "tester",
            "media",
            "signalling",
            "server",
            "engine",
            "session",
            "hub",
            "sdp",
            "protocol",
            "tls",
            "paths",
            "base",
        ],
    ),
    ("app", &["media", "signalling", "server", "session", "hub", "sdp", "protocol", "tls", "paths", "base"]),
    ("tester", &["signalling", "protocol", "base"]),
    ("media", &["session", "sdp", "protocol", "paths", "base"]),
    ("signalling", &["session", "sdp", "protocol", "tls", "base"]),
    ("server", &["engine", "hub", "protocol", "tls", "paths", "base"]),
    ("engine", &["hub", "protocol", "base"]),
    ("session", &["sdp", "protocol", "base"]),
    ("hub", &["sdp", "protocol", "base"]),
    ("sdp", &["protocol", "base"]),
    ("protocol", &["base"]),
    ("tls", &["base"]),
    ("paths", &["base"]),
    ("base", &[]),
];

/// The folders of `media` from top to bottom, and the folders that each may import. `media/mod.rs` stands above them.
const WINGS: [(&str, &[&str]); 5] = [
    ("webrtc", &["receive", "send", "rate", "gst"]),
    ("receive", &["rate", "gst"]),
    ("send", &["rate", "gst"]),
    ("rate", &["gst"]),
    ("gst", &[]),
];

/// Imports between folders of `media` against the order.
const KNOWN_WING_IMPORTS: &[(&str, &str)] = &[];

/// Files that import each other in a circle.
const KNOWN_CIRCLES: &[&[&str]] = &[];

/// Files of more than 500 lines.
const KNOWN_LONG_FILES: &[&str] = &[];

/// Functions of more than 60 lines, with their layers.
const KNOWN_LONG_FUNCTIONS: &[(&str, &str)] = &[];

/// Words that pure files may not contain: clocks, chance, sockets, runtimes, files, threads, processes and GStreamer.
const IMPURE: [&str; 23] = [
    "Instant::now",
    "SystemTime",
    ".elapsed()",
    "fastrand",
    "SystemRandom",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "smol",
    "async_io",
    "async_std",
    "tokio",
    "hyper",
    "futures_rustls",
    "std::fs",
    "std::thread",
    "std::env",
    "std::process",
    "gio::",
    "gst::",
    "gst_",
    "println!",
    "print!",
];

/// Each file and the files that it imports.
fn files_with_imports() -> impl Iterator<Item = (&'static Source, Vec<&'static Source>)> {
    let imports = Imports::new(sources()).of.into_iter();
    let targets = imports.map(|targets| targets.into_iter().map(|target| &sources()[target]).collect());
    sources().iter().zip(targets)
}

/// Imports of pure files that lead to others: the types of an error and of settings alone.
const KNOWN_IMPURE_IMPORTS: &[(&str, &str)] = &[
    ("signalling/error.rs", "tls.rs"),
    ("signalling/registry.rs", "tls.rs"),
    ("signalling/target.rs", "tls.rs"),
];

fn position(order: &[(&str, &[&str])], name: &str) -> usize {
    order
        .iter()
        .position(|(layer, _)| *layer == name)
        .unwrap_or_else(|| panic!("{name} has no place in the order"))
}

/// Checks imports between folders; `folder` names that of a file, where it has one.
fn check_order(order: &[(&str, &[&str])], folder: fn(&Source) -> Option<&str>, known: &[(&str, &str)]) {
    for (n, (_, below)) in order.iter().enumerate() {
        assert!(below.iter().all(|layer| position(order, layer) > n), "the order itself has a circle");
    }
    let mut wrong = vec![];
    for (source, imports) in files_with_imports() {
        let Some(from) = folder(source) else { continue };
        let (_, allowed) = order[position(order, from)];
        for target in imports {
            let Some(to) = folder(target).filter(|to| *to != from) else { continue };
            if !allowed.contains(&to) && !known.contains(&(&source.path, &target.path)) {
                wrong.push(format!("{} imports {}", source.path, target.path));
            }
        }
    }
    assert!(wrong.is_empty(), "against the order: {wrong:#?}");
}

#[test]
fn layers_import_only_what_stands_below_them() {
    check_order(&LAYERS, |source| Some(source.layer()), &[]);
}

#[test]
fn wings_of_media_import_only_what_stands_below_them() {
    check_order(
        &WINGS,
        |source| Some(source.path.strip_prefix("media/")?.split_once('/')?.0),
        KNOWN_WING_IMPORTS,
    );
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let sources = sources();
    let circles = Imports::new(sources).circles();
    let circles = circles.iter().map(|circle| circle.iter().map(|n| sources[*n].path.as_str()).collect());
    let is_known =
        |circle: &Vec<&str>| KNOWN_CIRCLES.iter().any(|known| circle.iter().all(|file| known.contains(file)));
    let new: Vec<Vec<&str>> = circles.filter(|circle| !is_known(circle)).collect();
    assert!(new.is_empty(), "{new:#?}");
}

/// Whether a file, or a module above it, carries the mark `Pure:` in its documentation.
fn is_pure(source: &Source) -> bool {
    let module = source.module();
    let is_marked = |of: &[String]| {
        let file = sources().iter().find(|file| file.module() == of);
        file.is_some_and(|file| file.comments.iter().any(|(_, text)| text.starts_with("Pure:")))
    };
    (1..=module.len()).any(|n| is_marked(&module[..n]))
}

#[test]
fn pure_files_have_no_clock_chance_socket_or_gstreamer_and_import_only_pure_files() {
    let mut wrong = vec![];
    for (source, imports) in files_with_imports() {
        if !is_pure(source) {
            let must = ["protocol", "sdp", "session", "hub"].contains(&source.layer());
            assert!(!must, "{} does not carry the mark `Pure:`", source.path);
            continue;
        }
        let words = IMPURE.iter().filter(|word| source.code.contains(**word));
        wrong.extend(words.map(|word| format!("{} holds {word}", source.path)));
        let impure = imports.into_iter().filter(|target| {
            !is_pure(target) && !KNOWN_IMPURE_IMPORTS.contains(&(&source.path, &target.path))
        });
        wrong.extend(impure.map(|target| format!("{} imports {}", source.path, target.path)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Checks that nothing in the server uses `fastrand`, whose output predicts its later numbers: values from the
/// server grant access.
#[test]
fn what_the_server_gives_out_cannot_be_guessed() {
    for source in sources() {
        let gives = ["server", "hub", "protocol", "base"].contains(&source.layer());
        assert!(!gives || !source.code.contains("fastrand"), "{} makes guessable values", source.path);
    }
}

#[test]
fn only_media_knows_gstreamer_and_no_program_knows_tokio() {
    for source in sources() {
        assert!(
            source.layer() == "media" || !source.code.contains("gst::"),
            "{} knows GStreamer",
            source.path
        );
        assert!(!source.code.contains("tokio"), "{} knows tokio", source.path);
    }
}

#[test]
fn files_have_at_most_500_lines_and_functions_60() {
    let mut wrong = vec![];
    for source in sources() {
        if source.length > 500 && !KNOWN_LONG_FILES.contains(&source.path.as_str()) {
            wrong.push(format!("{} has {} lines", source.path, source.length));
        }
        for (name, line, length) in functions(&source.code) {
            if length > 60 && !KNOWN_LONG_FUNCTIONS.contains(&(source.layer(), &name)) {
                wrong.push(format!("{}:{line}: {name} has {length} lines", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Checks that session and signalling exchange plain descriptions: media alone rewrites them for webrtcbin.
#[test]
fn only_media_rewrites_descriptions_for_webrtcbin() {
    let is_inside = |source: &Source| source.path.starts_with("sdp/webrtcbin/");
    let mut wrong = vec![];
    for (source, imports) in files_with_imports() {
        let may = source.layer() == "media" || is_inside(source);
        let inner = imports.into_iter().filter(|target| !may && is_inside(target));
        wrong.extend(inner.map(|target| format!("{} imports {}", source.path, target.path)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// An example is to be read in a minute.
#[test]
fn examples_are_short() {
    for path in source::files(&root().join("examples")) {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines < 60, "{} has {lines} lines", path.display());
    }
}
