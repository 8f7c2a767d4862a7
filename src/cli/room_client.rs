//! The command line of `room-client`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::{ArgAction, Args, Parser, Subcommand};
use smol::future::or;

use super::advice;
use super::output::{human, result_line};
use crate::base::flag::Flag;
use crate::base::text::{brief, escape_json, shown};
use crate::protocol::PeerId;
use crate::signalling::{ConnectError, Proxies, Target};
use crate::tester::check::{self, RULES, Weight};
use crate::tester::interactive::{self, InteractiveError, Part};
use crate::tester::load::{self, Load, Percentiles, Progress};
use crate::tester::script::Script;
use crate::tester::{run, script};
use crate::tls::Trust;

const EXAMPLES: &str = "\
Examples:
  room-client --url ws://127.0.0.1:8443                       type HELLO me, ROOM attic, …
  room-client --url wss://example.org:8443 --room attic </dev/null     the classic test client
  room-client run scripts/room.room --url ws://127.0.0.1:8443
  room-client check --url ws://127.0.0.1:8443 --junit report.xml
  room-client load --url ws://127.0.0.1:8443 --peers 1000 --rooms 200 --seconds 10

Exit codes: 0 success  1 a script, a rule or a load failed  2 usage  3 server not reachable  4 refused";

/// Speaks the HELLO protocol to any server: manually, by script, as conformance test and as load test.
#[derive(Debug, Parser)]
#[command(name = "room-client", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    server: ServerArgs,
    /// Join this room
    #[arg(long)]
    room: Option<String>,
    /// Call this peer
    #[arg(long, value_name = "PEER", conflicts_with = "room")]
    session: Option<String>,
    /// Id to register with [default: a random number]
    #[arg(long)]
    id: Option<String>,
}

#[derive(Debug, Args)]
struct ServerArgs {
    /// URL of the server: ws://HOST:PORT, or wss://HOST:PORT (which HOST:PORT alone means, too)
    #[arg(long, default_value = "ws://127.0.0.1:8443", env = "ROOMTONE_SERVER", hide_env = true)]
    url: String,
    /// Trust this certificate (PEM) in addition to the system's root certificates
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Trust every server, whatever its certificate
    #[arg(long, conflicts_with = "ca", action = ArgAction::SetTrue)]
    insecure: Flag,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a script of several peers: the messages that each sends and must receive
    Run {
        /// File with the script
        file: PathBuf,
        /// Show all messages
        #[arg(short, long, action = ArgAction::SetTrue)]
        verbose: Flag,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Try every rule of the protocol on a server
    Check {
        /// Write a report for continuous integration (JUnit's XML)
        #[arg(long, value_name = "FILE")]
        junit: Option<PathBuf>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Register many peers, which join rooms and send messages to each other
    Load {
        /// Number of peers
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=load::MAX_PEERS as u64))]
        peers: u64,
        /// Number of rooms
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
        rooms: u64,
        /// Time in which peers send messages, in seconds
        #[arg(long, default_value_t = 5.0)]
        seconds: f64,
        /// Messages of each peer per second
        #[arg(long, default_value_t = 10.0)]
        rate: f64,
        /// Write the report to stdout as JSON
        #[arg(long, action = ArgAction::SetTrue)]
        json: Flag,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// Returns the program's commands.
#[cfg(all(test, feature = "media"))]
pub(super) fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Error that ends the program: the exit code and its text.
type Failed = (u8, String);

fn unreachable(error: &ConnectError) -> Failed {
    let code = match error {
        ConnectError::Url(_) | ConnectError::File(_) => 2,
        ConnectError::Denied(..) | ConnectError::NoToken(..) | ConnectError::TokenEnded(..) => 4,
        _ => 3,
    };
    (code, format!("{error}{}", advice::connect(error)))
}

fn target(server: &ServerArgs) -> Result<Target, Failed> {
    let trust = match (&server.ca, server.insecure.is_on()) {
        (Some(ca), _) => Trust::File(ca.clone()),
        (None, true) => Trust::Anybody,
        (None, false) => Trust::System,
    };
    let target = Target::parse(&server.url, trust).map_err(|error| unreachable(&error))?;
    Ok(target.proxies(Proxies::read(|name| std::env::var(name).ok())))
}

fn id<T: std::str::FromStr<Err = crate::protocol::id::IdError>>(text: &str) -> Result<T, Failed> {
    text.parse().map_err(|error| (2, format!("'{}': {error}", shown(text))))
}

/// Runs the program `room-client` to its end.
pub fn room_client() -> Result<(), Failed> {
    let cli = Cli::parse();
    match &cli.command {
        None => run_interactive(&cli),
        Some(Command::Run { file, verbose, server }) => run_script(file, *verbose, server),
        Some(Command::Check { junit, server }) => check_server(junit.as_deref(), server),
        Some(Command::Load { peers, rooms, seconds, rate, json, server }) => {
            let load = Load {
                peers: *peers as usize,
                rooms: *rooms as usize,
                duration: Duration::from_secs_f64(seconds.clamp(0.1, 86_400.0)),
                rate: *rate,
            };
            load_server(&load, *json, server)
        }
    }
}

fn run_interactive(cli: &Cli) -> Result<(), Failed> {
    let target = target(&cli.server)?;
    let part = match (&cli.room, &cli.session) {
        (Some(room), _) => Part::Room(id(room)?),
        (None, Some(peer)) => Part::Session(id(peer)?),
        (None, None) => Part::None,
    };
    let own: PeerId = id(&cli.id.clone().unwrap_or_else(|| fastrand::u32(1000..10_000).to_string()))?;
    let began = Instant::now();
    let show = |direction: char, text: &str| {
        result_line(&format!("{:9.3} {direction} {}", began.elapsed().as_secs_f64(), shown(text)));
    };
    smol::block_on(interactive::run(&target, &own, &part, show)).map_err(|error| match &error {
        InteractiveError::Connect(connect) => unreachable(connect),
        InteractiveError::Closed(..) | InteractiveError::Refused(_) => (4, error.to_string()),
    })
}

fn run_script(file: &std::path::Path, verbose: Flag, server: &ServerArgs) -> Result<(), Failed> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| (2, format!("{name}: {error}")))?;
    let script: Script =
        Script::parse(&text).map_err(|error: script::SyntaxError| (2, format!("{name}: {error}")))?;
    let target = target(server)?;
    let began = Instant::now();
    let trace = |peer: &str, direction: char, text: &str| {
        if verbose.is_on() {
            let text: String = shown(text).chars().take(200).collect();
            human(&format!("{:9.3} {peer:>8} {direction} {text}", began.elapsed().as_secs_f64()));
        }
    };
    smol::block_on(run::run(&script, &target, &trace)).map_err(|error| (1, format!("{name}: {error}")))?;
    human(&format!(
        "{name}: {} steps with {} peers, all as expected",
        script.lines.len(),
        script.peers().len()
    ));
    Ok(())
}

