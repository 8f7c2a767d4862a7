//! A WebSocket in the test's own hands.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use async_tungstenite::tungstenite;
use async_tungstenite::tungstenite::client::IntoClientRequest;

use super::{PATIENCE, Resumed};

/// A WebSocket in the test's own hands.
pub struct WebSocket {
    ws: tungstenite::WebSocket<Resumed<TcpStream>>,
}

impl WebSocket {
    pub fn connect(url: &str) -> Self {
        Self::open(url, url.trim_start_matches("ws://"))
    }

    fn open(url: &str, address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { ws: tungstenite::client(url, Resumed(stream)).unwrap().0 }
    }

    /// To a server's path and query.
    pub fn connect_to(address: impl std::fmt::Display, query: &str) -> Self {
        Self::open(&format!("ws://{address}/{query}"), &address.to_string())
    }

    /// To a server's path and query, as a proxy does for the client at `client`.
    pub fn connect_for(client: &str, address: impl std::fmt::Display, query: &str) -> Self {
        let mut request = format!("ws://{address}/{query}").into_client_request().unwrap();
        request.headers_mut().insert("x-forwarded-for", client.parse().unwrap());
        let stream = TcpStream::connect(address.to_string()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { ws: tungstenite::client(request, Resumed(stream)).unwrap().0 }
    }

    pub fn accept(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { ws: tungstenite::accept(Resumed(stream)).unwrap() }
    }

    /// Registers as `id` in the HELLO protocol.
    pub fn register(&mut self, id: &str) {
        self.say(&format!("HELLO {id}"));
        self.expect("HELLO");
    }

    pub fn say(&mut self, text: &str) {
        self.ws.send(tungstenite::Message::text(text)).unwrap();
    }

    /// Says it again and again, as a server does (RFC 6455, 5.2: frames without a mask), until the other side is gone.
    pub fn say_without_end(&self, text: &str) {
        assert!(text.len() < 126, "a short frame");
        let frame = [&[0x81, text.len() as u8], text.as_bytes()].concat();
        let (mut stream, frames) = (self.ws.get_ref().0.try_clone().unwrap(), frame.repeat(10_000));
        std::thread::spawn(move || while stream.write_all(&frames).is_ok() {});
    }

    pub fn binary(&mut self, bytes: &[u8]) {
        self.ws.send(tungstenite::Message::binary(bytes.to_vec())).unwrap();
    }

    pub fn close(&mut self, code: u16, reason: &str) {
        let frame = tungstenite::protocol::CloseFrame { code: code.into(), reason: reason.into() };
        self.ws.close(Some(frame)).unwrap();
        while self.ws.read().is_ok() {}
    }

    /// The next text; nothing where the other side is gone.
    pub fn hear(&mut self) -> Option<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < until, "nothing but pings");
            match self.ws.read() {
                Ok(tungstenite::Message::Text(text)) => return Some(text.as_str().to_owned()),
                Ok(tungstenite::Message::Ping(_) | tungstenite::Message::Pong(_)) => {}
                end => {
                    // The test shows it if it fails.
                    eprintln!("a connection of the test ended: {end:?}");
                    return None;
                }
            }
        }
    }

    pub fn expect(&mut self, text: &str) {
        assert_eq!(self.hear().as_deref(), Some(text));
    }

    /// Says it where that may fail, since the other side may be gone by now.
    pub fn try_say(&mut self, text: &str) -> bool {
        self.ws.send(tungstenite::Message::text(text)).is_ok()
    }

    /// Waits for a close frame of that code and reason.
    pub fn expect_close(mut self, code: u16, reason: &str) {
        self.hear_close(code, reason);
    }

    /// Waits for a close frame of that code and reason, and for the end of the connection (FIN) after it.
    pub fn expect_end(mut self, code: u16, reason: &str) {
        self.hear_close(code, reason);
        // A client does not end the connection itself: it waits for the server's end (RFC 6455, 7.1.1).
        let read = self.ws.get_mut().read(&mut [0; 16]);
        assert_eq!(read.expect("the end of the connection"), 0, "bytes after a close frame");
    }

    /// Sends a close frame without waiting for its answer.
    pub fn begin_close(&mut self, code: u16, reason: &str) {
        let frame = tungstenite::protocol::CloseFrame { code: code.into(), reason: reason.into() };
        self.ws.close(Some(frame)).unwrap();
    }

    /// Sends raw bytes, which need not be a frame.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.ws.get_mut().write_all(bytes).unwrap();
    }

    fn hear_close(&mut self, code: u16, reason: &str) {
        loop {
            match self.ws.read() {
                Ok(tungstenite::Message::Close(Some(frame))) => {
                    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (code, reason));
                    return;
                }
                Ok(tungstenite::Message::Ping(_) | tungstenite::Message::Text(_)) => {}
                other => panic!("no close frame but {other:?}"),
            }
        }
    }
}

/// Returns a client that is registered as `id`.
pub fn peer(server: std::net::SocketAddr, id: &str) -> WebSocket {
    registered(server, "", id)
}

/// Returns a client that is registered as `id` and understands roomtone's extensions of the protocol.
pub fn extended_peer(server: std::net::SocketAddr, id: &str) -> WebSocket {
    registered(server, "?roomtone=1", id)
}

fn registered(server: std::net::SocketAddr, query: &str, id: &str) -> WebSocket {
    let mut peer = WebSocket::connect_to(server, query);
    peer.register(id);
    peer
}
