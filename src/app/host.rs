//! A server, its page, and a client that takes calls on it or is in a room, in one process.

use std::net::{IpAddr, Ipv4Addr};

use super::Sink;
use super::client::Client;
use super::command::Command;
use super::error::ClientError;
use super::plan::MediaPlan;
use crate::base::net::is_this_machine;
use crate::protocol::{PeerId, RoomId};
use crate::server::Server;
use crate::session::Admission;
use crate::signalling::Target;
use crate::tls::Trust;
use smol::channel::{Receiver, bounded};

/// The part that the host's own client takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// It takes calls, one after another.
    Calls {
        /// The first alone.
        once: bool,
        /// Whose.
        admission: Admission,
    },
    /// It is in this room, connected with at most so many.
    Room(RoomId, usize),
}

impl Part {
    /// The query of a link that leads to this host of that id.
    pub fn query(&self, id: &PeerId) -> String {
        let (key, value) = match self {
            Self::Calls { .. } => ("call", id.as_str()),
            Self::Room(room, _) => ("room", room.as_str()),
        };
        let value: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
        format!("?{key}={value}")
    }
}

/// Runs until the user ends it: the server, and the client that answers as `id`.
pub async fn host(
    server: Server,
    id: PeerId,
    plan: MediaPlan,
    commands: Receiver<Command>,
    sink: Sink,
    part: Part,
) -> Result<(), ClientError> {
    // The client comes in by loopback where the server listens there, and trusts its own server.
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
    let client = Client::new(target, id, plan, commands, sink);
    let result = match part {
        Part::Calls { once, admission } => client.answer(once, &admission).await,
        Part::Room(room, most) => client.join(&room, most).await,
    };
    drop(stop);
    serving.await;
    result
}
