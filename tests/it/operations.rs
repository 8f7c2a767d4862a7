//! A server under a service manager: notifications, reloads, health, the limit of descriptors, and the log.
#![cfg(target_os = "linux")]

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use crate::common::{PATIENCE, Program, WebSocket, serve, until, wait_for};
use roomtone::protocol::Secret;
use roomtone::server::token::{self, TokenConfig};
use roomtone::server::{Config, Identity, Server, ServerError};
use serde_json::{Value, json};
use smol::channel::bounded;

const OLD: &str = "the old secret, as long as a secret has to be";
const NEW: &str = "the new secret, as long as a secret has to be";

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// The status of a GET request.
fn get(url: &str) -> u16 {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    agent.get(url).call().unwrap().status().as_u16()
}

/// The socket of a service manager: its reports and its path. A thread reads it all the time, because the server drops
/// reports that do not fit into the socket, which holds ten of them.
struct Manager(Receiver<String>, String);

impl Manager {
    fn new(folder: &Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let (report, reports) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                if report.send(String::from_utf8_lossy(&buffer[..length]).into_owned()).is_err() {
                    return;
                }
            }
        });
        Self(reports, path.to_str().unwrap().to_owned())
    }

    /// Returns the next report.
    fn next(&self) -> String {
        self.0.recv_timeout(PATIENCE).expect("a report")
    }

    /// Waits for a report with this line, passing others over; returns the report.
    fn expect(&self, line: &str) -> String {
        let mut passed = vec![];
        until(&format!("report with {line}"), PATIENCE, || {
            let report =
                self.0.recv_timeout(PATIENCE).map_err(|error| format!("{error} after {passed:?}"))?;
            if report.lines().any(|one| one == line) {
                return Ok(report);
            }
            passed.push(report);
            Err(format!("{passed:?}"))
        })
    }
}

#[test]
fn systemd_is_notified_of_each_state() {
    let home = tempfile::tempdir().unwrap();
    let manager = Manager::new(home.path());
    let variables = [("NOTIFY_SOCKET", manager.1.as_str()), ("WATCHDOG_USEC", "200000")];
    let args = ["serve", "--plain", "--listen", "127.0.0.1:0"];
    let mut server = Program::start_with(home.path(), &args, &variables);
    let report = manager.expect("READY=1");
    assert!(report.contains("STATUS=0 connections, 0 peers, 0 rooms"), "{report}");
    let mut ann = WebSocket::connect(&crate::common::ws(&server.link()));
    ann.say("HELLO ann");
    ann.expect("HELLO");
    wait_for("a report about ann", || {
        manager.expect("WATCHDOG=1").contains("STATUS=1 connections, 1 peers, 0 rooms").then_some(())
    });
    server.signal("HUP");
    let report = manager.expect("RELOADING=1");
    let time = report.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    assert!(time.parse::<u64>().unwrap() > 0, "{report}");
    manager.expect("READY=1");
    server.signal("TERM");
    manager.expect("STOPPING=1");
    assert_eq!(server.end().0, 0);
}

#[test]
fn a_watchdog_of_another_process_is_not_fed() {
    let home = tempfile::tempdir().unwrap();
    let manager = Manager::new(home.path());
    let variables = [("NOTIFY_SOCKET", manager.1.as_str()), ("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")];
    let args = ["serve", "--plain", "--listen", "127.0.0.1:0"];
    let server = Program::start_with(home.path(), &args, &variables);
    manager.expect("READY=1");
    server.signal("TERM");
    // Reports arrive in order: the next one would be that of the watchdog.
    let report = manager.next();
    assert!(report.starts_with("STOPPING=1"), "{report}");
    assert_eq!(server.end().0, 0);
}

