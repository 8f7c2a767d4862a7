//! Peers and servers that send junk: a clear line or a shrug, never a panic, a hang or a dead program.

use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::common::hostile::{OFFER, between, caller, description, forge, half_open, junk};
use crate::common::raw::RawCall;
use crate::common::{
    Client, Holds, PATIENCE, Program, Received, SMALL, Stage, WebSocket, pace, resumed, wait_for,
};
use gst::prelude::*;
use serde_json::json;

/// Starts a host; `change` completes its command line.
fn host(change: impl for<'a> FnOnce(Client<'a>) -> Client<'a>) -> (Stage, Program) {
    let (stage, mut host) = Stage::hosting(change);
    host.expect("registered", &[]);
    (stage, host)
}

#[test]
fn a_client_outlives_every_kind_of_junk_and_still_takes_calls() {
    let received = Received::new();
    let (stage, mut host) = host(|host| host.receiving(&received));

    for (n, messages) in junk().iter().enumerate() {
        let id = format!("junk{n}");
        let mut peer = caller(&stage.url, &id, "host");
        messages.iter().for_each(|message| peer.say(message));
        host.expect("peer", &[("peer", &id), ("state", "connecting")]);
        // Messages are handled in order, so the last one shows that all were.
        drop(peer);
        host.expect("peer", &[("peer", &id)]);
        host.expect("registered", &[]);
    }

    // After all of it, a call.
    let mut caller = stage.call("host").start();
    caller.expect("media", &[("kind", "video")]);
    received.expect_moving_and_audible((0, 0), 20);
    caller.quit();
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
    Client::new(home.path(), &["call", "bob"]).server(url).without_media().start().end()
}

#[test]
fn a_server_that_misbehaves_ends_the_call_with_one_line() {
    let check = |script: fn(&mut WebSocket), code: i32, words: &str| {
        let (found, error) = call(&server(script));
        assert_eq!(found, code, "{error}");
        assert!(error.contains(words), "{error}");
        assert!(!error.contains("panicked") && error.len() < 2000, "{error}");
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
            ws.say(&format!("ERROR \u{202e}away {}", "x".repeat(500_000)));
        },
        4,
        "\\u{202e}away xxx",
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

/// A server, or a peer by way of it, that talks without end: what our own side does is not held up by it.
#[test]
fn who_talks_without_end_holds_nothing_up() {
    let (told, lines) = std::sync::mpsc::channel();
    let url = server(move |ws| {
        ws.hear();
        ws.say("HELLO");
        ws.hear();
        ws.say("SESSION_OK");
        ws.say_without_end("nonsense");
        while let Some(line) = ws.hear() {
            let _ = told.send(line);
        }
    });
    let home = tempfile::tempdir().unwrap();
    let mut caller = Client::new(home.path(), &["call", "bob"]).server(&url).start();
    for word in ["offer", "candidate"] {
        while !lines.recv_timeout(PATIENCE).expect(word).contains(word) {}
    }
    caller.say(&json!({"command": "quit"}));
    let warnings = caller.count("warning", &[]);
    let (code, error) = caller.end();
    assert_eq!(code, 0, "{error}");
    assert!((1..200).contains(&warnings), "{warnings} warnings");
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
        // A peer leaves: its place is free, and the offer is accepted.
        ws.say("ROOM_PEER_LEFT p0");
        ws.say(&format!("ROOM_PEER_MSG p7 {offer}"));
        let answer = std::iter::from_fn(|| ws.hear())
            .find(|line| line.starts_with("ROOM_PEER_MSG p7 ") && line.contains("\"answer\""));
        assert!(answer.unwrap().contains("a=fingerprint"));
        told.recv().unwrap();
    });
    let join = ["join", "attic", "--id", "ann", "--max-peers", "2"];
    let mut ann = Client::new(home.path(), &join).server(&url).start();
    ann.expect("warning", &[("text", "a message from 'eve', who is not in the room")]);
    let silent = "waiting for the peer's answer: nothing came for 10 s";
    ann.expect_all(&[
        ("peer", &[("peer", "p0"), ("state", "left")]),
        ("peer", &[("peer", "p7"), ("state", "connecting")]),
        ("peer", &[("peer", "p1"), ("state", "failed"), ("reason", silent)]),
    ]);
    ann.say(&json!({"command": "peers"}));
    ann.expect("peer", &[("peer", "p998"), ("state", "joined")]);
    ann.quit();
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
        let client = Client::new(home.path(), &["join", "attic"]).server(&url).without_media();
        let (code, error) = client.start().end();
        assert_eq!((code, error.contains(refusal.trim_start_matches("ERROR "))), (4, true), "{error}");
    }
    // A name that no server takes is refused before anything is opened.
    let (code, error) = Program::start(home.path(), &["join", "a b"]).end();
    assert_eq!((code, error.contains("a b")), (2, true), "{error}");
}

