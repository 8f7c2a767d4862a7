//! `roomtone publish` and `roomtone watch` at a media server.

mod server;

use std::net::{IpAddr, UdpSocket};

use self::server::{MediaServer, Reply, Request};
use crate::common::{
    Client, PATIENCE, Program, Received, duration_and_frames, free_address, needs, probe, resumed,
};
use roomtone::sdp::{Direction, Sdp, Section};

/// Header fields of a server that accepts candidates.
const TRICKLES: &str = "etag: \"7\"\r\naccept-patch: application/trickle-ice-sdpfrag\r\n";

fn publish<'a>(home: &'a tempfile::TempDir, url: &str) -> Client<'a> {
    Client::new(home.path(), &["publish", url]).outputs(&[])
}

fn watch<'a>(home: &'a tempfile::TempDir, url: &str) -> Client<'a> {
    Client::new(home.path(), &["watch", url]).media(&[])
}

fn field<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.fields.get(name).map(String::as_str)
}

/// Waits for the end of a program that was interrupted.
fn interrupt(program: Program) {
    program.interrupt();
    assert_eq!(program.end().0, 130);
}

#[test]
fn a_publisher_sends_both_kinds_and_ends_its_session() {
    needs!(Address);
    let home = tempfile::tempdir().unwrap();
    // Not on loopback: libnice sends no requests there from the addresses of other interfaces.
    let own = roomtone::server::tls::addresses().into_iter().find(IpAddr::is_ipv4).expect("an address");
    let stun = UdpSocket::bind((own, 0)).unwrap();
    let link: &'static str =
        format!("{TRICKLES}link: <stun:{}>; rel=\"ice-server\"\r\n", stun.local_addr().unwrap()).leak();
    let server = MediaServer::receiving(move |request, _| match request.method.as_str() {
        "POST" => Reply::Session(link),
        _ => Reply::status("200 OK"),
    });
    let mut program = publish(&home, &server.url()).variable("ROOMTONE_TOKEN", "geheim").start();
    let offer = server.expect("POST", 0);
    assert_eq!(field(&offer, "authorization"), Some("Bearer geheim"));
    assert_eq!(field(&offer, "content-type"), Some("application/sdp"));
    let sdp = Sdp::parse(&offer.body).unwrap();
    let kinds: Vec<&str> = sdp.media.iter().map(|media| media.kind.as_str()).collect();
    assert_eq!(kinds, ["video", "audio"], "no data channel");
    assert_eq!((sdp.mid(0), sdp.mid(1)), (Some("0"), Some("1")));
    let sends = Direction { send: true, receive: false };
    for media in &sdp.media {
        assert_eq!(media.direction(), sends);
        assert_eq!(media.attribute("setup"), Some("actpass"));
        assert!(media.rest.starts_with("9 ") && media.attribute("rtcp-mux").is_some(), "{}", media.rest);
        assert!(
            media.attributes("extmap").all(|one| !one.contains("sdes:mid")),
            "its value would be another mid"
        );
    }
    // The server's STUN server is used for the candidates of this session.
    stun.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(resumed(|| stun.recv(&mut [0; 512])).unwrap() > 0);
    let patch = server.expect("PATCH", 0);
    assert_eq!((field(&patch, "if-match"), patch.path.as_str()), (Some("\"7\""), "/session/1"));
    assert!(patch.body.contains("a=mid:0\r\n") && patch.body.contains("a=candidate:"), "{}", patch.body);
    program.expect("peer", &[("peer", "127.0.0.1"), ("state", "connected")]);
    server.expect_media(0, |stats| {
        let is_audible = stats.sound_level_received.is_some_and(|level| level < 40);
        stats.video_frames_received > 20 && stats.width == Some(320) && is_audible
    });
    interrupt(program);
    let delete = server.expect("DELETE", 0);
    let last = format!("/session/{}", server.requests("POST").len());
    assert_eq!((&delete.path, field(&delete, "authorization")), (&last, Some("Bearer geheim")));
}

#[test]
fn a_player_waits_for_the_publisher_and_survives_the_server() {
    needs!(Address);
    let (home, received) = (tempfile::tempdir().unwrap(), Received::new());
    let record = home.path().join("record").display().to_string();
    let rule = |request: &Request, earlier: usize| match (request.method.as_str(), earlier) {
        ("POST", 0) => Reply::status("404 Not Found"),
        ("POST", 1) => Reply::status("409 Conflict\r\nretry-after: 1"),
        ("POST", _) => Reply::Session(""),
        _ => Reply::status("200 OK"),
    };
    // Not of the range from which the system takes ports: another test could get the port before the second server.
    let address = free_address();
    let server = MediaServer::sending(address, rule);
    let options = ["--record", &record, "--reconnect-after", "1"];
    let mut program = watch(&home, &server.url()).receiving(&received).with(&options).start();
    program.expect("peer", &[("state", "connected")]);
    assert!(
        program.has_warned("nobody publishes there yet, or the path is wrong (404 Not Found); asking again")
    );
    received.expect_moving_and_audible((0, 0), 15);
    let sdp = Sdp::parse(&server.expect("POST", 2).body).unwrap();
    let receives = Direction { send: false, receive: true };
    assert!(sdp.media.len() == 2 && sdp.media.iter().all(|media| media.direction() == receives));
    assert!(server.requests("PATCH").is_empty(), "the server offers no way to trickle");

    server.crash();
    program.expect("peer", &[("state", "reconnecting")]);
    let since = received.mark();
    let server = MediaServer::sending(address, |request, _| match request.method.as_str() {
        "POST" => Reply::Session(""),
        _ => Reply::status("200 OK"),
    });
    program.expect("peer", &[("state", "connected")]);
    received.expect_moving_and_audible(since, 15);
    let earlier = server.requests("DELETE").len();
    program.interrupt();
    program.expect("ended", &[]);
    // After more than five seconds without media the recording goes on in another file.
    let recordings = program.all("recording", &[("peer", "127.0.0.1")]);
    let finished = recordings.iter().filter(|recording| recording["finished"] == true);
    let files: Vec<String> = finished.map(|file| file["path"].as_str().unwrap().to_owned()).collect();
    assert_eq!((files.len(), files.is_empty()), (recordings.len() / 2, false), "{recordings:?}");
    assert_eq!(program.end().0, 130);
    for file in files {
        assert!(duration_and_frames(&probe(&file), "vp8").1 > 0, "{file}");
    }
    // The session that was open last is ended.
    let sessions = server.requests("POST").len();
    assert_eq!(server.expect("DELETE", earlier).path, format!("/session/{sessions}"));
}

