//! A media server in the test's own process: speaks WHIP and WHEP over HTTP, and has a real connection for each session.
//! Each test says where it misbehaves.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::common::{in_time, until, wait_for};
use roomtone::media::capture::SourceConfig;
use roomtone::media::output::Output;
use roomtone::media::peer::{PeerConfig, Stats};
use roomtone::media::{Capture, Encoders, Peer, PeerEvent, Rates, Stream};
use roomtone::protocol::SdpKind;
use roomtone::sdp::{Codec, Kind, Sdp, Section, validate};
use roomtone::session::{Effect, EffectId};
use smol::channel::{Receiver, bounded};

/// A request as the server got it.
#[derive(Debug, Clone, Default)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    /// Header fields with lower-case names.
    pub(super) fields: BTreeMap<String, String>,
    pub(super) body: String,
}

/// The server's reply to a request.
pub(super) enum Reply {
    /// Opens a session, with these header fields besides `Content-Type` and `Location`.
    Session(&'static str),
    /// Opens a session whose URL is at this origin, with these header fields.
    SessionAt(String, &'static str),
    /// Opens a session; the response waits until both of two messages are received.
    SessionAfter(SyncSender<()>),
    /// Sends these bytes, and closes the connection.
    Raw(Vec<u8>),
    /// Sends nothing until the client closes the connection.
    Nothing,
}

impl Reply {
    pub(super) fn status(status: &str) -> Self {
        Self::with_body(status, "text/plain", "")
    }

    pub(super) fn with_body(status: &str, kind: &str, body: &str) -> Self {
        let length = body.len();
        Self::Raw(
            format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}")
                .into(),
        )
    }
}

type Rule = Box<dyn Fn(&Request, usize) -> Reply + Send + Sync>;

/// A connection with a client, and what consumes its media.
struct Session {
    peer: Arc<Peer>,
    _outputs: smol::Task<()>,
}

struct Shared {
    rule: Rule,
    /// The media that players get; none if the server only receives.
    stream: Option<Stream>,
    requests: Mutex<Vec<Request>>,
    /// The sessions in the order of their offers; the URL of the first ends with 1.
    sessions: Mutex<Vec<Session>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the module.
pub(super) struct MediaServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl MediaServer {
    /// Starts a server that receives what is published. `rule` gets each request, and the number of earlier ones with the
    /// same method.
    pub(super) fn receiving(rule: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(SocketAddr::from(([127, 0, 0, 1], 0)), None, Box::new(rule))
    }

    /// Starts a server that sends test video and a tone to its players.
    pub(super) fn sending(
        at: SocketAddr,
        rule: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        roomtone::media::init().unwrap();
        Self::start(at, Some(smol::block_on(test_stream())), Box::new(rule))
    }

    fn start(at: SocketAddr, stream: Option<Stream>, rule: Rule) -> Self {
        roomtone::media::init().unwrap();
        // A server that begins again has the port of the one before, which may be busy for a moment.
        let listener = wait_for("the port", || TcpListener::bind(at).ok());
        let address = listener.local_addr().unwrap();
        let shared =
            Arc::new(Shared { rule, stream, requests: Mutex::default(), sessions: Mutex::default() });
        let stop = Arc::<std::sync::atomic::AtomicBool>::default();
        let (serving, stopped) = (shared.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if stopped.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                let serving = serving.clone();
                std::thread::spawn(move || serve(&connection, &serving));
            }
        });
        Self { shared, address, stop, thread: Some(thread) }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the URL of its endpoint.
    pub(super) fn url(&self) -> String {
        format!("http://{}/live", self.address)
    }

    /// Returns the requests of this method so far.
    pub(super) fn requests(&self, method: &str) -> Vec<Request> {
        lock(&self.shared.requests).iter().filter(|request| request.method == method).cloned().collect()
    }

    /// Waits for a request of this method beyond the first `count`; returns the latest one.
    pub(super) fn expect(&self, method: &str, count: usize) -> Request {
        wait_for(method, || Some(self.requests(method)).filter(|all| all.len() > count)?.pop())
    }

    /// Waits until the counters of the session with this number fit.
    pub(super) fn expect_media(&self, session: usize, mut fits: impl FnMut(&Stats) -> bool) {
        until("media at the server", Duration::from_secs(60), || {
            let stats = lock(&self.shared.sessions).get(session).map(|session| session.peer.stats());
            stats.as_ref().is_some_and(&mut fits).then_some(()).ok_or_else(|| format!("{stats:?}"))
        });
    }

    /// Ends the server as a crash does: no connection is closed in order, and the port is closed.
    pub(super) fn crash(mut self) {
        self.stop();
        lock(&self.shared.sessions).drain(..).for_each(|session| session.peer.abandon());
    }

