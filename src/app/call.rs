//! The event loop of 1-1 calls: one that we make, or those that we take, one after another.

use std::time::{Duration, Instant};

use super::client::{Client, ClientError, Happening};
use super::command::Command;
use super::connection::Connection;
use super::line::Funnel;
use super::wire::Wire;
use super::{Event, PeerState};
use crate::protocol::{PeerId, Refusal};
use crate::session::call::{Call, Input, Output};
use crate::session::{Admission, Effect, EndReason, Terms, link};
use crate::signalling::reconnect::Ended;
use crate::signalling::{self, ConnectError, Protocol};

/// How a call's loop came to its end.
enum End {
    /// The call ended; whether it had been connected, and the call of somebody who called meanwhile.
    Call(EndReason, bool, Option<Box<Call>>),
    /// The user ends the program.
    Quit,
}

impl Client {
    /// Calls a peer, which may take so long to answer; done when the call is over.
    pub async fn call(&self, peer: &PeerId, request_offer: bool, ring: Duration) -> Result<(), ClientError> {
        let result = self.call_once(peer, request_offer, ring).await;
        self.finish().await;
        result
    }

    async fn call_once(&self, peer: &PeerId, request_offer: bool, ring: Duration) -> Result<(), ClientError> {
        self.needs_calls()?;
        let mut wire = self.wire(Some(peer), None).await?;
        let terms = Terms { ring, mends: true, ..self.terms() };
        let call = Call::dial(Instant::now(), peer.clone(), request_offer, terms);
        let end = self.converse(&mut wire, call, Some(peer.to_string())).await;
        wire.close().await;
        match end? {
            End::Quit => Ok(()),
            End::Call(reason, was_connected, _) => outcome(reason, was_connected),
        }
    }

    fn needs_calls(&self) -> Result<(), ClientError> {
        match self.target.protocol() {
            Protocol::Room => Ok(()),
            Protocol::Ssp(_) => Err(ClientError::NoCalls),
        }
    }

    /// Takes calls, one after another, until the user ends it; with `once`, the first alone.
    pub async fn answer(&self, once: bool, admission: &Admission) -> Result<(), ClientError> {
        let result = self.answer_all(once, admission).await;
        self.finish().await;
        result
    }

    async fn answer_all(&self, once: bool, admission: &Admission) -> Result<(), ClientError> {
        self.needs_calls()?;
        let mut wire = self.wire(None, None).await?;
        let mut next: Option<Box<Call>> = None;
        let mut ended = Ended::InOrder;
        let result = loop {
            let call = match next.take() {
                Some(call) => *call,
                None => {
                    wire.free(ended).await;
                    Call::answer(self.terms(), admission.clone())
                }
            };
            next = match self.converse(&mut wire, call, None).await {
                Err(error) => break Err(error),
                Ok(End::Quit) => break Ok(()),
                Ok(End::Call(EndReason::NotTaken(_), _, next)) => {
                    ended = Ended::InOrder;
                    next
                }
                Ok(End::Call(reason, was_connected, _)) if once => break outcome(reason, was_connected),
                Ok(End::Call(_, was_connected, next)) => {
                    ended = if was_connected { Ended::CallOver } else { Ended::InOrder };
                    next
                }
            };
        };
        wire.close().await;
        result
    }

    /// How this side of a 1-1 call negotiates: the pages in the field are impolite, so it gives way; and
    /// the one that called mends a path that breaks.
    fn terms(&self) -> Terms {
        Terms { polite: true, mends: false, ..self.plan.terms() }
    }

