//! A world of shards, an engine and clients, on virtual time: each channel delivers when the test says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::model::Model;
use super::*;

/// The request of a shard on its way to the engine.
#[derive(Debug, Clone)]
enum Request {
    /// A request, and the attachment that it was made for.
    Ask(Option<Beat>, Ask),
    Beat,
}

/// A shard and its channels.
pub(super) struct Server {
    pub(super) shard: Shard,
    /// Requests on their way to the engine.
    requests: VecDeque<Request>,
    /// Answers on their way back.
    answers: VecDeque<FromEngine>,
    /// The inbox that is read, and the place in it.
    reading: (NodeId, usize),
    next_beat: Instant,
    /// Until when the process does nothing.
    pub(super) paused: Instant,
    /// Until when nothing passes between the shard and the engine.
    pub(super) cut_off: Instant,
}

/// A client, with the state that its notices describe.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) server: usize,
    pub(super) conn: ConnId,
    pub(super) name: PeerId,
    pub(super) is_registered: bool,
    pub(super) room: Option<(RoomId, BTreeSet<PeerId>)>,
    pub(super) in_call: bool,
    pub(super) called_by: Option<PeerId>,
    pub(super) closed: Option<Reason>,
    pub(super) muted_by: Option<PeerId>,
    /// Joins and leaves in the order of their notices.
    pub(super) heard: Vec<(bool, PeerId)>,
    /// The number of the last text from each sender.
    pub(super) texts: BTreeMap<PeerId, u64>,
    pub(super) received: Vec<String>,
    pub(super) refused: Vec<Refusal>,
    pub(super) listed: Option<Vec<PeerId>>,
    /// Whether the client answers probes.
    pub(super) is_alive: bool,
}

pub(super) struct World {
    pub(super) now: Instant,
    start: Instant,
    pub(super) engine: Model,
    /// Earlier states of the engine.
    past: VecDeque<Model>,
    pub(super) is_engine_up: bool,
    /// The engine's clock runs ahead by so many ms.
    pub(super) skew: i64,
    pub(super) servers: Vec<Server>,
    pub(super) clients: Vec<Client>,
    next_conn: u64,
    next_base: u64,
    pub(super) texts: u64,
    /// The texts sent to members of rooms: sender, receiver, text.
    pub(super) sent: Vec<(usize, PeerId, String)>,
    /// Every connection has another name.
    pub(super) is_unique: bool,
}

const BEAT: Duration = Duration::from_secs(2);
/// The states of the engine that are kept.
const PAST: usize = 12;

impl World {
    pub(super) fn new(servers: usize) -> Self {
        let now = Instant::now();
        let mut world = Self {
            now,
            start: now,
            engine: Model::default(),
            past: VecDeque::new(),
            is_engine_up: true,
            skew: 0,
            servers: vec![],
            clients: vec![],
            next_conn: 0,
            next_base: 0,
            texts: 0,
            sent: vec![],
            is_unique: false,
        };
        for _ in 0..servers {
            let server = world.start_server();
            world.servers.push(server);
        }
        world.settle();
        world
    }

    fn start_server(&mut self) -> Server {
        self.next_base += 1;
        let shard = Shard::new(Limits::default(), &format!("n{}", self.next_base));
        let mut server = Server {
            shard,
            requests: VecDeque::new(),
            answers: VecDeque::new(),
            reading: (NodeId(String::new()), 0),
            next_beat: self.now,
            paused: self.now,
            cut_off: self.now,
        };
        server.collect();
        server
    }

    /// Opens a connection and requests its name.
    pub(super) fn hello(&mut self, server: usize, name: &str) -> usize {
        let client = self.open(server, name);
        let name = self.clients[client].name.clone();
        self.say(client, Command::Register(name));
        client
    }

    pub(super) fn open(&mut self, server: usize, name: &str) -> usize {
        self.next_conn += 1;
        let conn = ConnId(self.next_conn);
        let name = if self.is_unique { &format!("{}x{name}", self.next_conn) } else { name };
        self.clients.push(Client {
            server,
            conn,
            name: name.parse().unwrap(),
            is_registered: false,
            room: None,
            in_call: false,
            called_by: None,
            closed: None,
            muted_by: None,
            heard: vec![],
            texts: BTreeMap::new(),
            received: vec![],
            refused: vec![],
            listed: None,
            is_alive: true,
        });
        self.input(server, Input::Opened(conn, Owner(1)));
        self.clients.len() - 1
    }

