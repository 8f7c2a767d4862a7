//! A server behind proxies: the addresses of clients come from `X-Forwarded-For` or the PROXY protocol.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::common::{PATIENCE, WebSocket, read_status, resumed, serve, wait_for};
use roomtone::protocol::Secret;
use roomtone::server::token::TokenConfig;
use roomtone::server::{Config, Identity, RateLimits, Server};

/// Settings of a server that trusts the proxies of these networks and accepts two connections of each client.
fn config(proxies: &[&str]) -> Config {
    let trusted_proxies = proxies.iter().map(|text| text.parse().unwrap()).collect();
    Config { trusted_proxies, per_address: 2, ..Config::plain(([127, 0, 0, 1], 0).into()) }
}

fn connect(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends bytes on a new connection; returns what the server answers until it has sent the head of a response or the
/// connection ends, and the connection.
fn send(server: SocketAddr, bytes: &[u8]) -> (String, TcpStream) {
    let mut stream = connect(server);
    let _ = stream.write_all(bytes);
    let mut answer = vec![];
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        match resumed(|| stream.read(&mut byte)) {
            Ok(1) => answer.push(byte[0]),
            Ok(_) | Err(_) => break,
        }
    }
    (String::from_utf8(answer).unwrap(), stream)
}

/// A request for a WebSocket, with further lines in its head.
fn upgrade(lines: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{lines}\r\n"
    )
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

/// A header of the PROXY protocol, version 2, for a client at an IPv4 address.
fn binary(client: [u8; 4]) -> Vec<u8> {
    let start = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c";
    [&start[..], &client, &[127, 0, 0, 1, 0x30, 0x39, 0, 80]].concat()
}

#[test]
fn connections_are_counted_for_the_client_that_a_trusted_proxy_names() {
    let server = serve(config(&["127.0.0.1"]));
    let forwarded =
        |client: &str| send(server, upgrade(&format!("x-forwarded-for: {client}\r\n")).as_bytes());
    let open: Vec<_> = (0..2).map(|_| forwarded("192.0.2.7")).collect();
    assert!(open.iter().all(|(answer, _)| status(answer) == "101"), "{open:?}");
    let (refused, _) = forwarded("192.0.2.7");
    assert_eq!(status(&refused), "429");
    // An address that the client itself wrote changes nothing.
    assert_eq!(status(&forwarded("198.51.100.1, 192.0.2.7").0), "429");
    assert_eq!(status(&forwarded("192.0.2.8").0), "101");
    // Each connection that ends makes room for another one.
    drop(open);
    wait_for("a free place", || (status(&forwarded("192.0.2.7").0) == "101").then_some(()));
}

#[test]
fn the_proxy_protocol_names_the_client_in_both_versions() {
    let server = serve(config(&["127.0.0.0/8"]));
    let text = |client: &str| format!("PROXY TCP4 {client} 127.0.0.1 12345 80\r\n").into_bytes();
    let ask = |header: Vec<u8>| send(server, &[header, upgrade("").into_bytes()].concat());
    let open = [ask(text("192.0.2.7")), ask(binary([192, 0, 2, 7]))];
    assert!(open.iter().all(|(answer, _)| status(answer) == "101"), "{open:?}");
    for header in [text("192.0.2.7"), binary([192, 0, 2, 7])] {
        assert_eq!(ask(header).0, "", "the third connection of a client is closed");
    }
    assert_eq!(status(&ask(binary([192, 0, 2, 8])).0), "101");
    assert_eq!(status(&ask(b"PROXY UNKNOWN\r\n".to_vec()).0), "101");
    // The proxy's own check, and requests without a header.
    let check = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00GET /health HTTP/1.0\r\n\r\n";
    assert_eq!(status(&send(server, check).0), "200");
    assert_eq!(status(&send(server, b"GET /health HTTP/1.0\r\n\r\n").0), "200");
    assert_eq!(status(&send(server, b"POST /health HTTP/1.1\r\nhost: localhost\r\n\r\n").0), "405");
    // The header may arrive in pieces.
    let mut stream = connect(server);
    for piece in [&b"PROX"[..], b"Y TCP4 192.0.2.9 127.0.0.1 1", b" 2\r", b"\nGET /health HTTP/1.0\r\n\r\n"] {
        stream.set_nodelay(true).unwrap();
        stream.write_all(piece).unwrap();
        std::thread::yield_now();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(status(&answer), "200");
}

#[test]
fn a_proxy_header_may_precede_tls() {
    use futures_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
    use futures_rustls::rustls::{ClientConfig, RootCertStore};
    use smol::io::{AsyncReadExt, AsyncWriteExt};
    let folder = tempfile::tempdir().unwrap();
    let identity = Some(Identity::own(folder.path()).unwrap());
    let server = serve(Config { identity, plain: false, ..config(&["127.0.0.1"]) });
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.path().join("cert.pem")).unwrap()).unwrap();
    let provider = std::sync::Arc::new(futures_rustls::rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    smol::block_on(async {
        let mut tcp = smol::net::TcpStream::connect(server).await.unwrap();
        tcp.write_all(&binary([192, 0, 2, 7])).await.unwrap();
        let connector = futures_rustls::TlsConnector::from(std::sync::Arc::new(client));
        let mut tls = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
        let request = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        tls.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = tls.read_to_string(&mut answer).await;
        assert_eq!(status(&answer), "200");
    });
    // Without TLS the client behind the proxy is redirected as any client of another machine is.
    let plain = [binary([192, 0, 2, 7]), b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec()].concat();
    assert_eq!(status(&send(server, &plain).0), "308");
}

