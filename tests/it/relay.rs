//! Calls by way of a real TURN server (coturn), over UDP, TCP and TLS.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use crate::common::browser::foreign_page;
use crate::common::{
    Client, External, Namespace, Program, Received, Stage, WebSocket, free_port, needs, wait_for, ws,
};
use roomtone::protocol::Secret;
use roomtone::server::ice::time_limited;

pub(crate) const SECRET: &str = "north/of+here";

/// A TURN server on an address of this machine: libnice reaches none on loopback.
pub(crate) struct Turn {
    _server: External,
    pub(crate) at: IpAddr,
    pub(crate) port: u16,
    tls: u16,
}

impl Turn {
    /// With a user `ann` whose password is `pass:word`, or with a shared secret; its certificate is
    /// `cert.pem` in that folder.
    pub(crate) fn start(home: &Path, shared_secret: bool) -> Self {
        let mut addresses = if_addrs::get_if_addrs().unwrap().into_iter().map(|interface| interface.ip());
        let at = addresses.find(|ip| ip.is_ipv4() && !ip.is_loopback()).expect("an address besides loopback");
        Self::spawn(Command::new("turnserver"), home, at, shared_secret)
    }

    fn spawn(mut command: Command, home: &Path, at: IpAddr, shared_secret: bool) -> Self {
        let (port, tls) = (free_port(), free_port());
        let made = rcgen::generate_simple_self_signed(vec![at.to_string()]).unwrap();
        std::fs::write(home.join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(home.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let auth = match shared_secret {
            true => vec!["--use-auth-secret".to_owned(), format!("--static-auth-secret={SECRET}")],
            false => vec!["--user=ann:pass:word".to_owned()],
        };
        let file = |name: &str| home.join(name).display().to_string();
        command
            .args(["-n", "--no-cli", "--lt-cred-mech", "--realm=test", "--log-file=stdout", "--no-dtls"])
            .args([
                format!("--listening-ip={at}"),
                format!("--relay-ip={at}"),
                format!("--listening-port={port}"),
            ])
            .arg(format!("--tls-listening-port={tls}"))
            .args([format!("--cert={}", file("cert.pem")), format!("--pkey={}", file("key.pem"))])
            .args([format!("--pidfile={}", file("turn.pid")), format!("--db={}", file("turn.db"))])
            .args(auth);
        let mut server = External::start(&mut command);
        server.receives(port);
        [port, tls].into_iter().for_each(|port| server.listens(port));
        Self { _server: server, at, port, tls }
    }
}

#[test]
fn a_call_that_can_only_go_through_the_relay_goes() {
    needs!(TurnServer);
    let stage = Stage::new();
    let turn = Turn::start(stage.home(), false);
    let (password, cert) = (stage.path("password"), stage.path("cert.pem"));
    std::fs::write(&password, "pass:word\n").unwrap();
    for relay in [
        format!("turn:{}:{}", turn.at, turn.port),
        format!("turn:{}:{}?transport=tcp", turn.at, turn.port),
        format!("turns:{}:{}", turn.at, turn.tls),
    ] {
        let user = ["--turn-user", "ann", "--turn-password-file", &password];
        let paths = [&["--turn", &relay, "--relay-only", "--ca", &cert], &user[..]].concat();
        let received = Received::new();
        let _bob = stage.answer("bob").with(&paths).receiving(&received).ready();
        let mut ann = stage.call("bob").with(&paths).start();
        ann.expect("media", &[("kind", "video")]);
        received.expect_moving_and_audible((0, 0), 20);
        let stats = ann.stats();
        assert_eq!(
            (stats["local_candidate"].as_str(), stats["remote_candidate"].as_str()),
            (Some("relay"), Some("relay")),
            "{stats}"
        );
    }
}

#[test]
fn a_relay_that_is_refused_says_why() {
    needs!(TurnServer);
    let home = tempfile::tempdir().unwrap();
    let turn = Turn::start(home.path(), true);
    let relay = format!("turn:{}:{}", turn.at, turn.port);
    let none = format!("turn:127.0.0.1:{}?transport=tcp", free_port());
    let attempt = |options: &[&str]| {
        let client = Client::new(home.path(), &["call", "bob", "--relay-only"]).without_media();
        client.with(options).start().end_with_warnings()
    };
    // A password that is wrong, and one whose time is over.
    for user in ["ann", "1000:roomtone"] {
        let (code, text) = attempt(&["--turn", &relay, "--turn-user", user, "--turn-password", "x"]);
        assert_eq!(code, 6, "{text}");
        assert!(text.contains("it refuses the user and password (401)"), "{text}");
    }
    let (code, text) = attempt(&["--turn", &none, "--turn-secret", SECRET]);
    assert!(code == 6 && text.contains("is not reachable"), "{code}: {text}");
    let (code, text) = attempt(&["--turn", &relay]);
    assert!(code == 6 && text.contains("requires a user name and a password"), "{code}: {text}");
    assert!(!text.contains(SECRET), "{text}");
}

#[test]
fn the_server_tells_the_page_and_the_clients_of_relays_with_fresh_users() {
    needs!(Browser, TurnServer);
    let home = tempfile::tempdir().unwrap();
    let turn = Turn::start(home.path(), true);
    let relay = format!("turn:{}:{}", turn.at, turn.port);
    let stage = Stage::serving(&["--turn", &relay, "--turn-secret", SECRET], &[]);
    let received = Received::new();
    let mut bob = stage.answer("bob").with(&["--relay-only"]).receiving(&received).ready();
    let browser = stage.enter("?relay-only=1&call=bob");
    bob.expect("peer", &[("state", "connected")]);
    received.expect_moving_and_audible((0, 0), 20);
    browser.expect_moving_and_audible();
    // The clock advances by 13 hours in the middle of the call: the page gets new TURN credentials.
    browser.run(
        "const now = Date.now;
         globalThis.user = () => JSON.stringify(roomtone.signalling.iceServers);
         globalThis.first = user();
         Date.now = () => now() + 13 * 3600 * 1000;",
    );
    browser.wait("user() !== first && roomtone.call.isInSession");

    // A client that did not ask for extensions gets no list.
    drop(stage.peer("old"));
    let mut new = WebSocket::connect_to(stage.address(), "?roomtone=1");
    new.say("HELLO new");
    let told = new.hear().unwrap();
    assert!(told.starts_with("ICE_SERVERS [{\"urls\":[\"turn:"), "{told}");
    assert!(!told.contains(SECRET), "{told}");
    new.expect("HELLO");
}

#[test]
fn two_machines_without_a_way_to_each_other_talk_through_the_relay() {
    needs!(Networks, TurnServer);
    let [hub, left, right] = Namespace::around_a_hub();
    assert!(left.ip("route add default via 10.78.1.1") && right.ip("route add default via 10.78.2.1"));
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new("ip");
    command.args(&hub.prefix()[1..]).arg("turnserver");
    let turn = Turn::spawn(command, home.path(), "10.78.1.1".parse().unwrap(), true);
    let relay = format!("turn:10.78.1.1:{}", turn.port);
    let stage = Stage::within(&hub, &["--turn", &relay, "--turn-secret", SECRET]);
    let received = Received::new();
    let _bob = stage.answer("bob").within(&left, "10.78.1.1").receiving(&received).ready();
    let mut ann = stage.call("bob").within(&right, "10.78.2.1").start();
    ann.expect("media", &[("kind", "video")]);
    received.expect_moving_and_audible((0, 0), 20);
    let stats = ann.stats();
    let path = [stats["local_candidate"].as_str(), stats["remote_candidate"].as_str()];
    assert!(path.contains(&Some("relay")), "{stats}");
}

/// Tests an ICE restart of a client that may use relays alone and whose TURN user has expired: no relay is allocated, so that the
/// restart finds no path, and the path of before is kept.
#[test]
fn a_restart_with_an_expired_turn_user_keeps_the_path_that_works() {
    needs!(Browser, TurnServer);
    const VALID: u64 = 30;
    let stage = Stage::new();
    let turn = Turn::start(stage.home(), true);
    // A browser's first start takes long on a cold machine, and is not part of the user's time.
    let browser = stage.empty_page();
    let relay = format!("turn:{}:{}", turn.at, turn.port);
    let since_1970 = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let until = since_1970() + VALID;
    let (user, password) = time_limited(&Secret(SECRET.into()), until);
    let paths = ["--relay-only", "--turn", &relay, "--turn-user", &user, "--turn-password", &password.0];
    let received = Received::new();
    let mut bob = stage.answer("bob").with(&paths).receiving(&received).ready();
    browser.run(&foreign_page(&["audio", "video"], Some("bob")));
    received.expect_moving_and_audible((0, 0), 20);
    assert_eq!(bob.stats()["local_candidate"], "relay");
    wait_for("the end of the TURN user", || (since_1970() > until + 1).then_some(()));
    bob.say(&serde_json::json!({"command": "reconnect"}));
    bob.expect("peer", &[("state", "reconnecting")]);
    bob.expect("peer", &[("state", "connected")]);
    let kept = "page: no new path was found; the one before still works and is kept";
    assert!(bob.has_seen("warning", &[("text", kept)]), "{:?}", bob.all("warning", &[]));
    received.expect_moving_and_audible(received.mark(), 30);
    assert_eq!(browser.run("return errors"), serde_json::json!([]));
}

/// A router between a network of its own and the world, which lets nothing in that was not asked for.
fn router(world: &Namespace, home: &Namespace, n: u8) -> Namespace {
    let router = Namespace::new();
    let (cable, inside) = (format!("world{n}"), format!("home{n}"));
    world.join(&router, &cable, &format!("10.81.{n}.1"), &format!("10.81.{n}.2"));
    router.join(home, &inside, &format!("192.168.{n}.1"), &format!("192.168.{n}.2"));
    assert!(router.ip(&format!("route add default via 10.81.{n}.1")));
    assert!(home.ip(&format!("route add default via 192.168.{n}.1")));
    let rules = format!(
        "table ip nat {{ chain out {{ type nat hook postrouting priority 100; oifname {cable}x masquerade; }}; }}; \
         table ip guard {{ chain in {{ type filter hook input priority 0; iifname {cable}x ip protocol udp drop; }}; }}"
    );
    assert!(router.forwards() && router.filters(&rules));
    router
}

#[test]
fn two_behind_routers_find_each_other_by_stun() {
    needs!(Routers, TurnServer);
    let (world, left, right) = (Namespace::new(), Namespace::new(), Namespace::new());
    let _routers = (router(&world, &left, 1), router(&world, &right, 2));
    assert!(world.forwards());
    let home = tempfile::tempdir().unwrap();
    let [program, prefix @ ..] = world.prefix();
    let mut command = Command::new(program);
    command.args(prefix).arg("turnserver");
    let stun = Turn::spawn(command, home.path(), "10.81.1.1".parse().unwrap(), false);
    let stage = Stage::within(&world, &[]);
    let address = format!("stun:{}:{}", stun.at, stun.port);
    let paths = ["--stun", &address, "--no-ice-tcp"];
    let received = Received::new();
    let bob = stage.answer("bob").within(&left, "10.81.1.1").with(&paths);
    let _bob = bob.receiving(&received).ready();
    let mut ann = stage.call("bob").within(&right, "10.81.1.1").with(&paths).start();
    received.expect_moving_and_audible((0, 0), 20);
    let path = ann.stats();
    let far = path["remote_candidate"].as_str();
    assert!(matches!(far, Some("srflx" | "prflx")), "{path}");
}

#[test]
fn only_the_interface_that_is_named_is_used() {
    needs!(Networks);
    let (left, right) = (Namespace::new(), Namespace::new());
    left.join(&right, "one", "10.82.1.1", "10.82.1.2");
    left.join(&right, "two", "10.82.2.1", "10.82.2.2");
    let (stage, received) = (Stage::within(&left, &[]), Received::new());
    // Signalling goes over the one, media is to go over the other.
    let bob = stage.answer("bob").within(&left, "10.82.1.1").with(&["--interface", "two"]);
    let _bob = bob.receiving(&received).ready();
    let _ann = stage.call("bob").within(&right, "10.82.1.1").with(&["--interface", "twox"]).start();
    received.expect_moving_and_audible((0, 0), 20);
    let (one, two) = (left.received("one"), left.received("two"));
    assert!(two > 3 * one, "{one} {two}");
}

#[test]
fn no_way_at_all_says_what_was_tried() {
    needs!(Networks);
    let [hub, left, right] = Namespace::around_a_hub();
    let stage = Stage::within(&hub, &[]);
    let mut bob = stage.answer("bob").within(&left, "10.78.1.1").ready();
    let mut ann = stage.call("bob").within(&right, "10.78.2.1").with(&["--no-ice-tcp"]).start();
    // Whichever finds out first tells; to the other it hung up.
    let of_ann = ann.expect("ended", &[])["reason"].to_string();
    assert_eq!(ann.end().0, 6);
    let of_bob = wait_for("the end of the call", || {
        let over = [bob.all("peer", &[("state", "failed")]), bob.all("peer", &[("state", "left")])].concat();
        over.first().map(|event| event["reason"].to_string())
    });
    let ours = [
        "candidates of ours: 1 host; of the peer: 1 host",
        "candidates of ours: 1 host, 2 host over TCP; of the peer: 1 host; ",
    ];
    let told: Vec<&String> = [&of_ann, &of_bob]
        .into_iter()
        .zip(ours)
        .filter(|(reason, ours)| {
            reason.contains("no network path to the peer was found")
                && reason.contains(ours)
                && reason.contains("usually needs a TURN server")
        })
        .map(|(reason, _)| reason)
        .collect();
    assert!(!told.is_empty(), "{of_ann} {of_bob}");
}

#[test]
fn what_is_logged_holds_no_addresses_no_descriptions_and_no_secrets() {
    needs!(TurnServer);
    let home = tempfile::tempdir().unwrap();
    let turn = Turn::start(home.path(), true);
    let relay = format!("turn:{}:{}", turn.at, turn.port);
    let log = [("ROOMTONE_LOG", "info")];
    let serve = ["serve", "--listen", "127.0.0.1:0", "--turn", &relay, "--turn-secret", SECRET];
    let mut server = Program::start_with(home.path(), &serve, &log);
    let url = ws(&server.link());
    let client =
        |command: &[&str]| Client::new(home.path(), command).server(&url).variable("ROOMTONE_LOG", "info");
    let mut bob = client(&["answer", "--id", "bob"]).ready();
    let mut ann = client(&["call", "bob"]).start();
    ann.expect("media", &[("kind", "video")]);
    // A useless message of a peer is reported, too.
    let mut eve = WebSocket::connect(&url);
    eve.register("eve");
    eve.say(&format!("SESSION x {} a=ice-pwd:geheim", turn.at));
    ann.say(&serde_json::json!({"command": "say", "text": "between us"}));
    bob.expect("message", &[]);
    ann.say(&serde_json::json!({"command": "reconnect"}));
    bob.expect("peer", &[("state", "reconnecting")]);
    bob.expect("peer", &[("state", "connected")]);
    ann.say(&serde_json::json!({"command": "hang-up"}));
    ann.end_quietly_of(&[&turn.at.to_string(), "candidate:", "a=", SECRET, "between us", "fingerprint"]);
    bob.interrupt();
    bob.end_quietly_of(&[&turn.at.to_string(), "candidate:", "a=", SECRET, "between us", "fingerprint"]);
    server.interrupt();
    server.end_quietly_of(&[&turn.at.to_string(), "candidate:", "a=", SECRET, "between us", "geheim"]);
}
