//! Executes the outputs of a [`Signaller`] with WebSockets, HTTP requests and timers.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Instant;

use smol::Task;
use smol::future::{or, pending};

use super::super::error::ConnectError;
use super::super::event::Event;
use super::super::persistent::Persistent;
use super::super::signaller::{
    Command, ConnId, Endpoint, Frame, In, Out, Registration, RequestId, Response, Signaller,
};
use super::super::target::Target;
use super::http;
use super::websocket::Socket;

/// The largest number of WebSockets that one signaller has open at a time; further ones fail.
const MAX_SOCKETS: usize = 4;

/// A WebSocket of the signaller.
enum Conn {
    Opening(Task<Result<Box<Socket>, ConnectError>>),
    Open(Box<Socket>),
}

/// The reason why the driver stopped waiting.
enum Woken {
    Opened(ConnId, Result<Box<Socket>, ConnectError>),
    Frame(ConnId, Frame),
    Response(RequestId, Result<Response, ConnectError>),
    Timer,
}

type Wait<'a> = Pin<Box<dyn Future<Output = Woken> + Send + 'a>>;

/// A client's side of a signalling protocol at work: opens WebSockets and sends HTTP requests as the signaller wants, which
/// also decides about reconnecting.
pub struct Driver {
    target: Target,
    signaller: Box<dyn Signaller>,
    conns: BTreeMap<ConnId, Conn>,
    requests: BTreeMap<RequestId, Task<Result<Response, ConnectError>>>,
    /// The WebSockets that are being closed.
    closing: Vec<Task<()>>,
    /// The events not reported yet.
    events: VecDeque<Event>,
    server: Option<IpAddr>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Driver({})", self.target.name())
    }
}

impl Driver {
    /// Registers for the first time, and joins the room of `registration` if it has one.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] if the first attempt fails. A connection that is lost later is opened again.
    pub async fn open(target: Target, registration: Registration) -> Result<Self, ConnectError> {
        let has_room = registration.room.is_some();
        let signaller = Box::new(Persistent::new(&target, registration, fastrand::f64));
        let mut driver = Self {
            target,
            signaller,
            conns: BTreeMap::new(),
            requests: BTreeMap::new(),
            closing: vec![],
            events: VecDeque::new(),
            server: None,
        };
        driver.handle(In::Command(Command::Register));
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

    /// Returns the server's IP address on the latest WebSocket; `None` before the first one, or behind a proxy.
    pub fn server_address(&self) -> Option<IpAddr> {
        self.server
    }

    /// Gives the signaller a command. Frames leave with the next [`Driver::next`] or [`Driver::flush`], HTTP requests at
    /// once.
    pub fn command(&mut self, command: Command) {
        self.handle(In::Command(command));
    }

    /// Returns the next event; never completes after [`Event::Ended`]. Cancel-safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Event {
        loop {
            self.flush().await;
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            let input = match self.wait().await {
                Woken::Opened(id, Ok(socket)) => {
                    self.server = socket.server_address();
                    let headers = socket.headers();
                    self.conns.insert(id, Conn::Open(socket));
                    In::Opened(id, headers)
                }
                Woken::Opened(id, Err(error)) => {
                    self.conns.remove(&id);
                    In::Failed(id, error)
                }
                Woken::Frame(id, frame) => {
                    if let Frame::Closed(code, reason) = &frame {
                        tracing::info!("the connection to the server ended: {code} {reason}");
                        self.conns.remove(&id);
                    }
                    In::Frame(id, frame)
                }
                Woken::Response(id, response) => {
                    self.requests.remove(&id);
                    In::Response(id, response)
                }
                Woken::Timer => In::Timeout,
            };
            self.handle(input);
        }
    }

    /// Sends the queued frames. Cancel-safe. Errors are reported by [`Driver::next`], as the end of the connection.
    pub async fn flush(&mut self) {
        for conn in self.conns.values_mut() {
            if let Conn::Open(socket) = conn {
                let _ = socket.flush().await;
            }
        }
    }

    /// Closes all WebSockets with the closing handshake (RFC 6455, 7.1.2), and abandons pending HTTP requests.
    pub async fn close(mut self) {
        self.flush().await;
        for id in self.conns.keys().copied().collect::<Vec<_>>() {
            self.close_one(id);
        }
        for task in self.closing {
            task.await;
        }
    }

    /// Waits for the first of: a frame, a result, a timer. Cancel-safe.
    async fn wait(&mut self) -> Woken {
        let until = self.signaller.poll_timeout();
        let mut first: Wait<'_> = Box::pin(async move {
            match until {
                Some(until) => smol::Timer::at(until).await,
                None => pending().await,
            };
            Woken::Timer
        });
        for (id, conn) in &mut self.conns {
            let id = *id;
            first = match conn {
                Conn::Opening(task) => Box::pin(or(first, async move { Woken::Opened(id, task.await) })),
                Conn::Open(socket) => {
                    Box::pin(or(first, async move { Woken::Frame(id, socket.receive().await) }))
                }
            };
        }
        for (id, task) in &mut self.requests {
            let id = *id;
            first = Box::pin(or(first, async move { Woken::Response(id, task.await) }));
        }
        first.await
    }

    fn handle(&mut self, input: In) {
        self.signaller.handle(Instant::now(), input);
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
                Out::Request(id, request) => {
                    let target = self.target.clone();
                    self.requests.insert(id, smol::spawn(async move { http::send(&target, &request).await }));
                }
                Out::Event(event) => self.events.push_back(event),
            }
        }
    }

    fn connect(&mut self, id: ConnId, endpoint: Endpoint) {
        let (target, closing) = (self.target.clone(), std::mem::take(&mut self.closing));
        let is_too_many = self.conns.len() >= MAX_SOCKETS;
        let task = smol::spawn(async move {
            // A server that still has the client's old connection may refuse the client's id.
            for task in closing {
                task.await;
            }
            match is_too_many {
                true => {
                    Err(ConnectError::Broken(format!("more than {MAX_SOCKETS} WebSockets are open already")))
                }
                false => Socket::open(&target, &endpoint).await.map(Box::new),
            }
        });
        self.conns.insert(id, Conn::Opening(task));
    }

    fn close_one(&mut self, id: ConnId) {
        if let Some(Conn::Open(socket)) = self.conns.remove(&id) {
            self.closing.retain(|task| !task.is_finished());
            self.closing.push(smol::spawn(socket.close()));
        }
    }
}
