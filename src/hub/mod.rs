//! The server's peers, calls and rooms as one pure state machine, without text, sockets or a clock.
//!
//! It takes [`Input`]s and gives [`Output`]s. It knows connections by the number that the server
//! gave them; a connection has a name once it registered, and then is in the lobby, in a call with
//! one other connection, or in a room. Nothing here depends on the protocol that a peer speaks.
//!
//! Pure: no file of this folder has a clock, chance, a socket or GStreamer.

// A new message must make the compiler ask what to do with it.
#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

mod admin;
mod grant;
mod refusal;
mod registry;

pub use admin::Admin;
pub use grant::Grant;
pub use refusal::{Reason, Refusal};

use registry::Claim;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::Value;

pub use crate::base::net::Owner;
use crate::protocol::{PeerId, RoomId};

/// A connection's number, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// Bounds of one hub.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most rooms at a time.
    pub rooms: usize,
    /// The most rooms at a time that one address made.
    pub rooms_per_owner: usize,
    /// The most peers in one room.
    pub room_size: usize,
    /// The most names in an answer to [`Command::ListPeers`].
    pub listed: usize,
    /// How long the holder of an id has to show that it is alive when another asks for the id.
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

/// What a peer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// To be known by this name.
    Register(PeerId),
    /// A 1-1 call.
    Call(PeerId),
    /// To come into a room.
    Join(RoomId),
    /// To be known by this name, and come into a room.
    Enter(PeerId, RoomId),
    /// A message to one peer of the room.
    Send {
        /// Who gets it.
        to: PeerId,
        /// What.
        body: String,
    },
    /// A message to the other side of the call.
    Relay(String),
    /// Who else is in the room?
    ListRoom,
    /// Who can be called?
    ListPeers,
}

/// What happens to the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A connection was made.
    Opened(ConnId, Owner),
    /// What that connection may do.
    Granted(ConnId, Grant),
    /// A connection asks for something.
    Command(ConnId, Command),
    /// A connection answered a [`Output::Probe`].
    Alive(ConnId),
    /// The answer of a connection to an [`Output::Probe`] may still be under way: the deadline moves by one more probe
    /// time.
    Late(ConnId),
    /// A connection is gone.
    Closed(ConnId),
    /// The back end wants something.
    Admin(Admin),
}

/// What a peer is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The name is yours.
    Registered,
    /// The call stands; what you send goes to the peer.
    CallStarted,
    /// That peer called you; what you send goes to it.
    CalledBy(PeerId),
    /// You are in the room, with these before you.
    Joined(Vec<PeerId>),
    /// A peer came into your room.
    PeerJoined(PeerId),
    /// A peer left your room.
    PeerLeft(PeerId),
    /// Who else is in your room.
    RoomList(Vec<PeerId>),
    /// Who can be called.
    PeerList(Vec<PeerId>),
    /// From a peer of your room.
    From {
        /// Who sent it.
        from: PeerId,
        /// What.
        body: String,
    },
    /// From the other side of your call.
    Relayed(String),
    /// What the back end says of a peer of your room; null where nothing any more.
    Described(PeerId, Value),
    /// Your room is closed.
    Stopped,
    /// That cannot be; nothing changed.
    Refused(Refusal),
}

/// What the server is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Tell a connection.
    Notify(ConnId, Notice),
    /// End a connection; the hub has forgotten it.
    Close(ConnId, Reason),
    /// Ask a connection for a sign of life (a ping), to be given as [`Input::Alive`].
    Probe(ConnId),
}

/// Where a connection stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Not registered.
    Door,
    /// Registered and free.
    Lobby,
    Call(ConnId),
    Room(RoomId),
}

/// What kind of words a connection may say now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Only its name.
    Unregistered,
    /// Commands.
    Commands,
    /// In a call: everything is for the other side.
    Relay,
}

#[derive(Debug)]
struct Conn {
    name: Option<PeerId>,
    /// The server generated the name for this connection: no other connection can claim the name.
    is_assigned: bool,
    place: Place,
    owner: Owner,
    grant: Grant,
    /// What the back end says of it.
    description: Value,
}

#[derive(Debug)]
struct Room {
    /// Who made it.
    owner: Owner,
    /// In the order in which they came.
    members: Vec<ConnId>,
}

/// The state machine.
#[derive(Debug, Default)]
pub struct Hub {
    limits: Limits,
    conns: HashMap<ConnId, Conn>,
    names: HashMap<PeerId, ConnId>,
    rooms: HashMap<RoomId, Room>,
    /// How many rooms each owner made that are still there.
    rooms_of: HashMap<Owner, usize>,
    /// Holders being asked for a sign of life, until when, and who wants the name.
    probes: HashMap<ConnId, (Instant, VecDeque<Claim>)>,
    outputs: VecDeque<Output>,
}

