//! The arguments. Every option of a command can also stand in the environment (`ROOMTONE_…`) and in the
//! configuration file under its long name; see `config.rs`.

#[cfg(feature = "media")]
pub(super) mod client;
pub(super) mod flags;
pub(super) mod paths;
pub(super) mod server;

use std::path::PathBuf;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

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
    #[arg(long, global = true)]
    pub json: bool,

    /// Say more on stderr; twice for all there is
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// The configuration file (TOML) [default: ~/.config/roomtone/config.toml, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Cli {
    /// Reads the arguments, completed by the configuration file. Invalid arguments and `--help` end the program here.
    pub(super) fn read() -> Result<Self, CliError> {
        let typed = |matches| Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        let matches = command(&[]).get_matches();
        let mut given = given_off(&matches);
        given.extend(config::read(typed(matches).config.as_deref(), &command(&[]))?);
        Ok(typed(command(&given).get_matches()))
    }
}

/// Returns the on/off options that the command line turns off.
fn given_off(matches: &ArgMatches) -> Vec<Given> {
    let off = flags::turned_off(matches).into_iter();
    off.map(|key| Given { key, texts: vec!["false".to_owned()], over_environment: true }).collect()
}

/// Returns the program's commands. Each option has its environment variable, and its first value in `given` as its
/// default.
pub(super) fn command(given: &[Given]) -> clap::Command {
    let complete = |option: clap::Arg| {
        let Some(long) = option.get_long().map(str::to_owned) else { return option };
        // The help text states once that every option has a variable, not at each option.
        let with_variable = |option: clap::Arg| option.env(variable(&long)).hide_env(true);
        match given.iter().find(|one| one.key == long) {
            Some(one) if one.over_environment => option.default_values(one.texts.clone()),
            Some(one) => with_variable(option).default_values(one.texts.clone()),
            None => with_variable(option),
        }
    };
    let each = |command: clap::Command| flags::add_negatives(command.mut_args(complete)).after_help(HINT);
    each(Cli::command()).mut_subcommands(each).after_help(EXAMPLES)
}

/// Returns the environment variable of an option, given by its long name: `ROOMTONE_MAX_ROOMS` for `max-rooms`.
fn variable(long: &str) -> String {
    format!("ROOMTONE_{}", long.to_uppercase().replace('-', "_"))
}

const HINT: &str = "\
Options can also stand in the environment (--bitrate as ROOMTONE_BITRATE) and in the configuration
file (bitrate = 800). Flags win over the environment, the environment over the file. --no-plain
turns --plain off.";

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
