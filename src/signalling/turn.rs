//! TURN servers: a probe, which allocates a relay or reports why none is available, and a tunnel to servers behind TLS, which
//! libnice does not support.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures_rustls::TlsConnector;
use futures_rustls::rustls::pki_types::ServerName;
use smol::future::or;
use smol::io::{AsyncReadExt, AsyncWriteExt};
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
const TUNNELS: usize = 256;

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

/// Tunnel to a TURN server behind TLS, for a client that supports TCP only: a port of this machine, which accepts
/// connections of this machine only. The port is not on loopback, from where libnice reaches no server.
#[derive(Debug)]
pub struct Tunnel {
    at: SocketAddr,
    _task: smol::Task<()>,
}

impl Tunnel {
    /// Opens the port. Each connection to the port is forwarded to the server.
    pub async fn open(url: IceUrl, trust: Trust, reach: Option<Reach>) -> io::Result<Self> {
        let own = || if_addrs::get_if_addrs().unwrap_or_default().into_iter().map(|interface| interface.ip());
        let outward = own().find(|ip| ip.is_ipv4() && !ip.is_loopback());
        let listener = TcpListener::bind((outward.unwrap_or(Ipv4Addr::LOCALHOST.into()), 0)).await?;
        let at = listener.local_addr()?;
        let task = smol::spawn(async move {
            let tunnels = Tasks::new(TUNNELS);
            while let Ok((near, from)) = listener.accept().await {
                if !own().any(|ip| ip == from.ip()) {
                    continue;
                }
                let (url, trust, reach) = (url.clone(), trust.clone(), reach.clone());
                tunnels.spawn(async move {
                    if let Err(error) = forward(near, &url, &trust, reach.as_ref()).await {
                        tracing::debug!("a tunnel to a TURN server ended: {error}");
                    }
                });
            }
        });
        Ok(Self { at, _task: task })
    }

    /// Returns the URL of this server over TCP, for webrtcbin.
    pub fn url(&self) -> IceUrl {
        IceUrl { kind: IceKind::TurnTcp, host: self.at.ip().to_string(), port: self.at.port() }
    }
}

async fn forward(near: TcpStream, url: &IceUrl, trust: &Trust, reach: Option<&Reach>) -> io::Result<()> {
    let _ = near.set_nodelay(true);
    let far = connect(url, resolve(url, reach).await?, trust).await?;
    let (from_far, to_far) = smol::io::split(far);
    let (from_near, to_near) = smol::io::split(near);
    or(smol::io::copy(from_near, to_far), smol::io::copy(from_far, to_near)).await.map(drop)
}
