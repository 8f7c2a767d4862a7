//! A signalling server that the test controls: it treats each connection as the test requests. It speaks the room
//! protocol, ssp, and ssp over socket.io, whichever the client begins with.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::handshake::server::{Request, Response};
use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::tungstenite::{self, Message, WebSocket};
use serde_json::{Value, json};

/// Treatment of a connection.
#[derive(Debug, Clone)]
pub enum Mood {
    /// Accepted, and served as long as the client stays.
    Good,
    /// Closed as soon as it is accepted.
    Close,
    /// Reset (RST) as soon as it is accepted.
    Reset,
    /// Accepted; nothing is read or sent as long as the test runs.
    Silence,
    /// Answered with this head of an HTTP response, and a page.
    Http(&'static str),
    /// Closed with this code and reason at the client's first message.
    Refuse(u16, &'static str),
    /// Registered, and closed at once.
    HelloThenClose,
    /// Registered and called, and closed at once.
    SessionThenClose,
    /// Registered and in the room, and closed at once.
    JoinedThenClose,
    /// Registered and in the room; then nothing is read or sent, and the socket stays open.
    Freeze,
}

/// A running server whose connections are treated as the test requests.
pub struct Moody {
    pub address: SocketAddr,
    connects: Arc<Mutex<Vec<Instant>>>,
    asked: Arc<Mutex<Vec<Instant>>>,
}

impl Moody {
    /// Starts a server. `mood` returns the treatment of the connection with that number, from 0 on.
    pub fn start(mood: impl Fn(usize) -> Mood + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connects = Arc::new(Mutex::new(vec![]));
        let seen = connects.clone();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                seen.lock().unwrap().push(Instant::now());
                let mood = mood(number);
                std::thread::spawn(move || treat(stream, &mood));
            }
        });
        Self { address, connects, asked: Arc::default() }
    }

    /// Starts a proxy before the server at `behind`. `mood` returns the treatment of the WebSocket with that number, and
    /// of requests for `/admission` until the next one; other requests are forwarded.
    pub fn before(behind: SocketAddr, mood: impl Fn(usize) -> Mood + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let moody =
            Self { address: listener.local_addr().unwrap(), connects: Arc::default(), asked: Arc::default() };
        let (connects, asked, mood) = (moody.connects.clone(), moody.asked.clone(), Arc::new(mood));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (connects, asked, mood) = (connects.clone(), asked.clone(), mood.clone());
                std::thread::spawn(move || {
                    let head = peek_head(&stream);
                    let number = connects.lock().unwrap().len();
                    if head.to_lowercase().contains("upgrade: websocket") {
                        connects.lock().unwrap().push(Instant::now());
                        treat(stream, &mood(number));
                    } else if head.starts_with("GET /admission ") {
                        asked.lock().unwrap().push(Instant::now());
                        treat(stream, &mood(number));
                    } else {
                        forward(stream, &head, behind);
                    }
                });
            }
        });
        moody
    }

    /// Returns the times of requests for `/admission`.
    pub fn asked(&self) -> Vec<Instant> {
        self.asked.lock().unwrap().clone()
    }

    /// Returns the times at which clients connected.
    pub fn connects(&self) -> Vec<Instant> {
        self.connects.lock().unwrap().clone()
    }
}

/// Returns the head of a request without reading it, as far as it has come.
fn peek_head(stream: &TcpStream) -> String {
    let mut head = vec![0; 8192];
    loop {
        let length = stream.peek(&mut head).unwrap_or(0);
        let text = String::from_utf8_lossy(&head[..length]).into_owned();
        if length == 0 || length == head.len() || text.contains("\r\n\r\n") {
            return text;
        }
        std::thread::yield_now();
    }
}

