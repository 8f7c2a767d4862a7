//! `host`: a server, and a client on it.

use super::client::{admission, commands, own_id, room_id};
use super::serve::{bind, tell_fingerprint};
use crate::app::host::Part;
use crate::app::{self, Event, MediaPlan};
use crate::cli::CliError;
use crate::cli::args::client::HostArgs;
use crate::cli::args::media::media_options;
use crate::cli::output::{self, human};
use crate::tls::Trust;

pub(super) fn host(args: &HostArgs, json: bool) -> Result<(), CliError> {
    let servers = args.relays.clone().servers()?;
    let ice = args.paths.clone().options(servers.clone(), Trust::System)?;
    let mut options = media_options(&args.media, ice)?;
    options.together = args.room.is_some();
    let server_options = args.server.clone();
    let id = own_id(&args.id)?;
    let part = match args.room.as_deref().map(room_id).transpose()? {
        Some(room) => Part::Room(room, args.max_peers),
        None => Part::Calls { once: args.admission.once, admission: admission(&args.admission)? },
    };
    let sink = output::sink(json);
    let commands = commands(json, &options);
    smol::block_on(async {
        let (server, plain) = bind(server_options, servers, None).await?;
        let plan = MediaPlan::start(&options, &sink).await?;
        let links = app::links(&server, plain, &part.query(&id));
        if !json {
            human(match &part {
                Part::Room(..) => "Open one of these links and press Join to be in the room:",
                Part::Calls { .. } => "Open one of these links and press Call to be in the call:",
            });
        }
        links.iter().for_each(|event| sink(event));
        tell_fingerprint(&server, json);
        let for_phones = links.iter().find_map(|event| match event {
            Event::Listening { url, fingerprint: Some(_) } => Some(url),
            _ => None,
        });
        if let (false, Some(url)) = (json, for_phones) {
            output::qr(url);
        }
        Ok(app::host::host(server, id, plan, commands, sink, part).await?)
    })
}
