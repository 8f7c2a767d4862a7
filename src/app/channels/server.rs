//! Signalling channel over a server, which may speak any protocol. Reconnects by itself.

use std::future::ready;
use std::sync::Arc;

use serde_json::Value;

use super::{Boxed, SignallingChannel};
use crate::app::error::ClientError;
use crate::app::ice::Ice;
use crate::app::server_connection::ServerConnection;
use crate::protocol::{PeerId, PeerMessage, RoomId};
use crate::signalling::{Ended, Event, In, Registration, ServerRequest, Target};

/// See the module.
pub struct ServerChannel {
    server: ServerConnection,
    room: RoomId,
}

impl std::fmt::Debug for ServerChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServerChannel({:?})", self.room)
    }
}

impl ServerChannel {
    /// Registers at a server under `id`, where the server accepts ids of clients, and joins the room.
    pub(in crate::app) async fn join(
        target: Target,
        id: PeerId,
        room: RoomId,
        ice: Arc<Ice>,
    ) -> Result<Self, ClientError> {
        let registration = Registration { id, room: Some(room.clone()), calls: None };
        let server = ServerConnection::open(target, registration, ice, Arc::new(|_| {})).await?;
        Ok(Self::over(server, room))
    }

    /// Uses a connection that is in the room already.
    pub(in crate::app) fn over(server: ServerConnection, room: RoomId) -> Self {
        Self { server, room }
    }
}

impl SignallingChannel for ServerChannel {
    fn next(&mut self) -> Boxed<'_, Event> {
        Box::pin(async {
            let event = self.server.next().await;
            if let Event::Lost { .. } = event {
                self.server.reconnect(Ended::Failed(None));
            }
            event
        })
    }

    fn send<'a>(&'a mut self, to: &'a PeerId, message: &'a PeerMessage) -> Boxed<'a, ()> {
        self.server.send(In::Send { to: Some(to.clone()), message: message.clone() });
        Box::pin(ready(()))
    }

    fn send_event<'a>(&'a mut self, kind: &'a str, data: &'a Value) -> Boxed<'a, ()> {
        self.server.send(In::Application(kind.to_owned(), data.clone()));
        Box::pin(ready(()))
    }

    fn ask(&mut self, request: ServerRequest) {
        self.server.send(In::Ask(request));
    }

    fn close(self: Box<Self>) -> Boxed<'static, ()> {
        Box::pin(self.server.close())
    }
}
