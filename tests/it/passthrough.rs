//! Sources that are encoded already: passed on as they are where the peer takes their codec and the network their rate,
//! else decoded and encoded anew.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::impaired::call_of;
use crate::common::{External, Impairment, Program, Received, Stage, alone, free_port, needs, wait_for};

/// Ten seconds of moving pictures, encoded by that, in a Matroska file.
fn file(folder: &Path, name: &str, encoder: &str) -> PathBuf {
    let path = folder.join(name);
    let text = format!(
        "videotestsrc num-buffers=250 pattern=zone-plate kx2=4 ky2=4 kt=3 ! \
         video/x-raw,format=I420,width=320,height=240,framerate=25/1 ! {encoder} ! matroskamux ! filesink location={}",
        path.display()
    );
    assert!(
        Command::new("gst-launch-1.0").arg("-q").args(text.split_whitespace()).status().unwrap().success()
    );
    path
}

const VP8: &str = "vp8enc deadline=1 cpu-used=8 target-bitrate=600000 keyframe-max-dist=25 lag-in-frames=0";
const H264: &str = "x264enc tune=zerolatency speed-preset=ultrafast bitrate=600 key-int-max=25 ! h264parse";

/// The pictures of a file, each by its hash: one that was encoded anew has another.
fn pictures(path: &Path) -> Vec<String> {
    let mut command = Command::new("ffmpeg");
    command.args(["-loglevel", "error", "-vsync", "passthrough", "-i"]).arg(path);
    let output = command.args(["-map", "0:v", "-f", "framemd5", "-"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let hash = |line: &str| line.rsplit(',').next().unwrap().trim().to_owned();
    lines.lines().filter(|line| !line.starts_with('#')).map(hash).collect()
}

/// A call to one who records: what it recorded, once so many frames came.
struct Call {
    stage: Stage,
    ann: Program,
    bob: Program,
    received: Received,
}

impl Call {
    fn start(source: &[&str]) -> Self {
        let (stage, received) = (Stage::new(), Received::new());
        // Long enough for what comes late on a busy machine: frames are counted here.
        let options = ["--latency", "300", "--record", &stage.path("records")];
        let bob = stage.answer("bob").without_media().receiving(&received).with(&options).ready();
        let ann = stage.call("bob").media(source).with(&["--audio", "none"]).start();
        Self { stage, ann, bob, received }
    }

    /// Waits for moving pictures.
    fn moves(&self, pictures: usize) {
        let since = self.received.mark();
        self.received.expect_moving(since, pictures);
    }

    /// Ends the call; the pictures that were recorded, and what the sender warned of.
    fn end(mut self) -> (Vec<String>, String) {
        self.ann.say(&serde_json::json!({"command": "quit"}));
        let told = self.bob.expect("recording", &[]);
        let told = if told["finished"] == true { told } else { self.bob.expect("recording", &[]) };
        assert_eq!(told["finished"], true, "{told}");
        let recorded = pictures(Path::new(told["path"].as_str().unwrap()));
        let (_, said) = self.ann.end_with_warnings();
        drop(self.stage);
        (recorded, said)
    }
}

/// How many of the recorded pictures are the source's own.
fn own(source: &Path, recorded: &[String]) -> usize {
    let own: HashSet<String> = pictures(source).into_iter().collect();
    recorded.iter().filter(|hash| own.contains(*hash)).count()
}

/// How many frames of the source were recorded in a row.
fn most_in_a_row(source: &Path, recorded: &[String]) -> usize {
    let own: HashSet<String> = pictures(source).into_iter().collect();
    recorded.split(|hash| !own.contains(hash)).map(<[String]>::len).max().unwrap_or_default()
}

#[test]
fn a_file_is_passed_on_frame_by_frame() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    for (name, encoder) in [("a.mkv", VP8), ("b.mkv", H264)] {
        let source = file(folder.path(), name, encoder);
        let call = Call::start(&["--video", "file", "--device", source.to_str().unwrap()]);
        // Longer than the file, which begins again.
        call.moves(300);
        let (recorded, said) = call.end();
        // The video is encoded until its second key frame shows that passthrough is possible, and for a while after a pause
        // of the machine.
        let passed = most_in_a_row(&source, &recorded);
        assert!(passed > 100, "{name}: {passed} of {}", recorded.len());
        assert!(!said.contains("encoded again"), "{said}");
    }
}

#[test]
fn a_network_camera_is_passed_on_and_so_is_a_pipeline() {
    let source = format!(
        "videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=320,height=240,framerate=25/1 ! {H264}"
    );
    let (_camera, address) = camera(&format!("( {source} ! rtph264pay name=pay0 )"), free_port());
    for options in [&["--video", "rtsp", "--device", &address][..], &["--video", &source]] {
        let mut call = Call::start(options);
        call.bob.expect("media", &[("codec", "H.264")]);
        call.moves(60);
        // The bit rate is that of the camera's encoder, not the initial rate of ours.
        wait_for("the camera's rate", || {
            call.ann.stats()["video_kbps"].as_u64().filter(|rate| (1..900).contains(rate))
        });
        assert!(!call.end().1.contains("encoded again"));
    }
}

#[test]
fn a_network_camera_that_restarts_is_sent_again() {
    let source = "( videotestsrc is-live=true pattern=ball ! video/x-raw,format=I420,width=320,height=240,framerate=25/1 ! \
                  x264enc tune=zerolatency speed-preset=ultrafast bitrate=600 key-int-max=25 ! rtph264pay name=pay0 )";
    let port = free_port();
    let (first, address) = camera(source, port);
    let mut call = Call::start(&["--video", "rtsp", "--device", &address]);
    call.moves(30);
    let told = |call: &mut Call, words: &str| {
        let all = call.ann.all("warning", &[]);
        all.iter().filter(|told| told["text"].as_str().is_some_and(|text| text.contains(words))).count()
    };
    drop(first);
    wait_for("the camera's end is told", || (told(&mut call, "; trying again") > 0).then_some(()));
    call.received.expect_still();
    let _second = camera(source, port);
    wait_for("the camera is back", || (told(&mut call, "is back") > 0).then_some(()));
    call.moves(30);
    assert_eq!((told(&mut call, "trying again"), told(&mut call, "is back")), (1, 1), "once each way");
}

#[test]
fn what_cannot_be_passed_on_is_encoded_anew_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let bframes =
        "x264enc speed-preset=ultrafast bitrate=2500 bframes=2 b-adapt=false key-int-max=25 ! h264parse";
    let rare = "x264enc tune=zerolatency speed-preset=ultrafast bitrate=2500 key-int-max=2000 ! h264parse";
    let even = "x264enc tune=zerolatency speed-preset=ultrafast bitrate=2500 key-int-max=25 ! h264parse";
    // The source's codec stays the preferred one, unless it is known before the call that it is not passed on.
    for (name, encoder, why, options, codec) in [
        ("b.mkv", bframes, "it has B-frames", &["--video-codec", "h264"][..], "H.264"),
        ("r.mkv", rare, "between its key frames", &[], "H.264"),
        ("s.mkv", even, "another size is wanted", &["--size", "160x120"], "VP8"),
    ] {
        let source = file(folder.path(), name, encoder);
        let what = ["--video", "file", "--device", source.to_str().unwrap()];
        let mut call = Call::start(&[&what, options].concat());
        call.bob.expect("media", &[("codec", codec)]);
        let kbps = |call: &mut Call| call.ann.stats()["video_kbps"].as_u64().unwrap_or(0);
        wait_for("our own encoder", || (1..=1500).contains(&kbps(&mut call)).then_some(()));
        call.moves(60);
        // A file shows only after four seconds that its key frames are rare.
        wait_for(why, || call.ann.has_warned(why).then_some(()));
        call.moves(60);
        // The recording goes on, though it is another stream by now.
        let (recorded, said) = call.end();
        assert!(said.contains(why), "{said}");
        let own = own(&source, &recorded[recorded.len().saturating_sub(40)..]);
        assert!(recorded.len() >= 50, "{name}: {}", recorded.len());
        assert!(own < 4, "{name}: {own} of 40");
    }
}

