//! Measures the resources and the response times of signalling servers: roomtone's, and gst-webrtc-signalling-server,
//! whose JSON has the same content as the HELLO protocol. Both are tested over the same sockets.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use roomtone::base::timeout::timeout;
use roomtone::signalling::{ConnectError, Frame, Socket, Target};
use roomtone::tls::Trust;
use serde_json::{Value, json};

use super::common::{self, Holds, Program, cpu};
use super::peers::Theirs;
use super::report::{Comparison, Report};
use super::{ms, number, samples};

/// No answer for so long is as good as none.
const LONGEST: Duration = Duration::from_secs(10);
/// Theirs and ours connect in turn so often, some one after another each time: what comes after a pause finds a machine that
/// has gone to sleep.
const BLOCKS: usize = 3;
/// Pairs that write to each other at once.
const PAIRS: usize = 50;

enum Runs {
    Ours(Program),
    Theirs(Theirs),
}

struct Server {
    runs: Runs,
    target: Target,
}

async fn hear(socket: &mut Socket) -> String {
    match socket.receive().await {
        Frame::Text(text) => text,
        other => panic!("{other:?} instead of a message"),
    }
}

/// The next message of that type.
async fn hear_of(socket: &mut Socket, kind: &str) -> Value {
    loop {
        let said: Value = serde_json::from_str(&hear(socket).await).unwrap();
        if said["type"] == kind {
            return said;
        }
    }
}

impl Server {
    fn ours(home: &Path, tls: bool) -> Self {
        let serve = ["serve", "--listen", "127.0.0.1:0", "--max-per-address", "20000"];
        let plain: &[&str] = if tls { &[] } else { &["--plain"] };
        let mut program = Program::start(home, &[&serve, plain].concat());
        // For this machine alone it tells of the way without TLS; both are there.
        let mut url = common::ws(&program.link());
        if tls {
            url = url.replacen("ws://", "wss://", 1);
        }
        let target = Target::parse(&url, Trust::Anybody).unwrap().extended(false);
        Self { runs: Runs::Ours(program), target }
    }

    /// None where it is not installed.
    fn theirs(home: &Path, tls: bool) -> Option<Self> {
        let (program, url) = Theirs::server(home, tls)?;
        let target = Target::parse(&url, Trust::Anybody).unwrap().extended(false);
        Some(Self { runs: Runs::Theirs(program), target })
    }

    fn all(home: &Path, tls: bool) -> Vec<Self> {
        [Some(Self::ours(home, tls)), Self::theirs(home, tls)].into_iter().flatten().collect()
    }

    fn name(&self) -> String {
        let name = match self.runs {
            Runs::Ours(_) => "roomtone",
            Runs::Theirs(_) => "gst-webrtc-signalling-server",
        };
        name.to_owned()
    }

    fn pid(&self) -> u32 {
        match &self.runs {
            Runs::Ours(program) => program.pid(),
            Runs::Theirs(program) => program.pid(),
        }
    }

    /// Connects until the server knows the peer; under the id that it has there.
    fn enter(&self, name: &str) -> impl Future<Output = (Socket, String)> + Send + use<> {
        let (target, name) = (self.target.clone(), name.to_owned());
        let ours = matches!(self.runs, Runs::Ours(_));
        async move {
            let mut socket = Socket::connect(&target).await.unwrap();
            if ours {
                socket.send(format!("HELLO {name}")).await.unwrap();
                assert_eq!(hear(&mut socket).await, "HELLO");
                return (socket, name);
            }
            let welcome = hear_of(&mut socket, "welcome").await;
            (socket, welcome["peerId"].as_str().unwrap().to_owned())
        }
    }