#[test]
fn who_sits_in_between_ends_the_call_before_anything_is_seen() {
    let received = Received::new();
    let (stage, mut host) = host(|host| host.receiving(&received));
    let honest = |line: &str| line.to_owned();
    let words = "somebody sits between the two";
    let data_alone = ["--video", "none", "--audio", "none", "--send-only"];
    let mut found = 0;
    for sends in [&SMALL[..], &data_alone] {
        // The offer is forged, for the host; the answer, for the caller; both.
        for (n, url) in [
            between(&stage.url, forge, honest),
            between(&stage.url, honest, forge),
            between(&stage.url, forge, forge),
        ]
        .iter()
        .enumerate()
        {
            let (code, error) = stage.call("host").server(url).media(sends).start().end();
            host.expect("registered", &[]);
            let failed = host.all("peer", &[("state", "failed")]).len() - found;
            found += failed;
            let (by_host, by_caller) = (failed == 1, code == 8 && error.contains(words));
            match n {
                0 => assert!(by_host, "{code} {error}"),
                1 => assert!(by_caller, "{code} {error}"),
                // Whoever finds out first ends it, and to the other the peer hung up.
                _ => assert!(by_host || by_caller, "{code} {error}"),
            }
        }
    }
    for failed in host.all("peer", &[("state", "failed")]) {
        assert!(failed["reason"].as_str().unwrap().contains(words), "{failed}");
    }
    assert!(!host.has_seen("media", &[]) && !host.has_seen("channel", &[]));
    assert_eq!(received.mark(), (0, 0), "nothing is shown");
    // An honest peer gets its call.
    let _caller = stage.call("host").start();
    received.expect_moving_and_audible((0, 0), 20);
}

/// Tests offers whose first m-line is rejected, inactive or of a foreign kind.
#[test]
fn an_honest_peer_is_taken_for_itself_and_a_forger_is_not_whatever_the_first_mline_is() {
    let (stage, mut host) = host(|host| host);
    let rejected = |line: &str| line.replacen("m=video 9", "m=video 0", 1);
    let inactive = |line: &str| line.replacen("a=sendrecv", "a=inactive", 1);
    let foreign = |line: &str| line.replacen("m=video 9", "m=image 9", 1);
    for (n, change) in [rejected, inactive, foreign].into_iter().enumerate() {
        let call = |url: &str| {
            let id = format!("caller{n}");
            stage.call("host").id(&id).server(url).start()
        };
        let offer = move |line: &str| if line.contains("\"offer\"") { change(line) } else { line.to_owned() };
        let back = |line: &str| line.replace("m=image ", "m=video ");
        let mut honest = call(&between(&stage.url, offer, back));
        honest.expect("media", &[("kind", "audio")]);
        honest.say(&json!({"command": "quit"}));
        let (code, error) = honest.end();
        assert_eq!(code, 0, "{error}");
        host.expect("registered", &[]);
        let forged = host.count("peer", &[("state", "failed")]);
        let (code, error) =
            call(&between(&stage.url, move |line| forge(&offer(line)), move |line| forge(&back(line)))).end();
        host.expect("registered", &[]);
        let by_host = host.count("peer", &[("state", "failed")]) == forged + 1;
        assert!(by_host || code == 8, "{code} {error}");
    }
}

#[test]
fn media_that_nobody_asked_for_goes_nowhere() {
    let received = Received::new();
    let (stage, mut host) = host(|host| host.receiving(&received).with(&["--send-only"]));
    let before = Holds::of(host.pid());
    // The host says that it only sends; the caller hears that it may send too.
    let eager = between(&stage.url, str::to_owned, |line| line.replace("a=sendonly", "a=sendrecv"));
    let mut caller = stage.call("host").server(&eager).start();
    caller.expect("media", &[("kind", "video")]);
    wait_for("media to be sent", || {
        let sent = caller.stats();
        let of = |kind: &str| sent[kind].as_u64().unwrap();
        (of("video_frames_sent") > 60 && of("audio_frames_sent") > 100).then_some(())
    });
    let found = host.stats();
    assert_eq!(
        (found["video_frames_received"].as_u64(), found["audio_frames_received"].as_u64()),
        (Some(0), Some(0))
    );
    assert_eq!(received.mark(), (0, 0), "nothing is shown");
    assert!(!host.has_seen("media", &[]));
    let during = Holds::of(host.pid());
    assert!(during.threads < before.threads + 60, "{before:?} {during:?}");
    caller.quit();
    host.expect("registered", &[]);
}

/// Returns the address from which this machine sends to others: libnice uses it too, and packets to it stay on this
/// machine.
fn own_address() -> std::net::IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.254:9").expect("an address besides loopback, as every call needs");
    socket.local_addr().unwrap().ip()
}

