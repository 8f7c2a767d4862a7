//! Whose calls are taken, and what those hear whose calls are not.

use std::path::Path;

use crate::common::browser::Browser;
use crate::common::{Program, SMALL, needs, ws};
use serde_json::json;

fn server(home: &Path) -> (Program, String, String) {
    let mut server = Program::start(home, &["serve", "--listen", "127.0.0.1:0"]);
    let link = server.link();
    let url = ws(&link);
    (server, link, url)
}

fn start(home: &Path, args: &[&str]) -> Program {
    Program::start(home, &[args, &["--headless"], &SMALL].concat())
}

#[test]
fn a_call_waits_for_a_yes_and_a_no_is_told() {
    needs!(Browser);
    let home = tempfile::tempdir().unwrap();
    let (_server, link, url) = server(home.path());
    let mut bob = start(home.path(), &["answer", "--id", "bob", "--ask", "--server", &url]);
    bob.expect("registered", &[]);

    let mut ann = start(home.path(), &["call", "bob", "--id", "ann", "--server", &url]);
    bob.expect("peer", &[("peer", "ann"), ("state", "calling")]);
    bob.say(&json!({"command": "decline"}));
    bob.expect("peer", &[("peer", "ann"), ("state", "declined"), ("reason", "the call was declined")]);
    ann.expect("peer", &[("state", "failed"), ("reason", "the peer declined: the call was declined")]);
    assert_eq!(ann.end().0, 5);

    bob.expect("registered", &[]);
    let mut ann = start(home.path(), &["call", "bob", "--id", "ann", "--server", &url]);
    bob.expect("peer", &[("peer", "ann"), ("state", "calling")]);
    // Nothing comes to the caller, neither words nor media, for as long as nobody agreed: not while another caller
    // starts and is refused.
    let (code, error) = start(home.path(), &["call", "bob", "--id", "cat", "--server", &url]).end();
    assert_eq!((code, error.contains("peer 'bob' busy")), (5, true), "{error}");
    assert!(!ann.has_seen("peer", &[("state", "connected")]));
    bob.say(&json!({"command": "accept"}));
    for program in [&mut ann, &mut bob] {
        program.expect("peer", &[("state", "connected")]);
        program.expect("media", &[("kind", "video")]);
    }
    ann.say(&json!({"command": "hang-up"}));
    assert_eq!(ann.end().0, 0);

    // A page is told as well.
    bob.expect("registered", &[]);
    let browser = Browser::start();
    browser.enter(&format!("{link}?call=bob"));
    bob.expect("peer", &[("state", "calling")]);
    bob.say(&json!({"command": "decline"}));
    browser.wait(
        "document.querySelector('#notice').textContent.includes('bob declined: the call was declined')",
    );
    browser.wait("document.body.dataset.state === 'lobby'");
}

#[test]
fn only_the_chosen_may_call() {
    let home = tempfile::tempdir().unwrap();
    let (_server, _, url) = server(home.path());
    let args = ["answer", "--id", "bob", "--allow", "ann,cat", "--server", &url];
    let mut bob = start(home.path(), &args);
    bob.expect("registered", &[]);
    for request in [&[][..], &["--request-offer"]] {
        let eve = start(home.path(), &[&["call", "bob", "--id", "eve", "--server", &url], request].concat());
        bob.expect("peer", &[("peer", "eve"), ("state", "declined")]);
        let (code, error) = eve.end();
        let expected = match request {
            [] => (5, "the peer declined: only chosen peers may call here"),
            // A caller that requested the offer sees the call end.
            _ => (6, "the peer hung up"),
        };
        assert!(code == expected.0 && error.contains(expected.1), "{code}: {error}");
        bob.expect("registered", &[]);
    }
    let mut cat = start(home.path(), &["call", "bob", "--id", "cat", "--server", &url]);
    cat.expect("peer", &[("state", "connected")]);
}

#[test]
fn who_is_one_too_many_in_a_room_is_told_so() {
    needs!(Browser);
    let home = tempfile::tempdir().unwrap();
    let (_server, link, url) = server(home.path());
    let join = |name: &str, more: &[&str]| {
        start(home.path(), &[&["join", "attic", "--id", name, "--server", &url], more].concat())
    };
    let mut ann = join("ann", &["--max-peers", "1"]);
    ann.expect("room", &[]);
    let mut bob = join("bob", &[]);
    ann.expect("peer", &[("peer", "bob"), ("state", "connected")]);
    let mut cat = join("cat", &[]);
    let reason = "the peer declined: it is connected with 1 peers already, as many as it takes";
    cat.expect_all(&[
        ("peer", &[("peer", "ann"), ("state", "failed"), ("reason", reason)]),
        ("peer", &[("peer", "bob"), ("state", "connected")]),
    ]);
    ann.expect("warning", &[("text", "not connected to 'cat': the limit of 1 connections is reached")]);
    // And a page, which goes on with the others.
    let browser = Browser::start();
    browser.enter(&format!("{link}?room=attic"));
    let tile = |peer: &str, state: &str| {
        format!("document.querySelector('.tile[data-peer={peer}]').dataset.state === '{state}'")
    };
    browser.wait(&tile("ann", "declined"));
    browser.wait(&tile("bob", "connected"));
    browser.wait("document.querySelector('#notice').textContent.includes('No connection with ann')");

    // When there is room again, an offer is welcome.
    bob.say(&json!({"command": "quit"}));
    ann.expect("peer", &[("peer", "bob"), ("state", "left")]);
    let mut dan = join("dan", &[]);
    dan.expect("peer", &[("peer", "ann"), ("state", "connected")]);
}

#[test]
fn a_page_that_knows_nothing_of_it_takes_an_answer_that_declines() {
    needs!(Browser);
    let browser = Browser::start();
    let offer = browser.run(
        "window.pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' }); pc.createDataChannel('x'); \
         pc.addTransceiver('audio'); pc.addTransceiver('video'); \
         return pc.setLocalDescription().then(() => pc.localDescription.sdp)",
    );
    let offered = roomtone::sdp::Sdp::parse(offer.as_str().unwrap()).unwrap();
    let answer = roomtone::sdp::decline::decline(&offered, "not now").to_string();
    let script = format!(
        "return pc.setRemoteDescription({}).then(() => pc.signalingState)",
        json!({"type": "answer", "sdp": answer})
    );
    assert_eq!(browser.run(&script), "stable");
}
