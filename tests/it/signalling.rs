//! The library's signalling client, under smol and under the runtime that earlier clients used.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::common::{ANY, free_address, serve};
use futures_rustls::rustls;
use roomtone::server::{Config, Files, Identity};
use roomtone::signalling::{ConnectError, Driver, Event, Frame, Proxies, Registration, Socket, Target};
use roomtone::tls::{ClientCertificate, Trust};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

async fn register(target: Target) {
    let registration = Registration { id: "ann".parse().unwrap(), room: None, calls: None };
    let mut driver = Driver::open(target, registration).await.unwrap();
    assert_eq!(driver.next().await, Event::Registered);
    driver.close().await;
}

fn server(identity: Option<Identity>) -> String {
    let allowed_hosts = vec!["somewhere.example".to_owned()];
    let config = Config { identity, allowed_hosts, ..Config::plain(ANY) };
    serve(config).to_string()
}

#[test]
fn a_client_runs_under_smol() {
    let address = server(None);
    smol::block_on(register(Target::parse(&format!("ws://{address}"), Trust::System).unwrap()));
}

#[test]
fn a_client_runs_under_async_std() {
    let address = server(None);
    async_std::task::block_on(register(Target::parse(&format!("ws://{address}"), Trust::System).unwrap()));
}

#[test]
fn whom_a_client_trusts() {
    let folder = tempfile::tempdir().unwrap();
    let address = server(Some(Identity::own(folder.path()).unwrap()));
    let target = |trust| Target::parse(&format!("wss://{address}"), trust).unwrap();
    smol::block_on(async {
        let error = Socket::connect(&target(Trust::System)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Issuer(..)), "{error}");
        register(target(Trust::File(folder.path().join("cert.pem")))).await;
        register(target(Trust::Anybody)).await;
        let error = Socket::connect(&target(Trust::File("nowhere.pem".into()))).await.unwrap_err();
        assert!(error.to_string().contains("nowhere.pem"));
    });
}

/// Writes a certificate of the kind that `openssl req -x509` makes (its own issuer, CA:TRUE), and its key.
fn self_signed(folder: &std::path::Path, names: &[&str]) -> Files {
    let mut params =
        rcgen::CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
            .unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let files = Files { cert: folder.join("self.pem"), key: folder.join("self-key.pem") };
    std::fs::write(&files.cert, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

#[test]
fn a_self_signed_certificate_that_is_named_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let files = self_signed(folder.path(), &["127.0.0.1"]);
    let address = server(Some(Identity::load(files.clone()).unwrap()));
    let target = |trust| Target::parse(&format!("wss://{address}"), trust).unwrap();
    smol::block_on(async {
        register(target(Trust::File(files.cert))).await;
        let error = Socket::connect(&target(Trust::System)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Issuer(..)), "{error}");
    });
}

#[test]
fn what_is_no_server_is_told_apart() {
    let connect = |url: String| {
        smol::block_on(Socket::connect(&Target::parse(&url, Trust::System).unwrap())).unwrap_err().to_string()
    };
    // A port that nobody has: bound once, and let go.
    let free = free_address();
    assert!(connect(format!("ws://{free}")).contains("is not reachable"));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let web = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let error = connect(format!("ws://{web}"));
    assert!(error.contains("does not speak WebSocket") && error.contains("404"), "{error}");
    assert!(connect(format!("wss://{web}")).contains(&format!("its URL is ws://{web}")));
}

/// Starts an HTTP proxy that connects every request to one server; returns its address and the hosts that were
/// requested. With `wants_password` it requires `ann:p@ss`.
fn proxy(server: &str, wants_password: bool) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
    let (server, hosts) = (server.to_owned(), asked.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (server, hosts) = (server.clone(), hosts.clone());
            std::thread::spawn(move || pass_on(stream, &server, wants_password, &hosts));
        }
    });
    (address, asked)
}

fn pass_on(mut client: TcpStream, server: &str, wants_password: bool, hosts: &Mutex<Vec<String>>) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && matches!(client.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let authority = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap();
    hosts.lock().unwrap().push(authority.to_owned());
    // printf ann:p@ss | base64
    if wants_password && !head.contains("Proxy-Authorization: Basic YW5uOnBAc3M=\r\n") {
        let _ = client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n");
        return;
    }
    let mut server = TcpStream::connect(server).unwrap();
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    let _ = std::io::copy(&mut server, &mut client);
}

fn through(proxy: SocketAddr, user: &str, no_proxy: &str) -> Proxies {
    let (url, except) = (format!("http://{user}{proxy}"), no_proxy.to_owned());
    Proxies::read(move |name| match name {
        "ALL_PROXY" => Some(url.clone()),
        "NO_PROXY" => Some(except.clone()),
        _ => None,
    })
}

