//! `host`: a server, and a client on it.

use super::client::commands;
use super::serve::{bind, show_fingerprint};
use crate::app::host::Role;
use crate::app::{self, Event, MediaSetup};
use crate::cli::CliError;
use crate::cli::args::client::HostArgs;
use crate::cli::args::server::TokenOptions;
use crate::cli::output::{self, human};

pub(super) fn host(args: &HostArgs, json: bool) -> Result<(), CliError> {
    let options = args.media()?;
    let role = match &args.room {
        Some(room) => Role::Room(room.clone(), args.max_peers),
        None => Role::Calls { once: args.admission.once.is_on(), admission: args.admission.admission() },
    };
    let sink = output::sink(json);
    let commands = commands(json, &options);
    smol::block_on(async {
        let server = bind(&args.server, options.paths.servers.clone(), &TokenOptions::default()).await?;
        let setup = MediaSetup::start(&options, &sink).await?;
        let urls = app::page_urls(&server, args.server.plain.is_on(), &role.query(&args.id));
        if !json {
            human(match &role {
                Role::Room(..) => "Open one of these links and press Join to be in the room:",
                Role::Calls { .. } => "Open one of these links and press Call to be in the call:",
            });
        }
        urls.iter().for_each(|event| sink(event));
        show_fingerprint(&server, json);
        let for_phones = urls.iter().find_map(|event| match event {
            Event::Listening { url, fingerprint: Some(_) } => Some(url),
            _ => None,
        });
        if let (false, Some(url)) = (json, for_phones) {
            output::qr(url);
        }
        Ok(app::host::host(server, args.id.clone(), setup, commands, sink, role).await?)
    })
}
