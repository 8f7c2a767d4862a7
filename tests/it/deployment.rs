//! A whole deployment: a portal, HAProxy with TLS, a server, a TURN server, a page in Chromium and a native client.

use std::net::SocketAddr;

use crate::common::browser::Browser;
use crate::common::{Client, Program, Received, free_address, needs, wait_for};
use crate::deploy::HaProxy;
use crate::relay::{self, Turn};
use crate::webhook::{BackEnd, secret, signature};
use serde_json::{Value, json};

const TOKEN_SECRET: &str = "the server signs tokens with this secret";
const API_KEY: &str = "the key of the portal, which is long enough";

/// The portal: it signs users in, gives orders to the server, and hears of events.
struct Portal {
    hook: BackEnd,
    api: String,
    /// Number of the last event of the server that runs.
    seq: u64,
}

impl Portal {
    fn new(server: SocketAddr) -> Self {
        Self { hook: BackEnd::start(&[]), api: format!("http://{server}/api/v1"), seq: 0 }
    }

    /// Sends a request to the API; returns the answer, or null for one without a body.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}/{path}", self.api))
            .header("authorization", format!("Bearer {API_KEY}"))
            .body(if body.is_null() { String::new() } else { body.to_string() })
            .unwrap();
        let mut answer = agent.run(request).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        assert!(answer.status().is_success(), "{method} {path}: {} {text}", answer.status());
        if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() }
    }

    /// Returns a token for a user who may enter the room `attic`.
    fn token(&self, user: &str) -> String {
        let claims = json!({"sub": user, "rooms": ["attic"]});
        let answer = self.ask("POST", "tokens", &json!({"valid": 600, "claims": claims}));
        answer["token"].as_str().unwrap().to_owned()
    }

    /// Returns the next event, and checks its signature and its number.
    fn event(&mut self) -> String {
        let message = self.hook.next();
        assert_eq!(message.signatures, [signature(1, &message)]);
        let event = message.json();
        self.seq += 1;
        assert_eq!((&event["seq"], event.get("lost")), (&json!(self.seq), None), "{event}");
        message.shown()
    }

    fn expect(&mut self, events: &[&str]) {
        for event in events {
            assert_eq!(self.event(), *event);
        }
    }

    /// Returns the events up to this one, sorted: two clients that come back at the same time have no order.
    fn events_until(&mut self, count: usize) -> Vec<String> {
        let mut events: Vec<String> = (0..count).map(|_| self.event()).collect();
        events.sort();
        events
    }
}

/// Starts the server at this address.
fn serve(home: &std::path::Path, at: SocketAddr, turn: &Turn, portal: &Portal) -> Program {
    let key = ring::digest::digest(&ring::digest::SHA256, API_KEY.as_bytes());
    let hex: String = key.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let scopes = r#"["read", "moderate", "tokens"]"#;
    let keys = home.join("keys.toml");
    std::fs::write(&keys, format!("[[key]]\nname = \"portal\"\nsha256 = \"{hex}\"\nscopes = {scopes}\n"))
        .unwrap();
    let (at, relay) = (at.to_string(), format!("turn:{}:{}", turn.at, turn.port));
    let serve = ["serve", "--plain", "--listen", &at, "--trust-proxy", "127.0.0.1", "--drain", "1s"];
    let more = ["--turn", &relay, "--api-keys", keys.to_str().unwrap(), "--webhook", &portal.hook.url];
    let hook_secret = secret(1);
    let secrets = [
        ("ROOMTONE_TOKEN_SECRET", TOKEN_SECRET),
        ("ROOMTONE_TURN_SECRET", relay::SECRET),
        ("ROOMTONE_WEBHOOK_SECRET", &hook_secret),
    ];
    let mut server = Program::start_with(home, &[&serve[..], &more].concat(), &secrets);
    server.link();
    server
}

#[test]
fn a_portal_runs_a_service_of_rooms_behind_a_load_balancer() {
    needs!(Browser, LoadBalancer, TurnServer);
    let home = tempfile::tempdir().unwrap();
    let turn = Turn::start(home.path(), true);
    let at = free_address();
    let mut portal = Portal::new(at);
    let server = serve(home.path(), at, &turn, &portal);
    let tls = home.path().join("tls");
    std::fs::create_dir(&tls).unwrap();
    let proxy = HaProxy::start(&tls, &[at]);
    wait_for("the load balancer", || proxy.get("/").filter(|status| *status == 200));
    assert_eq!(proxy.get("/api/v1/rooms"), Some(404), "the API is closed to the outside");
    let public = format!("localhost:{}", proxy.address.port());

    // The page and a native client come with tokens of the portal; media of the native goes through the relay alone.
    let browser = Browser::start_with(&["--use-fake-ui-for-media-stream", "--ignore-certificate-errors"]);
    browser.enter(&format!("https://{public}/?room=attic&token={}", portal.token("page")));
    portal.expect(&["peer.registered page", "room.started attic", "peer.joined 1 page attic"]);
    let (received, cert) = (Received::of_each(), tls.join("cert.pem"));
    let ann = portal.token("ann");
    let mut native = Client::new(home.path(), &["join", "attic"])
        .server(&format!("wss://{public}"))
        .with(&["--ca", cert.to_str().unwrap(), "--relay-only"])
        .variable("ROOMTONE_TOKEN", &ann)
        .receiving(&received)
        .ready();
    portal.expect(&["peer.registered ann", "peer.joined 2 ann attic"]);
    let from_page = received.from("page");
    from_page.expect_moving_and_audible((0, 0), 20);
    browser.expect_of_peer("ann");
    assert_eq!(native.stats()["local_candidate"], "relay");

    // The server is replaced: the call goes on, and both clients come back.
    server.signal("TERM");
    assert_eq!(server.end().0, 0);
    portal.expect(&["server.draining "]);
    let gone: Vec<String> = portal.events_until(5);
    assert!(gone.contains(&"room.ended attic".to_owned()), "{gone:?}");
    portal.seq = 0;
    let _server = serve(home.path(), at, &turn, &portal);
    let back = portal.events_until(5);
    let mut registered: Vec<&String> =
        back.iter().filter(|event| event.starts_with("peer.registered")).collect();
    registered.sort();
    assert_eq!(registered, ["peer.registered ann", "peer.registered page"], "{back:?}");
    let members = portal.ask("GET", "rooms/attic", &Value::Null);
    assert_eq!(members["peers"], json!(["ann", "page"]));
    from_page.expect_moving_and_audible(from_page.mark(), 20);
    assert!(!native.has_seen("peer", &[("state", "reconnecting")]), "the call was interrupted");

    // The portal mutes the page, then removes the native client.
    portal.ask("POST", "peers/page/mute", &json!({"kind": "audio"}));
    browser.wait("document.querySelector('#mute').getAttribute('aria-pressed') === 'true'");
    from_page.expect_silence();
    portal.ask("DELETE", "peers/ann", &json!({"block_for": 60}));
    let (code, error) = native.end();
    assert_eq!((code, error.contains("removed")), (4, true), "{error}");
    portal.expect(&["peer.left 1 ann removed attic", "peer.gone ann removed"]);
    browser.wait("!document.querySelector('.tile[data-peer=ann]')");
}
