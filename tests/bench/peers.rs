//! The measured programs: roomtone as a program and as a library, and its alternatives.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use roomtone::media::capture::SourceConfig;
use roomtone::media::output::Output;
use roomtone::media::peer::PeerConfig;
use roomtone::media::{Peer, PeerEvent, Rates, Stream, inventory};
use roomtone::protocol::PeerMessage;
use roomtone::sdp::Kind;
use roomtone::session::Output as Told;
use roomtone::session::{ConnectionState, Effect, Negotiation, Terms};
use serde_json::Value;
use smol::channel::{Receiver, Sender, bounded, unbounded};

use super::common::browser::Browser;
use super::common::{Namespace, PATIENCE, wait_for};
use super::timecode::{Camera, Ear, Screen};

/// A pipeline with webrtcsink or webrtcsrc, as long as it is held.
pub struct Theirs(Child);

impl Theirs {
    /// Whether their program is built: `scripts/bench` does that.
    pub fn program() -> Option<PathBuf> {
        let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("bench/target/release/bench-peers");
        (super::number("BESIDE", 1) == 1 && built.exists()).then_some(built)
    }

    pub fn play(at: Option<&Namespace>, text: &str) -> Self {
        let program = Self::program().expect("scripts/bench builds it");
        let mut command = match at.map(Namespace::prefix) {
            Some([first, rest @ ..]) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        let child = command.arg(text).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.unwrap())
    }