#[test]
fn malformed_words_of_a_proxy_are_refused() {
    let server = serve(config(&["127.0.0.1"]));
    for header in [
        &b"PROXY TCP4 nonsense 127.0.0.1 1 2\r\n"[..],
        b"PROXY TCP4 192.0.2.7 127.0.0.1 1\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x0cxxxxxxxxxxxx",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x02xx",
    ] {
        let (answer, _) = send(server, &[header, upgrade("").as_bytes()].concat());
        assert_eq!(answer, "", "{header:?}");
    }
    for client in ["", "unknown", "192.0.2.7:80"] {
        let (answer, _) = send(server, upgrade(&format!("x-forwarded-for: {client}\r\n")).as_bytes());
        assert_eq!(status(&answer), "400", "{client}");
    }
}

#[test]
fn addresses_are_not_believed_from_others_than_the_trusted_proxies() {
    // Loopback is not limited: a client that could name another address would be.
    for proxies in [&[][..], &["192.0.2.1"]] {
        let server = serve(config(proxies));
        let open: Vec<_> =
            (0..4).map(|_| send(server, upgrade("x-forwarded-for: 192.0.2.7\r\n").as_bytes())).collect();
        assert!(open.iter().all(|(answer, _)| status(answer) == "101"), "{open:?}");
        for header in [b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n".to_vec(), binary([192, 0, 2, 7])] {
            let (answer, _) = send(server, &[header, upgrade("").into_bytes()].concat());
            assert_eq!(status(&answer), "400", "{answer}");
        }
        // The server goes on to serve.
        let mut ann = WebSocket::connect_to(server, "");
        ann.say("HELLO ann");
        ann.expect("HELLO");
    }
}

#[test]
fn the_client_behind_a_proxy_is_not_this_machine() {
    let secret = "as long as a secret has to be, and longer";
    let api_secret = Some(Secret(secret.into()));
    let tokens = TokenConfig { secrets: vec![Secret(secret.into())], ..TokenConfig::default() };
    let server = serve(Config { api_secret, tokens, ..config(&["127.0.0.1"]) });
    let ask = |path: &str, lines: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n");
        status(&send(server, head.as_bytes()).0).to_owned()
    };
    let bearer = format!("authorization: Bearer {secret}\r\n");
    assert_eq!(ask("/api/counts", &bearer), "200");
    assert_eq!(ask("/api/counts", &format!("{bearer}x-forwarded-for: 192.0.2.7\r\n")), "403");
    // Wrong tokens of a client slow down that client alone.
    let guess = |client: &str| ask("/admission?token=e30.e30.e30", &format!("x-forwarded-for: {client}\r\n"));
    let answers: Vec<_> = (0..12).map(|_| guess("192.0.2.7")).collect();
    assert!(answers[..10].iter().all(|status| status == "401") && answers[11] == "429", "{answers:?}");
    assert_eq!(guess("192.0.2.8"), "401");
}

