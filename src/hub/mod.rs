//! The server's peers, calls and rooms as one pure state machine, without text, sockets or a clock.
//!
//! The hub handles [`Input`]s and returns [`Output`]s. A connection is identified by the number that the server assigned.
//! It has a name once it has registered, and then is idle, in a call with one other connection, or in a room. Nothing
//! here depends on the protocol that a peer speaks.
//!
//! Pure: no file of this folder has a clock, chance, a socket or GStreamer.

// A new variant must be handled everywhere: the compiler reports each place.
#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

mod admin;
mod grant;
mod moderation;
mod permissions;
mod refusal;
mod registry;
mod rooms;
pub mod shard;

pub use admin::{Admin, Presence};
pub use grant::{Calls, Grant, Rooms};
pub use moderation::{Measure, Moderates};
pub use refusal::{Reason, Refusal};

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::Value;

pub use crate::base::net::Owner;
use crate::protocol::hello::MediaKind;
use crate::protocol::{PeerId, RoomId};

/// The number of a connection, never assigned again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// The bounds of one hub.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most rooms at a time.
    pub rooms: usize,
    /// The most rooms at a time that connections of one owner of addresses created.
    pub rooms_per_owner: usize,
    /// The most peers in one room.
    pub room_size: usize,
    /// The most names in an answer to [`Command::ListPeers`].
    pub listed: usize,
    /// The time in which the holder of an id has to give a sign of life when another connection asks for the id.
    pub probe: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rooms: 10_000,
            rooms_per_owner: 1_000,
            room_size: 1_000,
            listed: 1_000,
            probe: Duration::from_secs(2),
        }
    }
}

/// A request of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Registers this name.
    Register(PeerId),
    /// Calls this peer.
    Call(PeerId),
    /// Joins a room, which is created if it does not exist.
    Join(RoomId),
    /// Registers this name and joins a room, or does neither.
    Enter(PeerId, RoomId),
    /// Sends a message to one peer of the room.
    Send {
        /// The receiver.
        to: PeerId,
        /// The text.
        body: String,
    },
    /// Moderates the room: an order about another member.
    Moderate(PeerId, Measure),
    /// Sends a text to the other side of the call.
    Relay(String),
    /// Lists the other peers of the room.
    ListRoom,
    /// Lists the peers that can be called.
    ListPeers,
}

/// An event that the hub handles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A connection was opened, from an address of this owner.
    Opened(ConnId, Owner),
    /// The permissions of a connection.
    Granted(ConnId, Grant),
    /// A request of a connection.
    Command(ConnId, Command),
    /// A connection answered a [`Output::Probe`].
    Alive(ConnId),
    /// The answer of a connection to an [`Output::Probe`] may still be under way: the deadline moves by one more probe
    /// time.
    Late(ConnId),
    /// A connection has ended.
    Closed(ConnId),
    /// A request of the back end.
    Admin(Admin),
}

/// A message to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The peer is registered.
    Registered,
    /// The call is established: the peer's text goes to the other side.
    CallStarted,
    /// The named peer calls: the peer's text goes to the caller.
    CalledBy(PeerId),
    /// The peer is in the room, which had these members.
    Joined(Vec<PeerId>),
    /// Another peer joined the room.
    PeerJoined(PeerId),
    /// Another peer left the room.
    PeerLeft(PeerId),
    /// The other peers of the room.
    RoomList(Vec<PeerId>),
    /// The peers that can be called.
    PeerList(Vec<PeerId>),
    /// A message from a peer of the room.
    From {
        /// The sender.
        from: PeerId,
        /// The text.
        body: String,
    },
    /// A text from the other side of the call.
    Relayed(String),
    /// The back end's description of a peer of the room; null once removed.
    Described(PeerId, Value),
    /// The peer may moderate the room that it has joined.
    Moderator,
    /// The peer is asked to mute what it sends: by this member of the room, or by the back end.
    MuteRequested(MediaKind, Option<PeerId>),
    /// The room was closed.
    Stopped,
    /// A request failed, and changed nothing.
    Refused(Refusal),
}

/// An action for the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a notice to a connection.
    Notify(ConnId, Notice),
    /// Close a connection, which the hub no longer knows.
    Close(ConnId, Reason),
    /// Request a sign of life (a ping) from a connection, to be reported as [`Input::Alive`].
    Probe(ConnId),
}

/// The state of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// The connection has no name.
    Unregistered,
    /// Registered, and neither in a call nor in a room.
    Idle,
    Call(ConnId),
    Room(RoomId),
}

/// The kind of text that a connection may send now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// A registration.
    Unregistered,
    /// Commands.
    Commands,
    /// Any text: it goes to the other side of the call.
    Relay,
}

