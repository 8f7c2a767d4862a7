//! A client of a server: registration, commands and reports, which calls and rooms share.

use std::time::Instant;

use smol::channel::Receiver;
use smol::future::{or, pending};

use super::command::{Change, Command};
use super::error::ClientError;
use super::presentation::{Notice, Presentation};
use super::server_connection::ServerConnection;
use super::setup::{ALL, MediaSetup};
use super::{Event, Sink};
use crate::base::timeout::sleep_until;
use crate::protocol::{PeerId, RoomId};
use crate::signalling::{Registration, Target};

/// Something that the loops wait for.
pub(super) enum Happening {
    /// An event of the server or a report of a connection arrived, and the loop's future has it.
    Arrived,
    Command(Command),
    Notice(Notice),
    Timer,
}

/// A client of one server.
pub struct Client {
    pub(super) target: Target,
    pub(super) id: PeerId,
    pub(super) setup: MediaSetup,
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
    pub fn new(
        target: Target,
        id: PeerId,
        setup: MediaSetup,
        commands: Receiver<Command>,
        sink: Sink,
    ) -> Self {
        Self { target, id, setup, commands, sink }
    }

    /// Registers for the first time, optionally to call a peer or to join a room.
    pub(super) async fn register(
        &self,
        calls: Option<&PeerId>,
        room: Option<&RoomId>,
    ) -> Result<ServerConnection, ClientError> {
        let registration = Registration { id: self.id.clone(), calls: calls.cloned(), room: room.cloned() };
        let (target, ice, sink) = (self.target.clone(), self.setup.ice.clone(), self.sink.clone());
        let open = async { Ok(ServerConnection::open(target, registration, ice, sink).await?) };
        let server = or(open, self.interrupted()).await?;
        if let Some(trace) = &self.setup.trace {
            trace.step(None, "the server answered", None);
        }
        Ok(server)
    }

    pub(super) fn warn(&self, text: &str) {
        (self.sink)(&Event::Warning { text: text.to_owned() });
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
        if let Some(recorded) = self.setup.finish().await {
            (self.sink)(&Event::recorded(ALL, &recorded.path, recorded.error));
        }
    }

    /// Changes the media that is sent, and reports the change.
    pub(super) async fn change(&self, change: Change) {
        let change = match change {
            Change::Toggle(kind) => Change::Mute(kind, !self.setup.is_muted(kind)),
            change => change,
        };
        let (kind, what, changed) = match change {
            Change::Toggle(_) => return,
            Change::Mute(kind, muted) => {
                let what = if muted { "muted" } else { "on" };
                (kind, what.to_owned(), Ok(self.setup.set_muted(kind, muted)))
            }
            Change::Source(kind, source, device) => {
                (kind, source.clone(), self.setup.switch(kind, source, device).await)
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

    /// Waits for the first of `arrival`, a command, a notice of the presentation, and the time `until`.
    pub(super) async fn next(
        &self,
        arrival: impl Future<Output = ()>,
        presentation: &Presentation<'_>,
        until: Option<Instant>,
    ) -> Happening {
        let timer = async {
            sleep_until(until).await;
            Happening::Timer
        };
        let arrival = async {
            arrival.await;
            Happening::Arrived
        };
        let command = async { Happening::Command(self.command().await) };
        let notice = async { Happening::Notice(presentation.next().await) };
        // No source starves another: the server's messages pause, commands and notices are few, and the timer is
        // checked each time.
        or(timer, or(command, or(arrival, notice))).await
    }
}