impl Hub {
    /// An empty hub.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes one input; its outputs are then waiting in [`Hub::poll_output`].
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Opened(conn, owner) => {
                let (grant, description) = Default::default();
                self.conns.insert(
                    conn,
                    Conn { name: None, is_assigned: false, place: Place::Door, owner, grant, description },
                );
            }
            Input::Granted(conn, grant) => {
                if let Some(conn) = self.conns.get_mut(&conn) {
                    conn.description = grant.description.clone();
                    conn.grant = grant;
                }
            }
            Input::Alive(conn) => self.alive(conn),
            Input::Late(conn) => self.late(now, conn),
            Input::Closed(conn) => self.leave(conn),
            Input::Admin(admin) => self.admin(admin),
            Input::Command(conn, command) => {
                let Some(place) = self.conns.get(&conn).map(|c| c.place.clone()) else { return };
                if let Err(refusal) = self.command(now, conn, place, command) {
                    self.notify(conn, Notice::Refused(refusal));
                }
            }
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Hub::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.probes.values().map(|(deadline, _)| *deadline).min()
    }

    /// What that connection may say now.
    pub fn phase(&self, conn: ConnId) -> Phase {
        match self.conns.get(&conn).map(|c| &c.place) {
            None | Some(Place::Door) => Phase::Unregistered,
            Some(Place::Call(_)) => Phase::Relay,
            Some(Place::Lobby | Place::Room(_)) => Phase::Commands,
        }
    }

    /// How many connections, registered peers and rooms there are.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.conns.len(), self.names.len(), self.rooms.len())
    }

    fn command(&mut self, now: Instant, conn: ConnId, place: Place, command: Command) -> Result<(), Refusal> {
        match (command, place) {
            (Command::Register(name) | Command::Enter(name, _), Place::Door)
                if !self.may(conn, |grant| grant.allows_name(&name)) =>
            {
                self.outputs.push_back(Output::Close(conn, Reason::NotGranted));
                self.leave(conn);
                Ok(())
            }
            (Command::Register(name), Place::Door) if !self.is_waiting(conn) => {
                self.register(now, conn, name);
                Ok(())
            }
            (Command::Relay(text), Place::Call(other)) => {
                self.notify(other, Notice::Relayed(text));
                Ok(())
            }
            (Command::Call(to), Place::Lobby) => self.call(conn, &to),
            (Command::Join(room), Place::Lobby) => self.join(conn, room),
            (Command::Enter(name, room), Place::Door) if !self.is_waiting(conn) => {
                self.enter(now, conn, name, room)
            }
            (Command::Send { to, body }, Place::Room(room)) => self.send(conn, &room, &to, body),
            (Command::ListRoom, Place::Room(room)) => {
                let others = self.others(&room, conn);
                self.notify(conn, Notice::RoomList(others));
                Ok(())
            }
            (Command::ListPeers, Place::Lobby) => {
                let free = |(_, id): &(&PeerId, &ConnId)| {
                    let is_free = |other: &Conn| other.place == Place::Lobby && other.grant.allows_calls();
                    **id != conn && self.conns.get(id).is_some_and(is_free)
                };
                // A connection that may not call gets an empty list of peers.
                let most = if self.may_call(conn) { self.limits.listed } else { 0 };
                let free = self.names.iter().filter(free).map(|(name, _)| name.clone());
                let mut free: Vec<PeerId> = free.take(most).collect();
                free.sort();
                self.notify(conn, Notice::PeerList(free));
                Ok(())
            }
            (Command::Register(_) | Command::Enter(..), _) => Err(Refusal::Registered),
            (Command::Relay(_), _) => Err(Refusal::NoCall),
            (Command::Call(_) | Command::Join(_) | Command::ListPeers, Place::Room(_)) => {
                Err(Refusal::InRoom)
            }
            (Command::Send { .. } | Command::ListRoom, Place::Lobby) => Err(Refusal::Outside),
            // The server's codec rejects a connection that is not registered and relays all text of a call: these
            // combinations do not occur, and change nothing.
            (
                Command::Call(_)
                | Command::Join(_)
                | Command::ListPeers
                | Command::Send { .. }
                | Command::ListRoom,
                Place::Door | Place::Call(_),
            ) => Err(Refusal::Outside),
        }
    }

    fn may(&self, conn: ConnId, what: impl Fn(&Grant) -> bool) -> bool {
        self.conns.get(&conn).is_some_and(|conn| what(&conn.grant))
    }

    /// Returns whether a connection may call peers, and see peers outside its room.
    fn may_call(&self, conn: ConnId) -> bool {
        self.may(conn, Grant::allows_calls)
    }

    fn call(&mut self, conn: ConnId, to: &PeerId) -> Result<(), Refusal> {
        if !self.may_call(conn) {
            return Err(Refusal::NotGranted("calls"));
        }
        // A peer without permission for calls cannot be called, and is visible only to the peers in its room.
        let other = self.names.get(to).copied().filter(|other| self.may_call(*other));
        let other = other.ok_or_else(|| Refusal::NotFound(to.clone()))?;
        if other == conn || self.conns.get(&other).is_none_or(|c| c.place != Place::Lobby) {
            return Err(Refusal::Busy(to.clone()));
        }
        self.set_place(conn, Place::Call(other));
        self.set_place(other, Place::Call(conn));
        if let Some(caller) = self.name(conn) {
            self.notify(other, Notice::CalledBy(caller));
        }
        self.notify(conn, Notice::CallStarted);
        Ok(())
    }

    fn join(&mut self, conn: ConnId, room: RoomId) -> Result<(), Refusal> {
        let Some(Conn { name: Some(name), owner, .. }) = self.conns.get(&conn) else {
            return Err(Refusal::Outside);
        };
        if !self.may(conn, |grant| grant.allows_room(&room)) {
            return Err(Refusal::NotGranted("this room"));
        }
        let (name, owner) = (name.clone(), *owner);
        match self.rooms.get_mut(&room) {
            Some(there) if there.members.len() >= self.limits.room_size => {
                return Err(Refusal::RoomFull(room));
            }
            Some(there) => there.members.push(conn),
            None => {
                let made = self.rooms_of.entry(owner).or_default();
                if self.rooms.len() >= self.limits.rooms || *made >= self.limits.rooms_per_owner {
                    return Err(Refusal::TooManyRooms);
                }
                *made += 1;
                self.rooms.insert(room.clone(), Room { owner, members: vec![conn] });
            }
        }
        let others = self.others(&room, conn);
        self.notify(conn, Notice::Joined(others));
        self.tell_room(&room, conn, Notice::PeerJoined(name));
        self.set_place(conn, Place::Room(room));
        Ok(())
    }

    fn send(&mut self, conn: ConnId, room: &RoomId, to: &PeerId, body: String) -> Result<(), Refusal> {
        let here = Place::Room(room.clone());
        let is_here = |id: &&ConnId| **id != conn && self.conns.get(id).is_some_and(|c| c.place == here);
        match (self.names.get(to).filter(is_here).copied(), self.name(conn)) {
            (Some(other), Some(from)) => {
                self.notify(other, Notice::From { from, body });
                Ok(())
            }
            // A connection limited to rooms gets the same error whether or not the peer exists elsewhere.
            _ if self.names.contains_key(to) || !self.may_call(conn) => Err(Refusal::NotInRoom(to.clone())),
            _ => Err(Refusal::NotFound(to.clone())),
        }
    }

    /// Forgets a connection, and tells those whom it concerns.
    fn leave(&mut self, conn: ConnId) {
        for (_, waiting) in self.probes.values_mut() {
            waiting.retain(|other| other.conn != conn);
        }
        self.probes.retain(|holder, (_, waiting)| *holder == conn || !waiting.is_empty());
        let Some(Conn { name, place, .. }) = self.conns.remove(&conn) else { return };
        if let Some(name) = &name {
            self.names.remove(name);
        }
        match place {
            Place::Door | Place::Lobby => {}
            Place::Call(other) => {
                self.outputs.push_back(Output::Close(other, Reason::CallOver));
                // It is no longer in the call: its own leaving ends no other connection.
                self.set_place(other, Place::Lobby);
                self.leave(other);
            }
            Place::Room(room) => {
                self.leave_room(conn, &room, name.as_ref());
            }
        }
        self.inherit(conn, name);
    }

    fn leave_room(&mut self, conn: ConnId, room: &RoomId, name: Option<&PeerId>) {
        let Some(there) = self.rooms.get_mut(room) else { return };
        there.members.retain(|member| *member != conn);
        if !there.members.is_empty() {
            if let Some(name) = name {
                self.tell_room(room, conn, Notice::PeerLeft(name.clone()));
            }
            return;
        }
        self.forget_room(room);
    }

    fn forget_room(&mut self, room: &RoomId) {
        let Some(Room { owner, .. }) = self.rooms.remove(room) else { return };
        if let Some(made) = self.rooms_of.get_mut(&owner) {
            *made -= 1;
            if *made == 0 {
                self.rooms_of.remove(&owner);
            }
        }
    }

    /// Returns the name of a connection, if it has one.
    pub fn name(&self, conn: ConnId) -> Option<PeerId> {
        self.conns.get(&conn)?.name.clone()
    }

    fn set_place(&mut self, conn: ConnId, place: Place) {
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.place = place;
        }
    }

    fn others(&self, room: &RoomId, conn: ConnId) -> Vec<PeerId> {
        let members = self.rooms.get(room).map_or(&[][..], |room| &room.members).iter();
        members.filter(|member| **member != conn).filter_map(|member| self.name(*member)).collect()
    }

    fn tell_room(&mut self, room: &RoomId, but: ConnId, notice: Notice) {
        let members = self.rooms.get(room).map_or(&[][..], |room| &room.members).iter();
        let told = members.filter(|member| **member != but);
        self.outputs.extend(told.map(|member| Output::Notify(*member, notice.clone())));
    }

    fn notify(&mut self, conn: ConnId, notice: Notice) {
        self.outputs.push_back(Output::Notify(conn, notice));
    }
}

#[cfg(test)]
mod tests;
