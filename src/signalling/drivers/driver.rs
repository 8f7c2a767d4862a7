//! The driver of a [`Signaller`]: executes its outputs with WebSockets and HTTP requests, and waits for its timer.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::{Duration, Instant};

use smol::Task;
use smol::channel::{self, Receiver};
use smol::future::or;

use super::super::error::{ABNORMAL, ConnectError};
use super::super::event::Event;
use super::super::persistent::Persistent;
use super::super::signaller::{
    ConnId, Endpoint, Frame, In, Out, Registration, RequestId, Response, Signaller,
};
use super::super::target::Target;
use super::http;
use super::websocket::Socket;
use crate::base::timeout::{sleep_until, timeout};

/// Maximum number of WebSockets that one signaller has open or is opening; further ones fail.
const MAX_SOCKETS: usize = 4;
/// Maximum number of HTTP requests without a response; further ones fail.
const MAX_REQUESTS: usize = 16;
/// Time limit for [`Driver::close`], which completes HTTP requests and closing handshakes.
const CLOSE: Duration = Duration::from_secs(2);
/// Time limit for [`Driver::close`] at a media server. The back end has shorter limits: 5 s for the response to an offer,
/// then 2 s for the request that ends the session.
const CLOSE_SESSION: Duration = Duration::from_secs(8);

/// A WebSocket of the signaller.
enum Conn {
    Opening(Task<Result<Box<Socket>, ConnectError>>),
    Open(Box<Socket>),
}

/// A WebSocket that is being closed.
struct Closing {
    task: Task<()>,
    /// A channel without messages, whose end shows that the WebSocket is closed; any number of tasks can wait for it.
    closed: Receiver<Infallible>,
}

type Wait<'a> = Pin<Box<dyn Future<Output = In> + Send + 'a>>;

impl Conn {
    /// Waits until the WebSocket is open or has failed to open; once it is open, for the next frame. Cancel-safe.
    async fn next(&mut self, id: ConnId) -> In {
        let opened = match self {
            Self::Opening(task) => task.await,
            Self::Open(socket) => return In::Frame(id, socket.receive().await),
        };
        match opened {
            Ok(socket) => {
                let headers = socket.headers();
                *self = Self::Open(socket);
                In::Opened(id, headers)
            }
            Err(error) => In::Failed(id, error),
        }
    }
}

/// A client's connection to a server: a signaller, and the WebSockets and HTTP requests that it ordered. The driver
/// only executes orders; the signaller knows the protocol, and decides when to reconnect.
pub struct Driver {
    target: Target,
    signaller: Box<dyn Signaller>,
    conns: BTreeMap<ConnId, Conn>,
    requests: BTreeMap<RequestId, Task<Result<Response, ConnectError>>>,
    closing: Vec<Closing>,
    /// The events not reported yet.
    events: VecDeque<Event>,
    /// The server's IP address on the latest WebSocket or HTTP response.
    server: Option<IpAddr>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Driver({})", self.target.name())
    }
}

impl Driver {
    /// Registers for the first time, and joins the room of `registration` if it has one. [`Driver::next`] then returns
    /// the events of this registration first.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the first attempt fails. A registration that is lost later is repeated.
    pub async fn open(target: Target, registration: Registration) -> Result<Self, ConnectError> {
        let has_room = registration.room.is_some();
        let signaller = Persistent::new(&target, registration, fastrand::f64);
        let mut driver = Self::new(target, Box::new(signaller));
        driver.handle(In::Register);
        let mut early = VecDeque::new();
        loop {
            let event = driver.next().await;
            if let Event::Ended(error) = event {
                return Err(error);
            }
            let is_done =
                matches!((has_room, &event), (false, Event::Registered) | (true, Event::Joined { .. }));
            early.push_back(event);
            if is_done {
                early.append(&mut driver.events);
                driver.events = early;
                return Ok(driver);
            }
        }
    }

    /// Returns the driver of a signaller, which does nothing before the first command.
    fn new(target: Target, signaller: Box<dyn Signaller>) -> Self {
        Self {
            target,
            signaller,
            conns: BTreeMap::new(),
            requests: BTreeMap::new(),
            closing: vec![],
            events: VecDeque::new(),
            server: None,
        }
    }

    /// Returns the server's IP address on the latest WebSocket or HTTP response; `None` before the first one, or behind a
    /// proxy.
    pub fn server_address(&self) -> Option<IpAddr> {
        self.server
    }

