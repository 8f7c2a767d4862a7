//! The driver between a shard and its engine. It connects again after every failure; the shard finds out what became of its
//! requests.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, Value};
use smol::Timer;
use smol::future::{or, yield_now};

use super::error::EngineError;
use super::link::{ANSWER, Link, Scripts};
use super::measure::Measure;
use super::portion::Portion;
use super::settings::Engine;
use crate::base::backoff::Backoff;
use crate::base::lock::lock;
use crate::base::timeout::timeout;
use crate::hub::shard::scripts::BODY;
use crate::hub::shard::{Ask, Attached, Beat, Cluster, FromEngine, Key, Message, NodeId, Verdict};

/// The interval between beats.
const BEAT: Duration = Duration::from_secs(2);
/// The interval at which deadlines of the shard are checked.
const TICK: Duration = Duration::from_millis(100);
/// The most requests that are sent at once.
const BATCH: usize = 64;
/// The time that one read of the inbox waits at the engine, in ms. After a new attachment the reader waits as long for the
/// earlier inbox.
const BLOCK: u64 = 500;
/// The time without a message after which an inbox counts as broken: with each beat the driver writes to its own inbox.
const DEAF: Duration = Duration::from_secs(7);
/// The pauses between attempts to connect: the first and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));
/// The time that a connection has to last for the pauses to begin anew.
const LASTS: Duration = Duration::from_secs(10);
/// The field of a message by which the driver sees that its inbox works.
const MARK: &str = "m";
/// The messages handled before the task yields to the other tasks of its thread.
const PER_TURN: usize = 16;

/// The server's side: its shard, behind a lock.
pub trait Port: Send + Sync {
    /// Handles an event of the engine.
    fn handle(&self, event: FromEngine);
    /// Returns the requests to send first over a new connection, and the attachment that they belong to.
    fn reconnect(&self) -> (Option<Beat>, Vec<Ask>);
    /// Returns the next requests, `most` at most, and the attachment that they belong to.
    fn asks(&self, most: usize) -> (Option<Beat>, Vec<Ask>);
    /// Returns the content of a beat; none while the shard is not attached.
    fn beat(&self) -> Option<Beat>;
    /// Attaches again, since the inbox delivers nothing.
    fn renew(&self);
    /// Handles the deadlines that have passed.
    fn expire(&self, now: Instant);
    /// Completes when there may be requests.
    fn woken(&self) -> impl Future<Output = ()> + Send;
    /// Notes that the engine carries out requests (none), or why it does not. An engine that is reached may still refuse all
    /// changes.
    fn note(&self, error: Option<&EngineError>);
    /// Counts an event for the metrics.
    fn measure(&self, measure: Measure);
}

/// The place in the inbox.
#[derive(Debug)]
struct Reading {
    node: NodeId,
    last: String,
    heard: Instant,
    portion: Portion,
    /// The time at which the oldest mark was sent that has not been read.
    marked: Option<Instant>,
}

impl Reading {
    fn new(node: NodeId) -> Self {
        let (last, heard) = ("0-0".to_owned(), Instant::now());
        Self { node, last, heard, portion: Portion::default(), marked: None }
    }
}

/// The state of one pair of connections.
struct Session<'a, P> {
    engine: &'a Engine,
    port: &'a P,
    address: &'a str,
    scripts: &'a Scripts,
    reading: &'a Mutex<Reading>,
}

/// Connects a shard with its engine. Never completes.
pub async fn run<P: Port>(engine: &Engine, port: &P) {
    let clock = async {
        loop {
            Timer::after(TICK).await;
            port.expire(Instant::now());
        }
    };
    or(clock, connect_forever(engine, port)).await;
}

