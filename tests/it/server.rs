//! The server on loopback, spoken to as the deployed clients do.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::common::websocket::peer;
use crate::common::{
    ANY, PATIENCE, Program, Resumed, WebSocket, in_time, needs, pace, read_status, resumed, serve,
    serve_until_stopped, wait_for, ws,
};
use async_tungstenite::tungstenite;
use roomtone::hub::Limits;
use roomtone::protocol::Secret;
use roomtone::server::ice::{Credentials, IceServers};
use roomtone::server::{Config, Files, Identity, Server, Timeouts, tls};
use smol::stream::StreamExt;

fn plain() -> SocketAddr {
    serve(Config::plain(ANY))
}

#[test]
fn registration_as_the_demos_have_it() {
    let server = plain();
    let mut ann = WebSocket::connect_to(server, "");
    ann.say("  HELLO \t ann\r\n");
    ann.expect("HELLO");
    for (hello, reason) in [
        ("HELLO", "invalid peer uid"),
        ("HELLO a b", "invalid peer uid"),
        ("SESSION ann", "invalid protocol"),
        ("", "invalid protocol"),
        ("\u{0}\u{1}", "invalid protocol"),
    ] {
        let mut other = WebSocket::connect_to(server, "");
        other.say(hello);
        other.expect_close(1002, reason);
    }
    ann.say("HELLO ann");
    ann.expect("ERROR invalid msg, already registered");
}

#[test]
fn a_session_relays_verbatim_until_either_side_goes() {
    let server = plain();
    let (mut ann, mut bob) = (peer(server, "ann"), peer(server, "bob"));
    ann.say("SESSION bob");
    ann.expect("SESSION_OK");
    for text in
        ["OFFER_REQUEST", "ERROR forged", "  {\"sdp\": \"initial sdp\"} ", "HELLO x", "ROOM_PEER_LIST"]
    {
        ann.say(text);
        bob.expect(text);
        bob.say(text);
        ann.expect(text);
    }
    let mut cat = peer(server, "cat");
    cat.say("SESSION bob");
    cat.expect("ERROR peer 'bob' busy");
    cat.say("SESSION nobody");
    cat.expect("ERROR peer 'nobody' not found");
    drop(bob);
    ann.expect_close(1000, "");
    // Both are free again at once.
    peer(server, "ann");
    peer(server, "bob");
}

#[test]
fn rooms_tell_of_everybody() {
    let server = plain();
    let (mut ann, mut bob) = (peer(server, "ann"), peer(server, "bob"));
    ann.say("ROOM attic");
    ann.expect("ROOM_OK ");
    ann.say("ROOM_PEER_LIST");
    ann.expect("ROOM_PEER_LIST ");
    bob.say("ROOM attic");
    bob.expect("ROOM_OK ann");
    ann.expect("ROOM_PEER_JOINED bob");
    bob.say("ROOM_PEER_MSG ann {\"x\":  1}");
    ann.expect("ROOM_PEER_MSG bob {\"x\":  1}");
    bob.say("ROOM_PEER_LIST");
    bob.expect("ROOM_PEER_LIST ann");
    let mut cat = peer(server, "cat");
    cat.say("SESSION ann");
    cat.expect("ERROR peer 'ann' busy");
    cat.say("ROOM a b");
    cat.expect("ERROR invalid room id 'a b'");
    cat.say("ROOM session");
    cat.expect("ERROR invalid room id 'session'");
    ann.say("ROOM_PEER_MSG cat hi");
    ann.expect("ERROR peer 'cat' is not in the room");
    ann.say("ROOM_PEER_MSG dan hi");
    ann.expect("ERROR peer 'dan' not found");
    ann.say("SESSION cat");
    ann.expect("ERROR invalid msg, already in room");
    drop(bob);
    ann.expect("ROOM_PEER_LEFT bob");
}

#[test]
fn a_malformed_command_or_a_binary_frame_gets_an_error_and_the_connection_stays() {
    let server = plain();
    let mut ann = peer(server, "ann");
    for (line, error) in [
        ("SESSION", "ERROR 'SESSION' needs the id of a peer"),
        ("ROOM", "ERROR 'ROOM' needs the name of a room"),
        ("ROOM_PEER_MSG", "ERROR 'ROOM_PEER_MSG' needs the id of a peer and a message"),
        ("ROOM_PEER_LIST", "ERROR invalid msg, not in a room"),
        ("", "ERROR unknown command"),
        ("{\"sdp\": 1}", "ERROR unknown command"),
    ] {
        ann.say(line);
        ann.expect(error);
    }
    ann.binary(&[0, 159, 146, 150]);
    ann.expect("ERROR binary messages are not part of this protocol");
    ann.say("ROOM attic");
    ann.expect("ROOM_OK ");
}

