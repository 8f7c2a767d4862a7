//! Data channels joined to what this machine has: stdin and stdout, files, TCP ports.

mod stdio;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use smol::future::{or, pending};
use smol::io::{AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use smol::lock::Mutex;
use smol::net::{Ipv4Addr, TcpListener, TcpStream};

use self::stdio::Stdin;
pub use super::channel::{BridgeConfig, End, WrongChannel};
use crate::base::files::{self, Partial};
use crate::base::text::Shown;
use crate::media::MediaError;
use crate::media::channel::{Channel, ChannelConfig, Message};

/// The largest message that is made of bytes: what every WebRTC end takes (RFC 8831, 6.6).
const CHUNK: usize = 16 * 1024;
/// The longest line that is sent as one message.
const MAX_LINE: usize = 64 * 1024;
/// How often a transfer tells how far it is.
const TELL: Duration = Duration::from_secs(1);

/// How far the transfer over a channel is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Of the file that is sent.
    pub(super) total: Option<u64>,
    /// The file that is saved, once it is complete.
    pub(super) saved: Option<PathBuf>,
}

/// A channel as the user wants it, ready for peers.
#[derive(Debug)]
pub(super) struct Bridge {
    config: BridgeConfig,
    ground: Ground,
}

#[derive(Debug)]
enum Ground {
    Stdio(Stdin),
    Send(PathBuf),
    Save(String),
    Tcp(u16),
    Listen(TcpListener, Mutex<()>),
}

impl Bridge {
    /// Refuses what cannot work before any call.
    pub(super) async fn start(config: BridgeConfig) -> Result<Self, MediaError> {
        let label = &config.channel.label;
        let wrong = |why: String| MediaError::Parameter(format!("channel '{label}': {why}"));
        let ground = match &config.end {
            End::Stdio => Ground::Stdio(Stdin::start(config.lines)),
            End::Tcp(port) => Ground::Tcp(*port),
            End::Save(path) => Ground::Save(path.clone()),
            End::Send(path) => {
                let readable = smol::fs::File::open(path).await;
                readable.map_err(|error| wrong(format!("{}: {error}", path.display())))?;
                Ground::Send(path.clone())
            }
            End::Listen(port) => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).await;
                let listener = listener.map_err(|error| wrong(format!("port {port}: {error}")))?;
                Ground::Listen(listener, Mutex::new(()))
            }
        };
        Ok(Self { config, ground })
    }

    /// Its work is done once for all with each peer.
    pub(super) fn is_once(&self) -> bool {
        self.config.end.is_once()
    }

    pub(super) fn channel(&self) -> &ChannelConfig {
        &self.config.channel
    }

    /// Carries what comes and goes over a channel until it is closed; why it could not.
    pub(super) async fn carry(
        &self,
        channel: &Channel,
        peer: &str,
        tell: &(dyn Fn(&Progress) + Sync),
    ) -> Result<(), String> {
        let mut pump = Pump {
            channel,
            lines: self.config.lines,
            shown: None,
            progress: Progress::default(),
            tell,
            told: None,
        };
        let carried = match &self.ground {
            Ground::Stdio(stdin) => {
                stdin.add(channel.clone());
                let stdout = std::io::stdout();
                pump.shown = stdout.is_terminal().then(Shown::default);
                pump.drain(smol::Unblock::new(stdout)).await
            }
            Ground::Send(path) => pump.send(path).await,
            Ground::Save(path) => pump.save(files::path_for(path, peer)).await,
            Ground::Tcp(port) => {
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).await;
                match stream {
                    Ok(stream) => pump.join(stream).await,
                    Err(error) => Err(format!("port {port} of this machine: {error}")),
                }
            }
            Ground::Listen(listener, turn) => {
                let accept = async {
                    // One after another, in the order of the peers.
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
        if carried.is_err() {
            channel.finish().await;
        }
        (pump.tell)(&pump.progress);
        carried
    }
}

/// Moves bytes between one channel and one end.
struct Pump<'a> {
    channel: &'a Channel,
    lines: bool,
    /// Escapes received bytes if a terminal shows them: a terminal would obey the control sequences of the peer.
    shown: Option<Shown>,
    progress: Progress,
    tell: &'a (dyn Fn(&Progress) + Sync),
    told: Option<Instant>,
}

impl Pump<'_> {
    /// Tells how far it is, now and then.
    fn report(&mut self) {
        let now = Instant::now();
        if self.told.get_or_insert(now).elapsed() >= TELL {
            self.told = Some(now);
            (self.tell)(&self.progress);
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

    /// Both ways, until one side ends.
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
        let carried = or(self.drain(stream.clone()), out).await;
        self.progress.sent = sent.into_inner();
        let _ = stream.shutdown(std::net::Shutdown::Both);
        carried
    }

    /// Writes what comes until the channel is closed.
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

/// Makes messages of what is read: one for each line, or as many bytes as are there.
struct Reader<R> {
    from: BufReader<R>,
    lines: bool,
}

impl<R: smol::io::AsyncRead + Unpin> Reader<R> {
    fn new(from: R, lines: bool) -> Self {
        Self { from: BufReader::with_capacity(CHUNK, from), lines }
    }

    /// The next message; none at the end.
    async fn next(&mut self) -> Option<Message> {
        if !self.lines {
            let mut read = vec![0; CHUNK];
            let length = self.from.read(&mut read).await.ok()?;
            read.truncate(length);
            return (length > 0).then_some(Message::Binary(read));
        }
        let mut line = Vec::new();
        let mut limited = (&mut self.from).take(MAX_LINE as u64);
        limited.read_until(b'\n', &mut line).await.ok()?;
        if line.is_empty() {
            return None;
        }
        if line.ends_with(b"\n") {
            line.pop();
        }
        Some(Message::Text(String::from_utf8_lossy(&line).into_owned()))
    }
}
