//! Measurements beside what people would pick instead: `scripts/bench` runs them. Nothing is asserted on time.
#![cfg(feature = "media")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    reason = "tests"
)]

#[path = "../common/mod.rs"]
mod common;
mod network;
mod peers;
mod report;
mod room;
mod server;
mod timecode;

use std::time::Duration;

use common::{Impaired, Impairment, Program, needs};
use report::{Comparison, Report};
use serde_json::Value;
use timecode::{Camera, Screen, Shown};

/// A number from the environment.
pub fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// How many samples of what is quick.
fn samples() -> usize {
    number("SAMPLES", 30) as usize
}

/// Returns the numbers of a JSON list of another program.
fn numbers(values: &Value, at: Option<usize>) -> Vec<f64> {
    let all = values.as_array().into_iter().flatten();
    all.filter_map(|value| at.map_or(value, |at| &value[at]).as_f64()).collect()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

const SIZE: [&str; 6] = ["--size", "640x360", "--fps", "30", "--audio", "none"];

#[test]
#[ignore = "a measurement"]
fn setup() {
    let (count, home) = (samples(), tempfile::tempdir().unwrap());
    roomtone::media::init().unwrap();
    // Warm: one connection after another in a process.
    let mut warm = vec![];
    smol::block_on(async {
        let camera = Camera::start(home.path(), "warm");
        let stream = peers::stream(&camera).await;
        for n in 0..=count {
            let screen = Screen::start(home.path(), &format!("warm{n}"));
            let took = peers::ours(&stream, &screen);
            // The first is not warm.
            if n > 0 {
                warm.push(took);
            }
            // The key frame of the previous call must not delay that of the next one.
            smol::Timer::after(Duration::from_millis(400)).await;
        }
    });
    let (connected, shown): (Vec<f64>, Vec<f64>) = warm.into_iter().map(|(c, s)| (ms(c), ms(s))).unzip();
    let chromium = peers::chromium(count, 1);
    let aiortc = peers::aiortc(count, 1);
    let others = |at: usize| {
        let theirs = aiortc.as_ref().map(|found| ("aiortc".to_owned(), numbers(&found["setup"], Some(at))));
        [("Chromium".to_owned(), numbers(&chromium["setup"], Some(at)))].into_iter().chain(theirs)
    };
    let mut report = Report {
        name: "setup",
        about: "Setting up a call of one 640x360 stream (VP8) on loopback. Warm: both ends in one process, which \
                had calls before; from the wish to call. Cold: from the start of the process that views, of one \
                that is ready to send in another process."
            .into(),
        comparisons: vec![
            Comparison {
                what: "Connected, warm".into(),
                unit: "ms",
                samples: [("roomtone".to_owned(), connected)].into_iter().chain(others(0)).collect(),
            },
            Comparison {
                what: "First picture shown, warm".into(),
                unit: "ms",
                samples: [("roomtone".to_owned(), shown)].into_iter().chain(others(1)).collect(),
            },
        ],
        courses: vec![],
    };
    // Cold, ours and theirs in turn.
    let (mut ours, mut calls, mut theirs) = (vec![], vec![], vec![]);
    let mut server = Program::start(home.path(), &["serve", "--plain", "--listen", "127.0.0.1:0"]);
    let url = common::ws(&server.link());
    let start =
        |id: &[&str], more: &[&str]| Program::start(home.path(), &[id, &["--server", &url], more].concat());
    for n in 0..count.min(number("COLD", 15) as usize) {
        // The callee sends and the caller displays; then the other way round.
        for (turn, found) in [(0, &mut ours), (1, &mut calls)] {
            let (camera, screen) = (
                Camera::start(home.path(), &format!("cold{n}{turn}")),
                Screen::start(home.path(), &format!("shown{n}{turn}")),
            );
            let (source, sink) = (camera.source(), screen.sink());
            let sends = [&["--send-only", "--video", &source], &SIZE[..]].concat();
            let shows = ["--receive-only", "--show", &sink, "--play", "none"];
            let (waits, calls) = if turn == 0 { (&sends[..], &shows[..]) } else { (&shows[..], &sends[..]) };
            let id = format!("bob{n}{turn}");
            let mut bob = start(&["answer", "--id", &id], waits);
            bob.expect("registered", &[]);
            std::thread::sleep(Duration::from_millis(300));
            let began = timecode::now();
            let _ann = start(&["call", &id], calls);
            found.push(ms(screen.first() - began));
        }
        if peers::Theirs::program().is_some() {
            let camera = Camera::start(home.path(), &format!("their{n}"));
            let screen = Screen::start(home.path(), &format!("theirs{n}"));
            let port = 18_500 + n as u16;
            let _sends = peers::Theirs::sender(None, &camera, port, 1_500_000, false);
            std::thread::sleep(Duration::from_millis(1500));
            let began = timecode::now();
            let _shows = peers::Theirs::receiver(None, "127.0.0.1", port, &screen, None);
            theirs.push(ms(screen.first() - began));
        }
    }
    let mut samples =
        vec![("roomtone, caller shows".to_owned(), ours), ("roomtone, caller sends".to_owned(), calls)];
    if !theirs.is_empty() {
        samples.push(("webrtcsrc".to_owned(), theirs));
    }
    report.comparisons.push(Comparison { what: "First picture shown, cold".into(), unit: "ms", samples });
    report.finish();
}

/// How old pictures are when they are shown, after a while; and the share of those drawn that were never shown.
fn ages(shown: &[Shown], after: Duration) -> (Vec<f64>, f64) {
    let Some(first) = shown.first() else { return (vec![], 100.0) };
    let late: Vec<&Shown> = shown.iter().filter(|one| one.at > first.at + after).collect();
    let all = late.iter().map(|one| ms(one.at.saturating_sub(one.drawn))).collect();
    let (Some(first), Some(last)) = (late.first(), late.last()) else { return (all, 100.0) };
    let drawn = (last.drawn - first.drawn).as_secs_f64() * timecode::FPS as f64 + 1.0;
    (all, (1.0 - late.len() as f64 / drawn).max(0.0) * 100.0)
}

#[test]
#[ignore = "a measurement"]
fn latency() {
    needs!(Networks);
    let (time, home) = (Duration::from_secs(number("SECONDS_EACH", 20)), tempfile::tempdir().unwrap());
    // Long enough for a delay that follows to come to rest.
    let after = Duration::from_secs(number("SECONDS_BEFORE", 8));
    let over = |impairment: Impairment, name: &str, latency: &str| -> Option<(Vec<f64>, f64)> {
        let network = Impaired::new(impairment);
        let (camera, screen) = (
            Camera::start(home.path(), &format!("{name}-in")),
            Screen::start(home.path(), &format!("{name}-out")),
        );
        let _server = Program::serve_in(&network.left, home.path());
        let (source, sink) = (camera.source(), screen.sink());
        let url = format!("ws://{}:7000", common::impaired::LEFT);
        let bob = ["answer", "--id", "bob", "--server", &url, "--send-only", "--video", &source];
        let mut bob = Program::start_in(&network.left, home.path(), &[&bob, &SIZE[..]].concat());
        bob.expect("registered", &[]);
        let ann = ["call", "bob", "--server", &url, "--receive-only", "--show", &sink, "--play", "none"];
        let ann = [&ann[..], &["--latency", latency]].concat();
        let _ann = Program::start_in(&network.right, home.path(), &ann);
        screen.first();
        std::thread::sleep(after + time);
        Some(ages(&screen.shown(), after))
    };
    let theirs = |impairment: Impairment, name: &str| -> Option<(Vec<f64>, f64)> {
        peers::Theirs::program()?;
        let network = Impaired::new(impairment);
        let (camera, screen) = (
            Camera::start(home.path(), &format!("{name}-in")),
            Screen::start(home.path(), &format!("{name}-out")),
        );
        let _sends = peers::Theirs::sender(Some(&network.left), &camera, 8443, 1_500_000, false);
        std::thread::sleep(Duration::from_millis(1500));
        let _shows =
            peers::Theirs::receiver(Some(&network.right), common::impaired::LEFT, 8443, &screen, None);
        screen.first();
        std::thread::sleep(after + time);
        Some(ages(&screen.shown(), after))
    };
    let (clean, shaken) = (
        Impairment::default(),
        Impairment {
            delay: Duration::from_millis(20),
            jitter: Duration::from_millis(30),
            ..Impairment::default()
        },
    );
    let found = [
        ("roomtone", over(clean, "clean-auto", "auto"), over(shaken, "shaken-auto", "auto")),
        ("roomtone --latency 200", over(clean, "clean-200", "200"), over(shaken, "shaken-200", "200")),
        ("webrtcsink and webrtcsrc", theirs(clean, "clean-theirs"), theirs(shaken, "shaken-theirs")),
    ];
    let chromium = peers::chromium(1, time.as_secs());
    let aiortc = peers::aiortc(1, time.as_secs());
    let of = |which: fn(&(Vec<f64>, f64)) -> Vec<f64>, shaken: bool| -> Vec<(String, Vec<f64>)> {
        let each = found.iter().filter_map(|(who, clean, bad)| {
            Some(((*who).to_owned(), which(if shaken { bad.as_ref() } else { clean.as_ref() }?)))
        });
        each.collect()
    };
    let mut clean = of(|(ages, _)| ages.clone(), false);
    clean.push(("Chromium, one page".to_owned(), numbers(&chromium["ages"], None)));
    clean.extend(aiortc.map(|found| ("aiortc, one process".to_owned(), numbers(&found["ages"], None))));
    Report {
        name: "latency",
        about: format!(
            "From a picture drawn to the same picture shown, read from its pixels: 640x360, 30 a second, for {} s \
             after the first {} s. Between two namespaces, without and with 20 ms of delay and up to 30 ms more; \
             Chromium and aiortc with themselves.",
            time.as_secs(),
            after.as_secs()
        ),
        comparisons: vec![
            Comparison { what: "Age when shown, clean path".into(), unit: "ms", samples: clean },
            Comparison {
                what: "Age when shown, 20 to 50 ms of delay".into(),
                unit: "ms",
                samples: of(|(ages, _)| ages.clone(), true),
            },
            Comparison {
                what: "Never shown, 20 to 50 ms of delay".into(),
                unit: "%",
                samples: of(|(_, lost)| vec![*lost], true),
            },
        ],
        courses: vec![],
    }
    .finish();
}

#[test]
#[ignore = "a measurement"]
fn room() {
    room::measure();
}

#[test]
#[ignore = "a measurement"]
fn server() {
    server::measure();
}
