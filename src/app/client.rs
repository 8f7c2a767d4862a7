//! A client of a server: registration, commands and reports, which calls and rooms share.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smol::channel::Receiver;
use smol::future::{or, pending};

use super::command::{Change, Command};
use super::error::ClientError;
use super::ice::Ice;
use super::plan::{ALL, MediaPlan};
use super::presentation::{Notice, Presentation};
use super::wire::POLICY;
use super::{Event, PeerState, Sink};
use crate::protocol::hello::ADMISSION;
use crate::protocol::{IceServer, PeerId, RoomId};
use crate::signalling::drivers::http;
use crate::signalling::reconnect::ATTEMPT;
use crate::signalling::{self, Backend, Closing, ConnectError, Frame, Hello, Protocol, Socket, Ssp, Target};

/// Close code that stands for a missing close frame (RFC 6455, 7.4.1).
const ABNORMAL: u16 = 1006;
/// Maximum number of application events kept until the client has joined the pool; further events are dropped.
const MAX_CAME: usize = 64;

/// Something that the loops wait for.
pub(super) enum Happening<T> {
    /// From the conference or the call.
    Outside(T),
    Command(Command),
    Notice(Notice),
    Timer,
}

/// A client of one server.
pub struct Client {
    pub(super) target: Target,
    pub(super) id: PeerId,
    pub(super) plan: MediaPlan,
    pub(super) commands: Receiver<Command>,
    pub(super) sink: Sink,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({:?})", self.id)
    }
}

impl Client {
    /// Creates a client that is not connected.
    pub fn new(target: Target, id: PeerId, plan: MediaPlan, commands: Receiver<Command>, sink: Sink) -> Self {
        Self { target, id, plan, commands, sink }
    }

    pub(super) fn warn(&self, text: &str) {
        (self.sink)(&Event::Warning { text: text.to_owned() });
    }

    pub(super) fn tell(&self, peer: &str, state: PeerState, reason: Option<String>) {
        (self.sink)(&Event::Peer { peer: peer.to_owned(), state, reason });
    }

    /// Waits for the next command; forever if no program can send one.
    async fn command(&self) -> Command {
        match self.commands.recv().await {
            Ok(command) => command,
            Err(_) => pending().await,
        }
    }

    /// Completes the mixed recording of all peers.
    pub(super) async fn finish(&self) {
        if let Some(recorded) = self.plan.finish().await {
            (self.sink)(&Event::recorded(ALL, &recorded.path, recorded.error));
        }
    }

    /// Changes the media that is sent, and reports the change.
    pub(super) async fn change(&self, change: Change) {
        let change = match change {
            Change::Toggle(kind) => Change::Mute(kind, !self.plan.is_muted(kind)),
            change => change,
        };
        let (kind, what, changed) = match change {
            Change::Toggle(_) => return,
            Change::Mute(kind, muted) => {
                let what = if muted { "muted" } else { "on" };
                (kind, what.to_owned(), Ok(self.plan.set_muted(kind, muted)))
            }
            Change::Source(kind, source, device) => {
                (kind, source.clone(), self.plan.switch(kind, source, device).await)
            }
        };
        match changed {
            Ok(true) => (self.sink)(&Event::Sending { kind: kind.as_str(), what }),
            Ok(false) => self.warn(&format!("no {kind} is sent here")),
            Err(error) => self.warn(&error.to_string()),
        }
    }

    /// Waits until the user ends the program.
    pub(super) async fn interrupted<T>(&self) -> Result<T, ClientError> {
        loop {
            if let Command::Quit | Command::Interrupt = self.command().await {
                return Err(ClientError::Interrupted);
            }
        }
    }

    /// Waits for the first of `outside`, a command, a notice of the presentation, and the time `until`.
    pub(super) async fn next<T>(
        &self,
        outside: impl Future<Output = T>,
        presentation: &Presentation<'_>,
        until: Option<Instant>,
    ) -> Happening<T> {
        let timer = async {
            match until {
                Some(time) => smol::Timer::at(time).await,
                None => pending().await,
            };
            Happening::Timer
        };
        let outside = async { Happening::Outside(outside.await) };
        let command = async { Happening::Command(self.command().await) };
        let notice = async { Happening::Notice(presentation.next().await) };
        // No source starves another: the server's messages pause, commands and notices are few, and the timer is
        // checked each time.
        or(timer, or(command, or(outside, notice))).await
    }

