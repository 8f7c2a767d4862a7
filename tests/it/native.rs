//! Two native clients with each other, by way of the server.

use std::time::{Duration, Instant};

use crate::common::raw::RawCall;
use crate::common::{
    Client, PATIENCE, Program, Received, Resumed, Stage, duration_and_frames, pace, probe, until, wait_for,
};
use gst::prelude::*;
use serde_json::json;

#[test]
fn they_see_and_hear_each_other_and_can_do_so_again() {
    let (stage, heard_by_bob) = (Stage::new(), Received::new());
    let mut bob = stage.answer("bob").receiving(&heard_by_bob).start();
    bob.expect("registered", &[("id", "bob")]);
    for (codec, name) in [("vp8", "VP8"), ("h264", "H.264")] {
        let (heard, mark) = (Received::new(), heard_by_bob.mark());
        let mut ann = stage.call("bob").id("ann").receiving(&heard).with(&["--video-codec", codec]).start();
        for (program, peer) in [(&mut ann, "bob"), (&mut bob, "ann")] {
            program.expect("peer", &[("peer", peer), ("state", "connected")]);
            let media = program.expect("media", &[("kind", "video"), ("codec", name)]);
            assert_eq!((media["width"].as_u64(), media["height"].as_u64()), (Some(320), Some(240)));
        }
        heard.expect_moving_and_audible((0, 0), 20);
        heard_by_bob.expect_moving_and_audible(mark, 20);
        ann.say(&json!({"command": "say", "text": "hello"}));
        bob.expect("message", &[("peer", "ann"), ("text", "hello")]);
        bob.say(&json!({"command": "say", "text": "good day"}));
        ann.expect("message", &[("peer", "bob"), ("text", "good day")]);
        let stats = bob.stats_of("ann");
        for counter in
            ["video_frames_sent", "video_frames_received", "audio_frames_sent", "audio_frames_received"]
        {
            assert!(stats[counter].as_u64().unwrap() > 10, "{counter}: {stats}");
        }
        // A tone goes both ways. The level is that of the last 100 ms, in which a busy machine may play nothing.
        until("level of a tone both ways", PATIENCE, || {
            let stats = bob.stats_of("ann");
            let is_tone = |level: &str| stats[level].as_u64().is_some_and(|level| (1..60).contains(&level));
            if ["sound_level_sent", "sound_level_received"].into_iter().all(is_tone) {
                Ok(())
            } else {
                Err(stats)
            }
        });
        // While it lasts nobody else comes in.
        let mut cat = stage.call("bob").without_media().start();
        cat.expect("ended", &[]);
        let (code, error) = cat.end();
        assert_eq!((code, error.contains("peer 'bob' busy")), (5, true), "{error}");
        match codec {
            "vp8" => bob.say(&json!({"command": "hang-up"})),
            _ => ann.say(&json!({"command": "hang-up"})),
        }
        ann.expect("peer", &[("state", "left")]);
        bob.expect("peer", &[("state", "left")]);
        assert_eq!(ann.end().0, 0);
        bob.expect("registered", &[]);
    }
    bob.quit();
}

#[test]
fn the_caller_lets_the_callee_offer_and_each_sends_only_one_way() {
    let (stage, received) = (Stage::new(), Received::new());
    let mut bob = stage.answer("bob").with(&["--once", "--send-only"]).ready();
    let media = ["--receive-only", "--request-offer"];
    let mut ann = stage.call("bob").media(&media).receiving(&received).start();
    ann.expect("media", &[("kind", "video")]);
    received.expect_moving_and_audible((0, 0), 20);
    bob.say(&json!({"command": "stats"}));
    assert_eq!(bob.expect("stats", &[])["bytes_received"], 0);
    ann.say(&json!({"command": "quit"}));
    assert_eq!((ann.end().0, bob.end().0), (0, 0));
}