#[test]
fn sighup_reads_the_settings_again_or_changes_nothing() {
    let home = tempfile::tempdir().unwrap();
    let manager = Manager::new(home.path());
    let file = home.path().join("config.toml");
    let write = |secrets: &[&str], more: &str| {
        std::fs::write(&file, format!("token-secret = {secrets:?}\n{more}")).unwrap();
    };
    write(&[OLD], "");
    let args = ["serve", "--plain", "--listen", "127.0.0.1:0", "--config", file.to_str().unwrap()];
    let mut server = Program::start_with(home.path(), &args, &[("NOTIFY_SOCKET", manager.1.as_str())]);
    manager.expect("READY=1");
    let link = server.link();
    let claims = json!({"exp": 4_000_000_000_u64});
    let [old, new] = [OLD, NEW].map(|secret| token::sign(&claims, &Secret(secret.into())).unwrap());
    let status = |token: &str| get(&format!("{link}admission?token={token}"));
    assert_eq!((status(&old), status(&new)), (200, 401));
    let address = link.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut ann = WebSocket::connect_to(address, &format!("?token={old}"));
    ann.say("HELLO ann");
    ann.expect("HELLO");

    let reload = || {
        server.signal("HUP");
        manager.expect("RELOADING=1");
        manager.expect("READY=1");
    };
    write(&[OLD, NEW], "");
    reload();
    assert_eq!((status(&old), status(&new)), (200, 200), "a new secret beside the old one");
    write(&[NEW], "");
    reload();
    assert_eq!((status(&old), status(&new)), (401, 200), "the new secret alone");
    // A file that cannot be used changes nothing, not even in part.
    for wrong in
        ["nonsense = 1\n", "allow-host = [\"no host\"]\n", "listen = \"127.0.0.1:1\"\n[", "plain = 7\n"]
    {
        write(&[OLD], wrong);
        reload();
        assert_eq!((status(&old), status(&new)), (401, 200), "{wrong}");
    }
    write(&["short"], "");
    reload();
    assert_eq!((status(&old), status(&new)), (401, 200));
    // Connected clients stay.
    ann.say("PEER_LIST");
    ann.expect("PEER_LIST ");
    server.signal("TERM");
    let (code, stderr) = server.end();
    assert_eq!(code, 0);
    assert_eq!(stderr.matches("the settings stay as they were").count(), 5, "{stderr}");
    assert!(stderr.contains("fewer than 32 bytes"), "{stderr}");
}

#[test]
fn a_reload_replaces_the_certificate_and_keeps_the_address() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let identity = |n: usize| Some(Identity::own(folders[n].path()).unwrap());
    let config = |n: usize| Config { identity: identity(n), ..Config::plain(ANY) };
    let fingerprint = |n: usize| Identity::own(folders[n].path()).unwrap().fingerprint;
    let server = smol::block_on(Server::bind(config(0))).unwrap();
    assert_eq!(server.fingerprint(), Some(fingerprint(0)));
    smol::block_on(server.control().reload(config(1))).unwrap();
    assert_eq!(server.fingerprint(), Some(fingerprint(1)));
    let elsewhere = Config { listen: ([127, 0, 0, 1], 1).into(), ..config(0) };
    let closed = Config { plain: false, ..config(0) };
    for wrong in [elsewhere, closed] {
        let error = smol::block_on(server.control().reload(wrong)).unwrap_err();
        assert!(matches!(error, ServerError::NeedsRestart), "{error}");
    }
    assert_eq!(server.fingerprint(), Some(fingerprint(1)));
    assert_ne!(fingerprint(0), fingerprint(1));
}

#[test]
fn a_server_that_drains_is_alive_and_not_ready() {
    let drain = PATIENCE * 10;
    let server = smol::block_on(Server::bind(Config { drain, ..Config::plain(ANY) })).unwrap();
    let address = server.address();
    let (stop, stopped) = bounded::<()>(1);
    let task = smol::spawn(server.run(async move {
        let _ = stopped.recv().await;
    }));
    let status = |path: &str| get(&format!("http://{address}/{path}"));
    assert_eq!((status("health"), status("health/live"), status("health/ready")), (200, 200, 200));
    let mut ann = WebSocket::connect_to(address, "");
    ann.say("HELLO ann");
    ann.expect("HELLO");
    drop(stop);
    wait_for("the drain", || (status("health/ready") == 503).then_some(()));
    assert_eq!((status("health"), status("health/live")), (200, 200));
    // Clients are served until the time is over.
    let mut bob = WebSocket::connect_to(address, "");
    bob.say("HELLO bob");
    bob.expect("HELLO");
    ann.say("SESSION bob");
    ann.expect("SESSION_OK");
    drop(task);
}

#[test]
fn without_a_token_health_tells_no_counts() {
    let tokens = TokenConfig { secrets: vec![Secret(OLD.into())], ..TokenConfig::default() };
    for (config, words) in [
        (Config::plain(ANY), "OK\nconnections 0\npeers 0\nrooms 0\n"),
        (Config { tokens, ..Config::plain(ANY) }, "OK\n"),
    ] {
        let server = serve(config);
        let read = |path: &str| {
            ureq::get(format!("http://{server}/{path}")).call().unwrap().body_mut().read_to_string().unwrap()
        };
        assert_eq!(read("health"), words);
        assert_eq!((read("health/live").as_str(), read("health/ready").as_str()), ("OK\n", "OK\n"));
    }
}