    /// One call, from the waiting for it to its end.
    async fn converse(
        &self,
        wire: &mut Wire,
        mut call: Call,
        peer: Option<String>,
    ) -> Result<End, ClientError> {
        let mut talk = Talk {
            name: peer,
            connection: None,
            funnel: Funnel::new(self.plan.trace.is_some()),
            stats_at: None,
            was_connected: false,
        };
        let end = loop {
            match self.act(wire, &mut call, &mut talk).await {
                Ok(None) => {}
                Ok(Some(reason)) => {
                    let next = call.next(Instant::now()).map(Box::new);
                    break Ok(End::Call(reason, talk.was_connected, next));
                }
                Err(error) => break Err(error),
            }
            let record_at = talk.connection.as_ref().and_then(Connection::record_at);
            let deadline = call.poll_timeout().into_iter().chain(talk.stats_at).chain(record_at).min();
            let input = match self.next(wire, &talk.funnel, deadline).await {
                Happening::Timer => {
                    self.timer(&mut call, &mut talk);
                    continue;
                }
                Happening::Wire(event) => match event {
                    signalling::Event::Registered => Input::Registered,
                    signalling::Event::Accepted => Input::Accepted,
                    signalling::Event::Caller(peer) => Input::Caller(peer),
                    signalling::Event::Refused(reason) => Input::Refused(reason),
                    signalling::Event::Peer(message) => Input::Link(link::Input::Peer(message)),
                    signalling::Event::Junk(why) => Input::Link(link::Input::Junk(why)),
                    signalling::Event::IceServers(servers) => {
                        self.plan.ice.take(servers).await;
                        continue;
                    }
                    signalling::Event::Lost { in_order } => match self.lost(wire, &call, in_order) {
                        Some(input) => Input::Link(input),
                        None => continue,
                    },
                    signalling::Event::Retrying(why) => {
                        self.warn(&why);
                        continue;
                    }
                    signalling::Event::Ended(error @ ConnectError::Dismissed(_)) => break Err(error.into()),
                    signalling::Event::Ended(error) if call.was_connected() => {
                        self.warn(&error.to_string());
                        continue;
                    }
                    signalling::Event::Ended(error) => break Err(error.into()),
                    signalling::Event::Foreign(_)
                    | signalling::Event::Described(..)
                    | signalling::Event::Application(..)
                    | signalling::Event::Joined { .. }
                    | signalling::Event::PeerJoined(_)
                    | signalling::Event::PeerLeft(_)
                    | signalling::Event::From(..)
                    | signalling::Event::JunkFrom(..) => continue,
                },
                Happening::Connection(number, happened) => {
                    let connection =
                        talk.connection.as_mut().filter(|connection| connection.number == number);
                    match connection
                        .and_then(|connection| connection.handle(happened, &self.plan, &self.sink))
                    {
                        Some(input) => Input::Link(input),
                        None => continue,
                    }
                }
                Happening::Failure(text) => {
                    self.warn(&text);
                    continue;
                }
                Happening::Command(Command::Quit) => break Ok(End::Quit),
                Happening::Command(Command::Interrupt) => break Err(ClientError::Interrupted),
                Happening::Command(Command::Decide(taken)) => Input::Decision(taken),
                Happening::Command(Command::HangUp(_)) if !call.is_waiting() => {
                    Input::Link(link::Input::HangUp)
                }
                Happening::Command(Command::Reconnect(_)) => Input::Link(link::Input::Renew),
                Happening::Command(command) => {
                    self.command_in_call(command, &talk).await;
                    continue;
                }
            };
            call.handle_input(Instant::now(), input);
        };
        if let Ok(End::Call(EndReason::NoPath(_), ..)) = end {
            self.plan.ice.explain(&self.sink).await;
        }
        let name = talk.name().to_owned();
        let was_talking = talk.connection.is_some();
        if let Some(connection) = talk.connection.take() {
            let is_there = !matches!(&end, Ok(End::Call(reason, ..)) if *reason != EndReason::HungUp);
            connection.close(is_there, &self.sink).await;
        }
        match &end {
            Ok(End::Call(reason @ (EndReason::HungUp | EndReason::PeerHungUp), ..)) => {
                self.tell(&name, PeerState::Left, Some(reason.to_string()));
            }
            Ok(End::Call(EndReason::NotTaken(reason), ..)) => {
                self.tell(&name, PeerState::Declined, Some(reason.clone()));
            }
            Ok(End::Call(reason, ..)) => self.tell(&name, PeerState::Failed, Some(reason.to_string())),
            Ok(End::Quit) | Err(ClientError::Interrupted) if was_talking => {
                self.tell(&name, PeerState::Left, Some(EndReason::HungUp.to_string()));
            }
            _ => {}
        }
        end
    }

    /// Handles the end of the connection to the server: reconnects where the call can use a new connection, and returns
    /// the input of the call, if any.
    fn lost(&self, wire: &mut Wire, call: &Call, in_order: bool) -> Option<link::Input> {
        if call.is_waiting() {
            self.warn("the server is gone; trying again");
            wire.come_back(if in_order { Ended::InOrder } else { Ended::Failed(None) });
            return None;
        }
        // Who cannot be found again would have to be believed by its word alone.
        if call.was_connected() && call.can_resume() {
            wire.come_back(if in_order { Ended::CallOver } else { Ended::Failed(None) });
        }
        // In order is how a server ends the session of a peer that is gone.
        if call.was_connected() && !in_order {
            self.warn("the server is gone; the call goes on");
            return Some(link::Input::Reachable(false));
        }
        Some(link::Input::PeerGone)
    }