#[test]
fn one_mebibyte_is_relayed_and_more_ends_the_sender() {
    let server = plain();
    let (mut ann, mut bob) = (peer(server, "ann"), peer(server, "bob"));
    ann.say("SESSION bob");
    ann.expect("SESSION_OK");
    let most = "x".repeat(1 << 20);
    ann.say(&most);
    assert_eq!(bob.hear().unwrap().len(), 1 << 20);
    // The server closes long before all of this is sent: the sender can finish, and gets the reason.
    ann.say(&most.repeat(8));
    ann.expect_close(1009, "message too big");
    bob.expect_close(1000, "");
}

#[test]
fn only_who_asked_hears_of_additions() {
    let server = plain();
    let mut bob = WebSocket::connect_to(server, "any/path?a=b&roomtone=1");
    bob.register("bob");
    let mut ann = peer(server, "ann");
    bob.say("PEER_LIST");
    bob.expect("PEER_LIST ann");
    ann.say("SESSION bob");
    ann.expect("SESSION_OK");
    bob.expect("SESSION_FROM ann");
    ann.say("{}");
    bob.expect("{}");
}

#[test]
fn a_client_that_asked_for_additions_pings_in_any_phase() {
    let server = plain();
    let mut ann = WebSocket::connect_to(server, "?roomtone=1");
    ann.register("ann");
    ann.say("PING");
    ann.expect("PONG");
    let mut bob = peer(server, "bob");
    ann.say("SESSION bob");
    ann.expect("SESSION_OK");
    ann.say("PING");
    ann.expect("PONG");
    ann.say("PING 2");
    bob.expect("PING 2");
    // A client that did not ask for extensions has no PING: its text goes to the peer.
    bob.say("PING");
    ann.expect("PING");
}

#[test]
fn an_id_is_refused_while_its_holder_answers() {
    let server = plain();
    // Reading answers the server's ping.
    let mut ann = peer(server, "ann");
    let holder = std::thread::spawn(move || ann.hear().unwrap());
    let mut other = WebSocket::connect_to(server, "");
    other.say("HELLO ann");
    other.expect_close(1002, "invalid peer uid");
    let mut bob = peer(server, "bob");
    bob.say("SESSION ann");
    bob.expect("SESSION_OK");
    bob.say("still you");
    assert_eq!(holder.join().unwrap(), "still you");
}

#[test]
fn an_id_is_taken_over_from_a_socket_that_is_dead() {
    let limits = Limits { probe: Duration::from_millis(300), ..Limits::default() };
    let server = serve(Config { limits, ..Config::plain(ANY) });
    // It registers and then never reads again, so no ping is answered.
    let dead = peer(server, "ann");
    let mut ann = WebSocket::connect_to(server, "");
    ann.register("ann");
    let mut bob = peer(server, "bob");
    bob.say("SESSION ann");
    bob.expect("SESSION_OK");
    bob.say("to the new one");
    ann.expect("to the new one");
    dead.expect_close(1001, "registered again elsewhere");
}

#[test]
fn a_peer_that_stops_reading_is_dropped_and_nobody_else_notices() {
    let timeouts = Timeouts { unread: Duration::from_secs(1), ..Timeouts::default() };
    let server = serve(Config { timeouts, ..Config::plain(ANY) });
    let (mut ann, _frozen) = (peer(server, "ann"), peer(server, "frozen"));
    ann.say("SESSION frozen");
    ann.expect("SESSION_OK");
    let flood = std::thread::spawn(move || {
        let text = "x".repeat(1 << 20);
        // Until the server ends it; far more than sockets and queue together hold.
        (0..200).find(|_| !ann.try_say(&text));
        ann
    });
    let (mut cat, mut dan) = (peer(server, "cat"), peer(server, "dan"));
    cat.say("SESSION dan");
    cat.expect("SESSION_OK");
    for n in 0..500 {
        cat.say(&n.to_string());
        dan.expect(&n.to_string());
    }
    drop(flood.join().unwrap());
    peer(server, "frozen");
}

/// Reads up to 50 messages a second, until it has `until` messages of `friend`. Returns these messages, the number of
/// bytes read, and the connection.
fn read_slowly(mut peer: WebSocket, friend: &str, until: usize) -> (Vec<String>, usize, WebSocket) {
    let (prefix, mut heard, mut bytes) = (format!("ROOM_PEER_MSG {friend} "), vec![], 0);
    while heard.len() < until {
        let line = peer.hear().expect("a slow reader keeps its connection");
        bytes += line.len();
        heard.extend(line.strip_prefix(&prefix).map(str::to_owned));
        pace(Instant::now() + Duration::from_millis(20));
    }
    (heard, bytes, peer)
}

