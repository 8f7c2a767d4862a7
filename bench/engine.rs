//! Measures what a message between two processes costs over a Redis server: `XADD` and `XREAD` of 500-byte frames, single
//! and in pipelines, beside `PUBLISH`, and a script that checks a field, writes it and appends to two streams.
//!
//! `engine PORT` measures against a server on loopback and prints a table. The reader is a process of its own. Only the
//! standard library is used, so that `rustc -O` builds the file alone.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Length of a frame, in bytes; the first 20 are the time at which it was sent.
const FRAME: usize = 500;
/// Time of one measurement, and of the script's.
const EACH: Duration = Duration::from_secs(5);
/// The transaction: compares a field, writes it, and appends a frame to the inbox of another process and to the own one.
const SCRIPT: &str = "if redis.call('HGET', KEYS[1], 'v') ~= ARGV[1] then return 0 end \
     local seq = redis.call('INCR', KEYS[2]) redis.call('HSET', KEYS[1], 'v', ARGV[2]) \
     redis.call('XADD', KEYS[3], '*', 'b', ARGV[3]) redis.call('XADD', KEYS[4], '*', 'b', ARGV[3]) return seq";

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos()
}

fn frame() -> String {
    format!("{:020}{}", now(), "x".repeat(FRAME - 20))
}

/// A connection to the server.
struct Redis(BufReader<TcpStream>);

enum Reply {
    Text(String),
    List(Vec<Reply>),
    Nothing,
}

impl Redis {
    fn connect(port: &str) -> Self {
        let stream = TcpStream::connect(format!("127.0.0.1:{port}")).expect("a server on this port");
        stream.set_nodelay(true).expect("TCP");
        Self(BufReader::with_capacity(1 << 17, stream))
    }

    fn send(&mut self, commands: &[Vec<&str>]) {
        let mut text = String::new();
        for command in commands {
            text += &format!("*{}\r\n", command.len());
            command.iter().for_each(|word| text += &format!("${}\r\n{word}\r\n", word.len()));
        }
        self.0.get_mut().write_all(text.as_bytes()).expect("the server is there");
    }

    fn reply(&mut self) -> Reply {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a reply");
        let (kind, rest) = line.trim_end().split_at(1);
        match kind {
            "$" | "*" if rest == "-1" => Reply::Nothing,
            "$" => {
                let mut text = vec![0; rest.parse::<usize>().expect("a length") + 2];
                self.0.read_exact(&mut text).expect("the text");
                text.truncate(text.len() - 2);
                Reply::Text(String::from_utf8(text).expect("UTF-8"))
            }
            "*" => Reply::List((0..rest.parse().expect("a length")).map(|_| self.reply()).collect()),
            "-" => panic!("the server refuses: {rest}"),
            _ => Reply::Text(rest.to_owned()),
        }
    }

    fn ask(&mut self, command: &[&str]) -> Reply {
        self.send(&[command.to_vec()]);
        self.reply()
    }
}

/// Collects the ages of frames in a reply, in µs, and returns the last id of the stream.
fn ages(reply: &Reply, found: &mut Vec<u64>, last: &mut String) {
    match reply {
        Reply::Text(text) if text.len() == FRAME => {
            let sent: u128 = text[..20].parse().expect("a time");
            found.push(u64::try_from(now().saturating_sub(sent) / 1000).unwrap_or(u64::MAX));
        }
        Reply::Text(text) if text.len() > 14 && text.contains('-') => last.clone_from(text),
        Reply::List(all) => all.iter().for_each(|one| ages(one, found, last)),
        Reply::Text(_) | Reply::Nothing => {}
    }
}

/// Reads until nothing came for a second, and prints the percentiles of the ages.
fn read(port: &str, kind: &str) {
    let mut redis = Redis::connect(port);
    let (mut found, mut last) = (vec![], "0".to_owned());
    if kind == "PUBLISH" {
        redis.ask(&["SUBSCRIBE", "bench"]);
        redis.0.get_ref().set_read_timeout(Some(Duration::from_secs(2))).expect("TCP");
    }
    println!("ready");
    loop {
        let reply = if kind == "PUBLISH" {
            if redis.0.fill_buf().is_err() {
                break;
            }
            redis.reply()
        } else {
            redis.ask(&["XREAD", "COUNT", "200", "BLOCK", "2000", "STREAMS", "bench", &last])
        };
        if matches!(reply, Reply::Nothing) {
            break;
        }
        ages(&reply, &mut found, &mut last);
    }
    println!("{}", percentiles(&mut found));
}

