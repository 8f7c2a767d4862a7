//! The listening socket: accepts connections, detects TLS by the first byte, and serves HTTP.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_rustls::TlsAcceptor;
use hyper::service::service_fn;
use smol::Async;
use smol::future::or;
use smol::io::AsyncReadExt;
use smol_hyper::rt::{FuturesIo, SmolTimer};

use super::config::Config;
use super::control::Control;
use super::error::ServerError;
use super::http;
use super::live::Live;
use super::metrics::{Connect, Limit};
use super::metrics_port::MetricsPort;
use super::proxy_header::{self, Parsed};
use super::shared::{Fixed, Shared};
use super::stream::{Gauge, Io, Tcp};
use super::switchboard::{Counted, Switchboard};
use crate::base::limit::Bucket;
use crate::base::lock::lock;
use crate::base::net::canonical;
use crate::base::tasks::Tasks;
use crate::base::timeout::timeout;

/// The most connections at a time; usually the process has fewer descriptors.
const CONNECTIONS: usize = 1 << 20;
/// The most connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// The send buffer of each socket, in bytes; Linux doubles the value. By default Linux may buffer several MB, and the
/// progress of a slow peer would show only after minutes.
const SEND_BUFFER: usize = 64 * 1024;
/// The pause before the server looks again for the rest of a PROXY header, which usually arrives in one segment.
const PARTIAL: Duration = Duration::from_millis(10);
/// The longest wait of a graceful stop for the peers' close frames.
const STOP: Duration = Duration::from_secs(2);

/// A listening server; [`Server::run`] serves its connections.
#[derive(Debug)]
pub struct Server {
    listener: Async<TcpListener>,
    metrics: Option<MetricsPort>,
    shared: Arc<Shared>,
    /// The tasks of the connections, one each, or two for a WebSocket's upgrade.
    connections: Arc<Tasks>,
    /// The address of the settings.
    listen: SocketAddr,
    drain: Duration,
    #[cfg(feature = "engine")]
    engine: Option<crate::engine::Engine>,
}

/// Returns the switchboard of a server. An engine is asked first whether it can be used.
async fn switchboard(config: &Config) -> Result<Arc<Switchboard>, ServerError> {
    #[cfg(feature = "engine")]
    if let Some(engine) = &config.engine {
        let version = engine.check().await?;
        tracing::info!("the engine is {version}, at {}", engine.address);
        let times = (config.timeouts.unread, config.timeouts.held);
        return Ok(Switchboard::sharded(config.limits, times, config.ice.clone())?);
    }
    Ok(Switchboard::new(config.limits, config.timeouts.unread, config.ice.clone()))
}

impl Server {
    /// Binds the address.
    ///
    /// # Errors
    ///
    /// [`ServerError`] if the address is not available or a setting cannot be used.
    pub async fn bind(config: Config) -> Result<Self, ServerError> {
        let listener = Async::<TcpListener>::bind(config.listen);
        let listener = listener.map_err(|error| ServerError::Listen(config.listen, error))?;
        // With the default of 128, clients beyond it that connect at once would try again only after a second.
        let _ = rustix::net::listen(&listener, BACKLOG);
        // Accepted sockets inherit the buffer size.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&listener, SEND_BUFFER);
        let metrics =
            config.metrics.map(|at| MetricsPort::bind(at).map_err(|error| ServerError::Listen(at, error)));
        let metrics = metrics.transpose()?;
        let (listen, drain) = (config.listen, config.drain);
        let fixed = Fixed { plain: config.plain, timeouts: config.timeouts, limits: config.rates };
        let board = switchboard(&config).await?;
        #[cfg(feature = "engine")]
        let engine = config.engine.clone();
        let live = Live::new(config, false).await?;
        let connections = Arc::new(Tasks::new(CONNECTIONS));
        let shared = Arc::new(Shared::new(live, board, Arc::downgrade(&connections), &fixed));
        #[cfg(feature = "engine")]
        return Ok(Self { listener, metrics, shared, connections, listen, drain, engine });
        #[cfg(not(feature = "engine"))]
        Ok(Self { listener, metrics, shared, connections, listen, drain })
    }

