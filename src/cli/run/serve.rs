//! `serve`: the signalling server and the page.

use smol::channel::bounded;

use super::signals::on_signal;
use crate::cli::CliError;
use crate::cli::args::server::{LISTEN, ServeArgs, ServerOptions};
use crate::cli::output::{self, human};
use crate::hub::Limits;
use crate::protocol::Secret;
use crate::server::ice::IceServers;
use crate::server::{Config, Files, Identity, Server};

/// Opens the server's port.
pub(super) async fn bind(
    options: ServerOptions,
    ice: IceServers,
    token_secret: Option<Secret>,
) -> Result<(Server, bool), CliError> {
    let plain = options.plain == Some(true);
    let identity = match (options.cert, options.key) {
        _ if plain => None,
        (Some(cert), Some(key)) => Some(Identity::load(Files { cert, key })?),
        (None, None) => {
            let folder = crate::paths::state_dir().ok_or_else(|| {
                CliError::Usage("no HOME to keep a certificate in; give --cert and --key".into())
            })?;
            Some(Identity::own(&folder)?)
        }
        _ => return Err(CliError::Usage("--cert and --key belong together".into())),
    };
    let defaults = Limits::default();
    let config = Config {
        identity,
        plain,
        allowed_origins: options.allow_origin.unwrap_or_default(),
        allowed_hosts: options.allow_host.unwrap_or_default(),
        per_address: options.max_per_address.unwrap_or(256),
        api_secret: options.api_secret,
        api_remote: options.api_remote == Some(true),
        token_secret,
        limits: Limits { rooms: options.max_rooms.unwrap_or(defaults.rooms), ..defaults },
        ice,
        ..Config::plain(options.listen.unwrap_or(LISTEN))
    };
    Ok((Server::bind(config).await?, plain))
}

/// Tells people the certificate's fingerprint, with which they recognise the server.
pub(super) fn tell_fingerprint(server: &Server, json: bool) {
    if let (false, Some(fingerprint)) = (json, server.fingerprint()) {
        human(&format!("certificate       SHA-256 {fingerprint}"));
    }
}

pub(super) fn serve(args: &ServeArgs, json: bool) -> Result<(), CliError> {
    let (stop, stopped) = bounded::<()>(1);
    on_signal(move || {
        let _ = stop.try_send(());
    });
    let options = args.server.clone();
    let ice = args.relays.clone().servers()?;
    smol::block_on(async {
        let (server, plain) = bind(options, ice, args.token_secret.clone()).await?;
        let sink = output::sink(json);
        crate::app::links(&server, plain, "").iter().for_each(|event| sink(event));
        tell_fingerprint(&server, json);
        server
            .run(async {
                let _ = stopped.recv().await;
            })
            .await;
        // A server runs until a signal stops it: that is its normal end.
        Ok(())
    })
}
