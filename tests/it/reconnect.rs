//! Calls that come back: paths that break, servers that go and come, peers that freeze.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::browser::Browser;
use crate::common::{
    Client, Mood, Moody, Namespace, Program, Received, Stage, alone, duration_and_frames, needs, probe,
    wait_for,
};
use serde_json::json;

const CONNECTED: (&str, &str) = ("state", "connected");
const RECONNECTING: (&str, &str) = ("state", "reconnecting");

/// Requests a new path until there is a session to negotiate it in; until then a warning answers each request.
fn renew_in_new_session(side: &mut Program) {
    wait_for("a new session", || {
        let refused = side.count("warning", &[]);
        side.say(&json!({"command": "reconnect"}));
        wait_for("the answer to the command", || {
            let is_renewed = side.has_seen("peer", &[RECONNECTING]);
            (is_renewed || side.count("warning", &[]) > refused).then_some(is_renewed)
        })
        .then_some(())
    });
}

#[test]
fn a_renewed_path_carries_on_into_the_same_window_and_the_same_file() {
    let (stage, received) = (Stage::new(), Received::new());
    let records = stage.path("records");
    let mut bob = stage.answer("bob").receiving(&received).with(&["--record", &records]).ready();
    let mut ann = stage.call("bob").id("ann").start();
    received.expect_moving_and_audible((0, 0), 30);
    bob.expect("recording", &[]);
    // Video that begins much later than the audio begins a file of its own.
    received.expect_moving_and_audible(received.mark(), 30);
    let files = std::fs::read_dir(&records).unwrap().count();

    for program in [0, 1] {
        let side = if program == 0 { &mut ann } else { &mut bob };
        side.say(&json!({"command": "reconnect"}));
        for side in [&mut ann, &mut bob] {
            side.expect("peer", &[RECONNECTING]);
            side.expect_all(&[("peer", &[CONNECTED]), ("channel", &[])]);
        }
        received.expect_moving_and_audible(received.mark(), 30);
        ann.say(&json!({"command": "say", "text": format!("hello {program}")}));
        bob.expect("message", &[("text", &format!("hello {program}"))]);
    }
    ann.say(&json!({"command": "hang-up"}));
    bob.expect("registered", &[]);
    let done = bob.all("recording", &[]).pop().unwrap();
    assert_eq!(done["finished"], true, "{done}");
    let file = done["path"].as_str().unwrap().to_owned();
    assert_eq!(std::fs::read_dir(records).unwrap().count(), files, "the renewed paths begin no file");
    let probe = probe(&file);
    let (duration, pictures) = duration_and_frames(&probe, "vp8");
    assert!(duration > 4.0 && pictures > 60, "{duration} s, {pictures} pictures");
}

#[test]
fn a_call_outlives_its_server_and_can_be_renewed_when_it_is_back() {
    let (mut stage, received) = (Stage::new(), Received::new());
    let mut bob = stage.answer("bob").receiving(&received).ready();
    let mut ann = stage.call("bob").id("ann").start();
    received.expect_moving_and_audible((0, 0), 20);

    stage.end_server("KILL");
    for side in [&mut ann, &mut bob] {
        side.expect("warning", &[("text", "the server is gone; the call goes on")]);
    }
    received.expect_moving_and_audible(received.mark(), 60);
    stage.serve_again();
    for side in [&mut ann, &mut bob] {
        side.expect("registered", &[]);
        assert!(!side.has_seen("peer", &[RECONNECTING]));
    }
    received.expect_moving_and_audible(received.mark(), 60);
    // A session is there again: what takes the server works.
    renew_in_new_session(&mut ann);
    wait_for("the new path", || (bob.count("peer", &[CONNECTED]) >= 2).then_some(()));
    received.expect_moving_and_audible(received.mark(), 20);
    ann.say(&json!({"command": "hang-up"}));
    bob.expect("peer", &[("state", "left"), ("reason", "the peer hung up")]);
    assert_eq!(ann.end().0, 0);
}

#[test]
fn a_room_outlives_its_server() {
    let (mut stage, received) = (Stage::new(), Received::of_each());
    let mut ann = stage.join("ann").receiving(&received).ready();
    let (mut bob, mut cat) = (stage.join("bob").start(), stage.join("cat").start());
    for peer in ["bob", "cat"] {
        received.from(peer).expect_moving_and_audible((0, 0), 20);
    }
    stage.end_server("KILL");
    for side in [&mut ann, &mut bob, &mut cat] {
        side.expect("warning", &[("text", "the server is gone; trying again")]);
    }
    stage.serve_again();
    for side in [&mut ann, &mut bob, &mut cat] {
        side.expect("room", &[]);
    }
    for peer in ["bob", "cat"] {
        let from = received.from(peer);
        from.expect_moving_and_audible(from.mark(), 60);
    }
    // No connection was renegotiated, and a newcomer is connected with all.
    for side in [&mut ann, &mut bob, &mut cat] {
        assert!(!side.has_seen("peer", &[RECONNECTING]) && !side.has_seen("peer", &[("state", "left")]));
    }
    let mut dan = stage.join("dan").start();
    let connected = |peer| [("peer", peer), CONNECTED];
    let all = ["ann", "bob", "cat"].map(connected);
    dan.expect_all(&all.each_ref().map(|fields| ("peer", &fields[..])));
}

