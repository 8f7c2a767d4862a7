//! Whose calls are taken, and what those hear whose calls are not.

use crate::common::browser::Browser;
use crate::common::{Stage, needs};
use serde_json::json;

#[test]
fn a_call_waits_for_a_yes_and_a_no_is_told() {
    needs!(Browser);
    let stage = Stage::new();
    let mut bob = stage.answer("bob").with(&["--ask"]).ready();

    let mut ann = stage.call("bob").id("ann").start();
    bob.expect("peer", &[("peer", "ann"), ("state", "calling")]);
    bob.say(&json!({"command": "decline"}));
    bob.expect("peer", &[("peer", "ann"), ("state", "declined"), ("reason", "the call was declined")]);
    ann.expect("peer", &[("state", "failed"), ("reason", "the peer declined: the call was declined")]);
    assert_eq!(ann.end().0, 5);

    bob.expect("registered", &[]);
    let mut ann = stage.call("bob").id("ann").start();
    bob.expect("peer", &[("peer", "ann"), ("state", "calling")]);
    // Nothing comes to the caller, neither words nor media, for as long as nobody agreed: not while another caller
    // starts and is refused.
    let (code, error) = stage.call("bob").id("cat").start().end();
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
    let browser = stage.enter("?call=bob");
    bob.expect("peer", &[("state", "calling")]);
    bob.say(&json!({"command": "decline"}));
    browser.wait(
        "document.querySelector('#notice').textContent.includes('bob declined: the call was declined')",
    );
    browser.wait("document.body.dataset.state === 'lobby'");
}

#[test]
fn only_the_chosen_may_call() {
    let stage = Stage::new();
    let mut bob = stage.answer("bob").with(&["--allow", "ann,cat"]).ready();
    for request in [&[][..], &["--request-offer"]] {
        let eve = stage.call("bob").id("eve").with(request).start();
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
    let mut cat = stage.call("bob").id("cat").start();
    cat.expect("peer", &[("state", "connected")]);
}

#[test]
fn who_is_one_too_many_in_a_room_is_told_so() {
    needs!(Browser);
    let stage = Stage::new();
    let mut ann = stage.join("ann").with(&["--max-peers", "1"]).ready();
    let mut bob = stage.join("bob").start();
    ann.expect("peer", &[("peer", "bob"), ("state", "connected")]);
    let mut cat = stage.join("cat").start();
    let reason = "the peer declined: it is connected with 1 peers already, as many as it takes";
    cat.expect_all(&[
        ("peer", &[("peer", "ann"), ("state", "failed"), ("reason", reason)]),
        ("peer", &[("peer", "bob"), ("state", "connected")]),
    ]);
    ann.expect("warning", &[("text", "not connected to 'cat': the limit of 1 connections is reached")]);
    // And a page, which goes on with the others.
    let browser = stage.enter("?room=attic");
    let tile = |peer: &str, state: &str| {
        format!("document.querySelector('.tile[data-peer={peer}]').dataset.state === '{state}'")
    };
    browser.wait(&tile("ann", "declined"));
    browser.wait(&tile("bob", "connected"));
    browser.wait("document.querySelector('#notice').textContent.includes('No connection with ann')");

    // When there is room again, an offer is welcome.
    bob.say(&json!({"command": "quit"}));
    ann.expect("peer", &[("peer", "bob"), ("state", "left")]);
    let mut dan = stage.join("dan").start();
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