#[test]
fn requests_of_a_proxy_are_limited_for_each_of_its_clients() {
    let server = serve(config(&["127.0.0.1"]));
    let stream = connect(server);
    let request = |client: &str| {
        format!("GET /nothing HTTP/1.1\r\nhost: localhost\r\nx-forwarded-for: {client}\r\n\r\n")
    };
    // Pipelined, so that the rate does not depend on the speed of this test.
    const MANY: usize = 2000;
    let requests = [request("192.0.2.7").repeat(MANY), request("192.0.2.8")].concat();
    let mut writer = stream.try_clone().unwrap();
    let sent = std::thread::spawn(move || writer.write_all(requests.as_bytes()));
    let mut reader = std::io::BufReader::new(stream);
    let mut answers: Vec<String> = (0..=MANY).map(|_| read_status(&mut reader)).collect();
    sent.join().unwrap().unwrap();
    assert_eq!(answers.pop().as_deref(), Some("404"), "another client on the same connection");
    assert!(answers[..200].iter().all(|status| status == "404"), "a burst");
    assert!(answers.iter().any(|status| status == "429"), "no limit");
}

#[test]
fn an_address_has_a_rate_of_new_connections() {
    let rates = RateLimits { connects: 1, ..RateLimits::default() };
    let server = serve(Config { rates, per_address: 100, ..config(&["127.0.0.1"]) });
    let forwarded =
        |client: &str| send(server, upgrade(&format!("x-forwarded-for: {client}\r\n")).as_bytes());
    // Five at once, and more while time passes: a refusal comes before the twentieth unless that takes 15 s.
    let open: Vec<_> = (0..20).map(|_| forwarded("192.0.2.7").0).collect();
    assert!(open[..5].iter().all(|answer| status(answer) == "101"), "{open:?}");
    let refused = open.iter().find(|answer| status(answer) == "429").expect("a limit");
    assert!(refused.contains("retry-after: 1\r\n") || refused.contains("retry-after: 2\r\n"), "{refused}");
    assert_eq!(status(&forwarded("192.0.2.8").0), "101");
    // Clients on this machine have no such limit.
    let local: Vec<_> = (0..20).map(|_| send(server, upgrade("").as_bytes())).collect();
    assert!(local.iter().all(|(answer, _)| status(answer) == "101"), "{local:?}");
}

/// A text message of a client (RFC 6455, 5.2), with a mask of zeros.
fn frame(text: &str) -> Vec<u8> {
    assert!(text.len() < 126, "a short frame");
    [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], text.as_bytes()].concat()
}

#[test]
fn a_client_that_sends_too_many_messages_is_read_more_slowly() {
    let rates = RateLimits { messages: 20, ..RateLimits::default() };
    let metrics = Some(([127, 0, 0, 1], 0).into());
    let server = smol::block_on(Server::bind(Config { rates, metrics, ..config(&["127.0.0.1"]) })).unwrap();
    let (address, metrics) = (server.address(), server.metrics_address().unwrap());
    let _running = smol::spawn(server.run(std::future::pending()));
    let limited = || {
        let text = ureq::get(format!("http://{metrics}/metrics")).call().unwrap().body_mut().read_to_string();
        let text = text.unwrap();
        let line =
            text.lines().find_map(|line| line.strip_prefix("roomtone_limited_total{which=\"messages\"} "));
        line.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    let talk = |id: &str, lines: &str, messages: usize| {
        let (answer, mut stream) = send(address, upgrade(lines).as_bytes());
        assert_eq!(status(&answer), "101");
        let all: Vec<u8> = (0..messages).flat_map(|_| frame("nonsense")).collect();
        stream.write_all(&[frame(&format!("HELLO {id}")), all].concat()).unwrap();
        // Each message is answered: none is lost.
        let answer = b"ERROR unknown command";
        let mut heard = vec![];
        let mut buffer = [0; 4096];
        while heard.windows(answer.len()).filter(|part| part == answer).count() < messages {
            let read = resumed(|| stream.read(&mut buffer)).unwrap();
            assert_ne!(read, 0, "the end of the connection");
            heard.extend_from_slice(&buffer[..read]);
        }
    };
    talk("local", "", 300);
    assert_eq!(limited(), 0, "clients on this machine have no such limit");
    talk("ann", "x-forwarded-for: 192.0.2.7\r\n", 100);
    assert_eq!(limited(), 0, "fewer than the burst");
    talk("bob", "x-forwarded-for: 192.0.2.8\r\n", 300);
    assert!(limited() > 0);
}
