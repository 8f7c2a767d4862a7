//! `serve`: the signalling server and the page.

use smol::channel::bounded;

use super::signals::on_signal;
use crate::cli::CliError;
use crate::cli::args::server::{ServeArgs, ServerOptions, TokenOptions};
use crate::cli::output::{self, human};
use crate::server::Server;
use crate::server::ice::IceServers;

/// Opens the server's port.
pub(super) async fn bind(
    options: &ServerOptions,
    ice: IceServers,
    tokens: &TokenOptions,
) -> Result<Server, CliError> {
    Ok(Server::bind(options.config(ice, tokens)?).await?)
}

/// Shows people the certificate's fingerprint, by which they recognise the server.
pub(super) fn show_fingerprint(server: &Server, json: bool) {
    if let (false, Some(fingerprint)) = (json, server.fingerprint()) {
        human(&format!("certificate       SHA-256 {fingerprint}"));
    }
}

pub(super) fn serve(args: &ServeArgs, json: bool) -> Result<(), CliError> {
    let (stop, stopped) = bounded::<()>(1);
    on_signal(move || {
        let _ = stop.try_send(());
    });
    let ice = args.relays.servers()?;
    smol::block_on(async {
        let server = bind(&args.server, ice, &args.tokens).await?;
        let sink = output::sink(json);
        crate::app::page_urls(&server, args.server.plain.is_on(), "").iter().for_each(|event| sink(event));
        show_fingerprint(&server, json);
        server
            .run(async {
                let _ = stopped.recv().await;
            })
            .await;
        // A signal is the normal end of a server.
        Ok(())
    })
}
