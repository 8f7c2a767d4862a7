//! Load test: many peers register, join rooms and send messages to each other. Measures times and counts failures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use smol::channel::{Receiver, bounded};
use smol::future::or;

use crate::base::timeout::{timeout, timeout_at};
use crate::protocol::hello::{ClientMessage, ServerMessage};
use crate::protocol::{PeerId, RoomId};
use crate::signalling::{Frame, Socket, Target};

/// Most peers of a run.
pub const MAX_PEERS: usize = 20_000;
/// Longest time for a registration or a join.
const PATIENCE: Duration = Duration::from_secs(30);

/// Size of the load.
#[derive(Debug, Clone)]
pub struct Load {
    /// Number of peers.
    pub peers: usize,
    /// Number of rooms.
    pub rooms: usize,
    /// Time in which peers send messages.
    pub duration: Duration,
    /// Messages of each peer per second.
    pub rate: f64,
}

/// Percentiles of measured times, in ms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// Number of measurements.
    pub count: usize,
    /// The median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Longest time.
    pub max: f64,
}

impl Percentiles {
    /// Returns the percentiles of these times.
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |part: f64| {
            let index = ((times.len() as f64 * part).ceil() as usize).clamp(1, times.len().max(1)) - 1;
            times.get(index).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
        };
        Self { count: times.len(), p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1.0) }
    }
}

/// Result of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Times of connecting and HELLO.
    pub register_ms: Percentiles,
    /// Times from ROOM to ROOM_OK, while all peers join at once.
    pub join_ms: Percentiles,
    /// Times of a message from one peer to another through the server.
    pub relay_ms: Percentiles,
    /// Received messages per second.
    pub messages_per_second: f64,
    /// Messages sent.
    pub sent: u64,
    /// Received messages.
    pub received: u64,
    /// Errors in words, at most ten.
    pub errors: Vec<String>,
}

/// Counters that all peers share during a run.
#[derive(Debug, Default)]
pub struct Progress {
    /// Peers that have joined their rooms.
    pub joined: AtomicU64,
    /// Peers that failed.
    pub failed: AtomicU64,
    /// Messages sent.
    pub sent: AtomicU64,
    /// Received messages.
    pub received: AtomicU64,
}

struct Times {
    register: Duration,
    join: Duration,
    relay: Vec<Duration>,
}

/// The state that all peers of a run share.
struct Run {
    load: Load,
    target: Target,
    /// Word in all ids and names, so that runs do not interfere.
    word: String,
    epoch: Instant,
    /// Closed when the peers are to send messages.
    started: Receiver<()>,
    progress: Arc<Progress>,
}

