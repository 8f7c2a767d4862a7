//! The way to the server, which comes back by itself when it was lost.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use smol::future::{or, pending};

use super::client::{Client, Registered, Registration};
use super::error::ClientError;
use crate::protocol::{PeerId, RoomId};
use crate::signalling::reconnect::{Ended, Reconnect, Stage, Verdict, verdict};
use crate::signalling::{Backend, ConnectError, Event, Frame, Socket};

/// Close code "policy violation" (RFC 6455, 7.4.1).
pub(super) const POLICY: u16 = 1008;

enum State {
    /// The client is registered.
    Up(Box<(Socket, Box<dyn Backend>)>),
    /// The next attempt begins at this time.
    Waiting(Instant),
    /// An attempt is under way.
    Trying(smol::Task<Result<Registered, ConnectError>>),
    /// No connection, and no attempt planned.
    Down,
}

/// See the module.
pub(super) struct Wire {
    state: State,
    registration: Registration,
    reconnect: Reconnect,
    /// Events received during the registration and not reported yet.
    came: VecDeque<Event>,
    /// The failure reported last, so that the same text is not reported twice.
    told: Option<String>,
}

impl Wire {
    /// Registers for the first time; errors are returned to the user instead of being retried.
    pub(super) async fn open(registration: Registration) -> Result<Self, ConnectError> {
        let mut reconnect = Reconnect::default();
        let registered = registration.register().await?;
        (0..registered.connects).for_each(|_| reconnect.connects(Instant::now()));
        reconnect.registered(Instant::now());
        let registration = registration.again();
        let state = State::Up(Box::new((registered.socket, registered.backend)));
        Ok(Self { state, registration, reconnect, came: registered.came, told: None })
    }

    /// Returns the next event. Cancel-safe: dropping the future loses no event.
    pub(super) async fn next(&mut self) -> Event {
        loop {
            match &mut self.state {
                State::Up(up) => {
                    if let Some(event) = self.came.pop_front() {
                        return event;
                    }
                    let frame = async { Some(up.0.receive().await) };
                    let renewal = async {
                        self.registration.ice.needs_renewal().await;
                        None
                    };
                    match or(frame, renewal).await {
                        Some(frame) => {
                            if let Some(event) = self.handle(frame) {
                                return event;
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
                    if let Some(event) = self.tried(result) {
                        return event;
                    }
                }
                State::Down => return pending().await,
            }
        }
    }

    fn handle(&mut self, frame: Frame) -> Option<Event> {
        let State::Up(up) = &mut self.state else { return None };
        match frame {
            Frame::Text(line) => up.1.handle_text(&line),
            Frame::Binary(_) => None,
            Frame::Closed(POLICY, reason) => {
                self.state = State::Down;
                Some(Event::Ended(ConnectError::Dismissed(reason)))
            }
            Frame::Closed(code, reason) => {
                tracing::info!("the connection to the server ended: {code} {reason}");
                self.state = State::Down;
                Some(Event::Lost { in_order: code == 1000 })
            }
        }
    }

    /// Handles the result of an attempt to reconnect.
    fn tried(&mut self, result: Result<Registered, ConnectError>) -> Option<Event> {
        match result {
            Ok(registered) => {
                self.reconnect.registered(Instant::now());
                self.state = State::Up(Box::new((registered.socket, registered.backend)));
                self.came = registered.came;
                self.told = None;
                Some(Event::Registered)
            }
            Err(error) => match verdict(error.cause(), Stage::AfterFirstSuccess) {
                Verdict::End => {
                    self.state = State::Down;
                    Some(Event::Ended(error))
                }
                Verdict::Retry => {
                    let pause = self.come_back(Ended::Failed(error.retry_after()));
                    tracing::info!("not registered yet: {error}; again in {} ms", pause.as_millis());
                    let text = error.to_string();
                    let is_new = self.told.as_ref() != Some(&text);
                    self.told = Some(text.clone());
                    is_new.then_some(Event::Retrying(text))
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

    /// Schedules the next attempt and returns the pause before it; `ended` says how the last connection or attempt
    /// ended.
    pub(super) fn come_back(&mut self, ended: Ended) -> Duration {
        let now = Instant::now();
        let pause = self.reconnect.pause(now, ended, fastrand::f64());
        self.state = State::Waiting(now + pause);
        pause
    }

    /// Reconnects, unless the client is registered and idle or an attempt is planned or under way already; `ended` says
    /// how the call ended.
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
    /// Registers for the first time, optionally to call a peer or to join a room.
    pub(super) async fn wire(
        &self,
        calls: Option<&PeerId>,
        room: Option<&RoomId>,
    ) -> Result<Wire, ClientError> {
        let registration = Registration { calls: calls.cloned(), room: room.cloned(), ..self.registration() };
        let open = async { Ok(Wire::open(registration).await?) };
        let wire = or(open, self.interrupted()).await?;
        if let Some(trace) = &self.plan.trace {
            trace.step(None, "the server answered", None);
        }
        Ok(wire)
    }
}
