//! Any number of clients in a room, with the server's hub between them, in one thread on virtual time. In any order of
//! joins, ends, messages and lost servers, each pair ends with exactly one connection, in which both ends agree.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::webrtcbin::{Connection, Done};
use crate::hub::{self, Command, ConnId, Hub, Limits, Notice, Owner};
use crate::protocol::{Description, PeerId, PeerMessage, SdpKind};
use crate::sdp::Kind;
use crate::session::{ConnectionState, Effect, EndReason, Input, Output, Room, Terms};

struct Client {
    /// The connection to the server; `None` while the server is lost.
    conn: Option<ConnId>,
    name: PeerId,
    room: Room,
    connections: BTreeMap<PeerId, Connection>,
    /// The peers with which ICE and DTLS are connected.
    connected: BTreeSet<PeerId>,
    results: VecDeque<(PeerId, Done)>,
    /// The messages under way from the server to the client, and from the client to the server.
    down: VecDeque<Notice>,
    up: VecDeque<Command>,
    warnings: Vec<String>,
    /// Number of the last connection: the user fragments of all clients differ.
    opened: usize,
    /// The user fragments of connections that were closed by DTLS.
    closed: Vec<String>,
}

impl Client {
    fn pump(&mut self) {
        while let Some((peer, output)) = self.room.poll_output() {
            match output {
                Output::Send(_) if self.conn.is_none() => {}
                Output::Send(message) => {
                    self.up.push_back(Command::Send { to: peer, body: message.to_string() });
                }
                Output::Effect(effect) => {
                    if effect == Effect::Open {
                        self.results.retain(|(of, _)| *of != peer);
                        self.connected.remove(&peer);
                    }
                    let connection = self.connections.entry(peer.clone()).or_insert_with(|| {
                        self.opened += 1000;
                        Connection { opened: self.opened, kinds: vec!["video"], ..Connection::default() }
                    });
                    self.results.extend(connection.execute(&effect).map(|done| (peer, done)));
                }
                Output::Ended(_) | Output::Left => {
                    self.closed.extend(self.connections.remove(&peer).map(|connection| connection.ufrag()));
                    self.connected.remove(&peer);
                    self.results.retain(|(of, _)| *of != peer);
                }
                Output::Warning(text) => self.warnings.push(text),
                Output::Joined | Output::Connecting | Output::Connected | Output::Reconnecting => {}
                Output::Dial(_) | Output::Caller(_) | Output::Ask | Output::Busy => panic!("{output:?}"),
            }
        }
    }

    fn input(&mut self, now: Instant, peer: &PeerId, input: Input) {
        self.room.handle_input(now, peer, input);
        self.pump();
    }

    fn hear(&mut self, now: Instant) -> bool {
        let Some(notice) = self.down.pop_front() else { return false };
        match notice {
            Notice::Joined(peers) => self.room.handle_joined(now, peers),
            Notice::PeerJoined(peer) => self.room.handle_peer_joined(now, peer),
            Notice::PeerLeft(peer) => self.room.handle_peer_left(now, &peer),
            Notice::From { from, body } => {
                self.room.handle_input(now, &from, Input::Peer(PeerMessage::parse(&body).unwrap()));
            }
            Notice::Registered | Notice::Refused(_) => {}
            other => panic!("{other:?}"),
        }
        self.pump();
        true
    }

    fn result(&mut self, now: Instant) -> bool {
        let Some((peer, (id, result))) = self.results.pop_front() else { return false };
        self.input(now, &peer, Input::Result(id, result));
        true
    }
}

struct World {
    now: Instant,
    hub: Hub,
    clients: Vec<Client>,
    next: u64,
}

impl World {
    fn new() -> Self {
        Self { now: Instant::now(), hub: Hub::new(Limits::default()), clients: vec![], next: 0 }
    }

    fn hub(&mut self, input: hub::Input) {
        self.hub.handle_input(self.now, input);
        while let Some(output) = self.hub.poll_output() {
            match output {
                hub::Output::Notify(conn, notice) => {
                    if let Some(client) = self.clients.iter_mut().find(|client| client.conn == Some(conn)) {
                        client.down.push_back(notice);
                    }
                }
                hub::Output::Close(conn, _) => panic!("{conn:?} is closed by the hub"),
                hub::Output::Probe(conn) => {
                    // All here are alive.
                    self.hub.handle_input(self.now, hub::Input::Alive(conn));
                }
            }
        }
    }

