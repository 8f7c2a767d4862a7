//! Three servers that are one service behind HAProxy, while servers and the engine fail: a page in Chromium and native
//! clients in one room.

use std::net::SocketAddr;
use std::path::Path;

use crate::common::browser::Browser;
use crate::common::redis::Redis;
use crate::common::{Client, Program, Received, WebSocket, alone, free_address, needs, wait_for};
use crate::deploy::HaProxy;

/// A server, with the address at which HAProxy reaches it.
struct Node {
    program: Program,
    address: SocketAddr,
}

impl Node {
    fn start(home: &Path, redis: &Redis, address: SocketAddr) -> Self {
        let listen = address.to_string();
        let args = ["serve", "--plain", "--listen", &listen, "--trust-proxy", "127.0.0.1", "--drain", "3s"];
        let mut program = Program::start_with(home, &args, &[("ROOMTONE_ENGINE", &redis.url())]);
        program.link();
        Self { program, address }
    }

    /// Returns the number of clients that are connected to it.
    fn connections(&self) -> usize {
        let health = ureq::get(format!("http://{}/health", self.address)).call().unwrap();
        let text = health.into_body().read_to_string().unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("connections "));
        count.unwrap().parse().unwrap()
    }

    /// Enters a room as soon as the server accepts newcomers; returns its members, too.
    fn member(&self, room: &str, id: &str) -> (WebSocket, String) {
        wait_for("a place in the room", || {
            let mut member = WebSocket::connect_to(self.address, "");
            member.say(&format!("HELLO {id}"));
            member.hear().filter(|text| text == "HELLO")?;
            member.say(&format!("ROOM {room}"));
            let others = member.hear()?.strip_prefix("ROOM_OK ")?.to_owned();
            Some((member, others))
        })
    }
}

/// The servers, HAProxy in front of them, and the room `attic`.
struct Service {
    home: tempfile::TempDir,
    proxy: HaProxy,
    nodes: Vec<Node>,
}

impl Service {
    fn start(redis: &Redis) -> Self {
        let home = tempfile::tempdir().unwrap();
        let nodes: Vec<Node> = (0..3).map(|_| Node::start(home.path(), redis, free_address())).collect();
        let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
        let proxy = HaProxy::start(home.path(), &addresses);
        wait_for("the load balancer", || proxy.get("/").filter(|status| *status == 200));
        Self { home, proxy, nodes }
    }

    /// Enters the room through HAProxy.
    fn join(&self, id: &str, received: &Received) -> Program {
        let certificate = self.home.path().join("cert.pem");
        Client::new(self.home.path(), &["join", "attic"])
            .id(id)
            .server(&format!("wss://localhost:{}", self.proxy.address.port()))
            .with(&["--ca", certificate.to_str().unwrap()])
            .receiving(received)
            .ready()
    }

    /// Opens the page in a browser through HAProxy, and enters the room.
    fn enter(&self, id: &str) -> Browser {
        let browser = Browser::start_with(&["--use-fake-ui-for-media-stream", "--ignore-certificate-errors"]);
        browser.enter(&format!("https://localhost:{}/?room=attic&id={id}", self.proxy.address.port()));
        browser
    }

    /// Returns the server that has got a further client by `change`.
    fn arrival<T>(&self, change: impl FnOnce() -> T) -> (usize, T) {
        let before: Vec<usize> = self.nodes.iter().map(Node::connections).collect();
        let changed = change();
        let at = wait_for("the server of the client", || {
            self.nodes.iter().zip(&before).position(|(node, before)| node.connections() > *before)
        });
        (at, changed)
    }

    /// Waits until HAProxy sends new clients to this server, which has none, and the server accepts them.
    fn expect_newcomers_at(&self, node: usize) {
        let node = &self.nodes[node];
        let expect = |count: usize| {
            wait_for("the number of clients", || (node.connections() == count).then_some(()));
        };
        expect(0);
        wait_for("a newcomer at the server", || {
            let newcomer = self.proxy.try_peer("prober")?;
            let has_arrived = node.connections() == 1;
            drop(newcomer);
            has_arrived.then_some(())
        });
        expect(0);
    }

