//! Pools: endpoints that speak ssp, in either version, and a room's peers, in one.

use std::net::SocketAddr;

use crate::common::{ANY, WebSocket, serve};
use roomtone::protocol::Secret;
use roomtone::server::Config;
use serde_json::{Value, json};

const SECRET: &str = "only the back end of this test knows it";

fn server() -> SocketAddr {
    let config = Config::plain(ANY);
    serve(Config { api_secret: Some(Secret(SECRET.into())), ..config })
}

/// An endpoint in the test's own hands.
struct Endpoint {
    socket: WebSocket,
    id: String,
}

impl Endpoint {
    fn connect(server: SocketAddr) -> Self {
        Self { socket: WebSocket::connect_to(server, "ssp"), id: String::new() }
    }

    /// In that pool; who is there before it.
    fn join(server: SocketAddr, pool: &str) -> (Self, Vec<String>) {
        let mut endpoint = Self::connect(server);
        endpoint.say("rtc:join", json!({"pool": pool}));
        let joined = endpoint.expect("rtc:joined");
        endpoint.id = joined["client_id"].as_str().unwrap().to_owned();
        assert_eq!(joined["pool"], pool);
        let peers = joined["peers"].as_array().unwrap();
        let peers: Vec<String> = peers.iter().map(|peer| peer.as_str().unwrap().to_owned()).collect();
        assert!(!peers.contains(&endpoint.id), "never about itself: {joined}");
        let described = joined["descriptions"].as_object().unwrap();
        assert!(described.contains_key(&endpoint.id) && described.len() == peers.len() + 1, "{joined}");
        (endpoint, peers)
    }

    fn say(&mut self, kind: &str, data: Value) {
        self.socket.say(&json!({"type": kind, "data": data}).to_string());
    }

    /// The next event, which is to be that one.
    fn expect(&mut self, kind: &str) -> Value {
        let line = self.socket.hear().expect("an event");
        let mut event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["type"], kind, "{line}");
        event["data"].take()
    }

    fn expect_error(&mut self, words: &str) {
        assert_eq!(self.expect("rtc:error")["message"], words);
    }
}

const OFFER: &str = r#"{"type":"offer","sdp":"v=0"}"#;

