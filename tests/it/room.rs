//! A room of browsers and native clients: everybody sees and hears everybody.

use crate::common::browser::Browser;
use crate::common::hostile::{OFFER, description};
use crate::common::{Received, Stage, WebSocket, alone, duration_and_frames, needs, probe, wait_for};
use serde_json::json;

const SECRET: &str = "only the back end of this test knows it";

#[test]
fn two_tabs_and_two_natives_see_and_hear_each_other_and_one_leaves_and_returns() {
    needs!(Browser);
    let _alone = alone();
    let (by_host, by_bob) = (Received::of_each(), Received::of_each());
    let (stage, mut host) = Stage::hosting(|host| host.with(&["--room", "attic"]).receiving(&by_host));
    host.expect("room", &[("room", "attic")]);
    let tabs = ["tab1", "tab2"].map(|id| {
        let tab = stage.enter(&format!("?room=attic&id={id}"));
        host.expect("peer", &[("peer", id), ("state", "connected")]);
        tab
    });
    let records = stage.path("records");
    let mut bob = stage.join("bob").receiving(&by_bob).with(&["--record", &records]).start();
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
    tabs[0].enter(&stage.page("?room=attic&id=tab1"));
    bob.expect("peer", &[("peer", "tab1"), ("state", "connected")]);
    by_bob.from("tab1").expect_moving_and_audible(mark, 15);
    tabs[0].expect_of_peer("bob");
    tabs[1].expect_of_peer("tab1");

    bob.say(&json!({"command": "quit"}));
    bob.expect("ended", &[]);
    let told = bob.all("recording", &[]);
    assert_eq!(bob.end().0, 0);
    host.expect("peer", &[("peer", "bob"), ("state", "left")]);

    // A file of each peer, and another of the one that returned. Where four browsers and clients are much for a machine, video
    // may begin so late that the audio before it is in a file of its own.
    let done = told.iter().filter(|event| event["finished"] == true);
    let files: Vec<&str> = done.map(|event| event["path"].as_str().unwrap()).collect();
    assert_eq!(told.len(), 2 * files.len(), "{told:?}");
    assert_eq!(std::fs::read_dir(records).unwrap().count(), files.len(), "no other files");
    let is_whole = |file: &str| {
        let probe = probe(file);
        let has_video = probe["streams"].as_array().unwrap().iter().any(|s| s["codec_name"] == "vp8");
        let (_, sounds) = duration_and_frames(&probe, "opus");
        has_video && sounds > 50 && duration_and_frames(&probe, "vp8").1 > 10
    };
    let count = |peer: &str| {
        let of_peer: Vec<&&str> = files.iter().filter(|file| file.contains(&format!("/{peer}-"))).collect();
        of_peer.into_iter().filter(|file| is_whole(file)).count()
    };
    assert_eq!(["host", "tab1", "tab2"].map(count), [1, 2, 1], "{files:?}");
    let by_host_still = by_host.from("tab2");
    by_host_still.expect_moving_and_audible(by_host_still.mark(), 15);
}

