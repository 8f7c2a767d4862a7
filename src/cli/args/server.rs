//! Options of the server: `serve`, and the server of `host`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

use super::paths::RelayArgs;
use crate::protocol::Secret;

/// `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The server's options.
    #[command(flatten)]
    pub server: ServerOptions,
    /// What its clients are told.
    #[command(flatten)]
    pub relays: RelayArgs,
    /// Let in only those with a token that is signed with this, of 32 bytes at least (JWT, HS256: exp, and what it
    /// grants: sub, rooms, description) [default: everybody]; other users of this machine see it, unless it stands in
    /// ROOMTONE_TOKEN_SECRET
    #[arg(long, value_name = "TEXT", env = "ROOMTONE_TOKEN_SECRET", hide_env_values = true)]
    pub token_secret: Option<Secret>,
}

/// Address and port on which a server listens by default.
pub(in crate::cli) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8443);

/// Reads `ADDR:PORT`; a missing part is taken from [`LISTEN`].
fn listen_address(text: &str) -> Result<SocketAddr, String> {
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
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerOptions {
    /// Where to listen; a port alone is one of all IPv4 addresses [default: 0.0.0.0:8443]
    #[arg(long, value_name = "ADDR:PORT", env = "ROOMTONE_LISTEN", value_parser = listen_address)]
    pub listen: Option<SocketAddr>,
    /// The certificate (PEM), read again when it changes [default: one is made and kept]
    #[arg(long, value_name = "FILE", env = "ROOMTONE_CERT", requires = "key")]
    pub cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", env = "ROOMTONE_KEY", requires = "cert")]
    pub key: Option<PathBuf>,
    /// No TLS at all: for loopback, or behind a proxy that does it
    #[arg(long, env = "ROOMTONE_PLAIN", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub plain: Option<bool>,
    /// A page's origin that may connect besides our own page's; '*' for all; may be repeated
    #[arg(long, value_name = "ORIGIN", env = "ROOMTONE_ALLOW_ORIGIN", value_delimiter = ',')]
    pub allow_origin: Option<Vec<String>>,
    /// A host name that the server answers to besides IP addresses, localhost and the names of its certificate, as
    /// behind a proxy; may be repeated
    #[arg(long, value_name = "NAME", env = "ROOMTONE_ALLOW_HOST", value_delimiter = ',')]
    pub allow_host: Option<Vec<String>>,
    /// The most connections of one IPv4 address or IPv6 network (/64), loopback not counted [default: 256]
    #[arg(long, value_name = "N", env = "ROOMTONE_MAX_PER_ADDRESS")]
    pub max_per_address: Option<usize>,
    /// The most rooms at a time [default: 10000]
    #[arg(long, value_name = "N", env = "ROOMTONE_MAX_ROOMS")]
    pub max_rooms: Option<usize>,
    /// What a back end says (Authorization: Bearer TEXT) to give orders under /api/, of 32 bytes at least [default:
    /// it cannot]; other users of this machine see it, unless it stands in ROOMTONE_API_SECRET
    #[arg(long, value_name = "TEXT", env = "ROOMTONE_API_SECRET", hide_env_values = true)]
    pub api_secret: Option<Secret>,
    /// Take such orders from other machines too
    #[arg(long, env = "ROOMTONE_API_REMOTE", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub api_remote: Option<bool>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_where_to_listen_may_be_missing() {
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
