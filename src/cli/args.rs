//! The arguments. Every option of a command can also stand in the environment (`ROOMTONE_…`) and in the
//! configuration file under its long name; see `config.rs`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::CliError;
use super::config::{self, Given};
#[cfg(feature = "media")]
use super::network::PathArgs;
use super::network::RelayArgs;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::protocol::Secret;

const EXAMPLES: &str = "\
Examples:
  roomtone host                              host a call here; open the link it prints
  roomtone host --video 'v4l2src ! videoflip method=180'
  roomtone call 1234 --server wss://example.org:8443
  roomtone host --room                       the same for many: a room
  roomtone join attic --server wss://example.org:8443
  roomtone answer --id kiosk --record calls/ --server ws://127.0.0.1:8443
  roomtone doctor                            what is missing, and how to install it

Exit codes:
  0 ended normally                        5 peer not found, busy or not willing
  1 another error                         6 negotiation or media failed
  2 usage                                 7 plugin or device missing
  3 server not reachable                  8 somebody sits between us and the peer
  4 refused by the server               130 interrupted";

/// The native end of a WebRTC call: calls browsers from the command line, or hosts a call here.
#[derive(Debug, Parser)]
#[command(name = "roomtone", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    /// What to do.
    pub command: Command,

    /// One JSON object a line on stdout for everything that happens; commands as JSON lines on stdin
    #[arg(long, global = true, env = "ROOMTONE_JSON")]
    pub json: bool,

    /// Say more on stderr; twice for all there is
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// The configuration file (TOML) [default: ~/.config/roomtone/config.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE", env = "ROOMTONE_CONFIG")]
    pub config: Option<PathBuf>,
}

impl Cli {
    /// Reads the arguments, completed by the configuration file. Invalid arguments and `--help` end the program here.
    pub(super) fn read() -> Result<Self, CliError> {
        let cli = Self::parse_with(&[]);
        let given = config::read(cli.config.as_deref(), &Self::command())?;
        Ok(if given.is_empty() { cli } else { Self::parse_with(&given) })
    }

    /// Reads the arguments, with the values of the configuration file as defaults.
    fn parse_with(given: &[Given]) -> Self {
        let complete = |argument: clap::Arg| {
            // The help text states once that every option has a variable, not at each option.
            let argument = argument.hide_env(true);
            match given.iter().find(|one| argument.get_long() == Some(&one.key)) {
                Some(one) => argument.default_values(one.texts.clone()),
                None => argument,
            }
        };
        let each = |command: clap::Command| command.mut_args(complete).after_help(HINT);
        let mut command = each(Self::command()).after_help(EXAMPLES);
        let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
        for name in names {
            command = command.mut_subcommand(name, each);
        }
        Self::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
    }
}

const HINT: &str = "\
Options can also stand in the environment (--bitrate as ROOMTONE_BITRATE) and in the configuration
file (bitrate = 800). Flags win over the environment, the environment over the file.";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Host a call on this machine: server, page and a client that takes calls
    #[cfg(feature = "media")]
    Host(HostArgs),
    /// The signalling server and the page alone
    Serve(ServeArgs),
    /// Call a peer
    #[cfg(feature = "media")]
    Call(CallArgs),
    /// Register and take calls, one after another
    #[cfg(feature = "media")]
    Answer(AnswerArgs),
    /// Join a room, or a pool: a call of many
    #[cfg(feature = "media")]
    Join(JoinArgs),
    /// List cameras, microphones and the names of sources and outputs
    #[cfg(feature = "media")]
    Devices,
    /// List codecs: what encodes and decodes them here
    #[cfg(feature = "media")]
    Codecs,
    /// Check what is installed, and say how to install what is missing
    #[cfg(feature = "media")]
    Doctor,
}

