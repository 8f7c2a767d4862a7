//! A client of a server: what calls and rooms share. Registering, commands, errors.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smol::channel::Receiver;
use smol::future::{or, pending};

use super::ice::Ice;
use super::line::{Funnel, Happened};
use super::plan::{ALL, MediaPlan};
use super::wire::{Registered, Wire, Wired};
use super::{Event, PeerState, Sink};
use crate::media::MediaError;
use crate::protocol::PeerId;
use crate::sdp::Kind;
use crate::session::{EndReason, STEP};
use crate::signalling::{
    self, Backend, ConnectError, Frame, Protocol, RoomClient, Socket, SspClient, Target,
};

/// What a user tells a running client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A chat message, to one peer or to all.
    Say {
        /// Who gets it; all where nobody is named.
        to: Option<PeerId>,
        /// The text.
        text: String,
    },
    /// End the call, or of those in a room the one with this peer.
    HangUp(Option<PeerId>),
    /// Take the call that was asked about, or do not.
    Decide(bool),
    /// Change what is sent.
    Send(Change),
    /// Make a new path to this peer, or to all.
    Reconnect(Option<PeerId>),
    /// An event for the application behind the server: its name and its data.
    Tell(String, serde_json::Value),
    /// Tell who is there.
    Peers,
    /// Tell the counters now.
    Stats,
    /// End the program in order.
    Quit,
    /// The same, by a signal.
    Interrupt,
}

/// A change of what is sent, to all peers alike and without negotiation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Silence or black, or the source again.
    Mute(Kind, bool),
    /// The one of the two that it is not.
    Toggle(Kind),
    /// Another source: a name of `pipelines/source` or a pipeline's text, and its device.
    Source(Kind, String, Option<String>),
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
    /// Somebody sits between us and the peer.
    #[error("the call was ended: {0}")]
    Forged(EndReason),
    /// The server's protocol has none.
    #[error("a server of pools (ssp) knows no calls of two: `roomtone join POOL` enters a pool")]
    NoCalls,
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
            Self::Refused(_) | Self::Forged(_) | Self::NoCalls | Self::Interrupted => false,
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

/// What the loops wait for.
pub(super) enum Happening {
    Wire(Wired),
    /// Of the connection with that number.
    Connection(u64, Happened),
    Command(Command),
    /// A source or an encoder stopped.
    Failure(String),
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
    /// A client that has not connected yet.
    pub fn new(target: Target, id: PeerId, plan: MediaPlan, commands: Receiver<Command>, sink: Sink) -> Self {
        Self { target, id, plan, commands, sink }
    }

    pub(super) fn warn(&self, text: &str) {
        (self.sink)(&Event::Warning { text: text.to_owned() });
    }

    pub(super) fn tell(&self, peer: &str, state: PeerState, reason: Option<String>) {
        (self.sink)(&Event::Peer { peer: peer.to_owned(), state, reason });
    }

    /// The next command; for ever where nobody can give one.
    async fn command(&self) -> Command {
        match self.commands.recv().await {
            Ok(command) => command,
            Err(_) => pending().await,
        }
    }

    /// Completes what is recorded of all peers together.
    pub(super) async fn finish(&self) {
        if let Some(recorded) = self.plan.finish().await {
            (self.sink)(&Event::recorded(ALL, &recorded.path, recorded.error));
        }
    }

    /// Changes what is sent.
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

    /// Done when the user wants the program to end.
    pub(super) async fn interrupted<T>(&self) -> Result<T, ClientError> {
        loop {
            if let Command::Quit | Command::Interrupt = self.command().await {
                return Err(ClientError::Interrupted);
            }
        }
    }

