//! From arguments to a running program.

use std::time::Instant;

use clap::CommandFactory;
use smol::channel::bounded;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format;

use super::args::{Cli, Command, LISTEN, ServeArgs, ServerOptions};
use super::output::{self, human};
use super::signals::{Signals, Wish};
use super::{CliError, config};
use crate::app::Event;
#[cfg(feature = "media")]
use crate::app::Sink;
use crate::base::text::shown;
use crate::hub::Limits;
use crate::protocol::Secret;
use crate::server::ice::IceServers;
use crate::server::{Config, Files, Identity, Server};

/// When the program began.
#[cfg(feature = "media")]
static BEGAN: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);

/// Runs the program `roomtone` to its end.
pub fn run() -> Result<(), CliError> {
    #[cfg(feature = "media")]
    let _ = *BEGAN;
    let cli = Cli::read()?;
    #[cfg(all(feature = "media", target_os = "linux", target_env = "gnu"))]
    if let Command::Host(_) | Command::Call(_) | Command::Answer(_) | Command::Join(_) = &cli.command {
        super::arenas::have_few();
    }
    start_log(cli.verbose);
    tell_unknown_variables(cli.json);
    let result = match &cli.command {
        Command::Serve(args) => serve(args, cli.json),
        #[cfg(feature = "media")]
        Command::Host(args) => media::host(args, cli.json),
        #[cfg(feature = "media")]
        Command::Call(args) => media::call(args, cli.json),
        #[cfg(feature = "media")]
        Command::Answer(args) => media::answer(args, cli.json),
        #[cfg(feature = "media")]
        Command::Join(args) => media::join(args, cli.json),
        #[cfg(feature = "media")]
        Command::Devices => return super::inventory::devices(cli.json),
        #[cfg(feature = "media")]
        Command::Codecs => return super::inventory::codecs(cli.json),
        #[cfg(feature = "media")]
        Command::Doctor => return super::inventory::doctor(cli.json),
    };
    #[cfg(feature = "media")]
    super::terminal::restore();
    if cli.json {
        let reason = result.as_ref().err().map_or_else(|| "normally".to_owned(), ToString::to_string);
        output::sink(true)(&Event::Ended { reason });
    }
    #[cfg(feature = "media")]
    crate::media::finish();
    result
}

/// Warns of environment variables that have the program's prefix but belong to no option: most likely misspelt.
fn tell_unknown_variables(json: bool) {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let sink = output::sink(json);
    for text in config::unknown_variables(names, &Cli::command()) {
        sink(&Event::Warning { text });
    }
}