    /// Sends texts between newcomers of two servers in a room, through the servers alone.
    fn expect_chat(&self, [one, other]: [usize; 2], room: &str) {
        let (mut ann, _) = self.nodes[one].member(room, "ann-2");
        let (mut bob, others) = self.nodes[other].member(room, "bob-2");
        assert_eq!(others, "ann-2");
        ann.expect("ROOM_PEER_JOINED bob-2");
        bob.say("ROOM_PEER_MSG ann-2 are you there?");
        ann.expect("ROOM_PEER_MSG bob-2 are you there?");
        ann.say("ROOM_PEER_MSG bob-2 I am");
        bob.expect("ROOM_PEER_MSG ann-2 I am");
    }
}

/// The members of the room that stay, with the media that the natives receive.
struct Members {
    ann: Received,
    bob: Received,
    page: Browser,
}

impl Members {
    /// Lets a newcomer enter, and expects moving video between it and each member.
    fn meet(&self, service: &Service, id: &str) -> Program {
        let received = Received::of_each();
        let newcomer = service.join(id, &received);
        for member in ["ann", "bob", "page"] {
            received.from(member).expect_moving((0, 0), 15);
        }
        for member in [&self.ann, &self.bob] {
            member.from(id).expect_moving((0, 0), 15);
        }
        self.page.expect_of_peer(id);
        newcomer
    }
}

#[test]
fn newcomers_meet_all_members_after_each_fault_of_a_server_and_the_engine() {
    needs!(Browser, LoadBalancer, Redis);
    let _alone = alone();
    let mut redis = Redis::start();
    let service = Service::start(&redis);

    // HAProxy gives each native a server of its own.
    let (ann_received, bob_received) = (Received::of_each(), Received::of_each());
    let (ann_at, _ann) = service.arrival(|| service.join("ann", &ann_received));
    let (bob_at, _bob) = service.arrival(|| service.join("bob", &bob_received));
    assert_ne!(ann_at, bob_at);
    let third = 3 - ann_at - bob_at;
    let members = Members { ann: ann_received, bob: bob_received, page: service.enter("page") };
    members.ann.from("page").expect_moving((0, 0), 15);
    members.page.expect_of_peer("bob");
    members.bob.from("ann").expect_moving((0, 0), 15);

    // A server is killed: its clients come back at the others.
    service.nodes[bob_at].program.signal("KILL");
    members.meet(&service, "cat").quit();
    service.expect_chat([ann_at, third], "killed");

    // Another one stops: HAProxy notices it, and its clients come back at the last one.
    wait_for("a client to lose its server", || (service.nodes[third].connections() > 0).then_some(()));
    service.nodes[third].program.signal("STOP");
    members.meet(&service, "dan").quit();
    service.expect_chat([ann_at, ann_at], "stopped");
    service.nodes[third].program.signal("CONT");
    service.expect_newcomers_at(third);

    // The engine restarts without its data.
    let mark = members.ann.from("page").mark();
    redis.kill();
    redis.start_again();
    service.expect_newcomers_at(third);
    let _eve = members.meet(&service, "eve");
    // The newcomer is at another server than the members.
    wait_for("the newcomer's server", || (service.nodes[third].connections() == 1).then_some(()));
    service.expect_chat([ann_at, third], "restarted");
    members.ann.from("page").expect_moving(mark, 15);
}

#[test]
fn a_call_goes_on_while_each_server_is_replaced() {
    needs!(Browser, LoadBalancer, Redis);
    let _machine = alone();
    let redis = Redis::start();
    let mut service = Service::start(&redis);
    let (ann_received, bob_received) = (Received::of_each(), Received::of_each());
    let (_, mut ann) = service.arrival(|| service.join("ann", &ann_received));
    let (_, _bob) = service.arrival(|| service.join("bob", &bob_received));
    let members = Members { ann: ann_received, bob: bob_received, page: service.enter("page") };
    members.ann.from("page").expect_moving((0, 0), 15);
    members.page.expect_of_peer("ann");

    for n in 0..service.nodes.len() {
        let mark = members.ann.from("page").mark();
        let Node { program, address } = service.nodes.remove(n);
        program.signal("TERM");
        assert_eq!(program.end().0, 0);
        service.nodes.insert(n, Node::start(service.home.path(), &redis, address));
        members.ann.from("page").expect_moving(mark, 15);
    }
    // The clients of all servers have come back: a newcomer meets them.
    let _cat = members.meet(&service, "cat");
    members.page.expect_of_peer("ann");
    assert_eq!(
        ann.count("peer", &[("peer", "page"), ("state", "connected")]),
        1,
        "one call for all the time"
    );
}
