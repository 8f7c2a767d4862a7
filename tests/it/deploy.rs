//! The files in `deploy/`, run as they are.
#![cfg(target_os = "linux")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::common::{External, PATIENCE, Program, Resumed, free_address, needs, serve, wait_for};
#[cfg(feature = "engine")]
use crate::common::{WebSocket, until};
use async_tungstenite::tungstenite;
use futures_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
use futures_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
#[cfg(feature = "engine")]
use roomtone::engine::Engine;
#[cfg(feature = "engine")]
use roomtone::protocol::Secret;
#[cfg(feature = "engine")]
use roomtone::server::WebhookConfig;
use roomtone::server::{Config, Identity, Server};
use smol::channel::bounded;

fn file(name: &str) -> String {
    format!("{}/deploy/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A running HAProxy with the project's configuration; dropped, it ends.
pub(crate) struct HaProxy {
    _proxy: External,
    pub(crate) address: SocketAddr,
    trust: Arc<ClientConfig>,
}

type Tls = StreamOwned<ClientConnection, Resumed<TcpStream>>;

impl HaProxy {
    /// Starts it in front of up to four servers.
    pub(crate) fn start(folder: &Path, servers: &[SocketAddr]) -> Self {
        drop(Identity::own(folder).unwrap());
        let pem = [folder.join("cert.pem"), folder.join("key.pem")]
            .map(|path| std::fs::read_to_string(path).unwrap());
        std::fs::write(folder.join("both.pem"), pem.concat()).unwrap();
        let address = free_address();
        let mut command = Command::new("/usr/sbin/haproxy");
        command
            .args(["-db", "-f", &file("haproxy.cfg")])
            .env("ROOMTONE_BIND", address.to_string())
            .env("ROOMTONE_CERT", folder.join("both.pem"));
        let variables = ["ROOMTONE_SERVER", "ROOMTONE_SERVER_2", "ROOMTONE_SERVER_3", "ROOMTONE_SERVER_4"];
        assert!(servers.len() <= variables.len());
        for (name, server) in variables.into_iter().zip(servers) {
            command.env(name, server.to_string());
        }
        let checked = Command::new("/usr/sbin/haproxy")
            .args(["-c", "-f", &file("haproxy.cfg")])
            .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&checked.stderr).to_lowercase();
        assert!(checked.status.success() && !words.contains("warning"), "{words}");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap()).unwrap();
        let provider = Arc::new(futures_rustls::rustls::crypto::ring::default_provider());
        let trust =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let trust = Arc::new(trust.with_root_certificates(roots).with_no_client_auth());
        let mut proxy = External::start(&mut command);
        proxy.listens(address.port());
        Self { _proxy: proxy, address, trust }
    }

    fn connect(&self) -> Option<Tls> {
        let tcp = TcpStream::connect(self.address).ok()?;
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let tls = ClientConnection::new(self.trust.clone(), "localhost".try_into().unwrap()).unwrap();
        Some(StreamOwned::new(tls, Resumed(tcp)))
    }

    /// The status of a GET request; none if HAProxy does not answer.
    pub(crate) fn get(&self, path: &str) -> Option<u16> {
        self.request("GET", path, "").map(|(status, _)| status)
    }

    /// Status and text of the answer to a request; none while HAProxy does not listen.
    fn request(&self, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
        let mut tls = self.connect()?;
        let length = body.len();
        write!(tls, "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n").ok()?;
        write!(tls, "content-length: {length}\r\n\r\n{body}").ok()?;
        let mut answer = vec![];
        let _ = tls.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let text = answer.split_once("\r\n\r\n")?.1.to_owned();
        Some((answer.split(' ').nth(1)?.parse().ok()?, text))
    }

    fn peer(&self, id: &str) -> tungstenite::WebSocket<Tls> {
        self.try_peer(id).expect("a registration")
    }

    /// Registers a peer, if a server accepts it now.
    pub(crate) fn try_peer(&self, id: &str) -> Option<tungstenite::WebSocket<Tls>> {
        let mut ws = tungstenite::client("wss://localhost/?roomtone=1", self.connect()?).ok()?.0;
        ws.send(tungstenite::Message::text(format!("HELLO {id}"))).ok()?;
        loop {
            match ws.read().ok()? {
                tungstenite::Message::Text(text) => return (text.as_str() == "HELLO").then_some(ws),
                tungstenite::Message::Ping(_) => {}
                _ => return None,
            }
        }
    }
}

