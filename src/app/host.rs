//! A server with its page, and a client on it that answers calls or is in a room, in one process.

use std::net::{IpAddr, Ipv4Addr};

use super::Sink;
use super::client::Client;
use super::command::Command;
use super::error::ClientError;
use super::setup::MediaSetup;
use crate::base::net::is_this_machine;
use crate::protocol::{PeerId, RoomId};
use crate::server::Server;
use crate::session::Admission;
use crate::signalling::Target;
use crate::tls::Trust;
use smol::channel::{Receiver, bounded};

/// The work of the host's own client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// It answers calls, one after another.
    Calls {
        /// Answers the first call only.
        once: bool,
        /// The callers that are admitted.
        admission: Admission,
    },
    /// It is in this room, with at most this number of connections.
    Room(RoomId, usize),
}

impl Role {
    /// Returns the query of a link that leads to this host, whose client has the id `id`.
    pub fn query(&self, id: &PeerId) -> String {
        let (key, value) = match self {
            Self::Calls { .. } => ("call", id.as_str()),
            Self::Room(room, _) => ("room", room.as_str()),
        };
        let value: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
        format!("?{key}={value}")
    }
}

/// Runs the server, and the client with the id `id`, until the user ends the program.
pub async fn host(
    server: Server,
    id: PeerId,
    setup: MediaSetup,
    commands: Receiver<Command>,
    sink: Sink,
    role: Role,
) -> Result<(), ClientError> {
    // The client connects over loopback if the server listens there, and trusts its own server.
    let mut address = server.address();
    let by_loopback = address.ip().is_unspecified() || is_this_machine(address.ip());
    let scheme = if by_loopback { "ws" } else { "wss" };
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let target = Target::parse(&format!("{scheme}://{address}"), Trust::Anybody)?;
    let (stop, stopped) = bounded::<()>(1);
    let serving = smol::spawn(server.run(async move {
        let _ = stopped.recv().await;
    }));
    let client = Client::new(target, id, setup, commands, sink);
    let result = match role {
        Role::Calls { once, admission } => client.answer(once, &admission).await,
        Role::Room(room, most) => client.join(&room, most).await,
    };
    drop(stop);
    serving.await;
    result
}
