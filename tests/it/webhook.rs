//! Webhooks and the stream of events.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::common::websocket::extended_peer as peer;
use crate::common::{ANY, PATIENCE, WebSocket, in_time, serve, upgrade, wait_for};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use roomtone::protocol::Secret;
use roomtone::server::{Config, Server, WebhookConfig};
use serde_json::{Value, json};

const API_SECRET: &str = "as long as a secret has to be, and longer";

/// A message that a back end received.
#[derive(Debug)]
pub(crate) struct Message {
    id: String,
    time: u64,
    pub(crate) signatures: Vec<String>,
    /// The place in a trace.
    traceparent: Option<String>,
    body: String,
}

impl Message {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The type and the data without the durations.
    pub(crate) fn shown(&self) -> String {
        let mut event = self.json();
        let data = event["data"].as_object_mut().unwrap();
        data.remove("seconds");
        let words: Vec<String> = data.values().map(|value| value.to_string().replace('"', "")).collect();
        format!("{} {}", event["type"].as_str().unwrap(), words.join(" "))
    }
}

/// A back end that answers each request with the next of the given answers, and then with 204.
pub(crate) struct BackEnd {
    pub(crate) url: String,
    messages: Receiver<Message>,
}

impl BackEnd {
    pub(crate) fn start(answers: &[&'static str]) -> Self {
        let listener = TcpListener::bind(ANY).unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (sender, messages) = channel();
        let mut answers = Vec::from(answers).into_iter();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                Self::serve(stream.unwrap(), &mut answers, &sender);
            }
        });
        Self { url, messages }
    }

    /// Answers requests until the connection ends.
    fn serve(stream: TcpStream, answers: &mut impl Iterator<Item = &'static str>, sender: &Sender<Message>) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(message) = read(&mut reader) {
            let _ = sender.send(message);
            let answer = answers.next().unwrap_or("204 No Content");
            // The status, then a header and a body if they are wanted.
            let mut parts = answer.split('\n');
            let (status, header) = (parts.next().unwrap(), parts.next().unwrap_or("x-none: 1"));
            let body = parts.next().unwrap_or_default();
            let length = body.len();
            let text = format!("HTTP/1.1 {status}\r\n{header}\r\ncontent-length: {length}\r\n\r\n{body}");
            if (&stream).write_all(text.as_bytes()).is_err() {
                return;
            }
        }
    }

    pub(crate) fn next(&self) -> Message {
        self.messages.recv_timeout(PATIENCE).expect("a message")
    }

    /// The next message that is no repetition of `before`.
    fn next_after(&self, before: &Message) -> Message {
        std::iter::repeat_with(|| self.next()).find(|message| message.id != before.id).unwrap()
    }

    fn shown(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.next().shown()).collect()
    }
}

/// Reads a request; none at the end of the connection.
fn read(reader: &mut impl BufRead) -> Option<Message> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    assert!(line.starts_with("POST /hook") && line.ends_with(" HTTP/1.1\r\n"), "{line}");
    let (mut id, mut time, mut signatures, mut length) = (String::new(), 0, vec![], 0);
    let mut traceparent = None;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_lowercase().as_str() {
            "webhook-id" => value.clone_into(&mut id),
            "webhook-timestamp" => time = value.parse().unwrap(),
            "webhook-signature" => signatures = value.split(' ').map(str::to_owned).collect(),
            "traceparent" => traceparent = Some(value.to_owned()),
            "content-length" => length = value.parse().unwrap(),
            "content-type" => assert_eq!(value, "application/json"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Message { id, time, signatures, traceparent, body: String::from_utf8(body).unwrap() })
}

pub(crate) fn secret(n: u8) -> String {
    format!("whsec_{}", STANDARD.encode([n; 32]))
}

pub(crate) fn signature(n: u8, message: &Message) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[n; 32]);
    let signed = format!("{}.{}.{}", message.id, message.time, message.body);
    format!("v1,{}", STANDARD.encode(ring::hmac::sign(&key, signed.as_bytes())))
}

fn webhooks(url: &str) -> WebhookConfig {
    let secrets = [1, 2].map(|n| secret(n).parse().unwrap()).to_vec();
    WebhookConfig { urls: vec![url.parse().unwrap()], secrets, types: vec![] }
}

fn config(url: &str) -> Config {
    let api_secret = Some(Secret(API_SECRET.into()));
    Config { webhooks: webhooks(url), api_secret, ..Config::plain(ANY) }
}

