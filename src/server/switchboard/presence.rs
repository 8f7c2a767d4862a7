//! Pushes presence to the clients that watch peers, and keeps the events for back ends.

use std::time::Instant;

use super::board::Board;
use super::{LIST, Outcome, State, Switchboard};
use crate::hub::{self, ConnId, Output};
use crate::protocol::PeerId;
use crate::protocol::hello::{ClientMessage, PRESENCE, Presence, ServerMessage};
use crate::server::events::happening::Happening;
use crate::server::mailbox::Outgoing;

impl Switchboard {
    /// Handles a request to watch peers. Returns none if the text is no such request.
    pub(super) fn watch(&self, state: &mut State, id: ConnId, text: &str) -> Option<Outcome> {
        let State { board, connections, watches, .. } = state;
        let hub = board.hub();
        let connection = connections.get(&id)?;
        let may_ask = connection.codec.is_extended() && hub.phase(id) == hub::Phase::Commands;
        if !may_ask || !text.starts_with(PRESENCE) {
            return None;
        }
        let Ok(ClientMessage::Presence(peers)) = ClientMessage::parse(text) else { return None };
        let seen: Vec<_> = peers.into_iter().map(|peer| (peer.clone(), seen(board, id, &peer))).collect();
        for (peer, presence) in &seen {
            let answer = ServerMessage::Presence(peer.clone(), *presence);
            connection.outbox.answer(Outgoing::Text(answer.to_string()));
        }
        let listed = LIST.saturating_add(u32::try_from(seen.len()).unwrap_or(u32::MAX));
        watches.replace(id, seen);
        #[cfg(feature = "engine")]
        state.shards.look_now();
        Some(Outcome { listed, ..Outcome::default() })
    }

    /// Derives events from an output of the hub, before the output is executed.
    pub(super) fn observe(&self, state: &mut State, now: Instant, output: &Output) {
        let events = state.observer.observe(now, state.board.hub(), output);
        self.report(state, events);
    }

    /// Derives events from the end of a connection.
    pub(super) fn observe_end(&self, state: &mut State, now: Instant, id: ConnId, reason: &'static str) {
        let events = state.observer.ended(now, id, reason);
        state.watches.end(id);
        self.report(state, events);
    }

    /// Keeps events, and remembers the peers whose presence they change for [`Switchboard::push_presence`].
    fn report(&self, state: &mut State, events: Vec<Happening>) {
        for event in &events {
            match event {
                Happening::Registered { peer }
                | Happening::Gone { peer, .. }
                | Happening::Joined { peer, .. } => {
                    state.moved.push(peer.clone());
                }
                Happening::CallStarted { from, to } => state.moved.extend([from.clone(), to.clone()]),
                _ => {}
            }
        }
        self.events.add(events);
    }

    /// Tells the watchers of peers whose presence has changed.
    pub(super) fn push_presence(&self, state: &mut State) {
        let State { board, connections, watches, moved, .. } = state;
        let hub = board.hub();
        for peer in moved.drain(..) {
            for (id, presence) in watches.changed(&peer, |id| seen(board, id, &peer)) {
                // In a call all text is the other side's, and the connection ends with the call.
                let Some(connection) = connections.get(&id).filter(|_| hub.phase(id) == hub::Phase::Commands)
                else {
                    continue;
                };
                let news = ServerMessage::Presence(peer.clone(), presence);
                // A client that reads too little misses the news.
                connection.outbox.notify(Outgoing::Text(news.to_string()));
            }
        }
    }
}

/// Returns the presence of a peer as a connection may see it: a peer that it may not call, or that is hidden, is gone.
fn seen(board: &Board, id: ConnId, peer: &PeerId) -> Presence {
    let hub = board.hub();
    #[cfg(feature = "engine")]
    if !hub.has_peer(peer) {
        return match board.sees(id, peer) {
            None => Presence::Gone,
            Some(true) => Presence::Free,
            Some(false) => Presence::Busy,
        };
    }
    if !hub.shows(id, peer) {
        return Presence::Gone;
    }
    match hub.presence(peer) {
        hub::Presence::Offline => Presence::Gone,
        hub::Presence::Free => Presence::Free,
        hub::Presence::Call | hub::Presence::Room(_) => Presence::Busy,
    }
}
