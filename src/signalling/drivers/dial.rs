//! Opens the byte stream to a server: TCP, directly or through an HTTP proxy's tunnel, and TLS.

use std::io;
use std::net::{IpAddr, SocketAddrV6};

use async_tungstenite::tungstenite::Error as WsError;
use async_tungstenite::tungstenite::error::ProtocolError;
use futures_rustls::TlsConnector;
use futures_rustls::rustls::pki_types::ServerName;
use futures_rustls::rustls::{AlertDescription, CertificateError, Error as TlsError};
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::TcpStream;
use url::Host;

use super::super::error::ConnectError;
use super::super::proxy::Proxy;
use super::super::registry::advice;
use super::super::target::Target;
use crate::base::stream::Stream;
use crate::base::zone;
use crate::tls::client_config;

/// The longest head of a proxy's answer that is read, in bytes.
const MAX_HEAD: usize = 16 * 1024;

/// Opens the connection to a server, ready for the HTTP request. Also returns the server's IP address; none behind a
/// proxy, which does not reveal the address.
pub(super) async fn dial(target: &Target) -> Result<(Box<dyn Stream>, Option<IpAddr>), ConnectError> {
    let name = target.name();
    let (host, port) = target.host_and_port().ok_or_else(|| ConnectError::Url(name.clone()))?;
    let (stream, address) = match target.proxy()? {
        Some(proxy) => {
            let authority = format!("{host}:{port}");
            let tunnel = tunnel(&proxy, &authority, target).await;
            let why = |why| ConnectError::Proxy(name.clone(), format!("{}: {why}", proxy.name()));
            (tunnel.map_err(why)?, None)
        }
        None => {
            let tcp = connect(target, &host, port).await;
            let tcp = tcp.map_err(|error| ConnectError::Unreachable(name.clone(), error.to_string()))?;
            let address = tcp.peer_addr().ok().map(|address| address.ip());
            (boxed(tcp), address)
        }
    };
    if !target.is_tls() {
        return Ok((stream, address));
    }
    let server = match host {
        Host::Domain(host) => {
            ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::Url(name.clone()))?
        }
        Host::Ipv4(ip) => ServerName::from(IpAddr::from(ip)),
        Host::Ipv6(ip) => ServerName::from(IpAddr::from(ip)),
    };
    let config = client_config(&target.trust, target.own.as_ref())?;
    let tls = TlsConnector::from(config).connect(server, stream).await;
    let tls = tls.map_err(|error| tls_error(target, &error))?;
    Ok((Box::new(tls), address))
}

fn boxed(tcp: TcpStream) -> Box<dyn Stream> {
    let _ = tcp.set_nodelay(true);
    Box::new(tcp)
}

async fn connect(target: &Target, host: &Host<&str>, port: u16) -> io::Result<TcpStream> {
    if target.lacks_zone() {
        return Err(io::Error::other("a link-local address needs its interface, as in [fe80::1%eth0]"));
    }
    match host {
        Host::Domain(host) => TcpStream::connect((*host, port)).await,
        Host::Ipv4(ip) => TcpStream::connect((*ip, port)).await,
        Host::Ipv6(ip) => {
            let scope = target.zone().map(zone::interface).transpose()?.unwrap_or(0);
            TcpStream::connect(SocketAddrV6::new(*ip, port, 0, scope)).await
        }
    }
}

/// Opens a tunnel to `authority` through a proxy; the error is a text for people.
async fn tunnel(proxy: &Proxy, authority: &str, target: &Target) -> Result<Box<dyn Stream>, String> {
    let unreachable = |error: io::Error| format!("it is not reachable: {error}");
    let tcp = TcpStream::connect((proxy.host.as_str(), proxy.port)).await.map_err(unreachable)?;
    let mut stream = boxed(tcp);
    if proxy.is_tls {
        let config = client_config(&target.trust, None).map_err(|error| error.to_string())?;
        let name = ServerName::try_from(proxy.host.clone()).map_err(|error| error.to_string())?;
        let tls = TlsConnector::from(config).connect(name, stream).await;
        stream = Box::new(tls.map_err(|error| format!("no TLS with it: {error}"))?);
    }
    let broken = |error: io::Error| format!("it broke the connection: {error}");
    stream.write_all(proxy.request(authority).as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    let mut head = Vec::new();
    // Reads byte by byte: the bytes after the head belong to the server's stream.
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte).await.map_err(broken)? {
            0 => return Err("it closed the connection".to_owned()),
            _ if head.len() >= MAX_HEAD => return Err("its answer has no end".to_owned()),
            _ => head.push(byte[0]),
        }
    }
    proxy.answer(&String::from_utf8_lossy(&head)).map(|()| stream)
}

/// Converts an error of the TLS handshake, and adds advice.
fn tls_error(target: &Target, error: &io::Error) -> ConnectError {
    let name = target.name();
    match error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
        Some(TlsError::InvalidCertificate(reason)) => {
            let advice = match reason {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "it has to be renewed at the server"
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "is this machine's clock right?"
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    "the certificate has to name this address (subjectAltName)"
                }
                _ => return ConnectError::Issuer(name, reason.to_string()),
            };
            ConnectError::Certificate(name, format!("{reason}; {advice}"))
        }
        Some(TlsError::AlertReceived(alert)) => refused(target, *alert),
        Some(TlsError::InvalidMessage(_)) => {
            ConnectError::Tls(name, format!("it does not use TLS; its URL is {}", target.with_other_tls()))
        }
        _ => ConnectError::Tls(
            name,
            format!("{error}; if it uses no TLS, its URL is {}", target.with_other_tls()),
        ),
    }
}

/// Describes an alert with which the server ended TLS (RFC 8446, 6.2).
fn refused(target: &Target, alert: AlertDescription) -> ConnectError {
    let name = target.name();
    match (alert, &target.own) {
        (AlertDescription::CertificateRequired, _) | (AlertDescription::HandshakeFailure, None) => {
            ConnectError::ClientCertificate(name, format!("{alert:?}"))
        }
        (_, Some(own)) => {
            let why = format!("it does not take the certificate in {} ({alert:?})", own.cert.display());
            ConnectError::Tls(name, why)
        }
        (_, None) => ConnectError::Tls(name, format!("it refuses ({alert:?})")),
    }
}

/// Converts an error of the WebSocket upgrade that is not an HTTP response.
pub(super) fn upgrade_error(target: &Target, error: WsError) -> ConnectError {
    let name = target.name();
    match error {
        // In TLS 1.3 the alert about a missing client certificate arrives after the handshake.
        WsError::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<TlsError>()) => {
            tls_error(target, &error)
        }
        WsError::Io(error) => ConnectError::Broken(format!("{name}: {error}")),
        WsError::Protocol(ProtocolError::HandshakeIncomplete) | WsError::ConnectionClosed => {
            ConnectError::Broken(format!("{name} closed it without an answer"))
        }
        error => ConnectError::NotWebSocket(name, format!("{error}; {}", advice(target, None))),
    }
}
