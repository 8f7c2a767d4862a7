//! Ports for programs that cannot choose a port by themselves and name it.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports that the kernel gives to nobody: those it chooses by itself begin at 32768.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Number of ports that [`free_port`] has tried.
static TRIED: AtomicU16 = AtomicU16::new(0);

/// Returns a port on which nobody listens, for TCP and UDP, and which nobody but another caller of this function gets:
/// it returns a port once in each test program, and programs at the same time begin at different ones.
pub fn free_port() -> u16 {
    let first = std::process::id() as usize * 37;
    super::wait_for("a free port", || {
        let offset = (first + usize::from(TRIED.fetch_add(1, Ordering::Relaxed))) % RANGE.len();
        let port = RANGE.start + u16::try_from(offset).unwrap();
        let at = (Ipv4Addr::UNSPECIFIED, port);
        (TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok()).then_some(port)
    })
}

/// Returns a free port of loopback as an address.
pub fn free_address() -> std::net::SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}
