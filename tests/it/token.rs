//! Tokens: admission, ids and rooms.

use std::net::SocketAddr;

use crate::common::{ANY, WebSocket, serve, upgrade};
use roomtone::protocol::Secret;
use roomtone::server::token::{self, TokenConfig};
use roomtone::server::{Config, Server, ServerError};
use serde_json::{Value, json};

const SECRET: &str = "as long as a secret has to be, and longer";

fn config() -> Config {
    let tokens = TokenConfig { secrets: vec![Secret(SECRET.into())], ..TokenConfig::default() };
    Config { tokens, ..Config::plain(ANY) }
}

fn server() -> SocketAddr {
    serve(config())
}

fn token(claims: Value) -> String {
    let mut claims = claims;
    if claims.get("exp").is_none() {
        claims["exp"] = json!(4_000_000_000_u64);
    }
    token::sign(&claims, &Secret(SECRET.into())).unwrap()
}

fn enter(server: SocketAddr, path: &str, claims: Value) -> WebSocket {
    WebSocket::connect_to(server, &format!("{path}token={}", token(claims)))
}

/// Sends an HTTP request; returns the status and the body of the answer.
fn http(method: &str, url: &str, secret: Option<&str>, body: &str) -> (u16, String) {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    if let Some(secret) = secret {
        request = request.header("authorization", format!("Bearer {secret}"));
    }
    let mut answer = agent.run(request.body(body.to_owned()).unwrap()).unwrap();
    let wait = answer.headers().get("retry-after").map(|wait| wait.to_str().unwrap().parse::<u32>().unwrap());
    let status = answer.status().as_u16();
    assert_eq!(wait.is_some(), status == 429, "{status} {wait:?}");
    assert!(wait.is_none_or(|wait| (1..=5).contains(&wait)), "{wait:?}");
    (status, answer.body_mut().read_to_string().unwrap())
}

