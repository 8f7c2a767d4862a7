//! Peers, and servers in between, that mean harm.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use async_tungstenite::tungstenite::{self, Message, WebSocket as Socket};
use serde_json::json;

use super::{Resumed, WebSocket};

/// An offer that a browser made.
pub const OFFER: &str = include_str!("../../src/sdp/testdata/chromium-offer.sdp");

/// A description as it goes over the wire.
pub fn description(kind: &str, sdp: &str) -> String {
    json!({"sdp": {"type": kind, "sdp": sdp}}).to_string()
}

/// Messages of malicious or broken peers: a list for each call.
pub fn junk() -> Vec<Vec<String>> {
    let big_candidates = OFFER.to_owned() + &"a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n".repeat(20_000);
    let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    vec![
        lines(&["nonsense", "ERROR forged", "HELLO", "{", "[]", "null", "\u{0}"]),
        lines(&[r#"{"sdp": "initial sdp"}"#, r#"{"sdp": {"type": "answer", "sdp": ""}}"#]),
        lines(&[r#"{"sdp": {"type": "offer"}}"#, r#"{"sdp": {"type": "pranswer", "sdp": "v=0"}}"#]),
        vec![description("offer", "v=0\r\n"), description("offer", &"x".repeat(500_000))],
        vec![description("offer", &OFFER.replace("ice-ufrag", "x-ufrag"))],
        vec![description("offer", &OFFER.replace("fingerprint", "x-print"))],
        vec![description("offer", &OFFER.replace("BUNDLE 0 1 2", "BUNDLE 0 1 2 3"))],
        vec![description("offer", &big_candidates)],
        vec![
            description("answer", OFFER),
            "OFFER_REQUEST".into(),
            description("answer", &OFFER.replace("actpass", "active")),
        ],
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
    ]
}

/// Calls a peer over a bare WebSocket, which may then send any text.
pub fn caller(url: &str, id: &str, peer: &str) -> WebSocket {
    let mut caller = WebSocket::connect(url);
    caller.register(id);
    caller.say(&format!("SESSION {peer}"));
    caller.expect("SESSION_OK");
    caller
}

/// Connections that begin a request and never end it; they last as long as what is returned.
pub fn half_open(url: &str, count: usize) -> Vec<TcpStream> {
    let address = url.trim_start_matches("ws://");
    let open = |n: usize| {
        let mut stream = TcpStream::connect(address).ok()?;
        // Some say nothing at all.
        let begun = if n.is_multiple_of(2) { "" } else { "GET / HTTP/1.1\r\nHost: here\r\nUpgrade: web" };
        stream.write_all(begun.as_bytes()).ok().map(|()| stream)
    };
    (0..count).filter_map(open).collect()
}

/// Another key for every certificate that is named.
pub fn forge(line: &str) -> String {
    let mut forged = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("a=fingerprint:sha-256 ") {
        let (before, from) = rest.split_at(at + "a=fingerprint:sha-256 ".len());
        let (first, after) = from.split_at(2);
        forged += before;
        forged += if first == "00" { "01" } else { "00" };
        rest = after;
    }
    forged + rest
}

/// A server in between, which passes on what comes, changed: what the peers say, and what they hear.
pub fn between(
    server: &str,
    said: impl Fn(&str) -> String + Send + Sync + 'static,
    heard: impl Fn(&str) -> String + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let (server, change) = (server.to_owned(), Arc::new((said, heard)));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (server, change) = (server.clone(), change.clone());
            std::thread::spawn(move || pass_on(stream, &server, &change.0, &change.1));
        }
    });
    url
}

/// Until one of the two is gone.
fn pass_on(stream: TcpStream, server: &str, said: impl Fn(&str) -> String, heard: impl Fn(&str) -> String) {
    const TURN: Duration = Duration::from_millis(5);
    let Ok(mut peer) = tungstenite::accept(Resumed(stream)) else { return };
    let Ok(upstream) = TcpStream::connect(server.trim_start_matches("ws://")) else { return };
    let Ok((mut upstream, _)) = tungstenite::client(server, Resumed(upstream)) else { return };
    for socket in [peer.get_ref(), upstream.get_ref()] {
        socket.0.set_read_timeout(Some(TURN)).unwrap();
    }
    while carry(&mut peer, &mut upstream, &said) && carry(&mut upstream, &mut peer, &heard) {}
}

/// Forwards one message, if there is one; returns false if either side is gone.
fn carry(
    from: &mut Socket<Resumed<TcpStream>>,
    to: &mut Socket<Resumed<TcpStream>>,
    change: impl Fn(&str) -> String,
) -> bool {
    use std::io::ErrorKind::{TimedOut, WouldBlock};
    match from.read() {
        Ok(Message::Text(text)) => to.send(Message::text(change(text.as_str()))).is_ok(),
        Ok(Message::Close(_)) => to.close(None).is_ok(),
        Ok(_) => true,
        Err(tungstenite::Error::Io(error)) => matches!(error.kind(), WouldBlock | TimedOut),
        Err(_) => {
            let _ = to.close(None);
            let _ = to.flush();
            false
        }
    }
}
