//! Presence that the server pushes to clients that watch peers.

use crate::common::websocket::extended_peer as peer;
use crate::common::{ANY, WebSocket, serve};
use roomtone::protocol::Secret;
use roomtone::server::Config;
use roomtone::server::token::{self, TokenConfig};
use serde_json::{Value, json};

const SECRET: &str = "as long as a secret has to be, and longer";

#[test]
fn a_client_hears_who_is_free_busy_or_gone() {
    let server = serve(Config::plain(ANY));
    let mut ann = peer(server, "ann");
    let mut cat = peer(server, "cat");
    cat.say("ROOM attic");
    cat.expect("ROOM_OK ");
    ann.say("PRESENCE bob cat");
    ann.expect("PRESENCE bob gone");
    ann.expect("PRESENCE cat busy");
    let mut bob = peer(server, "bob");
    ann.expect("PRESENCE bob free");
    // The client hears nothing of peers that it does not watch.
    let mut dan = peer(server, "dan");
    dan.say("SESSION bob");
    dan.expect("SESSION_OK");
    bob.expect("SESSION_FROM dan");
    ann.expect("PRESENCE bob busy");
    dan.close(1000, "");
    ann.expect("PRESENCE bob gone");
    // Watching goes on in a room, and a new request replaces the one before.
    ann.say("ROOM cellar");
    ann.expect("ROOM_OK ");
    cat.close(1000, "");
    ann.expect("PRESENCE cat gone");
    ann.say("PRESENCE bob");
    ann.expect("PRESENCE bob gone");
    let _cat = peer(server, "cat");
    let mut bob = peer(server, "bob");
    ann.expect("PRESENCE bob free");
    ann.say(&format!("PRESENCE{}", " bob".repeat(101)));
    ann.expect("ERROR at most 100 peers can be watched");
    // An empty request ends the watch: the client hears nothing of bob's end.
    ann.say("PRESENCE");
    ann.say("ROOM_PEER_LIST");
    ann.expect("ROOM_PEER_LIST ");
    bob.close(1000, "");
    ann.say("PRESENCE a\u{200b}");
    assert!(ann.hear().unwrap().starts_with("ERROR invalid peer uid"));
}

#[test]
fn a_client_without_the_extensions_hears_nothing() {
    let server = serve(Config::plain(ANY));
    let mut ann = WebSocket::connect_to(server, "");
    ann.register("ann");
    ann.say("PRESENCE bob");
    ann.expect("ERROR an extension that the client did not ask for");
    let _bob = peer(server, "bob");
    ann.say("PEER_LIST");
    ann.expect("PEER_LIST bob");
}

#[test]
fn a_peer_that_may_not_be_called_or_is_hidden_is_gone() {
    let tokens = TokenConfig { secrets: vec![Secret(SECRET.into())], ..TokenConfig::default() };
    let server = serve(Config { tokens, ..Config::plain(ANY) });
    let enter = |id: &str, mut claims: Value| {
        claims["exp"] = json!(4_000_000_000_u64);
        claims["sub"] = json!(id);
        let token = token::sign(&claims, &Secret(SECRET.into())).unwrap();
        let mut peer = WebSocket::connect_to(server, &format!("?roomtone=1&token={token}"));
        peer.register(id);
        peer
    };
    let mut ann = enter("ann", json!({"calls": ["bob", "cat"]}));
    let _early = enter("dan", json!({}));
    ann.say("PRESENCE bob cat dan");
    for gone in ["bob", "cat", "dan"] {
        ann.expect(&format!("PRESENCE {gone} gone"));
    }
    let _cat = enter("cat", json!({"hidden": true}));
    let _bob = enter("bob", json!({}));
    ann.expect("PRESENCE bob free");
    let mut of_a_room = enter("eve", json!({"rooms": ["attic"]}));
    of_a_room.say("PRESENCE bob");
    of_a_room.expect("PRESENCE bob gone");
}

#[test]
fn the_next_token_decides_who_sees_whom() {
    let secrets = vec![Secret(SECRET.into())];
    let tokens = TokenConfig { secrets, enforce_expiry: true, ..TokenConfig::default() };
    let server = serve(Config { tokens, ..Config::plain(ANY) });
    let token = |id: &str, mut claims: Value| {
        claims["exp"] = json!(4_000_000_000_u64);
        claims["sub"] = json!(id);
        token::sign(&claims, &Secret(SECRET.into())).unwrap()
    };
    let enter = |id: &str| {
        let mut peer = WebSocket::connect_to(server, &format!("?roomtone=1&token={}", token(id, json!({}))));
        peer.register(id);
        peer
    };
    let renew = |peer: &mut WebSocket, id: &str, claims: Value| {
        peer.say(&format!("TOKEN {}", token(id, claims)));
    };
    let [mut ann, mut bob] = ["ann", "bob"].map(enter);
    ann.say("PRESENCE bob");
    ann.expect("PRESENCE bob free");
    renew(&mut bob, "bob", json!({"hidden": true}));
    ann.expect("PRESENCE bob gone");
    renew(&mut bob, "bob", json!({}));
    ann.expect("PRESENCE bob free");
    renew(&mut ann, "ann", json!({"calls": ["cat"]}));
    let mut heard = [ann.hear().unwrap(), ann.hear().unwrap()];
    heard.sort();
    assert_eq!(heard, ["PRESENCE bob gone", "TOKEN_OK"]);
}
