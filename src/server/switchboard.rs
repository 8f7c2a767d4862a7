//! The hub behind a lock, with a mailbox for every connection. Nobody waits for anybody.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::edge::Edge;
use super::ice::IceServers;
use super::mailbox::{Inbox, Outbox, Outgoing, mailbox};
use super::room::{self, Rejection};
use crate::base::net::is_this_machine;
use crate::hub::{Admin, ConnId, Grant, Hub, Input, Limits, Notice, Output, Owner, Phase};
use crate::protocol::room::ServerMessage;
use crate::protocol::{IceServer, PeerId};

/// How a connection is reached, and what it speaks.
#[derive(Debug)]
struct Connection {
    outbox: Outbox,
    edge: Edge,
}

#[derive(Debug, Default)]
struct State {
    hub: Hub,
    connections: HashMap<ConnId, Connection>,
    per_owner: HashMap<Owner, usize>,
    next: u64,
    /// WebSockets that are served, those included that the hub has forgotten and that are being closed.
    talks: usize,
    /// The server stops: whoever comes now is sent away.
    is_stopping: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Switchboard {
    state: Mutex<State>,
    probe: Duration,
    ice: IceServers,
}

impl Switchboard {
    pub(super) fn new(limits: Limits, ice: IceServers) -> Arc<Self> {
        let state = State { hub: Hub::new(limits), ..State::default() };
        Arc::new(Self { state: Mutex::new(state), probe: limits.probe, ice })
    }

    /// What a client is told ahead of a notice, if it asked for additions: at the start of a talk, the
    /// servers that help it to find a path.
    fn ahead(&self, notice: &Notice) -> Option<Outgoing> {
        let begins = matches!(
            notice,
            Notice::Registered | Notice::CallStarted | Notice::CalledBy(_) | Notice::Joined(_)
        );
        let servers = if begins { self.ice.list(SystemTime::now()) } else { vec![] };
        (!servers.is_empty()).then(|| Outgoing::Text(ServerMessage::IceServers(servers).to_string()))
    }

    /// The STUN and TURN servers, with credentials that begin to hold now.
    pub(super) fn ice_servers(&self) -> Vec<IceServer> {
        self.ice.list(SystemTime::now())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection of the owner of an address; returns false where that owner has too many.
    pub(super) fn admit(&self, address: IpAddr, most: usize) -> bool {
        let mut state = self.lock();
        let count = state.per_owner.entry(address.into()).or_default();
        // A proxy or a test on this machine is many peers.
        if *count >= most && !is_this_machine(address) {
            return false;
        }
        *count += 1;
        true
    }

    /// The counterpart of [`Switchboard::admit`].
    pub(super) fn dismiss(&self, address: IpAddr) {
        let mut state = self.lock();
        let owner = Owner::from(address);
        if let Some(count) = state.per_owner.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                state.per_owner.remove(&owner);
            }
        }
    }

    /// A WebSocket was opened.
    pub(super) fn open(&self, edge: Edge, address: IpAddr, grant: Grant) -> Inbox {
        let mut state = self.lock();
        state.next += 1;
        let id = ConnId(state.next);
        let (outbox, inbox) = mailbox(id);
        if state.is_stopping {
            outbox.push(STOPS);
        }
        state.connections.insert(id, Connection { outbox, edge });
        state.hub.handle_input(Instant::now(), Input::Opened(id, address.into()));
        state.hub.handle_input(Instant::now(), Input::Granted(id, grant));
        inbox
    }

    /// A line of a peer; the words to answer with where it is none for the hub.
    pub(super) fn line(self: &Arc<Self>, id: ConnId, line: String) -> Result<(), Rejection> {
        let mut state = self.lock();
        let phase = state.hub.phase(id);
        let Some(from) = state.connections.get_mut(&id) else { return Ok(()) };
        for command in from.edge.decode(phase, line)? {
            self.input(&mut state, Input::Command(id, command));
        }
        Ok(())
    }

    /// What becomes of a message of a peer that is not text.
    pub(super) fn binary(&self, id: ConnId) -> Option<Rejection> {
        self.lock().connections.get_mut(&id).map(|from| from.edge.binary())
    }

    /// A sign of life of a peer, or its end.
    pub(super) fn handle(self: &Arc<Self>, input: Input) {
        let mut state = self.lock();
        if let Input::Closed(id) = input {
            state.connections.remove(&id);
        }
        self.input(&mut state, input);
    }

    /// Whether the peer is registered by now.
    pub(super) fn is_registered(&self, id: ConnId) -> bool {
        self.lock().hub.phase(id) != Phase::Unregistered
    }

