//! Signalling channel over a server, which may speak any protocol. Reconnects by itself.

use serde_json::Value;

use super::{Boxed, SignallingChannel};
use crate::app::client::Registration;
use crate::app::error::ClientError;
use crate::app::wire::Wire;
use crate::protocol::{PeerId, PeerMessage, RoomId};
use crate::signalling::Event;
use crate::signalling::reconnect::Ended;

/// See the module.
pub struct ServerChannel {
    wire: Wire,
    room: RoomId,
}

impl std::fmt::Debug for ServerChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServerChannel({:?})", self.room)
    }
}

impl ServerChannel {
    /// Registers at a server, and joins the room.
    pub(in crate::app) async fn join(registration: Registration, room: RoomId) -> Result<Self, ClientError> {
        let registration = Registration { room: Some(room.clone()), ..registration };
        Ok(Self::over(Wire::open(registration).await?, room))
    }

    /// Uses a connection that is in the room already.
    pub(in crate::app) fn over(wire: Wire, room: RoomId) -> Self {
        Self { wire, room }
    }
}

impl SignallingChannel for ServerChannel {
    fn next(&mut self) -> Boxed<'_, Event> {
        Box::pin(async {
            let event = self.wire.next().await;
            if let Event::Lost { .. } = event {
                self.wire.come_back(Ended::Failed(None));
            }
            event
        })
    }

    fn send<'a>(&'a mut self, to: &'a PeerId, message: &'a PeerMessage) -> Boxed<'a, ()> {
        Box::pin(self.wire.say(move |backend| backend.address(Some(to), message)))
    }

    fn tell<'a>(&'a mut self, kind: &'a str, data: &'a Value) -> Boxed<'a, ()> {
        Box::pin(self.wire.say(move |backend| backend.tell(kind, data)))
    }

    fn close(self: Box<Self>) -> Boxed<'static, ()> {
        Box::pin(self.wire.close())
    }
}