    /// Returns the bound address, with the port that the system chose if the settings named none.
    pub fn address(&self) -> SocketAddr {
        self.listener.get_ref().local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// Returns the address of the metrics, if they are served.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref()?.address()
    }

    /// Returns the certificate's SHA-256 fingerprint, if the server has a certificate.
    pub fn fingerprint(&self) -> Option<String> {
        self.shared.live().identity.as_ref().map(|identity| identity.fingerprint.clone())
    }

    /// Returns the control of this server while it runs.
    pub fn control(&self) -> Control {
        Control::new(self.shared.clone(), self.listen)
    }

    /// Serves until `stop` completes, and for the time [`Config::drain`] after it; then closes all connections with code 1001 (RFC 6455, 7.4.1), and waits up to 2 s
    /// for the peers' close frames. Connections that remain then, or when the returned future is dropped, are cut off.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let accept = async {
            loop {
                match self.listener.accept().await {
                    Ok((stream, from)) => {
                        let shared = self.shared.clone();
                        self.connections.spawn(serve(stream, canonical(from), shared));
                    }
                    // Most likely the process has no descriptor left: it waits until some are closed.
                    Err(error) => {
                        tracing::warn!("a connection cannot be accepted: {error}");
                        smol::Timer::after(Duration::from_millis(100)).await;
                    }
                }
            }
        };
        let webhooks = smol::spawn(self.shared.send_webhooks());
        let sweep = http::polling::end_sessions(&self.shared);
        let drain = async {
            stop.await;
            self.shared.drain(true);
            if !self.drain.is_zero() {
                smol::Timer::after(self.drain).await;
            }
        };
        let metrics = async {
            match &self.metrics {
                Some(port) => port.serve(&self.shared.board).await,
                None => std::future::pending().await,
            }
        };
        let board = &self.shared.board;
        // Until the end: other servers hear which peers leave.
        #[cfg(feature = "engine")]
        let _engine = self.engine.clone().map(|engine| {
            let board = board.clone();
            smol::spawn(async move { crate::engine::run(&engine, &board).await })
        });
        or(or(accept, or(metrics, or(sweep, self.shared.keep_fresh()))), drain).await;
        board.close_all();
        let all_gone = async {
            while !board.is_quiet() {
                smol::Timer::after(Duration::from_millis(10)).await;
            }
        };
        timeout(STOP, all_gone).await;
        let all_sent = async {
            while !self.shared.webhooks.is_quiet(board.events.last()) {
                smol::Timer::after(Duration::from_millis(10)).await;
            }
        };
        timeout(STOP, all_sent).await;
        webhooks.cancel().await;
    }
}

async fn serve(stream: Async<TcpStream>, from: SocketAddr, shared: Arc<Shared>) {
    let _ = stream.get_ref().set_nodelay(true);
    let Some((from, _counted)) = identify(&stream, from, &shared).await else { return };
    let handshake = timeout(shared.timeouts.handshake, secure(stream, &shared)).await;
    let Some((io, is_secure)) = handshake.flatten() else {
        return shared.board.metrics.count_connect(Connect::Handshake);
    };
    shared.board.metrics.count_connect(Connect::Accepted);
    let gauge = io.gauge().clone();
    let quota = Mutex::new(Bucket::new(shared.limits.requests().0, shared.limits.requests().1));
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let is_own = !shared.live().trusted.contains(from.ip());
        // Polling clients need one request per message. Requests of a proxy are counted for its clients instead.
        let is_allowed =
            !is_own || http::is_polling(request.uri().path()) || lock(&quota).take(Instant::now());
        let shared = shared.clone();
        async move {
            match is_allowed {
                true => http::handle(request, shared, from, is_secure).await,
                false => {
                    shared.board.metrics.count_limited(Limit::Requests);
                    Ok(http::reply::too_often())
                }
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
            tracing::debug!("an HTTP connection is closed: the client does not read the response");
            return;
        }
        smol::Timer::after(left).await;
    }
}