#[test]
fn a_flood_slows_its_sender_and_the_slow_reader_keeps_its_connection_and_its_id() {
    const MESSAGE: usize = 16 * 1024;
    const FRIENDLY: usize = 10;
    let server = plain();
    let enter = |name: &str| {
        let mut peer = peer(server, name);
        peer.say("ROOM attic");
        peer.hear().unwrap();
        peer
    };
    let (victim, mut flooder, mut friend) = (enter("victim"), enter("flooder"), enter("friend"));
    let ends = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let end = ends.clone();
    let flood = std::thread::spawn(move || {
        let line = format!("ROOM_PEER_MSG victim {}", "x".repeat(MESSAGE));
        let mut sent = 0;
        while !end.load(std::sync::atomic::Ordering::Relaxed) && flooder.try_say(&line) {
            sent += line.len();
        }
        (sent, flooder)
    });
    let slow = std::thread::spawn(move || read_slowly(victim, "friend", FRIENDLY));
    for n in 0..FRIENDLY {
        friend.say(&format!("ROOM_PEER_MSG victim {n}"));
        pace(Instant::now() + Duration::from_millis(200));
        if n == 2 {
            // The victim answers the server's ping only after all that the kernel has buffered for it.
            let mut thief = WebSocket::connect_to(server, "");
            thief.say("HELLO victim");
            thief.expect_close(1002, "invalid peer uid");
        }
    }
    let (heard, read, victim) = slow.join().unwrap();
    assert_eq!(heard, (0..FRIENDLY).map(|n| n.to_string()).collect::<Vec<_>>(), "all of a third's, in order");
    ends.store(true, std::sync::atomic::Ordering::Relaxed);
    friend.say("ROOM_PEER_LIST");
    let list = std::iter::from_fn(|| friend.hear()).find(|line| line.starts_with("ROOM_PEER_LIST ")).unwrap();
    assert!(list.contains("victim") && list.contains("flooder"), "{list}");
    // Nothing reads the rest of the flood from here on.
    drop(victim);
    let (sent, _flooder) = flood.join().unwrap();
    // Most data in flight: the buffers of two sockets, of at most 4 and 6 MB each, and the server's own queue.
    assert!(sent - read < 24 << 20, "{sent} bytes were taken of the flooder, and {read} read");
}

#[test]
fn what_a_fellow_does_not_read_is_refused_and_others_are_reached() {
    let timeouts = Timeouts {
        unread: Duration::from_secs(300),
        held: Duration::from_millis(200),
        ..Timeouts::default()
    };
    let server = serve(Config { timeouts, ..Config::plain(ANY) });
    let mut deaf = peer(server, "deaf");
    deaf.say("ROOM attic");
    let mut bob = peer(server, "bob");
    bob.say("ROOM attic");
    let mut ann = peer(server, "ann");
    ann.say("ROOM attic");
    let refused = "ERROR peer 'deaf' does not read what it is sent: this message is dropped";
    let line = format!("ROOM_PEER_MSG deaf {}", "x".repeat(64 * 1024));
    for _ in 0..400 {
        ann.say(&line);
    }
    ann.say("ROOM_PEER_MSG bob hello");
    while bob.hear().unwrap() != "ROOM_PEER_MSG ann hello" {}
    while ann.hear().unwrap() != refused {}
    // The silent peer is not dropped because of others' messages, and gets all that were not refused.
    ann.say("ROOM_PEER_LIST");
    let list = std::iter::from_fn(|| ann.hear()).find(|line| line.starts_with("ROOM_PEER_LIST ")).unwrap();
    assert!(list.contains("deaf"), "{list}");
    let got = std::iter::from_fn(|| deaf.hear()).find(|line| line.starts_with("ROOM_PEER_MSG ann "));
    assert_eq!(got.unwrap(), line.replace("deaf", "ann"));
}

#[test]
fn lists_have_a_rate() {
    let server = plain();
    let mut ann = WebSocket::connect_to(server, "?roomtone=1");
    ann.register("ann");
    let began = Instant::now();
    // Each list costs 50 names in addition to those that it contains: a burst of 4000 is allowed, then 400 a second.
    for _ in 0..100 {
        ann.say("PEER_LIST");
    }
    for _ in 0..100 {
        ann.expect("PEER_LIST ");
    }
    assert!(began.elapsed() >= Duration::from_millis(2000), "{:?}", began.elapsed());
}

