//! The event loop of 1-1 calls: dials one peer, or answers calls one after another.

use std::time::{Duration, Instant};

use futures_util::future::Either;
use smol::future::or;

use super::PeerState;
use super::client::{Client, Happening};
use super::command::Command;
use super::conference::token_refused;
use super::error::ClientError;
use super::peers::Peers;
use super::presentation::Presentation;
use super::report::{PoolEvent, Report};
use super::server_connection::ServerConnection;
use crate::media::peer::PeerConfig;
use crate::protocol::{PeerId, Refusal};
use crate::session::call::{self, Call};
use crate::session::{Admission, Effect, EndReason, Input, Output, Terms};
use crate::signalling::reconnect::Ended;
use crate::signalling::{self, ConnectError, Event, ServerRequest};

/// The end of a call's loop.
pub(super) enum CallEnd {
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
        let terms = Terms { ring, reconnects_first: true, ..self.terms() };
        let call = Call::dial(Instant::now(), peer.clone(), request_offer, terms);
        let end = self.run_call(&mut server, call, Some(peer)).await;
        server.close().await;
        match end? {
            CallEnd::Quit => Ok(()),
            CallEnd::Call(reason, was_connected, _) => outcome(reason, was_connected),
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
            next = match self.run_call(&mut server, call, None).await {
                Err(error) => break Err(error),
                Ok(CallEnd::Quit) => break Ok(()),
                Ok(CallEnd::Call(EndReason::NotTaken(_), _, next)) => {
                    ended = Ended::InOrder;
                    next
                }
                Ok(CallEnd::Call(reason, was_connected, _)) if once => break outcome(reason, was_connected),
                Ok(CallEnd::Call(_, was_connected, next)) => {
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
        Terms { polite: true, reconnects_first: false, ..self.setup.terms() }
    }

    /// Returns the configuration of connections. Media servers have no data channels.
    fn peer_config(&self) -> PeerConfig {
        let chat = self.setup.peer.chat.clone().filter(|_| !self.target.capabilities().single_exchange);
        PeerConfig { chat, ..self.setup.peer.clone() }
    }

    /// Runs a call, from waiting for it to its end. `peer` is the peer that is called.
    pub(super) async fn run_call(
        &self,
        server: &mut ServerConnection,
        call: Call,
        peer: Option<&PeerId>,
    ) -> Result<CallEnd, ClientError> {
        let setup = &self.setup;
        let mut call_loop = CallLoop {
            client: self,
            peer: peer.cloned().unwrap_or_else(PeerId::caller),
            call,
            peers: Peers::new(self.peer_config(), setup.ice.clone(), setup.trace.clone()),
            presentation: Presentation::new(setup, &self.sink),
            was_connected: false,
        };
        let end = call_loop.run(server).await;
        let was_connected = call_loop.was_connected;
        let next = call_loop.close().await.map(Box::new);
        end.map(|reason| reason.map_or(CallEnd::Quit, |reason| CallEnd::Call(reason, was_connected, next)))
    }
}

/// The event loop of one 1-1 call.
struct CallLoop<'a> {
    client: &'a Client,
    peer: PeerId,
    call: Call,
    peers: Peers,
    presentation: Presentation<'a>,
    was_connected: bool,
}

impl CallLoop<'_> {
    /// Runs until the call ends, for this reason, or the user ends the program (no reason).
    async fn run(&mut self, server: &mut ServerConnection) -> Result<Option<EndReason>, ClientError> {
        loop {
            if let Some(reason) = self.execute_outputs(server).await? {
                return Ok(Some(reason));
            }
            let deadline = self.call.poll_timeout().into_iter().chain(self.presentation.poll_timeout()).min();
            let (mut arrived, peers, ice) = (None, &mut self.peers, &self.client.setup.ice);
            let event = async { Either::Left(ice.next_event(server.next()).await) };
            let report = async { Either::Right(peers.next().await) };
            let arrival = async { arrived = Some(or(event, report).await) };
            match self.client.next(arrival, &self.presentation, deadline).await {
                Happening::Timer => {
                    let now = Instant::now();
                    self.call.handle_timeout(now);
                    self.presentation.handle_timeout(now, &self.peers);
                }
                Happening::Arrived => match arrived {
                    Some(Either::Left(event)) => self.signal(event, server)?,
                    Some(Either::Right(Either::Left((_, input)))) => self.input(input),
                    Some(Either::Right(Either::Right(report))) => self.present(report).await,
                    None => {}
                },
                Happening::Notice(notice) => {
                    if self.presentation.handle_notice(notice, &mut self.peers).is_some() {
                        self.hang_up().await;
                    }
                }
                Happening::Command(Command::Server(request @ ServerRequest::Token(_))) => {
                    server.send(signalling::In::Ask(request));
                }
                Happening::Command(Command::Quit) => return Ok(None),
                Happening::Command(Command::Interrupt) => return Err(ClientError::Interrupted),
                Happening::Command(command) => self.handle_command(command).await,
            }
        }
    }

    /// Handles an input of the link with the peer.
    fn input(&mut self, input: Input) {
        self.call.handle_input(Instant::now(), input);
    }

    /// Handles an event of the server, or a decision of the user.
    fn event(&mut self, event: call::Event) {
        self.call.handle_event(Instant::now(), event);
    }