fn hear(ws: &mut tungstenite::WebSocket<Tls>) -> String {
    loop {
        match ws.read().unwrap() {
            tungstenite::Message::Text(text) => return text.as_str().to_owned(),
            tungstenite::Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn haproxy_serves_clients_over_tls_and_sends_none_to_a_server_that_drains() {
    needs!(LoadBalancer);
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        trusted_proxies: vec!["127.0.0.1".parse().unwrap()],
        drain: PATIENCE * 10,
        ..Config::plain(([127, 0, 0, 1], 0).into())
    };
    let server = smol::block_on(Server::bind(config)).unwrap();
    let proxy = HaProxy::start(folder.path(), &[server.address()]);
    let (stop, stopped) = bounded::<()>(1);
    let task = smol::spawn(server.run(async move {
        let _ = stopped.recv().await;
    }));
    wait_for("the page", || proxy.get("/").filter(|status| *status == 200));
    assert_eq!(
        (proxy.get("/api/v1/rooms"), proxy.get("/API/counts"), proxy.get("/health")),
        (Some(404), Some(404), Some(200))
    );
    let (mut ann, mut bob) = (proxy.peer("ann"), proxy.peer("bob"));
    ann.send(tungstenite::Message::text("SESSION bob")).unwrap();
    assert_eq!((hear(&mut ann).as_str(), hear(&mut bob).as_str()), ("SESSION_OK", "SESSION_FROM ann"));
    // The server drains: HAProxy sends no new clients, and the call goes on.
    drop(stop);
    wait_for("no server for new clients", || proxy.get("/").filter(|status| *status == 503));
    ann.send(tungstenite::Message::text("still here")).unwrap();
    assert_eq!(hear(&mut bob), "still here");
    drop(task);
}

#[test]
fn haproxy_sends_a_client_that_polls_to_the_same_server_each_time() {
    needs!(LoadBalancer);
    let folder = tempfile::tempdir().unwrap();
    let config = || Config {
        trusted_proxies: vec!["127.0.0.1".parse().unwrap()],
        ..Config::plain(([127, 0, 0, 1], 0).into())
    };
    let proxy = HaProxy::start(folder.path(), &[serve(config()), serve(config())]);
    wait_for("the page", || proxy.get("/").filter(|status| *status == 200));
    let path = "/socket.io/?EIO=4&transport=polling";
    for _ in 0..4 {
        let (status, open) = proxy.request("GET", path, "").unwrap();
        let sid = open.split("\"sid\":\"").nth(1).and_then(|rest| rest.split('"').next());
        let session = format!("{path}&sid={}", sid.unwrap_or_else(|| panic!("{status} {open}")));
        // Other requests do not change the client's server.
        assert_eq!(proxy.get("/"), Some(200));
        assert_eq!(proxy.request("POST", &session, "40"), Some((200, "ok".to_owned())));
        let (status, packet) = proxy.request("GET", &session, "").unwrap();
        assert!(status == 200 && packet.starts_with("40{"), "{status} {packet}");
    }
}

#[test]
fn the_unit_is_valid_and_starts_the_server_with_the_settings_of_the_folder() {
    needs!(Systemd);
    let folder = tempfile::tempdir().unwrap();
    let unit = std::fs::read_to_string(file("roomtone.service")).unwrap();
    let program = env!("CARGO_BIN_EXE_roomtone");
    let path = folder.path().join("roomtone.service");
    std::fs::write(&path, unit.replace("/usr/local/bin/roomtone", program)).unwrap();
    let output = Command::new("systemd-analyze").arg("verify").arg(&path).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !words.contains("roomtone.service:"), "{words}");

    // The command of the unit, with the project's settings at free ports.
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let settings = std::fs::read_to_string(file("config.toml")).unwrap();
    let settings = settings.replace("127.0.0.1:8443", "127.0.0.1:0").replace("127.0.0.1:9090", "127.0.0.1:0");
    let config = folder.path().join("config.toml");
    std::fs::write(&config, settings.replace("\"10s\"", "\"1s\"")).unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!((words[0], words[3]), ("/usr/local/bin/roomtone", "/etc/roomtone/config.toml"), "{line}");
    let args = [&words[1..3], &[config.to_str().unwrap()], &words[4..]].concat();
    let mut server = Program::start(folder.path(), &args);
    let link = server.link();
    let ready = ureq::get(format!("{link}health/ready")).call().unwrap();
    assert_eq!(ready.status().as_u16(), 200);
    server.signal("TERM");
    assert_eq!(server.end().0, 0);
}

/// Python that exits with 0 if the Compose file named by its argument fits the schema.
const FITS: &str = "
import importlib.util, json, pathlib, sys, jsonschema_rs, yaml
folder = pathlib.Path(importlib.util.find_spec('compose').submodule_search_locations[0])
schema = json.loads((folder / 'config/compose_spec.json').read_text())
jsonschema_rs.validator_for(schema).validate(yaml.safe_load(open(sys.argv[1])))
";

#[test]
fn the_compose_file_fits_its_schema() {
    needs!(ApiTester);
    let python = format!("{}/tests/peers/api-venv/bin/python", env!("CARGO_MANIFEST_DIR"));
    let check = |path: &str| Command::new(&python).args(["-c", FITS, path]).output().unwrap();
    let output = check(&file("compose.yaml"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("compose.yaml");
    let text = std::fs::read_to_string(file("compose.yaml")).unwrap();
    std::fs::write(&wrong, text.replace("restart: unless-stopped", "restarts: unless-stopped")).unwrap();
    let output = check(wrong.to_str().unwrap());
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && words.contains("ValidationError"), "{words}");
}

/// Python that prints a Compose file as JSON.
const AS_JSON: &str = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";

#[test]
fn the_parts_of_the_compose_file_find_each_other() {
    needs!(ApiTester);
    let python = format!("{}/tests/peers/api-venv/bin/python", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python).args(["-c", AS_JSON, &file("compose.yaml")]).output().unwrap();
    let all: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let services = &all["services"];
    let address =
        |name: &str| services[name]["networks"]["inside"]["ipv4_address"].as_str().unwrap().to_owned();
    let settings = std::fs::read_to_string(file("haproxy.cfg")).unwrap();
    for (name, variable) in
        [("one", "ROOMTONE_SERVER"), ("two", "ROOMTONE_SERVER_2"), ("three", "ROOMTONE_SERVER_3")]
    {
        let to = services["haproxy"]["environment"][variable].as_str().unwrap();
        assert_eq!(to, format!("{}:8443", address(name)));
        assert!(settings.contains(&format!("\"${{{variable}")), "{variable} is not in haproxy.cfg");
        let server = &services[name];
        assert_eq!(server["environment"]["ROOMTONE_ENGINE"], format!("redis://{}:6379", address("valkey")));
        let words: Vec<&str> =
            server["command"].as_array().unwrap().iter().filter_map(|word| word.as_str()).collect();
        assert_eq!(words[0], "/usr/local/bin/roomtone");
        assert_eq!(words[words.len() - 2..], ["--trust-proxy", &address("haproxy")]);
    }
}

#[cfg(feature = "engine")]
/// The names of metrics in a text, without the endings that belong to counters and histograms.
fn metric_names(text: &str) -> std::collections::BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metrics = words.filter(|word| word.starts_with("roomtone_") || word.starts_with("process_"));
    let plain = |name: &str| {
        let endings = ["_total", "_bucket", "_count", "_sum"];
        endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name).to_owned()
    };
    metrics.map(plain).collect()
}