#[test]
fn many_that_leave_at_once_leave_no_ghosts() {
    let server = plain();
    let mut ann = peer(server, "ann");
    ann.say("ROOM attic");
    ann.expect("ROOM_OK ");
    let mut others: Vec<WebSocket> = (0..50).map(|n| peer(server, &format!("p{n}"))).collect();
    for other in &mut others {
        other.say("ROOM attic");
        other.hear().unwrap();
    }
    drop(others);
    let mut told: Vec<String> = (0..100).map(|_| ann.hear().unwrap()).collect();
    told.sort();
    told.dedup();
    assert_eq!(told.len(), 100, "each join and each leave once");
    ann.say("ROOM_PEER_LIST");
    ann.expect("ROOM_PEER_LIST ");
    (0..50).for_each(|n| drop(peer(server, &format!("p{n}"))));
}

/// Tests each timer on a server of its own: the others must not end what this test does while the machine is busy.
#[test]
fn who_says_nothing_and_who_does_not_answer_pings_is_dropped() {
    let short = Duration::from_millis(200);
    let with = |timeouts| serve(Config { timeouts, ..Config::plain(ANY) });
    let server = with(Timeouts { hello: short, ..Timeouts::default() });
    WebSocket::connect_to(server, "").expect_close(1002, "invalid protocol");
    // Not even a request.
    let server = with(Timeouts { handshake: short, ..Timeouts::default() });
    let silent = TcpStream::connect(server).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(Resumed(silent).read(&mut [0; 16]).unwrap(), 0);
    // Registered, then half-dead: what it was called is free again.
    let server = with(Timeouts { ping: short, silence: short * 20, ..Timeouts::default() });
    let mut dead = WebSocket::connect_to(server, "");
    dead.register("ann");
    let peers = || http().get(format!("http://{server}/health")).call().unwrap();
    wait_for("the end of the half-dead peer", || {
        peers().body_mut().read_to_string().unwrap().contains("peers 0\n").then_some(())
    });
}

#[test]
fn a_stop_says_goodbye() {
    let (server, stop) = serve_until_stopped(patient_config());
    let (ann, new) = (peer(server, "ann"), WebSocket::connect_to(server, "ssp"));
    let reader = std::thread::spawn(move || {
        ann.expect_end(1001, "the server stops");
        new.expect_end(1001, "the server stops");
    });
    smol::block_on(stop());
    reader.join().unwrap();
}

/// Starts a server with a closing timeout longer than a test: a connection ends in time only if the server ends it
/// itself.
fn patient() -> SocketAddr {
    serve(patient_config())
}

fn patient_config() -> Config {
    let timeouts = Timeouts { closing: Duration::from_secs(300), ..Timeouts::default() };
    Config { timeouts, ..Config::plain(ANY) }
}

