//! Bridges between data channels and this machine: standard input and output, files, TCP ports.

mod reader;
mod stdio;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use smol::future::{or, pending};
use smol::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use smol::lock::Mutex;
use smol::net::{Ipv4Addr, TcpListener, TcpStream};

use self::reader::{CHUNK, Reader};
use self::stdio::Stdin;
pub use super::channel::{BridgeConfig, Endpoint, WrongChannel};
use crate::base::files::{self, Partial};
use crate::base::text::Shown;
use crate::media::MediaError;
use crate::media::webrtc::data_channel::{Channel, ChannelConfig, Message};

/// Interval of the progress reports.
const REPORT: Duration = Duration::from_secs(1);

/// Progress of the transfer over a channel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Size of the file that is sent, in bytes.
    pub(super) total: Option<u64>,
    /// The file that is saved, once it is complete.
    pub(super) saved: Option<PathBuf>,
}

/// A bridge that is ready for peers.
#[derive(Debug)]
pub(super) struct Bridge {
    config: BridgeConfig,
    endpoint: OpenEndpoint,
}

#[derive(Debug)]
enum OpenEndpoint {
    Stdio(Stdin),
    Send(PathBuf),
    Save(String),
    Tcp(u16),
    Listen(TcpListener, Mutex<()>),
}

impl Bridge {
    /// Prepares the endpoint; fails before any call if the endpoint cannot be used.
    pub(super) async fn start(config: BridgeConfig) -> Result<Self, MediaError> {
        let label = &config.channel.label;
        let wrong = |why: String| MediaError::Parameter(format!("channel '{label}': {why}"));
        let endpoint = match &config.endpoint {
            Endpoint::Stdio => OpenEndpoint::Stdio(Stdin::start(config.lines)),
            Endpoint::Tcp(port) => OpenEndpoint::Tcp(*port),
            Endpoint::Save(path) => OpenEndpoint::Save(path.clone()),
            Endpoint::Send(path) => {
                let readable = smol::fs::File::open(path).await;
                readable.map_err(|error| wrong(format!("{}: {error}", path.display())))?;
                OpenEndpoint::Send(path.clone())
            }
            Endpoint::Listen(port) => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).await;
                let listener = listener.map_err(|error| wrong(format!("port {port}: {error}")))?;
                OpenEndpoint::Listen(listener, Mutex::new(()))
            }
        };
        Ok(Self { config, endpoint })
    }

    /// Returns whether the bridge does its work once for each peer.
    pub(super) fn is_once(&self) -> bool {
        self.config.endpoint.is_once()
    }

    pub(super) fn channel(&self) -> &ChannelConfig {
        &self.config.channel
    }

    /// Forwards data between a channel and the endpoint until the channel is closed. The error is a text for people.
    pub(super) async fn forward(
        &self,
        channel: &Channel,
        peer: &str,
        on_progress: &(dyn Fn(&Progress) + Sync),
    ) -> Result<(), String> {
        let mut pump = Pump {
            channel,
            lines: self.config.lines,
            shown: None,
            progress: Progress::default(),
            on_progress,
            reported_at: None,
        };
        let forwarded = match &self.endpoint {
            OpenEndpoint::Stdio(stdin) => {
                stdin.add(channel.clone());
                let stdout = std::io::stdout();
                pump.shown = stdout.is_terminal().then(Shown::default);
                pump.drain(smol::Unblock::new(stdout)).await
            }
            OpenEndpoint::Send(path) => pump.send(path).await,
            OpenEndpoint::Save(path) => pump.save(files::path_for(path, peer)).await,
            OpenEndpoint::Tcp(port) => {
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).await;
                match stream {
                    Ok(stream) => pump.join(stream).await,
                    Err(error) => Err(format!("port {port} of this machine: {error}")),
                }
            }
            OpenEndpoint::Listen(listener, turn) => {
                let accept = async {
                    // Connections are accepted one after another, in the order of the peers.
                    let _turn = turn.lock().await;
                    Some(listener.accept().await)
                };
                let gone = async {
                    channel.wait_for_end().await;
                    None
                };
                match or(accept, gone).await {
                    Some(Ok((stream, _))) => pump.join(stream).await,
                    Some(Err(error)) => Err(error.to_string()),
                    None => Ok(()),
                }
            }
        };
        if forwarded.is_err() {
            channel.finish().await;
        }
        (pump.on_progress)(&pump.progress);
        forwarded
    }
}

