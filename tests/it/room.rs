//! A room of browsers and native clients: everybody sees and hears everybody.

use crate::common::browser::Browser;
use crate::common::{Program, Received, SMALL, duration_and_frames, needs, probe, strings, wait_for, ws};
use serde_json::json;

const SECRET: &str = "only the back end of this test knows it";

fn client(home: &std::path::Path, first: &[&str], received: &Received) -> Program {
    let options = received.options();
    let outputs = strings(&options);
    Program::start(home, &[first, &SMALL, &outputs].concat())
}

#[test]
fn two_tabs_and_two_natives_see_and_hear_each_other_and_one_leaves_and_returns() {
    needs!(Browser);
    let home = tempfile::tempdir().unwrap();
    let (by_host, by_bob) = (Received::of_each(), Received::of_each());
    let mut host = client(home.path(), &["host", "--room", "attic", "--listen", "127.0.0.1:0"], &by_host);
    let link = host.link();
    assert!(link.ends_with("/?room=attic"), "{link}");
    host.expect("room", &[("room", "attic")]);
    let url = ws(&link);
    let tabs: Vec<Browser> = ["tab1", "tab2"]
        .iter()
        .map(|id| {
            let tab = Browser::start();
            tab.enter(&format!("{link}&id={id}"));
            host.expect("peer", &[("peer", id), ("state", "connected")]);
            tab
        })
        .collect();
    let records = home.path().join("records");
    let record = ["--record", records.to_str().unwrap()];
    let join = ["join", "attic", "--id", "bob", "--server", &url];
    let mut bob = client(home.path(), &[&join[..], &record].concat(), &by_bob);
    let connected = |peer| [("peer", peer), ("state", "connected")];
    let all = ["host", "tab1", "tab2"].map(connected);
    bob.expect_all(&all.each_ref().map(|fields| ("peer", &fields[..])));

    for (received, peers) in [(&by_host, ["tab1", "tab2", "bob"]), (&by_bob, ["tab1", "tab2", "host"])] {
        for peer in peers {
            received.from(peer).expect_moving_and_audible((0, 0), 15);
        }
    }
    for (tab, other) in tabs.iter().zip(["tab2", "tab1"]) {
        for peer in ["host", "bob", other] {
            tab.expect_of_peer(peer);
        }
    }
    // Chat goes to all.
    tabs[0].wait("!document.querySelector('#text').disabled");
    tabs[0].run("document.querySelector('#text').value = 'to all'");
    tabs[0].click("send");
    bob.expect("message", &[("peer", "tab1"), ("text", "to all")]);
    tabs[1].wait(
        "[...document.querySelectorAll('#messages .theirs')].some((m) => m.textContent === 'tab1to all')",
    );

    // The page marks a muted peer.
    bob.say(&json!({"command": "mute"}));
    tabs[1].wait("document.querySelector('.tile[data-peer=bob][data-silent]')");
    bob.say(&json!({"command": "unmute"}));
    tabs[1].wait("document.querySelector('.tile[data-peer=bob]:not([data-silent])')");

    // A tab leaves: its place is empty for all. It returns: a new call with all.
    tabs[0].click("hang-up");
    for program in [&mut host, &mut bob] {
        program.expect("peer", &[("peer", "tab1"), ("state", "left")]);
    }
    tabs[1].wait("!document.querySelector('.tile[data-peer=tab1]')");
    let mark = by_bob.from("tab1").mark();
    tabs[0].enter(&format!("{link}&id=tab1"));
    bob.expect("peer", &[("peer", "tab1"), ("state", "connected")]);
    by_bob.from("tab1").expect_moving_and_audible(mark, 15);
    tabs[0].expect_of_peer("bob");
    tabs[1].expect_of_peer("tab1");

    bob.say(&json!({"command": "quit"}));
    assert_eq!(bob.end().0, 0);
    host.expect("peer", &[("peer", "bob"), ("state", "left")]);

    // A file of each peer, and another of the one that returned.
    let mut files: Vec<String> = std::fs::read_dir(records)
        .unwrap()
        .map(|entry| entry.unwrap().path().to_str().unwrap().to_owned())
        .collect();
    files.sort();
    let count = |peer: &str| files.iter().filter(|file| file.contains(&format!("/{peer}-"))).count();
    assert_eq!(["host", "tab1", "tab2"].map(count), [1, 2, 1], "{files:?}");
    for file in &files {
        let probe = probe(file);
        let (duration, pictures) = duration_and_frames(&probe, "vp8");
        assert!(
            duration > 1.0 && pictures > 10 && duration_and_frames(&probe, "opus").1 > 50,
            "{file}: {probe}"
        );
    }
    let by_host_still = by_host.from("tab2");
    by_host_still.expect_moving_and_audible(by_host_still.mark(), 15);
}

