//! Pools with peers of other makes: PyRTC as the server, RTCPool in Chromium as an endpoint.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::browser::Browser;
use crate::common::{Client, External, Program, Received, Stage, alone, needs, wait_for};
use roomtone::app::{Pool, PoolEvent, PoolOptions};
use roomtone::media::capture::SourceConfig;
use roomtone::media::receive::Track;
use roomtone::media::{Rates, Stream};
use roomtone::sdp::Kind;
use roomtone::signalling::Target;
use roomtone::tls::Trust;
use serde_json::json;

fn installed(what: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(what)
}

/// PyRTC, which makes every pool that is asked for.
struct PyRtc {
    child: Child,
    url: String,
    /// Folder of its clients.
    home: tempfile::TempDir,
}

impl PyRtc {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut child = Command::new(installed("venv/bin/python"))
            .arg(installed("pool_server.py"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(home.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self { child, url: format!("ws://127.0.0.1:{}", port.trim()), home }
    }

    /// It takes no more to kill it than one client's fault: it must have seen none.
    fn expect_alive(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "PyRTC died");
    }
}

impl Drop for PyRtc {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let stderr = std::fs::read_to_string(self.home.path().join("stderr"));
            eprintln!("PyRTC (ended: {:?}): {stderr:?}", self.child.try_wait());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server of ours that pages from anywhere may use.
fn our_server() -> Stage {
    Stage::serving(&["--allow-origin", "*"], &[])
}

/// Serves the page of RTCPool for as long as the test runs; its address.
fn pages() -> String {
    let script = std::fs::read(installed("bundle.js")).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = serve(&mut stream, &script);
        }
    });
    format!("http://{address}")
}

fn serve(stream: &mut TcpStream, script: &[u8]) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let length = stream.read(&mut request)?;
    let (kind, body) = match request[..length].starts_with(b"GET /page.js ") {
        true => ("text/javascript", script),
        false => {
            ("text/html", &b"<!doctype html><title>pool</title><body><script src=/page.js></script>"[..])
        }
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    )?;
    stream.write_all(body)
}

/// A browser in a pool.
fn tab(pages: &str, server: &str, brings: &str) -> Browser {
    let browser = Browser::start();
    browser.open(&format!("{pages}/?server={server}&pool=attic&{brings}"));
    browser
}

fn id_of(browser: &Browser) -> String {
    browser.wait("page.joined");
    browser.run("return page.joined").as_str().unwrap().to_owned()
}

fn expect_in(browser: &Browser, peer: &str) {
    browser.expect_of(&format!("page.videos['{peer}']"), &format!("page.connections['{peer}']"));
}

/// A client of ours in a pool of that server, and its id.
fn join(
    home: &Path,
    server: &str,
    change: impl for<'a> FnOnce(Client<'a>) -> Client<'a>,
) -> (Program, String) {
    let client = Client::new(home, &["join", "attic"]).server(&format!("ssp+{server}"));
    let mut program = change(client).start();
    let id = program.expect("registered", &[])["id"].as_str().unwrap().to_owned();
    (program, id)
}

#[test]
fn two_clients_meet_on_pyrtc() {
    needs!(Pools);
    let mut server = PyRtc::start();
    let received = Received::of_each();
    let (mut one, first) = join(server.home.path(), &server.url, |client| client.receiving(&received));
    let (mut two, second) = join(server.home.path(), &server.url, |client| client);
    two.expect("media", &[("peer", &first), ("kind", "video")]);
    received.from(&second).expect_moving_and_audible((0, 0), 20);
    two.quit();
    one.expect("peer", &[("peer", &second), ("state", "left")]);
    // Another comes, and finds PyRTC alive.
    let (mut three, _) = join(server.home.path(), &server.url, |client| client);
    three.expect("media", &[("peer", &first), ("kind", "video")]);
    server.expect_alive();
}

