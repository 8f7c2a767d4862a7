//! Options of the commands with a client: `host`, `call`, `answer`, `join`.

use std::path::PathBuf;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use clap::{ArgAction, Args};

use super::paths::RelayArgs;
use super::server::ServerOptions;
use crate::app::options::MediaOptions;
use crate::app::{self, Admission};
use crate::base::flag::Flag;
use crate::cli::CliError;
use crate::protocol::id::IdError;
use crate::protocol::ssp::Version;
use crate::protocol::{PeerId, RoomId, Secret};
use crate::signalling::{Proxies, Target};
use crate::tls::{ClientCertificate, Trust};

/// `host`.
#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// Id that the page calls
    #[arg(long, default_value = "host")]
    pub id: PeerId,
    /// Rule for incoming calls.
    #[command(flatten)]
    pub admission: AdmissionArgs,
    /// Host a room, for many at a time, in place of single calls
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "roomtone", value_parser = RoomId::from_server, conflicts_with_all = ["once", "ask", "allow"])]
    pub room: Option<RoomId>,
    /// Most peers to connect with in a room
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub max_peers: usize,
    /// The server's options.
    #[command(flatten)]
    pub server: ServerOptions,
    /// Media and paths of the host's client.
    #[command(flatten)]
    pub media: MediaOptions,
    /// STUN and TURN servers for the host's client and for browsers.
    #[command(flatten)]
    pub relays: RelayArgs,
}

/// `call`.
#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// Id of the peer to call
    #[arg(value_parser = PeerId::from_server)]
    pub peer: PeerId,
    /// Let the peer make the first offer
    #[arg(long, action = ArgAction::SetTrue)]
    pub request_offer: Flag,
    /// Longest time that the peer may take to answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub ring: u32,
    /// Options of every client.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `answer`.
#[derive(Debug, Args)]
pub(crate) struct AnswerArgs {
    /// Rule for incoming calls.
    #[command(flatten)]
    pub admission: AdmissionArgs,
    /// Options of every client.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Rule for incoming calls.
#[derive(Debug, Args)]
pub(crate) struct AdmissionArgs {
    /// End after the first call
    #[arg(long, action = ArgAction::SetTrue)]
    pub once: Flag,
    /// Ask before each call is answered: y or n in the terminal, or a JSON command
    #[arg(long, action = ArgAction::SetTrue)]
    pub ask: Flag,
    /// Answer calls of these peers only; the server does not verify who they are
    #[arg(long, value_name = "PEER", value_delimiter = ',', value_parser = PeerId::from_server)]
    pub allow: Option<Vec<PeerId>>,
}

impl AdmissionArgs {
    /// Returns the rule for incoming calls.
    pub(in crate::cli) fn admission(&self) -> Admission {
        Admission { allowed: self.allow.clone(), ask: self.ask.is_on() }
    }
}

/// `join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// Name of the room or pool
    #[arg(value_parser = RoomId::from_server)]
    pub room: RoomId,
    /// Most peers to connect with
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub max_peers: usize,
    /// Options of every client.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Options that `call`, `answer` and `join` share.
#[derive(Debug, Args)]
pub(crate) struct ClientArgs {
    /// The signalling server.
    #[command(flatten)]
    pub signalling: SignallingOptions,
    /// Media and paths.
    #[command(flatten)]
    pub media: MediaOptions,
    /// STUN and TURN servers.
    #[command(flatten)]
    pub relays: RelayArgs,
}

impl ClientArgs {
    /// Returns the options of media and paths, checked; the rule for the signalling server's certificate holds for TURN
    /// servers too.
    pub(in crate::cli) fn media(&self) -> Result<MediaOptions, CliError> {
        complete(&self.media, &self.relays, self.signalling.trust.trust())
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

/// Returns the options of media and paths with the STUN and TURN servers, checked.
pub(super) fn complete(
    media: &MediaOptions,
    relays: &RelayArgs,
    trust: Trust,
) -> Result<MediaOptions, CliError> {
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
    /// URL of the signalling server: wss://HOST:PORT (which HOST:PORT alone means, too), or ws://HOST:PORT
    /// without TLS; of a server of pools: ssp+wss://HOST/PATH, or ssp+https://HOST for socket.io
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8443")]
    pub server: String,
    /// Token that admits this client, issued by the server's back end. On the command line other users of this
    /// machine can see it; ROOMTONE_TOKEN hides it
    #[arg(long, value_name = "TEXT")]
    pub token: Option<Secret>,
    /// Version of the pool protocol (ssp) that the server speaks; auto detects it
    #[arg(long, value_name = "auto|1|2", default_value = "auto")]
    pub ssp_version: Version,
    /// Id to register with [default: the name (sub) in the token, or else a random number]
    #[arg(long)]
    pub id: Option<PeerId>,
    /// Trust in the server, and the client's certificate.
    #[command(flatten)]
    pub trust: TrustOptions,
}

/// Trust in a server, and the client's own certificate.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Signalling")]
pub(crate) struct TrustOptions {
    /// Trust this certificate (PEM) in addition to the system's root certificates
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Certificate (PEM) for servers that ask their clients for one
    #[arg(long, value_name = "FILE")]
    pub client_cert: Option<PathBuf>,
    /// Private key (PEM) of the client certificate
    #[arg(long, value_name = "FILE")]
    pub client_key: Option<PathBuf>,
    /// Trust every server, whatever its certificate: anybody on the path can listen and take the call over
    #[arg(long, action = ArgAction::SetTrue, conflicts_with = "ca")]
    pub insecure: Flag,
}

/// Returns the only id that a token permits, from its name (`sub`, RFC 7519, 4.1.2); none if the token names nobody. The
/// server verifies the token.
fn name_in_token(token: &str) -> Option<PeerId> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    PeerId::from_foreign(claims["sub"].as_str()?).ok()
}

impl SignallingOptions {
    /// Returns the server, with everything that a connection to it needs.
    pub(in crate::cli) fn target(&self) -> Result<Target, CliError> {
        let target = Target::parse(&self.server, self.trust.trust()).map_err(app::ClientError::from)?;
        self.trust.complete(target.ssp_version(self.ssp_version).token(self.token.clone()))
    }

