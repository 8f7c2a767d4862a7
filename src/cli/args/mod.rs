//! The arguments. Every option of a command can also stand in the environment (`ROOMTONE_…`) and in the
//! configuration file under its long name; see `config.rs`.

pub(super) mod api;
#[cfg(feature = "media")]
pub(super) mod client;
pub(super) mod flags;
pub(super) mod paths;
pub(super) mod portal;
#[cfg(feature = "media")]
pub(super) mod publish;
pub(super) mod server;
pub(super) mod token;

use std::path::PathBuf;

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use self::api::{CloseArgs, DrainArgs, KickArgs, NodesArgs, PeersArgs, RoomsArgs};
#[cfg(feature = "media")]
use self::client::{AnswerArgs, CallArgs, HostArgs, JoinArgs};
#[cfg(feature = "media")]
use self::publish::{PublishArgs, WatchArgs};
use self::server::ServeArgs;
use self::token::TokenArgs;
use super::CliError;
use super::config::{self, Given};
use crate::base::flag::Flag;

const EXAMPLES: &str = "\
Examples:
  roomtone host                                     host a call; open the link that it prints
  roomtone call 1234 --server wss://example.org:8443
  roomtone join attic --server wss://example.org:8443
  roomtone doctor                                   what is missing, and how to install it

Exit codes:
  0 ended normally                        5 peer not found, busy or not willing
  1 another error                         6 negotiation or media failed
  2 usage                                 7 plugin or device missing
  3 server not reachable                  8 the peer's certificate is not the announced one
  4 refused by the server               130 interrupted";

#[cfg(feature = "media")]
const HOST: &str = "\
Examples:
  roomtone host                                     a call for one at a time, in the browser
  roomtone host --room                              a room for many at a time
  roomtone host --video 'v4l2src ! videoflip method=180'
  roomtone host --headless --record calls/          record each call, and show nothing";

const SERVE: &str = "\
Examples:
  roomtone serve                                    port 8443, with a self-signed certificate
  roomtone serve --cert fullchain.pem --key privkey.pem
  roomtone serve --plain --listen 127.0.0.1:8080 --allow-host call.example.org      behind a proxy";

const TOKEN: &str = "\
Examples:
  export ROOMTONE_TOKEN_SECRET=$(openssl rand -hex 32)     the same for the server
  roomtone token --id kiosk                         an hour, one id, calls and all rooms
  roomtone token --room attic --room-prefix team- --valid 30d";

#[cfg(feature = "media")]
const CALL: &str = "\
Examples:
  roomtone call 1234 --server wss://example.org:8443
  roomtone call 1234 --video file --audio file --device film.mkv
  roomtone call 1234 --headless --channel log:save=log.txt";

#[cfg(feature = "media")]
const ANSWER: &str = "\
Examples:
  roomtone answer --id kiosk --server wss://example.org:8443
  roomtone answer --id kiosk --allow ann,bob --record calls/";

#[cfg(feature = "media")]
const JOIN: &str = "\
Examples:
  roomtone join attic --server wss://example.org:8443
  roomtone join lobby --server ssp+wss://example.org/ssp      a pool
  roomtone join attic --record-mix attic.mkv";

#[cfg(feature = "media")]
const PUBLISH: &str = "\
Sends one video and one audio stream to a media server until it is stopped; Ctrl-C ends the session at the
server. If the path or the server is lost, a new session follows by itself, and the sources go on.

Examples:
  roomtone publish https://example.org/live/whip         camera and microphone
  ROOMTONE_TOKEN=... roomtone publish https://example.org/whip/stage
  roomtone publish https://example.org/whip --video file --audio file --device film.mkv
  roomtone publish http://127.0.0.1:8889/cam/whip --video-codec h264 --bitrate 2500";

#[cfg(feature = "media")]
const WATCH: &str = "\
Shows, plays and records a stream of a media server until it is stopped. If nobody publishes yet, or the publisher
leaves, the program asks the server again; the window stays, and the recording goes on when the stream is back.

Examples:
  roomtone watch https://example.org/live/whep           in a window
  ROOMTONE_TOKEN=... roomtone watch https://example.org/whep/stage --headless --record stage/
  roomtone watch http://127.0.0.1:8889/cam/whep --play none --json";

/// Native end of a WebRTC call: calls browsers from the command line, or hosts a call on this machine.
#[derive(Debug, Parser)]
#[command(name = "roomtone", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    /// Command to run.
    pub command: Command,

    /// Write each event to stdout as a line of JSON, and read commands from stdin as lines of JSON
    #[arg(long, global = true, action = ArgAction::SetTrue)]
    pub json: Flag,

    /// Log more to stderr; twice logs everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// Form of the log on stderr; json writes an object for each line
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Configuration file (TOML) [default: ~/.config/roomtone/config.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    // Comments of documentation would lengthen the help of every command.
    Text,
    Json,
}

