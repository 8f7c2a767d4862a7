//! The harness: programs as users run them, a real browser, and what was received, measured.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    unused_macros,
    reason = "each test program uses a part of it"
)]

pub mod browser;
pub mod external;
pub mod hostile;
pub mod impaired;
pub mod machine;
pub mod moody;
pub mod namespace;
pub mod needs;
pub mod ports;
pub mod proxy;
pub mod pulse;
#[cfg(feature = "media")]
pub mod raw;
pub mod received;
pub mod redis;
pub mod resumed;
pub mod stage;
pub mod waiting;
pub mod websocket;

pub use external::External;
pub use impaired::{Impaired, Impairment};
pub use machine::alone;
pub use moody::{Mood, Moody};
pub use namespace::Namespace;
pub(crate) use needs::needs;
pub use ports::{free_address, free_port};
pub use proxy::{Behind, Proxy};
pub use received::Received;
pub use resumed::{Resumed, resumed};
pub use stage::{Client, Stage};
pub use waiting::{PATIENCE, in_time, load, pace, settled, until, wait_for};
pub use websocket::WebSocket;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Options of a client that needs no camera, no sound card and little of a processor.
pub const SMALL: [&str; 8] = ["--video", "test", "--audio", "tone", "--size", "320x240", "--fps", "15"];

/// A free port of loopback.
pub const ANY: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Runs a server in this process until the test program ends; returns its address.
pub fn serve(config: roomtone::server::Config) -> std::net::SocketAddr {
    machine::share();
    let server = smol::block_on(roomtone::server::Server::bind(config)).unwrap();
    let address = server.address();
    smol::spawn(server.run(std::future::pending())).detach();
    address
}

/// Runs a server in this process; returns its address, and a function that stops the server and waits for its end.
pub fn serve_until_stopped(
    config: roomtone::server::Config,
) -> (std::net::SocketAddr, impl FnOnce() -> smol::Task<()>) {
    let server = smol::block_on(roomtone::server::Server::bind(config)).unwrap();
    let address = server.address();
    let (stop, stopped) = smol::channel::bounded::<()>(1);
    let task = smol::spawn(server.run(async move {
        let _ = stopped.recv().await;
    }));
    (address, move || {
        drop(stop);
        task
    })
}

/// Reads an HTTP response with its body; returns the status.
pub fn read_status(reader: &mut impl BufRead) -> String {
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let before = head.len();
        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "the end of the connection");
        let line = head[before..].to_lowercase();
        length = line.strip_prefix("content-length: ").map_or(length, |text| text.trim().parse().unwrap());
    }
    reader.read_exact(&mut vec![0; length]).unwrap();
    head.split(' ').nth(1).unwrap_or_default().to_owned()
}