#[test]
fn a_close_frame_is_answered_in_every_phase_and_the_connection_ends_at_once() {
    let server = patient();
    let end = |mut peer: WebSocket| {
        peer.begin_close(1000, "bye");
        peer.expect_end(1000, "bye");
    };
    end(WebSocket::connect_to(server, ""));
    end(peer(server, "ann"));
    let (mut bob, mut cat) = (peer(server, "bob"), peer(server, "cat"));
    bob.say("SESSION cat");
    bob.expect("SESSION_OK");
    end(bob);
    cat.say("a word that goes nowhere");
    cat.expect_end(1000, "");
    let mut dan = peer(server, "dan");
    dan.say("ROOM attic");
    dan.expect("ROOM_OK ");
    end(dan);
    end(WebSocket::connect_to(server, "ssp"));
    let mut eve = WebSocket::connect_to(server, "ssp");
    eve.say(r#"{"type":"rtc:join","data":{"pool":"attic"}}"#);
    assert!(eve.hear().unwrap().contains("rtc:joined"), "dan is gone");
    end(eve);
    // The id of a closed connection is free at once.
    for name in ["ann", "bob", "cat", "dan"] {
        end(peer(server, name));
    }
}

/// Tests that over TLS a close_notify precedes the FIN (RFC 8446, 6.1): a reader takes an end without it for an
/// attack.
#[test]
fn over_tls_too_the_connection_ends_at_once() {
    use futures_rustls::TlsConnector;
    use futures_rustls::rustls::pki_types::pem::PemObject;
    use futures_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use futures_rustls::rustls::{ClientConfig, RootCertStore};
    use smol::io::AsyncReadExt;

    let folder = tempfile::tempdir().unwrap();
    let timeouts = Timeouts { closing: Duration::from_secs(300), ..Timeouts::default() };
    let identity = Some(Identity::own(folder.path()).unwrap());
    let server = serve(Config { identity, timeouts, ..Config::plain(ANY) });
    let mut roots = RootCertStore::empty();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let certificates = CertificateDer::pem_file_iter(file.unwrap().path()).unwrap();
        roots.add_parsable_certificates(certificates.map_while(Result::ok));
    }
    let provider = std::sync::Arc::new(futures_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let talk = async {
        let tcp = smol::Async::<TcpStream>::connect(server).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = TlsConnector::from(std::sync::Arc::new(config)).connect(name, tcp).await.unwrap();
        let request = format!("wss://{server}/");
        let (mut ws, _) = async_tungstenite::client_async(request, tls).await.unwrap();
        ws.send(tungstenite::Message::text("no HELLO")).await.unwrap();
        let told = ws.next().await.unwrap().unwrap();
        assert!(
            matches!(&told, tungstenite::Message::Close(Some(frame)) if u16::from(frame.code) == 1002),
            "{told:?}"
        );
        let (tcp, _) = {
            let tls = ws.get_mut();
            // An end without a close_notify would be an error here.
            assert_eq!(tls.read(&mut [0; 16]).await.unwrap(), 0);
            ws.into_inner().into_inner()
        };
        let mut tcp = tcp;
        assert_eq!(tcp.read(&mut [0; 16]).await.unwrap(), 0);
    };
    smol::block_on(in_time("the end of the connection", talk));
}

#[test]
fn what_cannot_be_read_is_closed_with_the_code_that_says_why() {
    let server = patient();
    // Clients mask their frames (RFC 6455, 5.3); a mask of zeros changes nothing.
    let frame = |first: u8, text: &[u8]| [&[first, 0x80 | text.len() as u8, 0, 0, 0, 0], text].concat();
    let against: (u16, &str) = (1002, "against the WebSocket protocol");
    for (bytes, (code, reason)) in [
        (frame(0x81, &[0xff, 0xfe]), (1007, "text that is not UTF-8")),
        // A reserved bit, a reserved opcode, a continuation without a start, a fragmented ping, a frame without mask.
        (frame(0xc1, b"x"), against),
        (frame(0x83, b"x"), against),
        (frame(0x80, b"x"), against),
        (frame(0x09, b"x"), against),
        (vec![0x81, 1, b'x'], against),
        (frame(0x88, &[3]), against),
    ] {
        for registered in [false, true] {
            let mut peer =
                if registered { peer(server, "ann") } else { WebSocket::connect_to(server, "ssp") };
            peer.raw(&bytes);
            peer.expect_end(code, reason);
        }
    }
    let mut ann = peer(server, "ann");
    ann.say(&"x".repeat((1 << 20) + 1));
    ann.expect_end(1009, "message too big");
}

#[test]
fn whoever_has_not_registered_can_send_little() {
    let server = patient();
    // Too much data before the registration: in one message each, and in fragments of a message that never ends (RFC
    // 6455, 5.4).
    let part = |first: u8| [&[first, 0x80 | 126, 16, 0, 0, 0, 0, 0][..], &[b' '; 4096]].concat();
    for (path, bytes) in [("", part(0x81).repeat(3)), ("ssp", [part(0x01), part(0x00), part(0x00)].concat())]
    {
        let mut peer = WebSocket::connect_to(server, path);
        peer.raw(&bytes);
        if path.is_empty() {
            // A message of blanks is not a HELLO.
            peer.expect_end(1002, "invalid protocol");
        } else {
            peer.expect_end(1009, "too much before it registered");
        }
    }
    // After the registration, a message may have the full length of the protocol.
    let (mut ann, mut bob) = (peer(server, "ann"), peer(server, "bob"));
    ann.say("SESSION bob");
    ann.expect("SESSION_OK");
    ann.say(&"x".repeat(1 << 20));
    assert_eq!(bob.hear().unwrap().len(), 1 << 20);
}

#[test]
fn a_body_that_does_not_come_and_an_answer_that_is_not_read_end_the_connection() {
    let timeouts = Timeouts {
        body: Duration::from_millis(300),
        unread: Duration::from_millis(300),
        ..Timeouts::default()
    };
    let api_secret = Some(roomtone::protocol::Secret("0123456789abcdef0123456789abcdef".into()));
    let server = serve(Config { timeouts, api_secret, ..Config::plain(ANY) });
    let request = |head: &str| {
        let mut stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "{head}\r\nHost: {server}\r\n").unwrap();
        stream
    };
    let mut put = request("PUT /api/peers/ann/description HTTP/1.1");
    let secret = "0123456789abcdef0123456789abcdef";
    write!(put, "Authorization: Bearer {secret}\r\nContent-Length: 100\r\n\r\n{{").unwrap();
    let mut answer = String::new();
    put.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    // The client requests a file again and again, and reads no answer.
    let mut deaf = request("GET /app.js HTTP/1.1");
    write!(deaf, "\r\n").unwrap();
    let again = format!("GET /app.js HTTP/1.1\r\nHost: {server}\r\n\r\n");
    let ended = std::iter::repeat_with(|| deaf.write_all(again.as_bytes())).find_map(Result::err);
    assert!(ended.is_some());
}