    /// Two who talk to each other, and a candidate of that length as they send it.
    async fn pair(&self, number: usize, length: usize) -> ([Socket; 2], String) {
        let (mut a, _) = self.enter(&format!("a{number}")).await;
        let (mut b, id) = self.enter(&format!("b{number}")).await;
        let ice = json!({"candidate": "x".repeat(length), "sdpMLineIndex": 0});
        let message = match self.runs {
            Runs::Ours(_) => {
                a.send(format!("SESSION {id}")).await.unwrap();
                assert_eq!(hear(&mut a).await, "SESSION_OK");
                json!({"ice": ice})
            }
            Runs::Theirs(_) => {
                let produces = json!({"type": "setPeerStatus", "roles": ["producer"], "peerId": id});
                b.send(produces.to_string()).await.unwrap();
                // It is not said when that is known.
                smol::Timer::after(Duration::from_millis(20)).await;
                a.send(json!({"type": "startSession", "peerId": id}).to_string()).await.unwrap();
                let session = hear_of(&mut a, "sessionStarted").await["sessionId"].take();
                hear_of(&mut b, "startSession").await;
                json!({"type": "peer", "sessionId": session, "ice": ice})
            }
        };
        ([a, b], message.to_string())
    }

    /// Returns the memory that the server uses for each of `peers` idle connections, in KB.
    async fn memory(&self, peers: usize) -> f64 {
        let before = Holds::of(self.pid()).resident;
        let mut all = vec![];
        while all.len() < peers {
            // Some at once, for one after another takes them long.
            let enters = (0..50.min(peers - all.len()))
                .map(|n| smol::spawn(self.enter(&format!("idle{}", all.len() + n))));
            for task in enters.collect::<Vec<_>>() {
                all.push(task.await);
            }
        }
        smol::Timer::after(Duration::from_secs(1)).await;
        (Holds::of(self.pid()).resident - before) as f64 / peers as f64
    }