#[test]
fn a_file_is_sent_in_real_time_and_over_and_over() {
    let stage = Stage::new();
    let file = stage.path("a movie.mkv");
    let make = format!(
        "matroskamux name=mux ! filesink location=\"{file}\" videotestsrc num-buffers=30 pattern=ball ! \
         video/x-raw,width=320,height=240,framerate=15/1 ! vp8enc deadline=1 ! mux. \
         audiotestsrc num-buffers=86 samplesperbuffer=1024 ! vorbisenc ! mux."
    );
    roomtone::media::init().unwrap();
    let pipeline = roomtone::media::launch::parse(&make).unwrap();
    roomtone::media::launch::run_to_end(&pipeline).unwrap();
    let received = Received::new();
    let media = ["--video", "file", "--audio", "file", "--device", &file, "--size", "320x240", "--fps", "15"];
    let _bob = stage.answer("bob").media(&media).ready();
    let mut ann = stage.call("bob").media(&["--receive-only"]).receiving(&received).start();
    ann.expect("media", &[("kind", "video")]);
    // The file has 30 pictures: more than two rounds of it, and not all at once.
    let (mark, began) = (received.mark(), Instant::now());
    received.expect_moving_and_audible(mark, 75);
    let seconds = began.elapsed().as_secs_f64();
    assert!(seconds > 3.0, "75 pictures of 15 a second came within {seconds} s");
}

#[test]
fn without_camera_sound_card_and_display_the_defaults_fall_back_and_say_so() {
    roomtone::media::init().unwrap();
    if !roomtone::media::inventory::sources().is_empty() || roomtone::media::inventory::has_speaker() {
        return crate::common::needs::skip("this machine has a camera or a sound card");
    }
    let stage = Stage::new();
    let mut bob = stage.answer("bob").media(&["--size", "320x240", "--fps", "15"]).outputs(&[]).start();
    let texts: Vec<String> =
        (0..4).map(|_| bob.expect("warning", &[])["text"].as_str().unwrap().to_owned()).collect();
    for (text, words) in texts.iter().zip(["no display", "no sound card", "no camera", "no microphone"]) {
        assert!(text.starts_with(words), "{texts:?}");
    }
    bob.expect("registered", &[]);
    let received = Received::new();
    let mut ann = stage.call("bob").media(&["--receive-only"]).receiving(&received).start();
    ann.expect("media", &[("kind", "video")]);
    received.expect_moving_and_audible((0, 0), 20);
}

#[test]
fn nobody_and_a_taken_id_and_a_silent_peer_are_told_apart() {
    let stage = Stage::new();
    let outcome = |client: Client| {
        let (code, error) = client.without_media().start().end();
        assert_eq!(
            error.trim_end().lines().filter(|line| line.starts_with("roomtone: ")).count(),
            1,
            "{error}"
        );
        (code, error)
    };
    let (code, error) = outcome(stage.call("nobody"));
    assert_eq!((code, error.contains("peer 'nobody' not found")), (5, true), "{error}");

    let _bob = stage.answer("bob").without_media().ready();
    let (code, error) = outcome(stage.answer("bob"));
    assert_eq!((code, error.contains("the id is taken")), (4, true), "{error}");

    // Registered, and never a word more.
    let _mute = stage.peer("mute");
    let (code, error) = outcome(stage.call("mute").with(&["--ring", "3"]));
    assert_eq!(
        (code, error.contains("waiting for the peer's answer: nothing came for 3 s")),
        (6, true),
        "{error}"
    );
}

