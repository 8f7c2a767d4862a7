//! Long runs, for `scripts/bench soak`: a line for every so often, and what may not happen at the end.
#![cfg(feature = "media")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests"
)]

mod common;

use std::time::{Duration, Instant};

use common::hostile::{OFFER, between, caller, description, forge};
use common::impaired::call_over;
use serde_json::json;

use common::{Holds, Impairment, Program, WebSocket, wait_for, ws};

const TINY: [&str; 9] =
    ["--video", "test", "--audio", "tone", "--size", "160x120", "--fps", "15", "--headless"];
const VIDEO: &[(&str, &str)] = &[("kind", "video")];
const CONNECTED: &[(&str, &str)] = &[("state", "connected")];

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect(variable))
}

/// A client that stays, and the server through which the visitors come.
struct Hall {
    home: tempfile::TempDir,
    _server: Program,
    url: String,
    /// The same server, with somebody in between who forges certificates.
    forged: String,
    stayer: Program,
    /// `call` or `join`, and whom or what.
    to: [&'static str; 2],
}

impl Hall {
    fn new(stays: &[&str], to: [&'static str; 2]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut server = Program::start(home.path(), &["serve", "--plain", "--listen", "127.0.0.1:0"]);
        let url = ws(&server.link());
        let forged = between(&url, forge, str::to_owned);
        let who = ["--id", "desk", "--server", &url, "--reconnect-after", "1", "--give-up-after", "2"];
        let mut stayer = Program::start(home.path(), &[stays, &who, &TINY].concat());
        stayer.expect("registered", &[]);
        Self { home, _server: server, url, forged, stayer, to }
    }

    fn visitor(&self, n: u64, url: &str) -> Program {
        let id = format!("visitor{n}");
        let who = ["--id", &id, "--server", url];
        Program::start(self.home.path(), &[&self.to, &who[..], &TINY].concat())
    }

    /// Somebody who speaks the protocol alone.
    fn stranger(&self, n: u64) -> (WebSocket, &'static str) {
        let id = format!("stranger{n}");
        if self.to[0] == "call" {
            return (caller(&self.url, &id, "desk"), "");
        }
        let mut stranger = WebSocket::connect(&self.url);
        stranger.say(&format!("HELLO {id}"));
        stranger.expect("HELLO");
        stranger.say(&format!("ROOM {}", self.to[1]));
        assert!(stranger.hear().unwrap().starts_with("ROOM_OK"));
        (stranger, "ROOM_PEER_MSG desk ")
    }

    /// Lets a visitor of the next kind come, or of the kind that KIND names; most kinds are well-behaved.
    fn visit(&mut self, n: u64) {
        let registered = self.stayer.count("registered", &[]);
        match number("KIND", n % 20) {
            1 | 11 => {
                let mut visitor = self.visitor(n, &self.url);
                visitor.expect("peer", CONNECTED);
                visitor.signal("KILL");
            }
            2 => {
                let mut visitor = self.visitor(n, &self.url);
                visitor.expect("media", VIDEO);
                visitor.signal("STOP");
                std::thread::sleep(Duration::from_secs(2));
            }
            // Somewhere on its way in, or before the desk hears of it.
            3 => {
                let mut visitor = self.visitor(n, &self.url);
                visitor.expect("registered", &[]);
                std::thread::sleep(Duration::from_millis(fastrand::u64(0..400)));
                drop(visitor);
                std::thread::sleep(Duration::from_secs(3));
                return;
            }
            4 | 14 => {
                let (mut stranger, to) = self.stranger(n);
                for message in ["junk", "OFFER_REQUEST", &description("answer", OFFER)] {
                    stranger.say(&format!("{to}{message}"));
                }
            }
            5 => {
                let (mut stranger, to) = self.stranger(n);
                stranger.say(&format!("{to}{}", description("offer", OFFER)));
                let candidate = r#"{"ice": {"candidate": "candidate:1 1 udp 1 127.0.0.1 9 typ host", "sdpMLineIndex": 0}}"#;
                (0..1000).for_each(|_| stranger.say(&format!("{to}{candidate}")));
                while stranger.hear().is_some_and(|line| !line.contains("\"answer\"")) {}
            }
            6 | 16 => {
                let visitor = self.visitor(n, &self.forged);
                let id = format!("visitor{n}");
                self.stayer.expect("peer", &[("peer", &id), ("state", "failed")]);
                if self.to[0] == "call" {
                    visitor.end();
                } else {
                    leave(visitor);
                }
            }
            // A caller meanwhile, or with the same name, is refused.
            7 => {
                let mut visitor = self.visitor(n, &self.url);
                visitor.expect("media", VIDEO);
                let other = self.visitor(if self.to[0] == "call" { n + 1_000_000 } else { n }, &self.url);
                assert_ne!(other.end().0, 0);
                leave(visitor);
            }
            // Nothing comes of it, for as long as it may take.
            8 if n % 100 == 8 => {
                let (_stranger, _) = self.stranger(n);
                std::thread::sleep(Duration::from_secs(11));
            }
            _ => {
                let mut visitor = self.visitor(n, &self.url);
                visitor.expect("media", VIDEO);
                leave(visitor);
            }
        }
        // The next one calls when the desk is free again: who calls sooner is turned away, and rightly.
        if self.to[0] == "call" {
            let stayer = &mut self.stayer;
            wait_for("the desk", || (stayer.count("registered", &[]) > registered).then_some(()));
        }
    }

    fn soak(mut self, visits: u64) {
        println!("\n{visits} visits: {} {}", self.to[0], self.to[1]);
        println!("visits  threads  descriptors     MB  minutes");
        let (pid, began) = (self.stayer.pid(), Instant::now());
        // Every kind of visit has been there by the first row.
        let every = (visits / 10).max(20);
        let mut rows: Vec<Holds> = vec![];
        for n in 1..=visits {
            self.visit(n);
            if n % every == 0 {
                let row = rest(pid, rows.first().copied());
                let Holds { threads, descriptors, resident } = row;
                let (megabytes, minutes) = (resident as f64 / 1024.0, began.elapsed().as_secs_f64() / 60.0);
                println!("{n:>6} {threads:>8} {descriptors:>12} {megabytes:>6.1} {minutes:>8.1}");
                rows.push(row);
            }
        }
        let (first, last) = (rows[0], rows[rows.len() - 1]);
        assert!(last.threads <= first.threads && last.descriptors <= first.descriptors, "{first:?} {last:?}");
        assert!(last.resident < first.resident * 5 / 4, "{first:?} {last:?}");
        leave(self.stayer);
    }
}

fn leave(mut visitor: Program) {
    visitor.say(&json!({"command": "quit"}));
    assert_eq!(visitor.end().0, 0);
}

/// Returns the resources once broken visitors are gone: no more than before, or those after a while.
fn rest(pid: u32, before: Option<Holds>) -> Holds {
    let until = Instant::now() + Duration::from_secs(20);
    std::thread::sleep(Duration::from_secs(4));
    loop {
        let now = Holds::of(pid);
        let fits = before.is_some_and(|b| now.threads <= b.threads && now.descriptors <= b.descriptors);
        if fits || Instant::now() > until {
            return now;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
#[ignore = "as many as CALLS says, a thousand otherwise"]
fn calls() {
    Hall::new(&["answer"], ["call", "desk"]).soak(number("CALLS", 1000));
}

#[test]
#[ignore = "as many as CALLS says, a thousand otherwise"]
fn joins() {
    Hall::new(&["join", "hall"], ["join", "hall"]).soak(number("CALLS", 1000));
}

#[test]
#[ignore = "as long as MINUTES says, an hour otherwise"]
fn a_long_call_over_a_network_that_loses() {
    const MS: Duration = Duration::from_millis(1);
    let minutes = number("MINUTES", 60);
    let bad = Impairment { delay: 30 * MS, jitter: 10 * MS, loss: 0.02, ..Impairment::default() };
    let mut setting = call_over(bad);
    let started = Instant::now();
    let mut before = setting.bob.stats();
    let mut shown_before = setting.received.pictures();
    println!("\n{minutes} minutes with 30 ms of delay, up to 10 ms more, and a loss of 2 %");
    println!("minutes  pictures/s  shown/s  sound/s    lost  threads     MB");
    for minute in 1..=minutes {
        let next = started + Duration::from_secs(60 * minute);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let now = setting.bob.stats();
        let more = |name: &str| now[name].as_u64().unwrap() - before[name].as_u64().unwrap();
        let (pictures, sound) = (more("video_frames_received"), more("audio_frames_received"));
        let shown = (setting.received.pictures() - shown_before) as u64;
        shown_before += shown as usize;
        let Holds { threads, resident, .. } = Holds::of(setting.bob.pid());
        let [pictures_s, shown_s, sound_s] =
            [pictures, shown, sound].map(|count| format!("{:.2}", count as f64 / 60.0));
        let (lost, megabytes) = (now["packets_lost"].to_string(), resident as f64 / 1024.0);
        println!(
            "{minute:>7} {pictures_s:>11} {shown_s:>8} {sound_s:>8} {lost:>7} {threads:>8} {megabytes:>6.1}"
        );
        assert!(shown > 60 * 15 / 2 && sound > 60 * 25, "it froze: {before} {now}");
        before = now;
    }
    println!("in the end: {before}");
    println!("packets from the one that is measured, and to it: {:?}", setting.network.counts());
    for side in [&mut setting.bob, &mut setting.ann] {
        assert_eq!(side.count("peer", &[("state", "reconnecting")]), 0);
    }
    setting.received.expect_moving_and_audible(setting.received.mark(), 30);
}