#[test]
fn a_client_and_a_page_of_rtcpool_on_pyrtc() {
    needs!(Browser, Pools);
    let (mut server, pages) = (PyRtc::start(), pages());
    let received = Received::of_each();

    // The client is there first, and the page brings sound, picture and a channel.
    let (mut client, me) = join(server.home.path(), &server.url, |client| client.receiving(&received));
    let page = tab(&pages, &server.url, "media&channel");
    let its = id_of(&page);
    received.from(&its).expect_moving_and_audible((0, 0), 20);
    expect_in(&page, &me);
    page.wait(&format!("page.channels['{me}']?.readyState === 'open'"));
    page.run(&format!("page.channels['{me}'].send('from the page')"));
    client.expect("message", &[("peer", &its), ("text", "from the page")]);
    client.say(&json!({"command": "say", "text": "from the client"}));
    page.wait(&format!("page.heard.some(([id, text]) => id === '{me}' && text === 'from the client')"));

    // It mutes by taking the tracks away, and gives them back.
    page.run("page.stream.mute('audio')");
    received.from(&its).expect_no_sound();
    page.run("page.stream.unmute('audio')");
    received.from(&its).expect_moving_and_audible(received.from(&its).mark(), 20);

    // It goes; another is there first.
    drop(page);
    client.expect("peer", &[("peer", &its), ("state", "left")]);
    client.quit();
    let page = tab(&pages, &server.url, "media");
    let its = id_of(&page);
    let (client, me) = join(server.home.path(), &server.url, |client| client.receiving(&received));
    received.from(&its).expect_moving_and_audible((0, 0), 20);
    expect_in(&page, &me);
    client.quit();
    page.wait(&format!("page.left.includes('{me}')"));
    server.expect_alive();
}

#[test]
fn two_pages_of_rtcpool_a_client_and_a_rooms_peer_on_our_server() {
    needs!(Browser, Pools);
    let _cores = alone();
    let pages = pages();
    let secret = "the back end of the other makes of peers";
    let stage = Stage::serving(&["--allow-origin", "*", "--api-secret", secret], &[]);
    let url = &stage.url;
    let pool = format!("{url}/ssp");
    let received = Received::of_each();
    let one = tab(&pages, &pool, "media");
    let first = id_of(&one);
    // This one brings nothing: nobody has to.
    let two = tab(&pages, &pool, "");
    let second = id_of(&two);
    expect_in(&two, &first);
    let describe = format!("{}/api/peers/{second}/description", url.replace("ws://", "http://"));
    let answer = ureq::put(&describe)
        .header("authorization", format!("Bearer {secret}"))
        .send_json(json!({"name": "Two"}))
        .unwrap();
    assert_eq!(answer.status(), 204);
    one.wait("page.described.some((told) => JSON.stringify(told).includes('Two'))");
    let (mut client, me) = join(stage.home(), &pool, |client| client.receiving(&received));
    received.from(&first).expect_moving_and_audible((0, 0), 20);
    expect_in(&one, &me);
    expect_in(&two, &me);
    let mut ann = stage.join("ann").start();
    ann.expect_all(&[
        ("media", &[("peer", &first), ("kind", "video")]),
        ("media", &[("peer", &me), ("kind", "video")]),
        ("peer", &[("peer", &second), ("state", "connected")]),
    ]);
    expect_in(&one, "ann");
    expect_in(&two, "ann");
    received.from("ann").expect_moving_and_audible((0, 0), 20);
    assert_eq!(client.expect("described", &[("peer", &second)])["description"]["name"], "Two");
    ann.quit();
    one.wait("page.left.includes('ann')");
    drop(two);
    client.expect("peer", &[("peer", &second), ("state", "left")]);
    expect_in(&one, &me);
}

