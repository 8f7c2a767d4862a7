//! The event loop of 1-1 calls: dials one peer, or answers calls one after another.

use std::time::{Duration, Instant};

use smol::future::or;

use super::PeerState;
use super::client::{Client, Happening};
use super::command::Command;
use super::error::ClientError;
use super::peers::Peers;
use super::presentation::Presentation;
use super::report::Report;
use super::server_connection::ServerConnection;
use crate::protocol::{PeerId, Refusal};
use crate::session::call::{Call, Input, Output};
use crate::session::{Admission, EndReason, Terms, link};
use crate::signalling::reconnect::Ended;
use crate::signalling::{self, ConnectError, Event};

/// How a call's loop came to its end.
enum End {
    /// The call ended. Contains the reason, whether the call had been connected, and the call of a peer that called
    /// meanwhile.
    Call(EndReason, bool, Option<Box<Call>>),
    /// The user ends the program.
    Quit,
}

impl Client {
    /// Calls `peer`; returns when the call is over. `ring` bounds the wait for an answer.
    pub async fn call(&self, peer: &PeerId, request_offer: bool, ring: Duration) -> Result<(), ClientError> {
        let result = self.call_once(peer, request_offer, ring).await;
        self.finish().await;
        result
    }

    async fn call_once(&self, peer: &PeerId, request_offer: bool, ring: Duration) -> Result<(), ClientError> {
        self.needs_calls()?;
        let mut server = self.register(Some(peer), None).await?;
        let terms = Terms { ring, mends: true, ..self.terms() };
        let call = Call::dial(Instant::now(), peer.clone(), request_offer, terms);
        let end = self.converse(&mut server, call, Some(peer)).await;
        server.close().await;
        match end? {
            End::Quit => Ok(()),
            End::Call(reason, was_connected, _) => outcome(reason, was_connected),
        }
    }

    fn needs_calls(&self) -> Result<(), ClientError> {
        if self.target.capabilities().calls { Ok(()) } else { Err(ClientError::NoCalls) }
    }

    /// Answers calls one after another until the user ends the program; with `once`, the first call only.
    pub async fn answer(&self, once: bool, admission: &Admission) -> Result<(), ClientError> {
        let result = self.answer_all(once, admission).await;
        self.finish().await;
        result
    }

