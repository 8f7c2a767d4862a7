//! `call`, `answer` and `join`: a client of a server.

use std::time::Duration;

use smol::channel::{Receiver, bounded};

use super::signals::on_signal;
use crate::app::bridge::End;
use crate::app::{self, Admission, Client, Event, MediaOptions, MediaPlan, Sink};
use crate::cli::args::client::{AdmissionArgs, AnswerArgs, CallArgs, ClientArgs, JoinArgs};
use crate::cli::args::media::media_options;
use crate::cli::{CliError, input, output};
use crate::protocol::ssp::Version;
use crate::protocol::{PeerId, RoomId};
use crate::signalling::{Proxies, Target};
use crate::tls::{ClientCertificate, Trust};

/// The user's commands, from stdin where that is not for a data channel.
pub(super) fn commands(json: bool, options: &MediaOptions) -> Receiver<app::Command> {
    let (command, commands) = bounded(64);
    let interrupt = command.clone();
    on_signal(move || {
        let _ = interrupt.try_send(app::Command::Interrupt);
    });
    if !options.channels.iter().any(|one| one.end == End::Stdio) {
        input::stdin::listen(command, json);
    }
    commands
}

/// Checks an id that this side registers, by our own server's strict rule.
pub(super) fn own_id(text: &str) -> Result<PeerId, CliError> {
    text.parse().map_err(|error| CliError::Usage(format!("'{text}': {error}")))
}

/// Checks the id of a peer loosely: its server may allow ids that ours refuses.
fn peer_id(text: &str) -> Result<PeerId, CliError> {
    PeerId::from_server(text).map_err(|error| CliError::Usage(format!("'{text}': {error}")))
}

pub(super) fn room_id(text: &str) -> Result<RoomId, CliError> {
    RoomId::from_server(text).map_err(|error| CliError::Usage(format!("'{text}': {error}")))
}

struct Setup {
    target: Target,
    id: PeerId,
    options: MediaOptions,
    sink: Sink,
}

fn set_up(args: &ClientArgs, json: bool) -> Result<Setup, CliError> {
    let client = args.signalling.clone();
    let trust = match (client.insecure, client.ca) {
        (Some(true), _) => Trust::Anybody,
        (_, Some(ca)) => Trust::File(ca),
        _ => Trust::System,
    };
    let server = client.server.as_deref().unwrap_or("ws://127.0.0.1:8443");
    let servers = args.relays.clone().servers()?;
    let ice = args.paths.clone().options(servers, trust.clone())?;
    let version = client.ssp_version.as_deref().map_or(Ok(Version::Auto), str::parse);
    let version = version.map_err(|error| CliError::Usage(format!("--ssp-version: {error}")))?;
    let target = Target::parse(server, trust).map_err(app::ClientError::from)?;
    let own = match (client.client_cert, client.client_key) {
        (Some(cert), Some(key)) => Some(ClientCertificate { cert, key }),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(CliError::Usage("--client-cert and --client-key belong together".to_owned()));
        }
    };
    let proxies = Proxies::read(|name| std::env::var(name).ok());
    let target = target.ssp_version(version).token(client.token).client_certificate(own).proxies(proxies);
    let options = media_options(&args.media, ice)?;
    // The default id is short, because people read it aloud and type it. It grants nothing: everybody on the
    // server may see it.
    let id = client.id.unwrap_or_else(|| fastrand::u32(1000..10_000).to_string());
    let sink = output::sink(json);
    if target.is_insecure() {
        let text = "--insecure: whoever sits between here and the server can listen and take the call over";
        sink(&Event::Warning { text: text.to_owned() });
    }
    Ok(Setup { target, id: own_id(&id)?, options, sink })
}

pub(super) fn call(args: &CallArgs, json: bool) -> Result<(), CliError> {
    let peer = peer_id(&args.peer)?;
    let ring = Duration::from_secs(args.ring.into());
    let Setup { target, id, options, sink } = set_up(&args.client, json)?;
    let commands = commands(json, &options);
    smol::block_on(async {
        let plan = MediaPlan::start(&options, &sink).await?;
        Ok(Client::new(target, id, plan, commands, sink).call(&peer, args.request_offer, ring).await?)
    })
}

pub(super) fn admission(args: &AdmissionArgs) -> Result<Admission, CliError> {
    let allowed = args.allow.as_ref().map(|ids| ids.iter().map(|id| peer_id(id)).collect());
    Ok(Admission { allowed: allowed.transpose()?, ask: args.ask })
}

pub(super) fn answer(args: &AnswerArgs, json: bool) -> Result<(), CliError> {
    let admission = admission(&args.admission)?;
    let Setup { target, id, options, sink } = set_up(&args.client, json)?;
    let commands = commands(json, &options);
    smol::block_on(async {
        let plan = MediaPlan::start(&options, &sink).await?;
        Ok(Client::new(target, id, plan, commands, sink).answer(args.admission.once, &admission).await?)
    })
}

pub(super) fn join(args: &JoinArgs, json: bool) -> Result<(), CliError> {
    let room = room_id(&args.room)?;
    let Setup { target, id, mut options, sink } = set_up(&args.client, json)?;
    options.together = true;
    let commands = commands(json, &options);
    smol::block_on(async {
        let plan = MediaPlan::start(&options, &sink).await?;
        Ok(Client::new(target, id, plan, commands, sink).join(&room, args.max_peers).await?)
    })
}
