//! Delivery: passes the outputs of the hub to the mailboxes of connections, and decides about unanswered probes.

use std::sync::Arc;
use std::time::Instant;

use super::{Connection, LIST, Outcome, State, Switchboard};
use crate::hub::{ConnId, Input, Notice, Output, Refusal};
use crate::protocol::PeerId;
use crate::protocol::hello::ServerMessage;
use crate::server::codec::hello;
use crate::server::mailbox::{Forwarded, Outgoing};
use crate::server::timers::{self, Probed};

impl Switchboard {
    /// Returns the STUN and TURN servers that a client with extensions receives before this notice, if the notice begins
    /// a call or a stay in a room.
    fn ice_servers_before(&self, notice: &Notice) -> Option<Outgoing> {
        let begins = matches!(
            notice,
            Notice::Registered | Notice::CallStarted | Notice::CalledBy(_) | Notice::Joined(_)
        );
        let servers = if begins { self.ice_servers() } else { vec![] };
        (!servers.is_empty()).then(|| Outgoing::Text(ServerMessage::IceServers(servers).to_string()))
    }

    /// Sends the hub's outputs to the connections. `cause` is the peer whose message led to them, if any.
    pub(super) fn deliver(
        self: &Arc<Self>,
        state: &mut State,
        now: Instant,
        mut cause: Option<(ConnId, &mut Outcome)>,
    ) {
        while let Some(output) = state.board.poll_output() {
            self.observe(state, now, &output);
            let (id, fits) = match output {
                Output::Notify(id, notice) => (id, self.notify(state, id, notice, cause.as_mut())),
                Output::Close(id, reason) => {
                    state.watches.end(id);
                    let Some(gone) = state.connections.remove(&id) else { continue };
                    let (code, words) = hello::close(reason);
                    gone.outbox.notify(Outgoing::Close(code, words));
                    // The queue ends here; what is in it is still sent.
                    continue;
                }
                Output::Probe(id) => {
                    self.time_probe(id);
                    let Some(holder) = state.connections.get_mut(&id) else { continue };
                    holder.probed = Some(now);
                    (id, holder.outbox.notify(Outgoing::Ping))
                }
            };
            if !fits {
                self.metrics.count_slow_peer();
                tracing::info!(conn = id.0, "a peer is dropped: it does not read the server's notices");
                if let Some(gone) = state.connections.remove(&id) {
                    gone.outbox.abort();
                }
                self.observe_end(state, now, id, "too_slow");
                state.board.handle_input(now, Input::Closed(id));
            }
        }
        self.push_presence(state);
        #[cfg(feature = "engine")]
        self.wake_engine(state);
    }

    /// Sends a notice to one peer; returns false if the peer does not read the server's notices.
    fn notify(
        &self,
        state: &mut State,
        id: ConnId,
        notice: Notice,
        cause: Option<&mut (ConnId, &mut Outcome)>,
    ) -> bool {
        let State { board, connections, .. } = &mut *state;
        let Some(Connection { codec, .. }) = connections.get_mut(&id) else { return true };
        let is_of_a_peer = matches!(notice, Notice::From { .. } | Notice::Relayed(_));
        // A peer can do without descriptions, so it is not dropped if they do not fit.
        let is_needed = !matches!(notice, Notice::Described(..));
        let listed = match &notice {
            Notice::PeerList(names) | Notice::RoomList(names) => Some(names.len()),
            _ => None,
        };
        let ahead = if codec.is_extended() { self.ice_servers_before(&notice) } else { None };
        let is_answer = is_answer(&notice);
        #[allow(unused_mut, reason = "texts of other servers are taken out")]
        let mut texts = codec.encode(notice, |peer: &PeerId| board.hub().description(peer));
        #[cfg(feature = "engine")]
        if let Some((from, _)) = &cause
            && is_of_a_peer
            && Self::waits_behind(state, (*from, id), &mut texts)
        {
            return true;
        }
        let Some(Connection { outbox, .. }) = state.connections.get(&id) else { return true };
        match cause {
            Some((from, outcome)) if is_of_a_peer => {
                state.forward((*from, id), texts, outcome);
                true
            }
            Some((from, outcome)) if *from == id => {
                let names = listed.map_or(0, |names| u32::try_from(names).unwrap_or(u32::MAX));
                outcome.listed =
                    outcome.listed.saturating_add(if listed.is_some() { LIST + names } else { 0 });
                ahead
                    .into_iter()
                    .chain(texts.into_iter().map(Outgoing::Text))
                    .for_each(|one| outbox.answer(one));
                true
            }
            // The answer to an earlier request, which comes from the engine.
            None if is_answer => {
                let all = ahead.into_iter().chain(texts.into_iter().map(Outgoing::Text));
                all.for_each(|one| outbox.answer(one));
                true
            }
            Some(_) | None => {
                let mut all = ahead.into_iter().chain(texts.into_iter().map(Outgoing::Text));
                all.all(|message| outbox.notify(message)) || !is_needed
            }
        }
    }