    /// Returns the next event; never completes after [`Event::Ended`]. Cancel-safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let input = self.wait().await;
            match &input {
                In::Opened(id, _) => {
                    if let Some(Conn::Open(socket)) = self.conns.get(id) {
                        self.server = socket.server_address();
                    }
                }
                In::Failed(id, _) => drop(self.conns.remove(id)),
                In::Frame(id, Frame::Closed(code, reason)) => {
                    tracing::info!("the connection to the server ended: {code} {reason}");
                    // A close frame of the server is answered (RFC 6455, 5.5.1).
                    match *code {
                        ABNORMAL => drop(self.conns.remove(id)),
                        _ => self.close_one(*id),
                    }
                }
                In::Response(id, result) => {
                    self.requests.remove(id);
                    self.server = result.as_ref().map_or(self.server, |response| response.server);
                }
                _ => {}
            }
            self.handle(input);
        }
    }

    /// Ends the session at the server: sends the pending frames, closes all WebSockets with the closing handshake (RFC
    /// 6455, 7.1.2), and completes the HTTP requests, also those that end the session; gives up after two seconds, at a media
    /// server after eight. Returns warnings about sessions that were not ended.
    pub async fn close(mut self) -> Vec<String> {
        self.events.clear();
        self.handle(In::Close);
        for id in self.conns.keys().copied().collect::<Vec<_>>() {
            self.close_one(id);
        }
        let is_stream = self.target.capabilities().single_exchange;
        let all = async {
            while !self.requests.is_empty() {
                let input = self.wait().await;
                if let In::Response(id, _) = &input {
                    self.requests.remove(id);
                }
                self.handle(input);
            }
            for closing in std::mem::take(&mut self.closing) {
                closing.task.await;
            }
        };
        timeout(if is_stream { CLOSE_SESSION } else { CLOSE }, all).await;
        let warning = |event| match event {
            Event::Warning(text) => Some(text),
            _ => None,
        };
        self.events.into_iter().filter_map(warning).collect()
    }

    /// Waits for the first of: a WebSocket that is open or failed to open, a frame, a response, the signaller's timer.
    /// Cancel-safe.
    async fn wait(&mut self) -> In {
        let until = self.signaller.poll_timeout();
        let mut first: Wait<'_> = Box::pin(async move {
            sleep_until(until).await;
            In::Timeout
        });
        for (id, conn) in &mut self.conns {
            first = Box::pin(or(first, conn.next(*id)));
        }
        for (id, task) in &mut self.requests {
            first = Box::pin(or(first, async move { In::Response(*id, task.await) }));
        }
        first.await
    }

    /// Gives the signaller an input, such as a command of the application, and executes the outputs that result. Frames that
    /// the network does not accept at once are sent during [`Driver::next`].
    pub fn handle(&mut self, input: In) {
        self.signaller.handle(Instant::now(), input);
        self.execute_outputs();
        for conn in self.conns.values_mut() {
            if let Conn::Open(socket) = conn {
                socket.write();
            }
        }
    }

    fn execute_outputs(&mut self) {
        while let Some(output) = self.signaller.poll_output() {
            match output {
                Out::Connect(id, endpoint) => self.connect(id, endpoint),
                Out::Send(id, frame) => {
                    if let Some(Conn::Open(socket)) = self.conns.get_mut(&id) {
                        socket.queue(frame);
                    }
                }
                Out::Close(id) => self.close_one(id),
                Out::Silence(id, longest) => {
                    if let Some(Conn::Open(socket)) = self.conns.get_mut(&id) {
                        socket.shorten_silence(longest);
                    }
                }
                Out::Request(id, _) if self.requests.len() >= MAX_REQUESTS => {
                    let why = format!("{MAX_REQUESTS} HTTP requests are without a response");
                    self.signaller.handle(Instant::now(), In::Response(id, Err(ConnectError::Broken(why))));
                }
                Out::Request(id, request) => {
                    let target = self.target.clone();
                    self.requests.insert(id, smol::spawn(async move { http::send(&target, &request).await }));
                }
                Out::Abandon(id) => drop(self.requests.remove(&id)),
                Out::Event(event) => self.events.push_back(event),
            }
        }
    }

    /// Begins to open a WebSocket, once all earlier ones that are being closed are closed.
    fn connect(&mut self, id: ConnId, endpoint: Endpoint) {
        let target = self.target.clone();
        let is_too_many = self.conns.len() >= MAX_SOCKETS;
        let closing: Vec<_> = self.closing.iter().map(|closing| closing.closed.clone()).collect();
        let task = smol::spawn(async move {
            // A server that still has the client's old connection may refuse the client's id.
            for closed in closing {
                let _ = closed.recv().await;
            }
            if is_too_many {
                let why = format!("{MAX_SOCKETS} WebSockets are open already");
                return Err(ConnectError::Broken(why));
            }
            Socket::connect_to(&target, &endpoint).await.map(Box::new)
        });
        self.conns.insert(id, Conn::Opening(task));
    }

    /// Begins to close an open WebSocket, or abandons one that is being opened.
    fn close_one(&mut self, id: ConnId) {
        self.closing.retain(|closing| !closing.task.is_finished());
        if let Some(Conn::Open(socket)) = self.conns.remove(&id) {
            let (end, closed) = channel::bounded(1);
            let task = smol::spawn(async move {
                socket.close().await;
                drop(end);
            });
            self.closing.push(Closing { task, closed });
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
