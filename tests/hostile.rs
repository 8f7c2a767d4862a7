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
