//! Several servers as one, over a redis-server.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::common::redis::Redis;
use crate::common::websocket::extended_peer;
use crate::common::websocket::peer;
use crate::common::{ANY, Program, WebSocket, needs, serve, wait_for, ws};
use roomtone::engine::{Engine, EngineError};
use roomtone::protocol::Secret;
use roomtone::server::{Config, Server, ServerError, Timeouts};
use serde_json::{Value, json};

const SECRET: &str = "only the back end of this test knows it";

fn engine(url: &str) -> Engine {
    Engine { address: url.parse().unwrap(), prefix: Engine::PREFIX.to_owned() }
}

/// Servers in this process that are one.
fn nodes<const N: usize>(redis: &Redis) -> [SocketAddr; N] {
    [(); N].map(|()| {
        let engine = Some(engine(&redis.url()));
        serve(Config { engine, api_secret: Some(Secret(SECRET.into())), ..Config::plain(ANY) })
    })
}

fn member(server: SocketAddr, id: &str, others: &str) -> WebSocket {
    let mut member = peer(server, id);
    member.say("ROOM attic");
    member.expect(&format!("ROOM_OK {others}"));
    member
}

#[test]
fn peers_of_two_servers_call_each_other() {
    needs!(Redis);
    let redis = Redis::start();
    let [one, two] = nodes(&redis);
    let (mut ann, mut bob) = (peer(one, "ann"), peer(two, "bob"));
    ann.say("PEER_LIST");
    ann.expect("PEER_LIST bob");
    // An id is taken on all servers while its holder is alive: the holder reads, and thereby answers the probe.
    let mut second = WebSocket::connect_to(two, "");
    second.say("HELLO ann");
    let mut ann = std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            ann.expect("first words");
            ann
        });
        second.expect_close(1002, "invalid peer uid");
        bob.say("SESSION ann");
        bob.expect("SESSION_OK");
        bob.say("first words");
        holder.join().unwrap()
    });
    // All at once, and in order.
    (0..200).for_each(|n| ann.say(&format!("text {n}")));
    (0..200).for_each(|n| bob.expect(&format!("text {n}")));
    let mut cat = peer(one, "cat");
    cat.say("SESSION bob");
    cat.expect("ERROR peer 'bob' busy");
    drop(ann);
    bob.expect_close(1000, "");
    // Both ids can be had again, anywhere.
    wait_for("the id", || {
        let mut again = WebSocket::connect_to(one, "");
        again.say("HELLO bob");
        (again.hear()? == "HELLO").then_some(())
    });
}

#[test]
fn a_room_spans_servers_and_protocols() {
    needs!(Redis);
    let redis = Redis::start();
    let [one, two, three] = nodes(&redis);
    let mut ann = member(one, "ann", "");
    let mut bob = member(two, "bob", "ann");
    ann.expect("ROOM_PEER_JOINED bob");
    // An endpoint of a pool, whose protocol is ssp.
    let mut endpoint = WebSocket::connect_to(three, "ssp");
    endpoint.say(&json!({"type": "rtc:join", "data": {"pool": "attic"}}).to_string());
    let joined: Value = serde_json::from_str(&endpoint.hear().unwrap()).unwrap();
    assert_eq!((&joined["type"], &joined["data"]["peers"]), (&json!("rtc:joined"), &json!(["ann", "bob"])));
    let id = joined["data"]["client_id"].as_str().unwrap();
    ann.expect(&format!("ROOM_PEER_JOINED {id}"));
    bob.expect(&format!("ROOM_PEER_JOINED {id}"));
    // Texts between all of them, in order.
    for n in 0..50 {
        ann.say(&format!("ROOM_PEER_MSG bob hello {n}"));
    }
    (0..50).for_each(|n| bob.expect(&format!("ROOM_PEER_MSG ann hello {n}")));
    let offer = json!({"type": "offer", "sdp": "v=0"});
    let offers = json!({"type": "rtc:sdp", "data": {"to": "ann", "description": offer}});
    endpoint.say(&offers.to_string());
    let text = ann.hear().unwrap();
    assert!(text.starts_with(&format!("ROOM_PEER_MSG {id} ")) && text.contains("v=0"), "{text}");
    bob.say("ROOM_PEER_LIST");
    let list = bob.hear().unwrap();
    assert!(list.contains("ann") && list.contains(id), "{list}");
    drop(ann);
    bob.expect("ROOM_PEER_LEFT ann");
    bob.say("ROOM_PEER_MSG ann hello");
    bob.expect("ERROR peer 'ann' not found");
    // The back end closes the room through a server without members of it.
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let url = format!("http://{one}/api/rooms/attic");
    let bearer = format!("Bearer {SECRET}");
    assert_eq!(agent.delete(url).header("authorization", bearer).call().unwrap().status(), 204);
    // The members leave one by one: the endpoint may be the first.
    let first = bob.hear().unwrap();
    if first == format!("ROOM_PEER_LEFT {id}") {
        bob.expect("ERROR the room was closed");
    } else {
        assert_eq!(first, "ERROR the room was closed");
    }
    bob.expect_close(1008, "the room was closed");
}

