//! Signalling channel within one process, for tests and for endpoints of one program.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use smol::channel::{Receiver, Sender, unbounded};

use super::{Boxed, SignallingChannel};
use crate::base::lock::lock;
use crate::protocol::{PeerId, PeerMessage};
use crate::signalling::Event;

/// A pool within this process.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    members: Arc<Mutex<BTreeMap<PeerId, Sender<Event>>>>,
}

/// Channel of one endpoint. Dropping the channel leaves the pool.
#[derive(Debug)]
pub struct MemoryChannel {
    me: PeerId,
    pool: Memory,
    /// Tells this channel from a later one with the same id.
    own: Sender<Event>,
    // Unbounded: all endpoints are parts of this program.
    signals: Receiver<Event>,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, Sender<Event>>> {
        lock(&self.members)
    }

    /// Joins under this id; an endpoint that had the id leaves.
    pub fn join(&self, me: PeerId) -> MemoryChannel {
        let (sender, signals) = unbounded();
        let mut members = self.lock();
        leave(&mut members, &me);
        let peers = members.keys().cloned().collect();
        let _ = sender.try_send(Event::Joined { me: Some(me.clone()), peers, descriptions: vec![] });
        for other in members.values() {
            let _ = other.try_send(Event::PeerJoined(me.clone()));
        }
        members.insert(me.clone(), sender.clone());
        drop(members);
        MemoryChannel { me, pool: self.clone(), own: sender, signals }
    }
}

fn leave(members: &mut BTreeMap<PeerId, Sender<Event>>, me: &PeerId) {
    if members.remove(me).is_some() {
        for other in members.values() {
            let _ = other.try_send(Event::PeerLeft(me.clone()));
        }
    }
}

impl Drop for MemoryChannel {
    fn drop(&mut self) {
        let mut members = self.pool.lock();
        if members.get(&self.me).is_some_and(|there| there.same_channel(&self.own)) {
            leave(&mut members, &self.me);
        }
    }
}

impl SignallingChannel for MemoryChannel {
    fn next(&mut self) -> Boxed<'_, Event> {
        Box::pin(async {
            match self.signals.recv().await {
                Ok(signal) => signal,
                Err(_) => std::future::pending().await,
            }
        })
    }

    fn send<'a>(&'a mut self, to: &'a PeerId, message: &'a PeerMessage) -> Boxed<'a, ()> {
        Box::pin(async move {
            if let Some(other) = self.pool.lock().get(to) {
                let _ = other.try_send(Event::From(self.me.clone(), message.clone()));
            }
        })
    }

    fn is_within_process(&self) -> bool {
        true
    }

    fn close(self: Box<Self>) -> Boxed<'static, ()> {
        Box::pin(async move { drop(self) })
    }
}
