//! A bad network between two machines of the test's own, without netem: a TUN device in each, and a relay
//! between them that loses packets, holds them back, lets them wait at a bottleneck, and can be cut.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tun_rs::{DeviceBuilder, SyncDevice};

use super::{Namespace, Program, Received, SMALL, Stage, pace};

/// The impairment of the packets of one direction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Impairment {
    pub delay: Duration,
    /// The most additional delay, evenly distributed; packets keep their order.
    pub jitter: Duration,
    /// The share that is lost, from 0 to 1.
    pub loss: f64,
    /// Bits per second through the bottleneck; none: as many as come.
    pub rate: Option<u64>,
    /// How long a packet may wait at the bottleneck; one that would wait longer is lost.
    pub queue: Duration,
    /// Nothing comes through.
    pub cut: bool,
}

impl Default for Impairment {
    fn default() -> Self {
        let queue = Duration::from_millis(300);
        Self { delay: Duration::ZERO, jitter: Duration::ZERO, loss: 0.0, rate: None, queue, cut: false }
    }
}

/// Counters of the packets of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    pub passed: u64,
    /// By the share that is lost, or by the cut.
    pub lost: u64,
    /// Because the bottleneck's queue was full.
    pub overflowed: u64,
    /// The bytes of the packets that passed.
    pub bytes: u64,
    /// How long the last one waited at the bottleneck.
    pub waited: Duration,
}

/// A direction of the path: its impairment and its counters.
#[derive(Debug)]
pub struct Direction {
    pub impairment: Impairment,
    pub count: Count,
    random: fastrand::Rng,
    /// When the bottleneck has let all go that came so far.
    free: Option<Instant>,
    last: Option<Instant>,
}

impl Direction {
    pub fn new(impairment: Impairment, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { impairment, count: Count::default(), random, free: None, last: None }
    }

    /// When a packet of that many bytes that comes now gets to the other end; none: never.
    pub fn arrival(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        let Impairment { delay, jitter, loss, rate, queue, cut } = self.impairment;
        if cut || self.random.f64() < loss {
            self.count.lost += 1;
            return None;
        }
        let mut through = now;
        if let Some(rate) = rate {
            let begins = self.free.map_or(now, |free| free.max(now));
            if begins - now > queue {
                self.count.overflowed += 1;
                return None;
            }
            through = begins + Duration::from_secs_f64(bytes as f64 * 8.0 / rate as f64);
            self.free = Some(through);
        }
        let arrival = through + delay + jitter.mul_f64(self.random.f64());
        let arrival = self.last.map_or(arrival, |last| last.max(arrival));
        self.last = Some(arrival);
        self.count.passed += 1;
        self.count.bytes += bytes as u64;
        self.count.waited = through - now;
        Some(arrival)
    }
}

/// Two machines with nothing between them but a bad network.
pub struct Impaired {
    pub left: Namespace,
    pub right: Namespace,
    /// From the left to the right, and back.
    directions: [Arc<Mutex<Direction>>; 2],
}

/// The addresses of the left and the right.
pub const LEFT: &str = "10.79.1.1";
/// See [`LEFT`].
pub const RIGHT: &str = "10.79.1.2";

impl Impaired {
    /// Both directions alike.
    pub fn new(impairment: Impairment) -> Self {
        let (left, right) = (Namespace::new(), Namespace::new());
        let devices = [device(&left, LEFT), device(&right, RIGHT)].map(Arc::new);
        // The lost packets are the same in each run, their times are not.
        let directions = [1, 2].map(|seed| Arc::new(Mutex::new(Direction::new(impairment, seed))));
        for (n, direction) in directions.iter().enumerate() {
            let (from, to) = (devices[n].clone(), devices[1 - n].clone());
            let (queue, due) = channel();
            let direction = direction.clone();
            std::thread::spawn(move || read(&from, &direction, &queue));
            std::thread::spawn(move || write(&to, &due));
        }
        Self { left, right, directions }
    }

    /// From now on this is done to the packets of both directions.
    pub fn set(&self, impairment: Impairment) {
        self.directions.iter().for_each(|direction| direction.lock().unwrap().impairment = impairment);
    }

    /// The same for one direction: from the left to the right, or back.
    pub fn set_one(&self, direction: usize, impairment: Impairment) {
        self.directions[direction].lock().unwrap().impairment = impairment;
    }

    /// Returns the counters from the left to the right, and back.
    pub fn counts(&self) -> [Count; 2] {
        self.directions.each_ref().map(|direction| direction.lock().unwrap().count)
    }
}

/// A TUN device in that namespace, with that address; it stays there when the thread that made it is gone.
fn device(namespace: &Namespace, address: &str) -> SyncDevice {
    let file = File::open(namespace.path()).unwrap();
    let address: std::net::Ipv4Addr = address.parse().unwrap();
    let made = std::thread::spawn(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        DeviceBuilder::new().name("bad").ipv4(address, 24, None).mtu(1500).build_sync().unwrap()
    });
    made.join().unwrap()
}

/// Until the device is gone.
fn read(from: &SyncDevice, direction: &Mutex<Direction>, queue: &Sender<(Instant, Vec<u8>)>) {
    let mut packet = vec![0; 2048];
    while let Ok(length) = from.recv(&mut packet) {
        let arrival = direction.lock().unwrap().arrival(Instant::now(), length);
        if let Some(arrival) = arrival
            && queue.send((arrival, packet[..length].to_vec())).is_err()
        {
            return;
        }
    }
}

/// Until nothing can come any more. A packet that the device does not take is lost, as on a real one.
fn write(to: &SyncDevice, due: &Receiver<(Instant, Vec<u8>)>) {
    for (arrival, packet) in due {
        pace(arrival);
        let _ = to.send(&packet);
    }
}

/// Arrivals of packets of that size that come every so often, and none for those that never do.
pub fn arrivals(impairment: Impairment, bytes: usize, every: Duration, count: u32) -> Vec<Option<Duration>> {
    let start = Instant::now();
    let mut direction = Direction::new(impairment, 7);
    let arrive = |n| {
        let now = start + every * n;
        direction.arrival(now, bytes).map(|at| at - now)
    };
    (0..count).map(arrive).collect()
}

/// A server and a client on the left, and a caller on the right.
pub struct Setting {
    pub network: Impaired,
    pub received: Received,
    pub bob: Program,
    pub ann: Program,
    _stage: Stage,
}

/// Starts a call that sends video and audio both ways.
pub fn call_over(impairment: Impairment) -> Setting {
    let mut setting = call_of(impairment, &SMALL, &SMALL);
    setting.ann.expect("media", &[("kind", "video")]);
    setting
}

/// The same with these options of what each side sends.
pub fn call_of(impairment: Impairment, bob_sends: &[&str], ann_sends: &[&str]) -> Setting {
    let (network, received) = (Impaired::new(impairment), Received::new());
    let stage = Stage::within(&network.left, &[]);
    let bob = stage.answer("bob").within(&network.left, "127.0.0.1");
    let bob = bob.media(bob_sends).receiving(&received).ready();
    let mut ann = stage.call("bob").within(&network.right, LEFT).media(ann_sends).start();
    ann.expect("peer", &[("state", "connected")]);
    Setting { network, received, bob, ann, _stage: stage }
}