/// Servers as programs, which can be killed and stopped.
struct Node {
    program: Program,
    url: String,
}

impl Node {
    fn start(home: &std::path::Path, redis: &Redis) -> Self {
        let args = ["serve", "--plain", "--listen", "127.0.0.1:0"];
        let mut program = Program::start_with(home, &args, &[("ROOMTONE_ENGINE", &redis.url())]);
        let url = ws(&program.link());
        Self { program, url }
    }

    fn peer(&self, id: &str) -> WebSocket {
        let mut peer = WebSocket::connect(&self.url);
        peer.register(id);
        peer
    }

    fn member(&self, id: &str, others: &str) -> WebSocket {
        let mut member = self.peer(id);
        member.say("ROOM attic");
        member.expect(&format!("ROOM_OK {others}"));
        member
    }
}

/// Registers and joins as soon as the servers reach the engine again; returns the members that are there.
fn newcomer(url: &str, id: &str) -> (WebSocket, String) {
    wait_for("a place in the room", || {
        let mut member = WebSocket::connect(url);
        member.say(&format!("HELLO {id}"));
        member.hear().filter(|text| text == "HELLO")?;
        member.say("ROOM attic");
        let others = member.hear()?.strip_prefix("ROOM_OK ")?.to_owned();
        Some((member, others))
    })
}

#[test]
fn a_room_survives_its_servers_and_its_engine() {
    needs!(Redis);
    let home = tempfile::tempdir().unwrap();
    let mut redis = Redis::start();
    let [one, two, three] = [(); 3].map(|()| Node::start(home.path(), &redis));
    let mut ann = one.member("ann", "");
    let mut bob = two.member("bob", "ann");
    ann.expect("ROOM_PEER_JOINED bob");
    let cat = three.member("cat", "ann bob");
    ann.expect("ROOM_PEER_JOINED cat");
    bob.expect("ROOM_PEER_JOINED cat");

    // A server is killed, and another one sleeps: their peers leave.
    let since = Instant::now();
    three.program.signal("KILL");
    two.program.signal("STOP");
    let mut left = [ann.hear().unwrap(), ann.hear().unwrap()];
    left.sort();
    assert_eq!(left, ["ROOM_PEER_LEFT bob", "ROOM_PEER_LEFT cat"]);
    assert!(since.elapsed() > Duration::from_secs(6), "a server is not counted as dead too early");
    two.program.signal("CONT");
    // The server that slept closes the peers that others count as gone, so that they connect again.
    bob.expect_close(1012, "the server was cut off: connect again");
    let (mut bob, others) = newcomer(&two.url, "bob");
    assert_eq!(others, "ann");
    ann.expect("ROOM_PEER_JOINED bob");
    drop(cat);

    // The engine loses everything: no peer hears of it, and newcomers meet all.
    redis.command(&["FLUSHALL"]);
    let (mut dan, others) = newcomer(&one.url, "dan");
    assert_eq!(others, "ann bob");
    ann.expect("ROOM_PEER_JOINED dan");
    bob.expect("ROOM_PEER_JOINED dan");
    dan.say("ROOM_PEER_MSG bob after the loss");
    bob.expect("ROOM_PEER_MSG dan after the loss");

    // The engine is away: peers of one server go on, newcomers wait or are refused, and nobody is sent away.
    redis.kill();
    dan.say("ROOM_PEER_MSG ann without the engine");
    ann.expect("ROOM_PEER_MSG dan without the engine");
    let mut early = WebSocket::connect(&one.url);
    early.say("HELLO eve");
    early.expect_close(1013, "the servers cannot reach each other: try again later");
    redis.start_again();
    let (mut eve, others) = newcomer(&two.url, "eve");
    assert_eq!(others, "ann bob dan");
    for one in [&mut ann, &mut bob, &mut dan] {
        one.expect("ROOM_PEER_JOINED eve");
    }
    eve.say("ROOM_PEER_MSG ann over the engine");
    ann.expect("ROOM_PEER_MSG eve over the engine");

    // A server that stops says so at once.
    two.program.signal("TERM");
    let since = Instant::now();
    let mut left = [ann.hear().unwrap(), ann.hear().unwrap()];
    left.sort();
    assert_eq!(left, ["ROOM_PEER_LEFT bob", "ROOM_PEER_LEFT eve"]);
    // A server that is killed counts as gone after 10 s.
    assert!(since.elapsed() < Duration::from_secs(10), "the others need not wait for it");
    assert_eq!(two.program.end().0, 0);
}