#[test]
fn a_back_end_hears_of_rooms_in_order_and_can_verify_it() {
    let back_end = BackEnd::start(&[]);
    let server = serve(config(&back_end.url));
    let mut ann = peer(server, "ann");
    ann.say("ROOM attic");
    ann.expect("ROOM_OK ");
    let mut bob = peer(server, "bob");
    bob.say("ROOM attic");
    bob.expect("ROOM_OK ann");
    bob.close(1000, "");
    ann.expect("ROOM_PEER_JOINED bob");
    ann.expect("ROOM_PEER_LEFT bob");
    ann.close(1000, "");
    let mut before = None;
    let mut shown = vec![];
    for n in 1..=10 {
        let message = back_end.next();
        assert_eq!(message.signatures, [signature(1, &message), signature(2, &message)]);
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        assert!(message.time.abs_diff(now) < 60, "{message:?}");
        assert_ne!(before.replace(message.id.clone()), Some(message.id.clone()));
        let event = message.json();
        assert_eq!((&event["seq"], event.get("lost")), (&json!(n), None));
        shown.push(message.shown());
    }
    let wanted = [
        "peer.registered ann",
        "room.started attic",
        "peer.joined 1 ann attic",
        "peer.registered bob",
        "peer.joined 2 bob attic",
        "peer.left 1 bob closed attic",
        "peer.gone bob closed",
        "peer.left 0 ann closed attic",
        "room.ended attic",
        "peer.gone ann closed",
    ];
    assert_eq!(shown, wanted);
}

#[test]
fn a_back_end_hears_of_calls_in_vain() {
    let back_end = BackEnd::start(&[]);
    let server = serve(config(&back_end.url));
    let (mut ann, mut bob, mut cat) = (peer(server, "ann"), peer(server, "bob"), peer(server, "cat"));
    back_end.shown(3);
    ann.say("SESSION phone");
    ann.expect("ERROR peer 'phone' not found");
    ann.say("SESSION bob");
    ann.expect("SESSION_OK");
    bob.expect("SESSION_FROM ann");
    cat.say("SESSION bob");
    cat.expect("ERROR peer 'bob' busy");
    ann.close(1000, "");
    let wanted = [
        "call.unreachable ann phone",
        "call.started ann bob",
        "call.missed cat busy bob",
        "call.ended false ann bob",
        "call.missed ann unanswered bob",
        "peer.gone ann closed",
        "peer.gone bob call_over",
    ];
    assert_eq!(back_end.shown(7), wanted);
    // A call with an answer is not missed.
    let (mut dan, mut eve) = (peer(server, "dan"), peer(server, "eve"));
    dan.say("SESSION eve");
    dan.expect("SESSION_OK");
    eve.expect("SESSION_FROM dan");
    let answer = json!({"sdp": {"type": "answer", "sdp": "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 96\r\n"}});
    eve.say(&answer.to_string());
    dan.expect(&answer.to_string());
    dan.close(1000, "");
    let wanted = ["call.ended true dan eve", "peer.gone dan closed", "peer.gone eve call_over"];
    assert_eq!(back_end.shown(6)[3..], wanted);
}

#[test]
fn a_failed_message_is_sent_again_before_all_others_and_no_redirect_is_followed() {
    let elsewhere = TcpListener::bind(ANY).unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let location = format!("307 Temporary Redirect\nlocation: http://{}/", elsewhere.local_addr().unwrap());
    let back_end = BackEnd::start(&["500 Internal Server Error", location.leak()]);
    let server = serve(config(&back_end.url));
    let _ann = peer(server, "ann");
    let _bob = peer(server, "bob");
    let messages: Vec<Message> = (0..4).map(|_| back_end.next()).collect();
    assert_eq!((&messages[0].id, &messages[0].body), (&messages[1].id, &messages[1].body));
    assert_eq!(messages[1].id, messages[2].id);
    let shown: Vec<String> = messages.iter().skip(2).map(Message::shown).collect();
    assert_eq!(shown, ["peer.registered ann", "peer.registered bob"]);
    assert!(elsewhere.accept().is_err(), "the redirect was followed");
}

#[test]
fn an_address_may_have_a_query() {
    let back_end = BackEnd::start(&[]);
    let server = serve(config(&format!("{}?key=7", back_end.url)));
    let _ann = peer(server, "ann");
    assert_eq!(back_end.next().shown(), "peer.registered ann");
}

#[test]
fn a_back_end_that_is_gone_gets_nothing_more_while_another_one_does() {
    let (gone, stays) = (BackEnd::start(&["410 Gone"]), BackEnd::start(&[]));
    let mut config = config(&gone.url);
    config.webhooks.urls.push(stays.url.parse().unwrap());
    let server = serve(config);
    let _peers = [peer(server, "ann"), peer(server, "bob"), peer(server, "cat")];
    assert_eq!(gone.next().shown(), "peer.registered ann");
    assert_eq!(stays.shown(3)[2], "peer.registered cat");
    assert!(gone.messages.try_recv().is_err(), "a message after 410");
}

