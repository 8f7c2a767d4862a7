//! Adaptation to the network and the peer: bitrates, encodes of a room, codecs, encoders.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::common::impaired::{LEFT, call_of};
use crate::common::{
    Client, Impaired, Impairment, PATIENCE, Program, Received, SMALL, Stage, alone, needs, pace, until,
    wait_for,
};
use serde_json::Value;

const MS: Duration = Duration::from_millis(1);

/// A picture that takes its bitrate.
const BUSY: [&str; 10] = [
    "--video",
    "videotestsrc is-live=true pattern=zone-plate kx2=6 ky2=6 kt=3 ! video/x-raw,width=640,height=360,framerate=30/1",
    "--audio",
    "tone",
    "--size",
    "640x360",
    "--fps",
    "30",
    "--bitrate",
    "1500",
];

fn kbps(stats: &Value) -> u64 {
    stats["video_kbps"].as_u64().unwrap_or(0)
}

/// Follows it for so long; the bitrates, and the frames a second that came at the other end.
fn follow(sender: &mut Program, receiver: &mut Program, time: Duration) -> (Vec<u64>, f64) {
    let (began, before) = (Instant::now(), receiver.stats()["video_frames_received"].as_u64().unwrap());
    let mut found = vec![];
    while began.elapsed() < time {
        pace(Instant::now() + 500 * MS);
        found.push(kbps(&sender.stats()));
    }
    let after = receiver.stats()["video_frames_received"].as_u64().unwrap();
    (found, (after - before) as f64 / began.elapsed().as_secs_f64())
}

/// Waits until the rates and frames of so many seconds are as wanted. The test's own threads carry the packets: while the
/// machine has no time for them, the network is worse than it should be.
fn settles(
    what: &str,
    (sender, receiver): (&mut Program, &mut Program),
    seconds: u64,
    is_wanted: impl Fn(&[u64], f64) -> bool,
) {
    until(what, PATIENCE, || {
        let (rates, frames) = follow(sender, receiver, Duration::from_secs(seconds));
        if is_wanted(&rates, frames) { Ok(()) } else { Err(format!("{frames} a second, {rates:?}")) }
    });
}

#[test]
fn a_call_fits_into_a_bottleneck_and_grows_when_it_widens() {
    needs!(Networks);
    let _alone = alone();
    let narrow = Impairment { delay: 20 * MS, rate: Some(500_000), ..Impairment::default() };
    let mut setting = call_of(narrow, &SMALL, &BUSY);
    let (ann, bob) = (&mut setting.ann, &mut setting.bob);
    wait_for("less than the bottleneck takes", || (kbps(&ann.stats()) < 450).then_some(()));
    // Used, and not overfilled: what waits is lost only now and then, pictures come.
    let counts = Cell::new(setting.network.counts()[1]);
    settles("use of the bottleneck without overflow", (&mut *ann, &mut *bob), 6, |rates, frames| {
        let now = setting.network.counts()[1];
        let before = counts.replace(now);
        let mean = rates.iter().sum::<u64>() / rates.len() as u64;
        let (passed, overflowed) = (now.passed - before.passed, now.overflowed - before.overflowed);
        (100..500).contains(&mean) && frames > 8.0 && overflowed * 10 < passed
    });
    setting.network.set(Impairment { delay: 20 * MS, ..Impairment::default() });
    wait_for("more again", || (kbps(&ann.stats()) > 1000).then_some(()));
    settles("all frames again", (ann, bob), 4, |_, frames| frames > 20.0);
}

#[test]
fn losses_without_a_full_network_do_not_slow_a_call() {
    needs!(Networks);
    let _alone = alone();
    let noisy = Impairment { delay: 20 * MS, loss: 0.1, ..Impairment::default() };
    let mut setting = call_of(noisy, &SMALL, &BUSY);
    // Lost packets of the handshake delay the start.
    setting.bob.expect("media", &[("kind", "video")]);
    settles("a rate that losses do not lower", (&mut setting.ann, &mut setting.bob), 6, |rates, frames| {
        rates.iter().all(|rate| *rate > 600) && frames > 15.0
    });
}

#[test]
fn the_bounds_of_the_bitrate_hold() {
    needs!(Networks);
    let _alone = alone();
    let narrow = Impairment { rate: Some(300_000), ..Impairment::default() };
    let mut options = BUSY.to_vec();
    options.extend(["--min-bitrate", "400", "--max-bitrate", "1600"]);
    let mut setting = call_of(narrow, &SMALL, &options);
    wait_for("the least", || (kbps(&setting.ann.stats()) == 400).then_some(()));
    setting.network.set(Impairment::default());
    wait_for("the most", || (kbps(&setting.ann.stats()) >= 1550).then_some(()));
    assert!(kbps(&setting.ann.stats()) <= 1600);
}