async fn connect_forever<P: Port>(engine: &Engine, port: &P) {
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    let reading = Mutex::new(Reading::new(NodeId(String::new())));
    loop {
        let began = Instant::now();
        let error = match Link::open(engine).await {
            Ok((link, _)) => {
                lock(&reading).heard = Instant::now();
                serve(engine, port, link, &reading).await
            }
            Err(error) => error,
        };
        port.note(Some(&error));
        if began.elapsed() > LASTS {
            backoff.reset();
        }
        Timer::after(backoff.next_pause(fastrand::f64())).await;
    }
}

/// Serves until a connection breaks; returns why.
async fn serve<P: Port>(engine: &Engine, port: &P, link: Link, reading: &Mutex<Reading>) -> EngineError {
    let Link { requests, inbox, scripts, address } = link;
    let session = Session { engine, port, address: &address, scripts: &scripts, reading };
    or(session.write(requests.clone()), or(session.beat(requests), session.read(inbox))).await
}

impl<P: Port> Session<'_, P> {
    fn key(&self, key: &Key) -> String {
        format!("{}{}", self.engine.prefix, key.0)
    }

    fn script(&self, sum: &str, arguments: &[String]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(sum).arg(1).arg(&self.engine.prefix).arg(arguments);
        command
    }

    fn failed(&self, error: &redis::RedisError) -> EngineError {
        EngineError::of(self.address, error)
    }

    fn strange(&self, what: impl std::fmt::Debug) -> EngineError {
        EngineError::Strange(self.address.to_owned(), format!("{what:?}"))
    }

    fn silent(&self) -> EngineError {
        EngineError::Lost(self.address.to_owned(), "no answer".to_owned())
    }

    /// Sends the requests of the shard in order, many at once while an answer is under way.
    async fn write(&self, mut connection: MultiplexedConnection) -> EngineError {
        let mut next = self.port.reconnect();
        loop {
            let (beat, asks) = next;
            if asks.is_empty() {
                self.port.woken().await;
            } else if let Err(error) = self.send(&mut connection, beat.as_ref(), &asks).await {
                return error;
            }
            next = self.port.asks(BATCH);
        }
    }

    async fn send(
        &self,
        connection: &mut MultiplexedConnection,
        beat: Option<&Beat>,
        asks: &[Ask],
    ) -> Result<(), EngineError> {
        let mut pipe = redis::pipe();
        let mut sent = vec![];
        for ask in asks {
            let command = match (ask, beat) {
                (Ask::Attach(attach), _) => self.script(&self.scripts.attach, &attach.arguments()),
                (Ask::Tx(tx), Some(Beat { node, epoch, .. })) => {
                    self.script(&self.scripts.tx, &tx.arguments(node, epoch))
                }
                // The attachment has ended meanwhile: the shard plans the job again.
                (Ask::Tx(_), None) => continue,
                (Ask::Send(node, body), _) => self.text(node, body),
            };
            pipe.add_command(command);
            sent.push(ask);
        }
        if sent.is_empty() {
            return Ok(());
        }
        let since = Instant::now();
        let answers = pipe.ignore_errors().query_async::<Vec<RedisResult<Value>>>(connection).await;
        let answers = answers.map_err(|error| self.failed(&error))?;
        self.port.measure(Measure::RoundTrip(since.elapsed()));
        self.port.measure(Measure::Sent(sent.iter().map(|ask| messages(ask)).sum()));
        for (ask, answer) in sent.into_iter().zip(answers) {
            let answer = match answer.map_err(|error| self.failed(&error)) {
                Ok(answer) => answer,
                // The engine accepts no text while it has no memory: the text is dropped.
                Err(EngineError::Full(_)) if matches!(ask, Ask::Send(..)) => {
                    self.port.handle(FromEngine::Full(true));
                    continue;
                }
                Err(error) => return Err(error),
            };
            match (ask, beat) {
                (Ask::Attach(attach), _) => {
                    let (epoch, is_young): (String, i64) = self.read_as(answer)?;
                    let attached = Attached { node: attach.node.clone(), epoch, is_young: is_young == 1 };
                    tracing::info!(node = %attached.node.0, "attached to the engine {}", self.address);
                    self.port.handle(FromEngine::Attached(attached));
                    self.port.measure(Measure::Attached);
                    self.port.note(None);
                }
                (Ask::Tx(_), Some(beat)) => {
                    let verdict: String = self.read_as(answer)?;
                    let verdict = Verdict::parse(&verdict).ok_or_else(|| self.strange(verdict))?;
                    self.port.handle(FromEngine::Verdict(beat.node.clone(), verdict));
                }
                (Ask::Tx(_), None) | (Ask::Send(..), _) => {}
            }
        }
        Ok(())
    }

    /// Returns the command that appends a text to an inbox.
    fn text(&self, node: &NodeId, body: &str) -> Cmd {
        let mut add = redis::cmd("XADD");
        add.arg(self.key(&Key::inbox(node))).arg("NOMKSTREAM").arg("*").arg(BODY).arg(body);
        add
    }

    fn read_as<T: redis::FromRedisValue>(&self, value: Value) -> Result<T, EngineError> {
        redis::from_redis_value(value).map_err(|error| self.strange(error.to_string()))
    }

    /// Beats, removes the messages that were read, and checks that the inbox delivers.
    async fn beat(&self, mut connection: MultiplexedConnection) -> EngineError {
        loop {
            if let Some(beat) = self.port.beat()
                && let Err(error) = self.beat_once(&mut connection, &beat).await
            {
                return error;
            }
            Timer::after(BEAT).await;
        }
    }

    async fn beat_once(
        &self,
        connection: &mut MultiplexedConnection,
        beat: &Beat,
    ) -> Result<(), EngineError> {
        let (last, is_deaf) = {
            let mut reading = lock(self.reading);
            let is_read = reading.node == beat.node;
            if is_read {
                reading.marked.get_or_insert_with(Instant::now);
            }
            (is_read.then(|| reading.last.clone()), is_read && reading.heard.elapsed() > DEAF)
        };
        if is_deaf {
            tracing::warn!("the inbox of this server delivers nothing: it attaches to the engine again");
            self.port.renew();
            return Ok(());
        }
        let inbox = self.key(&Key::inbox(&beat.node));
        let mut pipe = redis::pipe();
        pipe.add_command(self.script(&self.scripts.beat, &beat.arguments()));
        if let Some(last) = last {
            pipe.cmd("XTRIM").arg(&inbox).arg("MINID").arg(last);
        }
        // The mark comes last, where trimming may have made room for it.
        pipe.cmd("XADD").arg(&inbox).arg("NOMKSTREAM").arg("*").arg(MARK).arg("1");
        let answers = pipe.ignore_errors().query_async::<Vec<RedisResult<Value>>>(connection).await;
        let mut answers = answers.map_err(|error| self.failed(&error))?;
        self.marked(answers.pop())?;
        let answers: RedisResult<Vec<Value>> = answers.into_iter().collect();
        let answer = answers.map_err(|error| self.failed(&error))?.into_iter().next().unwrap_or_default();
        let parts: Vec<Value> = self.read_as(answer)?;
        let mut parts = parts.into_iter();
        let verdict: String = self.read_as(parts.next().unwrap_or_default())?;
        let event = match Verdict::parse(&verdict).ok_or_else(|| self.strange(verdict))? {
            Verdict::Taken => {
                let is_first: i64 = self.read_as(parts.next().unwrap_or_default())?;
                let dead: Vec<String> = self.read_as(parts.next().unwrap_or_default())?;
                let dead = dead.into_iter().map(NodeId).collect();
                self.port.note(None);
                FromEngine::Cluster(Cluster { dead, is_first: is_first == 1 })
            }
            verdict @ (Verdict::Fenced | Verdict::Rewound) => {
                tracing::warn!("this server's place at the engine is lost ({verdict:?}): it attaches again");
                FromEngine::Verdict(beat.node.clone(), verdict)
            }
        };
        self.port.handle(event);
        Ok(())
    }

    /// Handles the answer to the mark in the own inbox, which shows whether the engine has memory.
    fn marked(&self, answer: Option<RedisResult<Value>>) -> Result<(), EngineError> {
        let is_full = match answer.transpose().map_err(|error| self.failed(&error)) {
            Ok(_) => false,
            Err(EngineError::Full(_)) => true,
            Err(error) => return Err(error),
        };
        if is_full {
            // An inbox without a mark says nothing about the reader.
            lock(self.reading).heard = Instant::now();
        }
        self.port.handle(FromEngine::Full(is_full));
        Ok(())
    }

    /// Reads the inbox of the attachment.
    async fn read(&self, mut connection: MultiplexedConnection) -> EngineError {
        loop {
            let Some(Beat { node, .. }) = self.port.beat() else {
                Timer::after(TICK / 10).await;
                continue;
            };
            let (last, count) = {
                let mut reading = lock(self.reading);
                if reading.node != node {
                    *reading = Reading::new(node.clone());
                }
                (reading.last.clone(), reading.portion.count())
            };
            let mut read = redis::cmd("XREAD");
            read.arg("COUNT").arg(count).arg("BLOCK").arg(BLOCK).arg("STREAMS");
            read.arg(self.key(&Key::inbox(&node))).arg(last);
            let since = Instant::now();
            let read = read.query_async::<Value>(&mut connection);
            let entries = match timeout(ANSWER, read).await {
                None => return self.read_less(),
                Some(Err(error)) => return self.failed(&error),
                Some(Ok(value)) => match self.entries(value) {
                    Ok(entries) => entries,
                    Err(error) => return error,
                },
            };
            lock(self.reading).portion.answered(entries.len(), since.elapsed());
            for (n, (id, fields)) in entries.into_iter().enumerate() {
                if let Err(error) = self.message(&node, id, &fields) {
                    return error;
                }
                if n % PER_TURN == 0 {
                    yield_now().await;
                }
            }
        }
    }

    /// Lets the next read ask for fewer messages. A single message that does not arrive in time would be asked for without
    /// end: the shard then attaches again, with an empty inbox.
    fn read_less(&self) -> EngineError {
        if !lock(self.reading).portion.shrink() {
            tracing::warn!(
                "a message of the inbox of this server does not arrive: it attaches to the engine again"
            );
            self.port.renew();
        }
        self.silent()
    }

    /// Returns the messages of one inbox.
    fn entries(&self, value: Value) -> Result<Vec<Entry>, EngineError> {
        type Streams = Vec<(String, Vec<Entry>)>;
        let streams: Option<Streams> = self.read_as(value)?;
        Ok(streams.into_iter().flatten().flat_map(|(_, entries)| entries).collect())
    }

    fn message(
        &self,
        node: &NodeId,
        id: String,
        fields: &BTreeMap<String, String>,
    ) -> Result<(), EngineError> {
        {
            let mut reading = lock(self.reading);
            (reading.last, reading.heard) = (id, Instant::now());
        }
        if fields.contains_key(MARK) {
            let marked = lock(self.reading).marked.take();
            marked.into_iter().for_each(|since| self.port.measure(Measure::InboxDelay(since.elapsed())));
            return Ok(());
        }
        let (place, message) = Message::parse(fields).ok_or_else(|| self.strange(fields.keys()))?;
        self.port.measure(match &message {
            Message::Done { is_done, .. } => Measure::Transaction(*is_done),
            Message::Frame(..) => Measure::Received,
        });
        self.port.handle(FromEngine::Message(node.clone(), place, message));
        Ok(())
    }
}

/// Returns the number of messages to other inboxes in a request.
fn messages(ask: &Ask) -> usize {
    match ask {
        Ask::Attach(_) => 0,
        Ask::Tx(tx) => tx.sends.len(),
        Ask::Send(..) => 1,
    }
}

/// A message of an inbox: its id and its fields.
type Entry = (String, BTreeMap<String, String>);