#[test]
fn a_server_behind_an_http_proxy_is_reached() {
    let folder = tempfile::tempdir().unwrap();
    let files = self_signed(folder.path(), &["somewhere.example"]);
    let (plain, tls) = (server(None), server(Some(Identity::load(files.clone()).unwrap())));
    let (to_plain, asked) = proxy(&plain, true);
    let (to_tls, asked_for_tls) = proxy(&tls, false);
    let target = |url: &str, trust| Target::parse(url, trust).unwrap();
    smol::block_on(async {
        // The proxy resolves the name, which this machine cannot resolve.
        let plain = target("ws://somewhere.example", Trust::System);
        register(plain.clone().proxies(through(to_plain, "ann:p%40ss@", ""))).await;
        register(
            target("wss://somewhere.example:8443", Trust::File(files.cert)).proxies(through(to_tls, "", "")),
        )
        .await;
        assert_eq!(*asked.lock().unwrap(), ["somewhere.example:80"]);
        assert_eq!(*asked_for_tls.lock().unwrap(), ["somewhere.example:8443"]);
        for (user, words) in
            [("", "it wants a user and a password (407)"), ("ann:secret@", "does not take the user")]
        {
            let wrong = plain.clone().proxies(through(to_plain, user, ""));
            let error = Socket::connect(&wrong).await.unwrap_err().to_string();
            assert!(
                error.contains(words) && error.contains("ALL_PROXY") && !error.contains("secret"),
                "{error}"
            );
        }
    });
}

#[test]
fn a_server_that_no_proxy_excepts_is_reached_directly() {
    let address = server(None);
    let free = free_address();
    let target = |no_proxy| {
        let target = Target::parse(&format!("ws://{address}"), Trust::System).unwrap();
        target.proxies(through(free, "", no_proxy))
    };
    smol::block_on(async {
        register(target("localhost,127.0.0.0/8")).await;
        let error = Socket::connect(&target("localhost")).await.unwrap_err().to_string();
        let words =
            format!("is not reachable through the proxy http://{free} (ALL_PROXY): it is not reachable");
        assert!(error.contains(&words), "{error}");
    });
}

#[test]
fn the_zone_of_a_link_local_address_is_its_interface() {
    let config = Config::plain("[::1]:0".parse().unwrap());
    let port = serve(config).port();
    let target = |zone| Target::parse(&format!("ws://[::1%{zone}]:{port}"), Trust::System).unwrap();
    smol::block_on(async {
        // Loopback is interface 1 on Linux.
        for zone in ["lo", "1", "25lo"] {
            register(target(zone)).await;
        }
        let error = Socket::connect(&target("no-such")).await.unwrap_err().to_string();
        assert!(error.contains("no network interface 'no-such'") && error.contains("there are: "), "{error}");
        let bare = Target::parse(&format!("ws://[fe80::1]:{port}"), Trust::System).unwrap();
        let error = Socket::connect(&bare).await.unwrap_err().to_string();
        assert!(error.contains("[fe80::1%eth0]"), "{error}");
    });
}

/// Starts a server that accepts only clients with that certificate; returns its URL and its own certificate.
fn picky(
    folder: &std::path::Path,
    client: &CertificateDer<'static>,
    version: &'static rustls::SupportedProtocolVersion,
) -> (String, Files) {
    let files = self_signed(folder, &["127.0.0.1"]);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(client.clone()).unwrap();
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let chain = CertificateDer::pem_file_iter(&files.cert).unwrap().map(Result::unwrap).collect();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(&files.key).unwrap())
        .unwrap();
    let acceptor = futures_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = smol::block_on(smol::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    smol::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            smol::spawn(async move {
                let tls = acceptor.accept(stream).await.ok()?;
                let mut ws = async_tungstenite::accept_async(tls).await.ok()?;
                ws.send("HELLO".into()).await.ok()
            })
            .detach();
        }
    })
    .detach();
    (address, files)
}

#[test]
fn a_server_that_asks_for_a_certificate_gets_ours() {
    let folder = tempfile::tempdir().unwrap();
    let own = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        let path = |end: &str| folder.path().join(format!("{name}-{end}.pem"));
        let own = ClientCertificate { cert: path("cert"), key: path("key") };
        std::fs::write(&own.cert, certificate.pem()).unwrap();
        std::fs::write(&own.key, key.serialize_pem()).unwrap();
        (own, certificate.der().clone())
    };
    let ((ann, der), (eve, _)) = (own("ann"), own("eve"));
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let (address, files) = picky(folder.path(), &der, version);
        let target = Target::parse(&format!("wss://{address}"), Trust::File(files.cert)).unwrap();
        smol::block_on(async {
            let mut socket =
                Socket::connect(&target.clone().client_certificate(Some(ann.clone()))).await.unwrap();
            assert_eq!(socket.receive().await, Frame::Text("HELLO".into()));
            let error =
                async |own| Socket::connect(&target.clone().client_certificate(own)).await.unwrap_err();
            let none = error(None).await;
            assert!(matches!(none, ConnectError::ClientCertificate(..)), "{version:?}: {none}");
            let other = error(Some(eve.clone())).await.to_string();
            assert!(
                other.contains("does not take the certificate in") && other.contains("eve-cert.pem"),
                "{other}"
            );
            let mixed = ClientCertificate { cert: ann.cert.clone(), key: eve.key.clone() };
            let mixed = error(Some(mixed)).await;
            assert!(matches!(mixed, ConnectError::File(_)), "{mixed}");
        });
    }
}