#[test]
fn a_server_that_is_asked_to_end_ends_normally() {
    for signal in ["TERM", "INT"] {
        let home = tempfile::tempdir().unwrap();
        let mut program = Program::start(home.path(), &["serve", "--plain", "--listen", "127.0.0.1:0"]);
        let mut ann = WebSocket::connect(&ws(&program.link()));
        ann.register("ann");
        program.signal(signal);
        ann.expect_end(1001, "the server stops");
        assert_eq!(program.end(), (0, String::new()), "{signal}");
    }
}

/// Tests that descriptions of many peers arrive in messages and answers of at most 1 MiB, which clients accept.
#[test]
fn descriptions_of_many_peers_come_in_parts() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    let api_secret = Some(roomtone::protocol::Secret(SECRET.into()));
    let server = serve(Config { api_secret, ..Config::plain(ANY) });
    let authorization = format!("Bearer {SECRET}");
    let mut peers: Vec<WebSocket> = (0..20).map(|n| peer(server, &format!("p{n:02}"))).collect();
    for (n, peer) in peers.iter_mut().enumerate() {
        peer.say("ROOM attic");
        assert!(peer.hear().unwrap().starts_with("ROOM_OK "));
        let url = format!("http://{server}/api/peers/p{n:02}/description");
        let description = serde_json::json!("x".repeat(65_000));
        let put = http().put(url).header("authorization", &authorization).send_json(description);
        assert_eq!(put.unwrap().status(), 204);
    }
    // A pool: descriptions that do not fit into the first event follow in others.
    let mut pool = WebSocket::connect_to(server, "ssp");
    pool.say(r#"{"type":"rtc:join","data":{"pool":"attic"}}"#);
    let mut told = std::collections::BTreeSet::new();
    while told.len() < 20 {
        let line = pool.hear().unwrap();
        assert!(line.len() <= 1 << 20, "{} bytes", line.len());
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        if event["type"] == "rtc:joined" {
            assert_eq!(event["data"]["peers"].as_array().unwrap().len(), 20);
            let all = event["data"]["descriptions"].as_object().unwrap().iter();
            told.extend(all.filter(|(_, what)| what.is_string()).map(|(id, _)| id.clone()));
        } else {
            assert_eq!(event["type"], "rtc:describe");
            assert!(told.insert(event["data"]["id"].as_str().unwrap().to_owned()), "told twice");
        }
    }
    // A room, and the HTTP API.
    let mut room = WebSocket::connect_to(server, "?roomtone=1");
    for line in ["HELLO late", "ROOM attic"] {
        room.say(line);
        room.hear().unwrap();
    }
    let described =
        (0..20).map(|_| room.hear().unwrap()).filter(|line| line.starts_with("ROOM_PEER_DESCRIBED "));
    assert_eq!(described.filter(|line| line.len() < 66_000).count(), 20);
    let (mut path, mut listed) = ("/api/rooms".to_owned(), vec![]);
    loop {
        let url = format!("http://{server}{path}");
        let mut page = http().get(url).header("authorization", &authorization).call().unwrap();
        let next = page.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
        let page = page.body_mut().read_to_string().unwrap();
        assert!(page.len() <= 1 << 20, "{} bytes", page.len());
        let page: serde_json::Value = serde_json::from_str(&page).unwrap();
        assert_eq!((&page[0]["room"], page.as_array().unwrap().len()), (&"attic".into(), 1));
        let peers = page[0]["peers"].as_array().unwrap();
        listed.extend(peers.iter().map(|peer| peer["id"].as_str().unwrap().to_owned()));
        let Some(next) = next else { break };
        path = next.trim_start_matches('<').trim_end_matches(">; rel=\"next\"").to_owned();
    }
    assert_eq!(listed.len(), 22);
    assert!(listed.is_sorted() && (0..20).all(|n| listed.contains(&format!("p{n:02}"))), "{listed:?}");
    drop(peers);
}

