//! Calls over bad networks: delay, jitter, loss, a bottleneck, and a network that goes for a while.
#![cfg(feature = "media")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests"
)]

mod common;

use std::time::{Duration, Instant};

use common::impaired::{LEFT, arrivals};
use common::{Impaired, Impairment, Program, Received, SMALL, namespace, wait_for};
use serde_json::{Value, json};

const MS: Duration = Duration::from_millis(1);

#[test]
fn the_bad_network_is_as_bad_as_it_says() {
    let delayed = Impairment { delay: 40 * MS, jitter: 20 * MS, loss: 0.1, ..Impairment::default() };
    let found = arrivals(delayed, 1000, 100 * MS, 10_000);
    let lost = found.iter().filter(|arrival| arrival.is_none()).count();
    assert!((900..1100).contains(&lost), "{lost} of 10000");
    let came: Vec<Duration> = found.into_iter().flatten().collect();
    assert!(came.iter().all(|delay| (40 * MS..60 * MS).contains(delay)));
    assert!(came.iter().any(|delay| *delay < 41 * MS) && came.iter().any(|delay| *delay > 59 * MS));

    // Twice as much as goes through: the queue fills, and then every other packet is lost.
    let narrow = Impairment { rate: Some(1_000_000), queue: 100 * MS, ..Impairment::default() };
    let found = arrivals(narrow, 1000, 4 * MS, 1000);
    assert_eq!(found[0], Some(8 * MS));
    let longest = found.iter().flatten().max().unwrap();
    assert!((100 * MS..=108 * MS).contains(longest), "{longest:?}");
    let passed = found.iter().flatten().count();
    assert!((500..=520).contains(&passed), "{passed} of 1000");

    let cut = Impairment { cut: true, ..Impairment::default() };
    assert!(arrivals(cut, 1000, MS, 100).iter().all(Option::is_none));
}

/// A server and a client on the left, and a caller on the right.
struct Setting {
    network: Impaired,
    received: Received,
    bob: Program,
    ann: Program,
    _server: Program,
    _home: tempfile::TempDir,
}

/// None where this user may not make networks.
fn call_over(impairment: Impairment) -> Option<Setting> {
    let mut setting = call_of(impairment, &SMALL, &SMALL)?;
    setting.ann.expect("media", &[("kind", "video")]);
    Some(setting)
}

/// The same with these options of what each side sends.
fn call_of(impairment: Impairment, bob_sends: &[&str], ann_sends: &[&str]) -> Option<Setting> {
    let Some(network) = Impaired::new(impairment) else {
        namespace::skipped();
        return None;
    };
    let home = tempfile::tempdir().unwrap();
    let listen = ["serve", "--listen", "0.0.0.0:7000", "--plain"];
    let mut server = Program::start_in(&network.left, home.path(), &listen);
    server.link();
    let received = Received::new();
    let options = received.options();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let bob = ["answer", "--id", "bob", "--server", "ws://127.0.0.1:7000"];
    let mut bob = Program::start_in(&network.left, home.path(), &[&bob, bob_sends, &options].concat());
    bob.expect("registered", &[]);
    let url = format!("ws://{LEFT}:7000");
    let ann = ["call", "bob", "--server", &url, "--headless"];
    let mut ann = Program::start_in(&network.right, home.path(), &[&ann, ann_sends].concat());
    ann.expect("peer", &[("state", "connected")]);
    Some(Setting { network, received, bob, ann, _server: server, _home: home })
}

fn stats(program: &mut Program) -> Value {
    program.say(&json!({"command": "stats"}));
    program.expect("stats", &[])
}

#[test]
fn a_call_lives_with_delay_jitter_and_loss() {
    let bad = Impairment { delay: 30 * MS, jitter: 10 * MS, loss: 0.02, ..Impairment::default() };
    let Some(mut setting) = call_over(bad) else { return };
    let received = &setting.received;
    received.expect_moving_and_audible((0, 0), 150);
    // The network was what it should be, and the call says so itself.
    let [there, back] = setting.network.counts();
    assert!(there.lost > 0 && back.lost > 0, "{there:?} {back:?}");
    let trip = wait_for("a round trip", || stats(&mut setting.ann)["round_trip_ms"].as_f64());
    assert!((60.0..200.0).contains(&trip), "{trip} ms");
    assert!(!setting.bob.has_seen("peer", &[("state", "reconnecting")]));
}