    pub(super) fn say(&mut self, client: usize, command: Command) {
        let Client { server, conn, closed, .. } = &self.clients[client];
        if closed.is_none() {
            let input = Input::Command(*conn, command);
            self.input(*server, input);
        }
    }

    pub(super) fn join(&mut self, client: usize, room: &str) {
        self.say(client, Command::Join(room.parse().unwrap()));
    }

    /// Sends a numbered text to a peer of the room, or to the other side of the call.
    pub(super) fn text(&mut self, client: usize, to: Option<&PeerId>) -> String {
        self.texts += 1;
        let body = format!("{}", self.texts);
        let command = match to {
            Some(to) => Command::Send { to: to.clone(), body: body.clone() },
            None => Command::Relay(body.clone()),
        };
        self.sent.extend(to.map(|to| (client, to.clone(), body.clone())));
        self.say(client, command);
        body
    }

    pub(super) fn close(&mut self, client: usize) {
        let Client { server, conn, closed, .. } = &mut self.clients[client];
        if closed.replace(Reason::CallOver).is_none() {
            let input = Input::Closed(*conn);
            let server = *server;
            self.input(server, input);
        }
    }

    pub(super) fn input(&mut self, server: usize, input: Input) {
        self.servers[server].shard.handle_input(self.now, input);
        self.collect(server);
    }

    fn collect(&mut self, server: usize) {
        self.servers[server].collect();
        while let Some(output) = self.servers[server].shard.poll_output() {
            self.output(server, output);
        }
        self.servers[server].collect();
    }

    fn output(&mut self, server: usize, output: Output) {
        let of = |conn: &ConnId| *conn;
        let conn = match &output {
            Output::Notify(conn, _) | Output::Close(conn, _) | Output::Probe(conn) => of(conn),
        };
        let client = self.clients.iter_mut().find(|client| client.conn == conn && client.server == server);
        let Some(client) = client else { panic!("an output for a strange connection: {output:?}") };
        if client.closed.is_some() {
            return;
        }
        match output {
            Output::Notify(_, notice) => client.hear(notice),
            Output::Close(_, reason) => client.closed = Some(reason),
            Output::Probe(_) => {
                if client.is_alive {
                    self.servers[server].shard.handle_input(self.now, Input::Alive(conn));
                    self.collect(server);
                }
            }
        }
    }

    fn engine_time(&self) -> u64 {
        let real = i64::try_from((self.now - self.start).as_millis()).unwrap() + 1_000_000_000;
        u64::try_from(real + self.skew).unwrap()
    }

    /// Executes the next request of a server; returns false if there is none.
    pub(super) fn execute(&mut self, server: usize) -> bool {
        let time = self.engine_time();
        let one = &mut self.servers[server];
        if !self.is_engine_up || one.cut_off > self.now {
            return false;
        }
        let Some(request) = one.requests.pop_front() else { return false };
        self.past.push_back(self.engine.clone());
        if self.past.len() > PAST {
            self.past.pop_front();
        }
        let answer = match request {
            Request::Ask(_, Ask::Attach(attach)) => {
                Some(FromEngine::Attached(self.engine.attach(time, &attach)))
            }
            Request::Ask(beat, Ask::Tx(tx)) => beat.map(|beat| {
                let verdict = self.engine.tx(&beat.node, &beat.epoch, &tx);
                FromEngine::Verdict(beat.node, verdict)
            }),
            Request::Ask(_, Ask::Send(to, body)) => {
                self.engine.send(&to, body);
                None
            }
            Request::Beat => one.shard.beat().map(|beat| {
                let (verdict, cluster) = self.engine.beat(time, &beat);
                match verdict {
                    Verdict::Taken => FromEngine::Cluster(cluster),
                    Verdict::Fenced | Verdict::Rewound => FromEngine::Verdict(beat.node, verdict),
                }
            }),
        };
        one.answers.extend(answer);
        true
    }