#[test]
fn requests_have_a_rate() {
    let stream = TcpStream::connect(plain()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Pipelined, so that the rate does not depend on the speed of this test.
    let (mut writer, mut reader) = (stream.try_clone().unwrap(), std::io::BufReader::new(stream));
    let sent = std::thread::spawn(move || {
        writer.write_all("GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(2000).as_bytes())
    });
    assert!((0..2000).any(|_| read_status(&mut reader) == "429"));
    drop(reader);
    let _ = sent.join().unwrap();
}

fn http() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build().new_agent()
}

#[test]
fn http_serves_the_page_and_health_and_nothing_else() {
    let server = plain();
    let get = |path: &str| http().get(format!("http://{server}{path}")).call().unwrap();
    let mut page = get("/");
    assert_eq!(page.status(), 200);
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for (name, value) in [
        ("permissions-policy", "camera=(self), microphone=(self), display-capture=(self)"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        assert_eq!(page.headers()[name], value);
    }
    assert!(!page.headers().contains_key("strict-transport-security"), "not without TLS");
    let page = page.body_mut().read_to_string().unwrap();
    for part in ["style.css", "app.js"] {
        assert!(page.contains(part));
        assert_eq!(get(&format!("/{part}")).status(), 200);
    }
    for outside in ["http://", "https://", "<script>", "style=\"", "onclick"] {
        assert!(!page.contains(outside), "the page holds {outside}");
    }
    let _ann = peer(server, "ann");
    let health = get("/health").body_mut().read_to_string().unwrap();
    assert!(health.starts_with("OK\n") && health.contains("peers 1\n"), "{health}");
    assert_eq!(get("/../Cargo.toml").status(), 404);
    assert_eq!(http().post(format!("http://{server}/")).send("x").unwrap().status(), 405);
}

#[test]
fn a_page_of_another_origin_is_kept_out() {
    let server = plain();
    let upgrade = |origin: &str| {
        let stream = TcpStream::connect(server).unwrap();
        let mut request =
            tungstenite::client::IntoClientRequest::into_client_request(format!("ws://{server}/")).unwrap();
        request.headers_mut().insert("Origin", origin.parse().unwrap());
        tungstenite::client(request, stream).is_ok()
    };
    assert!(upgrade(&format!("http://{server}")));
    assert!(!upgrade("https://evil.example"));
}

/// Sends a request as it is; returns the status and the whole answer.
fn ask(server: SocketAddr, request: &str) -> (u16, String) {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(crate::common::PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return (head[9..12].parse().unwrap(), text.into_owned());
            }
        }
        let n = resumed(|| stream.read(&mut buffer)).unwrap();
        assert!(n > 0, "it ends after {text:?}");
        answer.extend_from_slice(&buffer[..n]);
    }
}

/// Builds the request of a browser for a page, or with `ws:` for a WebSocket, with these Host and Origin headers.
fn of_page(path: &str, hosts: &[&str], origin: &str) -> String {
    let socket = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let (path, upgrade) = path.strip_prefix("ws:").map_or((path, ""), |path| (path, socket));
    let hosts: String = hosts.iter().map(|host| format!("host: {host}\r\n")).collect();
    let origin = if origin.is_empty() { String::new() } else { format!("origin: {origin}\r\n") };
    format!("GET {path} HTTP/1.1\r\n{hosts}{origin}{upgrade}\r\n")
}

const PATHS: [&str; 8] = [
    "/",
    "/app.js",
    "/api/rooms",
    "/socket.io/?EIO=4&transport=polling",
    "ws:/?roomtone=1",
    "ws:/ssp",
    "ws:/socket.io/?EIO=4&transport=websocket",
    "ws:/health",
];

#[test]
fn a_page_of_a_name_that_is_not_ours_gets_nothing() {
    let allowed_hosts = vec!["call.example.org".to_owned()];
    let server = serve(Config { allowed_hosts, ..Config::plain(ANY) });
    let port = server.port();
    for path in PATHS {
        let evil = format!("evil.example:{port}");
        let (status, answer) = ask(server, &of_page(path, &[&evil], &format!("http://{evil}")));
        assert_eq!((status, answer.contains("'evil.example'")), (421, true), "{path}: {answer}");
        for hosts in [&[][..], &["localhost", "localhost"], &["localhost", "evil.example"], &["a b"]] {
            assert_eq!(ask(server, &of_page(path, hosts, "")).0, 400, "{path} of {hosts:?}");
        }
        for own in ["127.0.0.1:1", "localhost", "[::1]:2", "door.localhost", "call.example.org"] {
            // Expected are an upgraded WebSocket, the page, and 404 for the API, which is off.
            let (status, answer) = ask(server, &of_page(path, &[own], &format!("http://{own}")));
            assert!([101, 200, 404].contains(&status), "{path} of {own}: {answer}");
            let (status, _) = ask(server, &of_page(path, &[own], "http://evil.example"));
            assert_eq!(status, 403, "{path} of {own}");
        }
    }
    for hosts in [&[][..], &["a", "b"], &["evil.example"]] {
        assert_eq!(ask(server, &of_page("/health", hosts, "")).0, 200, "balancers ask so");
    }
    assert_eq!(ask(server, "GET /health HTTP/1.0\r\n\r\n").0, 200);
    let wrong = Config { allowed_hosts: vec!["https://example.org".into()], ..Config::plain(ANY) };
    let error = smol::block_on(Server::bind(wrong)).unwrap_err().to_string();
    assert!(error.contains("'https://example.org' is not a host name"), "{error}");
}