impl Cli {
    /// Reads the arguments, completed by the configuration file. Invalid arguments and `--help` end the program here.
    pub(super) fn read() -> Result<Self, CliError> {
        Ok(Self::parse_all()?.unwrap_or_else(|error| error.exit()))
    }

    /// Reads the arguments again, with the configuration file as it is now.
    pub(super) fn read_again() -> Result<Self, CliError> {
        Self::parse_all()?.map_err(|error| CliError::Usage(error.to_string()))
    }

    fn parse_all() -> Result<Result<Self, clap::Error>, CliError> {
        let typed = |matches| Self::from_arg_matches(&matches);
        let first = command(&[], &[]).try_get_matches();
        let first = first.and_then(|matches| Ok((flags::turned_off(&matches), typed(matches)?)));
        let (off, first) = match first {
            Ok(first) => first,
            Err(error) => return Ok(Err(error)),
        };
        let file = config::read(first.config.as_deref(), &command(&[], &[]))?;
        Ok(command(&file, &off).try_get_matches().and_then(typed))
    }
}

/// Returns the program's commands. Each option has its environment variable, and its value in `file` as its default.
/// `off` names the on/off options that the command line turns off.
pub(super) fn command(file: &[Given], off: &[String]) -> clap::Command {
    let complete = |option: clap::Arg| {
        let option = flags::complete(option);
        let Some(long) = option.get_long().map(str::to_owned) else { return option };
        // An option that is turned off counts as not given, so that it conflicts with no other option.
        let is_off = || {
            off.contains(&long)
                || std::env::var(flags::variable(&long)).is_ok_and(|text| text.parse() == Ok(Flag::Off))
        };
        if flags::is_flag(&option) && is_off() {
            return option.default_value(Flag::Off.to_string());
        }
        // The help text states once that every option has a variable, not at each option.
        let option = option.env(flags::variable(&long)).hide_env(true);
        match file.iter().find(|one| one.key == long) {
            Some(one) => option.default_values(one.texts.clone()),
            None => option,
        }
    };
    let each = |command: clap::Command| flags::add_negatives(command.mut_args(complete)).after_help(HINT);
    let sub = |command: clap::Command| match command.get_after_long_help().map(ToString::to_string) {
        Some(examples) => each(command).after_long_help(format!("{examples}\n\n{HINT}")),
        None => each(command),
    };
    each(Cli::command()).mut_subcommands(sub).after_help(EXAMPLES)
}

pub(super) const HINT: &str = "\
Each option can also be set in the environment (--bitrate as ROOMTONE_BITRATE) and in the
configuration file (bitrate = 800). Flags override the environment, and the environment overrides
the file. --no-plain turns --plain off; this holds for every option without a value. Such an option is
on, off, true, false, 1 or 0 in the environment, and true or false in the file.";

/// Commands of the program.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Host a call on this machine: a server, its page, and a client that answers
    #[cfg(feature = "media")]
    #[command(after_long_help = HOST)]
    Host(Box<HostArgs>),
    /// Run the signalling server and its page, without a client
    #[command(after_long_help = SERVE)]
    Serve(Box<ServeArgs>),
    /// Make a token that lets a client connect to a server with --token-secret
    #[command(after_long_help = TOKEN)]
    Token(Box<TokenArgs>),
    /// List the rooms of a server, or the members of one
    Rooms(RoomsArgs),
    /// List the peers of a server, and whether they are free
    Peers(PeersArgs),
    /// Send a peer away
    Kick(KickArgs),
    /// Close a room and send its members away
    Close(CloseArgs),
    /// Show the state of a server: its version, its numbers, and whether it drains
    Nodes(NodesArgs),
    /// Let a server report that it is not ready, so that new clients go elsewhere
    Drain(DrainArgs),
    /// Call a peer
    #[cfg(feature = "media")]
    #[command(after_long_help = CALL)]
    Call(CallArgs),
    /// Register at a server and answer calls, one after another
    #[cfg(feature = "media")]
    #[command(after_long_help = ANSWER)]
    Answer(AnswerArgs),
    /// Join a room or a pool: a call of many
    #[cfg(feature = "media")]
    #[command(after_long_help = JOIN)]
    Join(JoinArgs),
    /// Send to a media server by WHIP, until stopped
    #[cfg(feature = "media")]
    #[command(after_long_help = PUBLISH)]
    Publish(PublishArgs),
    /// Receive from a media server by WHEP, until stopped
    #[cfg(feature = "media")]
    #[command(after_long_help = WATCH)]
    Watch(WatchArgs),
    /// List cameras, microphones, and the names of sources and outputs
    #[cfg(feature = "media")]
    Devices,
    /// List the codecs, and the elements that encode and decode them here
    #[cfg(feature = "media")]
    Codecs,
    /// Check what is installed, and say how to install what is missing
    #[cfg(feature = "media")]
    Doctor,
}
