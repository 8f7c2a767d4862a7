//! Options of the commands with a client: `host`, `call`, `answer`, `join`.

use std::path::PathBuf;

use clap::Args;

use super::paths::RelayArgs;
use super::server::ServerOptions;
use crate::app::options::MediaOptions;
use crate::app::{self, Admission};
use crate::cli::CliError;
use crate::protocol::id::IdError;
use crate::protocol::ssp::Version;
use crate::protocol::{PeerId, RoomId, Secret};
use crate::signalling::{Proxies, Target};
use crate::tls::{ClientCertificate, Trust};

/// `host`.
#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// The id that the page calls
    #[arg(long, default_value = "host")]
    pub id: PeerId,
    /// Which calls are taken.
    #[command(flatten)]
    pub admission: AdmissionArgs,
    /// Host a room instead, for many at a time
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "roomtone", value_parser = RoomId::from_server, conflicts_with_all = ["once", "ask", "allow"])]
    pub room: Option<RoomId>,
    /// Of a room, the most peers to be connected with
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub max_peers: usize,
    /// The server's options.
    #[command(flatten)]
    pub server: ServerOptions,
    /// Media of its client, and which paths are tried.
    #[command(flatten)]
    pub media: MediaOptions,
    /// Servers that help its client and the browsers to find paths.
    #[command(flatten)]
    pub relays: RelayArgs,
}

/// `call`.
#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// The id of the peer to call
    #[arg(value_parser = PeerId::from_server)]
    pub peer: PeerId,
    /// Let the peer make the offer
    #[arg(long)]
    pub request_offer: bool,
    /// How many seconds the peer may take to answer
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
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
    #[arg(long)]
    pub ask: bool,
    /// Take calls of these peers only; the server does not prove who they are
    #[arg(long, value_name = "PEER", value_delimiter = ',', value_parser = PeerId::from_server)]
    pub allow: Option<Vec<PeerId>>,
}

impl AdmissionArgs {
    /// Returns the rule for incoming calls.
    pub(in crate::cli) fn admission(&self) -> Admission {
        Admission { allowed: self.allow.clone(), ask: self.ask }
    }
}

/// `join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The room's name
    #[arg(value_parser = RoomId::from_server)]
    pub room: RoomId,
    /// The most peers to be connected with
    #[arg(long, value_name = "N", default_value_t = 16)]
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
    pub signalling: SignallingOptions,
    /// Media, and which paths are tried.
    #[command(flatten)]
    pub media: MediaOptions,
    /// Servers that help to find paths.
    #[command(flatten)]
    pub relays: RelayArgs,
}

impl ClientArgs {
    /// Returns the options of media and paths, checked; the rule for the signalling server's certificate holds for TURN
    /// servers too.
    pub(in crate::cli) fn media(&self) -> Result<MediaOptions, CliError> {
        complete(&self.media, &self.relays, self.signalling.trust())
    }
}

impl HostArgs {
    /// Returns the options of media and paths, checked. A room is shown in one window.
    pub(in crate::cli) fn media(&self) -> Result<MediaOptions, CliError> {
        let mut options = complete(&self.media, &self.relays, Trust::System)?;
        options.receive.together = self.room.is_some();
        Ok(options)
    }
}

fn complete(media: &MediaOptions, relays: &RelayArgs, trust: Trust) -> Result<MediaOptions, CliError> {
    media.check()?;
    let mut options = media.clone();
    options.paths.servers = relays.servers()?;
    options.paths.trust = trust;
    Ok(options)
}

/// Options of a client towards its server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Signalling")]
pub(crate) struct SignallingOptions {
    /// The signalling server: wss://HOST:PORT; for one of pools ssp+wss://HOST/PATH, or ssp+https://HOST by socket.io
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8443")]
    pub server: String,
    /// What the server's back end gave us to come in with; other users of this machine see it, unless it stands in
    /// ROOMTONE_TOKEN
    #[arg(long, value_name = "TEXT")]
    pub token: Option<Secret>,
    /// The version of ssp that a server of pools speaks; auto: by what it says
    #[arg(long, value_name = "auto|1|2", default_value = "auto")]
    pub ssp_version: Version,
    /// The id to register with [default: a number by chance]
    #[arg(long)]
    pub id: Option<PeerId>,
    /// Trust this certificate (PEM) besides the system's roots
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The certificate (PEM) to show to a server that asks its clients for one
    #[arg(long, value_name = "FILE")]
    pub client_cert: Option<PathBuf>,
    /// The private key (PEM) of that certificate
    #[arg(long, value_name = "FILE")]
    pub client_key: Option<PathBuf>,
    /// Trust any server, whatever its certificate
    #[arg(long, conflicts_with = "ca")]
    pub insecure: bool,
}

impl SignallingOptions {
    /// Returns the server, with everything that a connection to it needs.
    pub(in crate::cli) fn target(&self) -> Result<Target, CliError> {
        let own = match (&self.client_cert, &self.client_key) {
            (Some(cert), Some(key)) => Some(ClientCertificate { cert: cert.clone(), key: key.clone() }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(CliError::Usage("--client-cert and --client-key belong together".to_owned()));
            }
        };
        let proxies = Proxies::read(|name| std::env::var(name).ok());
        let target = Target::parse(&self.server, self.trust()).map_err(app::ClientError::from)?;
        let target = target.ssp_version(self.ssp_version).token(self.token.clone());
        Ok(target.client_certificate(own).proxies(proxies))
    }

    /// Returns the id to register with.
    pub(in crate::cli) fn id(&self) -> Result<PeerId, IdError> {
        // The default is short, because people read it aloud and type it. It grants nothing: everybody on the server
        // may see it.
        self.id.clone().map_or_else(|| fastrand::u32(1000..10_000).to_string().parse(), Ok)
    }

    fn trust(&self) -> Trust {
        match (self.insecure, &self.ca) {
            (true, _) => Trust::Anybody,
            (false, Some(ca)) => Trust::File(ca.clone()),
            (false, None) => Trust::System,
        }
    }
}