#[test]
fn the_limit_of_descriptors_is_raised_and_reported() {
    let home = tempfile::tempdir().unwrap();
    for (limits, warns) in [("ulimit -Sn 128", false), ("ulimit -Sn 128; ulimit -Hn 1000", true)] {
        let script = format!(
            "{limits}; exec {} serve --plain --listen 127.0.0.1:0 --json -v",
            env!("CARGO_BIN_EXE_roomtone")
        );
        let mut child = std::process::Command::new("sh")
            .args(["-c", &script])
            .env("HOME", home.path())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        assert!(line.contains("listening"), "{line}");
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
        let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let numbers: Vec<&str> = files.split_whitespace().skip(3).take(2).collect();
        assert_eq!(numbers[0], numbers[1], "{files}");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut log = String::new();
        child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        assert!(child.wait().unwrap().success());
        assert!(log.contains(&format!("this process may open {} descriptors", numbers[1])), "{log}");
        assert_eq!(log.contains("LimitNOFILE"), warns, "{log}");
    }
}

#[test]
fn the_log_can_be_json() {
    let home = tempfile::tempdir().unwrap();
    let args = ["serve", "--plain", "--listen", "127.0.0.1:0", "--log-format", "json", "-vv"];
    let mut server = Program::start(home.path(), &args);
    let mut ann = WebSocket::connect(&crate::common::ws(&server.link()));
    ann.say("HELLO ann");
    ann.expect("HELLO");
    ann.close(1000, "");
    server.signal("TERM");
    let (code, stderr) = server.end();
    assert_eq!(code, 0, "{stderr}");
    let lines: Vec<Value> = stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let is_complete = |line: &Value| {
        line["timestamp"].is_string() && line["level"].is_string() && line["target"].is_string()
    };
    assert!(lines.iter().all(is_complete), "{stderr}");
    let closes = lines.iter().find(|line| line["message"] == "closes").expect("the end of a connection");
    assert!(closes["conn"].is_number() && closes["reason"] == "closed by the peer", "{closes}");
}

/// A server with metrics; its address, and a reader of the metrics.
fn with_metrics(config: Config) -> (SocketAddr, impl Fn() -> String) {
    let server = smol::block_on(Server::bind(Config { metrics: Some(ANY), ..config })).unwrap();
    let (address, metrics) = (server.address(), server.metrics_address().unwrap());
    smol::spawn(server.run(std::future::pending())).detach();
    let read = move || {
        let mut answer = ureq::get(format!("http://{metrics}/metrics")).call().unwrap();
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        assert!(kind.starts_with("application/openmetrics-text; version=1.0.0"), "{kind}");
        answer.body_mut().read_to_string().unwrap()
    };
    (address, read)
}

/// The value of a metric with its labels.
fn value(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map(|number| number.parse().unwrap())
}