/// Requests a WebSocket at a path; returns the status and the body of the server's answer.
pub fn upgrade(server: impl std::fmt::Display, path: &str) -> (u16, String) {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let request = ureq::http::Request::builder().uri(format!("http://{server}/{path}"));
    // The headers are set by hand, because ureq does not upgrade connections.
    let request = request.header("connection", "upgrade").header("upgrade", "websocket");
    let request =
        request.header("sec-websocket-version", "13").header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==");
    let mut answer = agent.run(request.body(()).unwrap()).unwrap();
    (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
}

/// Registry of GStreamer's plugins for all programs of the tests: without it the first program in each test's folder would
/// load all plugins of the machine.
pub const REGISTRY: (&str, &str) =
    ("GST_REGISTRY_1_0", concat!(env!("CARGO_TARGET_TMPDIR"), "/gstreamer.registry"));

/// A running `roomtone --json`.
pub struct Program {
    /// Its command line.
    line: String,
    child: Child,
    stdin: Option<ChildStdin>,
    events: Receiver<Value>,
    seen: Vec<Value>,
    stderr: Arc<Mutex<String>>,
    /// Reads stderr to its end.
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Program {
    /// Starts it with these arguments in a folder of its own for state and configuration.
    pub fn start(home: &Path, args: &[&str]) -> Self {
        Self::spawn(Command::new(env!("CARGO_BIN_EXE_roomtone")), home, args)
    }

    /// The same with variables in its environment.
    pub fn start_with(home: &Path, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_roomtone"));
        command.envs(variables.iter().copied());
        Self::spawn(command, home, args)
    }

    /// Waits for its end; what it said on stderr holds none of these.
    pub fn end_quietly_of(self, secrets: &[&str]) {
        let (_, stderr) = self.end();
        for secret in secrets {
            assert!(!stderr.contains(secret), "{secret:?} is in:\n{stderr}");
        }
    }

    /// The same on a machine of the test's own.
    pub fn start_in(namespace: &Namespace, home: &Path, args: &[&str]) -> Self {
        let [program, prefix @ ..] = namespace.prefix();
        let mut command = Command::new(program);
        command.args(prefix).arg(env!("CARGO_BIN_EXE_roomtone"));
        Self::spawn(command, home, args)
    }

    /// A server on port 7000 of a machine of the test's own.
    pub fn serve_in(namespace: &Namespace, home: &Path) -> Self {
        let listen = ["serve", "--listen", "0.0.0.0:7000", "--plain"];
        let mut server = Self::start_in(namespace, home, &listen);
        server.link();
        server
    }

    fn spawn(mut command: Command, home: &Path, args: &[&str]) -> Self {
        machine::share();
        // Proxies of the machine that runs the tests do not reach the test's servers.
        for name in ["http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
            if !command.get_envs().any(|(key, _)| key == name) {
                command.env_remove(name);
            }
        }
        let line = args.join(" ");
        let mut child = command
            .args(args)
            .arg("--json")
            .env("HOME", home)
            .env(REGISTRY.0, REGISTRY.1)
            .env_remove("XDG_STATE_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("DISPLAY")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (event, events) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
                let _ = event.send(value);
            }
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let (kept, mut pipe) = (stderr.clone(), child.stderr.take().unwrap());
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                kept.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        let reader = Some(reader);
        Self { line, stdin: child.stdin.take(), child, events, seen: vec![], stderr, reader }
    }

    /// Waits for an event of that name with these fields, passing others over.
    pub fn expect(&mut self, event: &str, fields: &[(&str, &str)]) -> Value {
        self.expect_all(&[(event, fields)]).remove(0)
    }

    /// Waits for all of these, in whatever order they come.
    pub fn expect_all(&mut self, wanted: &[(&str, &[(&str, &str)])]) -> Vec<Value> {
        let until = Instant::now() + PATIENCE;
        let mut found: Vec<Option<Value>> = vec![None; wanted.len()];
        while found.iter().any(Option::is_none) {
            let left = until.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(value) => {
                    self.seen.push(value.clone());
                    let fits = |(event, fields): &(&str, &[(&str, &str)])| {
                        let field = |(key, wanted): &(&str, &str)| value[key].as_str() == Some(wanted);
                        value["event"] == *event && fields.iter().all(field)
                    };
                    let at = (0..wanted.len()).find(|at| found[*at].is_none() && fits(&wanted[*at]));
                    if let Some(at) = at {
                        found[at] = Some(value);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    let missing: Vec<_> = wanted.iter().zip(&found).filter(|(_, f)| f.is_none()).collect();
                    // The rest is in the report of each program.
                    panic!("no {missing:?} of roomtone {} at {}", self.line, load())
                }
            }
        }
        found.into_iter().flatten().collect()
    }

    /// Whether such an event came by now.
    pub fn has_seen(&mut self, event: &str, fields: &[(&str, &str)]) -> bool {
        self.count(event, fields) > 0
    }

    /// How many such events came by now.
    pub fn count(&mut self, event: &str, fields: &[(&str, &str)]) -> usize {
        self.all(event, fields).len()
    }

    /// All such events that came by now.
    pub fn all(&mut self, event: &str, fields: &[(&str, &str)]) -> Vec<Value> {
        self.seen.extend(self.events.try_iter());
        let field = |value: &Value, (key, wanted): &(&str, &str)| value[*key].as_str() == Some(wanted);
        let fits = |v: &&Value| v["event"] == *event && fields.iter().all(|wanted| field(v, wanted));
        self.seen.iter().filter(fits).cloned().collect()
    }

    /// Returns whether a warning, or a line on stderr, has held these words by now.
    pub fn has_warned(&mut self, words: &str) -> bool {
        let warnings = self.all("warning", &[]);
        warnings.iter().any(|warning| warning.to_string().contains(words)) || self.stderr().contains(words)
    }

    fn stderr(&self) -> String {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first link of a server.
    pub fn link(&mut self) -> String {
        self.expect("listening", &[])["url"].as_str().unwrap().to_owned()
    }

    /// Says a command on its stdin.
    pub fn say(&mut self, command: &Value) {
        let written = writeln!(self.stdin.as_mut().unwrap(), "{command}");
        written.unwrap_or_else(|error| panic!("{command} to roomtone {}: {error}", self.line));
    }

    /// The counters of its connection, of the peer it has.
    pub fn stats(&mut self) -> Value {
        self.stats_with(&[])
    }

    /// Returns the counters of the connection with one peer of a room.
    pub fn stats_of(&mut self, peer: &str) -> Value {
        self.stats_with(&[("peer", peer)])
    }

    fn stats_with(&mut self, fields: &[(&str, &str)]) -> Value {
        // Answers to earlier requests, about other peers, would be taken for answers to this one.
        self.seen.extend(self.events.try_iter());
        self.say(&serde_json::json!({"command": "stats"}));
        self.expect("stats", fields)
    }

    /// Quits it by command, and expects that it ends without an error.
    pub fn quit(mut self) {
        self.say(&serde_json::json!({"command": "quit"}));
        assert_eq!(self.end().0, 0);
    }

    /// Waits for its end; the exit code, and what it said on stderr.
    pub fn end(mut self) -> (i32, String) {
        let (child, stderr) = (&mut self.child, &self.stderr);
        let status = until("end of the program", PATIENCE, || {
            child.try_wait().unwrap().ok_or_else(|| stderr.lock().unwrap().clone())
        });
        // The last words may still be in the pipe.
        self.reader.take().into_iter().for_each(|reader| reader.join().unwrap());
        (status.code().unwrap_or(-1), self.stderr())
    }

    /// Waits for its end; the exit code, and what it warned of and said on stderr.
    pub fn end_with_warnings(mut self) -> (i32, String) {
        self.expect("ended", &[]);
        let warnings = self.seen.iter().filter(|value| value["event"] == "warning");
        let warnings: Vec<String> = warnings.map(|value| value["text"].to_string()).collect();
        let (code, stderr) = self.end();
        (code, warnings.join("\n") + &stderr)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A signal, by its name.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        self.signal("INT");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.seen.extend(self.events.try_iter());
            // Statistics come by the hundred; the last ones tell how far things have come.
            let is_shown =
                |(at, value): &(usize, &Value)| value["event"] != "stats" || at + 20 > self.seen.len();
            let told: Vec<String> =
                self.seen.iter().enumerate().filter(is_shown).map(|(_, value)| value.to_string()).collect();
            let (line, told, stderr) = (&self.line, told.join("\n"), self.stderr());
            eprintln!("roomtone {line} (ended: {ended:?}) reported:\n{told}\nand on stderr: {stderr}");
        }
    }
}

/// The resources of a process: threads, descriptors, and resident memory in KiB.
#[derive(Debug, Clone, Copy)]
pub struct Holds {
    pub threads: usize,
    pub descriptors: usize,
    pub resident: u64,
}

impl Holds {
    pub fn of(pid: u32) -> Self {
        let count = |what: &str| std::fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident = resident.trim().trim_end_matches(" kB").parse().unwrap();
        Self { threads: count("task"), descriptors: count("fd"), resident }
    }
}

/// Returns the processor time that a process has used since its start.
pub fn cpu(pid: u32) -> Duration {
    let said = Command::new("getconf").arg("CLK_TCK").output().unwrap().stdout;
    let a_second: f64 = String::from_utf8_lossy(&said).trim().parse().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // utime and stime are fields 14 and 15 (proc(5)); the program's name before them may hold anything.
    let after = stat.rsplit(')').next().unwrap().split_whitespace();
    let ticks: f64 = after.skip(11).take(2).map(|field| field.parse::<f64>().unwrap()).sum();
    Duration::from_secs_f64(ticks / a_second)
}

/// `ws://` of an `http://` link.
pub fn ws(link: &str) -> String {
    let end = link.find('?').unwrap_or(link.len());
    link[..end].replacen("http", "ws", 1).trim_end_matches('/').to_owned()
}

/// Returns ffprobe's report on a media file; fails if ffprobe reports an error.
pub fn probe(file: &str) -> Value {
    let what = "format=duration:stream=codec_name,width,height,nb_read_frames";
    let probe = Command::new("ffprobe")
        .args(["-v", "error", "-count_frames", "-of", "json", "-show_entries", what, file])
        .output()
        .expect("ffprobe (Debian: ffmpeg) is needed for this test");
    let (complaint, size) =
        (String::from_utf8_lossy(&probe.stderr), std::fs::metadata(file).map(|file| file.len()));
    assert!(complaint.is_empty(), "{file} ({size:?} bytes) at {}: {complaint}", load());
    serde_json::from_slice(&probe.stdout).unwrap()
}

/// The duration in seconds, and the frames of the stream of that codec.
pub fn duration_and_frames(probe: &Value, codec: &str) -> (f64, u64) {
    let streams = probe["streams"].as_array().unwrap();
    let stream =
        streams.iter().find(|s| s["codec_name"] == codec).unwrap_or_else(|| panic!("no {codec}: {probe}"));
    let frames = stream["nb_read_frames"].as_str().unwrap_or_else(|| panic!("no frames: {probe}"));
    let frames = frames.parse().unwrap();
    (probe["format"]["duration"].as_str().unwrap().parse().unwrap(), frames)
}