/// Counts a connection for the owner of its address. A trusted proxy may begin the connection with a header that names
/// the client: the connection is then the client's. Returns none, with the reason in the log, for a connection that is
/// refused.
async fn identify(
    stream: &Async<TcpStream>,
    from: SocketAddr,
    shared: &Shared,
) -> Option<(SocketAddr, Counted)> {
    let live = shared.live();
    let is_proxy = live.trusted.contains(from.ip());
    let most = if is_proxy { usize::MAX } else { live.per_address };
    let refused = || {
        shared.board.metrics.count_limited(Limit::Connections);
        tracing::info!("a connection is refused: its address has the most connections already");
    };
    let counted = shared.board.admit(from.ip(), most);
    let counted = counted.or_else(|| {
        refused();
        None
    })?;
    if !is_proxy {
        return Some((from, counted));
    }
    let header = timeout(shared.timeouts.handshake, read_proxy_header(stream)).await;
    let named = match header.unwrap_or_else(|| Err("it does not arrive".to_owned())) {
        Ok(Some(client)) => live.trusted.named(from.ip(), client.ip()).map(|_| client),
        Ok(None) => return Some((from, counted)),
        Err(why) => {
            shared.board.metrics.count_connect(Connect::Proxy);
            tracing::warn!("a connection of the proxy {from} is refused: its PROXY header: {why}");
            return None;
        }
    };
    let client = named.map_err(|why| tracing::warn!("a connection of {from} is refused: {why}")).ok()?;
    if live.trusted.contains(client.ip()) {
        // Another proxy, which names its clients in each request.
        return Some((client, counted));
    }
    match shared.board.admit(client.ip(), live.per_address) {
        Some(counted) => Some((client, counted)),
        None => {
            refused();
            None
        }
    }
}

/// Reads the header of the PROXY protocol, if the connection begins with it, and nothing behind it. Returns the client
/// that it names, if any.
async fn read_proxy_header(mut stream: &Async<TcpStream>) -> Result<Option<SocketAddr>, String> {
    let mut bytes = vec![0; proxy_header::MAX];
    loop {
        let read = stream.peek(&mut bytes).await.map_err(|error| error.to_string())?;
        if read == 0 {
            return Err("the connection ends".to_owned());
        }
        match proxy_header::parse(&bytes[..read]).map_err(|error| error.to_string())? {
            Parsed::None => return Ok(None),
            Parsed::Complete(length, client) => {
                let taken = stream.read_exact(&mut bytes[..length]).await;
                return taken.map(|()| client).map_err(|error| error.to_string());
            }
            // The bytes that have arrived stay readable, so there is nothing to wait for but time.
            Parsed::Partial(_) => smol::Timer::after(PARTIAL).await,
        };
    }
}

/// Performs the TLS handshake if the client's first byte begins one; returns the connection, and whether it uses TLS.
async fn secure(stream: Async<TcpStream>, shared: &Shared) -> Option<(Io, bool)> {
    const TLS_HANDSHAKE: u8 = 0x16;
    let mut first = [0];
    stream.peek(&mut first).await.ok()?;
    let tcp = Tcp::new(stream);
    let gauge = tcp.gauge();
    match (&shared.live().identity, first[0]) {
        (Some(identity), TLS_HANDSHAKE) => {
            let tls = TlsAcceptor::from(identity.config()).accept(tcp).await;
            tls.map_err(|error| tracing::debug!("a TLS handshake failed: {error}"))
                .ok()
                .map(|tls| (Io::new(tls, gauge), true))
        }
        _ => Some((Io::new(tcp, gauge), false)),
    }
}
