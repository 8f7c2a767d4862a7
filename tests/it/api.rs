//! The API for back ends, version 1.

use std::net::SocketAddr;

use crate::common::{WebSocket, free_address, needs, serve, upgrade};
use roomtone::protocol::Secret;
use roomtone::server::token::TokenConfig;
use roomtone::server::{ApiKeys, Config};
use serde_json::{Value, json};

const SECRET: &str = "as long as a secret has to be, and longer";
const READER: &str = "a key that may read alone";
const PORTAL: &str = "a key that may do everything";

fn sha256(key: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn keys(entries: &[(&str, &str, &[&str])]) -> ApiKeys {
    let entry = |(name, key, scopes): &(&str, &str, &[&str])| {
        format!("[[key]]\nname = \"{name}\"\nsha256 = \"{}\"\nscopes = {scopes:?}\n", sha256(key))
    };
    ApiKeys::parse(&entries.iter().map(entry).collect::<String>()).unwrap()
}

fn config() -> Config {
    let all = ["read", "describe", "moderate", "tokens", "operate"];
    let api_keys = keys(&[("reader", READER, &["read"]), ("portal", PORTAL, &all)]);
    Config { api_keys, ..Config::plain(([127, 0, 0, 1], 0).into()) }
}

/// An answer of the API.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: ureq::http::HeaderMap,
    body: Value,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

fn ask_with(
    server: SocketAddr,
    key: &str,
    method: &str,
    path: &str,
    body: &str,
    more: &[(&str, &str)],
) -> Answer {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let mut request =
        ureq::http::Request::builder().method(method).uri(format!("http://{server}/api/v1/{path}"));
    if !key.is_empty() {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    let mut answer = agent.run(request.body(body.to_owned()).unwrap()).unwrap();
    let headers = answer.headers().clone();
    let text = answer.body_mut().read_to_string().unwrap();
    let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
    Answer { status: answer.status().as_u16(), headers, body }
}

fn ask(server: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    ask_with(server, PORTAL, method, path, body, &[])
}

/// An error bears a code, words, and the id of the request.
fn assert_error(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, answer.body["code"].as_str()), (status, Some(code)), "{answer:?}");
    assert!(answer.body["message"].as_str().is_some_and(|text| text.len() > 5), "{answer:?}");
    assert_eq!(answer.body["request"], answer.header("x-request-id"), "{answer:?}");
    assert_eq!(answer.header("retry-after").is_empty(), status != 429, "{answer:?}");
}

fn peer(server: SocketAddr, id: &str, room: Option<&str>) -> WebSocket {
    let mut peer = WebSocket::connect_to(server, "?roomtone=1");
    peer.say(&format!("HELLO {id}"));
    peer.expect("HELLO");
    if let Some(room) = room {
        peer.say(&format!("ROOM {room}"));
        assert!(peer.hear().unwrap().starts_with("ROOM_OK"));
    }
    peer
}

#[test]
fn rooms_and_peers_are_listed_in_pages() {
    let server = serve(config());
    let _peers: Vec<_> =
        (0..5).map(|n| peer(server, &format!("p{n}"), Some(&format!("room{}", n % 3)))).collect();
    let all = ask(server, "GET", "rooms", "");
    let rooms =
        json!([{"room": "room0", "peers": 2}, {"room": "room1", "peers": 2}, {"room": "room2", "peers": 1}]);
    assert_eq!((all.status, all.body), (200, json!({"rooms": rooms, "next": null})));
    let first = ask(server, "GET", "rooms?limit=2", "").body;
    assert_eq!((first["rooms"].as_array().unwrap().len(), &first["next"]), (2, &json!("room1")));
    let second = ask(server, "GET", "rooms?limit=2&after=room1", "").body;
    assert_eq!(second, json!({"rooms": [{"room": "room2", "peers": 1}], "next": null}));
    let room = ask(server, "GET", "rooms/room0", "").body;
    assert_eq!(room, json!({"room": "room0", "peers": ["p0", "p3"], "next": null}));
    assert_error(&ask(server, "GET", "rooms/nothing", ""), 404, "not_found");
    let page = ask(server, "GET", "peers?limit=1&after=p3", "").body;
    assert_eq!(page, json!({"peers": [{"id": "p4", "state": "busy", "room": "room1"}], "next": null}));
    assert_eq!(ask(server, "GET", "counts", "").body, json!({"connections": 5, "peers": 5, "rooms": 3}));
    for wrong in
        ["rooms?limit=0", "rooms?limit=x", "peers?limit=101", "peers?unknown=1", "rooms/room0?limit=-1"]
    {
        assert_error(&ask(server, "GET", wrong, ""), 400, "invalid");
    }
}

