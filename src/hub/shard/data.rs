//! The data that shards and the engine exchange: keys and records, transactions, and messages.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::hub::{Calls, Grant, Owner, Reason};
use crate::protocol::hello::MediaKind;
use crate::protocol::{PeerId, RoomId};

/// The name of one attachment of a shard to the engine. A shard that attaches again has a new name, so that nothing
/// addressed to the earlier attachment counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub String);

/// The name of one registration: it begins with `HELLO`, joins one room or call at most, ends once, and never returns.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StayId(pub String);

/// A key of the engine; its value is a map from fields to texts. A map without fields is absent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(pub String);

/// The field of the version of a peer or a room: the number of the transaction that changed it last.
pub(super) const VERSION: &str = "v";
/// The field of a peer's [`Record`].
const DATA: &str = "d";
/// The field of the owner of a room.
const OWNER: &str = "o";
/// The beginning of the fields of a room's members.
const MEMBER: &str = "m:";
/// A value that the engine replaces by the number of the transaction.
pub const NUMBER: &str = "$seq";

impl Key {
    /// Returns the key of a registered peer.
    pub fn peer(name: &PeerId) -> Self {
        Self(format!("p:{}", name.as_str()))
    }

    /// Returns the key of a room.
    pub fn room(name: &RoomId) -> Self {
        Self(format!("r:{}", name.as_str()))
    }

    /// Returns the key of the names that an attachment holds, each with its stay.
    pub fn names(node: &NodeId) -> Self {
        Self(format!("s:{}", node.0))
    }

    /// Returns the key of the names that can be called.
    pub fn free() -> Self {
        Self("free".to_owned())
    }

    /// Returns the key of the attachments that ended, whose names have to be given back.
    pub fn dead() -> Self {
        Self("dead".to_owned())
    }
}

/// The place of a registered peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// Neither in a call nor in a room.
    Lobby,
    /// In a call with the stay of this peer.
    Call(PeerId, StayId),
    /// In a room.
    Room(RoomId),
}

/// A registered peer, as the engine keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The registration.
    pub stay: StayId,
    /// The attachment that holds the peer's connection.
    pub node: NodeId,
    /// The place of the peer.
    pub place: Place,
    /// Whether the server made the name, so that no other connection can claim it.
    pub is_assigned: bool,
    /// Whether lists of peers leave this one out.
    pub is_hidden: bool,
    /// The peers that this one may call and be called by.
    pub calls: Calls,
    /// The back end's description.
    pub description: Value,
}

impl Record {
    /// Returns whether the record is of the stay `own`, in a call with the stay `other`.
    pub(super) fn is_called_by(&self, own: &StayId, other: &StayId) -> bool {
        self.stay == *own && matches!(&self.place, Place::Call(_, stay) if stay == other)
    }

    /// Returns the permissions that other shards need of a peer.
    pub(super) fn grant(&self) -> Grant {
        Grant {
            calls: self.calls.clone(),
            is_hidden: self.is_hidden,
            description: self.description.clone(),
            ..Grant::default()
        }
    }

    /// Parses the fields of a peer: its version and its record.
    pub(super) fn parse(fields: &Fields) -> Option<(u64, Self)> {
        let version = fields.get(VERSION)?.parse().ok()?;
        Some((version, serde_json::from_str(fields.get(DATA)?).ok()?))
    }
}

/// The content of a key.
pub type Fields = BTreeMap<String, String>;

/// A room, as the engine keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RoomView {
    /// The version; none if the room does not exist.
    pub(super) version: Option<u64>,
    pub(super) owner: Owner,
    pub(super) members: BTreeMap<PeerId, Record>,
}

impl RoomView {
    pub(super) fn has(&self, name: &PeerId, stay: &StayId) -> bool {
        self.members.get(name).is_some_and(|member| member.stay == *stay)
    }

    pub(super) fn parse(fields: &Fields) -> Self {
        let member = |(field, value): (&String, &String)| {
            Some((field.strip_prefix(MEMBER)?.parse().ok()?, serde_json::from_str(value).ok()?))
        };
        Self {
            version: fields.get(VERSION).and_then(|version| version.parse().ok()),
            owner: Owner(fields.get(OWNER).and_then(|owner| owner.parse().ok()).unwrap_or_default()),
            members: fields.iter().filter_map(member).collect(),
        }
    }
}

/// A change of one field, in the order key, field, value. An empty value removes the field; an empty field removes the
/// key.
pub type Write = (Key, String, String);

/// A transaction: checks, changes and messages that the engine executes in one step, or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tx {
    /// The number of the transaction among those of the attachment: each is executed once, however often it arrives.
    pub op: u64,
    /// Fields and the values that they must have; an empty value means that the field must be absent.
    pub guards: Vec<Write>,
    /// Changes.
    pub writes: Vec<Write>,
    /// Messages to inboxes.
    pub sends: Vec<(NodeId, String)>,
    /// Keys to return if a guard does not hold, or if the transaction changes nothing.
    pub reads: Vec<Key>,
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

impl Tx {
    pub(super) fn guard(&mut self, key: Key, version: Option<u64>) {
        let version = version.map(|version| version.to_string()).unwrap_or_default();
        self.reads.push(key.clone());
        self.guards.push((key, VERSION.to_owned(), version));
    }

    pub(super) fn write(&mut self, key: Key, field: &str, value: &str) {
        self.writes.push((key, field.to_owned(), value.to_owned()));
    }