#[test]
fn three_in_a_room_with_one_encode_each_and_one_who_returns() {
    let stage = Stage::new();
    let received: Vec<Received> = (0..3).map(|_| Received::new()).collect();
    let join = |name: &str, received: &Received| stage.join(name).receiving(received).start();
    let mut ann = join("ann", &received[0]);
    assert_eq!(ann.expect("room", &[("room", "attic")])["peers"], json!([]));
    let mut bob = join("bob", &received[1]);
    bob.expect("room", &[]);
    let mut cat = join("cat", &received[2]);
    assert_eq!(cat.expect("room", &[])["peers"].as_array().unwrap().len(), 2);
    for (program, others) in [(&mut ann, ["bob", "cat"]), (&mut cat, ["ann", "bob"])] {
        let video = |peer| [("peer", peer), ("kind", "video")];
        program.expect_all(&others.map(video).each_ref().map(|fields| ("media", &fields[..])));
    }
    bob.expect("peer", &[("peer", "cat"), ("state", "connected")]);
    for received in &received {
        received.expect_moving_and_audible((0, 0), 20);
    }
    // To all, and to one.
    ann.say(&json!({"command": "say", "text": "to all"}));
    bob.expect("message", &[("peer", "ann"), ("text", "to all")]);
    cat.expect("message", &[("peer", "ann"), ("text", "to all")]);
    ann.say(&json!({"command": "say", "to": "cat", "text": "to one"}));
    cat.expect("message", &[("text", "to one")]);

    // A peer leaves and returns under its name.
    bob.quit();
    for program in [&mut ann, &mut cat] {
        program.expect("peer", &[("peer", "bob"), ("state", "left")]);
    }
    let again = Received::new();
    let mut bob = join("bob", &again);
    for program in [&mut ann, &mut cat] {
        program.expect("peer", &[("peer", "bob"), ("state", "connected")]);
        program.expect("media", &[("peer", "bob"), ("kind", "video")]);
    }
    again.expect_moving_and_audible((0, 0), 20);

    // Silence and black, another source, and a peer that is hung up on: nothing is negotiated.
    cat.quit();
    ann.say(&json!({"command": "mute"}));
    ann.say(&json!({"command": "camera-off"}));
    ann.expect("sending", &[("kind", "video"), ("what", "muted")]);
    again.expect_silence();
    again.expect_still();
    ann.say(&json!({"command": "unmute"}));
    ann.say(&json!({"command": "camera-on"}));
    ann.say(&json!({"command": "video", "source": "videotestsrc is-live=true pattern=snow ! identity"}));
    ann.expect(
        "sending",
        &[("kind", "video"), ("what", "videotestsrc is-live=true pattern=snow ! identity")],
    );
    again.expect_moving_and_audible(again.mark(), 20);
    ann.say(&json!({"command": "hang-up", "peer": "bob"}));
    bob.expect("peer", &[("peer", "ann"), ("state", "left"), ("reason", "the peer hung up")]);
    // A peer that says nothing any more is looked for on other paths first.
    assert!(!bob.has_seen("peer", &[("peer", "ann"), ("state", "reconnecting")]));
}

#[test]
fn who_is_called_is_said_with_the_name_where_the_server_reads_on() {
    use async_tungstenite::tungstenite::handshake::server::{Request, Response};
    use async_tungstenite::tungstenite::{Message, accept_hdr};
    let home = tempfile::tempdir().unwrap();
    for (server, reads_on) in [(Some("roomtone"), true), (Some("nginx"), false), (None, false)] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let ann = Client::new(home.path(), &["call", "bob", "--id", "ann", "--server", &url]);
        let mut ann = ann.start();
        let (stream, _) = listener.accept().unwrap();
        let waits = stream.try_clone().unwrap();
        #[allow(clippy::result_large_err, reason = "the library's own type")]
        let name = |_: &Request, mut response: Response| {
            if let Some(server) = server {
                response.headers_mut().insert("server", server.parse().unwrap());
            }
            Ok(response)
        };
        let mut ws = accept_hdr(Resumed(stream), name).unwrap();
        assert_eq!(ws.read().unwrap(), Message::text("HELLO ann"));
        if !reads_on {
            waits.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            assert!(ws.read().is_err(), "it says more before it is registered");
            waits.set_read_timeout(None).unwrap();
            ws.send(Message::text("HELLO")).unwrap();
        }
        assert_eq!(ws.read().unwrap(), Message::text("SESSION bob"));
        if reads_on {
            ws.send(Message::text("HELLO")).unwrap();
        }
        ann.expect("registered", &[("id", "ann")]);
        ws.send(Message::text("SESSION_OK")).unwrap();
        // Not once more, but the call itself.
        let next = ws.read().unwrap();
        assert!(next.to_text().unwrap().contains("\"offer\""), "{next}");
    }
}