    /// What it takes to register.
    pub(super) fn registration(&self) -> Registration {
        Registration {
            target: self.target.clone(),
            id: self.id.clone(),
            ice: self.plan.ice.clone(),
            sink: self.sink.clone(),
            calls: None,
            room: None,
            impatient: true,
        }
    }
}

/// A connection over which the client is registered.
pub(super) struct Registered {
    pub(super) socket: Socket,
    pub(super) backend: Box<dyn Backend>,
    /// Events received during the registration and not reported yet, above all the participants of the room.
    pub(super) came: VecDeque<signalling::Event>,
    /// Number of connections that were opened for this registration, for the limits of the backoff.
    pub(super) connects: u32,
}

/// Registers a client, in whatever task.
#[derive(Clone)]
pub(super) struct Registration {
    pub(super) target: Target,
    pub(super) id: PeerId,
    pub(super) ice: Arc<Ice>,
    pub(super) sink: Sink,
    /// Who is to be called: said together with our name, where the server reads on meanwhile.
    pub(super) calls: Option<PeerId>,
    /// The room to join; registration succeeds only after the join.
    pub(super) room: Option<RoomId>,
    /// Allows up to three connections in quick succession, which pools of PyRTC need (see [`Self::connect`]).
    pub(super) impatient: bool,
}

impl Registration {
    /// Returns the registration for later reconnects: without a peer to call, since the call names its peer itself, and
    /// with a single connection for each attempt.
    pub(super) fn again(self) -> Self {
        Self { calls: None, impatient: false, ..self }
    }

    /// The server's protocol is one of pools.
    pub(super) fn names_pools(&self) -> bool {
        matches!(self.target.protocol(), Protocol::Ssp(_))
    }

    pub(super) async fn register(&self) -> Result<Registered, ConnectError> {
        let mut said = false;
        match self.register_and(self.calls.as_ref(), &mut said).await {
            // It may have been too soon: while somebody of that name is asked whether it still lives.
            Err(ConnectError::Refused(_)) if said => self.register_and(None, &mut said).await,
            done => done,
        }
    }

    /// Registers, and calls somebody at once where the server reads on; whether that was `said`.
    async fn register_and(&self, call: Option<&PeerId>, said: &mut bool) -> Result<Registered, ConnectError> {
        let late = async {
            smol::Timer::after(ATTEMPT).await;
            let (seconds, suggestion) = (ATTEMPT.as_secs(), self.target.suggestion());
            let why =
                format!("it took the connection, but not our registration, within {seconds} s; {suggestion}");
            Err(ConnectError::Silent(self.target.name(), why))
        };
        or(self.enter(call, said), late).await
    }

    /// Registers the client's id, and joins the room if there is any.
    async fn enter(&self, call: Option<&PeerId>, said: &mut bool) -> Result<Registered, ConnectError> {
        let (mut socket, connects) = self.connect().await?;
        self.ice.server_is_at(socket.server_address());
        let mut backend: Box<dyn Backend> = match self.target.protocol() {
            Protocol::Hello => Box::new(Hello::new(&self.id)),
            Protocol::Ssp(version) => Box::new(Ssp::new(version)),
        };
        let hello = backend.hello();
        // A protocol without a registration message sends the client's name with the join.
        let mut is_registered = hello.is_none();
        if let Some(hello) = hello {
            socket.send(hello).await?;
            if let Some(dial) = call.filter(|_| socket.reads_ahead()).and_then(|peer| backend.dial(peer)) {
                *said = true;
                socket.send(dial).await?;
            }
        }
        let (mut room, mut came) = (self.room.as_ref(), VecDeque::new());
        loop {
            if is_registered {
                match (&self.room, room.take()) {
                    (None, _) => return Ok(Registered { socket, backend, came, connects }),
                    (Some(_), Some(room)) => socket.send(backend.join(room)).await?,
                    (Some(_), None) => {}
                }
            }
            let line = match socket.receive().await {
                Frame::Text(line) => line,
                Frame::Binary(_) => continue,
                Frame::Closed(code, reason) => return Err(self.closed(code, &reason, &*backend)),
            };
            let Some(event) = backend.handle_text(&line) else { continue };
            match event {
                signalling::Event::Registered => {
                    self.tell(&self.id);
                    is_registered = true;
                }
                joined @ signalling::Event::Joined { .. } => {
                    came.push_back(joined);
                    return Ok(Registered { socket, backend, came, connects });
                }
                signalling::Event::Refused(reason) => return Err(ConnectError::Refused(reason)),
                signalling::Event::Ended(error) => return Err(error),
                signalling::Event::Foreign(words) => return Err(self.foreign(&words)),
                signalling::Event::IceServers(servers) => self.ice.take(servers).await,
                other @ signalling::Event::Application(..) if came.len() < MAX_CAME => came.push_back(other),
                _ => {}
            }
        }
    }

