//! The signalling server: sockets, TLS, HTTP, the page and the bounds around the hub.
//!
//! A single port accepts TLS and plain connections; the first byte distinguishes them. Plain connections are for this machine,
//! or for a proxy in front ([`Config::plain`]).

mod api_keys;
mod auth;
mod blocks;
mod budget;
pub mod codec;
mod config;
mod connection;
mod control;
mod error;
mod events;
mod expiry;
mod guess_limit;
mod http;
pub mod ice;
mod listener;
mod live;
mod mailbox;
mod metrics;
#[cfg(feature = "engine")]
mod metrics_engine;
mod metrics_port;
mod names;
mod process;
mod proxy_header;
mod rate_limits;
mod rates;
mod request_head;
mod rooms_page;
mod sessions;
mod shared;
mod stream;
mod switchboard;
mod timeouts;
mod timers;
pub mod tls;
pub mod token;
mod trace;
mod trusted;
mod watches;
mod webhook;

pub use api_keys::{ApiKeyError, ApiKeys, Scope};
pub use config::Config;
pub use control::{Control, Counts};
pub use error::{SecretKind, ServerError};
pub use listener::Server;
pub use rate_limits::RateLimits;
pub use request_head::read_head;
pub use timeouts::Timeouts;
pub use tls::{Files, Identity};
pub use webhook::{AuthUrl, EventType, SigningSecret, WebhookConfig, WebhookError, WebhookUrl};