#[test]
fn a_caller_takes_over_the_id_of_one_that_is_dead() {
    let stage = Stage::new();
    let (mut bob, dead) = (stage.answer("bob").ready(), stage.answer("ann").ready());
    dead.signal("STOP");
    // The server asks the dead one first; whom she calls is said too soon then, and once more.
    let mut ann = stage.call("bob").id("ann").start();
    ann.expect("peer", &[("peer", "bob"), ("state", "connected")]);
    bob.expect("media", &[("kind", "video")]);
}

#[test]
fn whoever_quits_while_a_connection_is_made_ends_in_peace() {
    let stage = Stage::new();
    let ann = stage.join("ann").ready();
    // From before there is an offer to after the media has come, three at a time.
    for round in 0..5 {
        let mut others = [0, 1, 2].map(|n| stage.join(&format!("p{round}{n}")).start());
        for (n, other) in (0..).zip(&mut others) {
            other.expect("room", &[]);
            let joined = Instant::now();
            pace(joined + Duration::from_millis(30 * round + 15 * n));
            other.say(&json!({"command": "quit"}));
        }
        for other in others {
            assert_eq!(other.end().0, 0);
        }
    }
    ann.quit();
}

#[test]
fn a_room_comes_in_one_window_and_one_file() {
    let stage = Stage::new();
    let (file, all) = (stage.path("all.mkv"), Received::new());
    let before = Instant::now();
    let mut cat = stage.join("cat").media(&["--receive-only", "--record-mix", &file]).receiving(&all).ready();
    let began = Instant::now();
    all.expect_halves([false, false]);
    let _ann = stage.join("ann").start();
    cat.expect("media", &[("peer", "ann"), ("kind", "video")]);
    all.expect_halves([true, true]);
    let mut bob = stage.join("<b>&ob").start();
    cat.expect("media", &[("peer", "<b>&ob"), ("kind", "video")]);
    all.expect_moving_and_audible(all.mark(), 20);
    // Two beside each other: their pictures leave the upper and the lower border black.
    all.expect_halves([true, true]);
    bob.say(&json!({"command": "quit"}));
    cat.expect("peer", &[("peer", "<b>&ob"), ("state", "left")]);
    all.expect_moving_and_audible(all.mark(), 20);
    let lasted = began.elapsed().as_secs_f64();
    cat.say(&json!({"command": "quit"}));
    cat.expect("recording", &[("peer", "all")]);
    assert_eq!(cat.end().0, 0);
    let longest = before.elapsed().as_secs_f64();
    let report = probe(&file);
    let (duration, pictures) = duration_and_frames(&report, "vp8");
    let fits = (lasted - 3.0..longest).contains(&duration);
    assert!(fits, "{duration} s in the file, {lasted} s in the room, {longest} s with its start and end");
    // A machine that cannot keep up with the encoding leaves some of the 30 a second out.
    assert!(pictures as f64 > duration * 5.0, "{report}");
    assert!(duration_and_frames(&report, "opus").1 as f64 > duration * 40.0, "{report}");
}

#[test]
fn what_waits_long_is_shown_and_heard_whole() {
    let stage = Stage::new();
    for in_room in [false, true] {
        let received = Received::in_time();
        let _bob = if in_room { stage.join("bob") } else { stage.answer("bob") }.ready();
        let ann = if in_room { stage.join("ann") } else { stage.call("bob") };
        let mut ann = ann.media(&["--receive-only", "--latency", "1500"]).receiving(&received).start();
        ann.expect("media", &[("kind", "video")]);
        received.expect_moving_and_audible((0, 0), 20);
        // Dropped after half a second, it was less than one picture and 0.02 s of sound in each second, all the time; a
        // machine that is busy sends fewer than the 15 there are, and less sound, for a while.
        until("flow of pictures and sound", PATIENCE, || {
            let (pictures, sound) = received.rates(4);
            if pictures > 5.0 && sound > 0.5 { Ok(()) } else { Err((in_room, pictures, sound)) }
        });
    }
}