/// Returns whether a host with these options sends to ports below 1024 of this machine, by UDP and TCP, when a caller
/// names them as candidates; and the number of warnings about such candidates. Waits for the packets if they are
/// expected.
fn knocks_at_low_ports(options: &[&str], are_expected: bool) -> (bool, bool, usize) {
    let own = own_address();
    let bound = "a free port below 1024, which takes root";
    let low = (600..1024).rev().find_map(|port| UdpSocket::bind((own, port)).ok()).expect(bound);
    let low_tcp = (600..1024).rev().find_map(|port| TcpListener::bind((own, port)).ok()).expect(bound);
    let high = UdpSocket::bind((own, 0)).unwrap();
    let udp = |n: u8, socket: &UdpSocket| {
        format!("candidate:{n} 1 udp 2113937151 {own} {} typ host", socket.local_addr().unwrap().port())
    };
    let tcp = low_tcp.local_addr().unwrap().port();
    let tcp = format!("candidate:3 1 tcp 1518280447 {own} {tcp} typ host tcptype passive");
    // The caller names the low ports in the description and after it; the last candidate is allowed.
    let within = format!("a=mid:0\na={}\na={tcp}\n", udp(1, &low));
    let offer = OFFER.replacen("a=mid:0\n", &within, 1);
    assert!(offer.contains(&tcp));
    let (stage, mut host) = host(|host| host.with(options));
    let mut eve = caller(&stage.url, "eve", "host");
    eve.say(&description("offer", &offer));
    for candidate in [udp(2, &low), tcp, udp(4, &high)] {
        eve.say(&json!({"ice": {"candidate": candidate, "sdpMLineIndex": 0}}).to_string());
    }
    // ICE checks all candidates in turn, then again: after two checks of the allowed one, the others had their first.
    high.set_read_timeout(Some(PATIENCE)).unwrap();
    for _ in 0..2 {
        resumed(|| high.recv_from(&mut [0; 2048])).expect("checks of the port that may be tried");
    }
    low.set_nonblocking(true).unwrap();
    low_tcp.set_nonblocking(true).unwrap();
    let mut knocked = (false, false);
    let mut look = || {
        knocked.0 |= low.recv_from(&mut [0; 2048]).is_ok();
        knocked.1 |= low_tcp.accept().is_ok();
        (!are_expected || knocked == (true, true)).then_some(knocked)
    };
    let knocked = wait_for("checks of the low ports", &mut look);
    if !are_expected {
        wait_for("a warning", || host.has_warned("candidates").then_some(()));
    }
    drop(eve);
    host.expect("peer", &[("peer", "eve"), ("state", "left")]);
    let told = host.all("warning", &[]);
    let told = told.iter().filter(|warning| warning["text"].as_str().unwrap().contains("4 candidates"));
    (knocked.0, knocked.1, told.count())
}

#[test]
fn a_candidate_does_not_make_a_client_knock_at_low_ports_of_its_machine() {
    assert_eq!(knocks_at_low_ports(&[], false), (false, false, 1));
    let allowed = knocks_at_low_ports(&["--ice-allow", &own_address().to_string()], true);
    assert_eq!(allowed, (true, true, 0));
}

#[test]
fn one_that_offers_without_end_and_many_that_say_nothing_keep_nobody_else_out() {
    let (stage, mut host) = host(|host| host);
    let silent = half_open(&stage.url, 50);
    assert!(silent.len() == 50);
    let mut eager = caller(&stage.url, "eager", "host");
    // Each offer is answered, until it is too much.
    let offer = description("offer", OFFER);
    eager.say(&offer);
    let mut answers = 0;
    while let Some(line) = eager.hear() {
        if line.contains("\"answer\"") {
            answers += 1;
            eager.say(&offer);
        }
    }
    assert!(answers >= 600, "{answers}");
    let failed = host.expect("peer", &[("peer", "eager"), ("state", "failed")]);
    assert!(failed["reason"].as_str().unwrap().contains("the peer sends too many"), "{failed}");
    host.expect("registered", &[]);
    let mut caller = stage.call("host").start();
    caller.expect("media", &[("kind", "video")]);
    drop(silent);
}

/// Pipeline that sends the test's own packets as AV1, and a tone as Opus.
const AV1: &str = "appsrc name=packets is-live=true format=time do-timestamp=true \
    caps=application/x-rtp,media=video,encoding-name=AV1,payload=100,clock-rate=90000 ! \
    rtc. audiotestsrc is-live=true ! opusenc ! rtpopuspay pt=111 ! \
    application/x-rtp,media=audio,encoding-name=OPUS,payload=111 ! rtc.";

/// Pipeline that sends the test's own packets as G.711.
const G711: &str = "appsrc name=packets is-live=true format=time do-timestamp=true \
    caps=application/x-rtp,media=audio,encoding-name=PCMU,payload=0,clock-rate=8000 ! rtc.";