#[test]
fn a_back_end_that_hangs_stops_neither_the_server_nor_its_end() {
    let hangs = TcpListener::bind(ANY).unwrap();
    let url = format!("http://{}/hook", hangs.local_addr().unwrap());
    let server = smol::block_on(Server::bind(config(&url))).unwrap();
    let address = server.address();
    let (stop, stopped) = smol::channel::bounded::<()>(1);
    let running = smol::spawn(server.run(async move {
        let _ = stopped.recv().await;
    }));
    let mut ann = peer(address, "ann");
    let (_held, _) = hangs.accept().unwrap();
    ann.say("ROOM attic");
    ann.expect("ROOM_OK ");
    drop(stop);
    ann.expect_close(1001, "the server stops");
    smol::block_on(in_time("the end of the server", running));
}

#[test]
fn only_the_wanted_types_are_sent_and_the_last_events_before_the_end() {
    let back_end = BackEnd::start(&[]);
    let mut config = config(&back_end.url);
    config.webhooks.types = ["peer.gone", "server.draining"].map(|name| name.parse().unwrap()).to_vec();
    let server = smol::block_on(Server::bind(config)).unwrap();
    let address = server.address();
    let (stop, stopped) = smol::channel::bounded::<()>(1);
    let running = smol::spawn(server.run(async move {
        let _ = stopped.recv().await;
    }));
    let ann = peer(address, "ann");
    drop(stop);
    ann.expect_close(1001, "the server stops");
    smol::block_on(in_time("the end of the server", running));
    assert_eq!(back_end.shown(2), ["server.draining ", "peer.gone ann closed"]);
}

#[test]
fn a_reload_replaces_the_webhooks_and_goes_on_where_it_was() {
    let (first, second) = (BackEnd::start(&[]), BackEnd::start(&[]));
    let server = smol::block_on(Server::bind(config(&first.url))).unwrap();
    let (address, control) = (server.address(), server.control());
    let _running = smol::spawn(server.run(std::future::pending()));
    let _ann = peer(address, "ann");
    let ann = first.next();
    assert_eq!(ann.shown(), "peer.registered ann");
    let mut both = config(&first.url);
    both.webhooks.urls.push(second.url.parse().unwrap());
    smol::block_on(control.reload(both)).unwrap();
    let _bob = peer(address, "bob");
    // The reload may have cut an answer off: then the message is sent again.
    assert_eq!(first.next_after(&ann).shown(), "peer.registered bob");
    // Events from before the settings were applied are not sent to a new address.
    let event = wait_for("an event for the second back end", || {
        drop(peer(address, "cat"));
        second.messages.try_recv().ok()
    });
    assert_ne!(event.shown(), "peer.registered ann");
    let wrong =
        Config { webhooks: WebhookConfig { secrets: vec![], ..webhooks(&first.url) }, ..config(&first.url) };
    let error = smol::block_on(control.reload(wrong)).unwrap_err().to_string();
    assert!(error.contains("a secret for webhooks is wanted"), "{error}");
}

#[test]
fn a_back_end_decides_who_comes_in_and_is_asked_once_in_ten_seconds() {
    let back_end = BackEnd::start(&[
        "200 OK\nx: 1\n{\"sub\":\"ann\",\"rooms\":[\"attic\"]}",
        "403 Forbidden\nx: 1\n{\"message\":\"pay first\"}",
        "302 Found\nlocation: http://127.0.0.1:1/",
        "200 OK\nx: 1\nnonsense",
    ]);
    let auth_url = Some(back_end.url.parse().unwrap());
    let mut settings = Config { auth_url, ..config(&back_end.url) };
    settings.webhooks.urls.clear();
    let server = serve(settings);
    assert_eq!(upgrade(server, "").0, 401, "without a token nobody is asked");
    for _ in 0..2 {
        let mut ann = WebSocket::connect_to(server, "?token=first");
        ann.say("HELLO ann");
        ann.expect("HELLO");
        ann.say("ROOM cellar");
        ann.expect("ERROR not for you: this room");
        ann.close(1000, "");
    }
    let question = back_end.next();
    assert_eq!(question.signatures[0], signature(1, &question));
    let question = question.json();
    assert_eq!(question["type"], "auth.connect");
    assert_eq!(question["data"], json!({"token": "first", "address": "127.0.0.1"}));
    let (status, words) = upgrade(server, "?token=second");
    assert_eq!((status, words.contains("pay first")), (401, true), "{words}");
    assert_eq!(upgrade(server, "?token=second").0, 401);
    // An answer that is none lets nobody in, and is not kept.
    for token in ["third", "third"] {
        assert_eq!(upgrade(server, &format!("?token={token}")).0, 503);
    }
    let place = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let admission = ureq::get(format!("http://{server}/admission?token=fourth")).header("traceparent", place);
    assert_eq!(admission.call().map(|answer| answer.status().as_u16()).unwrap_or(503), 503);
    let tokens: Vec<_> = (0..3).map(|_| back_end.next().json()["data"]["token"].clone()).collect();
    assert_eq!(tokens, ["second", "third", "third"]);
    assert_eq!(back_end.next().traceparent.as_deref(), Some(place));
    assert!(back_end.messages.try_recv().is_err());
    let tokens = roomtone::server::token::TokenConfig {
        secrets: vec![Secret(API_SECRET.into())],
        ..Default::default()
    };
    let both = Config { tokens, auth_url: Some(back_end.url.parse().unwrap()), ..config(&back_end.url) };
    let error = smol::block_on(Server::bind(both)).unwrap_err().to_string();
    assert!(error.contains("not both"), "{error}");
}