#[test]
fn a_peer_that_freezes_is_reconnected_when_it_wakes_and_given_up_when_it_does_not() {
    let (stage, received) = (Stage::new(), Received::new());
    let bob = stage.answer("bob").ready();
    let mut ann = stage.call("bob").id("ann").receiving(&received).with(&["--give-up-after", "12"]).start();
    received.expect_moving_and_audible((0, 0), 20);

    bob.signal("STOP");
    let stopped = Instant::now();
    ann.expect("peer", &[RECONNECTING]);
    let noticed = stopped.elapsed();
    // After 4 s of silence; the rest is for a machine that is busy.
    assert!((Duration::from_secs(2)..Duration::from_secs(10)).contains(&noticed), "{noticed:?}");
    bob.signal("CONT");
    ann.expect("peer", &[CONNECTED]);
    received.expect_moving_and_audible(received.mark(), 30);

    bob.signal("STOP");
    ann.expect("peer", &[RECONNECTING]);
    let (code, error) = ann.end();
    assert_eq!((code, error.contains("the connection to the peer broke")), (6, true), "{error}");
    bob.signal("CONT");
}

#[test]
fn a_machine_that_changes_its_network_is_found_again() {
    needs!(Networks);
    let [hub, left, right] = Namespace::around_a_hub();
    // The server is reached by cables of its own; the two talk over another.
    left.join(&right, "lr", "10.78.3.1", "10.78.3.2");
    let (stage, received) = (Stage::within(&hub, &[]), Received::new());
    let mut bob = stage.answer("bob").within(&left, "10.78.1.1").receiving(&received).ready();
    let mut ann = stage.call("bob").within(&right, "10.78.2.1").start();
    received.expect_moving_and_audible((0, 0), 20);

    // The cable between them is pulled; another network comes up.
    assert!(left.ip("link del lr"));
    for side in [&mut ann, &mut bob] {
        side.expect("peer", &[RECONNECTING]);
    }
    left.join(&right, "lr2", "10.78.4.1", "10.78.4.2");
    for side in [&mut ann, &mut bob] {
        side.expect("peer", &[CONNECTED]);
    }
    received.expect_moving_and_audible(received.mark(), 30);
}

/// Tests a path that drops the packets of one direction. The deaf side would wait for two minutes; the other side learns from
/// the receiver reports that nothing of it arrives.
#[test]
fn a_path_that_is_dead_in_one_direction_is_replaced() {
    needs!(Networks);
    let [hub, left, right] = Namespace::around_a_hub();
    left.join(&right, "lr", "10.78.3.1", "10.78.3.2");
    let (stage, received) = (Stage::within(&hub, &[]), Received::new());
    let mut bob = stage.answer("bob").within(&left, "10.78.1.1").ready();
    let patient = ["--reconnect-after", "120"];
    let ann = stage.call("bob").within(&right, "10.78.2.1").receiving(&received).with(&patient);
    let _ann = ann.start();
    received.expect_moving_and_audible((0, 0), 20);

    left.join(&right, "lr2", "10.78.4.1", "10.78.4.2");
    // Packets that arrive after the change of the network end the doubts about the path.
    received.expect_moving_and_audible(received.mark(), 60);
    let deaf = "table inet deaf { chain in { type filter hook input priority 0; iifname lrx drop; }; }";
    assert!(right.filters(deaf));
    let dropped = Instant::now();
    bob.expect("peer", &[RECONNECTING]);
    // ICE alone fails after 47 s, the reports after 9 s.
    assert!(dropped.elapsed() < Duration::from_secs(30), "{:?}", dropped.elapsed());
    bob.expect("peer", &[CONNECTED]);
    received.expect_moving_and_audible(received.mark(), 30);
}

/// A page that called a client, and what the client receives of it.
fn page_and_client() -> (Stage, Program, Browser, Received) {
    let (stage, received) = (Stage::new(), Received::new());
    let bob = stage.answer("bob").receiving(&received).ready();
    let browser = stage.enter("?id=page&call=bob");
    received.expect_moving_and_audible((0, 0), 20);
    browser.expect_moving_and_audible();
    (stage, bob, browser, received)
}

