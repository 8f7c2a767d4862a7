//! A server, its page, and a client that takes calls on it, in one process.

use std::net::{IpAddr, Ipv4Addr};

use super::Sink;
use super::client::{Client, ClientError, Command};
use super::plan::MediaPlan;
use crate::protocol::PeerId;
use crate::server::Server;
use crate::signalling::Target;
use crate::tls::Trust;
use smol::channel::{Receiver, bounded};

/// Runs until the user ends it: the server, and the client that answers as `id`.
pub async fn host(
    server: Server,
    id: PeerId,
    plan: MediaPlan,
    commands: Receiver<Command>,
    sink: Sink,
    once: bool,
) -> Result<(), ClientError> {
    // The client comes in by loopback where the server listens there, and trusts its own server.
    let mut address = server.address();
    let scheme = if address.ip().is_unspecified() || address.ip().is_loopback() { "ws" } else { "wss" };
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let target = Target::parse(&format!("{scheme}://{address}"), Trust::Anybody)?;
    let (stop, stopped) = bounded::<()>(1);
    let serving = smol::spawn(server.run(async move {
        let _ = stopped.recv().await;
    }));
    let result = Client::new(target, id, plan, commands, sink).answer(once).await;
    drop(stop);
    serving.await;
    result
}