#[test]
fn metrics_count_what_the_server_does() {
    let ping = std::time::Duration::from_millis(50);
    let timeouts = roomtone::server::Timeouts { ping, ..Default::default() };
    let proxy = vec!["127.0.0.1".parse().unwrap()];
    let config = Config { timeouts, per_address: 1, trusted_proxies: proxy, ..Config::plain(ANY) };
    let (server, read) = with_metrics(config);
    let peer = |id: &str| {
        let mut peer = WebSocket::connect_to(server, "");
        peer.say(&format!("HELLO {id}"));
        peer.expect("HELLO");
        peer
    };
    let (mut ann, mut bob, mut cat) = (peer("ann"), peer("bob"), peer("cat"));
    cat.say("ROOM attic");
    cat.expect("ROOM_OK ");
    ann.say("SESSION bob");
    ann.expect("SESSION_OK");
    ann.say("hello");
    bob.expect("hello");
    let mut endpoint = WebSocket::connect_to(server, "ssp");
    endpoint.say(r#"{"type":"rtc:join","data":{"pool":"cellar"}}"#);
    assert!(endpoint.hear().unwrap().contains("rtc:joined"));
    assert_eq!(get(&format!("http://{server}/nothing")), 404);
    let text = read();
    for (name, wanted) in [
        ("roomtone_connections{protocol=\"hello\"}", 3.0),
        ("roomtone_connections{protocol=\"ssp\"}", 1.0),
        ("roomtone_peers", 4.0),
        ("roomtone_rooms", 2.0),
        ("roomtone_calls", 1.0),
        ("roomtone_messages_total{kind=\"register\"}", 3.0),
        ("roomtone_messages_total{kind=\"relay\"}", 1.0),
        ("roomtone_messages_total{kind=\"join\"}", 2.0),
        ("roomtone_message_seconds_count", 7.0),
        ("roomtone_http_requests_total{code=\"101\"}", 4.0),
        ("roomtone_http_requests_total{code=\"404\"}", 1.0),
        ("roomtone_connects_total{result=\"accepted\"}", 5.0),
    ] {
        assert_eq!(value(&text, name), Some(wanted), "{name} in:\n{text}");
    }
    assert!(value(&text, "process_open_fds").unwrap() > 4.0, "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    // The answers to pings are timed.
    let listener = std::thread::spawn(move || while ann.hear().is_some() {});
    wait_for("the answer to a ping", || {
        value(&read(), "roomtone_client_rtt_seconds_count").filter(|count| *count > 0.0)
    });
    drop(bob);
    listener.join().unwrap();
    wait_for("the end of the call", || (value(&read(), "roomtone_calls") == Some(0.0)).then_some(()));
    // Refusals are counted by the limit, and headers of proxies that are refused.
    let upgrade = |client: &str| {
        let mut stream = std::net::TcpStream::connect(server).unwrap();
        let head = format!(
            "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nx-forwarded-for: {client}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        (stream, String::from_utf8(status.to_vec()).unwrap())
    };
    let (_open, first) = upgrade("192.0.2.7");
    let (_, second) = upgrade("192.0.2.7");
    assert_eq!((first.as_str(), second.as_str()), ("HTTP/1.1 101", "HTTP/1.1 429"));
    assert_eq!(value(&read(), "roomtone_limited_total{which=\"connections\"}"), Some(1.0));
    let mut liar = std::net::TcpStream::connect(server).unwrap();
    liar.write_all(b"PROXY nonsense\r\n").unwrap();
    let _ = liar.read(&mut [0; 1]);
    assert_eq!(value(&read(), "roomtone_connects_total{result=\"proxy\"}"), Some(1.0));
}

#[cfg(feature = "engine")]
#[test]
fn metrics_count_what_goes_through_the_engine() {
    use roomtone::engine::Engine;
    crate::common::needs!(Redis);
    let mut redis = crate::common::redis::Redis::start();
    let engine = || Engine { address: redis.url().parse().unwrap(), prefix: Engine::PREFIX.to_owned() };
    let config = || Config { engine: Some(engine()), ..Config::plain(ANY) };
    let [(one, read), (two, read_two)] = [with_metrics(config()), with_metrics(config())];
    let [mut ann, mut bob] = [(one, "ann"), (two, "bob")].map(|(server, id)| {
        let mut peer = WebSocket::connect_to(server, "");
        peer.register(id);
        peer
    });
    ann.say("SESSION bob");
    ann.expect("SESSION_OK");
    ann.say("hello");
    bob.expect("hello");
    // A series that never grows ends the test.
    let expect = |read: &dyn Fn() -> String, name: &str, fits: fn(f64) -> bool| {
        wait_for(name, || value(&read(), name).filter(|number| fits(*number)));
    };
    expect(&read, "roomtone_engine_up", |up| up == 1.0);
    expect(&read, "roomtone_engine_attachments_total", |count| count == 1.0);
    expect(&read, "roomtone_engine_request_seconds_count", |count| count >= 3.0);
    expect(&read, "roomtone_engine_transactions_total{result=\"done\"}", |count| count >= 2.0);
    expect(&read, "roomtone_engine_transactions_total{result=\"retried\"}", |count| count >= 0.0);
    expect(&read, "roomtone_engine_messages_total{way=\"sent\"}", |count| count >= 1.0);
    expect(&read_two, "roomtone_engine_messages_total{way=\"received\"}", |count| count >= 1.0);
    expect(&read, "roomtone_engine_inbox_delay_seconds_count", |count| count >= 1.0);
    redis.kill();
    expect(&read, "roomtone_engine_up", |up| up == 0.0);
}

#[test]
fn metrics_are_not_on_the_port_of_the_clients() {
    let server = smol::block_on(Server::bind(Config { metrics: Some(ANY), ..Config::plain(ANY) })).unwrap();
    let (address, metrics) = (server.address(), server.metrics_address().unwrap());
    smol::spawn(server.run(std::future::pending())).detach();
    assert_eq!(get(&format!("http://{address}/metrics")), 404);
    assert_eq!((get(&format!("http://{metrics}/")), get(&format!("http://{metrics}/health"))), (404, 404));
    let post = ureq::post(format!("http://{metrics}/metrics"));
    assert_eq!(post.config().http_status_as_error(false).build().send("x").unwrap().status().as_u16(), 405);
    // A client that sends nothing occupies one of several places.
    let _idle: Vec<_> = (0..8).map(|_| std::net::TcpStream::connect(metrics).unwrap()).collect();
    assert_eq!(get(&format!("http://{metrics}/metrics")), 200);
    let taken = Config { metrics: Some(metrics), ..Config::plain(ANY) };
    let error = smol::block_on(Server::bind(taken)).unwrap_err();
    assert!(matches!(error, ServerError::Listen(at, _) if at == metrics), "{error}");
}

#[test]
fn orders_of_the_api_leave_an_audit_line_and_keys_are_read_again() {
    let home = tempfile::tempdir().unwrap();
    let manager = Manager::new(home.path());
    let file = home.path().join("keys.toml");
    let sha256 = |key: &str| {
        let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let write = |key: &str| {
        let entry =
            format!("[[key]]\nname = \"portal\"\nsha256 = \"{}\"\nscopes = [\"moderate\"]\n", sha256(key));
        std::fs::write(&file, entry).unwrap();
    };
    write(OLD);
    let args = [
        "serve",
        "--plain",
        "--listen",
        "127.0.0.1:0",
        "--log-format",
        "json",
        "--api-keys",
        file.to_str().unwrap(),
    ];
    let mut server = Program::start_with(home.path(), &args, &[("NOTIFY_SOCKET", manager.1.as_str())]);
    manager.expect("READY=1");
    let link = server.link();
    let delete = |key: &str, id: &str| {
        let request = ureq::delete(format!("{link}api/v1/rooms/the%20attic")).header("x-request-id", id);
        let request = request.header("authorization", format!("Bearer {key}"));
        request.config().http_status_as_error(false).build().call().unwrap().status().as_u16()
    };
    assert_eq!((delete(OLD, "first"), delete(NEW, "second")), (404, 401));
    write(NEW);
    server.signal("HUP");
    manager.expect("RELOADING=1");
    manager.expect("READY=1");
    assert_eq!((delete(OLD, "third"), delete(NEW, "fourth")), (401, 404));
    server.signal("TERM");
    let (code, stderr) = server.end();
    assert_eq!(code, 0);
    let lines = stderr.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let audit: Vec<Value> = lines.filter(|line| line["target"] == "roomtone::audit").collect();
    let summary: Vec<String> = audit
        .iter()
        .map(|line| format!("{} {} {} {}", line["request"], line["key"], line["method"], line["status"]))
        .collect();
    let wanted = [
        r#""first" "portal" "DELETE" 404"#,
        r#""second" "" "DELETE" 401"#,
        r#""third" "" "DELETE" 401"#,
        r#""fourth" "portal" "DELETE" 404"#,
    ];
    assert_eq!(summary, wanted, "{stderr}");
    assert!(
        audit.iter().all(|line| line["from"] == "127.0.0.1" && line["path"] == "/api/v1/rooms/the%20attic")
    );
    assert!(!stderr.contains(OLD) && !stderr.contains(NEW), "keys are not logged");
}

#[test]
fn a_file_of_keys_that_cannot_be_used_is_an_error_that_names_it() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("keys.toml");
    let path = file.to_str().unwrap();
    let fails = |why: &str| {
        let server =
            Program::start(home.path(), &["serve", "--plain", "--listen", "127.0.0.1:0", "--api-keys", path]);
        let (code, stderr) = server.end();
        assert!(code == 2 && stderr.contains("keys.toml") && stderr.contains(why), "{code}: {stderr}");
    };
    fails("No such file");
    std::fs::write(&file, "[[key]]\nname = \"portal\"\nsha256 = \"12\"\nscopes = [\"read\"]\n").unwrap();
    fails("64 hexadecimal digits");
}
