//! A pool, or a room, of a server, in whatever protocol that speaks: the way to it comes back by itself.

use serde_json::Value;

use super::channel::{Boxed, Signal, SignallingChannel};
use crate::app::client::{ClientError, Registration};
use crate::app::wire::{Wire, Wired};
use crate::protocol::{PeerId, PeerMessage, RoomId};
use crate::signalling::Event;

/// See the module.
pub struct ServerChannel {
    registration: Registration,
    wire: Wire,
    room: RoomId,
    /// The server has us in the room.
    is_in: bool,
}

impl std::fmt::Debug for ServerChannel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServerChannel({:?})", self.room)
    }
}

impl ServerChannel {
    /// Over a connection on which we are registered.
    pub(in crate::app) async fn enter(registration: Registration, mut wire: Wire, room: RoomId) -> Self {
        wire.say(|backend| Some(backend.join(&room))).await;
        Self { registration, wire, room, is_in: false }
    }

    /// Registers at a server, and enters.
    pub(super) async fn join(registration: Registration, room: RoomId) -> Result<Self, ClientError> {
        let wire = Wire::of(registration.register().await?);
        Ok(Self::enter(registration, wire, room).await)
    }

    /// What the server's words mean to the pool; nothing where they mean nothing.
    fn signal(&mut self, event: Event) -> Option<Signal> {
        Some(match event {
            Event::Joined { peers, me, descriptions } => {
                self.is_in = true;
                Signal::Joined { me, peers, descriptions }
            }
            Event::PeerJoined(peer) => Signal::PeerJoined(peer),
            Event::PeerLeft(peer) => Signal::PeerLeft(peer),
            Event::From(peer, message) => Signal::From(peer, message),
            Event::JunkFrom(peer, why) => Signal::JunkFrom(peer, why),
            Event::Described(peer, description) => Signal::Described(peer, description),
            Event::IceServers(servers) => Signal::IceServers(servers),
            Event::Application(kind, data) => Signal::Application(kind, data),
            Event::Refused(reason) if !self.is_in => Signal::Over(reason),
            Event::Refused(text) | Event::Junk(text) => Signal::Warning(text),
            Event::Stopped => Signal::Over("it closed the pool".to_owned()),
            Event::Nothing | Event::Registered | Event::Accepted | Event::Caller(_) | Event::Peer(_) => {
                return None;
            }
        })
    }
}

impl SignallingChannel for ServerChannel {
    fn next(&mut self) -> Boxed<'_, Signal> {
        Box::pin(async {
            loop {
                match self.wire.next().await {
                    Wired::Said(event) => match self.signal(event) {
                        Some(signal) => return signal,
                        None => continue,
                    },
                    Wired::Lost { .. } => {
                        self.wire.come_back(self.registration.clone(), false);
                        self.is_in = false;
                        return Signal::Gone;
                    }
                    Wired::Back => self.wire.say(|backend| Some(backend.join(&self.room))).await,
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