#[test]
fn a_page_that_brings_a_channel_alone_is_talked_to() {
    needs!(Browser, Pools);
    let (mut server, pages) = (PyRtc::start(), pages());
    let page = tab(&pages, &server.url, "channel");
    let its = id_of(&page);
    let (mut client, me) =
        join(server.home.path(), &server.url, |client| client.without_media().with(&["--send-only"]));
    page.wait(&format!("page.channels['{me}']?.readyState === 'open'"));
    page.run(&format!("page.channels['{me}'].send('nothing to see')"));
    client.expect("message", &[("peer", &its), ("text", "nothing to see")]);
    client.say(&json!({"command": "say", "text": "nothing to hear"}));
    page.wait("page.heard.some(([, text]) => text === 'nothing to hear')");
    server.expect_alive();
}

#[test]
fn both_come_at_once_and_find_each_other() {
    needs!(Browser, Pools);
    let (mut server, pages) = (PyRtc::start(), pages());
    let received = Received::of_each();
    let url = server.url.clone();
    // The tab opens while the client starts: whoever is in first, both offer.
    let (page, (client, me)) = std::thread::scope(|scope| {
        let page = scope.spawn(|| tab(&pages, &url, "media&channel"));
        let client = join(server.home.path(), &url, |client| client.receiving(&received));
        (page.join().unwrap(), client)
    });
    let its = id_of(&page);
    received.from(&its).expect_moving_and_audible((0, 0), 20);
    expect_in(&page, &me);
    client.quit();
    server.expect_alive();
}

#[test]
fn a_camera_that_comes_to_a_connection_that_stands_is_seen() {
    needs!(Browser, Pools);
    let _cores = alone();
    let pages = pages();
    let stage = our_server();
    let url = &stage.url;
    let received = Received::of_each();
    let (mut client, me) = join(stage.home(), &format!("{url}/ssp"), |client| client.receiving(&received));
    // The sound is here before the offer that says what it is.
    let page = tab(&pages, &format!("{url}/ssp"), "media=2500&slow=500");
    let its = id_of(&page);
    expect_in(&page, &me);
    received.from(&its).expect_moving_and_audible((0, 0), 20);
    assert!(!client.has_seen("peer", &[("peer", &its), ("state", "reconnecting")]));
}

#[test]
fn a_collision_by_force_ends_well() {
    needs!(Browser, Pools);
    let pages = pages();
    let stage = our_server();
    let url = &stage.url;
    let pool = format!("{url}/ssp");
    // The page is there first, so it is the one that does not give way.
    let page = tab(&pages, &pool, "media&channel");
    let its = id_of(&page);
    smol::block_on(async {
        let target = Target::parse(&format!("ssp+{pool}"), Trust::System).unwrap();
        let own =
            Pool::join(target, "own".parse().unwrap(), "attic".parse().unwrap(), PoolOptions::default());
        let own = own.await.unwrap();
        let (failures, _) = smol::channel::bounded(16);
        let sources = [(Kind::Video, SourceConfig { size: Some((320, 240)), ..SourceConfig::named("test") })];
        let stream = Stream::start(&sources, Rates::fixed(300_000), failures).await.unwrap();
        let mut me = None;
        let mut tracks = Vec::new();
        let mut channels = 0;
        // Both want to change something again and again, in the same moment.
        for round in 0..4 {
            while tracks.len() < 2 || channels == 0 || me.is_none() {
                match own.next().await.unwrap() {
                    PoolEvent::Join { me: id, .. } => me = id,
                    PoolEvent::Track(_, track) => tracks.push(track),
                    PoolEvent::DataChannel(..) => channels += 1,
                    PoolEvent::Close(_, reason) => panic!("in round {round}: {reason:?}"),
                    _ => {}
                }
            }
            page.run("page.stream.mute('audio'); setTimeout(() => page.stream.unmute('audio'), 5)");
            match round % 2 {
                0 => own.add_stream(&stream).await,
                _ => own.remove_stream(&stream).await,
            }
            // The page receives video after the even rounds, and none after the others.
            page.wait(&format!(
                "page.connections['{}']?.getTransceivers().some((t) => t.receiver.track.kind === 'video' \
                 && /recv/.test(t.currentDirection)) === {}",
                me.as_ref().unwrap(),
                round % 2 == 0
            ));
        }
        own.add_stream(&stream).await;
        let me = me.unwrap();
        page.wait(&format!("page.videos['{me}']?.videoWidth === 320"));
        page.run(&format!("page.before = page.videos['{me}'].getVideoPlaybackQuality().totalVideoFrames"));
        page.wait(&format!(
            "page.videos['{me}'].getVideoPlaybackQuality().totalVideoFrames > page.before + 20"
        ));
        let frames = |track: &Track| track.counters.frames.load(std::sync::atomic::Ordering::Relaxed);
        let before: Vec<u64> = tracks.iter().map(frames).collect();
        wait_for("the page's streams", || {
            let now = tracks.iter().map(frames);
            now.zip(&before).all(|(now, before)| now > before + 20).then_some(())
        });
        assert_eq!(page.run(&format!("return page.connections['{me}'].connectionState")), "connected");
        own.leave().await;
    });
    page.wait("page.left.length === 1");
    assert!(!its.is_empty());
}

