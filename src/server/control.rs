//! The control of a running server by its program.

use std::net::SocketAddr;
use std::sync::Arc;

use super::config::Config;
use super::error::ServerError;
use super::live::Live;
use super::shared::Shared;

/// Reloads a server, and reports on it.
#[derive(Debug, Clone)]
pub struct Control {
    shared: Arc<Shared>,
    /// The address of the settings, in which the port may be 0.
    listen: SocketAddr,
}

/// Numbers of a running server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Open connections of clients.
    pub connections: usize,
    /// Registered peers.
    pub peers: usize,
    /// Rooms.
    pub rooms: usize,
}

impl Control {
    pub(super) fn new(shared: Arc<Shared>, listen: SocketAddr) -> Self {
        Self { shared, listen }
    }

    /// Replaces the certificate, the secrets and keys, the allowed names and origins, the trusted proxies, the limit for each
    /// address, the webhooks, and the STUN and TURN servers. Clients that are connected stay.
    ///
    /// # Errors
    ///
    /// [`ServerError`] if a setting cannot be used, or the address to listen on or `plain` differ: nothing has changed then.
    pub async fn reload(&self, config: Config) -> Result<(), ServerError> {
        if config.listen != self.listen || config.plain != self.shared.plain {
            return Err(ServerError::NeedsRestart);
        }
        self.shared.replace(Live::new(config, true).await?);
        Ok(())
    }

    /// Returns the numbers of connections, peers and rooms.
    pub fn counts(&self) -> Counts {
        let (connections, peers, rooms) = self.shared.board.counts();
        Counts { connections, peers, rooms }
    }
}