    /// Delivers the next answer to a server; returns false if there is none.
    pub(super) fn answer(&mut self, server: usize) -> bool {
        let one = &mut self.servers[server];
        if one.paused > self.now || one.cut_off > self.now {
            return false;
        }
        let Some(answer) = one.answers.pop_front() else { return false };
        one.shard.handle_engine(self.now, answer);
        self.collect(server);
        true
    }

    /// Delivers the next message of the inbox; returns false if there is none.
    pub(super) fn read(&mut self, server: usize) -> bool {
        let one = &mut self.servers[server];
        if !self.is_engine_up || one.paused > self.now || one.cut_off > self.now {
            return false;
        }
        let Some(Beat { node, .. }) = one.shard.beat() else { return false };
        if one.reading.0 != node {
            one.reading = (node.clone(), 0);
        }
        let Some((place, message)) = self.engine.read(&node, one.reading.1) else { return false };
        one.reading.1 += 1;
        one.shard.handle_engine(self.now, FromEngine::Message(node, place, message));
        self.collect(server);
        true
    }

    /// Lets time pass for all servers that are not paused.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        for server in 0..self.servers.len() {
            let one = &mut self.servers[server];
            if one.paused > self.now {
                continue;
            }
            if one.next_beat <= self.now {
                one.next_beat = self.now + BEAT;
                one.requests.push_back(Request::Beat);
            }
            // Own connections that were asked and do not answer count as dead.
            one.shard.handle_timeout(self.now);
            self.collect(server);
        }
    }

    /// Delivers everything that can be delivered, without letting time pass.
    pub(super) fn settle(&mut self) {
        for _ in 0..800 {
            let mut is_busy = false;
            for server in 0..self.servers.len() {
                is_busy |= self.execute(server) | self.answer(server) | self.read(server);
            }
            if !is_busy {
                return;
            }
        }
        panic!("the shards come to no end");
    }

    /// Lets seconds pass, and delivers everything meanwhile.
    pub(super) fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds * 2 {
            self.pass(Duration::from_millis(500));
            self.settle();
        }
    }

    /// Breaks the connections between a server and the engine. Requests and answers under way are lost; the
    /// transaction that is under way is sent again.
    pub(super) fn cut(&mut self, server: usize) {
        let one = &mut self.servers[server];
        one.answers.clear();
        one.requests.clear();
        let (asks, beat) = (one.shard.reconnect(), one.shard.beat());
        one.requests.extend(asks.into_iter().map(|ask| Request::Ask(beat.clone(), ask)));
        one.requests.push_back(Request::Beat);
    }

    fn cut_all(&mut self) {
        (0..self.servers.len()).for_each(|server| self.cut(server));
    }

    /// Restarts the engine without its data.
    pub(super) fn flush(&mut self) {
        self.engine = Model::default();
        self.past.clear();
        self.cut_all();
    }

    /// Replaces the engine by a replica that lacks the last requests.
    pub(super) fn rewind(&mut self, requests: usize) {
        for _ in 0..requests {
            self.engine = self.past.pop_back().unwrap_or_else(|| self.engine.clone());
        }
        self.past.clear();
        for server in &mut self.servers {
            server.reading.1 = server.reading.1.min(self.engine.length(&server.reading.0));
        }
        self.cut_all();
    }

    /// Kills a server; another one takes its place.
    pub(super) fn kill(&mut self, server: usize) {
        for client in self.clients.iter_mut().filter(|client| client.server == server) {
            client.closed.get_or_insert(Reason::CallOver);
        }
        self.servers[server] = self.start_server();
    }

    pub(super) fn pause(&mut self, server: usize, seconds: u64) {
        self.servers[server].paused = self.now + Duration::from_secs(seconds);
    }

    pub(super) fn open_clients(&self) -> impl Iterator<Item = (usize, &Client)> {
        self.clients.iter().enumerate().filter(|(_, client)| client.closed.is_none())
    }

    /// Checks that all views equal the open connections, and that the engine has no others.
    pub(super) fn check(&self) {
        let mut rooms: BTreeMap<&RoomId, BTreeSet<PeerId>> = BTreeMap::new();
        let mut names = BTreeSet::new();
        for (_, client) in self.open_clients().filter(|(_, client)| client.is_registered) {
            assert!(names.insert(client.name.clone()), "two connections have the name {:?}", client.name);
            if let Some((room, _)) = &client.room {
                rooms.entry(room).or_default().insert(client.name.clone());
            }
        }
        for (_, client) in self.open_clients() {
            if let Some((room, view)) = &client.room {
                let mut others = rooms[room].clone();
                others.remove(&client.name);
                assert_eq!(*view, others, "the view of {:?}", client.name);
            }
        }
        let of = |prefix: &str| -> BTreeSet<String> {
            let keys = self.engine.dump().keys();
            keys.filter_map(|key| key.0.strip_prefix(prefix).map(str::to_owned)).collect()
        };
        let expected: BTreeSet<String> = names.iter().map(PeerId::to_string).collect();
        assert_eq!(of("p:"), expected, "the names in the engine");
        assert_eq!(of("r:"), rooms.keys().map(|room| room.to_string()).collect(), "the rooms in the engine");
        let free = self.engine.dump().get(&Key::free()).into_iter().flatten();
        let free: BTreeSet<&str> = free.map(|(name, _)| name.as_str()).collect();
        let idle =
            self.open_clients().filter(|(_, one)| one.is_registered && one.room.is_none() && !one.in_call);
        assert_eq!(free, idle.map(|(_, one)| one.name.as_str()).collect(), "the free names");
    }
}