    /// Lets the client with this number join the room, unless it is there.
    fn come(&mut self, n: u8) {
        let name: PeerId = format!("p{n}").parse().unwrap();
        if self.clients.iter().any(|client| client.name == name) {
            return;
        }
        self.next += 1;
        self.clients.push(Client {
            conn: None,
            name,
            room: Room::new(16, Terms::new(true, vec![Kind::Video])),
            connections: BTreeMap::new(),
            connected: BTreeSet::new(),
            results: VecDeque::new(),
            down: VecDeque::new(),
            up: VecDeque::new(),
            warnings: vec![],
            opened: self.next as usize * 1_000_000,
            closed: vec![],
        });
        self.plug(self.clients.len() - 1);
    }

    /// Connects a client with the server, unless it is connected.
    fn plug(&mut self, n: usize) {
        let Some(client) = self.clients.get_mut(n).filter(|client| client.conn.is_none()) else { return };
        self.next += 1;
        let (conn, name) = (ConnId(self.next), client.name.clone());
        client.conn = Some(conn);
        self.hub(hub::Input::Opened(conn, Owner(0)));
        self.hub(hub::Input::Command(conn, Command::Register(name)));
        self.hub(hub::Input::Command(conn, Command::Join("attic".parse().unwrap())));
    }

    /// Breaks a client's connection to the server; messages under way are lost.
    fn unplug(&mut self, n: usize) {
        let now = self.now;
        let Some(client) = self.clients.get_mut(n) else { return };
        let Some(conn) = client.conn.take() else { return };
        client.up.clear();
        client.down.clear();
        client.room.handle_server_gone(now);
        client.pump();
        self.hub(hub::Input::Closed(conn));
    }

    /// Ends a client, with or without a DTLS close to its peers.
    fn go(&mut self, n: usize, says_goodbye: bool) {
        if self.clients.is_empty() {
            return;
        }
        let client = self.clients.remove(n % self.clients.len());
        if says_goodbye {
            self.close(client.connections.values().map(Connection::ufrag).collect());
        }
        client.conn.into_iter().for_each(|conn| self.hub(hub::Input::Closed(conn)));
    }

    /// Reports the close of these connections, given by user fragments, to their peers.
    fn close(&mut self, ufrags: Vec<String>) {
        let now = self.now;
        for client in &mut self.clients {
            let told =
                client.connected.iter().filter(|peer| ufrags.contains(&client.connections[*peer].theirs));
            for peer in told.cloned().collect::<Vec<_>>() {
                client.input(now, &peer, Input::Connection(ConnectionState::Closed));
            }
        }
    }

    /// Reports connections whose two ends have each other's descriptions as connected, and closed ones as closed.
    fn network(&mut self) {
        let ends: Vec<(PeerId, PeerId, String, String)> = self
            .clients
            .iter()
            .flat_map(|client| {
                let ready = client.connections.iter().filter(|(peer, c)| {
                    let is_done = !c.pending_offer && c.local.is_some() && c.remote.is_some();
                    is_done && !client.connected.contains(*peer)
                });
                let name = client.name.clone();
                ready.map(move |(peer, c)| (name.clone(), peer.clone(), c.ufrag(), c.theirs.clone()))
            })
            .collect();
        for (name, peer, ufrag, theirs) in ends {
            let far = self.clients.iter().find(|client| client.name == peer);
            let meets = far.and_then(|far| far.connections.get(&name));
            if meets.is_some_and(|far| far.ufrag() == theirs && far.theirs == ufrag && !far.pending_offer) {
                let now = self.now;
                let client = self.clients.iter_mut().find(|client| client.name == name).unwrap();
                client.connected.insert(peer.clone());
                client.input(now, &peer, Input::Connection(ConnectionState::Connected));
                client.input(now, &peer, Input::Heard(true));
            }
        }
        let closed: Vec<String> =
            self.clients.iter_mut().flat_map(|client| client.closed.drain(..)).collect();
        if !closed.is_empty() {
            self.close(closed);
        }
    }