#[test]
fn who_answers_comes_back_when_the_server_does() {
    let mut stage = Stage::new();
    let mut bob = stage.answer("bob").without_media().ready();
    assert_eq!(stage.end_server("INT"), 0);
    bob.expect("warning", &[("text", "the server is gone; trying again")]);
    stage.serve_again();
    bob.expect("registered", &[("id", "bob")]);
    bob.quit();
}

#[test]
fn the_way_to_a_call_is_told_step_by_step() {
    let stage = Stage::new();
    let mut bob = stage.answer("bob").with(&["--trace-setup"]).ready();
    let mut ann = stage.call("bob").id("ann").with(&["--trace-setup"]).start();
    for (program, peer, way) in [
        (&mut ann, "bob", ["our offer is made", "the peer's answer is applied"]),
        (&mut bob, "ann", ["the peer's offer is applied", "our answer is made"]),
    ] {
        program.expect("setup", &[("step", "the first frame of video came")]);
        let steps = program.all("setup", &[]);
        let at = |step: &str, peer: Option<&str>| {
            let found = steps.iter().find(|told| told["step"] == step && told["peer"].as_str() == peer);
            found.unwrap_or_else(|| panic!("no {step} in {steps:?}"))["ms"].as_f64().unwrap()
        };
        let own = ["GStreamer is loaded", "the sources run", "the encoders run", "the server answered"];
        let all = own.map(|step| at(step, None)).into_iter().chain(
            [
                "the connection is opened",
                way[0],
                way[1],
                "ICE and DTLS are through",
                "the first frame of video came",
            ]
            .map(|step| at(step, Some(peer))),
        );
        let all: Vec<f64> = all.collect();
        assert!(all.is_sorted() && all[0] > 0.0, "{all:?}");
        assert!(steps.iter().any(|told| told["took_ms"].as_f64().is_some_and(|took| took > 0.0)));
    }
}

/// Pipeline that sends VP8 while the valve `camera` is open, and Opus.
const CAMERA: &str = "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=15/1 ! \
    vp8enc deadline=1 keyframe-max-dist=30 ! valve name=camera drop=true ! rtpvp8pay pt=96 ! \
    application/x-rtp,media=video,encoding-name=VP8,payload=96 ! rtc. \
    audiotestsrc is-live=true ! opusenc ! rtpopuspay pt=111 ! \
    application/x-rtp,media=audio,encoding-name=OPUS,payload=111 ! rtc.";