#[test]
fn a_page_shows_who_somebody_is_and_goes_when_it_is_sent_away() {
    needs!(Browser);
    let home = tempfile::tempdir().unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    let mut server = Program::start_with(home.path(), &serve, &[("ROOMTONE_API_SECRET", SECRET)]);
    let link = server.link();
    let received = Received::of_each();
    let join = ["join", "attic", "--id", "bob", "--server", &ws(&link)];
    let mut bob = client(home.path(), &join, &received);
    bob.expect("room", &[]);
    let tab = Browser::start();
    tab.enter(&format!("{link}?room=attic&id=tab"));
    tab.expect_of_peer("bob");
    let order = |method: &str, path: &str, body: &str| {
        let request = ureq::http::Request::builder().method(method).uri(format!("{link}api/{path}"));
        let request =
            request.header("authorization", format!("Bearer {SECRET}")).body(body.to_owned()).unwrap();
        assert_eq!(ureq::run(request).unwrap().status(), 204);
    };
    let name = "document.querySelector('.tile[data-peer=bob] figcaption').textContent";
    assert_eq!(tab.run(&format!("return {name}")), "bob");
    order("PUT", "peers/bob/description", r#"{"name":"<b>Bob</b> of the desk"}"#);
    tab.wait(&format!("{name} === '<b>Bob</b> of the desk'"));
    order("DELETE", "peers/tab", "");
    bob.expect("peer", &[("peer", "tab"), ("state", "left")]);
    tab.wait("document.body.innerText.includes('sent you away: removed')");
    tab.wait("!document.querySelector('.tile[data-peer=bob]')");
}

#[test]
fn a_peer_that_is_killed_leaves_the_page_at_once_and_the_count_is_right() {
    needs!(Browser);
    let home = tempfile::tempdir().unwrap();
    let mut server = Program::start(home.path(), &["serve", "--listen", "127.0.0.1:0"]);
    let link = server.link();
    let url = ws(&link);
    let tab = Browser::start();
    // Packets in flight when the peer died still increase the first byte counts.
    tab.before_pages(
        "const get = RTCPeerConnection.prototype.getStats;
         RTCPeerConnection.prototype.getStats = async function () {
             const report = await get.call(this), all = new Map();
             this.looks = (this.looks ?? 0) + (globalThis.late ? 1 : 0);
             const more = Math.min(this.looks, 4);
             report.forEach((one) => all.set(one.id, { ...one, bytesReceived: (one.bytesReceived ?? 0) + more }));
             return all;
         };",
    );
    tab.enter(&format!("{link}?room=attic&id=tab"));
    let count =
        |words: &str| tab.wait(&format!("document.querySelector('#status').textContent === '{words}'"));
    count("attic: you and nobody else yet");
    let join = |id: &str| {
        let join = ["join", "attic", "--headless", "--id", id, "--server", &url];
        Program::start(home.path(), &[&join[..], &SMALL].concat())
    };
    let (mut ann, mut bob) = (join("ann"), join("bob"));
    for program in [&mut ann, &mut bob] {
        program.expect("peer", &[("peer", "tab"), ("state", "connected")]);
    }
    tab.wait("[...roomtone.room.calls.values()].filter((call) => call.isUp).length === 2");
    count("attic: you and 2 others");
    tab.run("globalThis.late = true");
    ann.signal("KILL");
    let killed = std::time::Instant::now();
    count("attic: you and 1 other");
    tab.wait("!document.querySelector('.tile[data-peer=ann]')");
    // A broken path is retried for half a minute, but not if the server reported that the peer is gone.
    assert!(killed.elapsed().as_secs() < 15, "{:?}", killed.elapsed());
    assert_eq!(tab.run("return document.querySelectorAll('.tile').length"), 1);
    bob.signal("KILL");
    count("attic: you and nobody else yet");
}

#[test]
fn the_grid_shows_who_somebody_is() {
    let home = tempfile::tempdir().unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    let mut server = Program::start_with(home.path(), &serve, &[("ROOMTONE_API_SECRET", SECRET)]);
    let link = server.link();
    let file = home.path().join("grid");
    let show = format!(
        "videoconvert ! videoscale ! video/x-raw,format=GRAY8,width=320,height=240 ! filesink sync=false location={}",
        file.display()
    );
    let join = ["join", "attic", "--server", &ws(&link), "--video", "none", "--audio", "none"];
    let mut viewer = Program::start(home.path(), &[&join[..], &["--show", &show, "--play", "none"]].concat());
    viewer.expect("room", &[]);
    // Black, so that whatever is bright is words.
    let dark = "videotestsrc is-live=true pattern=black ! identity";
    let ann = ["join", "attic", "--server", &ws(&link), "--id", "i", "--video", dark, "--audio", "none"];
    let _ann = Program::start(
        home.path(),
        &[&ann[..], &["--headless", "--size", "320x240", "--fps", "15"]].concat(),
    );
    viewer.expect("media", &[("peer", "i"), ("kind", "video")]);
    let bright = || {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let last = bytes.chunks_exact(320 * 240).next_back()?;
        Some(last.iter().filter(|pixel| **pixel > 40).count())
    };
    let narrow = wait_for("the id", || bright().filter(|count| *count > 3));
    let request = ureq::http::Request::builder().method("PUT").uri(format!("{link}api/peers/i/description"));
    let body = r#"{"name":"WWWW WWWW WWWW"}"#.to_owned();
    let request = request.header("authorization", format!("Bearer {SECRET}")).body(body).unwrap();
    assert_eq!(ureq::run(request).unwrap().status(), 204);
    wait_for("the name", || bright().filter(|count| *count > 5 * narrow));
}
