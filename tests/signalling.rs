//! The library's signalling client, under smol and under the runtime that earlier clients used.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

use roomtone::protocol::PeerId;
use roomtone::server::{Config, Files, Identity, Server};
use roomtone::signalling::{Backend, ConnectError, Event, Frame, RoomClient, Socket, Target};
use roomtone::tls::Trust;

async fn register(target: Target) {
    let mut socket = Socket::connect(&target).await.unwrap();
    let id: PeerId = "ann".parse().unwrap();
    let mut client = RoomClient::new(&id);
    socket.send(client.hello().unwrap()).await.unwrap();
    let Frame::Text(line) = socket.receive().await else { panic!("closed") };
    assert_eq!(client.handle_text(&line), Event::Registered);
    socket.close().await;
}

fn server(identity: Option<Identity>) -> String {
    let config = Config { identity, ..Config::plain(([127, 0, 0, 1], 0).into()) };
    let server = smol::block_on(Server::bind(config)).unwrap();
    let address = server.address().to_string();
    smol::spawn(server.run(std::future::pending())).detach();
    address
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
        assert!(matches!(error, ConnectError::Certificate(..)), "{error}");
        assert!(error.to_string().contains("--ca FILE"), "{error}");
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
        assert!(matches!(error, ConnectError::Certificate(..)), "{error}");
    });
}

#[test]
fn what_is_no_server_is_told_apart() {
    use std::io::{Read, Write};
    let connect = |url: String| {
        smol::block_on(Socket::connect(&Target::parse(&url, Trust::System).unwrap())).unwrap_err().to_string()
    };
    // A port that nobody has: bound once, and let go.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(connect(format!("ws://{free}")).contains("is not reachable"));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let web = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let error = connect(format!("ws://{web}"));
    assert!(error.contains("does not speak WebSocket") && error.contains("404"), "{error}");
    assert!(connect(format!("wss://{web}")).contains("is it a ws:// server?"));
}