#[test]
fn presence_of_many_peers_is_one_question() {
    let server = serve(config());
    let mut ann = peer(server, "ann", None);
    let mut bob = peer(server, "bob", None);
    let _cat = peer(server, "cat", Some("attic"));
    let states = || {
        let answer = ask(server, "GET", "peers?id=ann&id=bob&id=cat&id=dan", "").body;
        let peers = answer["peers"].as_array().unwrap().clone();
        peers
            .iter()
            .map(|peer| format!("{} {}", peer["state"].as_str().unwrap(), peer["room"]))
            .collect::<Vec<_>>()
    };
    assert_eq!(states(), ["free null", "free null", "busy \"attic\"", "offline null"]);
    ann.say("SESSION bob");
    ann.expect("SESSION_OK");
    bob.expect("SESSION_FROM ann");
    assert_eq!(states(), ["busy null", "busy null", "busy \"attic\"", "offline null"]);
    let ids = vec!["id=x"; 101].join("&");
    assert_error(&ask(server, "GET", &format!("peers?{ids}"), ""), 400, "invalid");
    assert_error(&ask(server, "GET", "peers?id=a%20b", ""), 400, "invalid");
}

#[test]
fn a_peer_is_described_muted_removed_and_blocked() {
    let server = serve(config());
    let mut ann = peer(server, "ann", Some("attic"));
    let mut bob = peer(server, "bob", Some("attic"));
    ann.expect("ROOM_PEER_JOINED bob");
    let free = peer(server, "free", None);
    assert_eq!(ask(server, "PUT", "peers/bob/description", r#"{"name":"Bob"}"#).status, 204);
    ann.expect(r#"ROOM_PEER_DESCRIBED bob {"name":"Bob"}"#);
    let read = ask(server, "GET", "peers/bob", "").body;
    assert_eq!(read, json!({"id": "bob", "state": "busy", "room": "attic", "description": {"name": "Bob"}}));
    assert_eq!(ask(server, "POST", "peers/bob/mute", r#"{"kind":"audio"}"#).status, 204);
    bob.expect("MUTE audio");
    assert_error(&ask(server, "POST", "peers/free/mute", r#"{"kind":"audio"}"#), 409, "conflict");
    for body in ["", "{}", r#"{"kind":"all"}"#, r#"{"kind":7}"#, "[", r#"{"kind":"audio","x":1}"#] {
        assert_error(&ask(server, "POST", "peers/bob/mute", body), 400, "invalid");
    }
    assert_error(&ask(server, "PUT", "peers/bob/description", "no JSON"), 400, "invalid");
    let long = format!("\"{}\"", "x".repeat(64 * 1024));
    assert_error(&ask(server, "PUT", "peers/bob/description", &long), 413, "too_long");
    for (method, path) in [
        ("GET", "peers/dan"),
        ("DELETE", "peers/dan"),
        ("PUT", "peers/dan/description"),
        ("DELETE", "rooms/cellar"),
    ] {
        assert_error(&ask(server, method, path, if method == "PUT" { "1" } else { "" }), 404, "not_found");
    }
    for time in ["0", "-1", "2592001", "\"1h\"", "1.5"] {
        assert_error(
            &ask(server, "DELETE", "peers/bob", &format!("{{\"block_for\":{time}}}")),
            400,
            "invalid",
        );
    }
    // A peer that is removed can come back, unless its id is blocked.
    assert_eq!(ask(server, "DELETE", "peers/bob", "").status, 204);
    bob.expect_close(1008, "removed");
    ann.expect("ROOM_PEER_LEFT bob");
    let bob = peer(server, "bob", None);
    assert_eq!(ask(server, "DELETE", "peers/bob", r#"{"block_for":3600}"#).status, 204);
    bob.expect_close(1008, "removed");
    let mut again = WebSocket::connect_to(server, "");
    again.say("HELLO bob");
    again.expect_close(1008, "this id is blocked");
    // An id can be blocked before it is seen.
    assert_eq!(ask(server, "DELETE", "peers/eve", r#"{"block_for":3600}"#).status, 204);
    let mut eve = WebSocket::connect_to(server, "");
    eve.say("HELLO eve");
    eve.expect_close(1008, "this id is blocked");
    assert_eq!(ask(server, "DELETE", "rooms/attic", "").status, 204);
    ann.expect("ERROR the room was closed");
    ann.expect_close(1008, "the room was closed");
    drop(free);
}

#[test]
fn a_server_drains_and_serves_again() {
    let server = serve(config());
    let ann = peer(server, "ann", Some("attic"));
    let ready = || {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        agent.get(format!("http://{server}/health/ready")).call().unwrap().status().as_u16()
    };
    let node = || ask(server, "GET", "nodes", "").body["nodes"][0].clone();
    let before = node();
    assert_eq!(
        (before["state"].as_str(), before["peers"].as_u64(), ready()),
        (Some("serving"), Some(1), 200)
    );
    assert_eq!((&before["rooms"], &before["calls"]), (&json!(1), &json!(0)));
    assert_eq!(before["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(ask(server, "POST", "drain", "").status, 204);
    assert_eq!((node()["state"].as_str(), ready()), (Some("draining"), 503));
    // Clients stay, and new ones are not turned away.
    let _bob = peer(server, "bob", Some("attic"));
    let (code, out, _) = roomtone(server, PORTAL, &["drain", "--undo"]);
    assert_eq!((code, out.as_str(), ready()), (0, "", 200));
    let (_, out, _) = roomtone(server, PORTAL, &["nodes"]);
    assert!(out.contains("serving") && out.contains(env!("CARGO_PKG_VERSION")), "{out}");
    drop(ann);
}

#[test]
fn a_member_is_asked_to_move_to_a_room_that_its_token_allows() {
    let tokens = TokenConfig { secrets: vec![Secret(SECRET.into())], ..TokenConfig::default() };
    let server = serve(Config { tokens, ..config() });
    let enter = |query: &str, claims: Value| {
        let mut claims = claims;
        claims["exp"] = json!(4_000_000_000_u64);
        let token = roomtone::server::token::sign(&claims, &Secret(SECRET.into())).unwrap();
        let mut peer = WebSocket::connect_to(server, &format!("{query}token={token}"));
        peer.register(claims["sub"].as_str().unwrap());
        peer
    };
    let mut ann = enter("?roomtone=1&", json!({"sub": "ann", "rooms": ["attic", "cellar"]}));
    let to = |peer: &str, room: &str| {
        ask(server, "POST", &format!("peers/{peer}/move"), &format!("{{\"room\":\"{room}\"}}"))
    };
    assert_error(&to("ann", "cellar"), 409, "conflict");
    ann.say("ROOM attic");
    ann.expect("ROOM_OK ");
    for room in ["attic", "hall"] {
        assert_error(&to("ann", room), 409, "conflict");
    }
    assert_eq!(to("ann", "cellar").status, 204);
    ann.expect("ROOM_MOVE cellar");
    let mut plain = enter("?", json!({"sub": "bob"}));
    plain.say("ROOM attic");
    plain.expect("ROOM_OK ann");
    assert_error(&to("bob", "cellar"), 409, "conflict");
    assert_error(&to("dan", "cellar"), 404, "not_found");
    for body in ["", "{}", r#"{"room":""}"#, r#"{"room":7}"#, r#"{"room":"a b"}"#, r#"{"room":"session"}"#] {
        assert_error(&ask(server, "POST", "peers/ann/move", body), 400, "invalid");
    }
}

#[test]
fn a_key_permits_its_scopes_alone() {
    let server = serve(config());
    let reader = |method: &str, path: &str| ask_with(server, READER, method, path, "", &[]);
    assert_eq!(reader("GET", "rooms").status, 200);
    for (method, path) in [
        ("DELETE", "peers/x"),
        ("DELETE", "rooms/x"),
        ("PUT", "peers/x/description"),
        ("POST", "tokens"),
        ("POST", "peers/x/mute"),
        ("GET", "nodes"),
        ("POST", "drain"),
    ] {
        assert_error(&reader(method, path), 403, "scope");
    }
    for key in ["", "another", &sha256(READER)] {
        let answer = ask_with(server, key, "GET", "rooms", "", &[]);
        assert_error(&answer, 401, "no_key");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    assert_error(&reader("GET", "nothing"), 404, "no_path");
    let answer = reader("PATCH", "rooms/x");
    assert_error(&answer, 405, "method");
    assert_eq!(answer.header("allow"), "GET, DELETE");
    // Guesses of keys are slowed.
    let statuses: Vec<u16> =
        (0..12).map(|_| ask_with(server, "wrong", "GET", "rooms", "", &[]).status).collect();
    assert_eq!((statuses[0], statuses[11]), (401, 429), "{statuses:?}");
    // A server without keys has no API; the secret has all scopes.
    let none = serve(Config::plain(([127, 0, 0, 1], 0).into()));
    assert_error(&ask(none, "GET", "rooms", ""), 404, "no_api");
    let with_secret =
        Config { api_secret: Some(Secret(SECRET.into())), ..Config::plain(([127, 0, 0, 1], 0).into()) };
    let server = serve(with_secret);
    assert_eq!(ask_with(server, SECRET, "GET", "rooms", "", &[]).status, 200);
    assert_error(&ask_with(server, SECRET, "DELETE", "rooms/x", "", &[]), 404, "not_found");
    // The paths of before stay.
    let agent =
        ureq::get(format!("http://{server}/api/rooms")).header("authorization", format!("Bearer {SECRET}"));
    assert_eq!(agent.call().unwrap().body_mut().read_to_string().unwrap(), "[]");
}

#[test]
fn tokens_are_made_with_the_servers_secret() {
    let tokens = TokenConfig { secrets: vec![Secret(SECRET.into())], ..TokenConfig::default() };
    let server = serve(Config { tokens, ..config() });
    let made = ask(server, "POST", "tokens", r#"{"valid":60,"claims":{"sub":"ann","moderate":true}}"#);
    assert_eq!((made.status, made.header("cache-control")), (201, "no-store"), "{made:?}");
    let token = made.body["token"].as_str().unwrap();
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!((now..=now + 60).contains(&made.body["expires"].as_u64().unwrap()), "{made:?}");
    assert_eq!(upgrade(server, &format!("?token={token}")).0, 101);
    let mut ann = WebSocket::connect_to(server, &format!("?roomtone=1&token={token}"));
    ann.say("HELLO bob");
    ann.expect_close(1008, "your token is for another id");
    for wrong in [
        r#"{"valid":0}"#,
        r#"{"valid":2592001}"#,
        r#"{"claims":{"exp":4000000000}}"#,
        r#"{"claims":{"sub":7}}"#,
        r#"{"claims":{"moderate":"yes"}}"#,
        r#"{"claims":[]}"#,
        r#"{"sub":"ann"}"#,
        "nonsense",
    ] {
        assert_error(&ask(server, "POST", "tokens", wrong), 400, "invalid");
    }
    assert_error(&ask(server, "POST", "tokens", &"x".repeat(20_000)), 413, "too_long");
    assert_error(&ask(serve(config()), "POST", "tokens", ""), 409, "conflict");
}

#[test]
fn requests_have_ids_and_a_rate() {
    let server = serve(config());
    let own = ask_with(server, PORTAL, "GET", "rooms/x", "", &[("x-request-id", "req-7")]);
    assert_eq!((own.header("x-request-id"), own.body["request"].as_str()), ("req-7", Some("req-7")));
    let too_long = "x".repeat(129);
    for unusable in [too_long.as_str(), "a b"] {
        let other = ask_with(server, PORTAL, "GET", "rooms/x", "", &[("x-request-id", unusable)]);
        assert!(
            other.header("x-request-id").len() > 10 && other.header("x-request-id") != unusable,
            "{other:?}"
        );
    }
    // The description needs no key, and is JSON.
    let description = ask_with(server, "", "GET", "openapi.json", "", &[]);
    assert_eq!((description.status, &description.body["openapi"]), (200, &json!("3.1.0")));
    // Lists of peers are limited for all together: 20 at once.
    let listed: Vec<Answer> = std::thread::scope(|scope| {
        let asks: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| (0..40).map(|_| ask(server, "GET", "peers", "")).collect::<Vec<_>>()))
            .collect();
        asks.into_iter().flat_map(|ask| ask.join().unwrap()).collect()
    });
    assert!(listed.iter().any(|answer| answer.status == 200));
    let limited = listed.iter().find(|answer| answer.status == 429).expect("a limit");
    assert_error(limited, 429, "too_many_requests");
}

/// Runs `roomtone` with a key; returns its exit code, stdout and stderr.
fn roomtone(server: SocketAddr, key: &str, args: &[&str]) -> (i32, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_roomtone"));
    command.args(args).args(["--server", &format!("ws://{server}")]).env("HOME", "/nonexistent");
    command.env_remove("XDG_CONFIG_HOME");
    if !key.is_empty() {
        command.env("ROOMTONE_API_KEY", key);
    }
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_line_lists_and_removes() {
    let server = serve(config());
    let mut ann = peer(server, "ann", Some("the%20attic"));
    let bob = peer(server, "bob", None);
    let words = |args: &[&str]| {
        let (code, out, err) = roomtone(server, PORTAL, args);
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(words(&["rooms"]), ["the%20attic 1"]);
    assert_eq!(words(&["rooms", "the%20attic"]), ["ann"]);
    assert_eq!(words(&["peers"]), ["ann busy the%20attic", "bob free"]);
    assert_eq!(words(&["peers", "bob", "dan"]), ["bob free", "dan offline"]);
    let (_, out, _) = roomtone(server, PORTAL, &["peers", "bob", "--json"]);
    assert_eq!(
        serde_json::from_str::<Value>(&out).unwrap(),
        json!({"id": "bob", "state": "free", "room": null})
    );
    assert!(words(&["kick", "bob", "--block-for", "1h"]).is_empty());
    bob.expect_close(1008, "removed");
    assert!(words(&["close", "the%20attic"]).is_empty());
    ann.expect("ERROR the room was closed");
    for (key, args, code, why) in [
        (PORTAL, &["kick", "nobody"][..], 5, "no peer has this name"),
        (PORTAL, &["rooms", "cellar"], 5, "no room has this name"),
        (READER, &["close", "cellar"], 4, "lacks the scope 'moderate'"),
        ("wrong", &["rooms"], 4, "a key of this server is required"),
        ("", &["rooms"], 2, "ROOMTONE_API_KEY"),
        (PORTAL, &["kick", "bob", "--block-for", "40d"], 1, "block_for is a number of seconds"),
    ] {
        let (got, _, err) = roomtone(server, key, args);
        assert!(got == code && err.contains(why), "{args:?}: {got} {err}");
    }
    let nobody = free_address();
    let (code, _, err) = roomtone(nobody, PORTAL, &["rooms"]);
    assert!(code == 3 && err.contains("cannot be asked"), "{code} {err}");
    let closed = serve(Config::plain(([127, 0, 0, 1], 0).into()));
    let (code, _, err) = roomtone(closed, PORTAL, &["rooms"]);
    assert!(code == 1 && err.contains("this server has no API"), "{code} {err}");
}

#[test]
fn an_endpoint_of_a_pool_receives_events_of_the_application() {
    let server = serve(config());
    let mut endpoint = WebSocket::connect_to(server, "ssp");
    endpoint.say(r#"{"type":"rtc:join","data":{"pool":"attic"}}"#);
    let joined: Value = serde_json::from_str(&endpoint.hear().unwrap()).unwrap();
    let id = joined["data"]["client_id"].as_str().unwrap();
    let path = format!("peers/{id}/send");
    assert_eq!(ask(server, "POST", &path, r#"{"type":"app:slide","data":{"page":7}}"#).status, 204);
    let event: Value = serde_json::from_str(&endpoint.hear().unwrap()).unwrap();
    assert_eq!(event, json!({"type": "app:slide", "data": {"page": 7}}));
    for wrong in ["rtc:stop", "", "a b", "disconnect", &"x".repeat(65)] {
        assert_error(&ask(server, "POST", &path, &json!({"type": wrong}).to_string()), 400, "invalid");
    }
    assert_error(&ask(server, "POST", &path, r#"{"type":"x","data":[1]}"#), 400, "invalid");
    assert_error(&ask(server, "POST", "peers/nobody/send", r#"{"type":"x"}"#), 404, "not_found");
    let _ann = peer(server, "ann", None);
    assert_error(&ask(server, "POST", "peers/ann/send", r#"{"type":"x"}"#), 409, "conflict");
    // Nothing else reaches the endpoint.
    assert_eq!(ask(server, "POST", &path, r#"{"type":"last"}"#).status, 204);
    assert_eq!(endpoint.hear().unwrap(), r#"{"data":{},"type":"last"}"#);
}

/// Calls every operation with valid and with invalid input, and compares the answers with the description. The stream of events
/// is left out: its answer has no end.
#[test]
fn every_operation_answers_any_input_as_described() {
    needs!(ApiTester);
    let tokens = TokenConfig { secrets: vec![Secret(SECRET.into())], ..TokenConfig::default() };
    let server = serve(Config { tokens, ..config() });
    let folder = tempfile::tempdir().unwrap();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers");
    let output = std::process::Command::new(root.join("api-venv/bin/schemathesis"))
        .arg("--config-file")
        .arg(root.join("schemathesis.toml"))
        .args(["run", &format!("http://{server}/api/v1/openapi.json"), "--exclude-path", "/events"])
        .args(["-H", &format!("Authorization: Bearer {PORTAL}")])
        // Below the rates of a key and of lists.
        .args(["--rate-limit", "40/s", "--seed", "1", "--max-examples", "20", "--request-timeout", "20"])
        .args(["--phases", "examples,coverage,fuzzing", "--no-color"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}
