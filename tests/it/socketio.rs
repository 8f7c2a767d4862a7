//! ssp over socket.io, by a client in the test's own hands: long polling, a WebSocket, and from one to the other.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::common::{ANY, WebSocket, serve, upgrade, wait_for};
use roomtone::server::{Config, Timeouts};
use serde_json::{Value, json};

fn server_with(timeouts: Timeouts) -> SocketAddr {
    serve(Config { timeouts, ..Config::plain(ANY) })
}

fn server() -> SocketAddr {
    server_with(Timeouts::default())
}

fn request(method: &str, url: &str, body: &str, origin: Option<&str>) -> (u16, String) {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    if let Some(origin) = origin {
        request = request.header("origin", origin);
    }
    let mut answer = agent.run(request.body(body.to_owned()).unwrap()).unwrap();
    (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
}

/// A client that polls.
struct Polls {
    server: SocketAddr,
    sid: String,
    /// Packets that were fetched and not asked for yet.
    fetched: Vec<String>,
}

impl Polls {
    fn open(server: SocketAddr) -> Self {
        let (status, body) =
            request("GET", &format!("http://{server}/socket.io/?EIO=4&transport=polling"), "", None);
        assert_eq!(status, 200);
        let open: Value = serde_json::from_str(body.strip_prefix('0').unwrap()).unwrap();
        assert_eq!(open["upgrades"], json!(["websocket"]));
        assert!(open["pingInterval"].as_u64().unwrap() > 0 && open["pingTimeout"].as_u64().unwrap() > 0);
        Self { server, sid: open["sid"].as_str().unwrap().to_owned(), fetched: vec![] }
    }

    /// In the namespace.
    fn connected(server: SocketAddr) -> Self {
        let mut client = Self::open(server);
        assert_eq!(client.post("40"), (200, "ok".to_owned()));
        assert!(client.next_but_pings().starts_with("40{\"sid\":"));
        client
    }

    /// The next packet that is no ping: a server with short timers may send one at any moment.
    fn next_but_pings(&mut self) -> String {
        wait_for("a packet", || Some(self.next()).filter(|packet| packet != "2"))
    }

    fn url(&self) -> String {
        format!("http://{}/socket.io/?EIO=4&transport=polling&sid={}", self.server, self.sid)
    }

    fn post(&self, body: &str) -> (u16, String) {
        request("POST", &self.url(), body, None)
    }

    fn poll(&self) -> (u16, String) {
        request("GET", &self.url(), "", None)
    }

    fn next(&mut self) -> String {
        if self.fetched.is_empty() {
            let (status, body) = self.poll();
            assert_eq!(status, 200, "{body}");
            self.fetched = body.split('\u{1e}').map(str::to_owned).collect();
        }
        self.fetched.remove(0)
    }

    fn say(&self, kind: &str, data: Value) {
        assert_eq!(self.post(&format!("42{}", json!([kind, data]))), (200, "ok".to_owned()));
    }

    fn expect(&mut self, kind: &str) -> Value {
        event(&self.next_but_pings(), kind)
    }

    /// The next event of that kind; others are passed over.
    fn hear(&mut self, kind: &str) -> Value {
        loop {
            let packet = self.next();
            if packet.starts_with(&format!("42[\"{kind}\"")) {
                return event(&packet, kind);
            }
        }
    }
}

fn event(packet: &str, kind: &str) -> Value {
    let mut event: Value = serde_json::from_str(packet.strip_prefix("42").expect(packet)).unwrap();
    assert_eq!(event[0], kind, "{packet}");
    event[1].take()
}

/// The next event of that kind; others are passed over.
fn hear(socket: &mut WebSocket, kind: &str) -> Value {
    loop {
        let packet = socket.hear().expect(kind);
        if packet.starts_with(&format!("42[\"{kind}\"")) {
            return event(&packet, kind);
        }
    }
}

/// A client on a WebSocket from the start.
fn on_websocket(server: SocketAddr) -> WebSocket {
    let mut socket = WebSocket::connect_to(server, "socket.io/?EIO=4&transport=websocket");
    assert!(socket.hear().unwrap().starts_with("0{"));
    socket.say("40");
    assert!(socket.hear().unwrap().starts_with("40{"));
    socket
}

const OFFER: &str = r#"{"type":"offer","sdp":"v=0"}"#;

fn offer() -> Value {
    serde_json::from_str(OFFER).unwrap()
}

#[test]
fn whatever_carries_the_events_all_are_in_one_pool() {
    let server = server();
    let mut polls = Polls::connected(server);
    polls.say("rtc:join", json!({"pool": "attic"}));
    let joined = polls.expect("rtc:joined");
    assert_eq!((&joined["pool"], &joined["peers"]), (&json!("attic"), &json!([])));
    let first = joined["client_id"].as_str().unwrap().to_owned();

    let mut socket = on_websocket(server);
    socket.say(r#"42["rtc:join",{"pool":"attic"}]"#);
    let joined = event(&socket.hear().unwrap(), "rtc:joined");
    let second = joined["client_id"].as_str().unwrap().to_owned();
    assert_eq!(joined["peers"], json!([first]));
    assert_eq!(polls.expect("rtc:peer")["id"], second);

    let mut raw = WebSocket::connect_to(server, "ssp");
    raw.say(&json!({"type": "rtc:join", "data": {"pool": "attic"}}).to_string());
    let joined: Value = serde_json::from_str(&raw.hear().unwrap()).unwrap();
    assert_eq!(joined["data"]["peers"].as_array().unwrap().len(), 2);
    let third = joined["data"]["client_id"].as_str().unwrap().to_owned();
    assert_eq!(polls.hear("rtc:peer")["id"], third);
    assert_eq!(hear(&mut socket, "rtc:peer")["id"], third);

    // From each to each.
    polls.say("rtc:sdp", json!({"to": second, "description": offer()}));
    let heard =
        wait_for("the offer", || Some(socket.hear().unwrap()).filter(|line| line.contains("rtc:sdp")));
    assert_eq!(event(&heard, "rtc:sdp"), json!({"peer": first, "description": offer()}));
    socket.say(&format!("42{}", json!(["rtc:sdp", {"to": first, "description": offer()}])));
    assert_eq!(polls.hear("rtc:sdp")["peer"], second);
    raw.say(&json!({"type": "rtc:sdp", "data": {"to": first, "description": offer()}}).to_string());
    assert_eq!(polls.hear("rtc:sdp")["peer"], third);

    // An endpoint leaves with a packet, and another one just disconnects.
    socket.say("41");
    while socket.hear().is_some() {}
    assert_eq!(polls.hear("rtc:close")["uid"], second);
    drop(raw);
    assert_eq!(polls.hear("rtc:close")["uid"], third);
}

#[test]
fn a_poll_goes_over_to_a_websocket_and_loses_nothing() {
    let server = server();
    let mut polls = Polls::connected(server);
    polls.say("rtc:join", json!({"pool": "attic"}));
    let me = polls.expect("rtc:joined")["client_id"].as_str().unwrap().to_owned();
    let query = format!("socket.io/?EIO=4&transport=websocket&sid={}", polls.sid);
    let mut socket = WebSocket::connect_to(server, &query);
    let url = polls.url();
    let waits = std::thread::spawn(move || request("GET", &url, "", None));
    socket.say("2probe");
    socket.expect("3probe");
    assert_eq!(waits.join().unwrap(), (200, "6".to_owned()), "what waits ends");
    // Said between the two: it is not lost.
    let mut other = on_websocket(server);
    other.say(r#"42["rtc:join",{"pool":"attic"}]"#);
    assert_eq!(event(&other.hear().unwrap(), "rtc:joined")["peers"], json!([me]));
    socket.say("5");
    event(&socket.hear().unwrap(), "rtc:peer");
    assert_eq!(polls.poll().0, 400, "it is on the WebSocket now");
    drop(socket);
    assert_eq!(hear(&mut other, "rtc:close")["uid"], me);
}

#[test]
fn what_is_wrong_is_answered_and_disturbs_nobody() {
    let server = server();
    let base = format!("http://{server}/socket.io/");
    let code = |method: &str, query: &str| {
        let (status, body) = request(method, &format!("{base}?{query}"), "", None);
        (status, serde_json::from_str::<Value>(&body).unwrap()["code"].as_u64().unwrap())
    };
    assert_eq!(code("GET", "EIO=3&transport=polling"), (400, 5));
    assert_eq!(code("GET", ""), (400, 5));
    assert_eq!(code("GET", "EIO=4&transport=polling&sid=nobody"), (400, 1));
    assert_eq!(code("POST", "EIO=4&transport=polling"), (400, 2));
    let (status, _) =
        request("GET", &format!("{base}?EIO=4&transport=polling"), "", Some("https://evil.example"));
    assert_eq!(status, 403);

    let mut polls = Polls::connected(server);
    let mut complain = |packet: &str, message: &str| {
        assert_eq!(polls.post(packet).0, 200);
        assert_eq!(polls.expect("rtc:error")["message"], message, "{packet}");
    };
    complain(r#"42["rtc:join"]"#, "Please specify a pool to join.");
    complain(r#"42["rtc:sdp",{}]"#, "Please specify a valid answer target.");
    complain(r#"42["rtc:dance",{}]"#, "RTC action 'dance' not recognized.");
    // Text that is no packet is ignored, also between packets.
    let body = "\u{1e}junk\u{1e}42{}\u{1e}451-[\"x\"]\u{1e}42[\"rtc:join\",{\"pool\":\"attic\"}]";
    assert_eq!(polls.post(body).0, 200);
    polls.expect("rtc:joined");
    assert_eq!(polls.post(&"4".repeat(1 << 21)).0, 413);
    // Only one request may wait: of two, one is refused, and the other gets the packets.
    let (answer, answers) = std::sync::mpsc::channel();
    for _ in 0..2 {
        let (answer, url) = (answer.clone(), polls.url());
        std::thread::spawn(move || answer.send(request("GET", &url, "", None)));
    }
    assert_eq!(answers.recv().unwrap().0, 400);
    polls.say("rtc:join", json!({"pool": "cellar"}));
    let (_, body) = answers.recv().unwrap();
    assert_eq!(event(&body, "rtc:error")["message"], "Could not join pool.");

    // A WebSocket that sends junk, and one for a session that is none.
    let mut socket = on_websocket(server);
    for junk in ["", "x", "4", "42[", "\u{1e}", "45-[]"] {
        socket.say(junk);
    }
    socket.say(r#"42["rtc:join",{"pool":"attic"}]"#);
    assert_eq!(event(&socket.hear().unwrap(), "rtc:joined")["peers"].as_array().unwrap().len(), 1);
    assert_eq!(upgrade(server, "socket.io/?EIO=4&transport=websocket&sid=nobody").0, 400);
}

#[test]
fn who_polls_is_pinged_and_missed() {
    let quick = Timeouts {
        ping: Duration::from_millis(200),
        silence: Duration::from_secs(5),
        hello: Duration::from_secs(3),
        ..Timeouts::default()
    };
    let server = server_with(quick);
    let mut polls = Polls::connected(server);
    polls.say("rtc:join", json!({"pool": "attic"}));
    let me = polls.expect("rtc:joined")["client_id"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        assert_eq!(polls.next(), "2");
        assert_eq!(polls.post("3").0, 200);
    }
    let mut other = WebSocket::connect_to(server, "ssp");
    other.say(&json!({"type": "rtc:join", "data": {"pool": "attic"}}).to_string());
    assert!(other.hear().unwrap().contains(&me));
    // It asks no more.
    wait_for("the end of one that asks no more", || {
        Some(other.hear().unwrap()).filter(|line| line.contains("rtc:close"))
    });
    assert_eq!(polls.poll().0, 400);

    // Nor does one that never joins stay.
    let idle = Polls::open(server);
    wait_for("its end", || (idle.post("3").0 == 400).then_some(()));
}

#[test]
fn a_close_frame_is_answered_whatever_the_state_of_the_session() {
    let server = server_with(Timeouts { closing: Duration::from_secs(300), ..Timeouts::default() });
    let end = |mut socket: WebSocket| {
        socket.begin_close(1000, "bye");
        socket.expect_end(1000, "bye");
    };
    // The states: before the namespace, in the namespace, in a pool, and in the upgrade from polling.
    let mut at_the_door = WebSocket::connect_to(server, "socket.io/?EIO=4&transport=websocket");
    assert!(at_the_door.hear().unwrap().starts_with("0{"));
    end(at_the_door);
    end(on_websocket(server));
    let mut in_pool = on_websocket(server);
    in_pool.say(r#"42["rtc:join",{"pool":"attic"}]"#);
    event(&in_pool.hear().unwrap(), "rtc:joined");
    end(in_pool);
    let polls = Polls::connected(server);
    let query = format!("socket.io/?EIO=4&transport=websocket&sid={}", polls.sid);
    let mut half = WebSocket::connect_to(server, &query);
    half.say("2probe");
    half.expect("3probe");
    end(half);
    // A DISCONNECT packet of socket.io.
    let mut leaves = on_websocket(server);
    leaves.say("41");
    leaves.expect("41");
    leaves.expect_end(1000, "closed by the peer");
    let late = Polls::open(server);
    assert_eq!(late.post(&"4".repeat(9000)).0, 413, "whoever is in no pool can send little");
}

#[test]
fn who_breaks_off_while_it_waits_is_missed_at_once() {
    let server = server();
    let mut other = on_websocket(server);
    other.say(r#"42["rtc:join",{"pool":"attic"}]"#);
    event(&other.hear().unwrap(), "rtc:joined");
    let mut polls = Polls::connected(server);
    polls.say("rtc:join", json!({"pool": "attic"}));
    let me = polls.expect("rtc:joined")["client_id"].as_str().unwrap().to_owned();
    hear(&mut other, "rtc:peer");
    let path = polls.url().replace(&format!("http://{server}"), "");
    let mut both: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(server).unwrap()).collect();
    for stream in &mut both {
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {server}\r\n\r\n").unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    }
    // The one that is refused shows that the other waits.
    let refused = wait_for("an answer", || {
        let mut status = [0; 12];
        both.iter_mut().position(|stream| stream.read_exact(&mut status).is_ok() && &status[9..] == b"400")
    });
    drop(both.remove(1 - refused));
    assert_eq!(hear(&mut other, "rtc:close")["uid"], me);
}