    /// Does what the call wants; its reason when it is over.
    async fn act(
        &self,
        wire: &mut Wire,
        call: &mut Call,
        talk: &mut Talk,
    ) -> Result<Option<EndReason>, ClientError> {
        while let Some(output) = call.poll_output() {
            match output {
                Output::Dial(peer) => wire.say(|backend| backend.dial(&peer)).await,
                Output::Send(message) => wire.say(|backend| backend.address(None, &message)).await,
                Output::Effect(Effect::Open) => match &mut talk.connection {
                    Some(connection) => connection.reopen(&self.plan, &mut talk.funnel)?,
                    None => {
                        let name = talk.name().to_owned();
                        talk.connection = Some(Connection::open(&self.plan, name, &mut talk.funnel)?);
                    }
                },
                Output::Effect(effect) => {
                    if let Some(connection) = &talk.connection {
                        connection.execute(effect);
                    }
                }
                Output::Caller(peer) => talk.name = Some(peer.to_string()),
                Output::Ask => self.tell(talk.name(), PeerState::Calling, None),
                Output::Connecting => self.tell(talk.name(), PeerState::Connecting, None),
                Output::Connected => {
                    talk.was_connected = true;
                    talk.stats_at = self.plan.stats.map(|every| Instant::now() + every);
                    self.tell(talk.name(), PeerState::Connected, None);
                }
                Output::Reconnecting => self.tell(talk.name(), PeerState::Reconnecting, None),
                // Its session ends with our connection to the server.
                Output::Busy => {
                    wire.come_back(Ended::InOrder);
                }
                Output::Warning(text) => self.warn(&text),
                Output::Ended(reason) => return Ok(Some(reason)),
            }
        }
        Ok(None)
    }

    fn timer(&self, call: &mut Call, talk: &mut Talk) {
        let now = Instant::now();
        call.handle_timeout(now);
        if let Some(connection) = &mut talk.connection
            && connection.record_at().is_some_and(|at| at <= now)
        {
            connection.go_on_recording(&self.plan, &self.sink);
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

    async fn command_in_call(&self, command: Command, talk: &Talk) {
        match (command, &talk.connection) {
            (Command::Say { text, .. }, Some(connection)) => {
                if !connection.say(&text) {
                    self.warn("not sent: no data channel is open");
                }
            }
            (Command::Stats, Some(_)) => self.tell_stats(talk),
            (Command::Say { .. } | Command::Stats | Command::HangUp(_), None) => {
                self.warn("there is no call now")
            }
            (Command::Peers, _) => {
                let state = if talk.was_connected { PeerState::Connected } else { PeerState::Connecting };
                if talk.connection.is_some() {
                    self.tell(talk.name(), state, None);
                }
            }
            (Command::Tell(..), _) => self.warn("there is no application behind this server"),
            (Command::Send(change), _) => self.change(change).await,
            (
                Command::HangUp(_)
                | Command::Decide(_)
                | Command::Reconnect(_)
                | Command::Quit
                | Command::Interrupt,
                _,
            ) => {}
        }
    }
}

/// What the loop knows of the call under way.
struct Talk {
    name: Option<String>,
    connection: Option<Connection>,
    funnel: Funnel,
    stats_at: Option<Instant>,
    was_connected: bool,
}

impl Talk {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("caller")
    }
}

fn outcome(reason: EndReason, was_connected: bool) -> Result<(), ClientError> {
    match reason {
        EndReason::HungUp => Ok(()),
        EndReason::PeerHungUp if was_connected => Ok(()),
        EndReason::Refused(Refusal::PeerNotFound(text) | Refusal::PeerBusy(text)) => {
            Err(ClientError::Unavailable(text))
        }
        EndReason::Refused(refusal) => Err(ConnectError::Refused(refusal).into()),
        EndReason::Declined(_) => Err(ClientError::Unavailable(reason.to_string())),
        EndReason::Forged => Err(ClientError::Forged(reason)),
        EndReason::PeerHungUp
        | EndReason::NotTaken(_)
        | EndReason::Negotiation { .. }
        | EndReason::NoPath(_)
        | EndReason::Lost => Err(ClientError::Failed(reason)),
    }
}