    /// Lets time pass: packets arrive over connections that both ends have, and timers fire.
    fn time(&mut self, passes: Duration) {
        self.now += passes;
        let now = self.now;
        let alive: Vec<String> = self
            .clients
            .iter()
            .flat_map(|client| client.connected.iter().map(|peer| client.connections[peer].ufrag()))
            .collect();
        for client in &mut self.clients {
            let heard =
                client.connected.iter().filter(|peer| alive.contains(&client.connections[*peer].theirs));
            for peer in heard.cloned().collect::<Vec<_>>() {
                client.input(now, &peer, Input::Heard(true));
            }
            client.room.handle_timeout(now);
            client.pump();
        }
        self.network();
    }

    fn step(&mut self, n: usize, what: u8) -> bool {
        if self.clients.is_empty() {
            return false;
        }
        let n = n % self.clients.len();
        let client = &mut self.clients[n];
        match what % 3 {
            0 => client.hear(self.now),
            1 => client.result(self.now),
            _ => match client.up.pop_front() {
                Some(command) => {
                    let conn = client.conn.expect("nothing is said without the server");
                    self.hub(hub::Input::Command(conn, command));
                    true
                }
                None => false,
            },
        }
    }

    /// Connects all clients with the server, and lets time pass until all timers of recovery have fired.
    fn calm(&mut self) {
        (0..self.clients.len()).for_each(|n| self.plug(n));
        for _ in 0..90 {
            self.settle();
            self.network();
            self.time(Duration::from_millis(900));
        }
        self.settle();
    }

    /// Delivers messages and results until none is left; fails if there is no end of them.
    fn settle(&mut self) {
        for _ in 0..20_000 {
            let all = (0..self.clients.len()).flat_map(|n| (0..3).map(move |what| (n, what)));
            let moved = all.collect::<Vec<_>>().into_iter().filter(|(n, what)| self.step(*n, *what)).count();
            if moved == 0 {
                return;
            }
        }
        panic!("they never come to rest");
    }

    fn check(&self) {
        for client in &self.clients {
            let others: Vec<&PeerId> =
                self.clients.iter().map(|c| &c.name).filter(|name| **name != client.name).collect();
            assert!(client.room.peers().all(|(_, connected)| connected), "all stand");
            let mut roster: Vec<&PeerId> = client.room.peers().map(|(id, _)| id).collect();
            roster.sort();
            let mut expected = others.clone();
            expected.sort();
            assert_eq!(roster, expected, "who is there");
            for other in self.clients.iter().filter(|other| other.name != client.name) {
                let (ours, theirs) = (&client.connections[&other.name], &other.connections[&client.name]);
                assert!(!ours.pending_offer, "unanswered");
                assert_ne!(ours.local, theirs.local, "one offered, one answered");
                assert!(ours.local.is_some() && ours.local != ours.remote);
                assert_eq!(ours.theirs, theirs.ufrag(), "they mean each other");
                assert!(client.connected.contains(&other.name) && other.connected.contains(&client.name));
            }
            assert_eq!(client.connections.len(), others.len(), "one connection a pair");
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Come(u8),
    Go(usize, bool),
    Move(usize, u8),
    Unplug(usize),
    Plug(usize),
    Network,
    Time,
}

proptest! {
    #[test]
    fn one_connection_a_pair(steps in prop::collection::vec(prop_oneof![
        2 => (0..6_u8).prop_map(Step::Come),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(n, goodbye)| Step::Go(n, goodbye)),
        1 => (0..6_usize).prop_map(Step::Unplug),
        2 => (0..6_usize).prop_map(Step::Plug),
        2 => Just(Step::Network),
        1 => Just(Step::Time),
        12 => (any::<usize>(), any::<u8>()).prop_map(|(n, what)| Step::Move(n, what)),
    ], 0..200)) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Come(n) => world.come(n),
                Step::Go(n, goodbye) => world.go(n, goodbye),
                Step::Move(n, what) => { world.step(n, what); }
                Step::Unplug(n) => world.unplug(n),
                Step::Plug(n) => world.plug(n),
                Step::Network => world.network(),
                Step::Time => world.time(Duration::from_millis(900)),
            }
        }
        world.calm();
        world.check();
    }
}

