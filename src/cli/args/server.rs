//! Options of the server: `serve`, and the server of `host`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use super::paths::RelayArgs;
use super::portal::{PortalOptions, RateOptions};
use super::token::time;
use crate::base::flag::Flag;
use crate::base::net::Network;
use crate::base::zone;
use crate::cli::CliError;
use crate::hub::Limits;
use crate::protocol::Secret;
use crate::server::AuthUrl;
use crate::server::ice::IceServers;
use crate::server::token::{KeySource, TokenConfig};
use crate::server::{ApiKeys, Config, Files, Identity};

/// `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The server's options.
    #[command(flatten)]
    pub server: ServerOptions,
    /// Check the server of --engine, print the findings, and end: with exit code 0 if servers can use it
    #[cfg(feature = "engine")]
    #[arg(long, action = ArgAction::SetTrue)]
    pub check_engine: Flag,
    /// The keys of tokens.
    #[command(flatten)]
    pub tokens: TokenOptions,
    /// STUN and TURN servers that are announced to clients.
    #[command(flatten)]
    pub relays: RelayArgs,
}

/// Keys of tokens: with any of them, every client needs a token.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Tokens")]
pub(crate) struct TokenOptions {
    /// Admit only clients whose token (JWT) is signed with this secret of at least 32 bytes (HS256) [default: admit
    /// everybody]; may be repeated, to replace a secret. On the command line other users of this machine can see it;
    /// ROOMTONE_TOKEN_SECRET hides it. `roomtone token` makes tokens
    #[arg(long, value_name = "TEXT")]
    pub token_secret: Vec<Secret>,
    /// Admit clients whose token is signed with a key of this JSON Web Key Set (RS256, ES256 or EdDSA), which is read
    /// again every 10 minutes and for unknown keys
    #[arg(long, value_name = "URL|FILE")]
    pub token_keys: Option<KeySource>,
    /// Audience (aud) that a token has to name; may be repeated. Required with --token-keys
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    pub token_audience: Vec<String>,
    /// Issuer (iss) that a token has to name [default: any]; may be repeated
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    pub token_issuer: Vec<String>,
    /// Address of a back end that is asked about each client's token, in place of keys: its answer is the claims. Requests are
    /// signed with the secret of webhooks
    #[arg(long, value_name = "URL")]
    pub auth_url: Option<AuthUrl>,
    /// Whether a token counts when a client connects, or a connection ends with its token unless the client renews it
    #[arg(long, value_name = "WHEN", default_value = "connect")]
    pub token_expiry: TokenExpiry,
}

/// The time at which the end of a token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum TokenExpiry {
    // Comments of documentation would lengthen the help.
    #[default]
    Connect,
    Enforce,
}

impl TokenOptions {
    fn config(&self) -> TokenConfig {
        TokenConfig {
            secrets: self.token_secret.clone(),
            keys: self.token_keys.clone(),
            audience: self.token_audience.clone(),
            issuer: self.token_issuer.clone(),
            enforce_expiry: self.token_expiry == TokenExpiry::Enforce,
        }
    }
}

/// Address and port on which a server listens by default.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8443);

/// Reads `ADDR:PORT`; a missing part is taken from [`LISTEN`].
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    if let Some(address) = zone::socket_address(text) {
        return address.map_err(|error| error.to_string());
    }
    let address = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let alone = || address.parse().map(|address| SocketAddr::new(address, LISTEN.port()));
    let port = || text.trim_start_matches(':').parse().map(|port| SocketAddr::new(LISTEN.ip(), port));
    let local = || match text.split_once(':') {
        Some(("localhost", port)) => port.parse().ok().map(|port| (Ipv4Addr::LOCALHOST, port).into()),
        _ => None,
    };
    let read = text.parse().ok().or_else(|| alone().ok()).or_else(|| port().ok()).or_else(local);
    read.ok_or_else(|| {
        "an address and a port are wanted, as in 0.0.0.0:8443, 127.0.0.1:8443, [::]:8443, or a port alone"
            .to_owned()
    })
}