    /// Handles an event of the connection to the server.
    fn signal(&mut self, event: Event, server: &mut ServerConnection) -> Result<(), ClientError> {
        match event {
            Event::Registered => self.event(call::Event::Registered),
            Event::Accepted => self.event(call::Event::Accepted),
            Event::Caller(peer) => self.event(call::Event::Caller(peer)),
            Event::Refused(reason) => self.event(call::Event::Refused(reason)),
            Event::Peer(message) => self.input(Input::Peer(message)),
            Event::Junk(why) => self.input(Input::Junk(why)),
            Event::Lost { in_order } => self.lost(server, in_order),
            Event::Warning(why) => self.client.warn(&why),
            Event::TokenExpires(seconds) => (self.client.sink)(&super::Event::TokenExpires { seconds }),
            Event::TokenRefused(why) => self.client.warn(&token_refused(&why)),
            Event::Ended(error) if self.ends_with(&error) => return Err(error.into()),
            Event::Ended(error) => self.client.warn(&error.to_string()),
            Event::IceServers(_)
            | Event::Participants(..)
            | Event::Described(..)
            | Event::MuteRequested(..)
            | Event::Moved(_)
            | Event::Application(..)
            | Event::Joined { .. }
            | Event::PeerJoined(_)
            | Event::PeerLeft(_)
            | Event::From(..)
            | Event::JunkFrom(..) => {}
        }
        Ok(())
    }

    /// Returns whether the call ends because the connection to the server ended for good. A media server's answer is needed
    /// for any new path.
    fn ends_with(&self, error: &ConnectError) -> bool {
        let is_needed = self.client.target.capabilities().single_exchange || !self.call.was_connected();
        is_needed || matches!(error, ConnectError::Dismissed(_))
    }

    /// Handles the end of the connection to the server: reconnects where the call can use a new connection.
    fn lost(&mut self, server: &mut ServerConnection, in_order: bool) {
        if self.call.is_waiting() {
            self.client.warn("the server is gone; trying again");
            return server.reconnect(if in_order { Ended::InOrder } else { Ended::Failed(None) });
        }
        // A peer that cannot be found again would have to be believed by its word alone.
        if self.call.was_connected() && self.call.can_resume() {
            server.reconnect(if in_order { Ended::CallOver } else { Ended::Failed(None) });
        }
        // A server ends the session of a peer that is gone in order.
        if self.call.was_connected() && !in_order {
            self.client.warn("the server is gone; the call goes on");
            return self.input(Input::Reachable(false));
        }
        self.input(Input::PeerGone);
    }

    /// Executes the outputs of the call; returns its reason when it is over.
    async fn execute_outputs(
        &mut self,
        server: &mut ServerConnection,
    ) -> Result<Option<EndReason>, ClientError> {
        while let Some(output) = self.call.poll_output() {
            if output == Output::Effect(Effect::Open) && self.client.target.capabilities().single_exchange {
                // A media server names its STUN and TURN servers for one session.
                self.client.setup.ice.forget_announced();
            }
            match output {
                Output::Dial(peer) => server.send(signalling::In::Call(peer)),
                Output::Caller(peer) => self.peer = peer,
                Output::Ask => self.presentation.show_state(&(&self.peer).into(), PeerState::Calling, None),
                // The session of the other caller ends with our connection to the server.
                Output::Busy => server.reconnect(Ended::InOrder),
                Output::Send(message) => server.send(signalling::In::Send { to: None, message }),
                output => match self.peers.execute(&self.peer, output).await {
                    Some(Either::Left(input)) => self.input(input),
                    Some(Either::Right(Report::Stopped(error))) => return Err(error),
                    Some(Either::Right(Report::Pool(PoolEvent::Close(peer, Some(reason))))) => {
                        self.present(Report::Pool(PoolEvent::Close(peer, Some(reason.clone())))).await;
                        return Ok(Some(reason));
                    }
                    Some(Either::Right(report)) => self.present(report).await,
                    None => {}
                },
            }
        }
        Ok(None)
    }

    async fn present(&mut self, report: Report) {
        self.was_connected |= matches!(report, Report::Pool(PoolEvent::Connected(_)));
        self.presentation.handle_report(report, &self.peers).await;
    }

    /// Ends the call once the data for the peer is sent.
    async fn hang_up(&mut self) {
        self.presentation.finish(None).await;
        self.input(Input::HangUp);
    }

    async fn handle_command(&mut self, command: Command) {
        let (client, is_idle) = (self.client, self.peers.is_empty());
        match command {
            Command::Decide(accepted) => self.event(call::Event::Decision(accepted)),
            Command::HangUp(_) if !self.call.is_waiting() => self.hang_up().await,
            Command::Reconnect(_) => self.input(Input::Renew),
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
            Command::Peers => {
                let state = if self.was_connected { PeerState::Connected } else { PeerState::Connecting };
                self.presentation.show_state(&(&self.peer).into(), state, None);
            }
            Command::Server(_) => client.warn("members of a room alone can be removed or asked to mute"),
            Command::Application(..) => client.warn("there is no application behind this server"),
            Command::Send(change) => client.change(change).await,
            Command::HangUp(_) | Command::Quit | Command::Interrupt => {}
        }
    }

    /// Closes the connection if it is still open; returns the call of a peer that called meanwhile.
    async fn close(mut self) -> Option<Call> {
        self.presentation.finish(None).await;
        self.presentation.leave(&mut self.peers).await;
        self.presentation.finish_explanations().await;
        self.call.next(Instant::now())
    }
}

pub(super) fn outcome(reason: EndReason, was_connected: bool) -> Result<(), ClientError> {
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
