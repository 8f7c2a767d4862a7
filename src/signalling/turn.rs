//! TURN servers: a probe, which allocates a relay or reports why none is available, and a tunnel to servers behind TLS, which
//! libnice does not support.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_rustls::TlsConnector;
use futures_rustls::rustls::pki_types::ServerName;
use smol::future::or;
use smol::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use smol::net::{TcpListener, TcpStream, UdpSocket};
use turn_client_proto::api::{TurnClientApi, TurnConfig, TurnEvent};
use turn_client_proto::stun::types::attribute::ErrorCode;
use turn_client_proto::stun::types::message::Message;
use turn_client_proto::tcp::TurnClientTcp;
use turn_client_proto::types::TurnCredentials;
use turn_client_proto::udp::TurnClientUdp;

use crate::base::stream::Stream;
use crate::base::tasks::Tasks;
use crate::base::timeout::timeout;
use crate::protocol::{IceKind, IceUrl, Secret};
use crate::sdp::Reach;
use crate::tls::{Trust, client_config};

/// Time limit for the allocation of a relay.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most connections through one tunnel; webrtcbin needs one or two for each peer.
const MAX_CONNECTIONS: usize = 256;
/// Pause after a connection to a tunnel could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Reason why a TURN server allocates no relay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TurnError {
    /// The connection failed.
    #[error("it is not reachable: {0}")]
    Unreachable(String),
    /// The server sent no answer.
    #[error("it does not answer")]
    Silent,
    /// 401 (RFC 8656, 7.2): the credentials are wrong or have expired.
    #[error("it refuses the user and password (401): they are wrong or have expired")]
    Unauthorised,
    /// Another error response of the server.
    #[error("it refuses: {1} ({0})")]
    Refused(u16, String),
    /// No user and password are configured.
    #[error("it requires a user name and a password, and none are given")]
    NoUser,
}

/// Allocates a relay at a TURN server, and releases it. For a STUN server only finds its address.
pub async fn probe(
    url: &IceUrl,
    user: Option<(&str, &Secret)>,
    trust: &Trust,
    reach: Option<&Reach>,
) -> Result<(), TurnError> {
    let (user, password) = user.ok_or(TurnError::NoUser)?;
    let config = TurnConfig::new(TurnCredentials::new(user, &password.0));
    let unreachable = |error: io::Error| TurnError::Unreachable(error.to_string());
    let attempt = async {
        let to = resolve(url, reach).await.map_err(unreachable)?;
        match url.kind {
            IceKind::Stun => Ok(()),
            IceKind::TurnUdp => {
                let any: SocketAddr = if to.is_ipv4() {
                    (Ipv4Addr::UNSPECIFIED, 0).into()
                } else {
                    (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
                };
                let socket = UdpSocket::bind(any).await.map_err(unreachable)?;
                socket.connect(to).await.map_err(unreachable)?;
                let from = socket.local_addr().map_err(unreachable)?;
                allocate(TurnClientUdp::allocate(from, to, config), Wire::Udp(&socket)).await
            }
            IceKind::TurnTcp | IceKind::TurnTls => {
                let mut stream = connect(url, to, trust).await.map_err(unreachable)?;
                let any: SocketAddr = (Ipv4Addr::UNSPECIFIED, 9).into();
                allocate(TurnClientTcp::allocate(any, to, config), Wire::Stream(&mut stream)).await
            }
        }
    };
    timeout(PATIENCE, attempt).await.unwrap_or(Err(TurnError::Silent))
}

/// Returns the first address of a server that the rule `reach` admits; without a rule, the first address.
///
/// # Errors
///
/// An error of the name service, or an error that says that no address is admitted, and why.
pub async fn resolve(url: &IceUrl, reach: Option<&Reach>) -> io::Result<SocketAddr> {
    let mut refused = None;
    for at in smol::net::resolve((url.host.as_str(), url.port)).await? {
        match reach.and_then(|reach| reach.refuses_server(at)) {
            None => return Ok(at),
            Some(why) => refused = Some(format!("{at} has {why}")),
        }
    }
    Err(io::Error::other(refused.unwrap_or_else(|| "its name has no address".to_owned())))
}

async fn connect(url: &IceUrl, to: SocketAddr, trust: &Trust) -> io::Result<Box<dyn Stream>> {
    let tcp = TcpStream::connect(to).await?;
    let _ = tcp.set_nodelay(true);
    if url.kind != IceKind::TurnTls {
        return Ok(Box::new(tcp));
    }
    let config = client_config(trust, None).map_err(io::Error::other)?;
    let name = ServerName::try_from(url.host.clone()).map_err(io::Error::other)?;
    Ok(Box::new(TlsConnector::from(config).connect(name, tcp).await?))
}

enum Wire<'a> {
    Udp(&'a UdpSocket),
    Stream(&'a mut Box<dyn Stream>),
}

impl Wire<'_> {
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => socket.send(bytes).await.map(drop),
            Self::Stream(stream) => stream.write_all(bytes).await,
        }
    }

    async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Udp(socket) => socket.recv(buffer).await,
            Self::Stream(stream) => stream.read(buffer).await,
        }
    }
}

