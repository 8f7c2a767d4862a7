//! The scripts of a real engine against the model: the same requests get the same answers, messages and keys.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use proptest::prelude::*;

use super::super::model::Model;
use super::super::scripts::{ATTACH, BEAT, TX};
use super::*;

/// A redis-server of the test, without a port.
struct Redis {
    process: Child,
    connection: BufReader<UnixStream>,
    _folder: tempfile::TempDir,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Debug, PartialEq)]
enum Reply {
    Text(String),
    List(Vec<Reply>),
    Nothing,
}

impl Reply {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::List(_) | Self::Nothing => panic!("{self:?} is no text"),
        }
    }

    fn list(&self) -> &[Reply] {
        match self {
            Self::List(list) => list,
            Self::Text(_) | Self::Nothing => panic!("{self:?} is no list"),
        }
    }

    fn map(&self) -> Fields {
        self.list().chunks(2).map(|pair| (pair[0].text().to_owned(), pair[1].text().to_owned())).collect()
    }
}

impl Redis {
    /// Starts a server; none if this machine has none and that is allowed.
    fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn();
        let mut process = match process {
            Ok(process) => process,
            Err(error) => {
                let is_allowed = std::env::var("ALLOW_SKIP").is_ok_and(|value| value == "1");
                assert!(is_allowed, "redis-server does not start ({error}); ALLOW_SKIP=1 skips the test");
                let _ = writeln!(std::io::stderr(), "SKIPPED: redis-server does not start");
                return None;
            }
        };
        let connection = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break BufReader::new(stream),
                Err(_) => assert!(process.try_wait().unwrap().is_none(), "redis-server has ended"),
            }
            std::thread::yield_now();
        };
        Some(Self { process, connection, _folder: folder })
    }

    fn ask(&mut self, words: &[&str]) -> Reply {
        let mut text = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| text += &format!("${}\r\n{word}\r\n", word.len()));
        self.connection.get_mut().write_all(text.as_bytes()).unwrap();
        self.reply()
    }

    fn reply(&mut self) -> Reply {
        let mut line = String::new();
        self.connection.read_line(&mut line).unwrap();
        let (kind, rest) = line.trim_end().split_at(1);
        match kind {
            "$" | "*" if rest == "-1" => Reply::Nothing,
            "$" => {
                let mut text = vec![0; rest.parse::<usize>().unwrap() + 2];
                self.connection.read_exact(&mut text).unwrap();
                text.truncate(text.len() - 2);
                Reply::Text(String::from_utf8(text).unwrap())
            }
            "*" => Reply::List((0..rest.parse().unwrap()).map(|_| self.reply()).collect()),
            "-" => panic!("the server refuses: {rest}"),
            _ => Reply::Text(rest.to_owned()),
        }
    }

    fn run(&mut self, script: &str, arguments: &[String]) -> Reply {
        let arguments = arguments.iter().map(String::as_str);
        let words: Vec<&str> = ["EVAL", script, "1", "rt1:"].into_iter().chain(arguments).collect();
        self.ask(&words)
    }

    fn attach(&mut self, attach: &Attach) -> Attached {
        let reply = self.run(ATTACH, &attach.arguments());
        let (epoch, is_young) = (reply.list()[0].text().to_owned(), reply.list()[1].text() == "1");
        Attached { node: attach.node.clone(), epoch, is_young }
    }

    fn beat(&mut self, beat: &Beat) -> (Verdict, Cluster) {
        let reply = self.run(BEAT, &beat.arguments());
        let verdict = verdict(reply.list()[0].text());
        if verdict != Verdict::Taken {
            return (verdict, Cluster::default());
        }
        let dead = reply.list()[2].list().iter().map(|node| NodeId(node.text().to_owned())).collect();
        (verdict, Cluster { dead, is_first: reply.list()[1].text() == "1" })
    }

    /// Returns the messages of an inbox.
    fn inbox(&mut self, node: &NodeId) -> Vec<(u64, Message)> {
        let reply = self.ask(&["XRANGE", &format!("rt1:in:{}", node.0), "-", "+"]);
        reply.list().iter().map(|entry| message(&entry.list()[1].map())).collect()
    }

    fn fields(&mut self, key: &Key) -> Fields {
        self.ask(&["HGETALL", &format!("rt1:{}", key.0)]).map()
    }
}

fn verdict(text: &str) -> Verdict {
    Verdict::parse(text).unwrap()
}

