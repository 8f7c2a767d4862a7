//! The client's event loop: registers with a server, makes a call or takes calls, one after another.

use std::time::{Duration, Instant};

use smol::channel::Receiver;
use smol::future::{or, pending};

use super::connection::Connection;
use super::plan::MediaPlan;
use super::{Event, PeerState, Sink};
use crate::media::{MediaError, PeerEvent};
use crate::protocol::PeerId;
use crate::sdp::Kind;
use crate::session::call::{Call, EndReason, Input, Output};
use crate::session::{Effect, EffectId, EffectResult, STEP};
use crate::signalling::{Backoff, ConnectError, Frame, RoomClient, Socket, Target, room};

/// What a user tells a running client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A chat message to the peer.
    Say(String),
    /// End the call.
    HangUp,
    /// Tell the counters now.
    Stats,
    /// End the program in order.
    Quit,
    /// The same, by a signal.
    Interrupt,
}

/// Why a client ends, other than in order.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server cannot be reached or talked to.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server does not want us.
    #[error("the server refused: {0}")]
    Refused(String),
    /// The peer is not there, or in another call.
    #[error("{0}")]
    Unavailable(String),
    /// The call failed.
    #[error("the call failed: {0}")]
    Failed(EndReason),
    /// The media layer failed.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// A signal ended the program.
    #[error("interrupted")]
    Interrupted,
}

impl ClientError {
    /// Whether the same might work later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(error) => error.is_retryable(),
            Self::Media(error) => error.is_retryable(),
            Self::Unavailable(_) | Self::Failed(_) => true,
            Self::Refused(_) | Self::Interrupted => false,
        }
    }
}

/// The time now, in UTC, as RFC 3339.
pub(super) fn timestamp() -> String {
    let now = time::OffsetDateTime::now_utc();
    now.replace_nanosecond(0)
        .unwrap_or(now)
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default()
}

/// A client of one server.
pub struct Client {
    target: Target,
    id: PeerId,
    plan: MediaPlan,
    commands: Receiver<Command>,
    sink: Sink,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({:?})", self.id)
    }
}

/// How a session of the loop came to its end.
enum End {
    /// The call ended.
    Call(EndReason, bool),
    /// Nobody called, and the server is gone.
    ServerGone,
    /// The user ends the program.
    Quit,
}

/// What the loop waits for.
enum Happening {
    Frame(Frame),
    Peer(PeerEvent),
    Result(EffectId, EffectResult),
    Command(Command),
    Failure(String),
    Timer,
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(target: Target, id: PeerId, plan: MediaPlan, commands: Receiver<Command>, sink: Sink) -> Self {
        Self { target, id, plan, commands, sink }
    }

    /// Calls a peer; done when the call is over.
    pub async fn call(&self, peer: &PeerId, request_offer: bool) -> Result<(), ClientError> {
        let (mut socket, room) = self.register().await?;
        let call = Call::dial(Instant::now(), peer.clone(), request_offer, self.plan.peer.wanted());
        let end = self.converse(&mut socket, room, call, Some(peer.to_string())).await;
        socket.close().await;
        match end? {
            End::Quit => Ok(()),
            End::ServerGone => Err(ConnectError::Broken("it ended before the call began".to_owned()).into()),
            End::Call(reason, was_connected) => outcome(reason, was_connected),
        }
    }

