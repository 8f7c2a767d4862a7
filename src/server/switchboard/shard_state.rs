//! The state that a shard adds to a switchboard.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use smol::channel::{Receiver, Sender, bounded};

use super::board::Board;
use crate::base::random::{NoRandomness, secret_id};
use crate::base::tasks::Tasks;
use crate::hub::shard::Shard;
use crate::hub::{ConnId, Limits};

/// The most pairs of peers whose texts wait for space in a mailbox.
const PAIRS: usize = 1 << 16;

/// The tasks and channels of a switchboard beside its shard.
#[derive(Debug)]
pub(super) struct Shards {
    pub(super) wake: (Sender<()>, Receiver<()>),
    /// The tasks of texts that wait for space in a mailbox.
    pub(super) waiting: Tasks,
    /// The longest time that they wait.
    pub(super) held: Duration,
}

/// The state that a shard adds to a switchboard.
#[derive(Debug)]
pub(super) struct ShardState {
    /// The texts behind those that wait for space, by sender and receiver.
    pub(super) behind: HashMap<(ConnId, ConnId), Vec<String>>,
    /// The time at which to read the presence of watched peers of other servers.
    pub(super) look_at: Instant,
    /// The time since which the engine is away; none while it is connected.
    pub(super) away: Option<Instant>,
}

impl Default for ShardState {
    fn default() -> Self {
        Self { behind: HashMap::new(), look_at: Instant::now(), away: Some(Instant::now()) }
    }
}

impl ShardState {
    /// Has the presence of watched peers read at once, since there are new ones.
    pub(super) fn look_now(&mut self) {
        self.look_at = Instant::now();
    }
}

impl Shards {
    /// Returns the peers of one server of several.
    pub(super) fn board(limits: Limits) -> Result<Board, NoRandomness> {
        // Other servers write to the inbox of this name: it has to be unique, but is no secret.
        Ok(Board::Shard(Box::new(Shard::new(limits, &secret_id()?[..16]))))
    }

    pub(super) fn new(held: Duration) -> Self {
        Self { wake: bounded(1), waiting: Tasks::new(PAIRS), held }
    }
}