#[test]
fn a_player_whose_server_stays_away_gives_up_after_its_time() {
    needs!(Address);
    let (home, received) = (tempfile::tempdir().unwrap(), Received::new());
    let server = MediaServer::sending(free_address(), |request, _| match request.method.as_str() {
        "POST" => Reply::Session(""),
        _ => Reply::status("200 OK"),
    });
    // Longer than a stall of a loaded machine.
    let options = ["--give-up-after", "6"];
    let mut program = watch(&home, &server.url()).receiving(&received).with(&options).start();
    program.expect("peer", &[("state", "connected")]);
    received.expect_moving_and_audible((0, 0), 15);
    server.crash();
    program.expect("peer", &[("state", "reconnecting")]);
    program.expect("ended", &[]);
    let (code, stderr) = program.end();
    assert_eq!(code, 6, "{stderr}");
}

#[test]
fn a_wrong_server_is_named_with_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let server = MediaServer::receiving(|request, _| match request.path.as_str() {
        "/page" => Reply::with_body("200 OK", "text/html", "<html>welcome</html>"),
        "/empty" => Reply::with_body("200 OK", "application/sdp", ""),
        "/huge" => {
            let mut huge = b"HTTP/1.1 201 Created\r\ncontent-type: application/sdp\r\n\r\nv=0\r\n".to_vec();
            huge.resize(4 << 20, b'x');
            Reply::Raw(huge)
        }
        "/locked" => Reply::status("401 Unauthorized"),
        _ => Reply::with_body("406 Not Acceptable", "application/json", r#"{"error":"VP8 only"}"#),
    });
    let address = server.address();
    for (path, code, words) in [
        ("page", 3, "is this the URL of the endpoint"),
        ("empty", 3, "no SDP"),
        ("huge", 3, "more than 1048576 bytes"),
        ("locked", 4, "it requires a token, or another one; give it with --token T, or in ROOMTONE_TOKEN"),
        ("strict", 4, "406 Not Acceptable (VP8 only)"),
    ] {
        let program = watch(&home, &format!("http://{address}/{path}")).start();
        let (found, stderr) = program.end();
        assert!(found == code && stderr.contains(words), "{path}: {found}: {stderr}");
    }
    for (args, words) in [
        (["publish", "wss://example.org"], "it looks like https://example.org/live/whip"),
        (["watch", "wss://example.org/whep"], "it looks like https://example.org/live/whep"),
    ] {
        let (code, stderr) = Client::new(home.path(), &args).media(&[]).outputs(&[]).start().end();
        assert!(code == 2 && stderr.contains(words), "{code}: {stderr}");
    }
}

#[test]
fn a_session_elsewhere_gets_no_token_and_its_missing_end_is_reported() {
    needs!(Address);
    let home = tempfile::tempdir().unwrap();
    let elsewhere = MediaServer::receiving(|_, _| Reply::Nothing);
    let origin = format!("http://{}", elsewhere.address());
    let server = MediaServer::receiving(move |_, _| Reply::SessionAt(origin.clone(), TRICKLES));
    let options = ["--token", "geheim", "--video", "none"];
    let mut program = publish(&home, &server.url()).media(&["--audio", "tone"]).with(&options).start();
    program.expect("peer", &[("state", "connected")]);
    server.expect_media(0, |stats| stats.audio_frames_received > 20);
    let patch = elsewhere.expect("PATCH", 0);
    // Neither request has a response.
    program.interrupt();
    let delete = elsewhere.expect("DELETE", 0);
    for request in [patch, delete] {
        assert!(request.path.starts_with("/session/"), "{}", request.path);
        assert_eq!(field(&request, "authorization"), None);
    }
    program.expect("ended", &[]);
    assert!(program.has_warned("could not be ended, and may go on there: no response came in time"));
    assert_eq!(program.end().0, 130);
}

#[test]
fn an_interrupt_during_a_slow_offer_ends_the_session_that_it_begins() {
    needs!(Address);
    let home = tempfile::tempdir().unwrap();
    // Without a buffer: each message of the server waits for the test.
    let (gate, opened) = std::sync::mpsc::sync_channel(0);
    let server = MediaServer::receiving(move |request, _| match request.method.as_str() {
        "POST" => Reply::SessionAfter(gate.clone()),
        _ => Reply::status("200 OK"),
    });
    let program = publish(&home, &server.url()).start();
    opened.recv_timeout(PATIENCE).unwrap();
    program.interrupt();
    opened.recv_timeout(PATIENCE).unwrap();
    assert_eq!(server.expect("DELETE", 0).path, "/session/1");
    assert_eq!(program.end().0, 130);
}