/// Sends an RTP packet; the timestamp advances by 1800 per packet, which is 20 ms at 90 kHz.
fn send(call: &RawCall, payload_type: u8, sequence: u32, payload: &[u8]) {
    let time = sequence.wrapping_mul(1800).to_be_bytes();
    let head = [&[0x80, payload_type][..], &(sequence as u16).to_be_bytes(), &time, &[0, 0, 0, 1]];
    let packet = gst::Buffer::from_slice([&head.concat(), payload].concat());
    let sent = call.element("packets").emit_by_name::<gst::FlowReturn>("push-buffer", &[&packet]);
    assert_eq!(sent, gst::FlowReturn::Ok);
}

#[test]
fn rubbish_in_one_stream_costs_no_other_and_no_call() {
    let received = Received::new();
    let (stage, mut host) = host(|host| host.receiving(&received));
    let eve = RawCall::start(&stage.url, "eve", "host", AV1);
    host.expect("media", &[("kind", "audio")]);
    // An AV1 OBU with a length of more than 32 bits, without so much data (AV1's RTP specification, 4.4): an error of
    // the depayloader.
    let rubbish = [&[0x08][..], &[0xff; 20]].concat();
    let began = Instant::now();
    for sequence in 0..100 {
        send(&eve, 100, sequence, &rubbish);
        pace(began + Duration::from_millis(10) * sequence);
    }
    host.expect("warning", &[("text", "eve: some of the AV1 cannot be read and is left out")]);
    let mark = received.mark();
    wait_for("a second of sound", || (received.mark().1 > mark.1 + 2 * 8000).then_some(()));
    let is_in = |host: &mut Program, state: &str| host.has_seen("peer", &[("peer", "eve"), ("state", state)]);
    assert!(!["reconnecting", "failed", "left"].into_iter().any(|state| is_in(&mut host, state)));
    // The host accepts the next caller at once.
    drop(eve);
    wait_for("a free host", || {
        ["failed", "left"].into_iter().any(|state| is_in(&mut host, state)).then_some(())
    });
    let mut caller = stage.call("host").id("ann").start();
    caller.expect("media", &[("kind", "video")]);
}

/// Tests a flood in which each packet has another SSRC: RTP and RTCP packets alike.
#[test]
fn sources_without_end_take_no_memory_and_give_it_back() {
    let (stage, mut host) = host(|host| host.with(&["--give-up-after", "2"]));
    // A first honest call loads the plugins, so that they do not count.
    let honest = |host: &mut Program, id: &str| {
        let mut caller = stage.call("host").id(id).start();
        caller.expect("media", &[("kind", "video")]);
        drop(caller);
        host.expect("peer", &[("peer", id), ("state", "left")]);
    };
    honest(&mut host, "ann");
    let before = Holds::of(host.pid());
    let number = |variable: &str, otherwise: u32| {
        std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
    };
    let (floods, packets) = (number("FLOODS", 2), number("FLOOD_PACKETS", 20_000));
    for flood in 0..floods {
        let eve = RawCall::start(&stage.url, "eve", "host", G711);
        let next = Arc::new(AtomicU32::new(1));
        for reports in [false, true] {
            let next = next.clone();
            eve.tamper(reports, move |packet| {
                let ssrc = next.fetch_add(1, Ordering::Relaxed).wrapping_mul(2_654_435_761);
                let at = if reports { 4 } else { 8 };
                packet[at..at + 4].copy_from_slice(&ssrc.to_be_bytes());
            });
        }
        host.expect("peer", &[("peer", "eve"), ("state", "connected")]);
        let mut most = 0;
        for n in 0..packets {
            send(&eve, 0, n, &[0xff; 160]);
            if n % 100 == 0 {
                pace(Instant::now() + Duration::from_millis(10));
                most = most.max(Holds::of(host.pid()).resident);
            }
        }
        wait_for("the packets to be sent", || (next.load(Ordering::Relaxed) >= packets).then_some(()));
        let most = most.max(Holds::of(host.pid()).resident);
        drop(eve);
        wait_for("the end of the call", || {
            let ends =
                ["left", "failed"].map(|state| host.count("peer", &[("peer", "eve"), ("state", state)]));
            (ends.iter().sum::<usize>() > flood as usize).then_some(())
        });
        let after = wait_for("threads to be back", || {
            let after = Holds::of(host.pid());
            (after.threads <= before.threads + 10).then_some(after)
        });
        eprintln!("flood {flood}: {before:?}, {most} KiB at most, {after:?} after it");
        assert!(most < before.resident + 40_000, "{before:?} {most}");
    }
    wait_for("memory to be given back", || {
        (Holds::of(host.pid()).resident < before.resident + 10_000).then_some(())
    });
    honest(&mut host, "bob");
}
