//! `room-client` against our server, and against one that does it wrong.

use crate::common::{PATIENCE, Stage, free_address};
use assert_cmd::Command;

fn room_client(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::cargo_bin("room-client").unwrap();
    let output = command.args(args).timeout(PATIENCE).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(!err.contains("panicked"), "{err}");
    (output.status.code().unwrap_or(-1), out, err)
}

#[test]
fn the_protocols_story_runs_on_our_server() {
    let stage = Stage::new();
    let folder = format!("{}/scripts", env!("CARGO_MANIFEST_DIR"));
    let mut ran = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "room") {
            let (code, _, err) = room_client(&["run", path.to_str().unwrap(), "--url", &stage.url]);
            assert_eq!(code, 0, "{err}");
            ran += 1;
        }
    }
    assert_eq!(ran, 6);
}

#[test]
fn our_server_conforms_and_nobody_is_left_behind() {
    let stage = Stage::new();
    let report = stage.home().join("report.xml");
    let (code, out, err) = room_client(&["check", "--url", &stage.url, "--junit", report.to_str().unwrap()]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.ends_with("25 ok, 0 failed, 0 known deviations, 0 absent\n"), "{out}");
    let report = std::fs::read_to_string(report).unwrap();
    assert!(report.contains("tests=\"25\" failures=\"0\"") && report.matches("<testcase").count() == 25);
    let health = stage.url.replacen("ws", "http", 1) + "/health";
    crate::common::wait_for("all to be gone", || {
        let text = ureq::get(&health).call().unwrap().body_mut().read_to_string().unwrap();
        (text == "OK\nconnections 0\npeers 0\nrooms 0\n").then_some(())
    });
}

#[test]
fn a_server_that_does_it_wrong_fails_by_name() {
    // It knows HELLO, in lower case, and nothing else.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut ws = crate::common::WebSocket::accept(stream);
                while ws.hear().is_some() && ws.try_say("hello") {}
            });
        }
    });
    let home = tempfile::tempdir().unwrap();
    let script = home.path().join("one.room");
    std::fs::write(&script, "a !connect\n\na > HELLO a\na <1s HELLO\n").unwrap();
    let (code, _, err) = room_client(&["run", script.to_str().unwrap(), "--url", &url]);
    assert_eq!(code, 1);
    assert!(err.ends_with("one.room: line 4: a should receive \"HELLO\", but received \"hello\"\n"), "{err}");
}

#[test]
fn what_cannot_be_run_says_why() {
    let free = free_address();
    let url = format!("ws://{free}");
    for command in [&["check"][..], &["--room", "attic"], &["load", "--peers", "2", "--seconds", "1"]] {
        let (code, _, err) = room_client(&[command, &["--url", &url]].concat());
        assert_eq!((code, err.contains("is not reachable")), (3, true), "{command:?}: {err}");
    }
    let home = tempfile::tempdir().unwrap();
    let script = home.path().join("wrong.room");
    std::fs::write(&script, "a !connect\na dances\n").unwrap();
    let (code, _, err) = room_client(&["run", script.to_str().unwrap(), "--url", &url]);
    assert_eq!((code, err.contains("wrong.room: line 2: a step is 'peer > text'")), (2, true), "{err}");
    assert_eq!(room_client(&["--url", "http://x"]).0, 2);
    assert_eq!(room_client(&["--room", "a b", "--url", &url]).0, 2);
}

#[test]
fn the_classic_test_client_offers_answers_and_ends_on_an_error() {
    let mut stage = Stage::new();
    let mut ann = stage.peer("ann");
    ann.say("ROOM attic");
    ann.expect("ROOM_OK ");
    let arguments = ["--url", &stage.url, "--room", "attic", "--id", "bob"].map(str::to_owned);
    let bob = std::thread::spawn(move || room_client(&arguments.each_ref().map(String::as_str)));
    ann.expect("ROOM_PEER_JOINED bob");
    ann.expect("ROOM_PEER_MSG bob {\"sdp\": \"initial sdp\"}");
    ann.say("ROOM_PEER_MSG bob {\"sdp\": {\"type\": \"offer\", \"sdp\": \"v=0\"}}");
    ann.expect("ROOM_PEER_MSG bob {\"sdp\": \"reply sdp\"}");
    // A peer can say ERROR too, but only the server's own counts; and the server's end is the end.
    ann.say("ROOM_PEER_MSG bob ERROR forged");
    stage.end_server("INT");
    let (code, out, err) = bob.join().unwrap();
    assert_eq!((code, err.contains("closed by the server: 1001 the server stops")), (4, true), "{out}{err}");
    assert!(out.contains(" > HELLO bob\n") && out.contains(" < ROOM_OK ann\n"), "{out}");

    stage.serve_again();
    let (code, _, err) = room_client(&["--url", &stage.url, "--session", "nobody"]);
    assert_eq!((code, err.contains("the server said ERROR peer 'nobody' not found")), (4, true), "{err}");
}

#[test]
fn a_load_reports_what_it_measured() {
    let stage = Stage::new();
    let (code, out, err) = room_client(&[
        "load",
        "--url",
        &stage.url,
        "--peers",
        "40",
        "--rooms",
        "8",
        "--seconds",
        "1",
        "--json",
    ]);
    assert_eq!(code, 0, "{err}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["register_ms"]["count"], 40);
    assert_eq!(report["join_ms"]["count"], 40);
    let (sent, received) = (report["sent"].as_u64().unwrap(), report["received"].as_u64().unwrap());
    assert!(sent > 100 && received > 100 && received <= sent, "{report}");
}