    async fn answer_all(&self, once: bool, admission: &Admission) -> Result<(), ClientError> {
        self.needs_calls()?;
        let mut server = self.register(None, None).await?;
        let mut next: Option<Box<Call>> = None;
        let mut ended = Ended::InOrder;
        let result = loop {
            let call = match next.take() {
                Some(call) => *call,
                None => {
                    server.release(ended);
                    Call::answer(self.terms(), admission.clone())
                }
            };
            next = match self.converse(&mut server, call, None).await {
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
        server.close().await;
        result
    }

    /// Returns the terms of a 1-1 call. This side is polite, because the pages in use are impolite; the side that called
    /// reconnects first when the path is disconnected.
    fn terms(&self) -> Terms {
        Terms { polite: true, mends: false, ..self.setup.terms() }
    }

    /// Runs a call, from waiting for it to its end. `peer` is the peer that is called.
    async fn converse(
        &self,
        server: &mut ServerConnection,
        call: Call,
        peer: Option<&PeerId>,
    ) -> Result<End, ClientError> {
        let setup = &self.setup;
        let mut conversation = Conversation {
            client: self,
            peer: peer.cloned().unwrap_or_else(PeerId::caller),
            call,
            peers: Peers::new(setup.peer.clone(), setup.ice.clone(), setup.trace.clone()),
            presentation: Presentation::new(setup, &self.sink),
            was_connected: false,
        };
        let end = conversation.run(server).await;
        conversation.close(&end).await;
        end.map(|reason| match reason {
            Some(reason) => {
                let next = conversation.call.next(Instant::now()).map(Box::new);
                End::Call(reason, conversation.was_connected, next)
            }
            None => End::Quit,
        })
    }
}

/// A 1-1 call under way.
struct Conversation<'a> {
    client: &'a Client,
    peer: PeerId,
    call: Call,
    peers: Peers,
    presentation: Presentation<'a>,
    was_connected: bool,
}

/// Something that the loop waits for, apart from commands and timers.
enum Incoming {
    Signal(Event),
    Report(Report),
}

impl Conversation<'_> {
    /// Runs until the call ends, for this reason, or the user ends the program (no reason).
    async fn run(&mut self, server: &mut ServerConnection) -> Result<Option<EndReason>, ClientError> {
        loop {
            if let Some(reason) = self.act(server).await? {
                return Ok(Some(reason));
            }
            let deadline = self.call.poll_timeout().into_iter().chain(self.presentation.poll_timeout()).min();
            let incoming = {
                let (peers, server) = (&self.peers, &mut *server);
                let signal = async { Incoming::Signal(server.next().await) };
                let report = async { Incoming::Report(peers.next().await) };
                or(signal, report)
            };
            let input = match self.client.next(incoming, &self.presentation, deadline).await {
                Happening::Timer => {
                    let now = Instant::now();
                    self.call.handle_timeout(now);
                    self.presentation.handle_timeout(now, &self.peers);
                    None
                }
                Happening::Outside(Incoming::Signal(event)) => self.signal(event, server).await?,
                Happening::Outside(Incoming::Report(Report::Link(_, input))) => Some(Input::Link(input)),
                Happening::Outside(Incoming::Report(report)) => {
                    self.present(report);
                    None
                }
                Happening::Notice(notice) => {
                    let done = self.presentation.handle_notice(notice, &mut self.peers);
                    done.map(|_| Input::Link(link::Input::HangUp))
                }
                Happening::Command(Command::Quit) => return Ok(None),
                Happening::Command(Command::Interrupt) => return Err(ClientError::Interrupted),
                Happening::Command(command) => self.obey(command).await,
            };
            if let Some(input) = input {
                self.call.handle_input(Instant::now(), input);
            }
        }
    }

    /// Handles an event of the connection to the server.
    async fn signal(
        &mut self,
        event: Event,
        server: &mut ServerConnection,
    ) -> Result<Option<Input>, ClientError> {
        Ok(Some(match event {
            Event::Registered => Input::Registered,
            Event::Accepted => Input::Accepted,
            Event::Caller(peer) => Input::Caller(peer),
            Event::Refused(reason) => Input::Refused(reason),
            Event::Peer(message) => Input::Link(link::Input::Peer(message)),
            Event::Junk(why) => Input::Link(link::Input::Junk(why)),
            Event::Lost { in_order } => return Ok(self.lost(server, in_order).map(Input::Link)),
            Event::IceServers(servers) => {
                self.client.setup.ice.take(servers).await;
                return Ok(None);
            }
            Event::Retrying(why) => {
                self.client.warn(&why);
                return Ok(None);
            }
            Event::Ended(error) => {
                if matches!(error, ConnectError::Dismissed(_)) || !self.call.was_connected() {
                    return Err(error.into());
                }
                self.client.warn(&error.to_string());
                return Ok(None);
            }
            Event::Described(..)
            | Event::Application(..)
            | Event::Joined { .. }
            | Event::PeerJoined(_)
            | Event::PeerLeft(_)
            | Event::From(..)
            | Event::JunkFrom(..) => return Ok(None),
        }))
    }

    /// Handles the end of the connection to the server: reconnects where the call can use a new connection, and returns
    /// the input of the call, if any.
    fn lost(&self, server: &mut ServerConnection, in_order: bool) -> Option<link::Input> {
        if self.call.is_waiting() {
            self.client.warn("the server is gone; trying again");
            server.reconnect(if in_order { Ended::InOrder } else { Ended::Failed(None) });
            return None;
        }
        // A peer that cannot be found again would have to be believed by its word alone.
        if self.call.was_connected() && self.call.can_resume() {
            server.reconnect(if in_order { Ended::CallOver } else { Ended::Failed(None) });
        }
        // A server ends the session of a peer that is gone in order.
        if self.call.was_connected() && !in_order {
            self.client.warn("the server is gone; the call goes on");
            return Some(link::Input::Reachable(false));
        }
        Some(link::Input::PeerGone)
    }