/// Runs the load. All its peers leave the server at the end.
pub async fn run(load: &Load, target: &Target, progress: Arc<Progress>) -> Report {
    let (start, started) = bounded::<()>(1);
    let run = Arc::new(Run {
        load: load.clone(),
        target: target.clone().extended(false),
        word: format!("{:08x}", fastrand::u32(..)),
        epoch: Instant::now(),
        started,
        progress: progress.clone(),
    });
    let tasks: Vec<_> = (0..load.peers)
        .map(|n| {
            let run = run.clone();
            smol::spawn(async move {
                let result = run.peer(n).await;
                run.progress.failed.fetch_add(u64::from(result.is_err()), Ordering::Relaxed);
                result
            })
        })
        .collect();
    let all_in = async {
        let done = || progress.joined.load(Ordering::Relaxed) + progress.failed.load(Ordering::Relaxed);
        while done() < load.peers as u64 {
            smol::Timer::after(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, all_in).await;
    let began = Instant::now();
    // The channel is closed to start all peers, which wait for it.
    drop(start);
    let mut report = Report::default();
    let (mut register, mut join, mut relay) = (vec![], vec![], vec![]);
    for task in tasks {
        match task.await {
            Ok(times) => {
                register.push(times.register);
                join.push(times.join);
                relay.extend(times.relay);
            }
            Err(error) if report.errors.len() < 10 => report.errors.push(error),
            Err(_) => {}
        }
    }
    report.sent = progress.sent.load(Ordering::Relaxed);
    report.received = progress.received.load(Ordering::Relaxed);
    report.messages_per_second =
        report.received as f64 / began.elapsed().min(load.duration).as_secs_f64().max(0.001);
    report.register_ms = Percentiles::of(register);
    report.join_ms = Percentiles::of(join);
    report.relay_ms = Percentiles::of(relay);
    report
}

async fn within<T>(what: &str, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = || Err(format!("{what} took more than {} s", PATIENCE.as_secs()));
    timeout(PATIENCE, work).await.unwrap_or_else(late)
}

impl Run {
    async fn peer(&self, n: usize) -> Result<Times, String> {
        let began = Instant::now();
        let mut socket = within("registering", self.register(n)).await?;
        let register = began.elapsed();
        let began = Instant::now();
        let others = within("joining", self.join(n, &mut socket)).await?;
        let join = began.elapsed();
        self.progress.joined.fetch_add(1, Ordering::Relaxed);
        let relay = self.exchange(&mut socket, others).await?;
        socket.close().await;
        Ok(Times { register, join, relay })
    }

    async fn register(&self, n: usize) -> Result<Socket, String> {
        let id: PeerId = format!("load-{}-{n}", self.word).parse().map_err(|error| format!("{error}"))?;
        let mut socket = Socket::connect(&self.target).await.map_err(|error| error.to_string())?;
        send(&mut socket, &ClientMessage::Hello(id)).await?;
        match receive(&mut socket).await? {
            ServerMessage::Hello => Ok(socket),
            other => Err(format!("HELLO was answered by {other}")),
        }
    }

    /// Joins a room; returns its other members.
    async fn join(&self, n: usize, socket: &mut Socket) -> Result<Vec<PeerId>, String> {
        let room = format!("load-{}-{}", self.word, n % self.load.rooms.max(1));
        let room: RoomId = room.parse().map_err(|error| format!("{error}"))?;
        send(socket, &ClientMessage::Room(room)).await?;
        loop {
            match receive(socket).await? {
                ServerMessage::RoomOk(peers) => return Ok(peers),
                ServerMessage::Error(text) => return Err(text),
                _ => {}
            }
        }
    }

    /// Sends messages to the other members from the start of the run to its end; returns the times that received
    /// messages took.
    async fn exchange(&self, socket: &mut Socket, mut others: Vec<PeerId>) -> Result<Vec<Duration>, String> {
        let mut relay = Vec::new();
        loop {
            let start = async {
                let _ = self.started.recv().await;
                None
            };
            match or(async { Some(socket.receive().await) }, start).await {
                Some(frame) => self.accept(frame, &mut others, &mut relay)?,
                None => break,
            }
        }
        let pause = Duration::from_secs_f64(1.0 / self.load.rate.clamp(0.01, 10_000.0));
        let until = Instant::now() + self.load.duration;
        // Spreads the first messages over the interval.
        let mut next = Instant::now() + pause.mul_f64(fastrand::f64());
        loop {
            match timeout_at(Some(until.min(next)), socket.receive()).await {
                Some(frame) => self.accept(frame, &mut others, &mut relay)?,
                None if until <= Instant::now() => return Ok(relay),
                None => {
                    next += pause;
                    if let Some(to) = fastrand::choice(&others).cloned() {
                        let body = format!("{{\"t\":{}}}", self.epoch.elapsed().as_nanos());
                        send(socket, &ClientMessage::RoomPeerMsg { to, body }).await?;
                        self.progress.sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    fn accept(
        &self,
        frame: Frame,
        others: &mut Vec<PeerId>,
        relay: &mut Vec<Duration>,
    ) -> Result<(), String> {
        match frame {
            Frame::Text(text) => match ServerMessage::parse(&text) {
                Ok(ServerMessage::RoomPeerJoined(peer)) => others.push(peer),
                Ok(ServerMessage::RoomPeerLeft(peer)) => others.retain(|other| *other != peer),
                Ok(ServerMessage::RoomPeerMsg { body, .. }) => {
                    self.progress.received.fetch_add(1, Ordering::Relaxed);
                    let sent = body.trim_start_matches("{\"t\":").trim_end_matches('}').parse().unwrap_or(0);
                    relay.push(self.epoch.elapsed().saturating_sub(Duration::from_nanos(sent)));
                }
                // A message to a peer that has just left.
                Ok(ServerMessage::Error(_)) => {}
                other => return Err(format!("not expected: {other:?}")),
            },
            Frame::Binary(_) => {}
            Frame::Closed(code, reason) => return Err(format!("closed by the server: {code} {reason}")),
        }
        Ok(())
    }
}

async fn send(socket: &mut Socket, message: &ClientMessage) -> Result<(), String> {
    socket.send(message.to_string()).await.map_err(|error| error.to_string())
}

async fn receive(socket: &mut Socket) -> Result<ServerMessage, String> {
    match socket.receive().await {
        Frame::Text(text) => ServerMessage::parse(&text).map_err(|error| error.to_string()),
        Frame::Binary(bytes) => Err(format!("a binary frame of {} bytes", bytes.len())),
        Frame::Closed(code, reason) => Err(format!("closed by the server: {code} {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times = (1..=100).rev().map(Duration::from_millis).collect();
        let found = Percentiles::of(times);
        assert_eq!((found.count, found.p50, found.p95, found.p99, found.max), (100, 50.0, 95.0, 99.0, 100.0));
        assert_eq!(Percentiles::of(vec![]), Percentiles::default());
    }
}
