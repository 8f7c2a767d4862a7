//! The way to the server, which comes back by itself when it was lost.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use smol::future::{or, pending};

use super::client::{Client, ClientError, Registered, Registration};
use crate::protocol::{PeerId, RoomId};
use crate::signalling::reconnect::{Ended, Reconnect, Stage, Verdict, verdict};
use crate::signalling::{Backend, Event, Frame, Socket};

/// Close code "policy violation" (RFC 6455, 7.4.1).
pub(super) const POLICY: u16 = 1008;

/// What comes of it.
pub(super) enum Wired {
    /// The server, or a peer by way of it, said something.
    Said(Event),
    /// The connection is gone; whether the server ended it in order, as it does when a 1-1 peer is gone.
    Lost { in_order: bool },
    /// The server sent us away for good; its words.
    Dismissed(String),
    /// We are registered again, and in the room where there is one.
    Back,
    /// We are not yet, for this reason, which is told once.
    NotYet(String),
    /// We cannot be: for a reason that does not go away.
    Refused(ClientError),
}

enum State {
    /// Registered.
    Up(Box<(Socket, Box<dyn Backend>)>),
    /// The next attempt begins then.
    Waiting(Instant),
    /// An attempt is under way.
    Trying(smol::Task<Result<Registered, ClientError>>),
    /// Nobody wants to be registered.
    Down,
}

/// See the module.
pub(super) struct Wire {
    state: State,
    registration: Registration,
    reconnect: Reconnect,
    /// What came before we were registered, and is not told yet.
    came: VecDeque<Event>,
    /// Why the last attempt failed, as it was told.
    told: Option<String>,
}

impl Wire {
    /// Registers for the first time; what goes wrong now is for the user to see.
    pub(super) async fn open(registration: Registration) -> Result<Self, ClientError> {
        let mut reconnect = Reconnect::default();
        let registered = registration.register().await?;
        (0..registered.connects).for_each(|_| reconnect.connects(Instant::now()));
        reconnect.registered(Instant::now());
        let registration = registration.again();
        let state = State::Up(Box::new((registered.socket, registered.backend)));
        Ok(Self { state, registration, reconnect, came: registered.came, told: None })
    }

    /// What comes next. May be dropped while it waits, without loss.
    pub(super) async fn next(&mut self) -> Wired {
        loop {
            match &mut self.state {
                State::Up(up) => {
                    if let Some(event) = self.came.pop_front() {
                        return Wired::Said(event);
                    }
                    let frame = async { Some(up.0.receive().await) };
                    let renewal = async {
                        self.registration.ice.needs_renewal().await;
                        None
                    };
                    match or(frame, renewal).await {
                        Some(frame) => {
                            if let Some(wired) = self.take(frame) {
                                return wired;
                            }
                        }
                        None => self.registration.renew_ice(),
                    }
                }
                State::Waiting(at) => {
                    smol::Timer::at(*at).await;
                    self.reconnect.connects(Instant::now());
                    let registration = self.registration.clone();
                    let attempt = async move { registration.register().await };
                    self.state = State::Trying(smol::spawn(attempt));
                }
                State::Trying(task) => {
                    let result = task.await;
                    if let Some(wired) = self.tried(result) {
                        return wired;
                    }
                }
                State::Down => return pending().await,
            }
        }
    }

    fn take(&mut self, frame: Frame) -> Option<Wired> {
        let State::Up(up) = &mut self.state else { return None };
        match frame {
            Frame::Text(line) => Some(Wired::Said(up.1.handle_text(&line))),
            Frame::Binary(_) => None,
            Frame::Closed(POLICY, reason) => {
                self.state = State::Down;
                Some(Wired::Dismissed(reason))
            }
            Frame::Closed(code, reason) => {
                tracing::info!("the connection to the server ended: {code} {reason}");
                self.state = State::Down;
                Some(Wired::Lost { in_order: code == 1000 })
            }
        }
    }

    /// An attempt came to its end.
    fn tried(&mut self, result: Result<Registered, ClientError>) -> Option<Wired> {
        match result {
            Ok(registered) => {
                self.reconnect.registered(Instant::now());
                self.state = State::Up(Box::new((registered.socket, registered.backend)));
                self.came = registered.came;
                self.told = None;
                Some(Wired::Back)
            }
            Err(error) => match verdict(error.cause(), Stage::AfterFirstSuccess) {
                Verdict::End => {
                    self.state = State::Down;
                    Some(Wired::Refused(error))
                }
                Verdict::Retry => {
                    let pause = self.come_back(Ended::Failed(error.retry_after()));
                    tracing::info!("not registered yet: {error}; again in {} ms", pause.as_millis());
                    let text = error.to_string();
                    let is_new = self.told.as_ref() != Some(&text);
                    self.told = Some(text.clone());
                    is_new.then_some(Wired::NotYet(text))
                }
            },
        }
    }

    /// Says something, if there is a connection and the protocol has words for it.
    pub(super) async fn say(&mut self, line: impl FnOnce(&mut dyn Backend) -> Option<String>) {
        if let State::Up(up) = &mut self.state {
            let (socket, backend) = &mut **up;
            if let Some(line) = line(&mut **backend) {
                // That it is gone is found out by listening.
                let _ = socket.send(line).await;
            }
        }
    }

    /// Registers again, after the pause that it returns: what was until now ended so.
    pub(super) fn come_back(&mut self, ended: Ended) -> Duration {
        let now = Instant::now();
        let pause = self.reconnect.pause(now, ended, fastrand::f64());
        self.state = State::Waiting(now + pause);
        pause
    }

    /// Registers anew where a session is not over, or nobody tries yet: a call ended so.
    pub(super) async fn free(&mut self, ended: Ended) {
        match std::mem::replace(&mut self.state, State::Down) {
            State::Up(up) if up.1.is_free() => self.state = State::Up(up),
            State::Up(up) => {
                up.0.close().await;
                self.come_back(ended);
            }
            State::Down => {
                self.come_back(ended);
            }
            other @ (State::Waiting(_) | State::Trying(_)) => self.state = other,
        }
    }

    /// Says goodbye.
    pub(super) async fn close(self) {
        if let State::Up(up) = self.state {
            up.0.close().await;
        }
    }
}

impl Client {
    /// Registers for the first time, to call somebody, to enter a room, or for neither.
    pub(super) async fn wire(
        &self,
        calls: Option<&PeerId>,
        room: Option<&RoomId>,
    ) -> Result<Wire, ClientError> {
        let registration = Registration { calls: calls.cloned(), room: room.cloned(), ..self.registration() };
        let wire = or(Wire::open(registration), self.interrupted()).await?;
        if let Some(trace) = &self.plan.trace {
            trace.step(None, "the server answered", None);
        }
        Ok(wire)
    }
}
