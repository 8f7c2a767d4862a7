//! A reverse proxy in front of a server, under a path of its own: connections through it die without a word, and the
//! server behind it can be away or talk nonsense.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::WebSocket;

/// What stands behind the proxy.
#[derive(Debug, Clone)]
pub enum Behind {
    Server(SocketAddr),
    /// Every connection is closed at once.
    Nobody,
    /// Every request is answered with this status, as a proxy does whose server restarts.
    Answers(u16),
    /// A WebSocket is told these lines after its first one, and closed. The rest is the server's.
    Says(SocketAddr, &'static [&'static str]),
}

struct Shared {
    path: &'static str,
    behind: Mutex<Behind>,
    /// Connections of another generation carry nothing any more.
    generation: AtomicUsize,
    sockets: Mutex<Vec<Instant>>,
}

pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Serves what is behind it under this path, which begins and ends with a slash.
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

    /// All connections there are carry nothing any more, and nobody is told.
    pub fn cut(&self) {
        self.shared.generation.fetch_add(1, SeqCst);
    }

    /// When each WebSocket was asked for.
    pub fn sockets(&self) -> Vec<Instant> {
        self.shared.sockets.lock().unwrap().clone()
    }
}

/// The head of a request, which stays to be read.
fn peek_head(stream: &TcpStream) -> Option<String> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = stream.peek(&mut buffer).ok().filter(|n| *n > 0)?;
        let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
        if let Some(end) = text.find("\r\n\r\n") {
            return Some(text[..end + 4].to_owned());
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
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
    // A connection for each request, so that no other path comes over it.
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
    // An end is no word either.
    if shared.generation.load(SeqCst) == generation {
        let _ = to.shutdown(Shutdown::Both);
    } else {
        std::thread::park();
    }
}