/// Runs the TURN client until it has allocated a relay, which is then released, or has failed.
async fn allocate(mut client: impl TurnClientApi, mut wire: Wire<'_>) -> Result<(), TurnError> {
    use turn_client_proto::api::TurnPollRet;
    use turn_client_proto::stun::Instant as Time;
    let unreachable = |error: io::Error| TurnError::Unreachable(error.to_string());
    let began = Instant::now();
    let now = || Time::from_nanos(i64::try_from(began.elapsed().as_nanos()).unwrap_or(i64::MAX));
    let (mut code, mut refusals, mut buffer) = (None, 0, [0; 2048]);
    let (to, from) = (client.remote_addr(), client.local_addr());
    loop {
        let wait = match client.poll(now()) {
            TurnPollRet::WaitUntil(time) => time,
            _ => now(),
        };
        while let Some(transmit) = client.poll_transmit(now()) {
            wire.send(transmit.data.as_ref()).await.map_err(unreachable)?;
        }
        match client.poll_event() {
            Some(TurnEvent::AllocationCreated(..)) => {
                let _ = client.delete(now());
                while let Some(transmit) = client.poll_transmit(now()) {
                    let _ = wire.send(transmit.data.as_ref()).await;
                }
                return Ok(());
            }
            Some(TurnEvent::AllocationCreateFailed(_)) => {
                return Err(match code {
                    Some((code, words)) => TurnError::Refused(code, words),
                    None => TurnError::Silent,
                });
            }
            Some(_) | None => {}
        }
        let pause = Duration::from_nanos(
            u64::try_from((wait.as_nanos() - now().as_nanos()).max(1_000_000)).unwrap_or(1_000_000),
        );
        let received = timeout(pause.min(Duration::from_millis(200)), wire.receive(&mut buffer)).await;
        let length = received.transpose().map_err(unreachable)?.unwrap_or(0);
        if length == 0 {
            continue;
        }
        // The client does not report the reason of a refusal. Over TCP, too, a read returns one whole message.
        if let Ok(error) =
            Message::from_bytes(&buffer[..length]).map(|message| message.attribute::<ErrorCode>().ok())
            && let Some(error) = error
        {
            // The first 401 only requests credentials.
            refusals += usize::from(error.code() == 401);
            if refusals > 1 {
                return Err(TurnError::Unauthorised);
            }
            code = Some((error.code(), error.reason().to_owned()));
        }
        let transmit =
            turn_client_proto::stun::agent::Transmit::new(&buffer[..length], client.transport(), to, from);
        let _ = client.recv(transmit, now());
    }
}

/// Time limits of a connection through a tunnel.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// For the connection to the server, with name lookup and TLS.
    connect: Duration,
    /// For the silence of either direction. A TURN client refreshes its allocation before it expires, by default after ten
    /// minutes (RFC 8656, 3.2), and the server answers.
    silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), silence: Duration::from_secs(15 * 60) }
    }
}

/// Tunnel to a TURN server behind TLS, for a client that supports TCP only: a port of this machine, which accepts
/// connections of this machine only. The port is not on loopback, from where libnice reaches no server.
#[derive(Debug)]
pub struct Tunnel {
    at: SocketAddr,
    connections: Arc<Tasks>,
    _task: smol::Task<()>,
}

impl Tunnel {
    /// Opens the port. Each connection to the port is forwarded to the server.
    pub async fn open(url: IceUrl, trust: Trust, reach: Option<Reach>) -> io::Result<Self> {
        Self::open_with(url, trust, reach, Limits::default()).await
    }

