//! Calls between the programs and a real Chromium on the page: both ways, in every role.
#![cfg(feature = "media")]

mod common;

use common::browser::Browser;
use common::{Program, Received, SMALL, ws};
use serde_json::json;

fn args<'a>(first: &[&'a str], rest: &'a [String]) -> Vec<&'a str> {
    first.iter().copied().chain(SMALL).chain(rest.iter().map(String::as_str)).collect()
}

fn chat_both_ways(browser: &Browser, program: &mut Program) {
    browser.wait("!document.querySelector('#text').disabled");
    browser.run("document.querySelector('#text').value = 'from the page'");
    browser.click("send");
    program.expect("message", &[("text", "from the page")]);
    program.say(&json!({"command": "say", "text": "from <b>here</b>"}));
    browser.wait("[...document.querySelectorAll('#messages .theirs')].some((m) => m.textContent === 'from <b>here</b>')");
}

#[test]
fn whoever_opens_the_link_is_in_the_call_again_and_again() {
    let (home, received) = (tempfile::tempdir().unwrap(), Received::new());
    let options = received.options();
    let mut host = Program::start(home.path(), &args(&["host", "--listen", "127.0.0.1:0"], &options));
    let link = host.link();
    let browser = Browser::start();

    // The page calls, all flows, and the page hangs up.
    browser.open(&link);
    host.expect("peer", &[("state", "connected")]);
    let video = host.expect("media", &[("kind", "video")]);
    assert_eq!(video["codec"], "VP8");
    received.expect_moving_and_audible((0, 0), 30);
    browser.expect_moving_and_audible();
    chat_both_ways(&browser, &mut host);
    browser.click("hang-up");
    host.expect("peer", &[("state", "left"), ("reason", "the peer hung up")]);

    // A second call to the same client; this time the client hangs up.
    let mark = received.mark();
    browser.open(&link);
    host.expect("peer", &[("state", "connected")]);
    received.expect_moving_and_audible(mark, 20);
    browser.expect_moving_and_audible();
    host.say(&json!({"command": "hang-up"}));
    host.expect("peer", &[("state", "left"), ("reason", "hung up")]);
    browser.wait("document.body.dataset.state === 'lobby'");

    host.interrupt();
    host.expect("ended", &[("reason", "interrupted")]);
    assert_eq!(host.end().0, 130);
}
