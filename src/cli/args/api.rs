//! Options of the commands that use the API of a server: `rooms`, `peers`, `kick`, `close`, `nodes` and
//! `drain`.

use std::time::Duration;

use clap::{ArgAction, Args};
use url::Url;

use super::token::time;
use crate::base::flag::Flag;
use crate::protocol::Secret;

/// The server, and the key for its API.
#[derive(Debug, Args)]
pub(crate) struct ApiOptions {
    /// Address of the server; ws: and wss: stand for http: and https:
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8443", value_parser = server)]
    pub server: Url,
    /// Key for the API of the server. On the command line other users of this machine can see it; ROOMTONE_API_KEY hides
    /// it
    #[arg(long, value_name = "TEXT")]
    pub api_key: Option<Secret>,
}

/// `rooms`.
#[derive(Debug, Args)]
pub(crate) struct RoomsArgs {
    /// Room whose members are listed [default: list the rooms]
    pub room: Option<String>,
    /// The server.
    #[command(flatten)]
    pub api: ApiOptions,
}

/// `peers`.
#[derive(Debug, Args)]
pub(crate) struct PeersArgs {
    /// Ids to look up, up to 100 [default: list all registered peers]
    pub ids: Vec<String>,
    /// The server.
    #[command(flatten)]
    pub api: ApiOptions,
}

/// `kick`.
#[derive(Debug, Args)]
pub(crate) struct KickArgs {
    /// Id of the peer
    pub peer: String,
    /// Time in which nobody can register the id: a number with s, m, h or d [default: the peer can come back]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub block_for: Option<Duration>,
    /// The server.
    #[command(flatten)]
    pub api: ApiOptions,
}

/// `close`.
#[derive(Debug, Args)]
pub(crate) struct CloseArgs {
    /// Name of the room
    pub room: String,
    /// The server.
    #[command(flatten)]
    pub api: ApiOptions,
}

/// `nodes`.
#[derive(Debug, Args)]
pub(crate) struct NodesArgs {
    /// The server.
    #[command(flatten)]
    pub api: ApiOptions,
}

/// `drain`.
#[derive(Debug, Args)]
pub(crate) struct DrainArgs {
    /// Let new clients come again
    #[arg(long, action = ArgAction::SetTrue)]
    pub undo: Flag,
    /// The server.
    #[command(flatten)]
    pub api: ApiOptions,
}

/// Reads the address of a server.
fn server(text: &str) -> Result<Url, String> {
    let text = match text.split_once("://") {
        Some(("ws", rest)) => format!("http://{rest}"),
        Some(("wss", rest)) => format!("https://{rest}"),
        _ => text.to_owned(),
    };
    let url = Url::parse(&text).map_err(|error| error.to_string())?;
    match (url.scheme(), url.has_host()) {
        ("http" | "https", true) => Ok(url),
        _ => Err("an address such as https://call.example.org is wanted".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_http_or_a_websockets() {
        for (text, url) in [
            ("http://127.0.0.1:8443", "http://127.0.0.1:8443/"),
            ("wss://example.org/call/", "https://example.org/call/"),
            ("ws://[::1]:1", "http://[::1]:1/"),
        ] {
            assert_eq!(server(text).unwrap().as_str(), url);
        }
        for wrong in ["", "example.org", "ftp://example.org", "ssp+wss://example.org", "https://"] {
            assert!(server(wrong).is_err(), "{wrong}");
        }
    }
}