    /// Returns the error for a connection that the server closed before the client was registered.
    fn closed(&self, code: u16, reason: &str, backend: &dyn Backend) -> ConnectError {
        let broken = || {
            let why =
                format!("{} closed it before it took our registration ({code} {reason})", self.target.name());
            ConnectError::Broken(why)
        };
        match code {
            POLICY => ConnectError::Dismissed(reason.to_owned()),
            ABNORMAL => broken(),
            _ => match backend.handle_close(code, reason) {
                Closing::Refused(why) => ConnectError::Refused(why),
                Closing::Foreign(words) => self.foreign(&words),
                Closing::Silent => broken(),
            },
        }
    }

    fn foreign(&self, words: &str) -> ConnectError {
        let why = format!("it said '{words}'; {}", self.target.suggestion());
        ConnectError::OtherProtocol(self.target.name(), why)
    }

    /// Connects, and returns the socket with the number of connections that were opened. PyRTC never answers a client
    /// whose first bytes arrive a moment after its connection; the client then gives up the connection after two
    /// seconds and opens another one.
    async fn connect(&self) -> Result<(Socket, u32), ConnectError> {
        const MOMENT: Duration = Duration::from_secs(2);
        let impatient = if self.impatient && self.names_pools() { 2 } else { 0 };
        for tried in 0..impatient {
            let late = async {
                smol::Timer::after(MOMENT).await;
                None
            };
            if let Some(socket) = or(async { Some(Socket::connect(&self.target).await) }, late).await {
                return Ok((socket?, tried + 1));
            }
        }
        Ok((Socket::connect(&self.target).await?, impatient + 1))
    }

    /// Requests fresh STUN and TURN servers from the signalling server, in a background task. A server without
    /// [`ADMISSION`] names fresh ones at the next registration.
    pub(super) fn renew_ice(&self) {
        self.ice.renewal_begins();
        let (target, ice) = (self.target.clone(), self.ice.clone());
        smol::spawn(async move {
            match fresh_servers(&target).await {
                Ok(servers) => ice.take(servers).await,
                Err(why) => tracing::info!("no fresh STUN and TURN servers: {why}"),
            }
        })
        .detach();
    }

    /// The server knows us by this name.
    pub(super) fn tell(&self, id: &PeerId) {
        (self.sink)(&Event::Registered { id: id.to_string(), server: self.target.name() });
    }
}

/// Requests the STUN and TURN servers by HTTP; the error is a text for people.
async fn fresh_servers(target: &Target) -> Result<Vec<IceServer>, String> {
    let response = http::get(target, &target.beside(ADMISSION)).await.map_err(|error| error.to_string())?;
    if response.status != 200 {
        return Err(format!("{} answered {}", target.name(), response.status));
    }
    let answer: serde_json::Value = serde_json::from_slice(&response.body).unwrap_or_default();
    IceServer::parse_list(&answer["iceServers"].to_string())
        .ok_or_else(|| "an answer without iceServers".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::options::PathOptions;
    use crate::server::ice::{Credentials, IceServers};
    use crate::server::{Config, Server};
    use crate::tls::Trust;

    #[test]
    fn fresh_turn_users_come_without_a_new_registration() {
        let ice = IceServers {
            turn: vec!["turn:example.org".into()],
            credentials: Credentials::Shared(crate::protocol::Secret("north".into())),
            ..IceServers::default()
        };
        let config = Config { ice, ..Config::plain(([127, 0, 0, 1], 0).into()) };
        let server = smol::block_on(Server::bind(config)).unwrap();
        let target = Target::parse(&format!("ws://{}/path", server.address()), Trust::System).unwrap();
        smol::spawn(server.run(pending())).detach();
        let registration = Registration {
            target,
            id: "ann".parse().unwrap(),
            ice: Arc::new(Ice::new(PathOptions::default())),
            sink: Arc::new(|_: &Event| {}),
            calls: None,
            room: None,
            impatient: true,
        };
        registration.renew_ice();
        let until = Instant::now() + Duration::from_secs(20);
        smol::block_on(async {
            while registration.ice.config().servers.is_empty() {
                assert!(Instant::now() < until, "no fresh servers");
                smol::Timer::after(Duration::from_millis(10)).await;
            }
        });
        assert!(registration.ice.config().servers[0].username.as_deref().unwrap().ends_with(":roomtone"));
    }
}
