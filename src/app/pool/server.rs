//! A pool, or a room, of a server, in whatever protocol that speaks: the way to it comes back by itself.

use serde_json::Value;

use super::channel::{Boxed, Signal, SignallingChannel};
use crate::app::client::{CLOSED_POOL, ClientError, Registration};
use crate::app::wire::{Wire, Wired};
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
    /// Registers at a server, and enters.
    pub(super) async fn join(registration: Registration, room: RoomId) -> Result<Self, ClientError> {
        let registration = Registration { room: Some(room.clone()), ..registration };
        Ok(Self { wire: Wire::open(registration).await?, room })
    }

    /// What the server's words mean to the pool; nothing where they mean nothing.
    fn signal(event: Event) -> Option<Signal> {
        Some(match event {
            Event::Joined { peers, me, descriptions } => Signal::Joined { me, peers, descriptions },
            Event::PeerJoined(peer) => Signal::PeerJoined(peer),
            Event::PeerLeft(peer) => Signal::PeerLeft(peer),
            Event::From(peer, message) => Signal::From(peer, message),
            Event::JunkFrom(peer, why) => Signal::JunkFrom(peer, why),
            Event::Described(peer, description) => Signal::Described(peer, description),
            Event::IceServers(servers) => Signal::IceServers(servers),
            Event::Application(kind, data) => Signal::Application(kind, data),
            Event::Refused(text) | Event::Junk(text) => Signal::Warning(text),
            Event::Stopped => Signal::Over(CLOSED_POOL.to_owned()),
            Event::Nothing
            | Event::Foreign(_)
            | Event::Registered
            | Event::Accepted
            | Event::Caller(_)
            | Event::Peer(_) => return None,
        })
    }
}

impl SignallingChannel for ServerChannel {
    fn next(&mut self) -> Boxed<'_, Signal> {
        Box::pin(async {
            loop {
                match self.wire.next().await {
                    Wired::Said(event) => match Self::signal(event) {
                        Some(signal) => return signal,
                        None => continue,
                    },
                    Wired::Lost { .. } => {
                        self.wire.come_back(Ended::Failed(None));
                        return Signal::Gone;
                    }
                    Wired::Back => {}
                    Wired::NotYet(why) => return Signal::Warning(why),
                    Wired::Dismissed(why) => return Signal::Over(why),
                    Wired::Refused(error) => return Signal::Over(error.to_string()),
                }
            }
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