#[test]
fn nobody_comes_in_without_a_good_token() {
    let server = server();
    for path in ["", "ssp", "socket.io/?EIO=4&transport=websocket"] {
        let (code, words) = upgrade(server, path);
        assert_eq!((code, words.contains("a token is wanted")), (401, true), "{path}: {words}");
    }
    for (claims, why) in [
        (json!({"exp": 1}), "has expired"),
        (json!({"nbf": 3_000_000_000_u64}), "not valid yet"),
        (json!({"nbf": "3000000000"}), "nbf has the wrong type"),
    ] {
        let (code, words) = upgrade(server, &format!("ssp?token={}", token(claims)));
        assert_eq!((code, words.contains(why)), (401, true), "{words}");
    }
    assert_eq!(upgrade(server, "ssp?token=e30.e30.e30").0, 401);
    // By polling too; and what is no way in is there for all.
    let get = |path: &str| http("GET", &format!("http://{server}/{path}"), None, "").0;
    assert_eq!(get("socket.io/?EIO=4&transport=polling"), 401);
    assert_eq!(get(&format!("socket.io/?EIO=4&transport=polling&token={}", token(json!({})))), 200);
    assert_eq!((get("health"), get("")), (200, 200));
    // The header tells clients that were admitted before that their token has ended. They take a plain 401 for a
    // restart of the server, and retry.
    let asks = |path: &str| {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let answer =
            agent.get(format!("http://{server}/socket.io/?EIO=4&transport=polling{path}")).call().unwrap();
        answer.headers()["www-authenticate"].to_str().unwrap().to_owned()
    };
    assert_eq!(asks(""), "Bearer");
    for claims in [json!({"exp": 1}), json!({"nbf": 3_000_000_000_u64})] {
        assert_eq!(asks(&format!("&token={}", token(claims))), r#"Bearer error="invalid_token""#);
    }
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
    bob.register("bob");
    bob.say("ROOM cellar");
    bob.expect("ERROR not for you: this room");
    bob.say("SESSION ann");
    bob.expect("ERROR not for you: calls");
    bob.say("ROOM attic");
    bob.expect(&format!("ROOM_OK {id}"));
    bob.expect(&format!(r#"ROOM_PEER_DESCRIBED {id} {{"name":"Ann"}}"#));

    // Another's id is not to be had, and who may enter rooms alone is not called.
    let mut eve = enter(server, "?", json!({"sub": "eve"}));
    eve.say("HELLO dan");
    eve.expect_close(1008, "your token is for another id");
    let mut dan = enter(server, "?", json!({"rooms": ["cellar"]}));
    dan.register("dan");
    let mut cat = enter(server, "?", json!({}));
    cat.register("cat");
    cat.say("SESSION dan");
    cat.expect("ERROR peer 'dan' not found");
}

#[test]
fn a_pool_knows_somebody_by_the_tokens_name_alone() {
    let server = server();
    let join = |socket: &mut WebSocket, kind: &str| {
        socket.say(r#"{"type":"rtc:join","data":{"pool":"attic"}}"#);
        let event: Value = serde_json::from_str(&socket.hear().unwrap()).unwrap();
        assert_eq!(event["type"], kind, "{event}");
        event["data"].clone()
    };
    let mut ann = enter(server, "ssp?", json!({"sub": "ann"}));
    assert_eq!(join(&mut ann, "rtc:joined")["client_id"], "ann");
    // The holder answers the server's ping while it reads, and therefore keeps its id.
    let holder = std::thread::spawn(move || ann.hear().unwrap());
    let mut again = enter(server, "ssp?", json!({"sub": "ann"}));
    assert_eq!(join(&mut again, "rtc:error")["reason"], "the id is in use");
    let mut bob = enter(server, "ssp?", json!({"sub": "bob"}));
    assert_eq!(join(&mut bob, "rtc:joined")["peers"], json!(["ann"]));
    assert!(holder.join().unwrap().contains(r#""id":"bob""#));
}

#[test]
fn a_token_for_a_room_learns_of_nobody_elsewhere() {
    let server = server();
    let mut free = enter(server, "?roomtone=1&", json!({"sub": "free"}));
    free.register("free");
    let mut ann = enter(server, "?roomtone=1&", json!({"sub": "ann", "rooms": ["attic"]}));
    ann.register("ann");
    ann.say("PEER_LIST");
    ann.expect("PEER_LIST ");
    for peer in ["free", "nobody"] {
        ann.say(&format!("SESSION {peer}"));
        ann.expect("ERROR not for you: calls");
    }
    ann.say("ROOM attic");
    ann.expect("ROOM_OK ");
    for peer in ["free", "nobody"] {
        ann.say(&format!("ROOM_PEER_MSG {peer} hi"));
        ann.expect(&format!("ERROR peer '{peer}' is not in the room"));
    }
    let mut bob = enter(server, "ssp?", json!({"sub": "bob", "rooms": ["attic"]}));
    bob.say(r#"{"type":"rtc:join","data":{"pool":"attic"}}"#);
    bob.hear().unwrap();
    let told = ["free", "nobody"].map(|peer| {
        let sdp = json!({"to": peer, "description": {"type": "offer", "sdp": "v=0"}});
        bob.say(&json!({"type": "rtc:sdp", "data": sdp}).to_string());
        bob.hear().unwrap().replace(peer, "")
    });
    assert_eq!(told[0], told[1]);
    // A client that may call does not learn of clients that may not be called, and a request without a token gets no
    // count.
    free.say("PEER_LIST");
    free.expect("PEER_LIST ");
    for peer in ["ann", "nobody"] {
        free.say(&format!("SESSION {peer}"));
        free.expect(&format!("ERROR peer '{peer}' not found"));
    }
    assert_eq!(http("GET", &format!("http://{server}/health"), None, ""), (200, "OK\n".to_owned()));
}

#[test]
fn a_session_of_socket_io_is_useless_with_another_token() {
    let server = server();
    let (ann, eve) = (token(json!({"sub": "ann"})), token(json!({"sub": "eve"})));
    let url = |query: &str| format!("http://{server}/socket.io/?EIO=4&transport=polling{query}");
    let (_, open) = http("GET", &url(&format!("&token={ann}")), None, "");
    let open: Value = serde_json::from_str(open.strip_prefix('0').unwrap()).unwrap();
    let sid = open["sid"].as_str().unwrap();
    for other in [format!("&sid={sid}&token={eve}"), format!("&sid={sid}")] {
        for (method, body) in [("GET", ""), ("POST", "40")] {
            let (status, words) = http(method, &url(&other), None, body);
            assert_eq!((status, words.contains("Session ID unknown")), (400, true), "{words}");
        }
        let (status, words) = upgrade(server, &format!("socket.io/?EIO=4&transport=websocket{other}"));
        assert_eq!((status, words.contains("Session ID unknown")), (400, true), "{words}");
    }
    // The owner may send the token in the query or in the header.
    let own = url(&format!("&sid={sid}&token={ann}"));
    assert_eq!(http("POST", &own, None, "40"), (200, "ok".to_owned()));
    assert_eq!(http("GET", &url(&format!("&sid={sid}")), Some(&ann), "").0, 200);
}

#[test]
fn who_guesses_secrets_is_slowed() {
    let api_secret = Some(Secret(SECRET.into()));
    let server = serve(Config { api_secret, ..config() });
    let api = |secret: &str| http("GET", &format!("http://{server}/api/rooms"), Some(secret), "").0;
    let poll = |token: &str| {
        http("GET", &format!("http://{server}/socket.io/?EIO=4&transport=polling&token={token}"), None, "").0
    };
    assert_eq!(api(SECRET), 200);
    let slowed = |ask: &dyn Fn() -> u16| {
        let answers: Vec<u16> = (0..40).map(|_| ask()).take_while(|status| *status == 401).collect();
        assert!((10..30).contains(&answers.len()), "{} guesses", answers.len());
        assert_eq!(ask(), 429);
    };
    // An expired token with a valid signature does not count as a guess.
    let old = token(json!({"exp": 1}));
    assert!((0..40).all(|_| poll(&old) == 401));
    slowed(&|| poll("e30.e30.e30"));
    // Other clients may share the guesser's address, behind a proxy: a valid token is still accepted.
    assert_eq!(poll(&token(json!({}))), 200);
    // Guesses of the API secret are counted separately.
    assert_eq!(api(SECRET), 200);
    slowed(&|| api("guess"));
    assert_eq!(api(SECRET), 429, "whoever is slowed is not listened to");
    // A request without a secret does not count as a guess.
    assert_eq!(http("GET", &format!("http://{server}/api/rooms"), None, "").0, 401);
}

#[test]
fn a_secret_that_anybody_could_guess_is_none() {
    let guess = || Secret("x".repeat(31));
    let tokens = TokenConfig { secrets: vec![Secret(SECRET.into()), guess()], ..TokenConfig::default() };
    for config in [Config { tokens, ..config() }, Config { api_secret: Some(guess()), ..config() }] {
        let error = smol::block_on(Server::bind(config)).unwrap_err();
        assert!(
            matches!(error, ServerError::ShortSecret(_)) && error.to_string().contains("fewer than 32 bytes")
        );
    }
}

#[cfg(feature = "media")]
#[test]
fn a_client_shows_its_token_and_keeps_it_to_itself() {
    use crate::common::Client;
    let server = server();
    let home = tempfile::tempdir().unwrap();
    let url = format!("ws://{server}");
    let client = |url: &str| Client::new(home.path(), &["join", "attic"]).server(url);
    let (code, error) = client(&url).start().end();
    assert_eq!(
        (code, error.contains("does not let us in: a token is wanted here")),
        (4, true),
        "{code} {error}"
    );
    let claims = |name: &str| token(json!({"sub": name, "description": {"name": name.to_uppercase()}}));
    let mut ann = client(&url).id("ann").variable("ROOMTONE_TOKEN", &claims("ann")).ready();
    let of_bob = claims("bob");
    let mut bob = client(&url).id("bob").with(&["-vv", "--token", &of_bob]).start();
    assert_eq!(bob.expect("described", &[("peer", "ann")])["description"]["name"], "ANN");
    assert_eq!(ann.expect("described", &[("peer", "bob")])["description"]["name"], "BOB");
    bob.expect("media", &[("peer", "ann"), ("kind", "video")]);
    bob.interrupt();
    bob.end_quietly_of(&[&of_bob]);
    // A pool that does not admit, in either protocol.
    for url in [url.clone(), format!("ssp+{url}/ssp")] {
        let elsewhere = token(json!({"rooms": ["cellar"]}));
        let (code, error) = client(&url).with(&["--token", &elsewhere]).start().end();
        assert_eq!((code, error.contains("not for you: this room")), (4, true), "{code} {error}");
    }
}

#[test]
fn a_moderator_removes_a_member_and_asks_it_to_mute() {
    let server = server();
    let peer = |claims: Value, query: &str| {
        let name = claims["sub"].as_str().unwrap().to_owned();
        let mut peer = enter(server, query, claims);
        peer.register(&name);
        peer
    };
    let mut ann = peer(json!({"sub": "ann", "moderate": ["attic"]}), "?roomtone=1&");
    ann.say("ROOM attic");
    ann.expect("ROOM_OK ");
    ann.expect("ROOM_MODERATOR");
    let mut bob = peer(json!({"sub": "bob"}), "?roomtone=1&");
    bob.say("ROOM attic");
    bob.expect("ROOM_OK ann");
    ann.expect("ROOM_PEER_JOINED bob");
    let mut cat = peer(json!({"sub": "cat", "moderate": ["cellar"]}), "?");
    cat.say("ROOM attic");
    cat.expect("ROOM_OK ann bob");
    ann.expect("ROOM_PEER_JOINED cat");
    bob.expect("ROOM_PEER_JOINED cat");

    ann.say("ROOM_PEER_MUTE bob audio");
    bob.expect("MUTE audio ann");
    // A member without extensions gets no word that it does not know.
    ann.say("ROOM_PEER_MUTE cat video");
    ann.say("ROOM_PEER_MSG cat {}");
    cat.expect("ROOM_PEER_MSG ann {}");
    for order in ["ROOM_PEER_MUTE ann audio", "ROOM_PEER_REMOVE ann"] {
        for peer in [&mut bob, &mut cat] {
            peer.say(order);
            peer.expect("ERROR not for you: moderation of this room");
        }
    }
    for (order, error) in [
        ("ROOM_PEER_MUTE bob all", "'audio' or 'video' is wanted"),
        ("ROOM_PEER_MUTE bob", "'ROOM_PEER_MUTE' needs the id of a peer and a kind"),
        ("ROOM_PEER_REMOVE", "'ROOM_PEER_REMOVE' needs the id of a peer"),
        ("ROOM_PEER_REMOVE dan", "peer 'dan' is not in the room"),
        ("ROOM_PEER_REMOVE ann", "peer 'ann' is not in the room"),
    ] {
        ann.say(order);
        ann.expect(&format!("ERROR {error}"));
    }
    ann.say("ROOM_PEER_REMOVE bob");
    ann.expect("ROOM_PEER_LEFT bob");
    cat.expect("ROOM_PEER_LEFT bob");
    bob.expect_close(1008, "removed by a moderator");
}

/// Returns the claim `exp` of a token whose connection ends in so many seconds: a token is accepted for 30 s longer.
fn soon(seconds: u64) -> u64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + seconds - 30
}

fn enforcing() -> SocketAddr {
    serve(enforcing_config())
}

fn enforcing_config() -> Config {
    let secrets = vec![Secret(SECRET.into())];
    Config { tokens: TokenConfig { secrets, enforce_expiry: true, ..TokenConfig::default() }, ..config() }
}

/// Waits for the announcement that the token ends.
fn expect_expiry(peer: &mut WebSocket, at_most: u64) {
    let line = peer.hear().unwrap();
    let seconds: u64 =
        line.strip_prefix("TOKEN_EXPIRES ").unwrap_or_else(|| panic!("{line}")).parse().unwrap();
    assert!(seconds <= at_most, "{line}");
}

#[test]
fn a_connection_ends_with_its_token_unless_it_is_renewed() {
    let server = enforcing();
    let mut peers = ["ann", "bob"].map(|id| {
        let mut peer = enter(server, "?roomtone=1&", json!({"exp": soon(15), "sub": id}));
        peer.register(id);
        expect_expiry(&mut peer, 15);
        peer
    });
    let [ann, bob] = &mut peers;
    ann.say("SESSION bob");
    ann.expect("SESSION_OK");
    bob.expect("SESSION_FROM ann");
    // In a call, too: neither side hears of the other's token.
    let refused = |peer: &mut WebSocket, token: &str, why: &str| {
        peer.say(&format!("TOKEN {token}"));
        let line = peer.hear().unwrap();
        assert!(line.starts_with("TOKEN_REFUSED ") && line.contains(why), "{line}");
    };
    refused(ann, "nonsense", "the token is not good");
    refused(ann, &token(json!({"exp": 1})), "has expired");
    refused(ann, &token(json!({"sub": "bob"})), "another id");
    for (peer, id) in [(&mut *ann, "ann"), (bob, "bob")] {
        peer.say(&format!("TOKEN {}", token(json!({"exp": soon(1000), "sub": id}))));
        peer.expect("TOKEN_OK");
    }
    let [mut ann, mut bob] = peers;
    // A client that does not renew its token: the plain protocol has no words for it. Its token ends after the first ones of ann
    // and bob.
    let mut cat = enter(server, "?", json!({"exp": soon(16)}));
    cat.register("cat");
    let mut dan = enter(server, "ssp?", json!({"exp": soon(16)}));
    dan.say(r#"{"type":"rtc:join","data":{"pool":"attic"}}"#);
    assert!(dan.hear().unwrap().contains("rtc:joined"));
    cat.expect_close(1008, "your token has ended");
    dan.expect_close(1008, "your token has ended");
    ann.say("still here");
    bob.expect("still here");
}

#[test]
fn guesses_of_others_at_an_address_end_no_connection() {
    let trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    let server = serve(Config { trusted_proxies, ..enforcing_config() });
    let client = "192.0.2.7";
    let query = format!("?roomtone=1&token={}", token(json!({"sub": "ann"})));
    let mut ann = WebSocket::connect_for(client, server, &query);
    ann.register("ann");
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let guess = || {
        let request = agent.get(format!("http://{server}/admission")).header("x-forwarded-for", client);
        request.header("authorization", "Bearer e30.e30.e30").call().unwrap().status().as_u16()
    };
    assert!((0..40).any(|_| guess() == 429), "no limit");
    ann.say(&format!("TOKEN {}", token(json!({"sub": "ann"}))));
    ann.expect("TOKEN_OK");
    // The guesses of the client itself count.
    let mut is_slowed = || {
        ann.say("TOKEN e30.e30.e30");
        ann.hear().unwrap().starts_with("TOKEN_REFUSED too many wrong secrets")
    };
    assert!((0..40).any(|_| is_slowed()), "no limit");
}

#[test]
fn a_renewed_token_decides_what_is_allowed() {
    let server = enforcing();
    let mut ann = enter(server, "?roomtone=1&", json!({"exp": soon(20), "sub": "ann"}));
    ann.register("ann");
    expect_expiry(&mut ann, 20);
    ann.say("ROOM attic");
    ann.expect("ROOM_OK ");
    ann.say(&format!("TOKEN {}", token(json!({"sub": "ann", "rooms": ["cellar"]}))));
    ann.expect("TOKEN_REFUSED the token is not for your room");
    let mut bob = enter(server, "?", json!({}));
    bob.register("bob");
    bob.say("ROOM attic");
    bob.expect("ROOM_OK ann");
    ann.expect("ROOM_PEER_JOINED bob");
    ann.say("ROOM_PEER_REMOVE bob");
    ann.expect("ERROR not for you: moderation of this room");
    ann.say(&format!("TOKEN {}", token(json!({"sub": "ann", "moderate": true}))));
    let mut heard = [ann.hear().unwrap(), ann.hear().unwrap()];
    heard.sort();
    assert_eq!(heard, ["ROOM_MODERATOR", "TOKEN_OK"]);
    ann.say("ROOM_PEER_REMOVE bob");
    bob.expect_close(1008, "removed by a moderator");
}

#[test]
fn without_enforcement_a_token_counts_at_the_connection() {
    let server = server();
    let mut ann = enter(server, "?roomtone=1&", json!({"exp": soon(31)}));
    ann.register("ann");
    ann.say(&format!("TOKEN {}", token(json!({}))));
    ann.expect("TOKEN_REFUSED this server does not end connections with their tokens");
    // Longer than the token lasts.
    let mut bob = enter(enforcing(), "?", json!({"exp": soon(10)}));
    bob.register("bob");
    bob.expect_close(1008, "your token has ended");
    ann.say("PEER_LIST");
    ann.expect("PEER_LIST ");
}