    /// Their signalling server, and where it listens; none where it is not installed: `scripts/bench` does that.
    pub fn server(home: &Path, tls: bool) -> Option<(Self, String)> {
        let program = "bench/target/signalling/bin/gst-webrtc-signalling-server";
        let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(program);
        if super::number("BESIDE", 1) != 1 || !program.exists() {
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(program);
        // Logging each connection would slow the server down.
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        command.env("WEBRTCSINK_SIGNALLING_SERVER_LOG", "warn");
        if tls {
            let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
            for (name, pem) in [("cert", made.cert.pem()), ("key", made.signing_key.serialize_pem())] {
                let file = home.join(format!("{name}.pem"));
                std::fs::write(&file, pem).unwrap();
                command.arg(format!("--{name}")).arg(file);
            }
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for("their server", || TcpStream::connect(("127.0.0.1", port)).ok());
        Some((Self(child), format!("{}://127.0.0.1:{port}", if tls { "wss" } else { "ws" })))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Sends what a camera shows, with congestion control, and brings its signalling server.
    pub fn sender(at: Option<&Namespace>, camera: &Camera, port: u16, most: u32, sounds: bool) -> Self {
        let tone = if sounds { format!(" {} ! sink.", Ear::source()) } else { String::new() };
        let text = format!(
            "{} ! webrtcsink name=sink run-signalling-server=true signalling-server-port={port} \
             signaller::uri=ws://127.0.0.1:{port} congestion-control=gcc start-bitrate=600000 min-bitrate=50000 \
             max-bitrate={most} video-caps=video/x-vp8{tone}",
            camera.source()
        );
        Self::play(at, &text)
    }

    /// Shows what that server's first sender sends.
    pub fn receiver(
        at: Option<&Namespace>,
        host: &str,
        port: u16,
        screen: &Screen,
        ear: Option<&Ear>,
    ) -> Self {
        let hears = ear.map_or_else(String::new, |ear| format!(" source. ! {}", ear.sink()));
        let text = format!(
            "webrtcsrc name=source connect-to-first-producer=true signaller::uri=ws://{host}:{port} \
             source. ! {}{hears}",
            screen.sink()
        );
        Self::play(at, &text)
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures connections of a page with itself, and for some seconds the age of the frames of the last one.
pub fn chromium(samples: usize, seconds: u64) -> Value {
    let browser = Browser::start();
    browser.open("data:text/html,<!doctype html><body>");
    let script = include_str!("chromium.js");
    browser.run(&format!("return (function() {{ {script} }})({samples}, {seconds})"));
    let wait = Instant::now() + Duration::from_secs(seconds + samples as u64 * 2) + PATIENCE;
    loop {
        let results = browser.run("return window.results");
        if !results.is_null() {
            return results;
        }
        assert!(Instant::now() < wait, "Chromium measures nothing");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Returns aiortc's own measurements; none if it is not installed (`scripts/bench` installs it).
pub fn aiortc(samples: usize, seconds: u64) -> Option<Value> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("bench/aiortc");
    let python = folder.join("venv/bin/python");
    (super::number("BESIDE", 1) == 1 && python.exists()).then(|| {
        let args = [samples.to_string(), seconds.to_string()];
        let output = Command::new(python).arg(folder.join("measure.py")).args(args).output().unwrap();
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
    })
}

/// An end of a connection within this process.
struct End {
    negotiation: Negotiation,
    config: PeerConfig,
    peer: Option<Peer>,
    events: (Sender<PeerEvent>, Receiver<PeerEvent>),
    inbox: Receiver<PeerMessage>,
    other: Sender<PeerMessage>,
    outputs: Vec<Output>,
}

impl End {
    fn new(config: PeerConfig, inbox: Receiver<PeerMessage>, other: Sender<PeerMessage>) -> Self {
        let terms = Terms::new(true, config.wanted());
        let negotiation =
            Negotiation::new(Terms { drops_added_lines: roomtone::media::forgets_offers(), ..terms });
        let events = bounded(256);
        Self { negotiation, config, peer: None, events, inbox, other, outputs: vec![] }
    }

    /// Until the inbox is closed; the time at which it was connected goes there.
    async fn run(mut self, screen: Option<&Screen>, connected: &OnceLock<Duration>) {
        loop {
            while let Some(told) = self.negotiation.poll_output() {
                match told {
                    Told::Effect(Effect::Open) => {
                        self.peer = Some(Peer::open(self.config.clone(), self.events.0.clone()).unwrap());
                    }
                    Told::Effect(effect) => {
                        if let Some((id, result)) = self.peer.as_ref().unwrap().execute(effect).await {
                            self.negotiation.handle_result(Instant::now(), id, result);
                        }
                    }
                    Told::Send(message) => drop(self.other.try_send(message)),
                    _ => {}
                }
            }
            let event = async { Some(Ok(self.events.1.recv().await.ok()?)) };
            let message = async { Some(Err(self.inbox.recv().await.ok()?)) };
            let next = smol::future::or(event, message).await;
            match next {
                None => return,
                Some(Err(message)) => self.negotiation.handle_peer(Instant::now(), message),
                Some(Ok(PeerEvent::LocalCandidate(candidate))) => {
                    self.negotiation.handle_local_candidate(candidate);
                }
                Some(Ok(PeerEvent::Connection(ConnectionState::Connected))) => {
                    let _ = connected.set(super::timecode::now());
                }
                Some(Ok(PeerEvent::Track(track))) if track.kind() == Kind::Video => {
                    let sink = screen.expect("one end shows").sink();
                    let (failed, _) = bounded(1);
                    self.outputs.push(Output::start(&track, &sink, "peer", None, failed).unwrap());
                    track.flow();
                }
                Some(Ok(_)) => {}
            }
        }
    }
}

/// A stream of ours from a camera.
pub async fn stream(camera: &Camera) -> Stream {
    let config = SourceConfig {
        source: camera.source(),
        device: None,
        size: Some((super::timecode::WIDTH as u32, super::timecode::HEIGHT as u32)),
        fps: super::timecode::FPS as u32,
        voice: Default::default(),
    };
    let (failures, _) = smol::channel::bounded(16);
    let stream = Stream::start(&[(Kind::Video, config)], Rates::fixed(1_500_000), failures).await.unwrap();
    stream.encoders.keep(roomtone::sdp::Codec::Vp8).unwrap();
    stream
}

/// Two ends of ours in this process, each in a thread of its own: from the wish to call to connected (the end that
/// shows) and to the first picture that is shown.
pub fn ours(stream: &Stream, screen: &Screen) -> (Duration, Duration) {
    let codecs = inventory::codecs(&[], None).unwrap().all;
    let config = PeerConfig { codecs, ..PeerConfig::default() };
    let ((to_a, in_a), (to_b, in_b)) = (unbounded(), unbounded());
    let began = super::timecode::now();
    let streams = vec![stream.clone()];
    let mut a = End::new(PeerConfig { streams, ..config.clone() }, in_a, to_b.clone());
    let b = End::new(PeerConfig { receive: vec![Kind::Video], ..config }, in_b, to_a.clone());
    a.negotiation.request_offer(Instant::now());
    let (other, connected) = (OnceLock::new(), OnceLock::new());
    std::thread::scope(|scope| {
        scope.spawn(|| smol::block_on(a.run(None, &other)));
        scope.spawn(|| smol::block_on(b.run(Some(screen), &connected)));
        let shown = screen.first();
        let connected = wait_for("connected", || connected.get().copied());
        to_a.close();
        to_b.close();
        (connected - began, shown - began)
    })
}
