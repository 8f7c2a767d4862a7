//! The peers of a server: a hub of its own, or a shard that shares names, rooms and calls with other servers.

use std::time::Instant;

use crate::hub::{ConnId, Hub, Input, Output};

#[cfg(feature = "engine")]
use crate::hub::shard::Shard;
#[cfg(feature = "engine")]
use crate::protocol::PeerId;

/// See the module.
#[allow(clippy::large_enum_variant, reason = "a server has one")]
#[derive(Debug)]
pub(super) enum Board {
    Alone(Hub),
    #[cfg(feature = "engine")]
    Shard(Box<Shard>),
}

impl Default for Board {
    fn default() -> Self {
        Self::Alone(Hub::default())
    }
}

impl Board {
    /// Returns the hub. A shard's hub has copies of the peers of other servers that are in its rooms and calls.
    pub(super) fn hub(&self) -> &Hub {
        match self {
            Self::Alone(hub) => hub,
            #[cfg(feature = "engine")]
            Self::Shard(shard) => shard.hub(),
        }
    }

    /// Returns whether the server is not one of several.
    pub(super) fn is_alone(&self) -> bool {
        matches!(self, Self::Alone(_))
    }

    /// Returns whether there is space for an order of a back end.
    pub(super) fn takes_orders(&self) -> bool {
        match self {
            Self::Alone(_) => true,
            #[cfg(feature = "engine")]
            Self::Shard(shard) => shard.takes_orders(),
        }
    }

    /// Returns whether a peer of another server is free, as a connection may see it; none if there is no such peer.
    #[cfg(feature = "engine")]
    pub(super) fn sees(&self, conn: ConnId, peer: &PeerId) -> Option<bool> {
        match self {
            Self::Alone(_) => None,
            Self::Shard(shard) => shard.sees(conn, peer),
        }
    }

    pub(super) fn handle_input(&mut self, now: Instant, input: Input) {
        match self {
            Self::Alone(hub) => hub.handle_input(now, input),
            #[cfg(feature = "engine")]
            Self::Shard(shard) => shard.handle_input(now, input),
        }
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        match self {
            Self::Alone(hub) => hub.poll_output(),
            #[cfg(feature = "engine")]
            Self::Shard(shard) => shard.poll_output(),
        }
    }

    /// Returns the connections whose time to answer a probe is over.
    pub(super) fn overdue(&self, now: Instant) -> Vec<ConnId> {
        match self {
            Self::Alone(hub) => hub.overdue(now),
            #[cfg(feature = "engine")]
            Self::Shard(shard) => shard.overdue(now),
        }
    }

    pub(super) fn is_probed(&self, conn: ConnId) -> bool {
        match self {
            Self::Alone(hub) => hub.is_probed(conn),
            #[cfg(feature = "engine")]
            Self::Shard(shard) => shard.is_probed(conn),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Alone(hub) => hub.handle_timeout(now),
            #[cfg(feature = "engine")]
            Self::Shard(shard) => shard.handle_timeout(now),
        }
    }

    /// Returns whether a request of the connection waits for the engine: the connection is not read meanwhile.
    #[cfg(feature = "engine")]
    pub(super) fn is_asking(&self, conn: ConnId) -> bool {
        match self {
            Self::Alone(_) => false,
            Self::Shard(shard) => shard.is_asking(conn),
        }
    }

    /// Returns the numbers of own connections, and of known peers and rooms.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        match self {
            Self::Alone(hub) => hub.counts(),
            #[cfg(feature = "engine")]
            Self::Shard(shard) => shard.counts(),
        }
    }

    /// Returns whether everything that was asked of an engine has an answer, as far as the engine is there.
    pub(super) fn is_settled(&self) -> bool {
        match self {
            Self::Alone(_) => true,
            #[cfg(feature = "engine")]
            Self::Shard(shard) => shard.is_settled(),
        }
    }
}
