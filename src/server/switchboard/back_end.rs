//! The switchboard for back ends: their requests, and what they read of the hub.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{State, Switchboard};
use crate::base::lock::lock;
use crate::hub::{Admin, ConnId, Grant, Hub, Input, Presence};
use crate::protocol::hello::ServerMessage;
use crate::protocol::ssp::ServerEvent;
use crate::protocol::{PeerId, RoomId};
use crate::server::mailbox::Outgoing;
use crate::server::rooms_page::{After, page};

impl Switchboard {
    /// Returns whether the server accepts orders of the back end; not if too many wait for the engine.
    pub(in crate::server) fn takes_orders(&self) -> bool {
        self.lock().board.takes_orders()
    }

    /// Executes a request of the back end; returns false if no peer or room has that name.
    pub(in crate::server) fn admin(self: &Arc<Self>, admin: Admin) -> bool {
        let mut state = self.lock();
        let found = match &admin {
            Admin::Describe(peer, _) | Admin::Remove(peer) | Admin::Mute(peer, _) => {
                state.board.hub().has_peer(peer)
            }
            Admin::Close(room) => state.board.hub().has_room(room),
        };
        // Peers and rooms of other servers are known to the engine.
        let found = found || !state.board.is_alone();
        self.input(&mut state, Input::Admin(admin));
        found
    }

    /// Returns the rooms behind the place `after`, sorted by name, with their peers (sorted by id) and descriptions, up
    /// to 512 KiB; and the place where the next page begins, if there is one. Returns none if the list is
    /// requested too often.
    pub(in crate::server) fn rooms(&self, after: &After, now: Instant) -> Option<(Value, Option<After>)> {
        let mut state = self.lock();
        if !state.may_list(now) {
            return None;
        }
        let all = state.board.hub().rooms().map(|(name, peers)| (name.to_string(), peers));
        Some(page(all, after, |peer| state.board.hub().description(peer)))
    }

    /// Counts a list of all rooms or peers; returns false if there are too many.
    pub(in crate::server) fn may_list(&self, now: Instant) -> bool {
        self.lock().may_list(now)
    }

    /// Returns what `read` finds in the hub.
    pub(in crate::server) fn with_hub<T>(&self, read: impl FnOnce(&Hub) -> T) -> T {
        read(self.lock().board.hub())
    }

    /// Asks a peer to leave its room and to join another one. The error says why the peer cannot be asked; none if there is
    /// no such peer.
    pub(in crate::server) fn move_peer(
        &self,
        peer: &PeerId,
        room: RoomId,
    ) -> Result<(), Option<&'static str>> {
        let state = self.lock();
        let id = state.board.hub().connection(peer).ok_or(None)?;
        let connection = state.connections.get(&id).ok_or(None)?;
        if !connection.codec.is_extended() {
            return Err(Some("the peer's client does not speak the extensions of roomtone"));
        }
        match state.board.hub().presence(peer) {
            Presence::Room(there) if there != room => {}
            Presence::Room(_) => return Err(Some("the peer is in this room")),
            Presence::Free | Presence::Call | Presence::Offline => {
                return Err(Some("the peer is in no room"));
            }
        }
        if !state.board.hub().may_join(peer, &room) {
            return Err(Some("the peer's token does not allow this room"));
        }
        connection.outbox.notify(Outgoing::Text(ServerMessage::RoomMove(room).to_string()));
        Ok(())
    }

    /// Sends an event of the application to a peer that speaks ssp. Returns none if there is no such peer, and false if it
    /// speaks another protocol.
    pub(in crate::server) fn send_event(&self, peer: &PeerId, event: &ServerEvent) -> Option<bool> {
        let state = self.lock();
        let connection = state.connections.get(&state.board.hub().connection(peer)?)?;
        if connection.codec.is_ssp() {
            // A peer that reads too little misses the event.
            connection.outbox.notify(Outgoing::Text(event.to_string()));
        }
        Some(connection.codec.is_ssp())
    }

    /// Replaces the permissions of a connection by those of its next token; the description stays. The error is a text
    /// for the client.
    pub(in crate::server) fn renew(self: &Arc<Self>, id: ConnId, mut grant: Grant) -> Result<(), String> {
        let mut state = self.lock();
        if let Some(name) = state.board.hub().name(id) {
            if grant.name.as_ref().is_some_and(|only| *only != name) {
                return Err("the token is for another id".to_owned());
            }
            if let (Presence::Room(room), Some(rooms)) = (state.board.hub().presence(&name), &grant.rooms)
                && !rooms.contains(&room)
            {
                return Err("the token is not for your room".to_owned());
            }
            grant.description = state.board.hub().description(&name);
            // Other clients may see the client otherwise from now on, and the client others.
            state.moved.push(name);
            let State { watches, moved, .. } = &mut *state;
            moved.extend(watches.watched(id).cloned());
        }
        self.input(&mut state, Input::Granted(id, grant));
        Ok(())
    }

    /// Lets nobody register a name for a time.
    pub(in crate::server) fn block(&self, name: PeerId, time: Duration) {
        lock(&self.blocks).block(Instant::now(), name, time);
    }

    /// Returns the numbers of connections, registered peers and rooms.
    pub(in crate::server) fn counts(&self) -> (usize, usize, usize) {
        self.lock().board.counts()
    }
}