    /// Takes calls, one after another, until the user ends it; with `once`, the first alone.
    pub async fn answer(&self, once: bool) -> Result<(), ClientError> {
        let mut backoff = Backoff::default();
        let mut was_registered = false;
        loop {
            let (mut socket, room) = match self.register().await {
                Ok(registered) => registered,
                Err(error) if was_registered && error.is_retryable() => {
                    self.warn(&error.to_string());
                    self.pause(&mut backoff).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            was_registered = true;
            backoff.reset();
            let call = Call::answer(self.plan.peer.wanted());
            let end = self.converse(&mut socket, room, call, None).await;
            socket.close().await;
            match end? {
                End::Quit => return Ok(()),
                End::Call(reason, was_connected) if once => return outcome(reason, was_connected),
                End::Call(..) => {}
                End::ServerGone => {
                    self.warn("the server is gone; trying again");
                    self.pause(&mut backoff).await?;
                }
            }
        }
    }

    fn warn(&self, text: &str) {
        (self.sink)(&Event::Warning { text: text.to_owned() });
    }

    fn tell(&self, peer: &str, state: PeerState, reason: Option<String>) {
        (self.sink)(&Event::Peer { peer: peer.to_owned(), state, reason });
    }

    /// Waits before the next attempt; a command to end is obeyed.
    async fn pause(&self, backoff: &mut Backoff) -> Result<(), ClientError> {
        let pause = backoff.next_pause(fastrand::f64());
        let interrupted = async {
            loop {
                if let Command::Quit | Command::Interrupt = self.command().await {
                    return Err(ClientError::Interrupted);
                }
            }
        };
        or(interrupted, async {
            smol::Timer::after(pause).await;
            Ok(())
        })
        .await
    }

    /// The next command; for ever where nobody can give one.
    async fn command(&self) -> Command {
        match self.commands.recv().await {
            Ok(command) => command,
            Err(_) => pending().await,
        }
    }

    async fn register(&self) -> Result<(Socket, RoomClient), ClientError> {
        let interrupted = async {
            loop {
                if let Command::Quit | Command::Interrupt = self.command().await {
                    return Err(ClientError::Interrupted);
                }
            }
        };
        let late = async {
            smol::Timer::after(2 * STEP).await;
            Err(ClientError::Refused(format!("it did not answer our registration for {} s", STEP.as_secs())))
        };
        let register = async {
            let mut socket = Socket::connect(&self.target).await?;
            let (mut room, hello) = RoomClient::register(&self.id);
            socket.send(hello).await?;
            loop {
                match socket.receive().await {
                    Frame::Text(line) => match room.handle_text(&line) {
                        room::Event::Registered => return Ok((socket, room)),
                        room::Event::Refused(reason) => return Err(ClientError::Refused(reason)),
                        _ => {}
                    },
                    Frame::Closed(reason) => {
                        let reason = room.handle_close(&reason).unwrap_or(reason);
                        return Err(ClientError::Refused(reason));
                    }
                }
            }
        };
        let (socket, room) = or(or(register, interrupted), late).await?;
        (self.sink)(&Event::Registered { id: self.id.to_string(), server: self.target.name() });
        Ok((socket, room))
    }

    /// One call on one connection to the server, from the waiting for it to its end.
    async fn converse(
        &self,
        socket: &mut Socket,
        mut room: RoomClient,
        mut call: Call,
        peer: Option<String>,
    ) -> Result<End, ClientError> {
        let mut talk = Talk { name: peer, connection: None, stats_at: None, was_connected: false };
        let end = loop {
            match self.act(socket, &mut room, &mut call, &mut talk).await {
                Ok(None) => {}
                Ok(Some(reason)) => break Ok(End::Call(reason, talk.was_connected)),
                Err(error) => break Err(error),
            }
            let now = Instant::now();
            let input = match self.next(socket, &call, &talk).await {
                Happening::Timer => {
                    self.timer(&mut call, &mut talk);
                    continue;
                }
                Happening::Result(id, result) => Input::Result(id, result),
                Happening::Frame(Frame::Text(line)) => match room.handle_text(&line) {
                    room::Event::Registered => continue,
                    room::Event::Accepted => Input::Accepted,
                    room::Event::Caller(peer) => Input::Caller(peer),
                    room::Event::Refused(reason) => Input::Refused(reason),
                    room::Event::Peer(message) => Input::Peer(message),
                    room::Event::Junk(why) => Input::Junk(why),
                },
                Happening::Frame(Frame::Closed(_)) if call.is_waiting() => break Ok(End::ServerGone),
                Happening::Frame(Frame::Closed(_)) => Input::PeerGone,
                Happening::Peer(event) => match self.peer_event(event, &mut talk) {
                    Some(input) => input,
                    None => continue,
                },
                Happening::Failure(text) => {
                    self.warn(&text);
                    continue;
                }
                Happening::Command(Command::Quit) => break Ok(End::Quit),
                Happening::Command(Command::Interrupt) => break Err(ClientError::Interrupted),
                Happening::Command(Command::HangUp) if !call.is_waiting() => Input::HangUp,
                Happening::Command(command) => {
                    self.command_in_call(&command, &talk);
                    continue;
                }
            };
            call.handle_input(now, input);
        };
        let name = talk.name().to_owned();
        let was_talking = talk.connection.is_some();
        if let Some(connection) = talk.connection.take() {
            connection.close(&self.sink).await;
        }
        match &end {
            Ok(End::Call(reason @ (EndReason::HungUp | EndReason::PeerHungUp), _)) => {
                self.tell(&name, PeerState::Left, Some(reason.to_string()));
            }
            Ok(End::Call(reason, _)) => self.tell(&name, PeerState::Failed, Some(reason.to_string())),
            Ok(End::Quit) | Err(ClientError::Interrupted) if was_talking => {
                self.tell(&name, PeerState::Left, Some(EndReason::HungUp.to_string()));
            }
            _ => {}
        }
        end
    }

    /// Does what the call wants; its reason when it is over.
    async fn act(
        &self,
        socket: &mut Socket,
        room: &mut RoomClient,
        call: &mut Call,
        talk: &mut Talk,
    ) -> Result<Option<EndReason>, ClientError> {
        while let Some(output) = call.poll_output() {
            match output {
                Output::Dial(peer) => socket.send(room.dial(&peer)).await?,
                Output::Send(message) => {
                    if socket.send(message.to_string()).await.is_err() {
                        call.handle_input(Instant::now(), Input::PeerGone);
                    }
                }
                Output::Effect(Effect::Open) => {
                    if let Some(old) = talk.connection.take() {
                        old.close(&self.sink).await;
                    }
                    talk.connection = Some(Connection::open(&self.plan, talk.name().to_owned())?);
                }
                Output::Effect(effect) => {
                    if let Some(connection) = &talk.connection {
                        connection.execute(effect);
                    }
                }
                Output::Connecting(peer) => {
                    if let Some(peer) = peer {
                        talk.name = Some(peer.to_string());
                    }
                    self.tell(talk.name(), PeerState::Connecting, None);
                }
                Output::Connected => {
                    talk.was_connected = true;
                    talk.stats_at = self.plan.stats.map(|every| Instant::now() + every);
                    self.tell(talk.name(), PeerState::Connected, None);
                }
                Output::Warning(text) => self.warn(&text),
                Output::Ended(reason) => return Ok(Some(reason)),
            }
        }
        Ok(None)
    }

    async fn next(&self, socket: &mut Socket, call: &Call, talk: &Talk) -> Happening {
        let record_at = talk.connection.as_ref().and_then(Connection::record_at);
        let deadline = call.poll_timeout().into_iter().chain(talk.stats_at).chain(record_at).min();
        let timer = async {
            match deadline {
                Some(at) => smol::Timer::at(at).await,
                None => pending().await,
            };
            Happening::Timer
        };
        let of_connection = async {
            let Some(connection) = &talk.connection else { return pending().await };
            let results = async {
                let Ok((id, result)) = connection.results.recv().await else { return pending().await };
                Happening::Result(id, result)
            };
            or(results, async {
                or(
                    async {
                        let Ok(event) = connection.events.recv().await else { return pending().await };
                        Happening::Peer(event)
                    },
                    failure(&connection.failures),
                )
                .await
            })
            .await
        };
        let outside = async {
            or(async { Happening::Frame(socket.receive().await) }, async {
                Happening::Command(self.command().await)
            })
            .await
        };
        // Fair enough: each branch is drained by later rounds, and none can starve the timer for long.
        or(timer, or(or(of_connection, outside), failure(&self.plan.failures))).await
    }

    fn timer(&self, call: &mut Call, talk: &mut Talk) {
        let now = Instant::now();
        call.handle_timeout(now);
        if let Some(connection) = &mut talk.connection
            && connection.record_at().is_some_and(|at| at <= now)
        {
            connection.start_recording(&self.plan, &self.sink);
        }
        if talk.stats_at.is_some_and(|at| at <= now) {
            talk.stats_at = self.plan.stats.map(|every| now + every.max(Duration::from_millis(100)));
            self.tell_stats(talk);
        }
    }

    fn tell_stats(&self, talk: &Talk) {
        if let Some(connection) = &talk.connection {
            (self.sink)(&Event::Stats { peer: talk.name().to_owned(), stats: connection.stats() });
        }
    }

    fn peer_event(&self, event: PeerEvent, talk: &mut Talk) -> Option<Input> {
        let peer = talk.name().to_owned();
        match event {
            PeerEvent::LocalCandidate(mline, candidate) => {
                return Some(Input::LocalCandidate(mline, candidate));
            }
            PeerEvent::Connection(state) => return Some(Input::Connection(state)),
            PeerEvent::Track(track) => {
                if let Some(connection) = &mut talk.connection {
                    connection.add_track(track, &self.plan, &self.sink);
                }
            }
            PeerEvent::FirstFrame { codec, size, after } => (self.sink)(&Event::Media {
                peer,
                kind: codec.kind().as_str(),
                direction: "receive",
                codec: codec.to_string(),
                width: size.map(|(width, _)| width).filter(|_| codec.kind() == Kind::Video),
                height: size.map(|(_, height)| height),
                first_frame_ms: after.as_millis().try_into().unwrap_or(u64::MAX),
            }),
            PeerEvent::Message { channel, text } => (self.sink)(&Event::Message { peer, channel, text }),
            PeerEvent::ChannelOpen(channel) => (self.sink)(&Event::Channel { peer, channel }),
            PeerEvent::Failed(reason) => {
                self.warn(&reason);
                return Some(Input::Connection(crate::session::call::ConnectionState::Failed));
            }
        }
        None
    }

    fn command_in_call(&self, command: &Command, talk: &Talk) {
        match (command, &talk.connection) {
            (Command::Say(text), Some(connection)) => {
                if !connection.say(text) {
                    self.warn("not sent: no data channel is open");
                }
            }
            (Command::Stats, Some(_)) => self.tell_stats(talk),
            (_, None) => self.warn("there is no call now"),
            (Command::HangUp | Command::Quit | Command::Interrupt, Some(_)) => {}
        }
    }
}

/// What the loop knows of the call under way.
struct Talk {
    name: Option<String>,
    connection: Option<Connection>,
    stats_at: Option<Instant>,
    was_connected: bool,
}

impl Talk {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("caller")
    }
}

async fn failure(failures: &Receiver<String>) -> Happening {
    match failures.recv().await {
        Ok(text) => Happening::Failure(text),
        Err(_) => pending().await,
    }
}

fn outcome(reason: EndReason, was_connected: bool) -> Result<(), ClientError> {
    match reason {
        EndReason::HungUp => Ok(()),
        EndReason::PeerHungUp if was_connected => Ok(()),
        // The protocol has no codes: the demos' server and its kin say it in these words.
        EndReason::Refused(text) if text.contains("not found") || text.contains("busy") => {
            Err(ClientError::Unavailable(text))
        }
        EndReason::Refused(text) => Err(ClientError::Refused(text)),
        EndReason::PeerHungUp | EndReason::Negotiation { .. } | EndReason::NoPath | EndReason::Lost => {
            Err(ClientError::Failed(reason))
        }
    }
}
