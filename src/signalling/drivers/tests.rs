//! Tests of the driver over loopback: with a signaller that does what the test says, and with the toy protocol.

use std::sync::{Arc, Mutex};

use async_tungstenite::tungstenite::Message;
use async_tungstenite::tungstenite::handshake::server::{Request as Upgrade, Response as Upgraded};
use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::{WebSocketStream, accept_hdr_async};
use smol::block_on;
use smol::channel::Sender;
use smol::future::zip;
use smol::io::{AsyncReadExt, AsyncWriteExt};
use smol::net::{TcpListener, TcpStream};
use smol::stream::StreamExt;

use super::*;
use crate::base::lock::lock;
use crate::signalling::reconnect::Ended;
use crate::signalling::signaller::Request;
use crate::signalling::testing::{Toy, target};

/// The time limit of what must not wait for another peer; far below the drivers' own limits.
const SOON: Duration = Duration::from_secs(8);

type Timeout = Arc<Mutex<Option<Instant>>>;

/// A signaller whose outputs come from the test. Reports timers, and WebSockets that open and end, as events.
struct Puppet {
    outputs: Receiver<Out>,
    events: VecDeque<Out>,
    timeout: Timeout,
}

impl Signaller for Puppet {
    fn handle(&mut self, _now: Instant, input: In) {
        let event = match input {
            In::Opened(id, _) => format!("opened {}", id.0),
            In::Frame(id, Frame::Closed(_, reason)) => format!("closed {}: {reason}", id.0),
            In::Response(id, Err(error)) => format!("request {}: {error}", id.0),
            In::Timeout => {
                *lock(&self.timeout) = None;
                "timeout".to_owned()
            }
            _ => return,
        };
        self.events.push_back(Out::Event(Event::Junk(event)));
    }

    fn poll_output(&mut self) -> Option<Out> {
        self.events.pop_front().or_else(|| self.outputs.try_recv().ok())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        *lock(&self.timeout)
    }

    fn is_idle(&self) -> bool {
        true
    }
}

/// A driver, and the strings of its puppet.
struct Stage {
    driver: Driver,
    outputs: Sender<Out>,
    timeout: Timeout,
    listener: TcpListener,
}

impl Stage {
    fn new() -> Self {
        let (outputs, of_puppet) = channel::unbounded();
        let listener = block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let timeout = Timeout::default();
        let puppet = Puppet { outputs: of_puppet, events: VecDeque::new(), timeout: timeout.clone() };
        let driver = Driver::new(target(&url(&listener)), Box::new(puppet));
        Self { driver, outputs, timeout, listener }
    }

    /// Gives the driver these outputs of the signaller, all at once.
    fn execute(&mut self, outputs: impl IntoIterator<Item = Out>) {
        outputs.into_iter().for_each(|output| self.outputs.try_send(output).unwrap());
        self.driver.handle(In::Register);
    }

    fn connect(&self, id: u64) -> Out {
        Out::Connect(ConnId(id), self.driver.target.endpoint())
    }

    /// Opens the WebSocket `id`; returns the server's side.
    async fn open(&mut self, id: u64) -> WebSocketStream<TcpStream> {
        self.execute([self.connect(id)]);
        let (server, event) = zip(accept(&self.listener), self.driver.next()).await;
        assert_eq!(event, Event::Junk(format!("opened {id}")));
        server.0
    }
}

fn url(listener: &TcpListener) -> String {
    format!("ws://{}", listener.local_addr().unwrap())
}

/// Accepts a WebSocket; chooses the last of the offered subprotocols. Returns also the request.
async fn accept(listener: &TcpListener) -> (WebSocketStream<TcpStream>, Upgrade) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut seen = None;
    #[expect(clippy::result_large_err, reason = "the type of the library's callback")]
    let answer = |request: &Upgrade, mut response: Upgraded| {
        seen = Some(request.clone());
        if let Some(offered) = request.headers().get("sec-websocket-protocol") {
            let last = offered.to_str().unwrap().rsplit(", ").next().unwrap().parse().unwrap();
            response.headers_mut().insert("sec-websocket-protocol", last);
        }
        Ok(response)
    };
    let ws = accept_hdr_async(stream, answer).await.unwrap();
    (ws, seen.unwrap())
}

