//! The signalling server: sockets, TLS, HTTP and the page, limits; it feeds the hub.
//!
//! One port takes TLS and plain connections, told apart by their first byte. Plain ones are for this
//! machine, or for a proxy in front ([`Config::plain`]).

mod budget;
pub mod codec;
mod connection;
mod guesses;
mod http;
pub mod ice;
mod mailbox;
mod names;
mod probe;
mod stream;
mod switchboard;
pub mod tls;
mod token;
mod vigil;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_rustls::TlsAcceptor;
use hyper::service::service_fn;
use smol::Async;
use smol::future::or;
use smol_hyper::rt::{FuturesIo, SmolTimer};

use guesses::Guard;
use http::{Denied, polling};
use names::Names;
use stream::{Gauge, Io, Tcp};
use switchboard::Switchboard;
use token::{TokenError, Tokens};

use crate::base::limit::Bucket;
use crate::base::net::{canonical, is_this_machine};
use crate::base::random::NoRandomness;
use crate::base::secret::Sealed;
use crate::hub::{Grant, Limits};
use crate::protocol::Secret;
pub use probe::read_head;
pub use tls::{Files, Identity};

/// The most connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// The minimum length of a secret, in bytes: the strength of a token's signature (RFC 7518, 3.2).
const LEAST_SECRET: usize = 32;
/// The requests that a connection may make at once, and those regained per second; socket.io's polling is not limited.
const REQUESTS: (u32, u32) = (200, 50);
/// The send buffer of each socket, in bytes; Linux doubles the value. By default Linux may buffer several MB, and the
/// progress of a slow peer would show only after minutes.
const SEND_BUFFER: usize = 64 * 1024;
/// How long a graceful stop waits for the peers' goodbyes.
const STOP: Duration = Duration::from_secs(2);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address cannot be had.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// A certificate or key file cannot be read.
    #[error(transparent)]
    File(#[from] crate::tls::FileError),
    /// The certificate or its key cannot be used, or not be made.
    #[error("the certificate in {0} cannot be used: {1}")]
    Certificate(String, String),
    /// A secret is short enough to be guessed.
    #[error(
        "the secret {0} is too short: {LEAST_SECRET} bytes at least, so that it cannot be guessed; \
         'openssl rand -hex 32' makes one"
    )]
    ShortSecret(&'static str),
    /// An entry of [`Config::allowed_hosts`] is not a host name.
    #[error("'{0}' is no host name: --allow-host takes a name alone, as in --allow-host call.example.org")]
    AllowedHost(String),
    /// The operating system returned no random bytes, which are needed to store a secret.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For TLS, and for its HTTP request.
    pub handshake: Duration,
    /// To say who it is.
    pub hello: Duration,
    /// Between pings.
    pub ping: Duration,
    /// Without any sign of life, answers to pings counted.
    pub silence: Duration,
    /// For the body of an HTTP request to arrive.
    pub body: Duration,
    /// For the peer to read any of the data that waits to be sent.
    pub unread: Duration,
    /// For the messages of one peer to wait for a receiver that does not read: the sender is not read meanwhile, and
    /// refused afterwards.
    pub held: Duration,
    /// For the peer to close its side of a connection that the server has closed: its data is read and dropped
    /// meanwhile, since a reset could destroy the server's close frame.
    pub closing: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            handshake: seconds(10),
            hello: seconds(30),
            ping: seconds(25),
            silence: seconds(70),
            body: seconds(30),
            unread: seconds(20),
            held: seconds(10),
            closing: seconds(2),
        }
    }
}

/// How a server is set up.
#[derive(Debug)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its certificate; none for a server that speaks no TLS at all.
    pub identity: Option<Identity>,
    /// Plain connections of other machines are served (behind a proxy).
    pub plain: bool,
    /// Origins, besides its own, whose pages may connect; `*` for all.
    pub allowed_origins: Vec<String>,
    /// Host names that the server answers to, besides IP addresses, `localhost` and the names of its certificate.
    pub allowed_hosts: Vec<String>,
    /// The most connections of one owner of addresses (an IPv4 address, or an IPv6 /64 network); loopback is not
    /// limited.
    pub per_address: usize,
    /// The hub's bounds.
    pub limits: Limits,
    /// How patient it is.
    pub timeouts: Timeouts,
    /// The STUN and TURN servers that clients are told of.
    pub ice: ice::IceServers,
    /// The secret that authorizes a back end, of 32 bytes at least; none disables the API.
    pub api_secret: Option<Secret>,
    /// A back end may give them from other machines too.
    pub api_remote: bool,
    /// The key that signs tokens, of 32 bytes at least; if set, every client needs a token.
    pub token_secret: Option<Secret>,
}