#[test]
fn pages_of_rtcpool_come_by_socket_io_too() {
    needs!(Browser, Pools);
    let _cores = alone();
    let pages = pages();
    let stage = our_server();
    let url = &stage.url;
    let http = url.replace("ws://", "http://");
    let received = Received::of_each();
    let page = tab(&pages, &http, "media&channel");
    let its = id_of(&page);
    // It began by polling, and went over to a WebSocket.
    page.wait("page.socket.io.engine.transport.name === 'websocket'");
    let (mut client, me) = join(stage.home(), &http, |client| client.receiving(&received));
    received.from(&its).expect_moving_and_audible((0, 0), 20);
    expect_in(&page, &me);
    // Endpoints without socket.io, and with polling alone, are in the same pool.
    let other = tab(&pages, &format!("{url}/ssp"), "");
    expect_in(&other, &me);
    let polling = tab(&pages, &http, "media&polling");
    let third = id_of(&polling);
    received.from(&third).expect_moving_and_audible((0, 0), 20);
    expect_in(&polling, &me);
    assert_eq!(polling.run("return page.socket.io.engine.transport.name"), "polling");
    drop(polling);
    client.expect("peer", &[("peer", &third), ("state", "left")]);
    page.run("page.socket.close()");
    client.expect("peer", &[("peer", &its), ("state", "left")]);
}

/// A server of another make that speaks ssp over socket.io.
struct SocketIoServer {
    _server: External,
    url: String,
    /// Folder of its clients.
    home: tempfile::TempDir,
}

impl SocketIoServer {
    fn start() -> Self {
        let mut server = External::start(Command::new("node").arg("server.js").current_dir(installed("")));
        let port = server.line("port ");
        let url = format!("http://127.0.0.1:{port}");
        Self { _server: server, url, home: tempfile::tempdir().unwrap() }
    }
}

#[test]
fn clients_meet_on_a_server_of_socket_io() {
    needs!(Pools);
    let server = SocketIoServer::start();
    let received = Received::of_each();
    let (mut one, first) = join(server.home.path(), &server.url, |client| client.receiving(&received));
    // The application's own events come, and go.
    assert_eq!(one.expect("application", &[("name", "motd")])["data"]["transport"], "websocket");
    one.say(&json!({"command": "event", "name": "greet", "data": {"seat": 7}}));
    assert_eq!(one.expect("application", &[("name", "greeted")])["data"]["seat"], 7);
    let (mut two, second) = join(server.home.path(), &server.url, |client| client);
    two.expect("media", &[("peer", &first), ("kind", "video")]);
    received.from(&second).expect_moving_and_audible((0, 0), 20);
    two.quit();
    one.expect("peer", &[("peer", &second), ("state", "left")]);
}