async fn next(server: &mut WebSocketStream<TcpStream>) -> Message {
    server.next().await.unwrap().unwrap()
}

#[test]
fn abandoning_an_opening_websocket_does_not_cancel_an_earlier_closing_handshake() {
    let mut stage = Stage::new();
    block_on(async {
        let mut server = stage.open(1).await;
        stage.execute([Out::Close(ConnId(1)), stage.connect(2), Out::Close(ConnId(2))]);
        assert_eq!(next(&mut server).await, Message::Close(None));
        // A third WebSocket waits for the first, and opens.
        drop(server);
        stage.open(3).await;
    });
}

#[test]
fn frames_before_a_close_are_sent_before_the_close_frame() {
    let mut stage = Stage::new();
    block_on(async {
        let mut server = stage.open(1).await;
        let large = "x".repeat(1 << 20);
        let frames = (0..12).map(|_| Out::Send(ConnId(1), Frame::Text(large.clone())));
        stage.execute(frames.chain([Out::Close(ConnId(1))]));
        for _ in 0..12 {
            assert_eq!(next(&mut server).await.len(), large.len());
        }
        assert_eq!(next(&mut server).await, Message::Close(None));
    });
}

#[test]
fn closing_the_driver_completes_a_pending_request() {
    let mut stage = Stage::new();
    block_on(async {
        let url = stage.driver.target.beside("last");
        let request = Request { method: "DELETE", url, headers: vec![], body: b"gone".to_vec() };
        stage.execute([Out::Request(RequestId(1), request)]);
        let serve = async {
            let (mut stream, _) = stage.listener.accept().await.unwrap();
            let mut read = vec![];
            while !read.ends_with(b"\r\n\r\ngone") {
                let mut byte = [0];
                assert_eq!(stream.read(&mut byte).await.unwrap(), 1, "the request is cut off");
                read.extend(byte);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        };
        zip(stage.driver.close(), serve).await;
    });
}

#[test]
fn closing_the_driver_waits_for_no_abandoned_request() {
    let mut stage = Stage::new();
    block_on(async {
        let url = stage.driver.target.beside("slow");
        let request = Request { method: "PATCH", url, headers: vec![], body: vec![] };
        stage.execute([Out::Request(RequestId(1), request)]);
        let _connection = stage.listener.accept().await.unwrap();
        stage.execute([Out::Abandon(RequestId(1)), Out::Event(Event::Warning("before".into()))]);
        assert!(stage.driver.requests.is_empty());
        stage.outputs.try_send(Out::Event(Event::Warning("not ended".into()))).unwrap();
        assert_eq!(stage.driver.close().await, ["not ended"]);
    });
}

#[test]
fn requests_beyond_the_bound_fail_at_once() {
    const MORE: usize = 5;
    let mut stage = Stage::new();
    let url = stage.driver.target.beside("slow");
    let request = |number| {
        let request = Request { method: "GET", url: url.clone(), headers: vec![], body: vec![] };
        Out::Request(RequestId(number), request)
    };
    stage.execute((0..(MAX_REQUESTS + MORE) as u64).map(request));
    assert_eq!((stage.driver.requests.len(), stage.driver.events.len()), (MAX_REQUESTS, MORE));
}

#[test]
fn a_close_frame_of_the_server_is_answered_with_its_code() {
    let mut stage = Stage::new();
    block_on(async {
        let mut server = stage.open(1).await;
        let close = CloseFrame { code: 4001.into(), reason: "moved".into() };
        server.close(Some(close.clone())).await.unwrap();
        assert_eq!(stage.driver.next().await, Event::Junk("closed 1: moved".into()));
        assert_eq!(next(&mut server).await, Message::Close(Some(close)));
        // Another WebSocket waits for the end of the first, and opens.
        drop(server);
        stage.open(2).await;
    });
}

#[test]
fn a_server_that_does_not_read_delays_no_timer_and_loses_nothing() {
    let mut stage = Stage::new();
    block_on(async {
        let mut server = stage.open(1).await;
        // More than the buffers of both sockets hold.
        let frames = (0..16).map(|number| Out::Send(ConnId(1), Frame::Binary(vec![number; 1 << 20])));
        stage.execute(frames);
        *lock(&stage.timeout) = Some(Instant::now());
        let event = timeout(SOON, stage.driver.next()).await;
        assert_eq!(event, Some(Event::Junk("timeout".into())));
        let read = async {
            for number in 0..16 {
                assert_eq!(next(&mut server).await, Message::binary(vec![number; 1 << 20]));
            }
            *lock(&stage.timeout) = Some(Instant::now());
            drop(server);
        };
        zip(read, stage.driver.next()).await;
    });
}

#[test]
fn a_server_that_leaves_too_many_messages_unread_counts_as_gone() {
    let mut stage = Stage::new();
    block_on(async {
        let _server = stage.open(1).await;
        let large = Frame::Binary(vec![0; 1 << 20]);
        let large = std::iter::repeat_n(large, 16).chain(std::iter::repeat_n(Frame::Text("x".into()), 2000));
        stage.execute(large.map(|frame| Out::Send(ConnId(1), frame)));
        let event = timeout(SOON, stage.driver.next()).await;
        assert_eq!(event, Some(Event::Junk("closed 1: the server does not read".into())));
    });
}

#[test]
fn subprotocols_binary_frames_and_a_second_websocket_work_end_to_end() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = target(&url(&listener));
        let mut driver = Driver::new(target.clone(), Box::new(Toy::new(&target)));
        driver.handle(In::Register);
        let serve = async {
            let (mut first, request) = accept(&listener).await;
            assert_eq!(request.headers()["sec-websocket-protocol"], Toy::SUBPROTOCOLS.join(", "));
            assert_eq!(next(&mut first).await, Message::binary(Toy::GREETING.to_vec()));
            first.send(Message::text("secret")).await.unwrap();
            let (second, request) = accept(&listener).await;
            assert_eq!(
                (request.uri().path(), &request.headers()["x-token"]),
                ("/media", &"secret".parse().unwrap())
            );
            (first, second)
        };
        let ((mut first, mut second), event) = zip(serve, driver.next()).await;
        assert_eq!(event, Event::Registered);

        // Each WebSocket carries its own frames, in both directions.
        for (name, server) in [(Toy::SECOND, &mut second), (Toy::FIRST, &mut first)] {
            driver.handle(In::Application(name.to_owned(), serde_json::json!([name])));
            assert_eq!(next(server).await, Message::binary(format!("[{name:?}]").into_bytes()));
            server.send(Message::binary(vec![7_u8])).await.unwrap();
            assert_eq!(driver.next().await, Event::Application(name.to_owned(), serde_json::json!([7])));
        }

        // The second ends with a code of the protocol, and the first goes on.
        driver.handle(In::Release(Ended::InOrder));
        let Message::Close(Some(close)) = next(&mut second).await else { panic!("no close frame") };
        assert_eq!((u16::from(close.code), close.reason.as_str()), Toy::CLOSE);
        first.send(Message::binary(vec![8_u8])).await.unwrap();
        assert_eq!(driver.next().await, Event::Application(Toy::FIRST.into(), serde_json::json!([8])));
        let end = async move { next(&mut first).await };
        assert_eq!(zip(end, driver.close()).await.0, Message::Close(None));
    });
}