#[test]
fn another_codec_takes_another_encode() {
    let folder = tempfile::tempdir().unwrap();
    let source = file(folder.path(), "a.mkv", H264);
    let mut call =
        Call::start(&["--video", "file", "--device", source.to_str().unwrap(), "--video-codec", "vp8"]);
    call.bob.expect("media", &[("codec", "VP8")]);
    call.moves(60);
    call.end();
}

#[test]
fn who_mutes_it_sends_black_and_then_the_source_again() {
    let folder = tempfile::tempdir().unwrap();
    let source = file(folder.path(), "a.mkv", VP8);
    let mut call = Call::start(&["--video", "file", "--device", source.to_str().unwrap()]);
    call.moves(30);
    call.ann.say(&serde_json::json!({"command": "camera-off"}));
    call.received.expect_still();
    call.received.expect_halves([false, false]);
    call.ann.say(&serde_json::json!({"command": "camera-on"}));
    call.moves(30);
    // Another source, and it again: what is passed on ends and begins.
    call.ann.say(&serde_json::json!({"command": "video", "source": "smpte"}));
    wait_for("our own encoder", || (call.ann.stats()["video_kbps"] == 1500).then_some(()));
    call.moves(1);
    call.ann
        .say(&serde_json::json!({"command": "video", "source": "file", "device": source.to_str().unwrap()}));
    wait_for("the file's own rate", || (call.ann.stats()["video_kbps"].as_u64()? < 900).then_some(()));
    // Each source is encoded first, so the frames that are passed on are counted from here.
    call.moves(90);
    let (recorded, _) = call.end();
    let (own, all) = (own(&source, &recorded), recorded.len());
    assert!(own > 40 && own < all, "{own} of {all}");
}

#[test]
fn a_network_that_does_not_take_its_rate_gets_less_and_then_all_again() {
    needs!(Networks);
    let folder = tempfile::tempdir().unwrap();
    let source = file(folder.path(), "a.mkv", VP8);
    let narrow =
        Impairment { delay: Duration::from_millis(20), rate: Some(300_000), ..Impairment::default() };
    let nothing = ["--video", "none", "--audio", "none"];
    let sends = ["--video", "file", "--device", source.to_str().unwrap(), "--audio", "none"];
    let mut setting = call_of(narrow, &nothing, &sends);
    let ann = &mut setting.ann;
    wait_for("less", || (1..250).contains(&ann.stats()["video_kbps"].as_u64()?).then_some(()));
    setting.received.expect_moving(setting.received.mark(), 30);
    setting.network.set(Impairment { rate: None, ..narrow });
    wait_for("all", || ((400..900).contains(&ann.stats()["video_kbps"].as_u64()?)).then_some(()));
    setting.received.expect_moving(setting.received.mark(), 60);
}

/// Starts a network camera at this port of loopback; returns it and its address.
fn camera(text: &str, port: u16) -> (External, String) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/camera.py");
    // Debian's own, which has GStreamer's bindings.
    let mut camera =
        External::start(Command::new("/usr/bin/python3").args([script, text, &port.to_string()]));
    let address = format!("rtsp://{}", camera.line("rtsp://"));
    (camera, address)
}