#[test]
fn a_camera_that_is_switched_on_later_is_recorded() {
    let stage = Stage::new();
    let mut bob =
        stage.answer("bob").without_media().with(&["--once", "--record", &stage.path("records")]).ready();
    // The id has 256 bytes, more than the name of a file may have.
    let id = "\u{1D4D0}".repeat(64);
    let ann = RawCall::start(&stage.url, &id, "bob", CAMERA);
    bob.expect("media", &[("kind", "audio")]);
    let alone = bob.expect("recording", &[])["path"].as_str().unwrap().to_owned();
    let received = |bob: &mut Program, kind: &str| bob.stats()[format!("{kind}_frames_received")].as_u64();
    // The file waits for other tracks for a while; a camera that comes meanwhile would be in it.
    wait_for("a file that has begun", || std::fs::metadata(&alone).ok().filter(|file| file.len() > 0));
    let before = received(&mut bob, "audio").unwrap();
    wait_for("sound alone", || received(&mut bob, "audio").filter(|count| *count > before + 75));
    ann.element("camera").set_property("drop", false);
    bob.expect("media", &[("kind", "video")]);
    bob.expect("recording", &[]);
    let before = received(&mut bob, "audio").unwrap();
    wait_for("video", || received(&mut bob, "video").filter(|count| *count > 25));
    wait_for("sound beside it", || received(&mut bob, "audio").filter(|count| *count > before + 75));
    drop(ann);
    bob.expect("ended", &[]);
    let done: Vec<_> =
        bob.all("recording", &[]).into_iter().filter(|event| event["finished"] == true).collect();
    let paths: Vec<&str> = done.iter().map(|event| event["path"].as_str().unwrap()).collect();
    assert_eq!(paths.len(), 2, "{done:?}");
    let (first, second) = (probe(paths[0]), probe(paths[1]));
    assert!(duration_and_frames(&first, "opus").1 > 100, "{first}");
    assert!(duration_and_frames(&second, "opus").1 > 50, "{second}");
    assert!(duration_and_frames(&second, "vp8").1 > 15, "{second}");
}

/// A small file system of the test's own, which soon is full.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(at: std::path::PathBuf, size: &str) -> Self {
        std::fs::create_dir(&at).unwrap();
        let options = format!("size={size}");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&at)
            .status();
        assert!(mounted.unwrap().success(), "this test mounts a tmpfs, and needs root for it");
        Self(at)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_recording_on_a_full_disk_is_told_once_and_is_not_finished() {
    let stage = Stage::new();
    let small = Small::mount(stage.home().join("records"), "256k");
    let mut bob =
        stage.answer("bob").without_media().with(&["--once", "--record", small.0.to_str().unwrap()]).ready();
    let mut ann = stage.call("bob").id("ann").start();
    let path = bob.expect("recording", &[("peer", "ann")])["path"].as_str().unwrap().to_owned();
    let warning = bob.expect("warning", &[])["text"].as_str().unwrap().to_owned();
    assert!(warning.contains(&path) && warning.contains("No space left"), "{warning}");
    // The recorder would have written all of these.
    let frames = |bob: &mut Program| bob.stats()["audio_frames_received"].as_u64();
    let before = frames(&mut bob).unwrap();
    wait_for("more sound", || frames(&mut bob).filter(|count| *count > before + 50));
    ann.say(&json!({"command": "quit"}));
    bob.expect("ended", &[]);
    assert_eq!(bob.count("warning", &[]), 1, "{:?}", bob.all("warning", &[]));
    let last = bob.all("recording", &[]).pop().unwrap();
    assert_eq!((&last["finished"], last["path"].as_str()), (&json!(false), Some(path.as_str())), "{last}");
    assert!(last["error"].as_str().unwrap().contains("No space left"), "{last}");
}

#[test]
fn what_is_not_measured_is_not_in_the_statistics() {
    let stage = Stage::new();
    let mut bob = stage.answer("bob").ready();
    let mut ann = stage.call("bob").media(&["--receive-only"]).start();
    ann.expect("media", &[("kind", "audio")]);
    ann.expect("media", &[("kind", "video")]);
    let has = |stats: &serde_json::Value, name: &str| stats.as_object().unwrap().contains_key(name);
    let measured = |side: &mut Program, names: &[&str]| {
        wait_for("measurements", || {
            Some(side.stats()).filter(|stats| names.iter().all(|name| has(stats, name)))
        })
    };
    let of_ann = measured(&mut ann, &["width", "delay_ms"]);
    let of_bob = measured(&mut bob, &["sound_level_sent"]);
    // Neither side plays anything, and only one of them sends.
    for name in ["sound_level_received", "sound_level_sent", "video_kbps", "network_kbps"] {
        assert!(!has(&of_ann, name), "{name}: {of_ann}");
    }
    for name in ["sound_level_received", "width", "height", "delay_ms"] {
        assert!(!has(&of_bob, name), "{name}: {of_bob}");
    }
}