impl Server {
    /// Moves the shard's requests to the channel.
    fn collect(&mut self) {
        while let Some(ask) = self.shard.poll_ask() {
            self.requests.push_back(Request::Ask(self.shard.beat(), ask));
        }
    }
}

impl Client {
    fn hear(&mut self, notice: Notice) {
        match notice {
            Notice::Registered => assert!(!std::mem::replace(&mut self.is_registered, true)),
            Notice::Joined(peers) => {
                self.is_registered = true;
                assert!(!peers.contains(&self.name), "itself is a member that was there before");
                let room = self.room_of();
                assert!(self.room.replace((room, peers.into_iter().collect())).is_none());
            }
            Notice::PeerJoined(peer) => {
                assert_ne!(peer, self.name);
                assert!(self.view().insert(peer.clone()), "{:?} joined twice for {:?}", peer, self.name);
                self.heard.push((true, peer));
            }
            Notice::PeerLeft(peer) => {
                assert!(self.view().remove(&peer), "{peer:?} left twice");
                self.heard.push((false, peer));
            }
            Notice::From { from, body } => {
                assert!(self.view().contains(&from), "a text from outside of the room");
                self.receive(from, body);
            }
            Notice::Relayed(body) => {
                assert!(self.in_call);
                self.receive(self.name.clone(), body);
            }
            Notice::CallStarted => assert!(!std::mem::replace(&mut self.in_call, true)),
            Notice::CalledBy(peer) => {
                assert!(!std::mem::replace(&mut self.in_call, true));
                self.called_by = Some(peer);
            }
            Notice::PeerList(peers) => self.listed = Some(peers),
            Notice::Refused(refusal) => self.refused.push(refusal),
            Notice::Stopped => self.room = None,
            Notice::RoomList(_) | Notice::Described(..) | Notice::Moderator => {}
            Notice::MuteRequested(_, by) => self.muted_by = by,
        }
    }

    fn view(&mut self) -> &mut BTreeSet<PeerId> {
        &mut self.room.as_mut().expect("only members hear of members").1
    }

    fn receive(&mut self, from: PeerId, body: String) {
        let number: u64 = body.parse().unwrap();
        let last = self.texts.insert(from, number).unwrap_or_default();
        assert!(number > last, "a text came twice or too late");
        self.received.push(body);
    }

    fn room_of(&self) -> RoomId {
        // The tests join one room at a time: its name is that of the last request.
        self.wanted().parse().unwrap()
    }

    fn wanted(&self) -> &'static str {
        ROOMS[usize::from(self.name.as_str().ends_with('2'))]
    }
}

/// The rooms of the tests: peers whose name ends with `2` join the second one, all others the first.
pub(super) const ROOMS: [&str; 2] = ["attic", "cellar"];