/// `host`.
#[derive(Debug, Args)]
pub struct HostArgs {
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
    #[cfg(feature = "media")]
    #[command(flatten)]
    pub media: MediaArgs,
    /// For its client, and for the browsers.
    #[command(flatten)]
    pub relays: RelayArgs,
    /// Of its client.
    #[cfg(feature = "media")]
    #[command(flatten)]
    pub paths: PathArgs,
}

/// `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
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

/// `call`.
#[derive(Debug, Args)]
pub struct CallArgs {
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
pub struct AnswerArgs {
    /// Which calls are taken.
    #[command(flatten)]
    pub admission: AdmissionArgs,
    /// What all clients take.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Which calls are taken.
#[derive(Debug, Args)]
pub struct AdmissionArgs {
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
pub struct JoinArgs {
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
pub struct ClientArgs {
    /// Where to register.
    #[command(flatten)]
    pub signalling: ClientOptions,
    /// Media options.
    #[cfg(feature = "media")]
    #[command(flatten)]
    pub media: MediaArgs,
    /// Servers that help to find paths.
    #[command(flatten)]
    pub relays: RelayArgs,
    /// Which paths are tried.
    #[cfg(feature = "media")]
    #[command(flatten)]
    pub paths: PathArgs,
}

/// Address and port on which a server listens by default.
pub(super) const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8443);

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
pub struct ServerOptions {
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

/// Options of a client towards its server.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Signalling")]
pub struct ClientOptions {
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

/// Options of media.
#[cfg(feature = "media")]
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Media")]
pub struct MediaArgs {
    /// What to send: a source's name, a pipeline in gst-launch words, or none
    /// [default: camera; test where there is none]
    #[arg(long, value_name = "NAME|PIPELINE|none", env = "ROOMTONE_VIDEO")]
    pub video: Option<String>,
    /// The same for sound [default: microphone; tone where there is none]
    #[arg(long, value_name = "NAME|PIPELINE|none", env = "ROOMTONE_AUDIO")]
    pub audio: Option<String>,
    /// The source's device, file or address (`roomtone devices` lists devices)
    #[arg(long, value_name = "ID", env = "ROOMTONE_DEVICE")]
    pub device: Option<String>,
    /// The same for sound
    #[arg(long, value_name = "ID", env = "ROOMTONE_AUDIO_DEVICE")]
    pub audio_device: Option<String>,
    /// The codecs to prefer, the best first: vp8, h264, vp9, av1, h265; those that are not named come after
    /// them, and where the peer lacks one the next is taken [default: vp8]
    #[arg(long, value_name = "CODEC,...", env = "ROOMTONE_VIDEO_CODEC")]
    pub video_codec: Option<String>,
    /// The same for sound: opus, pcmu, pcma [default: opus]
    #[arg(long, value_name = "CODEC,...", env = "ROOMTONE_AUDIO_CODEC")]
    pub audio_codec: Option<String>,
    /// The element to encode with, where it encodes what is agreed (`roomtone codecs` lists them)
    /// [default: hardware where there is some, else software]
    #[arg(long, value_name = "ELEMENT", env = "ROOMTONE_ENCODER")]
    pub encoder: Option<String>,
    /// The picture's size [default: the source's, at most 1280x720]
    #[arg(long, value_name = "WxH", env = "ROOMTONE_SIZE")]
    pub size: Option<String>,
    /// Frames a second [default: 30]
    #[arg(long, value_name = "N", env = "ROOMTONE_FPS", value_parser = clap::value_parser!(u32).range(1..=120))]
    pub fps: Option<u32>,
    /// The pictures' bitrate to begin with, in kbit/s; it follows the network from there [default: 1500, or
    /// the bounds below]
    #[arg(long, value_name = "KBPS", env = "ROOMTONE_BITRATE", value_parser = clap::value_parser!(u32).range(30..=100_000))]
    pub bitrate: Option<u32>,
    /// Never less, in kbit/s, however bad the network is [default: 50]
    #[arg(long, value_name = "KBPS", env = "ROOMTONE_MIN_BITRATE", value_parser = clap::value_parser!(u32).range(30..=100_000))]
    pub min_bitrate: Option<u32>,
    /// Never more, in kbit/s; the same as --min-bitrate: always this one [default: as --bitrate]
    #[arg(long, value_name = "KBPS", env = "ROOMTONE_MAX_BITRATE", value_parser = clap::value_parser!(u32).range(30..=100_000))]
    pub max_bitrate: Option<u32>,
    /// Send pictures with error correction (ULPFEC), and take it: for paths on which asking again takes too long
    #[arg(long, env = "ROOMTONE_FEC", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub fec: Option<bool>,
    /// Send what the microphone hears as it is. Else the echo of what the speaker plays is taken out of it, and noise, and
    /// it is brought to one level
    #[arg(long, env = "ROOMTONE_NO_ECHO_CANCEL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub no_echo_cancel: Option<bool>,
    /// Where received pictures go [default: window; none without a display]
    #[arg(long, value_name = "window|none|PIPELINE", env = "ROOMTONE_SHOW")]
    pub show: Option<String>,
    /// Where received sound goes [default: speaker; none without a sound card]
    #[arg(long, value_name = "speaker|none|PIPELINE", env = "ROOMTONE_PLAY")]
    pub play: Option<String>,
    /// Record what each peer sends into a Matroska file in this folder, without encoding it again
    #[arg(long, value_name = "DIR", env = "ROOMTONE_RECORD")]
    pub record: Option<PathBuf>,
    /// Record all together into this Matroska file: the grid of a room, and the mixed sound
    #[arg(long, value_name = "FILE", env = "ROOMTONE_RECORD_MIX")]
    pub record_mix: Option<PathBuf>,
    /// Open a data channel and join it to stdin and stdout, a file or a TCP port of this machine; may be
    /// given more than once
    ///
    /// A label, and after it options, each behind a colon: ordered, unordered, retransmits=N (how often a
    /// lost message is sent again), lines (each line is a text message), and one of tcp=PORT (connect to
    /// it), listen=PORT (join who connects to it), send=FILE, save=FILE. Without one of these it is stdin
    /// and stdout, and commands are not read from stdin. A channel ends with its file, connection or stdin,
    /// and when the peer closes it.
    #[arg(long, value_name = "LABEL[:OPTION]...")]
    pub channel: Option<Vec<String>>,
    /// Show and play nothing
    #[arg(long, env = "ROOMTONE_HEADLESS", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub headless: Option<bool>,
    /// Take nothing of the peer
    #[arg(long, env = "ROOMTONE_SEND_ONLY", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL", conflicts_with = "receive_only")]
    pub send_only: Option<bool>,
    /// Send nothing
    #[arg(long, env = "ROOMTONE_RECEIVE_ONLY", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub receive_only: Option<bool>,
    /// How long what comes waits to be put in order: as the network wants it, or so many ms [default: auto]
    #[arg(long, value_name = "auto|MS", env = "ROOMTONE_LATENCY")]
    pub latency: Option<String>,
    /// How many seconds nothing may come of a peer until a new path to it is looked for [default: 4]
    #[arg(long, value_name = "SECONDS", env = "ROOMTONE_RECONNECT_AFTER", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub reconnect_after: Option<u32>,
    /// How many seconds a path is looked for until the call ends [default: 30]
    #[arg(long, value_name = "SECONDS", env = "ROOMTONE_GIVE_UP_AFTER", value_parser = clap::value_parser!(u32).range(1..=86400))]
    pub give_up_after: Option<u32>,
    /// Tell the counters of the call every so many seconds
    #[arg(long, value_name = "SECONDS", env = "ROOMTONE_STATS")]
    pub stats: Option<f64>,
    /// Tell each step on the way to a call, with the time since the start
    #[arg(long, env = "ROOMTONE_TRACE_SETUP", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, value_name = "BOOL")]
    pub trace_setup: Option<bool>,
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