/// Moves bytes between one channel and one endpoint.
struct Pump<'a> {
    channel: &'a Channel,
    lines: bool,
    /// Escapes received bytes if a terminal shows them: a terminal would obey the control sequences of the peer.
    shown: Option<Shown>,
    progress: Progress,
    on_progress: &'a (dyn Fn(&Progress) + Sync),
    reported_at: Option<Instant>,
}

impl Pump<'_> {
    /// Reports the progress, at most once in [`REPORT`].
    fn report(&mut self) {
        let now = Instant::now();
        if self.reported_at.get_or_insert(now).elapsed() >= REPORT {
            self.reported_at = Some(now);
            (self.on_progress)(&self.progress);
        }
    }

    /// Sends a file and closes the channel.
    async fn send(&mut self, path: &Path) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let mut file = smol::fs::File::open(path).await.map_err(failed)?;
        self.progress.total = file.metadata().await.ok().map(|metadata| metadata.len());
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = file.read(&mut chunk).await.map_err(failed)?;
            if length == 0 {
                break;
            }
            if !self.channel.send(&Message::Binary(chunk[..length].to_vec())).await {
                return Err(format!("the channel was closed before all of {} was sent", path.display()));
            }
            self.progress.sent += length as u64;
            self.report();
        }
        match self.channel.finish().await {
            true => Ok(()),
            false => Err(format!("the peer did not say that it has all of {}", path.display())),
        }
    }

    /// Saves received bytes to a file until the peer closes the channel in order. If the channel breaks, the bytes
    /// received so far stay in a partial file.
    async fn save(&mut self, wanted: PathBuf) -> Result<(), String> {
        let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
        let why = wanted.clone();
        let made = smol::unblock(move || Partial::create(&wanted)).await;
        let (file, part) = made.map_err(|error| failed(&why, error))?;
        let (mut file, path) = (smol::fs::File::from(file), part.path().to_owned());
        while let Some(message) = self.channel.receive().await {
            file.write_all(message.as_bytes()).await.map_err(|error| failed(&path, error))?;
            self.progress.received += message.as_bytes().len() as u64;
            self.report();
        }
        file.sync_all().await.map_err(|error| failed(&path, error))?;
        if !self.channel.ended_in_order().await {
            return Err(format!("{} is not complete: the channel broke", path.display()));
        }
        let saved = smol::unblock(move || part.finish()).await.map_err(|error| failed(&path, error))?;
        self.progress.saved = Some(saved);
        Ok(())
    }

    /// Forwards in both directions until one side ends.
    async fn join(&mut self, stream: TcpStream) -> Result<(), String> {
        let _ = stream.set_nodelay(true);
        let (channel, lines) = (self.channel, self.lines);
        let sent = std::sync::atomic::AtomicU64::new(0);
        let out = async {
            let mut read = Reader::new(stream.clone(), lines);
            while let Some(message) = read.next().await {
                if !channel.send(&message).await {
                    break;
                }
                sent.fetch_add(message.as_bytes().len() as u64, std::sync::atomic::Ordering::Relaxed);
            }
            // The other direction ends with the channel.
            channel.finish().await;
            pending().await
        };
        let forwarded = or(self.drain(stream.clone()), out).await;
        self.progress.sent = sent.into_inner();
        let _ = stream.shutdown(std::net::Shutdown::Both);
        forwarded
    }

    /// Writes received data until the channel is closed.
    async fn drain(&mut self, mut to: impl AsyncWrite + Unpin) -> Result<(), String> {
        while let Some(message) = self.channel.receive().await {
            let mut bytes = message.as_bytes().to_vec();
            self.progress.received += bytes.len() as u64;
            if self.lines {
                bytes.push(b'\n');
            }
            if let Some(shown) = &mut self.shown {
                bytes = shown.take(&bytes).into_bytes();
            }
            to.write_all(&bytes).await.map_err(|error| error.to_string())?;
            to.flush().await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