#[test]
fn a_call_goes_on_through_a_network_that_was_away() {
    let fine = Impairment { delay: 10 * MS, ..Impairment::default() };
    let Some(mut setting) = call_over(fine) else { return };
    setting.received.expect_moving_and_audible((0, 0), 20);
    setting.network.set(Impairment { cut: true, ..fine });
    setting.bob.expect("peer", &[("state", "reconnecting")]);
    setting.ann.expect("peer", &[("state", "reconnecting")]);
    setting.network.set(fine);
    for side in [&mut setting.bob, &mut setting.ann] {
        side.expect("peer", &[("state", "connected")]);
    }
    setting.received.expect_moving_and_audible(setting.received.mark(), 30);
}

/// What `scripts/bench soak` runs for an hour: prints a line a minute, asserts what may not happen.
#[test]
#[ignore = "takes as long as MINUTES says"]
fn a_long_call_over_a_network_that_loses() {
    let minutes: u64 = std::env::var("MINUTES").map_or(60, |text| text.parse().unwrap());
    let loss = std::env::var("LOSS").map_or(0.02, |text| text.parse().unwrap());
    let bad = Impairment { delay: 30 * MS, jitter: 10 * MS, loss, ..Impairment::default() };
    let Some(mut setting) = call_over(bad) else { return };
    let started = Instant::now();
    let mut before = stats(&mut setting.bob);
    let mut shown_before = setting.received.pictures();
    println!("minutes  pictures/s  shown/s  sound/s    lost  threads     MB");
    for minute in 1..=minutes {
        std::thread::sleep(
            (started + Duration::from_secs(60 * minute)).saturating_duration_since(Instant::now()),
        );
        let now = stats(&mut setting.bob);
        let more = |name: &str| now[name].as_u64().unwrap() - before[name].as_u64().unwrap();
        let (pictures, sound) = (more("video_frames_received"), more("audio_frames_received"));
        let shown = setting.received.pictures() - shown_before;
        shown_before += shown;
        let (threads, megabytes) = held(setting.bob.pid());
        let [pictures_s, shown_s, sound_s] =
            [pictures, shown as u64, sound].map(|count| format!("{:.2}", count as f64 / 60.0));
        let lost = now["packets_lost"].to_string();
        println!(
            "{minute:>7} {pictures_s:>11} {shown_s:>8} {sound_s:>8} {lost:>7} {threads:>8} {megabytes:>6.1}"
        );
        assert!(shown > 60 * 15 / 2 && sound > 60 * 25, "it froze: {before} {now}");
        before = now;
    }
    let counts = setting.network.counts();
    println!("packets: {counts:?}");
    for side in [&mut setting.bob, &mut setting.ann] {
        assert_eq!(side.count("peer", &[("state", "reconnecting")]), 0);
    }
    setting.received.expect_moving_and_audible(setting.received.mark(), 30);
}

/// The threads of a process, and its memory in MB.
fn held(pid: u32) -> (usize, f64) {
    // It was started by way of `ip netns exec`, which becomes the program.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| -> f64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (field("Threads:") as usize, field("VmRSS:") / 1024.0)
}

#[test]
fn who_sends_no_media_is_missed_as_soon() {
    for (bob, ann) in [(&NO_MEDIA[..], &NO_MEDIA[..]), (&SMALL[..], &NO_MEDIA[..])] {
        let Some(mut setting) = call_of(Impairment::default(), bob, ann) else { return };
        setting.ann.expect("channel", &[]);
        // For them to learn how often they hear of each other.
        std::thread::sleep(Duration::from_secs(8));
        let cut = Instant::now();
        setting.network.set(Impairment { cut: true, ..Impairment::default() });
        for side in [&mut setting.bob, &mut setting.ann] {
            side.expect("peer", &[("state", "reconnecting")]);
            // On virtual time it is 4 s (src/session/tests/path.rs); before that is learnt, 12.
            assert!(cut.elapsed() < Duration::from_secs(10), "{:?}", cut.elapsed());
        }
    }
}

/// Options of one that neither sends nor receives media.
const NO_MEDIA: [&str; 5] = ["--video", "none", "--audio", "none", "--send-only"];