#[test]
fn a_page_and_a_client_find_new_paths_to_each_other() {
    needs!(Browser);
    let (_stage, mut bob, browser, received) = page_and_client();
    for side in ["client", "page"] {
        let mark = received.mark();
        match side {
            "client" => bob.say(&json!({"command": "reconnect"})),
            _ => drop(browser.run("roomtone.call.renew(); return roomtone.call.offer()")),
        }
        bob.expect("peer", &[RECONNECTING]);
        bob.expect("peer", &[CONNECTED]);
        received.expect_moving_and_audible(mark, 20);
        browser.expect_moving_and_audible();
        browser.wait("!document.querySelector('#text').disabled && roomtone.call.say('from the new path')");
        bob.expect("message", &[("text", "from the new path")]);
    }
    browser.click("hang-up");
    bob.expect("peer", &[("state", "left")]);
}

/// Tests reconnecting to a page that keeps its `RTCPeerConnection` for the whole call, and with it an order of
/// m-lines that differs from ours. The side that makes the first offer controls ICE.
#[test]
fn a_page_that_knows_nothing_of_us_is_found_again() {
    needs!(Browser);
    for page_calls in [true, false] {
        let (stage, received) = (Stage::new(), Received::new());
        let browser = stage.empty_page();
        let kinds = ["audio", "video", "application"];
        let mut bob = stage.call_with_foreign_page(&browser, &kinds, page_calls, &received);
        received.expect_moving_and_audible((0, 0), 20);
        browser.expect_of("document.querySelector('#remote')", "pc");
        // The path that the page sends over: its own port, and that of the client.
        // Between two paths there may be none.
        let path = "const all = await pc.getStats(), is = (r) => r.type === 'transport'; \
                    const pair = all.get([...all.values()].find(is)?.selectedCandidatePairId); \
                    return [pair?.localCandidateId, pair?.remoteCandidateId].map((id) => all.get(id)?.port ?? null)";
        let ports = || Some(browser.run(path)).filter(|ports| ports[0].is_u64() && ports[1].is_u64());
        let mut before = wait_for("a path of the page", ports);
        for side in ["client", "page", "client"] {
            let mark = received.mark();
            match side {
                "client" => {
                    let connected = bob.count("peer", &[CONNECTED]);
                    bob.say(&json!({"command": "reconnect"}));
                    wait_for("the new path", || (bob.count("peer", &[CONNECTED]) > connected).then_some(()));
                }
                _ => drop(browser.run("pc.restartIce(); await pc.setLocalDescription(); tell();")),
            }
            // Both sides have left the path of before, which works all the time.
            before = wait_for("new ports at both ends", || {
                ports().filter(|now| now[0] != before[0] && now[1] != before[1])
            });
            received.expect_moving_and_audible(mark, 40);
            browser.expect_of("document.querySelector('#remote')", "pc");
        }
        if !page_calls {
            // waits for: libnice's end of the stream that nobody reads any more, 50 s after its last answer
            std::thread::sleep(Duration::from_secs(60));
            received.expect_moving_and_audible(received.mark(), 40);
            browser.expect_of("document.querySelector('#remote')", "pc");
        }
        assert_eq!(browser.run("return errors"), json!([]));
        let order = browser.run("return pc.remoteDescription.sdp.match(/^m=\\w+/gm).join()");
        let expected =
            if page_calls { "m=audio,m=video,m=application" } else { "m=video,m=audio,m=application" };
        assert_eq!(order, expected);
    }
}

#[test]
fn a_call_with_a_page_outlives_the_server() {
    needs!(Browser);
    let (mut stage, mut bob, browser, received) = page_and_client();
    stage.end_server("KILL");
    bob.expect("warning", &[("text", "the server is gone; the call goes on")]);
    received.expect_moving_and_audible(received.mark(), 40);
    browser.expect_moving_and_audible();
    stage.serve_again();
    bob.expect("registered", &[]);
    renew_in_new_session(&mut bob);
    wait_for("the new path", || (bob.count("peer", &[CONNECTED]) >= 2).then_some(()));
    received.expect_moving_and_audible(received.mark(), 20);
    browser.expect_moving_and_audible();
    assert_eq!(browser.run("return document.body.dataset.state"), "call");
}

