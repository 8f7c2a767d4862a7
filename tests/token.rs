//! Who comes in with a token, as whom, and where to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

mod common;

use std::net::SocketAddr;

use common::WebSocket;
use jsonwebtoken::{EncodingKey, Header, encode};
use roomtone::protocol::Secret;
use roomtone::server::{Config, Server, ServerError};
use serde_json::{Value, json};

const SECRET: &str = "as long as a secret has to be, and longer";

fn config() -> Config {
    Config { token_secret: Some(Secret(SECRET.into())), ..Config::plain(([127, 0, 0, 1], 0).into()) }
}

fn server() -> SocketAddr {
    let server = smol::block_on(Server::bind(config())).unwrap();
    let address = server.address();
    smol::spawn(server.run(std::future::pending())).detach();
    address
}

fn token(claims: Value) -> String {
    let mut claims = claims;
    if claims.get("exp").is_none() {
        claims["exp"] = json!(4_000_000_000_u64);
    }
    encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

fn enter(server: SocketAddr, path: &str, claims: Value) -> WebSocket {
    WebSocket::connect_to(server, &format!("{path}token={}", token(claims)))
}

fn status(server: SocketAddr, path: &str) -> (u16, String) {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let request = ureq::http::Request::builder().uri(format!("http://{server}/{path}"));
    // Written by hand where it is to be one: ureq leaves the upgrade alone.
    let request = request.header("connection", "upgrade").header("upgrade", "websocket");
    let request =
        request.header("sec-websocket-version", "13").header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==");
    let mut answer = agent.run(request.body(()).unwrap()).unwrap();
    (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
}

#[test]
fn nobody_comes_in_without_a_good_token() {
    let server = server();
    for path in ["", "ssp", "socket.io/?EIO=4&transport=websocket"] {
        let (code, words) = status(server, path);
        assert_eq!((code, words.contains("a token is wanted")), (401, true), "{path}: {words}");
    }
    for (claims, why) in
        [(json!({"exp": 1}), "ExpiredSignature"), (json!({"nbf": 3_000_000_000_u64}), "ImmatureSignature")]
    {
        let (code, words) = status(server, &format!("ssp?token={}", token(claims)));
        assert_eq!((code, words.contains(why)), (401, true), "{words}");
    }
    assert_eq!(status(server, "ssp?token=e30.e30.e30").0, 401);
    // By polling too; and what is no way in is there for all.
    let get = |path: &str| {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        agent.get(format!("http://{server}/{path}")).call().unwrap().status().as_u16()
    };
    assert_eq!(get("socket.io/?EIO=4&transport=polling"), 401);
    assert_eq!(get(&format!("socket.io/?EIO=4&transport=polling&token={}", token(json!({})))), 200);
    assert_eq!((get("health"), get("")), (200, 200));
    // A page asks here why its WebSocket failed.
    assert_eq!((get("admission"), get("admission?token=e30.e30.e30")), (401, 401));
    assert_eq!(get(&format!("admission?token={}", token(json!({})))), 200);
}

#[test]
fn a_token_says_who_somebody_is_and_where_it_may_go() {
    let server = server();
    let attic = json!({"rooms": ["attic"], "description": {"name": "Ann"}});
    let mut ann = enter(server, "ssp?", attic);
    ann.say(r#"{"type":"rtc:join","data":{"pool":"cellar"}}"#);
    let error: Value = serde_json::from_str(&ann.hear().unwrap()).unwrap();
    assert_eq!(error["data"]["message"], "Could not join pool.");
    assert_eq!(error["data"]["reason"], "not for you: this room");
    ann.say(r#"{"type":"rtc:join","data":{"pool":"attic"}}"#);
    let joined: Value = serde_json::from_str(&ann.hear().unwrap()).unwrap();
    let id = joined["data"]["client_id"].as_str().unwrap().to_owned();
    assert_eq!(joined["data"]["descriptions"][&id], json!({"name": "Ann"}));

    let mut bob = enter(server, "?roomtone=1&", json!({"sub": "bob", "rooms": ["attic"]}));
    bob.say("HELLO bob");
    bob.expect("HELLO");
    bob.say("ROOM cellar");
    bob.expect("ERROR not for you: this room");
    bob.say("SESSION ann");
    bob.expect("ERROR peer 'ann' not found");
    bob.say("ROOM attic");
    bob.expect(&format!("ROOM_OK {id}"));
    bob.expect(&format!(r#"ROOM_PEER_DESCRIBED {id} {{"name":"Ann"}}"#));

    // Another's id is not to be had, and who may enter rooms alone is not called.
    let mut eve = enter(server, "?", json!({"sub": "eve"}));
    eve.say("HELLO dan");
    eve.expect_close(1008, "your token is for another id");
    let mut dan = enter(server, "?", json!({"rooms": ["cellar"]}));
    dan.say("HELLO dan");
    dan.expect("HELLO");
    let mut cat = enter(server, "?", json!({}));
    cat.say("HELLO cat");
    cat.expect("HELLO");
    cat.say("SESSION dan");
    cat.expect("ERROR not for you: calls");
}

#[test]
fn a_secret_that_anybody_could_guess_is_none() {
    let config = Config { token_secret: Some(Secret("guess".into())), ..config() };
    assert!(matches!(smol::block_on(Server::bind(config)), Err(ServerError::TokenSecret)));
}

#[cfg(feature = "media")]
#[test]
fn a_client_shows_its_token_and_keeps_it_to_itself() {
    use common::{Program, SMALL};
    let server = server();
    let home = tempfile::tempdir().unwrap();
    let url = format!("ws://{server}");
    let join = ["join", "attic", "--headless", "--server", &url];
    let (code, error) = Program::start(home.path(), &[&join[..], &SMALL].concat()).end();
    assert_eq!(
        (code, error.contains("does not let us in: a token is wanted here")),
        (3, true),
        "{code} {error}"
    );
    let claims = |name: &str| token(json!({"sub": name, "description": {"name": name.to_uppercase()}}));
    let mut ann = Program::start_with(
        home.path(),
        &[&join[..], &SMALL, &["--id", "ann"]].concat(),
        &[("ROOMTONE_TOKEN", &claims("ann"))],
    );
    ann.expect("room", &[]);
    let of_bob = claims("bob");
    let mut bob = Program::start(
        home.path(),
        &[&join[..], &SMALL, &["-vv", "--id", "bob", "--token", &of_bob]].concat(),
    );
    assert_eq!(bob.expect("described", &[("peer", "ann")])["description"]["name"], "ANN");
    assert_eq!(ann.expect("described", &[("peer", "bob")])["description"]["name"], "BOB");
    bob.expect("media", &[("peer", "ann"), ("kind", "video")]);
    bob.interrupt();
    bob.end_quietly_of(&[&of_bob]);
    // A pool that does not admit, in either protocol.
    for url in [url.clone(), format!("ssp+{url}/ssp")] {
        let elsewhere = token(json!({"rooms": ["cellar"]}));
        let join = ["join", "attic", "--headless", "--server", &url, "--token", &elsewhere];
        let (code, error) = Program::start(home.path(), &[&join[..], &SMALL].concat()).end();
        assert_eq!((code, error.contains("not for you: this room")), (4, true), "{code} {error}");
    }
}