fn percentiles(found: &mut [u64]) -> String {
    found.sort_unstable();
    let at = |share: usize| found.get((found.len() * share / 1000).min(found.len().saturating_sub(1))).copied();
    let all: Vec<String> = [500, 950, 990, 999].map(|share| at(share).unwrap_or(0).to_string()).into();
    format!("{} | {}", found.len(), all.join(" | "))
}

/// Sends frames at a rate, so many in one write, and returns the percentiles of the reader.
fn run(port: &str, kind: &str, rate: u32, pipeline: u32) -> (String, f64) {
    let mut redis = Redis::connect(port);
    redis.ask(&["DEL", "bench"]);
    let this = std::env::current_exe().expect("the own program");
    let reader = Command::new(this).args([port, "read", kind]).stdout(Stdio::piped()).spawn();
    let mut reader = reader.expect("a reader");
    let mut output = BufReader::new(reader.stdout.take().expect("its output"));
    let mut line = String::new();
    output.read_line(&mut line).expect("the reader starts");
    let start = Instant::now();
    let (step, mut sent) = (Duration::from_secs(1) * pipeline / rate, 0);
    while start.elapsed() < EACH {
        if let Some(wait) = (start + step * sent).checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        let frames: Vec<String> = (0..pipeline).map(|_| frame()).collect();
        let command = |frame| match kind {
            "PUBLISH" => vec!["PUBLISH", "bench", frame],
            _ => vec!["XADD", "bench", "MAXLEN", "~", "100000", "*", "b", frame],
        };
        let commands: Vec<Vec<&str>> = frames.iter().map(|frame| command(frame.as_str())).collect();
        redis.send(&commands);
        (0..pipeline).for_each(|_| drop(redis.reply()));
        sent += 1;
    }
    let reached = f64::from(sent * pipeline) / start.elapsed().as_secs_f64();
    line.clear();
    output.read_line(&mut line).expect("the reader's figures");
    reader.wait().expect("the reader ends");
    (line.trim().to_owned(), reached)
}

fn script(port: &str) -> String {
    let mut redis = Redis::connect(port);
    redis.ask(&["DEL", "k", "s", "in:a", "in:b"]);
    redis.ask(&["HSET", "k", "v", "0"]);
    let Reply::Text(sha) = redis.ask(&["SCRIPT", "LOAD", SCRIPT]) else { panic!("no script") };
    let (start, mut times, mut n) = (Instant::now(), vec![], 0_u64);
    while start.elapsed() < EACH {
        let (before, after, frame) = (n.to_string(), (n + 1).to_string(), frame());
        let sent = Instant::now();
        redis.ask(&["EVALSHA", &sha, "4", "k", "s", "in:a", "in:b", &before, &after, &frame]);
        times.push(u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX));
        n += 1;
    }
    redis.ask(&["DEL", "k", "s", "in:a", "in:b"]);
    percentiles(&mut times)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [port, "read", kind] => read(port, kind),
        [port] => {
            println!("| | messages a second, wanted | reached | messages | p50 | p95 | p99 | p99.9 (µs) |");
            println!("|---|---|---|---|---|---|---|---|");
            for (kind, rate, pipeline) in [
                ("XADD", 1_000, 1),
                ("XADD", 10_000, 1),
                ("XADD", 10_000, 8),
                ("XADD", 20_000, 8),
                ("XADD", 20_000, 64),
                ("PUBLISH", 10_000, 8),
                ("PUBLISH", 20_000, 8),
                ("PUBLISH", 20_000, 64),
            ] {
                let (figures, reached) = run(port, kind, rate, pipeline);
                println!("| {kind}, {pipeline} in a write | {rate} | {reached:.0} | {figures} |");
            }
            println!("| a transaction, one after another | | | {} |", script(port));
        }
        _ => println!("usage: engine PORT"),
    }
}
