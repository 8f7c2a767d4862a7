//! The jobs of a shard.

use std::collections::VecDeque;
use std::time::Instant;

use serde_json::Value;

use super::data::{Frame, NodeId, Record, StayId, Tx};
use crate::hub::{Calls, ConnId, Reason};
use crate::protocol::hello::MediaKind;
use crate::protocol::{PeerId, RoomId};

/// A change that concerns other shards, or a question about them.
#[derive(Debug, Clone)]
pub(super) enum Job {
    /// Registers a name, and joins a room with it if there is one.
    Register {
        conn: ConnId,
        name: PeerId,
        room: Option<RoomId>,
    },
    Join {
        conn: ConnId,
        room: RoomId,
    },
    Call {
        conn: ConnId,
        to: PeerId,
    },
    /// Sends a text to a peer that is not known to be in the sender's room.
    Send {
        conn: ConnId,
        to: PeerId,
        body: String,
    },
    /// Lists the peers that can be called.
    List {
        conn: ConnId,
    },
    /// Removes a stay: for `reason`, or because its connection has ended, or because its attachment `of` has.
    End {
        name: PeerId,
        stay: StayId,
        of: Option<NodeId>,
        reason: Option<Reason>,
        /// The version and the record, as far as the shard knows.
        known: Option<(u64, Record)>,
    },
    Describe {
        name: PeerId,
        description: Value,
    },
    /// Records the permissions of an own connection that were renewed.
    Grant {
        conn: ConnId,
    },
    Mute {
        name: PeerId,
        kind: MediaKind,
    },
    Remove {
        name: PeerId,
    },
    CloseRoom {
        room: RoomId,
    },
    /// Records an own connection under the new attachment. A connection that the engine does not know is recorded again
    /// if `revive`, and closed otherwise.
    Assert {
        conn: ConnId,
        revive: bool,
    },
    /// Reads a room again.
    Reread {
        room: RoomId,
    },
    /// Ends an own call whose other side is gone.
    Verify {
        conn: ConnId,
    },
    /// Gives back the names of an attachment that has ended.
    Reap {
        node: NodeId,
    },
    /// Sends a message to another shard in a transaction, so that a broken connection does not lose it.
    Tell {
        node: NodeId,
        frame: Frame,
    },
    /// Reads where peers of other shards are.
    Look {
        names: Vec<PeerId>,
    },
    /// Removes a stay whose connection gave no sign of life in time, for those that claim its name.
    Replace {
        stay: StayId,
    },
}

impl Job {
    /// Returns the connection that waits for the job, if one does.
    pub(super) fn conn(&self) -> Option<ConnId> {
        match self {
            Self::Register { conn, .. }
            | Self::Join { conn, .. }
            | Self::Call { conn, .. }
            | Self::Send { conn, .. }
            | Self::List { conn } => Some(*conn),
            Self::End { .. }
            | Self::Describe { .. }
            | Self::Grant { .. }
            | Self::Mute { .. }
            | Self::Remove { .. }
            | Self::CloseRoom { .. }
            | Self::Assert { .. }
            | Self::Reread { .. }
            | Self::Verify { .. }
            | Self::Reap { .. }
            | Self::Tell { .. }
            | Self::Look { .. }
            | Self::Replace { .. } => None,
        }
    }
}

impl Job {
    /// Returns whether the job is an order of a back end or a moderator.
    pub(super) fn is_order(&self) -> bool {
        match self {
            Self::Describe { .. } | Self::Mute { .. } | Self::Remove { .. } | Self::CloseRoom { .. } => true,
            Self::End { reason, .. } => *reason == Some(Reason::RemovedByModerator),
            Self::Register { .. }
            | Self::Join { .. }
            | Self::Call { .. }
            | Self::Send { .. }
            | Self::List { .. }
            | Self::Grant { .. }
            | Self::Assert { .. }
            | Self::Reread { .. }
            | Self::Verify { .. }
            | Self::Reap { .. }
            | Self::Tell { .. }
            | Self::Look { .. }
            | Self::Replace { .. } => false,
        }
    }
}

/// The next step of a job.
#[derive(Debug)]
pub(super) enum Plan {
    /// A transaction, and the record that it writes or removes.
    Tx(Box<Tx>, Option<Box<Record>>),
    /// The job is completed, or has failed.
    Done,
    /// The job waits for another event.
    Waits,
}

/// The claims for the name of one stay.
#[derive(Debug)]
pub(super) struct Claimed {
    /// The time at which the holder counts as dead; none until the engine has the question, and after that time.
    pub(super) deadline: Option<Instant>,
    /// The time at which the claims are refused, since the engine is away.
    pub(super) end: Instant,
    pub(super) name: PeerId,
    /// The attachment that was asked for a sign of life.
    pub(super) node: NodeId,
    /// The registrations that wait.
    pub(super) waiting: VecDeque<Job>,
}

/// A peer that is registered at another shard.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) is_free: bool,
    pub(super) is_hidden: bool,
    pub(super) calls: Calls,
}

/// The time after attaching in which only assertions are made.
#[derive(Debug)]
pub(super) struct Settling {
    pub(super) until: Instant,
    /// The answers to beats that have to come, too.
    pub(super) beats: usize,
}

impl Settling {
    /// Returns the end of the time; none while it takes an answer to a beat.
    pub(super) fn due(&self) -> Option<Instant> {
        (self.beats == 0).then_some(self.until)
    }
}