/// Reads one request with the head that was peeked, and answers as the server at `behind` does. The connection ends, so
/// that each request has its own.
fn forward(mut stream: TcpStream, head: &str, behind: SocketAddr) {
    let _ = stream.read_exact(&mut vec![0; head.len()]);
    let path = head.split(' ').nth(1).unwrap_or("/");
    let Ok(mut response) = ureq::get(format!("http://{behind}{path}")).call() else { return };
    let kind = response.headers().get("content-type").map_or("", |kind| kind.to_str().unwrap()).to_owned();
    let body = response.body_mut().read_to_vec().unwrap();
    let length = body.len();
    let head = format!("content-type: {kind}\r\ncontent-length: {length}\r\nconnection: close");
    let _ = write!(stream, "HTTP/1.1 200 OK\r\n{head}\r\n\r\n");
    let _ = stream.write_all(&body);
}

fn treat(mut stream: TcpStream, mood: &Mood) {
    match mood {
        Mood::Close => {}
        Mood::Reset => rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap(),
        Mood::Silence => std::thread::park(),
        Mood::Http(head) => {
            let mut asked = Vec::new();
            let mut byte = [0];
            while !asked.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                asked.push(byte[0]);
            }
            let page = "<html>the balancer has no server now</html>";
            let _ = write!(
                stream,
                "HTTP/1.1 {head}\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{page}",
                page.len()
            );
        }
        Mood::Good
        | Mood::Refuse(..)
        | Mood::HelloThenClose
        | Mood::SessionThenClose
        | Mood::JoinedThenClose
        | Mood::Freeze => drop(serve(stream, mood)),
    }
}

/// Serves one client, until the mood or the client ends the connection.
#[expect(clippy::result_large_err, reason = "tungstenite's own type")]
fn serve(stream: TcpStream, mood: &Mood) -> Option<()> {
    let mut is_socketio = false;
    let look = |request: &Request, response: Response| {
        is_socketio = request.uri().path().starts_with("/socket.io");
        Ok(response)
    };
    let mut socket = tungstenite::accept_hdr(stream, look).ok()?;
    if is_socketio {
        let open = json!({"sid": "s", "upgrades": [], "pingInterval": 25000, "pingTimeout": 20000});
        say(&mut socket, &format!("0{open}"))?;
    }
    loop {
        let Ok(Message::Text(line)) = socket.read() else { return None };
        let line = line.as_str().to_owned();
        if line == "40" {
            say(&mut socket, r#"40{"sid":"t"}"#)?;
            continue;
        }
        if let Mood::Refuse(code, words) = mood {
            return close(&mut socket, *code, words);
        }
        let joined = json!({"client_id": "me", "pool": "attic", "peers": [], "descriptions": {}});
        let is_hello = line.starts_with("HELLO");
        match line.split(' ').next().unwrap_or_default() {
            "HELLO" => say(&mut socket, "HELLO")?,
            "ROOM" => say(&mut socket, "ROOM_OK ")?,
            _ if line.starts_with("42[\"rtc:join\"") => {
                say(&mut socket, &format!("42{}", json!(["rtc:joined", joined])))?;
            }
            _ if is_join(&line) => {
                say(&mut socket, &json!({"type": "rtc:joined", "data": joined}).to_string())?
            }
            _ => continue,
        }
        match mood {
            Mood::HelloThenClose => return close(&mut socket, 1001, ""),
            Mood::SessionThenClose => {
                say(&mut socket, "SESSION_FROM eve")?;
                return close(&mut socket, 1000, "");
            }
            Mood::JoinedThenClose if !is_hello => return close(&mut socket, 1001, ""),
            Mood::Freeze if !is_hello => std::thread::park(),
            _ => {}
        }
    }
}

fn is_join(line: &str) -> bool {
    serde_json::from_str::<Value>(line).is_ok_and(|event| event["type"] == "rtc:join")
}

fn say(socket: &mut WebSocket<TcpStream>, text: &str) -> Option<()> {
    socket.send(Message::text(text)).ok()
}

fn close(socket: &mut WebSocket<TcpStream>, code: u16, reason: &str) -> Option<()> {
    socket.close(Some(CloseFrame { code: code.into(), reason: reason.into() })).ok()?;
    while socket.read().is_ok() {}
    None
}
