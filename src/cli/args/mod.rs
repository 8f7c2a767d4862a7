//! The arguments. Every option of a command can also stand in the environment (`ROOMTONE_…`) and in the
//! configuration file under its long name; see `config.rs`.

#[cfg(feature = "media")]
pub(super) mod client;
#[cfg(feature = "media")]
pub(super) mod media;
pub(super) mod paths;
pub(super) mod server;

use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

#[cfg(feature = "media")]
use self::client::{AnswerArgs, CallArgs, HostArgs, JoinArgs};
use self::server::ServeArgs;
use super::CliError;
use super::config::{self, Given};

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
pub(crate) struct Cli {
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
pub(crate) enum Command {
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