    async fn open_with(url: IceUrl, trust: Trust, reach: Option<Reach>, limits: Limits) -> io::Result<Self> {
        let own = || if_addrs::get_if_addrs().unwrap_or_default().into_iter().map(|interface| interface.ip());
        let outward = own().find(|ip| ip.is_ipv4() && !ip.is_loopback());
        let listener = TcpListener::bind((outward.unwrap_or(Ipv4Addr::LOCALHOST.into()), 0)).await?;
        let at = listener.local_addr()?;
        let connections = Arc::new(Tasks::new(MAX_CONNECTIONS));
        let running = connections.clone();
        let task = smol::spawn(async move {
            loop {
                let Ok((near, from)) = listener.accept().await else {
                    smol::Timer::after(ACCEPT_PAUSE).await;
                    continue;
                };
                if !own().any(|ip| ip == from.ip()) {
                    continue;
                }
                let (url, trust, reach) = (url.clone(), trust.clone(), reach.clone());
                running.spawn(async move {
                    if let Err(error) = forward(near, &url, &trust, reach.as_ref(), limits).await {
                        tracing::debug!("a tunnel to a TURN server ended: {error}");
                    }
                });
            }
        });
        Ok(Self { at, connections, _task: task })
    }

    /// Returns whether a connection goes through the tunnel.
    pub fn is_used(&self) -> bool {
        !self.connections.is_empty()
    }

    /// Returns the URL of this server over TCP, for webrtcbin.
    pub fn url(&self) -> IceUrl {
        IceUrl { kind: IceKind::TurnTcp, host: self.at.ip().to_string(), port: self.at.port() }
    }
}

async fn forward(
    near: TcpStream,
    url: &IceUrl,
    trust: &Trust,
    reach: Option<&Reach>,
    limits: Limits,
) -> io::Result<()> {
    let _ = near.set_nodelay(true);
    let connected = async { connect(url, resolve(url, reach).await?, trust).await };
    let far = timeout(limits.connect, connected).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
    let (from_far, to_far) = smol::io::split(far);
    let (from_near, to_near) = smol::io::split(near);
    or(copy(from_near, to_far, limits.silence), copy(from_far, to_near, limits.silence)).await
}

/// Copies bytes until the end of `from`; an error ends it when `from` sends nothing, or `to` accepts nothing, for as long as
/// `silence`.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    silence: Duration,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let step = async {
            let length = from.read(&mut buffer).await?;
            to.write_all(&buffer[..length]).await?;
            to.flush().await.map(|()| length)
        };
        if timeout(silence, step).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))? == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Returns the result of reading from a connection through a tunnel whose server is at `server`.
    fn end_of_connection(server: SocketAddr, limits: Limits) -> std::io::Result<usize> {
        let url = IceUrl { kind: IceKind::TurnTls, host: server.ip().to_string(), port: server.port() };
        let tunnel = smol::block_on(Tunnel::open_with(url, Trust::Anybody, None, limits)).unwrap();
        let mut near = std::net::TcpStream::connect(tunnel.at).unwrap();
        near.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = near.read(&mut [0; 16]);
        let ends = Instant::now() + PATIENCE;
        while tunnel.is_used() {
            assert!(Instant::now() < ends, "the connection stays");
            std::thread::yield_now();
        }
        length
    }

    #[test]
    fn a_server_that_never_completes_tls_does_not_hold_a_connection() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let limits = Limits { connect: Duration::from_millis(100), ..Limits::default() };
        assert_eq!(end_of_connection(silent.local_addr().unwrap(), limits).unwrap(), 0);
    }

    #[test]
    fn a_direction_that_is_silent_for_too_long_ends_the_connection() {
        smol::block_on(async {
            let silence = Duration::from_millis(50);
            let copied = copy(std::pin::pin!(smol::io::empty()), smol::io::sink(), silence).await;
            assert!(copied.is_ok(), "the end of the source");
            let (near, far) = smol::net::unix::UnixStream::pair().unwrap();
            let copied = copy(near, smol::io::sink(), silence).await;
            assert_eq!(copied.unwrap_err().kind(), io::ErrorKind::TimedOut);
            drop(far);
        });
    }
}