impl Config {
    /// A server without TLS at that address, everything else by default.
    pub fn plain(listen: SocketAddr) -> Self {
        Self {
            listen,
            identity: None,
            plain: true,
            allowed_origins: vec![],
            allowed_hosts: vec![],
            per_address: 256,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            ice: ice::IceServers::default(),
            api_secret: None,
            api_remote: false,
            token_secret: None,
        }
    }
}

#[derive(Debug)]
struct Shared {
    board: Arc<Switchboard>,
    identity: Option<Identity>,
    plain: bool,
    allowed_origins: Vec<String>,
    names: Names,
    per_address: usize,
    timeouts: Timeouts,
    api_secret: Option<Sealed>,
    api_guard: Guard,
    api_remote: bool,
    tokens: Option<Tokens>,
    token_guard: Guard,
    sessions: polling::Sessions,
}

/// Counts a connection while it lives.
#[derive(Debug)]
struct Counted(Arc<Switchboard>, IpAddr);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dismiss(self.1);
    }
}

impl Shared {
    /// Returns the permissions of a request from the address `from`, according to its token.
    fn grant<B>(&self, request: &hyper::Request<B>, from: IpAddr) -> Result<Grant, Denied> {
        let Some(tokens) = &self.tokens else { return Ok(Grant::default()) };
        let token = token::shown(request).ok_or(TokenError::Missing)?;
        let wait = self.token_guard.wait(from.into());
        // A proxy on this machine serves many clients: wrong tokens of one client must not block the good tokens of
        // others.
        if let Some(wait) = wait.filter(|_| !is_this_machine(from)) {
            return Err(Denied::Later(wait));
        }
        let grant = tokens.read(&token);
        if let Err(TokenError::Forged(_)) = grant {
            self.token_guard.wrong(from.into());
            if let Some(wait) = wait {
                return Err(Denied::Later(wait));
            }
        }
        Ok(grant?)
    }

    /// Returns whether the server's certificate covers a host name.
    fn is_certified(&self, name: &str) -> bool {
        self.identity.as_ref().is_some_and(|identity| identity.holds_for(name))
    }

    /// An upgraded connection outlives its HTTP half and is counted anew, without a bound.
    fn count_socket(&self, address: IpAddr) -> Option<Counted> {
        self.board.admit(address, usize::MAX).then(|| Counted(self.board.clone(), address))
    }
}

/// A server that listens; [`Server::run`] serves.
#[derive(Debug)]
pub struct Server {
    listener: Async<TcpListener>,
    shared: Arc<Shared>,
}

impl Server {
    /// Takes the address.
    pub async fn bind(config: Config) -> Result<Self, ServerError> {
        let listener = Async::<TcpListener>::bind(config.listen);
        let listener = listener.map_err(|error| ServerError::Listen(config.listen, error))?;
        // The default of 128 makes all but the first of many that come at once try again after a second.
        let _ = rustix::net::listen(&listener, BACKLOG);
        // Accepted sockets inherit the buffer size.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&listener, SEND_BUFFER);
        let tokens = strong(config.token_secret.as_ref(), "that tokens are signed with (--token-secret)")?;
        let api = strong(config.api_secret.as_ref(), "of the API (--api-secret)")?;
        let shared = Shared {
            board: Switchboard::new(config.limits, config.timeouts.unread, config.ice),
            identity: config.identity,
            plain: config.plain,
            allowed_origins: config.allowed_origins,
            names: Names::new(config.allowed_hosts).map_err(ServerError::AllowedHost)?,
            per_address: config.per_address,
            timeouts: config.timeouts,
            api_secret: api.map(|secret| Sealed::new(&secret.0)).transpose()?,
            api_guard: Guard::of("secrets for the API"),
            api_remote: config.api_remote,
            tokens: tokens.map(Tokens::new),
            token_guard: Guard::of("tokens"),
            sessions: polling::Sessions::default(),
        };
        Ok(Self { listener, shared: Arc::new(shared) })
    }