    /// What the back end wants done; false where there is none of that name.
    pub(super) fn admin(self: &Arc<Self>, admin: Admin) -> bool {
        let mut state = self.lock();
        let found = match &admin {
            Admin::Describe(peer, _) | Admin::Remove(peer) => state.hub.has_peer(peer),
            Admin::Close(room) => state.hub.has_room(room),
        };
        self.input(&mut state, Input::Admin(admin));
        found
    }

    /// Every room, with its peers and what the back end says of them.
    pub(super) fn rooms(&self) -> Value {
        let state = self.lock();
        let peer = |id: PeerId| json!({"description": state.hub.description(&id), "id": id.to_string()});
        let rooms = state.hub.rooms().map(|(name, peers)| {
            json!({"room": name.to_string(), "peers": peers.into_iter().map(peer).collect::<Vec<_>>()})
        });
        rooms.collect()
    }

    /// Connections, registered peers and rooms.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        self.lock().hub.counts()
    }

    /// Closes all connections, and those that come from now on.
    pub(super) fn close_all(&self) {
        let mut state = self.lock();
        state.is_stopping = true;
        for connection in state.connections.values() {
            connection.outbox.push(STOPS);
        }
    }

    /// Counts a WebSocket as served until the guard is dropped, which is after its last close frame.
    pub(super) fn talk(self: &Arc<Self>) -> Talk {
        self.lock().talks += 1;
        Talk(self.clone())
    }

    /// Whether the hub knows no connection, and none is being closed.
    pub(super) fn is_quiet(&self) -> bool {
        let state = self.lock();
        state.talks == 0 && state.hub.counts().0 == 0
    }

    fn input(self: &Arc<Self>, state: &mut State, input: Input) {
        let now = Instant::now();
        state.hub.handle_input(now, input);
        self.deliver(state, now);
    }

    fn deliver(self: &Arc<Self>, state: &mut State, now: Instant) {
        while let Some(output) = state.hub.poll_output() {
            let (id, fits) = match output {
                Output::Notify(id, notice) => {
                    let State { hub, connections, .. } = &mut *state;
                    let Some(Connection { outbox, edge }) = connections.get_mut(&id) else { continue };
                    let ahead = if edge.is_extended() { self.ahead(&notice) } else { None };
                    let describe = |peer: &PeerId| hub.description(peer);
                    let text = edge.encode(notice, describe).into_iter().map(Outgoing::Text);
                    (id, ahead.into_iter().chain(text).all(|message| outbox.push(message)))
                }
                Output::Close(id, reason) => {
                    let Some(gone) = state.connections.remove(&id) else { continue };
                    let (code, words) = room::close(reason);
                    gone.outbox.push(Outgoing::Close(code, words));
                    // The queue ends here; what is in it is still sent.
                    continue;
                }
                Output::Probe(id) => {
                    self.time_probe();
                    (id, state.connections.get(&id).is_none_or(|to| to.outbox.push(Outgoing::Ping)))
                }
            };
            if !fits {
                tracing::info!(conn = id.0, "a peer that does not read is dropped");
                if let Some(gone) = state.connections.remove(&id) {
                    gone.outbox.kill();
                }
                state.hub.handle_input(now, Input::Closed(id));
            }
        }
    }

    fn time_probe(self: &Arc<Self>) {
        let this = Arc::downgrade(self);
        let wait = self.probe;
        smol::spawn(async move {
            smol::Timer::after(wait).await;
            if let Some(this) = this.upgrade() {
                let mut state = this.lock();
                let now = Instant::now();
                state.hub.handle_timeout(now);
                this.deliver(&mut state, now);
            }
        })
        .detach();
    }
}

/// What every peer is told when the server stops.
const STOPS: Outgoing = Outgoing::Close(1001, "the server stops");

/// See [`Switchboard::talk`].
#[derive(Debug)]
pub(super) struct Talk(Arc<Switchboard>);

impl Drop for Talk {
    fn drop(&mut self) {
        self.0.lock().talks -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_by_the_owner_of_their_address() {
        let board = Switchboard::new(Limits::default(), IceServers::default());
        let admit = |text: &str| board.admit(text.parse().unwrap(), 1);
        assert!(admit("2001:db8:1:2::1") && !admit("2001:db8:1:2:ffff::2") && admit("2001:db8:1:3::1"));
        assert!(admit("::ffff:192.0.2.1") && !admit("192.0.2.1") && admit("::ffff:192.0.2.2"));
        assert!((0..3).all(|_| admit("127.0.0.1") && admit("::ffff:127.0.0.1") && admit("::1")));
        board.dismiss("2001:db8:1:2::1".parse().unwrap());
        assert!(admit("2001:db8:1:2:3::"));
    }
}