fn check_server(junit: Option<&std::path::Path>, server: &ServerArgs) -> Result<(), Failed> {
    let target = target(server)?;
    // An unreachable server breaks no rule of the protocol.
    let reached = smol::block_on(crate::signalling::Socket::connect(&target.clone().extended(false)));
    smol::block_on(reached.map_err(|error| unreachable(&error))?.close());
    let mut results = Vec::new();
    for rule in RULES {
        let outcome = smol::block_on(rule.try_on(&target));
        result_line(&format!("{:9} {}", outcome.word(rule.weight), rule.name));
        if let Some(reason) = &outcome.failure {
            result_line(&format!("{:9} {}", "", brief(reason)));
            if let Weight::Deviates(consequence) = rule.weight {
                result_line(&format!("{:9} {consequence}", ""));
            }
        }
        results.push((*rule, outcome));
    }
    if let Some(path) = junit {
        std::fs::write(path, check::junit(&results))
            .map_err(|error| (2, format!("{}: {error}", path.display())))?;
    }
    let count =
        |word: &str| results.iter().filter(|(rule, outcome)| outcome.word(rule.weight) == word).count();
    let (failed, deviates, absent) = (count("FAILED"), count("deviates"), count("absent"));
    result_line(&format!(
        "{} ok, {failed} failed, {deviates} known deviations, {absent} absent",
        count("ok")
    ));
    match failed {
        0 => Ok(()),
        n => Err((1, format!("{n} rules that clients rely on do not hold"))),
    }
}

fn load_server(load: &Load, json: Flag, server: &ServerArgs) -> Result<(), Failed> {
    let target = target(server)?;
    let progress = Arc::new(Progress::default());
    let bar = async {
        let began = Instant::now();
        loop {
            smol::Timer::after(Duration::from_millis(200)).await;
            let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            let joined = count(&progress.joined);
            let part = match joined < load.peers as u64 {
                true => joined as f64 / load.peers as f64 / 2.0,
                false => 0.5 + (began.elapsed().as_secs_f64() / load.duration.as_secs_f64()).min(1.0) / 2.0,
            };
            let filled = (part * 30.0) as usize;
            let (sent, received) = (count(&progress.sent), count(&progress.received));
            progress_line(&format!(
                "[{}{}] {joined}/{} joined, {sent} sent, {received} received",
                "#".repeat(filled),
                " ".repeat(30 - filled.min(30)),
                load.peers
            ));
        }
    };
    let report = smol::block_on(or(load::run(load, &target, progress.clone()), bar));
    progress_line("");
    if json.is_on() {
        result_line(&escape_json(&serde_json::to_string(&report).unwrap_or_default()));
    } else {
        let line = |name: &str, p: &Percentiles| {
            result_line(&format!(
                "{name:10} {:8} measured   p50 {:8.2} ms   p95 {:8.2} ms   p99 {:8.2} ms   max {:8.2} ms",
                p.count, p.p50, p.p95, p.p99, p.max
            ));
        };
        line("register", &report.register_ms);
        line("join", &report.join_ms);
        line("relay", &report.relay_ms);
        let (sent, received) = (report.sent, report.received);
        result_line(&format!("{sent} sent, {received} received, {:.0} a second", report.messages_per_second));
        report.errors.iter().for_each(|error| result_line(&format!("error: {}", brief(error))));
    }
    match (report.register_ms.count, report.errors.first()) {
        (_, None) => Ok(()),
        (0, Some(error)) => Err((3, error.clone())),
        (_, Some(error)) => Err((1, format!("the load caused errors: {error}"))),
    }
}

/// Overwrites the current line of stderr if it is a terminal.
fn progress_line(text: &str) {
    use std::io::{IsTerminal, Write};
    let mut stderr = std::io::stderr().lock();
    if stderr.is_terminal() {
        let _ = write!(stderr, "\r\x1b[K{text}").and_then(|()| stderr.flush());
    }
}