#[cfg(feature = "engine")]
#[test]
fn dashboard_and_alerts_name_the_metrics_that_a_server_has() {
    needs!(Redis);
    let redis = crate::common::redis::Redis::start();
    let secret = "as long as a secret has to be, and longer";
    // The address has no listener: each event counts as failed.
    let urls = vec!["http://127.0.0.1:1/hook".parse().unwrap()];
    let secrets = vec!["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap()];
    let config = Config {
        metrics: Some(([127, 0, 0, 1], 0).into()),
        webhooks: WebhookConfig { urls, secrets, types: vec![] },
        api_secret: Some(Secret(secret.into())),
        engine: Some(Engine { address: redis.url().parse().unwrap(), prefix: Engine::PREFIX.to_owned() }),
        ..Config::plain(([127, 0, 0, 1], 0).into())
    };
    let server = smol::block_on(Server::bind(config)).unwrap();
    let address = server.address();
    let url = format!("http://{}/metrics", server.metrics_address().unwrap());
    let _running = smol::spawn(server.run(std::future::pending()));
    WebSocket::connect_to(address, "").register("ann");
    // A counter with labels is there once it has counted: more lists than are allowed at once.
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    wait_for("a refusal", || {
        let list = agent.get(format!("http://{address}/api/v1/rooms"));
        let answer = list.header("authorization", format!("Bearer {secret}")).call().unwrap();
        (answer.status() == 429).then_some(())
    });
    let texts = ["grafana.json", "alerts.yaml"].map(|name| std::fs::read_to_string(file(name)).unwrap());
    let named = texts.each_ref().map(|text| metric_names(text));
    assert!(named.iter().all(|names| names.len() > 4), "{named:?}");
    let own = until("metric of each name", PATIENCE, || {
        let text = ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap();
        let own: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let own = metric_names(&own.join(" "));
        let unknown: Vec<_> = named.iter().flatten().filter(|name| !own.contains(*name)).cloned().collect();
        if unknown.is_empty() { Ok(own) } else { Err(unknown) }
    });
    let missing: Vec<_> = own.difference(&named[0]).filter(|name| *name != "roomtone_build").collect();
    assert!(missing.is_empty(), "the dashboard does not show {missing:?}");
}