/// Options of the server.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerOptions {
    /// Address and port to listen on; a port alone listens on all IPv4 addresses
    #[arg(long, value_name = "ADDR:PORT", default_value_t = LISTEN, value_parser = listen_address)]
    pub listen: SocketAddr,
    /// Certificate chain (PEM), read again when the file changes [default: a self-signed certificate, made once and
    /// kept]
    #[arg(long, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Private key (PEM) of the certificate
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Serve without TLS: on loopback, or behind a proxy that terminates TLS
    #[arg(long, action = ArgAction::SetTrue)]
    pub plain: Flag,
    /// Origin whose pages may connect, besides the server's own page; '*' allows all; may be repeated
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',')]
    pub allow_origin: Vec<String>,
    /// Host name that the server answers to, besides IP addresses, localhost and the names in its certificate, such
    /// as the public name behind a proxy; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub allow_host: Vec<String>,
    /// Most connections of one IPv4 address or IPv6 network (/64); loopback is not limited
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub max_per_address: usize,
    /// Address or network (CIDR) of a proxy in front of the server, which names its clients' addresses in
    /// X-Forwarded-For or by the PROXY protocol (v1 or v2); may be repeated. Limits then hold for each client
    #[arg(long, value_name = "ADDR|CIDR", value_delimiter = ',')]
    pub trust_proxy: Vec<Network>,
    /// Address and port of metrics for Prometheus (/metrics), which should not be public [default: none]
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Most rooms at a time
    #[arg(long, value_name = "N", default_value_t = Limits::default().rooms)]
    pub max_rooms: usize,
    /// Time to serve on after the request to stop, while /health/ready answers 503 and a load balancer sends new clients
    /// elsewhere: a number with s, m or h [default: stop at once]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub drain: Option<Duration>,
    /// Redis (7.0 or later) or Valkey server through which this server and others are one service:
    /// redis://HOST, or with all parts redis://USER:PASSWORD@HOST:PORT/DATABASE; rediss:// for TLS;
    /// redis+sentinel://HOST,HOST/NAME [default: this server is alone]. On the command line other users of this machine can
    /// see a password; ROOMTONE_ENGINE hides it
    #[cfg(feature = "engine")]
    #[arg(long, value_name = "URL")]
    pub engine: Option<Secret>,
    /// Beginning of the engine's keys: servers with the same one are one service
    #[cfg(feature = "engine")]
    #[arg(long, value_name = "TEXT", default_value = crate::engine::Engine::PREFIX)]
    pub engine_prefix: String,
    /// Secret of at least 32 bytes that a back end sends (Authorization: Bearer SECRET) to use the API under /api/
    /// [default: the API is off]. On the command line other users of this machine can see it; ROOMTONE_API_SECRET
    /// hides it
    #[arg(long, value_name = "TEXT")]
    pub api_secret: Option<Secret>,
    /// File of keys of back ends (TOML): the name, the SHA-256 and the scopes of each key
    #[arg(long, value_name = "FILE")]
    pub api_keys: Option<PathBuf>,
    /// Accept API requests from other machines too
    #[arg(long, action = ArgAction::SetTrue)]
    pub api_remote: Flag,
    /// Rates of clients.
    #[command(flatten)]
    pub rates: RateOptions,
    /// Options for the back end.
    #[command(flatten)]
    pub portal: PortalOptions,
}

impl ServerOptions {
    /// Returns the server's configuration. Reads the certificate, and makes one where none is named.
    pub(in crate::cli) fn config(&self, ice: IceServers, tokens: &TokenOptions) -> Result<Config, CliError> {
        Ok(Config {
            identity: self.identity()?,
            plain: self.plain.is_on(),
            allowed_origins: self.allow_origin.clone(),
            allowed_hosts: self.allow_host.clone(),
            per_address: self.max_per_address,
            trusted_proxies: self.trust_proxy.clone(),
            metrics: self.metrics,
            drain: self.drain.unwrap_or_default(),
            api_secret: self.api_secret.clone(),
            api_keys: self.keys_of_back_ends()?,
            api_remote: self.api_remote.is_on(),
            #[cfg(feature = "engine")]
            engine: self.engine()?,
            tokens: tokens.config(),
            auth_url: tokens.auth_url.clone(),
            webhooks: self.portal.webhooks()?,
            rates: self.rates.limits(),
            limits: Limits { rooms: self.max_rooms, ..Limits::default() },
            ice,
            ..Config::plain(self.listen)
        })
    }

    #[cfg(feature = "engine")]
    pub(in crate::cli) fn engine(&self) -> Result<Option<crate::engine::Engine>, CliError> {
        let Some(url) = &self.engine else { return Ok(None) };
        // Without the text, which may contain a password.
        let address = url.0.parse().map_err(|error| CliError::Usage(format!("--engine: {error}")))?;
        Ok(Some(crate::engine::Engine { address, prefix: self.engine_prefix.clone() }))
    }

    fn keys_of_back_ends(&self) -> Result<ApiKeys, CliError> {
        let Some(path) = &self.api_keys else { return Ok(ApiKeys::default()) };
        let wrong = |why: String| CliError::Usage(format!("the API keys in {}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        ApiKeys::parse(&text).map_err(|error| wrong(error.to_string()))
    }

    fn identity(&self) -> Result<Option<Identity>, CliError> {
        Ok(match (&self.cert, &self.key) {
            _ if self.plain.is_on() => None,
            (Some(cert), Some(key)) => Some(Identity::load(Files { cert: cert.clone(), key: key.clone() })?),
            (None, None) => {
                let folder = crate::paths::state_dir().ok_or_else(|| {
                    CliError::Usage("no HOME to keep a certificate in; give --cert and --key".into())
                })?;
                Some(Identity::own(&folder)?)
            }
            (Some(_), None) | (None, Some(_)) => {
                return Err(CliError::Usage("--cert and --key belong together".into()));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_or_port_may_be_missing() {
        for (text, address) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("[::]:8444", "[::]:8444"),
            ("9000", "0.0.0.0:9000"),
            (":9000", "0.0.0.0:9000"),
            ("0", "0.0.0.0:0"),
            ("127.0.0.1", "127.0.0.1:8443"),
            ("::1", "[::1]:8443"),
            ("[::1]", "[::1]:8443"),
            ("localhost:9000", "127.0.0.1:9000"),
        ] {
            assert_eq!(listen_address(text), Ok(address.parse().unwrap()), "{text}");
        }
        for wrong in ["here", "", ":", "70000", "example.org:1", "127.0.0.1:", "localhost", "a:b:c"] {
            assert!(listen_address(wrong).unwrap_err().contains("0.0.0.0:8443"), "{wrong}");
        }
    }
}