    /// Starts a timer that decides about an unanswered probe of the connection `id`.
    fn time_probe(self: &Arc<Self>, id: ConnId) {
        let this = Arc::downgrade(self);
        let wait = self.probe;
        self.probes.spawn(async move {
            let mut is_probed = true;
            while is_probed {
                smol::Timer::after(wait).await;
                let Some(this) = this.upgrade() else { return };
                let mut state = this.lock();
                this.judge_probes(&mut state, Instant::now());
                is_probed = state.board.is_probed(id);
            }
        });
    }

    /// Decides about all connections that have not answered a probe in time.
    pub(super) fn judge_probes(self: &Arc<Self>, state: &mut State, now: Instant) {
        for id in state.board.overdue(now) {
            let Some(holder) = state.connections.get(&id) else { continue };
            let probed = holder.probed.unwrap_or(now);
            match timers::judge(holder.gauge.flow(), probed, now, self.unread) {
                Probed::Alive => state.board.handle_input(now, Input::Alive(id)),
                Probed::Later => state.board.handle_input(now, Input::Late(id)),
                Probed::Dead => {}
            }
        }
        state.board.handle_timeout(now);
        self.deliver(state, now, None);
    }
}

/// Returns whether a notice answers a request of its receiver.
fn is_answer(notice: &Notice) -> bool {
    matches!(
        notice,
        Notice::Registered
            | Notice::CallStarted
            | Notice::Joined(_)
            | Notice::Moderator
            | Notice::RoomList(_)
            | Notice::PeerList(_)
            | Notice::Refused(_)
    )
}

impl State {
    /// Forwards texts of a peer to another one.
    fn forward(&mut self, (from, to): (ConnId, ConnId), texts: Vec<String>, outcome: &mut Outcome) {
        let Some(Connection { outbox, .. }) = self.connections.get(&to) else { return };
        if let Some(parked) = outcome.parked.iter_mut().find(|parked| parked.to == to) {
            return parked.add(texts);
        }
        match outbox.forward((from, to), texts) {
            Forwarded::Queued => {}
            Forwarded::Waits(parked) => outcome.parked.push(parked),
            Forwarded::Refused => self.report_unread(from, to),
        }
    }

    /// Reports to a sender that the receiver does not read its messages.
    pub(super) fn report_unread(&mut self, from: ConnId, to: ConnId) {
        let State { board, connections, .. } = self;
        let Some(name) = board.hub().name(to) else { return };
        let Some(Connection { outbox, codec, .. }) = connections.get_mut(&from) else { return };
        let texts =
            codec.encode(Notice::Refused(Refusal::Unread(name)), |peer| board.hub().description(peer));
        texts.into_iter().for_each(|text| outbox.answer(Outgoing::Text(text)));
    }
}