#[derive(Debug)]
struct Conn {
    name: Option<PeerId>,
    /// The server generated the name for this connection: no other connection can claim the name.
    is_assigned: bool,
    state: State,
    owner: Owner,
    grant: Grant,
    /// The back end's description; null if there is none.
    description: Value,
}

/// A request for a name that another connection holds.
#[derive(Debug)]
struct Claim {
    /// The connection that requests the name.
    conn: ConnId,
    /// The room to join under the name; none for a registration alone.
    room: Option<RoomId>,
}

#[derive(Debug)]
struct Room {
    /// The owner of the address from which the room was created.
    owner: Owner,
    /// The members in the order in which they joined.
    members: Vec<ConnId>,
}

/// The state machine.
#[derive(Debug, Default)]
pub struct Hub {
    limits: Limits,
    conns: HashMap<ConnId, Conn>,
    names: HashMap<PeerId, ConnId>,
    rooms: HashMap<RoomId, Room>,
    /// The number of existing rooms that each owner created.
    rooms_by_owner: HashMap<Owner, usize>,
    /// The holders of names that were asked for a sign of life, each with its deadline and the claims for the name.
    probes: HashMap<ConnId, (Instant, VecDeque<Claim>)>,
    outputs: VecDeque<Output>,
}

impl Hub {
    /// Returns an empty hub.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Handles one input; [`Hub::poll_output`] returns the outputs.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Opened(conn, owner) => {
                let (grant, description) = Default::default();
                self.conns.insert(
                    conn,
                    Conn {
                        name: None,
                        is_assigned: false,
                        state: State::Unregistered,
                        owner,
                        grant,
                        description,
                    },
                );
            }
            Input::Granted(conn, grant) => self.grant(conn, grant),
            Input::Alive(conn) => self.alive(conn),
            Input::Late(conn) => self.late(now, conn),
            Input::Closed(conn) => self.leave(conn),
            Input::Admin(admin) => self.admin(admin),
            Input::Command(conn, command) => {
                let Some(state) = self.conns.get(&conn).map(|c| c.state.clone()) else { return };
                if let Err(refusal) = self.command(now, conn, state, command) {
                    self.notify(conn, Notice::Refused(refusal));
                }
            }
        }
    }

    /// Returns the next output, if there is one.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns the time at which to call [`Hub::handle_timeout`], if any.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.probes.values().map(|(deadline, _)| *deadline).min()
    }

    /// Returns the kind of text that a connection may send now.
    pub fn phase(&self, conn: ConnId) -> Phase {
        match self.conns.get(&conn).map(|c| &c.state) {
            None | Some(State::Unregistered) => Phase::Unregistered,
            Some(State::Call(_)) => Phase::Relay,
            Some(State::Idle | State::Room(_)) => Phase::Commands,
        }
    }

    /// Returns the numbers of connections, registered peers and rooms.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.conns.len(), self.names.len(), self.rooms.len())
    }

    /// Returns the number of calls.
    pub fn calls(&self) -> usize {
        self.conns.values().filter(|conn| matches!(conn.state, State::Call(_))).count() / 2
    }

    fn command(&mut self, now: Instant, conn: ConnId, state: State, command: Command) -> Result<(), Refusal> {
        match (command, state) {
            (Command::Register(name) | Command::Enter(name, _), State::Unregistered)
                if !self.may(conn, |grant| grant.allows_name(&name)) =>
            {
                self.outputs.push_back(Output::Close(conn, Reason::NotGranted));
                self.leave(conn);
                Ok(())
            }
            (Command::Register(name), State::Unregistered) if !self.is_waiting(conn) => {
                self.register(now, conn, name);
                Ok(())
            }
            (Command::Relay(text), State::Call(other)) => {
                self.notify(other, Notice::Relayed(text));
                Ok(())
            }
            (Command::Call(to), State::Idle) => self.call(conn, &to),
            (Command::Join(room), State::Idle) => self.join(conn, room),
            (Command::Enter(name, room), State::Unregistered) if !self.is_waiting(conn) => {
                self.enter(now, conn, name, room)
            }
            (Command::Send { to, body }, State::Room(room)) => self.send(conn, &room, &to, body),
            (Command::Moderate(peer, measure), State::Room(room)) => {
                self.moderate(conn, &room, &peer, measure)
            }
            (Command::ListRoom, State::Room(room)) => {
                let others = self.others(&room, conn);
                self.notify(conn, Notice::RoomList(others));
                Ok(())
            }
            (Command::ListPeers, State::Idle) => {
                let free = self.callable(conn);
                self.notify(conn, Notice::PeerList(free));
                Ok(())
            }
            (Command::Register(_) | Command::Enter(..), _) => Err(Refusal::Registered),
            (Command::Relay(_), _) => Err(Refusal::NoCall),
            (Command::Call(_) | Command::Join(_) | Command::ListPeers, State::Room(_)) => {
                Err(Refusal::InRoom)
            }
            (Command::Send { .. } | Command::Moderate(..) | Command::ListRoom, State::Idle) => {
                Err(Refusal::Outside)
            }
            // The server's codec rejects a connection that is not registered and relays all text of a call: these
            // combinations do not occur, and change nothing.
            (
                Command::Call(_)
                | Command::Join(_)
                | Command::ListPeers
                | Command::Send { .. }
                | Command::Moderate(..)
                | Command::ListRoom,
                State::Unregistered | State::Call(_),
            ) => Err(Refusal::Outside),
        }
    }

    fn call(&mut self, conn: ConnId, to: &PeerId) -> Result<(), Refusal> {
        let other = self.check_call(conn, to)?;
        self.connect(conn, other);
        Ok(())
    }

    /// Returns the connection that a call of `conn` to `to` reaches.
    fn check_call(&self, conn: ConnId, to: &PeerId) -> Result<ConnId, Refusal> {
        if !self.may(conn, |grant| grant.calls.allow(to)) {
            return Err(Refusal::NotGranted("calls"));
        }
        // A peer that this connection may not call is visible only to the peers in its room.
        let other = self.names.get(to).copied().filter(|other| *other == conn || self.may_talk(conn, *other));
        let other = other.ok_or_else(|| Refusal::NotFound(to.clone()))?;
        if other == conn || self.conns.get(&other).is_none_or(|c| c.state != State::Idle) {
            return Err(Refusal::Busy(to.clone()));
        }
        Ok(other)
    }

    /// Begins a call of one registered connection to another.
    fn connect(&mut self, conn: ConnId, other: ConnId) {
        self.set_state(conn, State::Call(other));
        self.set_state(other, State::Call(conn));
        if let Some(caller) = self.name(conn) {
            self.notify(other, Notice::CalledBy(caller));
        }
        self.notify(conn, Notice::CallStarted);
    }

    fn send(&mut self, conn: ConnId, room: &RoomId, to: &PeerId, body: String) -> Result<(), Refusal> {
        match (self.member(conn, room, to), self.name(conn)) {
            (Some(other), Some(from)) => {
                self.notify(other, Notice::From { from, body });
                Ok(())
            }
            // The error reveals whether a peer exists elsewhere only to a connection that may call the peer. Otherwise it
            // depends on the sender's own permissions alone.
            _ if !self.may(conn, |grant| grant.calls.allow(to)) || self.is_visible(conn, to) => {
                Err(Refusal::NotInRoom(to.clone()))
            }
            _ => Err(Refusal::NotFound(to.clone())),
        }
    }

    /// Removes a connection, and notifies its room or ends its call.
    fn leave(&mut self, conn: ConnId) {
        for (_, waiting) in self.probes.values_mut() {
            waiting.retain(|other| other.conn != conn);
        }
        self.probes.retain(|holder, (_, waiting)| *holder == conn || !waiting.is_empty());
        let Some(Conn { name, state, .. }) = self.conns.remove(&conn) else { return };
        if let Some(name) = &name {
            self.names.remove(name);
        }
        match state {
            State::Unregistered | State::Idle => {}
            State::Call(other) => {
                self.outputs.push_back(Output::Close(other, Reason::CallOver));
                // Idle, so that its own removal ends no further connection.
                self.set_state(other, State::Idle);
                self.leave(other);
            }
            State::Room(room) => {
                self.leave_room(conn, &room, name.as_ref());
            }
        }
        self.inherit(conn, name);
    }

    /// Returns the name of a connection, if it has one.
    pub fn name(&self, conn: ConnId) -> Option<PeerId> {
        self.conns.get(&conn)?.name.clone()
    }

    fn set_state(&mut self, conn: ConnId, state: State) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.state = state;
        }
    }

    fn others(&self, room: &RoomId, conn: ConnId) -> Vec<PeerId> {
        let members = self.rooms.get(room).map_or(&[][..], |room| &room.members).iter();
        members.filter(|member| **member != conn).filter_map(|member| self.name(*member)).collect()
    }

    fn notify_room(&mut self, room: &RoomId, but: ConnId, notice: Notice) {
        let members = self.rooms.get(room).map_or(&[][..], |room| &room.members).iter();
        let others = members.filter(|member| **member != but);
        self.outputs.extend(others.map(|member| Output::Notify(*member, notice.clone())));
    }

    fn notify(&mut self, conn: ConnId, notice: Notice) {
        self.outputs.push_back(Output::Notify(conn, notice));
    }
}

#[cfg(test)]
mod tests;