/// Starts the log on stderr; the variable `ROOMTONE_LOG` accepts the filter language of tracing.
fn start_log(verbose: u8) {
    let level = match verbose {
        // The TURN client tells of addresses and users in its own words.
        0 => "warn,stun_proto=off,turn_client_proto=off",
        1 => "info,roomtone=debug,stun_proto=off,turn_client_proto=off",
        _ => "debug,roomtone=trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("ROOMTONE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    // The value of a field may contain text of other people: it is escaped.
    let fields = format::debug_fn(|writer, field, value| {
        let value = shown(&format!("{value:?}"));
        match field.name() {
            "message" => write!(writer, "{value}"),
            name => write!(writer, "{name}={value}"),
        }
    });
    tracing_subscriber::fmt()
        .fmt_fields(fields.delimited(" "))
        .with_env_filter(filter)
        .with_ansi(output::has_colours())
        .with_writer(std::io::stderr)
        .init();
}

/// Calls `on_signal` at the first Ctrl-C or SIGTERM. A second signal ends the program at once, if it comes a second
/// or more after the first.
fn on_signal(mut on_signal: impl FnMut() + Send + 'static) {
    let mut signals = Signals::default();
    let handler = move || match signals.take(Instant::now()) {
        Wish::End => on_signal(),
        Wish::Same => {}
        Wish::EndNow => {
            #[cfg(feature = "media")]
            super::terminal::restore();
            std::process::exit(130);
        }
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        tracing::warn!("signals end the program at once: {error}");
    }
}

/// Opens the server's port.
async fn bind(
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
fn tell_fingerprint(server: &Server, json: bool) {
    if let (false, Some(fingerprint)) = (json, server.fingerprint()) {
        human(&format!("certificate       SHA-256 {fingerprint}"));
    }
}

fn serve(args: &ServeArgs, json: bool) -> Result<(), CliError> {
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

#[cfg(feature = "media")]
mod media {
    use std::time::Duration;

    use smol::channel::Receiver;

    use super::*;
    use crate::app::bridge::{BridgeConfig, End};
    use crate::app::ice::IceOptions;
    use crate::app::{self, Admission, Client, MediaOptions, MediaPlan, Patience};
    use crate::cli::args::{AdmissionArgs, AnswerArgs, CallArgs, ClientArgs, HostArgs, JoinArgs, MediaArgs};
    use crate::cli::input;
    use crate::media::Rates;
    use crate::media::playout::Latency;
    use crate::protocol::ssp::Version;
    use crate::protocol::{PeerId, RoomId};
    use crate::sdp::{Codec, Kind};
    use crate::signalling::{Proxies, Target};
    use crate::tls::{ClientCertificate, Trust};

    /// The user's commands, from stdin where that is not for a data channel.
    fn commands(json: bool, options: &MediaOptions) -> Receiver<app::Command> {
        let (command, commands) = bounded(64);
        let interrupt = command.clone();
        on_signal(move || {
            let _ = interrupt.try_send(app::Command::Interrupt);
        });
        if !options.channels.iter().any(|one| one.end == End::Stdio) {
            input::listen(command, json);
        }
        commands
    }

    /// Checks an id that this side registers, by our own server's strict rule.
    fn own_id(text: &str) -> Result<PeerId, CliError> {
        text.parse().map_err(|error| CliError::Usage(format!("'{text}': {error}")))
    }

    /// Checks the id of a peer loosely: its server may allow ids that ours refuses.
    fn peer_id(text: &str) -> Result<PeerId, CliError> {
        PeerId::from_server(text).map_err(|error| CliError::Usage(format!("'{text}': {error}")))
    }

    fn room_id(text: &str) -> Result<RoomId, CliError> {
        RoomId::from_server(text).map_err(|error| CliError::Usage(format!("'{text}': {error}")))
    }

    fn size(text: &str) -> Result<(u32, u32), CliError> {
        let parsed = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
        let fits = |n: &u32| (16..=8192).contains(n) && n.is_multiple_of(2);
        parsed.filter(|(width, height)| fits(width) && fits(height)).ok_or_else(|| {
            CliError::Usage(format!("'{text}' is no size: two even numbers from 16 to 8192, as in 1280x720"))
        })
    }

    fn latency(text: &str) -> Result<Latency, CliError> {
        let fixed = || text.parse().ok().filter(|ms| (0..=5000).contains(ms)).map(Duration::from_millis);
        match text {
            "auto" => Ok(Latency::Auto),
            _ => fixed().map(Latency::Fixed).ok_or_else(|| {
                CliError::Usage(format!("--latency: '{text}' is neither auto nor a number of ms up to 5000"))
            }),
        }
    }

    fn media_options(args: &MediaArgs, ice: IceOptions) -> Result<MediaOptions, CliError> {
        let args: MediaArgs = args.clone();
        let headless = args.headless == Some(true);
        let channels: Result<Vec<BridgeConfig>, _> =
            args.channel.unwrap_or_default().iter().map(|text| text.parse()).collect();
        let channels = channels.map_err(|error| CliError::Usage(format!("--channel: {error}")))?;
        if uses_stdio(&channels)? {
            output::leave_stdout();
        }
        let nothing = || headless.then(|| "none".to_owned());
        Ok(MediaOptions {
            video: args.video,
            audio: args.audio,
            device: args.device,
            audio_device: args.audio_device,
            codecs: codecs(Kind::Video, args.video_codec)?
                .into_iter()
                .chain(codecs(Kind::Audio, args.audio_codec)?)
                .collect(),
            encoder: args.encoder,
            size: args.size.as_deref().map(size).transpose()?,
            fps: args.fps.unwrap_or(30).clamp(1, 120),
            rates: rates(args.bitrate, args.min_bitrate, args.max_bitrate)?,
            fec: args.fec == Some(true),
            untreated: args.no_echo_cancel == Some(true),
            show: args.show.or_else(nothing),
            play: args.play.or_else(nothing),
            record: args.record,
            record_mix: args.record_mix,
            together: false,
            receive_only: args.receive_only == Some(true),
            send_only: args.send_only == Some(true),
            stats: args.stats.filter(|s| s.is_finite() && *s > 0.0).map(Duration::from_secs_f64),
            ice,
            channels,
            trace: (args.trace_setup == Some(true)).then_some(*BEGAN),
            latency: args.latency.as_deref().map_or(Ok(Latency::Auto), latency)?,
            patience: Patience {
                quiet: Duration::from_secs(args.reconnect_after.unwrap_or(4).into()),
                give_up: Duration::from_secs(args.give_up_after.unwrap_or(30).into()),
            },
        })
    }

    /// A preference list of one kind.
    fn codecs(kind: Kind, list: Option<String>) -> Result<Vec<Codec>, CliError> {
        let one = |text: &str| match text.parse::<Codec>() {
            Ok(codec) if codec.kind() == kind => Ok(codec),
            Ok(codec) => Err(CliError::Usage(format!("{codec} is no {kind} codec"))),
            Err(error) => Err(CliError::Usage(error)),
        };
        list.iter().flat_map(|list| list.split(',')).map(one).collect()
    }

    /// The bounds of the pictures' bitrate, from kbit/s.
    fn rates(start: Option<u32>, least: Option<u32>, most: Option<u32>) -> Result<Rates, CliError> {
        const DEFAULT: u32 = 1500;
        const LEAST: u32 = 50;
        if let Some(wrong) =
            [start, least, most].into_iter().flatten().find(|rate| !(30..=100_000).contains(rate))
        {
            return Err(CliError::Usage(format!("a bitrate of {wrong} kbit/s: from 30 to 100000")));
        }
        let most_or = most.or(start).unwrap_or(DEFAULT.max(least.unwrap_or(0)));
        let least_or = least.unwrap_or(LEAST.min(most_or));
        let begin = start.unwrap_or(DEFAULT.clamp(least_or.min(most_or), most_or));
        if least_or > most_or || !(least_or..=most_or).contains(&begin) {
            return Err(CliError::Usage(format!(
                "--min-bitrate {least_or}, --bitrate {begin} and --max-bitrate {most_or} are not in this order"
            )));
        }
        let passed = most.map_or(u32::MAX, |most| most * 1000);
        Ok(Rates { least: least_or * 1000, start: begin * 1000, most: most_or * 1000, passed })
    }

    /// Whether a channel is joined to stdin and stdout, which only one can be.
    fn uses_stdio(channels: &[BridgeConfig]) -> Result<bool, CliError> {
        let mut labels: Vec<&str> = channels.iter().map(|one| one.channel.label.as_str()).collect();
        labels.sort_unstable();
        if let Some(twice) = labels.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(CliError::Usage(format!("--channel: '{}' is there twice", twice[0])));
        }
        match channels.iter().filter(|one| one.end == End::Stdio).count() {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CliError::Usage("--channel: only one can be joined to stdin and stdout".to_owned())),
        }
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
            let text =
                "--insecure: whoever sits between here and the server can listen and take the call over";
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

    fn admission(args: &AdmissionArgs) -> Result<Admission, CliError> {
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

    pub(super) fn host(args: &HostArgs, json: bool) -> Result<(), CliError> {
        let servers = args.relays.clone().servers()?;
        let ice = args.paths.clone().options(servers.clone(), Trust::System)?;
        let mut options = media_options(&args.media, ice)?;
        options.together = args.room.is_some();
        let server_options = args.server.clone();
        let id = own_id(&args.id)?;
        let part = match args.room.as_deref().map(room_id).transpose()? {
            Some(room) => app::host::Part::Room(room, args.max_peers),
            None => {
                app::host::Part::Calls { once: args.admission.once, admission: admission(&args.admission)? }
            }
        };
        let sink = output::sink(json);
        let commands = commands(json, &options);
        smol::block_on(async {
            let (server, plain) = bind(server_options, servers, None).await?;
            let plan = MediaPlan::start(&options, &sink).await?;
            let links = app::links(&server, plain, &part.query(&id));
            if !json {
                human(match &part {
                    app::host::Part::Room(..) => "Open one of these links and press Join to be in the room:",
                    app::host::Part::Calls { .. } => {
                        "Open one of these links and press Call to be in the call:"
                    }
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
}
