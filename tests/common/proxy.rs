//! A reverse proxy under a path of its own: connections through it can die without a FIN, and the server behind it
//! can be away or answer nonsense.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::{WebSocket, wait_for};

/// Server behind the proxy.
#[derive(Debug, Clone)]
pub enum Behind {
    Server(SocketAddr),
    /// Closes every connection at once.
    Nobody,
    /// Answers every request with this status, like a proxy whose server restarts.
    Answers(u16),
    /// Sends these lines after the first line on a WebSocket, and closes it. Other requests go to the server.
    Says(SocketAddr, &'static [&'static str]),
}

struct Shared {
    path: &'static str,
    behind: Mutex<Behind>,
    /// Number of cuts: connections of an earlier generation carry nothing any more.
    generation: AtomicUsize,
    sockets: Mutex<Vec<Instant>>,
}

pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Serves `behind` under this path, which begins and ends with a slash.
    pub fn start(path: &'static str, behind: Behind) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (generation, sockets) = (AtomicUsize::new(0), Mutex::default());
        let shared = Arc::new(Shared { path, behind: Mutex::new(behind), generation, sockets });
        let kept = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = shared.clone();
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { address, shared: kept }
    }

    pub fn link(&self) -> String {
        format!("http://{}{}", self.address, self.shared.path)
    }

    pub fn put(&self, behind: Behind) {
        *self.shared.behind.lock().unwrap() = behind;
    }

    /// Silences all current connections: they carry nothing any more, and neither side gets a FIN.
    pub fn cut(&self) {
        self.shared.generation.fetch_add(1, SeqCst);
    }

    /// Returns the times at which WebSockets were requested.
    pub fn sockets(&self) -> Vec<Instant> {
        self.shared.sockets.lock().unwrap().clone()
    }
}

/// Returns the head of a request and leaves it unread in the socket.
fn peek_head(stream: &TcpStream) -> Option<String> {
    let mut buffer = vec![0; 16 * 1024];
    wait_for("the head of a request", || {
        let n = stream.peek(&mut buffer).unwrap_or(0);
        let text = String::from_utf8_lossy(&buffer[..n]);
        let end = text.find("\r\n\r\n");
        // A connection that ends before has no head.
        (n == 0 || end.is_some()).then(|| Some(text[..end? + 4].to_owned()))
    })
}

fn serve(mut stream: TcpStream, shared: &Arc<Shared>) {
    let Some(head) = peek_head(&stream) else { return };
    let is_socket = head.to_ascii_lowercase().contains("\r\nupgrade: websocket");
    if is_socket {
        shared.sockets.lock().unwrap().push(Instant::now());
    }
    let server = match shared.behind.lock().unwrap().clone() {
        Behind::Nobody => return,
        Behind::Answers(status) => {
            let reply = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.read_exact(&mut vec![0; head.len()]).unwrap();
            let _ = stream.write_all(reply.as_bytes());
            return;
        }
        Behind::Says(_, lines) if is_socket => {
            let mut ws = WebSocket::accept(stream);
            if ws.hear().is_some() {
                let _ = lines.iter().all(|line| ws.try_say(line));
            }
            return;
        }
        Behind::Server(server) | Behind::Says(server, _) => server,
    };
    let Some(request) = head.strip_prefix(&format!("GET {}", shared.path)) else {
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        return;
    };
    // Each HTTP request gets its own connection, because only the first path of a connection is rewritten.
    let request = match is_socket {
        true => request.to_owned(),
        false => request.replace("onnection: keep-alive", "onnection: close"),
    };
    stream.read_exact(&mut vec![0; head.len()]).unwrap();
    let mut upstream = TcpStream::connect(server).unwrap();
    upstream.write_all(format!("GET /{request}").as_bytes()).unwrap();
    let ways = [(stream.try_clone().unwrap(), upstream.try_clone().unwrap()), (upstream, stream)];
    let generation = shared.generation.load(SeqCst);
    for (from, to) in ways {
        let shared = shared.clone();
        std::thread::spawn(move || carry(from, to, &shared, generation));
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, shared: &Shared, generation: usize) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        let is_cut = shared.generation.load(SeqCst) != generation;
        if !is_cut && to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    // The end of a connection is not forwarded after a cut.
    if shared.generation.load(SeqCst) == generation {
        let _ = to.shutdown(Shutdown::Both);
    } else {
        std::thread::park();
    }
}