#[test]
fn a_page_shows_who_somebody_is_and_goes_when_it_is_sent_away() {
    needs!(Browser);
    let stage = Stage::serving(&[], &[("ROOMTONE_API_SECRET", SECRET)]);
    let mut bob = stage.join("bob").ready();
    let tab = stage.enter("?room=attic&id=tab");
    tab.expect_of_peer("bob");
    let order = |method: &str, path: &str, body: &str| {
        let request = ureq::http::Request::builder().method(method).uri(stage.page(&format!("api/{path}")));
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
    let stage = Stage::new();
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
    tab.enter(&stage.page("?room=attic&id=tab"));
    let count =
        |words: &str| tab.wait(&format!("document.querySelector('#status').textContent === '{words}'"));
    count("attic: you and nobody else yet");
    let (mut ann, mut bob) = (stage.join("ann").start(), stage.join("bob").start());
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
    let stage = Stage::serving(&[], &[("ROOMTONE_API_SECRET", SECRET)]);
    let file = stage.path("grid");
    let show = format!(
        "videoconvert ! videoscale ! video/x-raw,format=GRAY8,width=320,height=240 ! filesink sync=false location={file}"
    );
    let viewer = stage.client(&["join", "attic"]).without_media();
    let mut viewer = viewer.outputs(&["--show", &show, "--play", "none"]).ready();
    // Black, so that whatever is bright is words.
    let dark = "videotestsrc is-live=true pattern=black ! identity";
    let media = ["--video", dark, "--audio", "none", "--size", "320x240", "--fps", "15"];
    let _ann = stage.join("i").media(&media).start();
    viewer.expect("media", &[("peer", "i"), ("kind", "video")]);
    let bright = || {
        let bytes = std::fs::read(&file).unwrap_or_default();
        let last = bytes.chunks_exact(320 * 240).next_back()?;
        Some(last.iter().filter(|pixel| **pixel > 40).count())
    };
    let narrow = wait_for("the id", || bright().filter(|count| *count > 3));
    let request = ureq::http::Request::builder().method("PUT").uri(stage.page("api/peers/i/description"));
    let body = r#"{"name":"WWWW WWWW WWWW"}"#.to_owned();
    let request = request.header("authorization", format!("Bearer {SECRET}")).body(body).unwrap();
    assert_eq!(ureq::run(request).unwrap().status(), 204);
    wait_for("the name", || bright().filter(|count| *count > 5 * narrow));
}

#[test]
fn a_moderator_on_the_page_mutes_and_removes_a_native_and_is_muted_by_another() {
    needs!(Browser);
    let secret = "as long as a secret of this test has to be";
    let stage = Stage::serving(&["--plain"], &[("ROOMTONE_TOKEN_SECRET", secret)]);
    let token = |claims: serde_json::Value| {
        let mut claims = claims;
        claims["exp"] = json!(4_000_000_000_u64);
        roomtone::server::token::sign(&claims, &roomtone::protocol::Secret(secret.into())).unwrap()
    };
    let boss = token(json!({"sub": "page", "moderate": ["attic"]}));
    let page = stage.enter(&format!("?room=attic&id=page&token={boss}"));
    page.wait("document.querySelector('#grid').dataset.moderator === 'yes'");
    let of_bob = token(json!({"sub": "bob"}));
    let mut bob = stage.join("bob").variable("ROOMTONE_TOKEN", &of_bob).start();
    bob.expect("peer", &[("peer", "page"), ("state", "connected")]);

    // The native mutes itself at the request of the page.
    page.run("document.querySelector('.tile[data-peer=bob] [data-act=mute]').click()");
    bob.expect("sending", &[("kind", "audio"), ("what", "muted")]);
    assert!(bob.has_warned("page asks for silence: audio is muted"));
    page.wait("document.querySelector('.tile[data-peer=bob][data-silent]')");

    // The page mutes itself at the request of another moderator, and its user can unmute.
    let eve = token(json!({"sub": "eve", "moderate": true}));
    let mut eve = WebSocket::connect_to(stage.address(), &format!("?token={eve}"));
    eve.register("eve");
    eve.say("ROOM attic");
    assert!(eve.hear().unwrap().starts_with("ROOM_OK "));
    let pressed = "document.querySelector('#mute').getAttribute('aria-pressed')";
    assert_ne!(page.run(&format!("return {pressed}")), "true");
    eve.say("ROOM_PEER_MUTE page audio");
    page.wait(&format!("{pressed} === 'true'"));
    page.wait("document.querySelector('#notice').innerText.includes('eve asked for silence')");
    page.click("mute");
    page.wait(&format!("{pressed} !== 'true'"));

    // The native that the page removes ends, and does not return.
    page.run("document.querySelector('.tile[data-peer=bob] [data-act=remove]').click()");
    let (code, stderr) = bob.end();
    assert_eq!(code, 4, "{stderr}");
    assert!(stderr.contains("removed by a moderator"), "{stderr}");
    page.wait("!document.querySelector('.tile[data-peer=bob]')");
}

#[test]
fn the_back_end_moves_a_page_and_a_native_to_another_room() {
    needs!(Browser);
    let stage = Stage::serving(&["--plain"], &[("ROOMTONE_API_SECRET", SECRET)]);
    let page = stage.enter("?room=attic&id=page");
    let mut bob = stage.join("bob").start();
    bob.expect("peer", &[("peer", "page"), ("state", "connected")]);
    let to_cellar = |peer: &str| {
        let request = ureq::post(stage.page(&format!("api/v1/peers/{peer}/move")));
        let request = request.header("authorization", format!("Bearer {SECRET}"));
        assert_eq!(request.send(r#"{"room":"cellar"}"#).unwrap().status(), 204);
    };
    to_cellar("bob");
    bob.expect("room", &[("room", "cellar")]);
    page.wait("!document.querySelector('.tile[data-peer=bob]')");
    page.click("mute");
    to_cellar("page");
    bob.expect("peer", &[("peer", "page"), ("state", "connected")]);
    page.expect_of_peer("bob");
    page.wait("document.querySelector('#status').textContent.includes('cellar: you and 1 other')");
    let audio = page.run("return roomtone.camera.stream.getAudioTracks().map((track) => track.enabled)");
    assert_eq!(audio, json!([false]), "a muted page stays muted");
}

#[test]
fn devices_that_are_turned_on_later_are_as_muted_as_the_buttons_say() {
    needs!(Browser);
    let stage = Stage::new();
    let page = stage.enter("?room=attic&id=page");
    page.wait("roomtone.camera.stream");
    page.run("roomtone.camera.turnOff()");
    // The buttons are hidden while the devices are off; a moderator's request or a key still presses them.
    page.run("roomtone.camera.mute('audio'); roomtone.camera.mute('video')");
    page.run("roomtone.camera.turnOn()");
    page.wait("roomtone.camera.stream");
    let live = "return roomtone.camera.stream.getTracks().filter((track) => track.enabled).length";
    assert_eq!(page.run(live), 0);
    page.click("mute");
    page.click("blind");
    assert_eq!(page.run(live), 2);
}

/// Tests messages that the page handles after their sender left, and requests for an offer that is made already.
#[test]
fn late_and_repeated_messages_of_members_add_nothing() {
    needs!(Browser);
    let stage = Stage::new();
    let page = stage.enter("?room=attic&id=page");
    page.wait("document.querySelector('#status').textContent === 'attic: you and nobody else yet'");
    let message = json!({"from": "gone", "message": {"type": "offer", "sdp": OFFER}});
    let emit = |kind: &str, detail: &serde_json::Value| {
        let event = format!("new CustomEvent('{kind}', {{ detail: {detail} }})");
        page.run(&format!("roomtone.signalling.dispatchEvent({event})"));
    };
    emit("description", &message);
    let mut bob = stage.join("bob").start();
    bob.expect("peer", &[("peer", "page"), ("state", "connected")]);
    page.expect_of_peer("bob");
    assert_eq!(page.run("return document.querySelectorAll('.tile[data-peer]').length"), 1);
    let of_bob = "roomtone.room.calls.get('bob').pc";
    page.run(&format!("globalThis.before = {of_bob}.localDescription.sdp"));
    (0..5).for_each(|_| emit("offer-request", &json!({"from": "bob"})));
    page.wait(&format!("{of_bob}.localDescription.sdp !== before && {of_bob}.signalingState === 'stable'"));
    assert_eq!(page.run(&format!("return {of_bob}.getTransceivers().length")), 2);
}

#[test]
fn a_camera_that_is_turned_on_while_the_server_is_away_is_sent_when_it_is_back() {
    needs!(Browser);
    let mut stage = Stage::new();
    let received = Received::of_each();
    let page = Browser::start();
    page.before_pages(
        "const get = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
         navigator.mediaDevices.getUserMedia = (what) =>
             globalThis.allows ? get(what) : Promise.reject(new DOMException('', 'NotAllowedError'));",
    );
    page.enter(&stage.page("?room=attic&id=page"));
    let mut bob = stage.join("bob").receiving(&received).start();
    bob.expect("peer", &[("peer", "page"), ("state", "connected")]);
    page.expect_of_peer("bob");
    stage.end_server("KILL");
    page.run("globalThis.allows = true");
    page.click("media");
    page.wait("roomtone.room.calls.get('bob').pc.signalingState === 'have-local-offer'");
    stage.serve_again();
    received.from("page").expect_moving_and_audible((0, 0), 15);
}

/// Tests peers that leave while the page handles their offer: the browser never completes what it does for a connection
/// that is closed meanwhile.
#[test]
fn peers_that_leave_in_the_negotiation_keep_nobody_else_out() {
    needs!(Browser);
    let stage = Stage::new();
    let page = stage.enter("?room=attic&id=page");
    page.wait("document.querySelector('#status').textContent === 'attic: you and nobody else yet'");
    for n in 0..20 {
        let mut brief = stage.peer(&format!("brief{n}"));
        brief.say("ROOM attic");
        assert!(brief.hear().unwrap().contains("page"));
        brief.say(&format!("ROOM_PEER_MSG page {}", description("offer", OFFER)));
    }
    let mut bob = stage.join("bob").start();
    bob.expect("peer", &[("peer", "page"), ("state", "connected")]);
    page.expect_of_peer("bob");
    page.wait("document.querySelectorAll('.tile[data-peer]').length === 1");
}

#[test]
fn a_native_removes_a_member_and_renews_its_token() {
    let secret = "as long as a secret of this test has to be";
    let variables = [("ROOMTONE_TOKEN_SECRET", secret), ("ROOMTONE_TOKEN_EXPIRY", "enforce")];
    let stage = Stage::serving(&["--plain"], &variables);
    let now = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let token = |id: &str, end: u64| {
        // The server ends the connection 30 s after `exp`.
        let claims = json!({"sub": id, "moderate": true, "exp": end - 30});
        roomtone::server::token::sign(&claims, &roomtone::protocol::Secret(secret.into())).unwrap()
    };
    let mut eve = WebSocket::connect_to(stage.address(), &format!("?token={}", token("eve", now() + 3600)));
    eve.register("eve");
    eve.say("ROOM attic");
    eve.expect("ROOM_OK ");
    let end = now() + 15;
    let mut boss = stage.join("boss").variable("ROOMTONE_TOKEN", &token("boss", end)).without_media().start();
    let seen = boss.expect_all(&[("token_expires", &[]), ("room", &[("room", "attic")])]);
    let seconds = seen.iter().find_map(|event| event["seconds"].as_u64()).unwrap();
    assert!(seconds <= 15, "{seconds}");
    boss.say(&json!({"command": "token", "token": token("boss", now() + 3600)}));
    boss.say(&json!({"command": "ask-mute", "peer": "nobody"}));
    wait_for("the answer of the server", || boss.has_warned("'nobody' is not in the room").then_some(()));
    wait_for("the end of the first token", || (now() > end).then_some(()));
    eve.expect("ROOM_PEER_JOINED boss");
    boss.say(&json!({"command": "remove", "peer": "eve"}));
    let of_boss =
        |line: &Option<String>| line.as_ref().is_some_and(|line| line.starts_with("ROOM_PEER_MSG boss "));
    let other = std::iter::repeat_with(|| eve.hear()).find(|line| !of_boss(line));
    assert_eq!(other, Some(None), "the end of the connection");
    boss.quit();
}