#[test]
fn a_slow_peer_of_a_room_does_not_slow_a_fast_one() {
    needs!(Networks);
    let _alone = alone();
    let narrow = Impairment { delay: 10 * MS, rate: Some(400_000), ..Impairment::default() };
    let network = Impaired::new(narrow);
    let stage = Stage::within(&network.left, &[]);
    let sender = stage.join("sender").within(&network.left, LEFT).media(&BUSY);
    let mut sender = sender.with(&["--send-only"]).ready();
    let takes = |id: &str, at| stage.join(id).within(at, LEFT).media(&["--receive-only"]).ready();
    let (mut fast, mut slow) = (takes("fast", &network.left), takes("slow", &network.right));
    for program in [&mut fast, &mut slow] {
        program.expect("media", &[("kind", "video")]);
    }
    let of = |sender: &mut Program, peer: &str| kbps(&sender.stats_of(peer));
    wait_for("two rates", || {
        let (quick, slow) = (of(&mut sender, "fast"), of(&mut sender, "slow"));
        (quick > 1200 && (50..400).contains(&slow)).then_some(())
    });
    until("frames of both in time", PATIENCE, || {
        let (began, before) = (Instant::now(), [&mut fast, &mut slow].map(frames));
        wait_for("six seconds of video", || (frames(&mut fast) > before[0] + 180).then_some(()));
        let after = [&mut fast, &mut slow].map(frames);
        let rates = [0, 1].map(|n| (after[n] - before[n]) as f64 / began.elapsed().as_secs_f64());
        if rates[0] > 20.0 && rates[1] > 6.0 { Ok(()) } else { Err(rates) }
    });
}

/// Returns the number of frames received from the sender.
fn frames(program: &mut Program) -> u64 {
    program.stats_of("sender")["video_frames_received"].as_u64().unwrap()
}

/// A call on this machine with these options of each side; the codecs of what each received.
fn codecs_of(caller: &[&str], callee: &[&str]) -> [Vec<String>; 2] {
    let network = Impaired::new(Impairment::default());
    let (stage, received) = (Stage::within(&network.left, &[]), Received::new());
    let bob = stage.answer("bob").within(&network.left, LEFT).with(callee);
    let mut bob = bob.receiving(&received).ready();
    let mut ann = stage.call("bob").within(&network.right, LEFT).with(caller).start();
    let seen = |program: &mut Program| {
        program.expect_all(&[("media", &[("kind", "video")]), ("media", &[("kind", "audio")])]);
        let media = program.all("media", &[]);
        let of = |kind: &str| {
            media.iter().find(|m| m["kind"] == kind).unwrap()["codec"].as_str().unwrap().to_owned()
        };
        vec![of("video"), of("audio")]
    };
    let found = [seen(&mut ann), seen(&mut bob)];
    received.expect_moving_and_audible((0, 0), 20);
    found
}

#[test]
fn every_codec_carries_a_call() {
    needs!(Networks);
    let _alone = alone();
    for (video, audio, names) in [
        ("vp9", "opus", ["VP9", "Opus"]),
        ("av1", "pcmu", ["AV1", "PCMU"]),
        ("h265", "pcma", ["H.265", "PCMA"]),
        ("h264,vp8", "opus", ["H.264", "Opus"]),
    ] {
        let options = ["--video-codec", video, "--audio-codec", audio];
        let found = codecs_of(&options, &[]);
        assert_eq!(found, [names, names], "{video}");
    }
}

#[test]
fn an_encoder_that_fails_gives_way_to_the_next() {
    let _alone = alone();
    let (stage, received) = (Stage::new(), Received::new());
    // Pipelines in the caller's folder alone.
    let home = tempfile::tempdir().unwrap();
    let own = home.path().join(".config/roomtone/pipelines/encode");
    std::fs::create_dir_all(&own).unwrap();
    let text = "x264enc tune=zerolatency speed-preset=ultrafast bitrate={bitrate} ! identity error-after=60 ! \
                video/x-h264,profile=constrained-baseline,stream-format=byte-stream,alignment=au\n";
    std::fs::write(own.join("h264.launch"), format!("# Not for long.\n{text}")).unwrap();
    let mut bob = stage.answer("bob").receiving(&received).ready();
    let ann = Client::new(home.path(), &["call", "bob", "--video-codec", "h264"]);
    let mut ann = ann.server(&stage.url).start();
    bob.expect("media", &[("kind", "video"), ("codec", "H.264")]);
    // Sixty frames are four seconds; it goes on long after them, and nothing is connected anew.
    received.expect_moving_and_audible((0, 0), 120);
    assert!(!ann.has_seen("peer", &[("state", "reconnecting")]));
    ann.say(&serde_json::json!({"command": "quit"}));
    let (_, said) = ann.end_with_warnings();
    assert!(
        said.contains("x264enc does not encode H.264") && said.contains("openh264enc replaces it"),
        "{said}"
    );
}

#[test]
fn what_cannot_be_is_said_before_a_call() {
    let _alone = alone();
    let refused = |options: &[&str]| {
        let home = tempfile::tempdir().unwrap();
        let args = [&["call", "bob", "--server", "ws://127.0.0.1:9", "--headless"], options].concat();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_roomtone"));
        let output = command.args(args).env("HOME", home.path()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (options, why) in [
        (&["--video-codec", "vp8,mp3"][..], "'mp3' is no codec"),
        (&["--video-codec", "opus"], "Opus is no video codec"),
        (&["--encoder", "nosuchenc"], "nosuchenc"),
        (&["--min-bitrate", "900", "--max-bitrate", "300"], "must be in ascending order"),
        (&["--bitrate", "500", "--max-bitrate", "300"], "must be in ascending order"),
        (&["--bitrate", "5"], "30..=100000"),
    ] {
        let said = refused(options);
        assert!(said.contains(why), "{options:?}: {said}");
    }
}