    /// The address it has, with the port that the system chose where none was asked for.
    pub fn address(&self) -> SocketAddr {
        self.listener.get_ref().local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// The certificate's fingerprint.
    pub fn fingerprint(&self) -> Option<&str> {
        self.shared.identity.as_ref().map(|identity| identity.fingerprint.as_str())
    }

    /// Serves until `stop` completes; then closes all connections with code 1001 (RFC 6455, 7.4.1), and waits up to 2 s
    /// for the peers' close frames.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let accept = async {
            loop {
                match self.listener.accept().await {
                    Ok((stream, from)) => {
                        let shared = self.shared.clone();
                        smol::spawn(serve(stream, canonical(from), shared)).detach();
                    }
                    // Out of descriptors, most likely: some will come back.
                    Err(error) => {
                        tracing::warn!("a connection cannot be accepted: {error}");
                        smol::Timer::after(Duration::from_millis(100)).await;
                    }
                }
            }
        };
        or(accept, stop).await;
        let board = &self.shared.board;
        board.close_all();
        let all_gone = async {
            while !board.is_quiet() {
                smol::Timer::after(Duration::from_millis(10)).await;
            }
        };
        or(all_gone, async {
            smol::Timer::after(STOP).await;
        })
        .await;
    }
}

/// Returns the secret, or an error if it is too short.
fn strong<'a>(secret: Option<&'a Secret>, which: &'static str) -> Result<Option<&'a Secret>, ServerError> {
    match secret {
        Some(secret) if secret.0.len() < LEAST_SECRET => Err(ServerError::ShortSecret(which)),
        secret => Ok(secret),
    }
}

async fn serve(stream: Async<TcpStream>, from: SocketAddr, shared: Arc<Shared>) {
    let _ = stream.get_ref().set_nodelay(true);
    if !shared.board.admit(from.ip(), shared.per_address) {
        tracing::info!("an address with too many connections is refused one more");
        return;
    }
    let _counted = Counted(shared.board.clone(), from.ip());
    let handshake = async { secure(stream, &shared).await };
    let late = async {
        smol::Timer::after(shared.timeouts.handshake).await;
        None
    };
    let Some((io, is_secure)) = or(handshake, late).await else { return };
    let gauge = io.gauge().clone();
    let quota = Mutex::new(Bucket::new(REQUESTS.0, REQUESTS.1));
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let mut quota = quota.lock().unwrap_or_else(PoisonError::into_inner);
        // Polling clients need one request per message.
        let is_allowed = polling::is_path(request.uri().path()) || quota.take(Instant::now());
        let shared = shared.clone();
        async move {
            match is_allowed {
                true => http::handle(request, shared, from, is_secure).await,
                false => Ok(http::too_often()),
            }
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(SmolTimer::new())
        .header_read_timeout(shared.timeouts.handshake)
        .max_buf_size(16 * 1024)
        .serve_connection(FuturesIo::new(io), service)
        .with_upgrades();
    let served = async {
        if let Err(error) = connection.await {
            tracing::debug!("an HTTP connection ended: {error}");
        }
    };
    or(served, unread(gauge, shared.timeouts.unread)).await;
}

/// Returns once the peer has read nothing for `most` while data waited to be sent.
async fn unread(gauge: Arc<Gauge>, most: Duration) {
    loop {
        let left = gauge.flow().blocked.map_or(most, |since| most.saturating_sub(since.elapsed()));
        if left.is_zero() {
            tracing::debug!("an HTTP answer is not read");
            return;
        }
        smol::Timer::after(left).await;
    }
}

/// Finds out by the first byte whether the client speaks TLS, and does its handshake.
async fn secure(stream: Async<TcpStream>, shared: &Shared) -> Option<(Io, bool)> {
    const TLS_HANDSHAKE: u8 = 0x16;
    let mut first = [0];
    stream.peek(&mut first).await.ok()?;
    let tcp = Tcp::new(stream);
    let gauge = tcp.gauge();
    match (&shared.identity, first[0]) {
        (Some(identity), TLS_HANDSHAKE) => {
            let tls = TlsAcceptor::from(identity.config()).accept(tcp).await;
            tls.map_err(|error| tracing::debug!("a TLS handshake failed: {error}"))
                .ok()
                .map(|tls| (Io::new(tls, gauge), true))
        }
        _ => Some((Io::new(tcp, gauge), false)),
    }
}