/// Requests the page over TLS from a server with this certificate.
fn ask_by_tls(server: SocketAddr, certificate: &std::path::Path, host: &str) -> String {
    use futures_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
    use futures_rustls::rustls::{ClientConfig, RootCertStore};
    use smol::io::{AsyncReadExt, AsyncWriteExt};
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    smol::block_on(async {
        let tcp = smol::net::TcpStream::connect(server).await.unwrap();
        let connector = futures_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let mut tls = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        tls.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = tls.read_to_string(&mut answer).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    })
}

#[test]
fn browsers_insist_on_tls_where_the_operator_gave_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let own = Identity::own(folder.path()).unwrap();
    let files = Files { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
    let start = |identity| {
        let allowed_hosts = vec!["call.example.org".to_owned()];
        serve(Config { identity: Some(identity), allowed_hosts, ..Config::plain(ANY) })
    };
    let insists = |server: SocketAddr, host: &str| {
        ask_by_tls(server, &folder.path().join("cert.pem"), host)
            .contains("strict-transport-security: max-age=")
    };
    let server = start(own);
    assert!(!insists(server, "call.example.org"), "there is only an exception for our own certificate");
    let server = start(Identity::load(files).unwrap());
    assert!(insists(server, "call.example.org"));
    assert!(!insists(server, "localhost") && !insists(server, "127.0.0.1"));
    let plain = of_page("/", &["call.example.org"], "");
    assert!(!ask(server, &plain).1.contains("strict-transport-security"));
}

#[test]
fn ipv4_clients_of_a_socket_for_both_are_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        listen: "[::]:0".parse().unwrap(),
        identity: Some(Identity::own(folder.path()).unwrap()),
        plain: false,
        per_address: 1,
        api_secret: Some(Secret("known to the back end of this machine".into())),
        ..Config::plain(ANY)
    };
    let server = serve(config);
    let address = SocketAddr::from(([127, 0, 0, 1], server.port()));
    // Connections from this machine work without TLS, may use the API, and are not limited in number.
    let held: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(http().get(format!("http://{address}/")).call().unwrap().status(), 200);
    let orders = http().get(format!("http://{address}/api/rooms"));
    let orders = orders.header("authorization", "Bearer known to the back end of this machine");
    assert_eq!(orders.call().unwrap().status(), 200);
    drop(held);
}

#[test]
fn other_machines_are_served_by_tls_alone_and_counted() {
    needs!(Address);
    let own = tls::addresses().into_iter().find(IpAddr::is_ipv4).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        listen: SocketAddr::from(([0, 0, 0, 0], 0)),
        identity: Some(Identity::own(folder.path()).unwrap()),
        plain: false,
        per_address: 2,
        ..Config::plain(ANY)
    };
    let server = serve(config);
    let port = server.port();
    // From this machine by loopback: plain is fine.
    assert_eq!(http().get(format!("http://127.0.0.1:{port}/health")).call().unwrap().status(), 200);
    // By the address that others see: shown the way to TLS.
    let sent_on = http().get(format!("http://{own}:{port}/x?y")).call().unwrap();
    assert_eq!(sent_on.status(), 308);
    assert_eq!(sent_on.headers()["location"], format!("https://{own}:{port}/x?y"));
    // Two connections of one address stay, a third is closed.
    let held: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect((own, port)).unwrap()).collect();
    let third = TcpStream::connect((own, port)).unwrap();
    third.set_read_timeout(Some(PATIENCE)).unwrap();
    let end = Resumed(third).read(&mut [0; 1]);
    let is_reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
    assert!(end.as_ref().is_ok_and(|length| *length == 0) || end.as_ref().is_err_and(is_reset), "{end:?}");
    drop(held);
}

#[test]
fn fresh_turn_users_come_by_http_beside_any_path() {
    let ice = IceServers {
        turn: vec!["turn:example.org".into()],
        credentials: Credentials::Shared(Secret("north".into())),
        ..IceServers::default()
    };
    let server = serve(Config { ice, ..Config::plain(ANY) });
    let get = |path: &str| http().get(format!("http://{server}/{path}")).call().unwrap();
    for path in ["admission", "any/path/admission"] {
        let answer: serde_json::Value = get(path).into_body().read_json().unwrap();
        let turn = &answer["iceServers"][0];
        assert_eq!(turn["urls"][0], "turn:example.org");
        assert!(turn["username"].as_str().unwrap().ends_with(":roomtone"), "{answer}");
    }
    assert_eq!(get("admissions").status(), 404);
}