#[test]
fn a_pool_and_a_room_of_one_name_are_one() {
    let server = server();
    let mut ann = WebSocket::connect_to(server, "");
    ann.register("ann");
    ann.say("ROOM attic");
    ann.expect("ROOM_OK ");
    let (mut one, peers) = Endpoint::join(server, "attic");
    assert_eq!(peers, ["ann"]);
    ann.expect(&format!("ROOM_PEER_JOINED {}", one.id));
    let (mut two, peers) = Endpoint::join(server, "attic");
    assert_eq!(peers, ["ann".to_owned(), one.id.clone()]);
    ann.expect(&format!("ROOM_PEER_JOINED {}", two.id));
    // The server does not know the version yet: each version ignores the event of the other.
    assert_eq!(one.expect("rtc:peer")["id"], *two.id);
    assert_eq!(one.expect("rtc:request_offers")["for"], *two.id);

    // From the endpoint to the room's peer and back, in the words of each.
    let offer: Value = serde_json::from_str(OFFER).unwrap();
    one.say("rtc:sdp", json!({"to": "ann", "description": offer}));
    one.say(
        "rtc:candidate",
        json!({"from": "forged", "for": "ann", "candidate": {"candidate": "candidate:1", "sdpMid": "0"}}),
    );
    one.say("rtc:candidate", json!({"from": "", "for": "ann", "candidate": null}));
    let line = ann.hear().unwrap();
    let (head, body) = line.split_at(line.find('{').unwrap());
    assert_eq!(head, format!("ROOM_PEER_MSG {} ", one.id));
    assert_eq!(serde_json::from_str::<Value>(body).unwrap()["sdp"], offer);
    assert!(ann.hear().unwrap().contains(r#""candidate":"candidate:1","sdpMid":"0""#));
    assert!(ann.hear().unwrap().contains(r#""candidate":"""#));
    ann.say(&format!(r#"ROOM_PEER_MSG {} {{"sdp":{{"type":"answer","sdp":"v=0"}}}}"#, one.id));
    ann.say(&format!(
        r#"ROOM_PEER_MSG {} {{"ice":{{"candidate":"candidate:2","sdpMLineIndex":0}}}}"#,
        one.id
    ));
    ann.say(&format!(r#"ROOM_PEER_MSG {} {{"ice":null}}"#, one.id));
    // A message without an event in ssp is left out.
    ann.say(&format!("ROOM_PEER_MSG {} OFFER_REQUEST", one.id));
    let sdp = one.expect("rtc:sdp");
    assert_eq!((&sdp["peer"], &sdp["description"]["type"]), (&json!("ann"), &json!("answer")));
    let candidate = one.expect("rtc:candidate");
    assert_eq!(
        (&candidate["from"], &candidate["candidate"]["candidate"]),
        (&json!("ann"), &json!("candidate:2"))
    );
    assert_eq!(one.expect("rtc:candidate")["candidate"], Value::Null);

    // Each sees the other go.
    drop(ann);
    for endpoint in [&mut one, &mut two] {
        let close = endpoint.expect("rtc:close");
        assert_eq!((&close["id"], &close["uid"]), (&json!("ann"), &json!("ann")));
    }
    let gone = one.id.clone();
    drop(one);
    assert_eq!(two.expect("rtc:close")["uid"], *gone);
}

#[test]
fn an_endpoint_of_version_1_and_one_of_version_2_understand_each_other() {
    let server = server();
    let (mut old, _) = Endpoint::join(server, "attic");
    let (mut new, _) = Endpoint::join(server, "attic");
    // The old one is asked to offer, and does in its way; the new one answers in its own.
    old.expect("rtc:peer");
    let to = old.expect("rtc:request_offers")["for"].as_str().unwrap().to_owned();
    let offer: Value = serde_json::from_str(OFFER).unwrap();
    old.say("rtc:offers", json!({to: offer}));
    let heard = new.expect("rtc:sdp");
    assert_eq!((&heard["peer"], &heard["description"]), (&json!(old.id), &offer));
    assert_eq!(new.expect("rtc:offer")["for"], *old.id);
    new.say("rtc:sdp", json!({"to": old.id, "description": {"type": "answer", "sdp": "v=0"}}));
    let answer = old.expect("rtc:answer");
    assert_eq!((&answer["for"], &answer["answer"]["type"]), (&json!(new.id), &json!("answer")));
    // A second offer of the old one comes in the new one's version alone.
    old.say("rtc:offers", json!({new.id.clone(): offer}));
    new.expect("rtc:sdp");
    old.say("rtc:candidate", json!({"from": "", "for": new.id, "candidate": null}));
    new.expect("rtc:candidate");
}

#[test]
fn what_is_wrong_gets_its_error_and_nobody_else_notices() {
    let server = server();
    let (mut other, _) = Endpoint::join(server, "attic");
    let (mut elsewhere, _) = Endpoint::join(server, "cellar");
    let mut endpoint = Endpoint::connect(server);
    endpoint.socket.say("{");
    endpoint.expect_error("Please send valid JSON data.");
    endpoint.socket.say("[1]");
    endpoint.expect_error("Please send an event with \"type\" and \"data\" fields.");
    endpoint.socket.binary(&[1, 2, 3]);
    endpoint.expect_error("Please send valid JSON data.");
    endpoint.say("rtc:join", json!({}));
    endpoint.expect_error("Please specify a pool to join.");
    endpoint.say("rtc:sdp", json!({"to": other.id, "description": {"type": "offer", "sdp": ""}}));
    endpoint.expect_error("Please specify a pool to join.");
    endpoint.say("rtc:join", json!({"pool": "attic"}));
    endpoint.expect("rtc:joined");
    endpoint.say("rtc:join", json!({"pool": "attic"}));
    endpoint.expect_error("Could not join pool.");
    endpoint.say("rtc:dance", json!({}));
    endpoint.expect_error("RTC action 'dance' not recognized.");
    endpoint.say("rtc:candidate", json!({"candidate": null}));
    endpoint.expect_error("Please specify a candidate recipient in the 'for' field.");
    // An unknown id, and an endpoint of another pool, which PyRTC would reach.
    for to in ["nobody".to_owned(), elsewhere.id.clone()] {
        endpoint.say("rtc:sdp", json!({"to": to, "description": {"type": "offer", "sdp": "v=0"}}));
        endpoint.expect_error("Please specify a valid answer target.");
    }
    // The application's own events are nobody's business here.
    endpoint.say("chat", json!({"text": "hello"}));
    let id = other.expect("rtc:peer")["id"].as_str().unwrap().to_owned();
    other.expect("rtc:request_offers");
    drop(endpoint);
    assert_eq!(other.expect("rtc:close")["id"], *id);
    // A pool may be called anything.
    let (_one, _) = Endpoint::join(server, "a b/ü%20\n");
    let (_two, peers) = Endpoint::join(server, "a b/ü%20\n");
    assert_eq!(peers.len(), 1);
    elsewhere.say("rtc:candidate", json!({"for": other.id, "candidate": null}));
    elsewhere.expect_error("Please specify a valid answer target.");
}

/// A request of the back end; the status, and the body.
fn order(
    server: impl std::fmt::Display,
    method: &str,
    path: &str,
    secret: &str,
    body: &str,
) -> (u16, String) {
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    let request = ureq::http::Request::builder().method(method).uri(format!("http://{server}/api/{path}"));
    let request = request.header("authorization", format!("Bearer {secret}")).body(body.to_owned()).unwrap();
    let mut response = config.new_agent().run(request).unwrap();
    (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
}

#[test]
fn a_back_end_says_who_somebody_is_sends_somebody_away_and_closes_a_pool() {
    let server = server();
    let order = |method: &str, path: &str, body: &str| order(server, method, path, SECRET, body);
    let (mut one, _) = Endpoint::join(server, "attic");
    let mut ann = WebSocket::connect_to(server, "?roomtone=1");
    ann.register("ann");
    ann.say("ROOM attic");
    ann.expect(&format!("ROOM_OK {}", one.id));
    one.expect("rtc:peer");
    one.expect("rtc:request_offers");

    assert_eq!(self::order(server, "GET", "rooms", "a guess", "").0, 401);
    let named = |name: &str| format!(r#"{{"name":"{name}"}}"#);
    assert_eq!(order("PUT", &format!("peers/{}/description", one.id), &named("the door")).0, 204);
    ann.expect(&format!(r#"ROOM_PEER_DESCRIBED {} {{"name":"the door"}}"#, one.id));
    assert_eq!(order("PUT", "peers/ann/description", &named("Ann")).0, 204);
    let described = one.expect("rtc:describe");
    assert_eq!((&described["id"], &described["description"]["name"]), (&json!("ann"), &json!("Ann")));
    // An endpoint that joins later gets both descriptions.
    let mut two = Endpoint::connect(server);
    two.say("rtc:join", json!({"pool": "attic"}));
    let joined = two.expect("rtc:joined");
    assert_eq!(joined["descriptions"]["ann"]["name"], "Ann");
    assert_eq!(joined["descriptions"][&one.id]["name"], "the door");
    let second = joined["client_id"].as_str().unwrap().to_owned();
    ann.expect(&format!("ROOM_PEER_JOINED {second}"));
    let rooms: Value = serde_json::from_str(&order("GET", "rooms", "").1).unwrap();
    assert_eq!(rooms[0]["room"], "attic");
    // Peers come in the order of their ids, and those of pools are random.
    let ann_there = json!({"id": "ann", "description": {"name": "Ann"}});
    assert!(rooms[0]["peers"].as_array().unwrap().contains(&ann_there), "{rooms}");
    one.expect("rtc:peer");
    one.expect("rtc:request_offers");

    // A request that is too big, no JSON, or for an unknown peer changes nothing.
    let big = format!("\"{}\"", "x".repeat(1 << 20));
    assert_eq!(order("PUT", "peers/ann/description", &big).0, 413);
    assert_eq!(order("PUT", "peers/ann/description", "{").0, 400);
    assert_eq!(order("PUT", "peers/nobody/description", "{}").0, 404);
    assert_eq!(order("DELETE", "rooms/nowhere", "").0, 404);
    assert_eq!(order("POST", "rooms", "").0, 404);

    assert_eq!(order("DELETE", "peers/ann", "").0, 204);
    assert_eq!(ann.hear(), None);
    assert_eq!(one.expect("rtc:close")["id"], "ann");
    assert_eq!(order("DELETE", "rooms/attic", "").0, 204);
    one.expect("rtc:stop");
    assert_eq!(one.socket.hear(), None);
    assert_eq!(two.expect("rtc:close")["id"], "ann");
    two.expect("rtc:stop");
    assert_eq!(serde_json::from_str::<Value>(&order("GET", "rooms", "").1).unwrap(), json!([]));
}

#[cfg(feature = "media")]
mod clients {
    use crate::common::{Client, Received, Stage};

    use super::*;

    #[test]
    fn clients_meet_in_a_pool_whether_they_come_by_ssp_or_by_the_room_protocol() {
        let (mut stage, received) = (Stage::new(), Received::of_each());
        let pool = format!("ssp+{}/ssp", stage.url);
        let join = || stage.client(&["join", "attic"]).server(&pool);
        let mut one = join().receiving(&received).start();
        let me = one.expect("registered", &[])["id"].as_str().unwrap().to_owned();
        let mut two = join().start();
        let second = two.expect("registered", &[])["id"].as_str().unwrap().to_owned();
        two.expect("media", &[("peer", &me), ("kind", "video")]);
        received.from(&second).expect_moving_and_audible((0, 0), 20);
        let mut ann = stage.join("ann").start();
        ann.expect_all(&[
            ("media", &[("peer", &me), ("kind", "video")]),
            ("media", &[("peer", &second), ("kind", "video")]),
        ]);
        received.from("ann").expect_moving_and_audible((0, 0), 20);
        two.say(&json!({"command": "say", "text": "hello", "to": "ann"}));
        ann.expect("message", &[("peer", &second), ("text", "hello")]);
        ann.quit();
        for side in [&mut one, &mut two] {
            side.expect("peer", &[("peer", "ann"), ("state", "left")]);
        }
        // The server goes and comes back: both come back, under other names.
        stage.end_server("KILL");
        one.expect("warning", &[("text", "the server is gone; trying again")]);
        stage.serve_again();
        let again = two.expect("registered", &[])["id"].as_str().unwrap().to_owned();
        assert_ne!(again, second);
        one.expect("media", &[("peer", &again), ("kind", "video")]);
        received.from(&again).expect_moving_and_audible((0, 0), 20);
    }

    #[test]
    fn clients_tell_who_somebody_is_and_go_when_they_are_sent_away() {
        let stage = Stage::serving(&[], &[("ROOMTONE_API_SECRET", SECRET)]);
        let address = stage.address().to_string();
        let pool = format!("ssp+{}/ssp", stage.url);
        let mut one = stage.client(&["join", "attic"]).server(&pool).start();
        let me = one.expect("registered", &[])["id"].as_str().unwrap().to_owned();
        let mut ann = stage.join("ann").start();
        ann.expect("media", &[("peer", &me), ("kind", "video")]);
        let named = r#"{"name":"the door"}"#;
        order(&address, "PUT", &format!("peers/{me}/description"), SECRET, named);
        assert_eq!(ann.expect("described", &[("peer", &me)])["description"]["name"], "the door");
        order(&address, "PUT", "peers/ann/description", SECRET, r#"{"name":"Ann"}"#);
        one.expect("described", &[("peer", "ann")]);
        one.say(&json!({"command": "peers"}));
        assert_eq!(one.expect("described", &[("peer", "ann")])["description"]["name"], "Ann");
        order(&address, "DELETE", "peers/ann", SECRET, "");
        let (code, error) = ann.end();
        assert_eq!((code, error.contains("removed")), (4, true), "{error}");
        one.expect("peer", &[("peer", "ann"), ("state", "left")]);
        let mut ann = stage.join("ann").start();
        ann.expect("media", &[("peer", &me), ("kind", "video")]);
        assert_eq!(ann.count("described", &[("peer", &me)]), 1);
        // The pool is closed in the middle of the call: nobody comes back to it.
        order(&address, "DELETE", "rooms/attic", SECRET, "");
        for (side, words) in [(one, "closed the pool"), (ann, "the room was closed")] {
            let (code, error) = side.end();
            assert_eq!((code, error.contains(words)), (4, true), "{error}");
        }
    }

    /// A server whose first connection is never answered, as PyRTC's is when a client is slow; the others are
    /// passed on.
    fn deaf_at_first(server: String) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let _first = listener.accept();
            for mut client in listener.incoming().map_while(Result::ok) {
                let mut upstream = std::net::TcpStream::connect(&server).unwrap();
                let (mut from, mut to) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                std::thread::spawn(move || std::io::copy(&mut client, &mut upstream));
            }
        });
        format!("ssp+ws://{address}/ssp")
    }

    #[test]
    fn a_server_that_never_answers_is_tried_again() {
        let stage = Stage::new();
        let url = deaf_at_first(stage.address().to_string());
        let mut client = stage.client(&["join", "attic"]).server(&url).without_media().start();
        client.expect("room", &[("room", "attic")]);
        client.quit();
    }

    /// The endpoints in the pool of a server of version 1, with the queue of events for each.
    type Pool = std::sync::Mutex<std::collections::BTreeMap<String, std::sync::mpsc::Sender<String>>>;

    /// A server as PyRTC 1 was: it asks those who are there to offer to the newcomer, and knows no `rtc:sdp`.
    fn server_of_version_1() -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let pool = std::sync::Arc::new(Pool::default());
            for (n, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let pool = pool.clone();
                std::thread::spawn(move || serve_version_1(stream, &format!("e{n}"), &pool));
            }
        });
        format!("ssp+ws://{address}")
    }

    fn serve_version_1(stream: std::net::TcpStream, me: &str, pool: &Pool) {
        use async_tungstenite::tungstenite::{self, Message};
        let Ok(mut socket) = tungstenite::accept(stream) else { return };
        socket.get_ref().set_read_timeout(Some(std::time::Duration::from_millis(5))).unwrap();
        let (say, said) = std::sync::mpsc::channel();
        let event = |kind: &str, data: Value| json!({"type": kind, "data": data}).to_string();
        let tell = |to: &str, text: String| drop(pool.lock().unwrap().get(to).map(|to| to.send(text)));
        loop {
            said.try_iter().for_each(|text: String| socket.send(Message::text(text)).unwrap());
            let line = match socket.read() {
                Ok(Message::Text(line)) => line,
                Ok(Message::Close(_)) | Err(tungstenite::Error::ConnectionClosed) => break,
                Ok(_) | Err(tungstenite::Error::Io(_)) => continue,
                Err(_) => break,
            };
            let mut line: Value = serde_json::from_str(line.as_str()).unwrap();
            let mut data = line["data"].take();
            let of = |data: &Value| data["for"].as_str().unwrap_or_default().to_owned();
            match line["type"].as_str().unwrap() {
                "rtc:join" => {
                    let mut all = pool.lock().unwrap();
                    let peers: Vec<&String> = all.keys().collect();
                    say.send(event("rtc:joined", json!({"client_id": me, "peers": peers}))).unwrap();
                    for peer in all.values() {
                        peer.send(event("rtc:request_offers", json!({"for": me}))).unwrap();
                    }
                    all.insert(me.to_owned(), say.clone());
                }
                "rtc:offers" => {
                    for (to, offer) in data.as_object().unwrap() {
                        tell(to, event("rtc:offer", json!({"for": me, "offer": offer})));
                    }
                }
                "rtc:answer" => {
                    tell(
                        &of(&data),
                        event("rtc:answer", json!({"for": me, "answer": data["answer"].take()})),
                    );
                }
                "rtc:candidate" => {
                    let candidate = json!({"from": me, "candidate": data["candidate"].take()});
                    tell(&of(&data), event("rtc:candidate", candidate));
                }
                other => {
                    let action = other.trim_start_matches("rtc:");
                    let message = format!("RTC action '{action}' not recognized.");
                    say.send(event("rtc:error", json!({"message": message}))).unwrap();
                }
            }
        }
        pool.lock().unwrap().remove(me);
        for peer in pool.lock().unwrap().values() {
            let _ = peer.send(event("rtc:close", json!({"uid": me})));
        }
    }

    #[test]
    fn clients_meet_on_a_server_of_version_1() {
        let home = tempfile::tempdir().unwrap();
        for version in ["auto", "1"] {
            let url = server_of_version_1();
            let received = Received::of_each();
            let join = || Client::new(home.path(), &["join", "attic", "--ssp-version", version]).server(&url);
            let mut one = join().receiving(&received).ready();
            let mut two = join().start();
            two.expect("media", &[("peer", "e0"), ("kind", "video")]);
            received.from("e1").expect_moving_and_audible((0, 0), 20);
            two.quit();
            one.expect("peer", &[("peer", "e1"), ("state", "left")]);
        }
    }

    #[test]
    fn a_pool_knows_no_calls() {
        let home = tempfile::tempdir().unwrap();
        for args in [&["call", "bob"][..], &["answer"]] {
            let client = Client::new(home.path(), args).server("ssp+ws://127.0.0.1:1").without_media();
            let (code, error) = client.start().end();
            assert_eq!((code, error.contains("roomtone join POOL")), (2, true), "{error}");
        }
    }
}