fn message(fields: &Fields) -> (u64, Message) {
    Message::parse(fields).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Attach(usize, bool),
    Beat(usize, u64),
    /// A transaction of a shard, whose number is the next one and so many more.
    Tx(usize, i64, Tx),
    Send(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || {
        prop_oneof![Just("p:a"), Just("r:x"), Just("s:n0.1"), Just("free")].prop_map(|key| Key(key.into()))
    };
    let value = || {
        prop_oneof![Just(""), Just("1"), Just("2"), Just("{\"ü\":\"\\n\"}"), Just(NUMBER)]
            .prop_map(str::to_owned)
    };
    let field = || prop_oneof![6 => Just("v"), 3 => Just("d"), 1 => Just("")].prop_map(str::to_owned);
    let named = || prop_oneof![Just("v"), Just("d")].prop_map(str::to_owned);
    let writes = prop::collection::vec((key(), field(), value()), 0..4);
    let guards = prop::collection::vec((key(), named(), value()), 0..2);
    let sends = prop::collection::vec((0..3_usize, value()), 0..3);
    let reads = prop::collection::vec(key(), 0..3);
    let tx = (guards, writes, sends, reads).prop_map(|(guards, writes, sends, reads)| {
        let sends = sends.into_iter().map(|(to, body)| (NodeId(format!("n{to}.1")), body)).collect();
        Tx { op: 0, guards, writes, sends, reads }
    });
    prop_oneof![
        2 => (0..3_usize, any::<bool>()).prop_map(|(node, is_rewound)| Step::Attach(node, is_rewound)),
        2 => (0..3_usize, 0..3_u64).prop_map(|(node, op)| Step::Beat(node, op)),
        10 => (0..3_usize, prop_oneof![8 => Just(0_i64), 1 => Just(-1), 1 => Just(1)], tx)
            .prop_map(|(node, more, tx)| Step::Tx(node, more, tx)),
        2 => (0..3_usize).prop_map(Step::Send),
    ]
}

/// A shard as far as the engine knows it.
#[derive(Debug, Default)]
struct Known {
    attachments: u64,
    epoch: String,
    op: u64,
}

fn compare(redis: &mut Redis, steps: Vec<Step>) -> Result<(), TestCaseError> {
    redis.ask(&["FLUSHALL"]);
    let mut model = Model::default();
    let mut shards: Vec<Known> = (0..3).map(|_| Known::default()).collect();
    let name = |n: usize, shard: &Known| NodeId(format!("n{n}.{}", shard.attachments));
    let time = 1_000_000_000;
    for step in steps {
        match step {
            Step::Attach(n, is_rewound) => {
                let old = Some(name(n, &shards[n])).filter(|_| shards[n].attachments > 0);
                shards[n].attachments += 1;
                let epoch = Some(shards[n].epoch.clone()).filter(|epoch| !epoch.is_empty());
                let attach = Attach { node: name(n, &shards[n]), old, epoch, is_rewound };
                let attached = model.attach(time, &attach);
                prop_assert_eq!(&redis.attach(&attach), &attached);
                (shards[n].epoch, shards[n].op) = (attached.epoch, 0);
            }
            Step::Beat(n, op) => {
                let (node, epoch) = (name(n, &shards[n]), shards[n].epoch.clone());
                let beat = Beat { node, epoch, op, place: op };
                prop_assert_eq!(redis.beat(&beat), model.beat(time, &beat));
            }
            Step::Tx(n, more, tx) => {
                let (node, epoch) = (name(n, &shards[n]), shards[n].epoch.clone());
                let op = (shards[n].op + 1).saturating_add_signed(more);
                let tx = Tx { op, ..tx };
                let taken = model.tx(&node, &epoch, &tx);
                prop_assert_eq!(verdict(redis.run(TX, &tx.arguments(&node, &epoch)).text()), taken);
                if taken == Verdict::Taken {
                    shards[n].op = shards[n].op.max(op);
                }
            }
            Step::Send(n) => {
                let node = name(n, &shards[n]);
                model.send(&node, "text".to_owned());
                redis.ask(&["XADD", &format!("rt1:in:{}", node.0), "NOMKSTREAM", "*", "b", "text"]);
            }
        }
    }
    for (n, shard) in shards.iter().enumerate() {
        for attachment in 1..=shard.attachments {
            let node = NodeId(format!("n{n}.{attachment}"));
            let expected: Vec<_> = (0..model.length(&node)).filter_map(|at| model.read(&node, at)).collect();
            prop_assert_eq!(redis.inbox(&node), expected, "the inbox of {:?}", node);
        }
    }
    for key in ["p:a", "r:x", "s:n0.1", "free", "dead"].map(|key| Key(key.to_owned())) {
        let mut expected = model.dump().get(&key).cloned().unwrap_or_default();
        let mut found = redis.fields(&key);
        if key == Key::dead() {
            // The times differ: the clock of the server is real.
            expected.values_mut().chain(found.values_mut()).for_each(String::clear);
        }
        prop_assert_eq!(found, expected, "{:?}", key);
    }
    Ok(())
}

#[test]
fn the_scripts_do_what_the_model_does() {
    let Some(redis) = Redis::start() else { return };
    let redis = std::cell::RefCell::new(redis);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 96,
        max_shrink_iters: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let steps = prop::collection::vec(step(), 0..40);
    runner.run(&steps, |steps| compare(&mut redis.borrow_mut(), steps)).unwrap();
}
