//! The settings of a server.

use std::net::SocketAddr;
use std::time::Duration;

use super::ice;
use super::tls::Identity;
use crate::hub::Limits;
use crate::protocol::Secret;

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For TLS, and for its HTTP request.
    pub handshake: Duration,
    /// To say who it is.
    pub hello: Duration,
    /// Between pings.
    pub ping: Duration,
    /// Without any sign of life, answers to pings counted.
    pub silence: Duration,
    /// For the body of an HTTP request to arrive.
    pub body: Duration,
    /// For the peer to read any of the data that waits to be sent.
    pub unread: Duration,
    /// For the messages of one peer to wait for a receiver that does not read: the sender is not read meanwhile, and
    /// refused afterwards.
    pub held: Duration,
    /// For the peer to close its side of a connection that the server has closed: its data is read and dropped
    /// meanwhile, since a reset could destroy the server's close frame.
    pub closing: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            handshake: seconds(10),
            hello: seconds(30),
            ping: seconds(25),
            silence: seconds(70),
            body: seconds(30),
            unread: seconds(20),
            held: seconds(10),
            closing: seconds(2),
        }
    }
}

/// How a server is set up.
#[derive(Debug)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its certificate; none for a server that speaks no TLS at all.
    pub identity: Option<Identity>,
    /// Plain connections of other machines are served (behind a proxy).
    pub plain: bool,
    /// Origins, besides its own, whose pages may connect; `*` for all.
    pub allowed_origins: Vec<String>,
    /// Host names that the server answers to, besides IP addresses, `localhost` and the names of its certificate.
    pub allowed_hosts: Vec<String>,
    /// The most connections of one owner of addresses (an IPv4 address, or an IPv6 /64 network); loopback is not
    /// limited.
    pub per_address: usize,
    /// The hub's bounds.
    pub limits: Limits,
    /// How patient it is.
    pub timeouts: Timeouts,
    /// The STUN and TURN servers that clients are told of.
    pub ice: ice::IceServers,
    /// The secret that authorizes a back end, of 32 bytes at least; none disables the API.
    pub api_secret: Option<Secret>,
    /// A back end may give them from other machines too.
    pub api_remote: bool,
    /// The key that signs tokens, of 32 bytes at least; if set, every client needs a token.
    pub token_secret: Option<Secret>,
}

impl Config {
    /// A server without TLS at that address, everything else by default.
    pub fn plain(listen: SocketAddr) -> Self {
        Self {
            listen,
            identity: None,
            plain: true,
            allowed_origins: vec![],
            allowed_hosts: vec![],
            per_address: 256,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            ice: ice::IceServers::default(),
            api_secret: None,
            api_remote: false,
            token_secret: None,
        }
    }
}