    /// The first of all that can happen, until that time.
    pub(super) async fn next(&self, wire: &mut Wire, funnel: &Funnel, until: Option<Instant>) -> Happening {
        let timer = async {
            match until {
                Some(time) => smol::Timer::at(time).await,
                None => pending().await,
            };
            Happening::Timer
        };
        let connection = async {
            let (number, happened) = funnel.next().await;
            Happening::Connection(number, happened)
        };
        let wired = async { Happening::Wire(wire.next().await) };
        let command = async { Happening::Command(self.command().await) };
        let failure = async { Happening::Failure(self.failure().await) };
        // None starves another: the server's lines pause, commands and failures are few, and the timer is
        // looked at each time.
        or(timer, or(or(command, wired), or(connection, failure))).await
    }

    /// Sources and encoders that stopped; for ever where none does.
    async fn failure(&self) -> String {
        match self.plan.failures.recv().await {
            Ok(text) => text,
            Err(_) => pending().await,
        }
    }

    /// What it takes to register.
    pub(super) fn registration(&self) -> Registration {
        Registration {
            target: self.target.clone(),
            id: self.id.clone(),
            ice: self.plan.ice.clone(),
            sink: self.sink.clone(),
            calls: None,
        }
    }
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
}

impl Registration {
    /// The server's protocol is one of pools.
    pub(super) fn names_pools(&self) -> bool {
        matches!(self.target.protocol(), Protocol::Ssp(_))
    }

    pub(super) async fn register(&self) -> Result<Registered, ClientError> {
        let mut said = false;
        match self.register_and(self.calls.as_ref(), &mut said).await {
            // It may have been too soon: while somebody of that name is asked whether it still lives.
            Err(ClientError::Refused(_)) if said => self.register_and(None, &mut said).await,
            done => done,
        }
    }

    /// Registers, and calls somebody at once where the server reads on; whether that was `said`.
    async fn register_and(&self, call: Option<&PeerId>, said: &mut bool) -> Result<Registered, ClientError> {
        let late = async {
            smol::Timer::after(2 * STEP).await;
            Err(ClientError::Refused(format!("it did not answer our registration for {} s", STEP.as_secs())))
        };
        let register = async {
            let mut socket = self.connect().await?;
            self.ice.server_is_at(socket.server_address());
            let mut backend: Box<dyn Backend> = match self.target.protocol() {
                Protocol::Room => Box::new(RoomClient::new(&self.id)),
                Protocol::Ssp(version) => Box::new(SspClient::new(version)),
            };
            // Where nothing is to be said to be registered, our name comes when we join.
            let Some(hello) = backend.hello() else { return Ok((socket, backend)) };
            socket.send(hello).await?;
            if let Some(dial) = call.filter(|_| socket.reads_ahead()).and_then(|peer| backend.dial(peer)) {
                *said = true;
                socket.send(dial).await?;
            }
            loop {
                match socket.receive().await {
                    Frame::Text(line) => match backend.handle_text(&line) {
                        signalling::Event::Registered => {
                            self.tell(&self.id);
                            return Ok((socket, backend));
                        }
                        signalling::Event::Refused(reason) => return Err(ClientError::Refused(reason)),
                        signalling::Event::IceServers(servers) => self.ice.take(servers).await,
                        _ => {}
                    },
                    Frame::Binary(_) => {}
                    Frame::Closed(_, reason) => {
                        let reason = backend.handle_close(&reason).unwrap_or(reason);
                        return Err(ClientError::Refused(reason));
                    }
                }
            }
        };
        or(register, late).await
    }

    /// PyRTC never answers a client whose first bytes come a moment after its connection: then it takes another.
    async fn connect(&self) -> Result<Socket, ConnectError> {
        const MOMENT: Duration = Duration::from_secs(2);
        let tries = if matches!(self.target.protocol(), Protocol::Ssp(_)) { 3 } else { 0 };
        for _ in 0..tries {
            let late = async {
                smol::Timer::after(MOMENT).await;
                None
            };
            if let Some(socket) = or(async { Some(Socket::connect(&self.target).await) }, late).await {
                return socket;
            }
        }
        Socket::connect(&self.target).await
    }

    /// The server knows us by this name.
    pub(super) fn tell(&self, id: &PeerId) {
        (self.sink)(&Event::Registered { id: id.to_string(), server: self.target.name() });
    }
}
