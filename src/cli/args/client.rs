//! Options of the commands with a client: `host`, `call`, `answer`, `join`.

use std::path::PathBuf;

use clap::Args;

use super::media::MediaArgs;
use super::paths::{PathArgs, RelayArgs};
use super::server::ServerOptions;
use crate::protocol::Secret;

/// `host`.
#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// The server's options.
    #[command(flatten)]
    pub server: ServerOptions,
    /// The id that the page calls
    #[arg(long, env = "ROOMTONE_ID", default_value = "host")]
    pub id: String,
    /// Which calls are taken.
    #[command(flatten)]
    pub admission: AdmissionArgs,
    /// Host a room instead, for many at a time
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "roomtone", env = "ROOMTONE_ROOM", conflicts_with_all = ["once", "ask", "allow"])]
    pub room: Option<String>,
    /// Of a room, the most peers to be connected with
    #[arg(long, value_name = "N", default_value_t = 16, env = "ROOMTONE_MAX_PEERS")]
    pub max_peers: usize,
    /// Media options.
    #[command(flatten)]
    pub media: MediaArgs,
    /// For its client, and for the browsers.
    #[command(flatten)]
    pub relays: RelayArgs,
    /// Of its client.
    #[command(flatten)]
    pub paths: PathArgs,
}

/// `call`.
#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// The id of the peer to call
    pub peer: String,
    /// Let the peer make the offer
    #[arg(long)]
    pub request_offer: bool,
    /// How many seconds the peer may take to answer
    #[arg(long, value_name = "SECONDS", default_value_t = 30, env = "ROOMTONE_RING", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub ring: u32,
    /// What all clients take.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `answer`.
#[derive(Debug, Args)]
pub(crate) struct AnswerArgs {
    /// Which calls are taken.
    #[command(flatten)]
    pub admission: AdmissionArgs,
    /// What all clients take.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Which calls are taken.
#[derive(Debug, Args)]
pub(crate) struct AdmissionArgs {
    /// End after the first call
    #[arg(long)]
    pub once: bool,
    /// Ask before each call is taken: y or n on the terminal, or a JSON line
    #[arg(long, env = "ROOMTONE_ASK")]
    pub ask: bool,
    /// Take calls of these peers only; the server does not prove who they are
    #[arg(long, value_name = "PEER", env = "ROOMTONE_ALLOW", value_delimiter = ',')]
    pub allow: Option<Vec<String>>,
}

/// `join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The room's name
    pub room: String,
    /// The most peers to be connected with
    #[arg(long, value_name = "N", default_value_t = 16, env = "ROOMTONE_MAX_PEERS")]
    pub max_peers: usize,
    /// What all clients take.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// What `call`, `answer` and `join` take alike.
#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// Where to register.
    #[command(flatten)]
    pub signalling: ClientOptions,
    /// Media options.
    #[command(flatten)]
    pub media: MediaArgs,
    /// Servers that help to find paths.
    #[command(flatten)]
    pub relays: RelayArgs,
    /// Which paths are tried.
    #[command(flatten)]
    pub paths: PathArgs,
}

/// Options of a client towards its server.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Signalling")]
pub(crate) struct ClientOptions {
    /// The signalling server: wss://HOST:PORT; for one of pools ssp+wss://HOST/PATH, or ssp+https://HOST by socket.io
    /// [default: ws://127.0.0.1:8443]
    #[arg(long, value_name = "URL", env = "ROOMTONE_SERVER")]
    pub server: Option<String>,
    /// What the server's back end gave us to come in with; other users of this machine see it, unless it stands in
    /// ROOMTONE_TOKEN
    #[arg(long, value_name = "TEXT", env = "ROOMTONE_TOKEN", hide_env_values = true)]
    pub token: Option<Secret>,
    /// The version of ssp that a server of pools speaks [default: auto, by what it says]
    #[arg(long, value_name = "auto|1|2", env = "ROOMTONE_SSP_VERSION")]
    pub ssp_version: Option<String>,
    /// The id to register with [default: a number by chance]
    #[arg(long, env = "ROOMTONE_ID")]
    pub id: Option<String>,
    /// Trust this certificate (PEM) besides the system's roots
    #[arg(long, value_name = "FILE", env = "ROOMTONE_CA")]
    pub ca: Option<PathBuf>,
    /// The certificate (PEM) to show to a server that asks its clients for one
    #[arg(long, value_name = "FILE", env = "ROOMTONE_CLIENT_CERT")]
    pub client_cert: Option<PathBuf>,
    /// The private key (PEM) of that certificate
    #[arg(long, value_name = "FILE", env = "ROOMTONE_CLIENT_KEY")]
    pub client_key: Option<PathBuf>,
    /// Trust any server, whatever its certificate
    #[arg(long, env = "ROOMTONE_INSECURE", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL", conflicts_with = "ca")]
    pub insecure: Option<bool>,
}