    /// Messages that it passes on for each second of a core, while each who hears one says one, of so many at first;
    /// or says as many again when it has heard that many.
    async fn messages(&self, (at_once, together): (usize, bool), time: Duration) -> f64 {
        let count = Arc::new(AtomicUsize::new(0));
        let mut talks = vec![];
        for number in 0..PAIRS {
            let (sockets, text) = self.pair(number, 80).await;
            for mut socket in sockets {
                let (text, count) = (text.clone(), count.clone());
                talks.push(smol::spawn(async move {
                    let mut due = at_once;
                    loop {
                        let all = vec![text.clone(); due];
                        let said = match together {
                            true => {
                                all.into_iter().for_each(|text| socket.queue(Frame::Text(text)));
                                socket.flush().await
                            }
                            false => in_turn(&mut socket, all).await,
                        };
                        if said.is_err() {
                            break;
                        }
                        due = if together { at_once } else { 1 };
                        for _ in 0..due {
                            // The end of it all is the others' end, too.
                            let Frame::Text(_) = socket.receive().await else { return };
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }));
            }
        }
        smol::Timer::after(Duration::from_millis(300)).await;
        let now = || (count.load(Ordering::Relaxed), cpu(self.pid()));
        let before = now();
        smol::Timer::after(time).await;
        let after = now();
        for talk in talks {
            talk.cancel().await;
        }
        (after.0 - before.0) as f64 / (after.1 - before.1).as_secs_f64()
    }

    /// How long a message takes there and back, in ms, again and again.
    async fn round_trips(&self, time: Duration) -> Vec<f64> {
        there_and_back(self.pair(1000, 80).await, time).await
    }

    /// The same while somebody is written to who does not read.
    async fn beside_a_deaf_one(&self, time: Duration) -> Vec<f64> {
        let pair = self.pair(1000, 80).await;
        let ([mut writes, _deaf], text) = self.pair(1001, 16_000).await;
        // On a thread of its own: the others here shall not wait for it.
        let ended = Arc::new(AtomicBool::new(false));
        let end = ended.clone();
        let thread = std::thread::spawn(move || {
            smol::block_on(async {
                while !end.load(Ordering::Relaxed) && writes.send(text.clone()).await.is_ok() {}
            });
        });
        smol::Timer::after(Duration::from_millis(500)).await;
        let found = there_and_back(pair, time).await;
        ended.store(true, Ordering::Relaxed);
        smol::unblock(move || thread.join()).await.unwrap();
        found
    }
}

/// Each with a write of its own.
async fn in_turn(socket: &mut Socket, all: Vec<String>) -> Result<(), ConnectError> {
    for text in all {
        socket.send(text).await?;
    }
    Ok(())
}

async fn there_and_back(([mut a, mut b], text): ([Socket; 2], String), time: Duration) -> Vec<f64> {
    let _echo = smol::spawn(async move {
        while let Frame::Text(text) = b.receive().await {
            b.send(text).await.unwrap();
        }
    });
    let (until, mut all) = (Instant::now() + time, vec![]);
    while Instant::now() < until {
        let began = Instant::now();
        a.send(text.clone()).await.unwrap();
        let came = timeout(LONGEST, hear(&mut a)).await.is_some();
        all.push(ms(began.elapsed()));
        if !came {
            break;
        }
        smol::Timer::after(Duration::from_millis(10)).await;
    }
    all
}

/// Measures it all, theirs and ours in turn.
pub fn measure() {
    let home = tempfile::tempdir().unwrap();
    let (rounds, peers) = (number("ROUNDS", 5), number("PEERS", 1000) as usize);
    let time = Duration::from_secs(number("SECONDS_EACH", 8)) / 4;
    let mut comparisons: Vec<Comparison> = vec![];
    let mut note = |what: &str, unit: &'static str, who: String, found: Vec<f64>| {
        let at = comparisons.iter().position(|one| one.what == what).unwrap_or_else(|| {
            comparisons.push(Comparison { what: what.to_owned(), unit, samples: vec![] });
            comparisons.len() - 1
        });
        let samples = &mut comparisons[at].samples;
        match samples.iter_mut().find(|(name, _)| *name == who) {
            Some((_, all)) => all.extend(found),
            None => samples.push((who, found)),
        }
    };
    smol::block_on(async {
        for (tls, how) in [(false, "without TLS"), (true, "with TLS")] {
            for _ in 0..rounds {
                for server in Server::all(home.path(), tls) {
                    let found = server.memory(peers).await;
                    note(&format!("Memory of an idle connection, {how}"), "KB", server.name(), vec![found]);
                }
            }
            let servers = Server::all(home.path(), tls);
            for round in 0..BLOCKS {
                for server in &servers {
                    for n in 0..samples().div_ceil(BLOCKS) {
                        let began = Instant::now();
                        server.enter(&format!("new{round}-{n}")).await;
                        let found = ms(began.elapsed());
                        note(
                            &format!("Connecting until it answers, {how}"),
                            "ms",
                            server.name(),
                            vec![found],
                        );
                    }
                }
            }
        }
        for (said, how) in
            [((1, false), "one at a time"), ((32, false), "32 at a time"), ((32, true), "32 with one write")]
        {
            for _ in 0..rounds {
                for server in Server::all(home.path(), false) {
                    let found = server.messages(said, time).await / 1000.0;
                    let what = format!("Messages for each second of a core, {how} each way of {PAIRS} pairs");
                    note(&what, "k", server.name(), vec![found]);
                }
            }
        }
        for server in Server::all(home.path(), false) {
            let found = server.round_trips(time).await;
            note("A message there and back", "ms", server.name(), found);
            let found = server.beside_a_deaf_one(time).await;
            note("A message there and back, while another peer does not read", "ms", server.name(), found);
        }
    });
    Report {
        name: "server",
        about: format!(
            "Signalling servers on loopback, talked to over the same sockets. The memory is of {peers} connections of \
             a server that has just started."
        ),
        comparisons,
        courses: vec![],
    }
    .finish();
}