    /// Carries out what the call wants; returns its reason when it is over.
    async fn act(&mut self, server: &mut ServerConnection) -> Result<Option<EndReason>, ClientError> {
        while let Some(output) = self.call.poll_output() {
            match output {
                Output::Dial(peer) => server.send(signalling::Command::Call(peer)).await,
                Output::Send(message) => server.send(signalling::Command::Send { to: None, message }).await,
                Output::Effect(effect) => {
                    if self.peers.execute(&self.peer, effect)? {
                        self.present(Report::Opened(self.peer.clone()));
                    }
                }
                Output::Caller(peer) => self.peer = peer,
                Output::Ask => self.tell(PeerState::Calling, None),
                Output::Connecting => self.tell(PeerState::Connecting, None),
                Output::Connected => {
                    self.was_connected = true;
                    self.presentation.start_stats(Instant::now());
                    self.tell(PeerState::Connected, None);
                }
                Output::Reconnecting => self.tell(PeerState::Reconnecting, None),
                // Its session ends with our connection to the server.
                Output::Busy => {
                    server.reconnect(Ended::InOrder);
                }
                Output::Warning(text) => self.client.warn(&text),
                Output::Ended(reason) => return Ok(Some(reason)),
            }
        }
        Ok(None)
    }

    fn present(&mut self, report: Report) {
        self.presentation.handle_report(report, &self.peers, PeerId::to_string);
    }

    fn tell(&self, state: PeerState, reason: Option<String>) {
        self.client.tell(self.peer.as_str(), state, reason);
    }

    async fn obey(&self, command: Command) -> Option<Input> {
        let (client, is_idle) = (self.client, self.peers.is_empty());
        match command {
            Command::Decide(accepted) => return Some(Input::Decision(accepted)),
            Command::HangUp(_) if !self.call.is_waiting() => return Some(Input::Link(link::Input::HangUp)),
            Command::Reconnect(_) => return Some(Input::Link(link::Input::Renew)),
            Command::Say { .. } | Command::Stats | Command::HangUp(_) if is_idle => {
                client.warn("there is no call now");
            }
            Command::Say { text, .. } => {
                if self.presentation.say(None, &text) == 0 {
                    client.warn("not sent: no data channel is open");
                }
            }
            Command::Stats => self.presentation.report_stats(&self.peers),
            Command::Peers if is_idle => {}
            Command::Peers if self.was_connected => self.tell(PeerState::Connected, None),
            Command::Peers => self.tell(PeerState::Connecting, None),
            Command::Tell(..) => client.warn("there is no application behind this server"),
            Command::Send(change) => client.change(change).await,
            Command::HangUp(_) | Command::Quit | Command::Interrupt => {}
        }
        None
    }

    /// Closes the connection, and reports how the call ended.
    async fn close(&mut self, end: &Result<Option<EndReason>, ClientError>) {
        if let Ok(Some(EndReason::NoPath(_))) = end {
            self.client.setup.ice.explain(&self.client.sink).await;
        }
        let was_open = !self.peers.is_empty();
        // A peer that ended the call receives nothing more.
        if matches!(end, Ok(None | Some(EndReason::HungUp)) | Err(_)) {
            self.presentation.finish(None).await;
        }
        self.peers.close_all().await;
        self.presentation.close(&self.peer).await;
        let (state, reason) = match end {
            Ok(Some(reason @ (EndReason::HungUp | EndReason::PeerHungUp))) => {
                (PeerState::Left, reason.to_string())
            }
            Ok(Some(EndReason::NotTaken(reason))) => (PeerState::Declined, reason.clone()),
            Ok(Some(reason)) => (PeerState::Failed, reason.to_string()),
            Ok(None) | Err(ClientError::Interrupted) if was_open => {
                (PeerState::Left, EndReason::HungUp.to_string())
            }
            Ok(None) | Err(_) => return,
        };
        self.tell(state, Some(reason));
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