    /// Writes a peer with the names of its attachment and the list of free peers.
    pub(super) fn put_peer(&mut self, name: &PeerId, record: &Record) {
        let key = Key::peer(name);
        self.write(key.clone(), VERSION, NUMBER);
        self.write(key, DATA, &text(record));
        self.write(Key::names(&record.node), name.as_str(), &record.stay.0);
        let is_free = record.place == Place::Lobby && !record.is_hidden;
        let calls = if is_free { text(&record.calls) } else { String::new() };
        self.write(Key::free(), name.as_str(), &calls);
    }

    /// Removes a peer.
    pub(super) fn remove_peer(&mut self, name: &PeerId, node: &NodeId) {
        self.write(Key::peer(name), "", "");
        self.write(Key::names(node), name.as_str(), "");
        self.write(Key::free(), name.as_str(), "");
    }

    /// Writes a member of a room; a new room has this owner.
    pub(super) fn put_member(&mut self, room: &RoomId, owner: Owner, name: &PeerId, record: &Record) {
        let key = Key::room(room);
        self.write(key.clone(), VERSION, NUMBER);
        self.write(key.clone(), OWNER, &owner.0.to_string());
        self.write(key, &format!("{MEMBER}{}", name.as_str()), &text(record));
    }

    /// Removes a member of a room, or the room with its last member.
    pub(super) fn remove_member(&mut self, room: &RoomId, name: &PeerId, is_last: bool) {
        let key = Key::room(room);
        if is_last {
            return self.write(key, "", "");
        }
        self.write(key.clone(), VERSION, NUMBER);
        self.write(key, &format!("{MEMBER}{}", name.as_str()), "");
    }

    pub(super) fn send(&mut self, node: &NodeId, frame: &Frame) {
        self.sends.push((node.clone(), frame.to_text()));
    }
}

/// A change of a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Change {
    /// A peer joined, or its record changed.
    Put(PeerId, Record),
    /// A stay ended.
    Left(PeerId, StayId),
}

/// A message of one shard to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Frame {
    /// A room changed; it had the version `prev` before, and has the number of the transaction now.
    Room { room: RoomId, prev: Option<u64>, change: Change },
    /// A peer calls this stay.
    Called { caller: PeerId, record: Record, callee: StayId },
    /// The description of a peer outside of rooms.
    Described { stay: StayId, description: Value },
    /// This stay ended.
    Closed { stay: StayId, reason: Reason },
    /// A text for the stay `to`: within a call, or within a room. `n` grows with every text of the attachment `node`.
    Relay { node: NodeId, n: u64, from: StayId, to: StayId, in_call: bool, body: String },
    /// The moderator `from`, or the back end, asks the stay `of` to mute.
    Mute { from: Option<StayId>, of: StayId, kind: MediaKind },
    /// The connection of this stay belongs to another attachment now.
    Moved { stay: StayId, node: NodeId },
    /// Another connection claims the name of this stay: ask its connection for a sign of life.
    Probe { stay: StayId, asker: NodeId },
    /// The connection of this stay is alive.
    Alive { stay: StayId },
    /// The sign of life of this stay may still be under way.
    Late { stay: StayId },
}

impl Frame {
    pub(super) fn to_text(&self) -> String {
        text(self)
    }
}

/// A message in the inbox of an attachment. All messages of one inbox have one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A message of another shard, with the number of the transaction that sent it; 0 for a message outside of
    /// transactions.
    Frame(u64, String),
    /// The outcome of an own transaction.
    Done {
        /// The number that the attachment gave the transaction.
        op: u64,
        /// Whether all guards held.
        is_done: bool,
        /// The number of the transaction among all.
        number: u64,
        /// The keys that the transaction reads, if they were returned.
        reads: BTreeMap<Key, Fields>,
    },
}

/// A request of a shard to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Attach under a new name; the earlier attachment ends.
    Attach(Attach),
    /// Execute a transaction.
    Tx(Tx),
    /// Append a message to an inbox, if the inbox exists.
    Send(NodeId, String),
}

/// The arguments of an attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// The new name.
    pub node: NodeId,
    /// The name of the earlier attachment.
    pub old: Option<NodeId>,
    /// The epoch that the shard knows.
    pub epoch: Option<String>,
    /// Whether the engine lost transactions of the shard.
    pub is_rewound: bool,
}

/// The answer to [`Ask::Attach`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The name of the attachment.
    pub node: NodeId,
    /// The epoch: it changes when the engine lost data.
    pub epoch: String,
    /// Whether the epoch has begun so recently that shards assert what the engine lost.
    pub is_young: bool,
}

/// The answer to a transaction that reached the engine. The outcome of an executed transaction is in the inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The transaction was executed, now or before.
    Taken,
    /// The attachment has ended, or the epoch is over: the shard attaches again.
    Fenced,
    /// The engine lost earlier transactions: the shard attaches again and begins a new epoch.
    Rewound,
}

/// The knowledge that a shard sends with a beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// The attachment.
    pub node: NodeId,
    /// The epoch.
    pub epoch: String,
    /// The last transaction whose outcome the shard knows.
    pub op: u64,
    /// The number of the last message of a transaction that the shard has read.
    pub place: u64,
}

/// The state of the cluster, as of a beat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Ended attachments whose names have to be given back.
    pub dead: BTreeSet<NodeId>,
    /// Whether the shard is the one that gives such names back; any other shard may do it, too.
    pub is_first: bool,
}

/// An event of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromEngine {
    /// The shard is attached.
    Attached(Attached),
    /// The engine's answer to a transaction or a beat of the attachment `NodeId`.
    Verdict(NodeId, Verdict),
    /// A message of the inbox of the attachment `NodeId`, and its number among the messages of transactions in this inbox;
    /// 0 for a message outside of transactions.
    Message(NodeId, u64, Message),
    /// The state of the cluster.
    Cluster(Cluster),
    /// Whether the engine has no memory for texts; it executes transactions all the same.
    Full(bool),
}