#[test]
fn two_who_join_in_the_same_instant_and_one_who_returns() {
    let mut world = World::new();
    (0..2).for_each(|n| world.come(n));
    world.calm();
    world.check();
    world.go(0, true);
    world.come(0);
    world.calm();
    world.check();
}

#[test]
fn what_a_room_shrugs_off() {
    let now = Instant::now();
    let id = |text: &str| -> PeerId { text.parse().unwrap() };
    let offer = || {
        let description = Description { kind: SdpKind::Offer, sdp: super::sdp(&["video"], "actpass", 1) };
        Input::Peer(PeerMessage::Description(description))
    };
    let mut room = Room::new(2, Terms::new(true, vec![Kind::Video]));
    let outputs = |room: &mut Room| std::iter::from_fn(|| room.poll_output()).collect::<Vec<_>>();
    // A thousand names: two are connected, the rest is told of.
    let names: Vec<PeerId> = (0..1000).map(|n| id(&format!("p{n}"))).collect();
    room.handle_joined(now, names);
    let all = outputs(&mut room);
    let count = |wanted: Output| all.iter().filter(|(_, output)| *output == wanted).count();
    assert_eq!((count(Output::Joined), count(Output::Connecting)), (1000, 2));
    let told = "not connected to 'p2' and 997 more: the limit of 2 connections is reached";
    assert_eq!(all.last(), Some(&(id("p2"), Output::Warning(told.into()))));
    // A peer beyond the limit that offers gets the reason, too.
    room.handle_input(now, &id("p5"), offer());
    let declined = outputs(&mut room);
    let [(_, Output::Send(PeerMessage::Description(answer)))] = &declined[..] else { panic!("{declined:?}") };
    assert_eq!(answer.kind, SdpKind::Answer);
    assert!(answer.sdp.contains("i=it is connected with 2 peers already"), "{}", answer.sdp);
    // Somebody who is not there.
    room.handle_input(now, &id("eve"), offer());
    let warning = Output::Warning("a message from 'eve', who is not in the room".into());
    assert_eq!(outputs(&mut room), [(id("eve"), warning)]);
    room.handle_input(now, &id("eve"), Input::Connection(ConnectionState::Connected));
    room.handle_peer_left(now, &id("eve"));
    assert_eq!(outputs(&mut room), []);
    // A member left, so there is room: a peer that was there first may offer now.
    room.handle_peer_left(now, &id("p0"));
    assert_eq!(outputs(&mut room).last(), Some(&(id("p0"), Output::Left)));
    room.handle_input(now, &id("p7"), offer());
    assert_eq!(outputs(&mut room)[0], (id("p7"), Output::Connecting));
}

#[test]
fn a_connected_peer_that_leaves_is_gone_once_its_connection_has_ended() {
    let now = Instant::now();
    let ann: PeerId = "ann".parse().unwrap();
    let outputs = |room: &mut Room| {
        let all = std::iter::from_fn(|| room.poll_output()).map(|(_, output)| output);
        let ends = |output: &Output| matches!(output, Output::Joined | Output::Left | Output::Ended(_));
        all.filter(ends).collect::<Vec<_>>()
    };
    let closed = || Output::Ended(EndReason::PeerHungUp);
    for (comes_back, is_left) in [(false, vec![closed(), Output::Left]), (true, vec![closed()])] {
        let mut room = Room::new(2, Terms::new(true, vec![Kind::Video]));
        room.handle_joined(now, vec![ann.clone()]);
        room.handle_input(now, &ann, Input::Connection(ConnectionState::Connected));
        assert_eq!(outputs(&mut room), [Output::Joined]);
        room.handle_peer_left(now, &ann);
        assert_eq!(outputs(&mut room), [], "the media may go on");
        if comes_back {
            room.handle_peer_joined(now, ann.clone());
        }
        room.handle_input(now, &ann, Input::Connection(ConnectionState::Closed));
        assert_eq!(outputs(&mut room), is_left);
    }
}
