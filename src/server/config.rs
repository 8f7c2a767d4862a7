//! The settings of a server.

use std::net::SocketAddr;
use std::time::Duration;

use super::api_keys::ApiKeys;
use super::ice;
use super::rate_limits::RateLimits;
use super::timeouts::Timeouts;
use super::tls::Identity;
use super::token::TokenConfig;
use super::webhook::{AuthUrl, WebhookConfig};
use crate::base::net::Network;
use crate::hub::Limits;
use crate::protocol::Secret;

/// The settings of a server.
#[derive(Debug)]
pub struct Config {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The certificate; none for a server without TLS.
    pub identity: Option<Identity>,
    /// The address of the metrics for Prometheus; none for no metrics.
    pub metrics: Option<SocketAddr>,
    /// Whether plain connections of other machines are served (behind a proxy).
    pub plain: bool,
    /// Origins, besides its own, whose pages may connect; `*` for all.
    pub allowed_origins: Vec<String>,
    /// Host names that the server answers to, besides IP addresses, `localhost` and the names of its certificate.
    pub allowed_hosts: Vec<String>,
    /// The most connections of one owner of addresses (an IPv4 address, or an IPv6 /64 network); loopback is not
    /// limited.
    pub per_address: usize,
    /// The proxies that name the addresses of their clients, by the PROXY protocol or `X-Forwarded-For`.
    pub trusted_proxies: Vec<Network>,
    /// The hub's bounds.
    pub limits: Limits,
    /// The rates that clients may not exceed.
    pub rates: RateLimits,
    /// The time between the request to stop and the end of connections, in which the server serves on and reports that it
    /// is not ready: a load balancer then sends new clients to other servers.
    pub drain: Duration,
    /// The time limits for clients.
    pub timeouts: Timeouts,
    /// The STUN and TURN servers that clients receive.
    pub ice: ice::IceServers,
    /// The secret that authorizes a back end, of 32 bytes at least; none disables the API.
    pub api_secret: Option<Secret>,
    /// The keys of back ends, besides the secret.
    pub api_keys: ApiKeys,
    /// Whether a back end may use the API from other machines.
    pub api_remote: bool,
    /// The engine through which this server and others are one; none for a server alone.
    #[cfg(feature = "engine")]
    pub engine: Option<crate::engine::Engine>,
    /// The keys that sign tokens; if there are any, every client needs a token.
    pub tokens: TokenConfig,
    /// The address of a back end that decides about each client's token, in place of keys; its questions are signed with the
    /// secrets of the webhooks.
    pub auth_url: Option<AuthUrl>,
    /// The addresses of back ends that get the server's events.
    pub webhooks: WebhookConfig,
}

impl Config {
    /// Returns the settings of a server without TLS at this address, with defaults for everything else.
    pub fn plain(listen: SocketAddr) -> Self {
        Self {
            listen,
            identity: None,
            metrics: None,
            plain: true,
            allowed_origins: vec![],
            allowed_hosts: vec![],
            per_address: 256,
            trusted_proxies: vec![],
            limits: Limits::default(),
            rates: RateLimits::default(),
            drain: Duration::ZERO,
            timeouts: Timeouts::default(),
            ice: ice::IceServers::default(),
            api_secret: None,
            api_keys: ApiKeys::default(),
            api_remote: false,
            #[cfg(feature = "engine")]
            engine: None,
            tokens: TokenConfig::default(),
            auth_url: None,
            webhooks: WebhookConfig::default(),
        }
    }
}
