//! `call`, `answer` and `join`: a client of a server. `publish` and `watch`: a client of a media server.

use std::time::Duration;

use smol::channel::{Receiver, bounded};

use super::signals::on_signal;
use crate::app::options::MediaOptions;
use crate::app::{self, Client, ClientError, Event, MediaSetup};
use crate::cli::args::client::{AnswerArgs, CallArgs, ClientArgs, JoinArgs};
use crate::cli::args::publish::{PublishArgs, WatchArgs};
use crate::cli::{CliError, input, output};
use crate::protocol::PeerId;
use crate::signalling::Target;

/// Most commands that wait for execution.
const MAX_COMMANDS: usize = 64;

/// Starts to read the user's commands: signals, and stdin unless a data channel is joined to it.
pub(super) fn commands(json: bool, options: &MediaOptions) -> Receiver<app::Command> {
    let (command, commands) = bounded(MAX_COMMANDS);
    let interrupt = command.clone();
    on_signal(move || {
        let _ = interrupt.try_send(app::Command::Interrupt);
    });
    match options.channels.uses_stdio() {
        true => output::leave_stdout(),
        false => input::stdin::listen(command, json),
    }
    commands
}

/// Starts media, and runs a client of the server until `work` is done.
fn with_client(
    args: &ClientArgs,
    json: bool,
    together: bool,
    work: impl AsyncFnOnce(Client) -> Result<(), ClientError>,
) -> Result<(), CliError> {
    let target = args.signalling.target()?;
    let id = args.signalling.id().map_err(|error| CliError::Usage(error.to_string()))?;
    let mut options = args.media()?;
    options.receive.together = together;
    run(target, id, &options, json, work)
}

/// Starts media, and runs a client of `target` until `work` is done.
fn run(
    target: Target,
    id: PeerId,
    options: &MediaOptions,
    json: bool,
    work: impl AsyncFnOnce(Client) -> Result<(), ClientError>,
) -> Result<(), CliError> {
    let commands = commands(json, options);
    let sink = output::sink(json);
    if target.is_insecure() {
        let text = "--insecure: anybody on the path to the server can listen and take the call over";
        sink(&Event::Warning { text: text.to_owned() });
    }
    smol::block_on(async {
        let setup = MediaSetup::start(options, &sink).await?;
        Ok(work(Client::new(target, id, setup, commands, sink)).await?)
    })
}

pub(super) fn call(args: &CallArgs, json: bool) -> Result<(), CliError> {
    let ring = Duration::from_secs(args.ring.into());
    with_client(&args.client, json, false, async |client| {
        client.call(&args.peer, args.request_offer.is_on(), ring).await
    })
}

pub(super) fn answer(args: &AnswerArgs, json: bool) -> Result<(), CliError> {
    let admission = args.admission.admission();
    with_client(&args.client, json, false, async |client| {
        client.answer(args.admission.once.is_on(), &admission).await
    })
}

pub(super) fn join(args: &JoinArgs, json: bool) -> Result<(), CliError> {
    with_client(&args.client, json, true, async |client| client.join(&args.room, args.max_peers).await)
}

/// Runs a client of a media server, which has no registration and so no id.
fn stream(target: Target, options: &MediaOptions, json: bool) -> Result<(), CliError> {
    run(target, PeerId::caller(), options, json, async |client| client.stream().await)
}

pub(super) fn publish(args: &PublishArgs, json: bool) -> Result<(), CliError> {
    stream(args.target()?, &args.media()?, json)
}

pub(super) fn watch(args: &WatchArgs, json: bool) -> Result<(), CliError> {
    stream(args.target()?, &args.media()?, json)
}