/// Tests a client that is registered by the answer of the engine, and says nothing after its request.
#[test]
fn a_silent_client_stays_registered() {
    needs!(Redis);
    let redis = Redis::start();
    let timeouts = Timeouts { hello: Duration::from_secs(2), ..Timeouts::default() };
    let server = serve(Config { engine: Some(engine(&redis.url())), timeouts, ..Config::plain(ANY) });
    let mut ann = peer(server, "ann");
    let since = Instant::now();
    wait_for("the end of the time to register", || (since.elapsed() > 2 * timeouts.hello).then_some(()));
    let mut bob = peer(server, "bob");
    bob.say("SESSION ann");
    bob.expect("SESSION_OK");
    bob.say("first words");
    ann.expect("first words");
}

#[test]
fn a_client_hears_where_peers_of_another_server_are() {
    needs!(Redis);
    let redis = Redis::start();
    let [one, two] = nodes(&redis);
    let mut ann = extended_peer(one, "ann");
    let mut bob = peer(two, "bob");
    ann.say("PRESENCE bob cat");
    ann.expect("PRESENCE bob gone");
    ann.expect("PRESENCE cat gone");
    ann.expect("PRESENCE bob free");
    bob.say("ROOM attic");
    bob.expect("ROOM_OK ");
    ann.expect("PRESENCE bob busy");
    drop(bob);
    ann.expect("PRESENCE bob gone");
}

/// An engine without memory executes the changes that free some, and servers connect to it again; texts to other servers are
/// dropped and newcomers refused until there is memory.
#[test]
fn a_full_engine_frees_memory_and_accepts_newcomers_later() {
    needs!(Redis);
    let redis = Redis::start();
    let [one, two] = nodes(&redis);
    let mut ann = member(one, "ann", "");
    let bob = member(two, "bob", "ann");
    ann.expect("ROOM_PEER_JOINED bob");
    let mut cat = member(two, "cat", "ann bob");
    ann.expect("ROOM_PEER_JOINED cat");
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    ann.say("ROOM_PEER_MSG cat dropped");
    drop(bob);
    ann.expect("ROOM_PEER_LEFT bob");
    cat.expect("ROOM_PEER_LEFT bob");
    for n in 0.. {
        let mut newcomer = WebSocket::connect_to(one, "");
        newcomer.say(&format!("HELLO early{n}"));
        // The server notices the lack with its next text or beat.
        if newcomer.hear().is_none() {
            break;
        }
        assert!(n < 1_000, "newcomers are accepted without end");
    }
    let mut newcomer = WebSocket::connect_to(one, "");
    newcomer.say("HELLO late");
    newcomer.expect_close(1013, "the servers cannot reach each other: try again later");
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    let (_dan, others) = self::newcomer(&format!("ws://{one}"), "dan");
    assert_eq!(others, "ann cat");
    ann.expect("ROOM_PEER_JOINED dan");
    ann.say("ROOM_PEER_MSG cat arrives");
    cat.expect("ROOM_PEER_JOINED dan");
    cat.expect("ROOM_PEER_MSG ann arrives");
}

#[test]
fn an_engine_that_cannot_be_used_says_why() {
    needs!(Redis);
    let start = |url: &str| {
        let config = Config { engine: Some(engine(url)), ..Config::plain(ANY) };
        match smol::block_on(Server::bind(config)) {
            Err(ServerError::Engine(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    let mut redis = Redis::with(&["--requirepass", "the password"]);
    assert!(matches!(start(&redis.url()), EngineError::Denied(_)), "no password");
    let wrong = start(&redis.url().replace("//", "//:a%20guess@"));
    assert!(matches!(wrong, EngineError::Denied(_)), "{wrong:?}");
    assert!(!wrong.to_string().contains("guess"), "{wrong}");
    smol::block_on(engine(&redis.url().replace("//", "//:the%20password@")).check()).unwrap();
    redis.kill();
    let away = start(&redis.url());
    assert!(matches!(away, EngineError::Unreachable(..)) && away.to_string().contains("refused"), "{away}");
    assert!(matches!(start(&Redis::with(&["--cluster-enabled", "yes"]).url()), EngineError::Cluster(_)));
    let full = Redis::with(&["--maxmemory", "1"]);
    assert!(matches!(start(&full.url()), EngineError::Full(_)), "{:?}", start(&full.url()));
}