/// A client of the stream of events.
struct Stream(BufReader<TcpStream>);

impl Stream {
    fn open(server: SocketAddr, last: Option<&str>) -> Self {
        let stream = TcpStream::connect(server).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let last = last.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let head = format!(
            "GET /api/v1/events HTTP/1.1\r\nhost: {server}\r\nauthorization: Bearer {API_SECRET}\r\n{last}\r\n"
        );
        (&stream).write_all(head.as_bytes()).unwrap();
        let mut stream = Self(BufReader::new(stream));
        assert_eq!(stream.line(), "HTTP/1.1 200 OK");
        // The first chunk: from here on all events are sent.
        stream.until("retry: 2000");
        stream
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn until(&mut self, start: &str) -> String {
        loop {
            let line = self.line();
            if let Some(rest) = line.strip_prefix(start) {
                return rest.to_owned();
            }
        }
    }

    /// The id of the next event, and its JSON.
    fn next(&mut self) -> (String, Value) {
        let id = self.until("id: ");
        (id, serde_json::from_str(&self.until("data: ")).unwrap())
    }
}

#[test]
fn a_stream_of_events_goes_on_behind_the_last_one() {
    let back_end = BackEnd::start(&[]);
    let server = serve(config(&back_end.url));
    let _before = peer(server, "before");
    back_end.shown(1);
    let mut stream = Stream::open(server, None);
    let _ann = peer(server, "ann");
    let (id, event) = stream.next();
    assert_eq!((&event["type"], &event["data"]), (&json!("peer.registered"), &json!({"peer": "ann"})));
    assert!(id.ends_with("-2"), "{id}");
    drop(stream);
    let _bob = peer(server, "bob");
    let mut stream = Stream::open(server, Some(&id));
    assert_eq!(stream.next().1["data"], json!({"peer": "bob"}));
    // An id of another run: all that is known, and the advice to read the lists again.
    for unknown in ["1-2", "nonsense", &id.replace("-2", "-99")] {
        let mut stream = Stream::open(server, Some(unknown));
        assert_eq!(stream.until("data: "), r#"{"type":"gap"}"#, "{unknown}");
        assert_eq!(stream.next().1["data"], json!({"peer": "before"}), "{unknown}");
    }
}

#[test]
fn streams_need_a_key_are_few_and_end_with_a_reload() {
    let back_end = BackEnd::start(&[]);
    let server = smol::block_on(Server::bind(config(&back_end.url))).unwrap();
    let (address, control) = (server.address(), server.control());
    let _running = smol::spawn(server.run(std::future::pending()));
    let mut streams: Vec<Stream> = (0..64).map(|_| Stream::open(address, None)).collect();
    let status = |secret: &str| {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let request = agent.get(format!("http://{address}/api/v1/events"));
        request.header("authorization", format!("Bearer {secret}")).call().unwrap().status().as_u16()
    };
    assert_eq!((status("wrong"), status(API_SECRET)), (401, 429));
    smol::block_on(control.reload(config(&back_end.url))).unwrap();
    for stream in &mut streams {
        // The last chunk is empty.
        while stream.line() != "0" {}
    }
}

#[test]
fn a_back_end_that_hangs_lets_nobody_in() {
    let hangs = TcpListener::bind(ANY).unwrap();
    let url = format!("http://{}/auth", hangs.local_addr().unwrap());
    let server = serve(Config { auth_url: Some(url.parse().unwrap()), ..config("http://127.0.0.1:1/hook") });
    // The time limit of a question is 3 s.
    let (status, words) = upgrade(server, "?token=any");
    assert_eq!((status, words.contains("the back end does not answer")), (503, true), "{words}");
}