    fn stop(&mut self) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let _ = TcpStream::connect(self.address);
        self.thread.take().into_iter().for_each(|thread| thread.join().unwrap());
    }
}

impl Drop for MediaServer {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
        }
    }
}

async fn test_stream() -> Stream {
    let (failures, _) = bounded(16);
    let mut captures = Vec::new();
    for (kind, source) in [(Kind::Video, "test"), (Kind::Audio, "tone")] {
        let config = SourceConfig { size: Some((160, 120)), fps: 15, ..SourceConfig::named(source) };
        captures.push(Capture::start(kind, &config, failures.clone()).await.unwrap());
    }
    Stream::new(Encoders::new(captures, Rates::fixed(300_000), failures))
}

/// Reads one request, and replies by the rule.
fn serve(connection: &TcpStream, shared: &Shared) {
    let mut reader = BufReader::new(connection);
    let Some(request) = read(&mut reader) else { return };
    let earlier = {
        let mut all = lock(&shared.requests);
        let earlier = all.iter().filter(|other| other.method == request.method).count();
        all.push(request.clone());
        earlier
    };
    let reply = match (shared.rule)(&request, earlier) {
        Reply::Raw(bytes) => bytes,
        Reply::Session(fields) => accept(&request, "", fields, shared),
        Reply::SessionAfter(gate) => {
            let response = accept(&request, "", "", shared);
            // A test that failed receives nothing.
            let _ = gate.send(()).and_then(|()| gate.send(()));
            response
        }
        Reply::SessionAt(origin, fields) => accept(&request, &origin, fields, shared),
        Reply::Nothing => {
            let _ = reader.read(&mut [0]);
            return;
        }
    };
    // The client may have closed the connection.
    let mut connection = connection;
    let _ = connection.write_all(&reply);
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ').map(str::to_owned);
    let mut request = Request { method: words.next()?, path: words.next()?, ..Request::default() };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.fields.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = request.fields.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).ok()?;
    Some(request)
}

/// Opens a session; returns the whole response.
fn accept(request: &Request, origin: &str, fields: &str, shared: &Shared) -> Vec<u8> {
    let config = PeerConfig {
        streams: shared.stream.clone().into_iter().collect(),
        receive: if shared.stream.is_some() { vec![] } else { Kind::ALL.to_vec() },
        codecs: vec![Codec::Vp8, Codec::Opus],
        preferred: vec![Codec::Vp8, Codec::Opus],
        ..PeerConfig::default()
    };
    let (event, events) = bounded(256);
    let peer = Arc::new(Peer::open(config, event).unwrap());
    let answer = smol::block_on(in_time("the answer", answer(&peer, &request.body, &events)));
    let outputs = smol::spawn(consume(events));
    let number = {
        let mut sessions = lock(&shared.sessions);
        sessions.push(Session { peer, _outputs: outputs });
        sessions.len()
    };
    format!(
        "HTTP/1.1 201 Created\r\nContent-Type: application/sdp\r\nLOCATION: {origin}/session/{number}\r\n{fields}\
         content-length: {}\r\n\r\n{answer}",
        answer.len()
    )
    .into()
}

/// Answers an offer, with the first candidate that can carry media.
async fn answer(peer: &Peer, offer: &str, events: &Receiver<PeerEvent>) -> String {
    let offer = validate(Sdp::parse(offer).unwrap()).unwrap();
    let execute = async |effect| peer.execute(effect).await.unwrap().1.unwrap();
    execute(Effect::ApplyRemote(EffectId(1), SdpKind::Offer, offer)).await;
    let answer = execute(Effect::CreateAnswer { id: EffectId(2), restarts_ice: false }).await;
    execute(Effect::ApplyLocal(EffectId(3), SdpKind::Answer)).await;
    let mut answer = answer.unwrap();
    loop {
        if let PeerEvent::LocalCandidate(found) = events.recv().await.unwrap()
            && found.candidate.contains("UDP")
            && found.candidate.contains("typ host")
        {
            let value = found.candidate.trim_start_matches("candidate:");
            answer.media[0].set_attribute("candidate", value);
            return answer.to_string();
        }
    }
}

/// Plays what arrives, so that its level is measured.
async fn consume(events: Receiver<PeerEvent>) {
    let (failures, _failed) = bounded(16);
    let mut outputs = vec![];
    while let Ok(event) = events.recv().await {
        if let PeerEvent::Track(track) = event {
            outputs.push(
                Output::start(&track, "fakesink sync=false", "client", None, failures.clone()).unwrap(),
            );
            track.flow();
        }
    }
}
