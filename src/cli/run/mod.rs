//! Runs the commands of the program `roomtone`.

mod api;
#[cfg(all(feature = "media", target_os = "linux", target_env = "gnu"))]
mod arenas;
#[cfg(feature = "engine")]
mod check_engine;
#[cfg(feature = "media")]
mod client;
mod descriptors;
#[cfg(feature = "media")]
mod host;
#[cfg(feature = "media")]
mod inventory;
mod log;
mod notify;
mod serve;
mod signals;
mod token;

use super::args::{self, Cli, Command};
use super::{CliError, config, output};
use crate::app::Event;

/// Runs the program `roomtone` to its end.
pub fn run() -> Result<(), CliError> {
    #[cfg(feature = "media")]
    crate::app::trace::begin();
    let cli = Cli::read()?;
    let json = cli.json.is_on();
    #[cfg(all(feature = "media", target_os = "linux", target_env = "gnu"))]
    if let Command::Host(_)
    | Command::Call(_)
    | Command::Answer(_)
    | Command::Join(_)
    | Command::Publish(_)
    | Command::Watch(_) = &cli.command
    {
        arenas::have_few();
    }
    log::start(cli.verbose, cli.log_format);
    warn_of_unknown_variables(json);
    let result = match &cli.command {
        #[cfg(feature = "engine")]
        Command::Serve(args) if args.check_engine.is_on() => return check_engine::check(&args.server, json),
        Command::Serve(args) => serve::serve(args, json),
        Command::Token(args) => return token::token(args, json),
        Command::Rooms(args) => return api::rooms(args, json),
        Command::Peers(args) => return api::peers(args, json),
        Command::Kick(args) => return api::kick(args),
        Command::Close(args) => return api::close(args),
        Command::Nodes(args) => return api::nodes(args, json),
        Command::Drain(args) => return api::drain(args),
        #[cfg(feature = "media")]
        Command::Host(args) => host::host(args, json),
        #[cfg(feature = "media")]
        Command::Call(args) => client::call(args, json),
        #[cfg(feature = "media")]
        Command::Answer(args) => client::answer(args, json),
        #[cfg(feature = "media")]
        Command::Join(args) => client::join(args, json),
        #[cfg(feature = "media")]
        Command::Publish(args) => client::publish(args, json),
        #[cfg(feature = "media")]
        Command::Watch(args) => client::watch(args, json),
        #[cfg(feature = "media")]
        Command::Devices => return inventory::devices(json),
        #[cfg(feature = "media")]
        Command::Codecs => return inventory::codecs(json),
        #[cfg(feature = "media")]
        Command::Doctor => return inventory::doctor(json),
    };
    #[cfg(feature = "media")]
    super::input::terminal::restore();
    if json {
        let reason = result.as_ref().err().map_or_else(|| "normally".to_owned(), ToString::to_string);
        output::sink(true)(&Event::Ended { reason });
    }
    #[cfg(feature = "media")]
    crate::media::finish();
    result
}

/// Warns of environment variables that have the program's prefix but belong to no option, and so are probably misspelt.
fn warn_of_unknown_variables(json: bool) {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let sink = output::sink(json);
    for text in config::unknown_variables(names, &args::command(&[], &[])) {
        sink(&Event::Warning { text });
    }
}