#[test]
fn a_room_of_pages_and_clients_outlives_the_server() {
    needs!(Browser);
    let _alone = alone();
    let (mut stage, received) = (Stage::new(), Received::of_each());
    let mut ann = stage.join("ann").receiving(&received).ready();
    let tabs = ["tab1", "tab2"].map(|id| {
        let tab = stage.enter(&format!("?room=attic&id={id}"));
        received.from(id).expect_moving_and_audible((0, 0), 20);
        tab
    });
    tabs[0].expect_of_peer("tab2");
    stage.end_server("KILL");
    stage.serve_again();
    ann.expect("room", &[]);
    // All are in the room again, over the connections that they had.
    tabs[0].wait("document.querySelector('#status').textContent.startsWith('attic: you and 2')");
    tabs[1].wait("document.querySelector('#status').textContent.startsWith('attic: you and 2')");
    for id in ["tab1", "tab2"] {
        let from = received.from(id);
        from.expect_moving_and_audible(from.mark(), 40);
    }
    tabs[0].expect_of_peer("tab2");
    tabs[1].expect_of_peer("ann");
    assert!(!ann.has_seen("peer", &[RECONNECTING]) && !ann.has_seen("peer", &[("state", "left")]));

    // A peer that leaves is gone at once, with the server and without.
    tabs[1].click("hang-up");
    ann.expect("peer", &[("peer", "tab2"), ("state", "left")]);
    tabs[0].wait("!document.querySelector('.tile[data-peer=tab2]')");
}

/// Clients without media, one per protocol and command: name, arguments, and the event of a successful registration.
pub(crate) const CLIENTS: [(&str, &[&str], &str); 4] = [
    ("answer", &["answer", "--id", "kiosk", "--server", "ws://"], "registered"),
    ("join", &["join", "attic", "--id", "kiosk", "--server", "ws://"], "room"),
    ("ssp", &["join", "attic", "--server", "ssp+ws://"], "room"),
    ("socket.io", &["join", "attic", "--server", "ssp+http://"], "room"),
];

pub(crate) fn client_of(home: &Path, server: &Moody, args: &[&str]) -> Program {
    let url = format!("{}{}", args.last().unwrap(), server.address);
    let command: Vec<&str> = args[..args.len() - 2].to_vec();
    Client::new(home, &command).server(&url).without_media().start()
}

/// Returns a mood that closes the connection as soon as the client counts as registered.
pub(crate) fn registered_then_closed(client: &str) -> Mood {
    if client == "answer" { Mood::HelloThenClose } else { Mood::JoinedThenClose }
}

#[test]
fn a_client_that_was_registered_outlives_whatever_its_server_does() {
    let home = tempfile::tempdir().unwrap();
    // Failures that each client meets after its first registration, before the server works again.
    let trials = [
        [Mood::Close, Mood::Refuse(1002, "invalid peer uid"), Mood::Http("404 Not Found")],
        [Mood::Http("200 OK"), Mood::Http("503 Service Unavailable\r\nretry-after: 1"), Mood::Reset],
        [Mood::Close, Mood::Http("401 Unauthorized"), Mood::Refuse(1002, "invalid protocol")],
        [Mood::Http("403 Forbidden"), Mood::Http("429 Too Many Requests"), Mood::Refuse(1013, "later")],
    ];
    let mut clients: Vec<_> = CLIENTS
        .iter()
        .zip(trials)
        .map(|((name, args, event), trial)| {
            let server = Moody::start(move |number| match number {
                0 => registered_then_closed(name),
                number => trial.get(number - 1).cloned().unwrap_or(Mood::Good),
            });
            (client_of(home.path(), &server, args), server, *event)
        })
        .collect();
    for (client, server, event) in &mut clients {
        wait_for("a second registration", || (client.count(event, &[]) == 2).then_some(()));
        assert_eq!(server.connects().len(), 5);
        client.say(&json!({"command": "quit"}));
    }
    for (client, ..) in clients {
        assert_eq!(client.end().0, 0);
    }
}

#[test]
fn a_token_that_has_ended_and_a_dismissal_end_a_client() {
    const ENDED: &str = "401 Unauthorized\r\nwww-authenticate: Bearer error=\"invalid_token\"";
    let home = tempfile::tempdir().unwrap();
    let (name, args, event) = CLIENTS[1];
    for (last, words) in
        [(Mood::Http(ENDED), "does not let us in"), (Mood::Refuse(1008, "removed"), "removed")]
    {
        let server = Moody::start(move |number| match number {
            0 => registered_then_closed(name),
            1 => Mood::Close,
            _ => last.clone(),
        });
        let mut client = client_of(home.path(), &server, args);
        client.expect(event, &[]);
        let (code, error) = client.end();
        assert_eq!((code, error.contains(words)), (4, true), "{error}");
        assert_eq!(server.connects().len(), 3);
    }
}

#[test]
fn a_server_of_another_protocol_is_told_at_once_with_the_likely_address() {
    let stage = Stage::new();
    let url = &stage.url;
    let client = |server: &str| stage.client(&["join", "attic"]).server(server).without_media().start().end();
    let (code, error) = client(&format!("ssp+{url}"));
    assert_eq!((code, error.contains(&format!("is ssp+{url}/ssp"))), (3, true), "{error}");
    let (code, error) = client(&format!("{url}/ssp"));
    assert_eq!((code, error.contains(&format!("is ssp+{url}/ssp"))), (3, true), "{error}");
}