    /// Returns the id to register with.
    pub(in crate::cli) fn id(&self) -> Result<PeerId, IdError> {
        let of_token = || self.token.as_ref().and_then(|token| name_in_token(&token.0));
        // A random id is short, because people read it aloud and type it. It grants nothing: everybody on the server may
        // see it.
        let random = || fastrand::u32(1000..10_000).to_string().parse();
        self.id.clone().or_else(of_token).map_or_else(random, Ok)
    }
}

impl TrustOptions {
    /// Returns the certificates that servers may have.
    pub(super) fn trust(&self) -> Trust {
        match (self.insecure.is_on(), &self.ca) {
            (true, _) => Trust::Anybody,
            (false, Some(ca)) => Trust::File(ca.clone()),
            (false, None) => Trust::System,
        }
    }

    /// Returns a server with the client's certificate, and the proxies of the environment.
    pub(super) fn complete(&self, target: Target) -> Result<Target, CliError> {
        let own = match (&self.client_cert, &self.client_key) {
            (Some(cert), Some(key)) => Some(ClientCertificate { cert: cert.clone(), key: key.clone() }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(CliError::Usage("--client-cert and --client-key belong together".to_owned()));
            }
        };
        let proxies = Proxies::read(|name| std::env::var(name).ok());
        Ok(target.client_certificate(own).proxies(proxies))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_token_is_its_name() {
        let token = |claims: &str| format!("e30.{}.e30", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let name = |claims: &str| name_in_token(&token(claims)).map(|id| id.to_string());
        assert_eq!(name(r#"{"sub":"ann","exp":1}"#).as_deref(), Some("ann"));
        assert_eq!(name(r#"{"sub":"Ann B."}"#).as_deref(), Some("Ann%20B."));
        for claims in ["{}", r#"{"sub":7}"#, r#"{"sub":""}"#, "[]", "nonsense"] {
            assert_eq!(name(claims), None, "{claims}");
        }
        assert_eq!((name_in_token(""), name_in_token("a.b"), name_in_token("a.%.c")), (None, None, None));
    }
}
