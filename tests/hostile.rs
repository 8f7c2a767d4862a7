//! Peers and servers that send junk: a clear line or a shrug, never a panic, a hang or a dead program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]
#![cfg(feature = "media")]

mod common;

use common::{Program, Received, SMALL, WebSocket, ws};
use serde_json::json;

const OFFER: &str = include_str!("../src/sdp/testdata/chromium-offer.sdp");

fn description(kind: &str, sdp: &str) -> String {
    json!({"sdp": {"type": kind, "sdp": sdp}}).to_string()
}

#[test]
fn a_client_outlives_every_kind_of_junk_and_still_takes_calls() {
    let home = tempfile::tempdir().unwrap();
    let received = Received::new();
    let options = received.options();
    let outputs: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut host =
        Program::start(home.path(), &[&["host", "--listen", "127.0.0.1:0"], &SMALL[..], &outputs].concat());
    let url = ws(&host.link());
    host.expect("registered", &[]);

    let big_candidates = OFFER.to_owned() + &"a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n".repeat(20_000);
    let junk: Vec<Vec<String>> = vec![
        vec!["nonsense".into(), "ERROR forged".into(), "HELLO".into(), "{".into(), "[]".into(), "null".into(), "\u{0}".into()],
        vec![r#"{"sdp": "initial sdp"}"#.into(), r#"{"sdp": {"type": "answer", "sdp": ""}}"#.into()],
        vec![r#"{"sdp": {"type": "offer"}}"#.into(), r#"{"sdp": {"type": "pranswer", "sdp": "v=0"}}"#.into()],
        vec![description("offer", "v=0\r\n"), description("offer", &"x".repeat(500_000))],
        vec![description("offer", &OFFER.replace("ice-ufrag", "x-ufrag"))],
        vec![description("offer", &OFFER.replace("fingerprint", "x-print"))],
        vec![description("offer", &OFFER.replace("BUNDLE 0 1 2", "BUNDLE 0 1 2 3"))],
        vec![description("offer", &big_candidates)],
        vec![description("answer", OFFER), "OFFER_REQUEST".into(), description("answer", &OFFER.replace("actpass", "active"))],
        vec![r#"{"ice": {"candidate": "candidate:x", "sdpMLineIndex": 99}}"#.into(); 1000],
        vec![
            description("offer", OFFER),
            r#"{"ice": {"candidate": "candidate:1 1 udp 1 evil.example 9 typ host", "sdpMLineIndex": 0}}"#.into(),
            r#"{"ice": {"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdpMLineIndex": 4294967295}}"#.into(),
            r#"{"ice": {"candidate": "", "sdpMLineIndex": 0}}"#.into(),
            description("offer", OFFER),
            description("offer", &OFFER.replace("m=video 9", "m=video 0")),
            "OFFER_REQUEST".into(),
        ],
    ];
    for (n, messages) in junk.iter().enumerate() {
        let id = format!("junk{n}");
        let mut peer = WebSocket::connect(&url);
        peer.say(&format!("HELLO {id}"));
        peer.expect("HELLO");
        peer.say("SESSION host");
        peer.expect("SESSION_OK");
        messages.iter().for_each(|message| peer.say(message));
        host.expect("peer", &[("peer", &id), ("state", "connecting")]);
        // What was sent is worked on in order; a chat of text is the last word.
        drop(peer);
        host.expect("peer", &[("peer", &id)]);
        host.expect("registered", &[]);
    }

    // After all of it, a call.
    let call = ["call", "host", "--server", &url, "--headless"];
    let mut caller = Program::start(home.path(), &[&call, &SMALL[..]].concat());
    caller.expect("media", &[("kind", "video")]);
    received.expect_moving_and_audible((0, 0), 20);
    caller.say(&json!({"command": "quit"}));
    assert_eq!(caller.end().0, 0);
}

/// A server of one connection that follows a script, and then stays or goes.
fn server(script: impl FnOnce(&mut WebSocket) + Send + 'static) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        script(&mut WebSocket::accept(stream));
    });
    url
}

fn call(url: &str) -> (i32, String) {
    let home = tempfile::tempdir().unwrap();
    let args = ["call", "bob", "--server", url, "--headless", "--video=none", "--audio=none"];
    Program::start(home.path(), &args).end()
}

#[test]
fn a_server_that_misbehaves_ends_the_call_with_one_line() {
    let check = |script: fn(&mut WebSocket), code: i32, words: &str| {
        let (found, error) = call(&server(script));
        assert_eq!(found, code, "{error}");
        assert!(error.contains(words), "{error}");
        assert!(!error.contains("panicked"), "{error}");
    };
    check(
        |ws| {
            ws.hear();
            ws.close(1002, "invalid protocol")
        },
        4,
        "invalid protocol",
    );
    check(
        |ws| {
            ws.hear();
            ws.say("ERROR go away \u{1b}[2J")
        },
        4,
        "go away \\u{1b}[2J",
    );
    check(
        |ws| {
            ws.hear();
            ws.binary(&[1, 2, 3]);
            ws.say("SESSION_OK");
            ws.say("{}");
            ws.say("HELLO");
            ws.hear();
            ws.say("ERROR peer 'bob' not found");
            ws.hear();
        },
        5,
        "peer 'bob' not found",
    );
    check(
        |ws| {
            ws.hear();
            ws.say("HELLO");
            ws.hear();
            ws.say("SESSION_OK");
            // The offer comes; the connection goes without a word.
            ws.hear();
        },
        6,
        "the peer hung up",
    );
}

#[test]
fn a_room_goes_on_whatever_its_peers_and_its_server_say() {
    let home = tempfile::tempdir().unwrap();
    let (go, told) = std::sync::mpsc::channel::<()>();
    let url = server(move |ws| {
        ws.expect("HELLO ann");
        ws.say("HELLO");
        ws.expect("ROOM attic");
        let names: Vec<String> = (0..1000).map(|n| format!("p{n}")).collect();
        ws.say(&format!("ROOM_OK {}", names.join(" ")));
        // Two are offered to, as many as it may; neither ever answers.
        let offered: std::collections::BTreeSet<String> = std::iter::from_fn(|| ws.hear())
            .filter(|line| line.contains("\"offer\""))
            .map(|line| line.split(' ').nth(1).unwrap().to_owned())
            .take(2)
            .collect();
        assert_eq!(offered, ["p0".to_owned(), "p1".to_owned()].into());
        let offer = description("offer", OFFER);
        let candidate =
            r#"{"ice": {"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host", "sdpMLineIndex": 7}}"#;
        for line in [
            format!("ROOM_PEER_MSG eve {offer}"),
            format!("ROOM_PEER_MSG eve {candidate}"),
            format!("ROOM_PEER_MSG p0 {candidate}"),
            "ROOM_PEER_MSG p0 gibberish".into(),
            "ROOM_PEER_MSG p0 {\"sdp\": \"initial sdp\"}".into(),
            "ROOM_PEER_MSG".into(),
            "ROOM_PEER_LEFT nobody".into(),
            "ROOM_PEER_JOINED a b c".into(),
            "ROOM_PEER_JOINED p999".into(),
            "ERROR something odd \u{1b}[2J".into(),
            // It was there first, and offers all the same: there is no place for it.
            format!("ROOM_PEER_MSG p7 {offer}"),
        ] {
            ws.say(&line);
        }
        let declined = std::iter::from_fn(|| ws.hear()).find(|line| line.starts_with("ROOM_PEER_MSG p7 "));
        assert!(declined.unwrap().contains("connected with 2 peers already"));
        // One goes: its place is free, and the offer is taken.
        ws.say("ROOM_PEER_LEFT p0");
        ws.say(&format!("ROOM_PEER_MSG p7 {offer}"));
        let answer = std::iter::from_fn(|| ws.hear())
            .find(|line| line.starts_with("ROOM_PEER_MSG p7 ") && line.contains("\"answer\""));
        assert!(answer.unwrap().contains("a=fingerprint"));
        told.recv().unwrap();
    });
    let args = ["join", "attic", "--id", "ann", "--server", &url, "--max-peers", "2", "--headless"];
    let mut ann = Program::start(home.path(), &[&args, &SMALL[..]].concat());
    ann.expect("warning", &[("text", "a message from 'eve', who is not in the room")]);
    ann.expect("peer", &[("peer", "p0"), ("state", "left")]);
    ann.expect("peer", &[("peer", "p7"), ("state", "connecting")]);
    let silent = "waiting for the peer's answer: nothing came for 10 s";
    ann.expect("peer", &[("peer", "p1"), ("state", "failed"), ("reason", silent)]);
    ann.say(&json!({"command": "peers"}));
    ann.expect("peer", &[("peer", "p998"), ("state", "joined")]);
    ann.say(&json!({"command": "quit"}));
    assert_eq!(ann.end().0, 0);
    go.send(()).unwrap();
}

#[test]
fn a_room_that_is_refused_says_why() {
    let home = tempfile::tempdir().unwrap();
    for refusal in ["ERROR invalid room id 'attic'", "ERROR the room 'attic' is full"] {
        let url = server(move |ws| {
            ws.hear();
            ws.say("HELLO");
            ws.hear();
            ws.say(refusal);
            ws.hear();
        });
        let args = ["join", "attic", "--server", &url, "--headless", "--video=none", "--audio=none"];
        let (code, error) = Program::start(home.path(), &args).end();
        assert_eq!((code, error.contains(refusal.trim_start_matches("ERROR "))), (4, true), "{error}");
    }
    // A name that no server takes is refused before anything is opened.
    let (code, error) = Program::start(home.path(), &["join", "a b"]).end();
    assert_eq!((code, error.contains("a b")), (2, true), "{error}");
}
