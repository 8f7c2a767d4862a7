//! `serve`: the signalling server and the page.

use smol::channel::{Receiver, bounded};
use smol::future::or;

use super::descriptors;
use super::notify::{self, Notify};
use super::signals::on_signals;
use crate::cli::CliError;
use crate::cli::args::server::{ServeArgs, ServerOptions, TokenOptions};
use crate::cli::args::{Cli, Command};
use crate::cli::output::{self, human};
use crate::server::ice::IceServers;
use crate::server::{Control, Server};

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
    let (reload, reloads) = bounded::<()>(1);
    on_signals(
        move || {
            let _ = stop.try_send(());
        },
        move || {
            let _ = reload.try_send(());
        },
    );
    let ice = args.relays.servers()?;
    descriptors::raise();
    let notify = Notify::from_environment();
    smol::block_on(async {
        let server = bind(&args.server, ice, &args.tokens).await?;
        let sink = output::sink(json);
        crate::app::page_urls(&server, args.server.plain.is_on(), "").iter().for_each(|event| sink(event));
        show_fingerprint(&server, json);
        let control = server.control();
        notify.ready(&status(&control));
        let run = server.run(async {
            let _ = stopped.recv().await;
            notify.stopping();
        });
        or(run, or(reload_again(&reloads, &control, &notify), feed(&control, &notify))).await;
        // A signal is the normal end of a server.
        Ok(())
    })
}

/// The state of the server, in words for `systemctl status`.
fn status(control: &Control) -> String {
    let counts = control.counts();
    format!("{} connections, {} peers, {} rooms", counts.connections, counts.peers, counts.rooms)
}

/// Reads the settings again whenever that is asked for. Never completes.
async fn reload_again(reloads: &Receiver<()>, control: &Control, notify: &Notify) {
    while reloads.recv().await.is_ok() {
        notify.reloading();
        match reload(control).await {
            Ok(()) => tracing::info!("the settings were read again"),
            Err(error) => tracing::error!("the settings stay as they were: {error}"),
        }
        notify.ready(&status(control));
    }
    std::future::pending().await
}

async fn reload(control: &Control) -> Result<(), CliError> {
    let Command::Serve(args) = Cli::read_again()?.command else {
        return Err(CliError::Usage("the command is not 'serve' any more".into()));
    };
    Ok(control.reload(args.server.config(args.relays.servers()?, &args.tokens)?).await?)
}

/// Reports to systemd's watchdog twice in its time, if it watches, that the server's tasks run and its hub answers. Never
/// completes.
async fn feed(control: &Control, notify: &Notify) {
    let Some(limit) = notify::watchdog() else { return std::future::pending().await };
    loop {
        let control = control.clone();
        let status = smol::spawn(async move { status(&control) }).await;
        notify.alive(&status);
        smol::Timer::after(limit / 2).await;
    }
}
