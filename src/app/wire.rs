//! The way to the server, which comes back by itself when it was lost.

use std::time::Duration;

use smol::future::{or, pending};

use super::client::{Client, ClientError, Registration};
use crate::protocol::PeerId;
use crate::signalling::{Backend, Backoff, Event, Frame, Socket};

/// Close code "policy violation" (RFC 6455, 7.4.1).
const POLICY: u16 = 1008;

/// What comes of it.
pub(super) enum Wired {
    /// The server, or a peer by way of it, said something.
    Said(Event),
    /// The connection is gone; whether the server ended it in order, as it does when a 1-1 peer is gone.
    Lost { in_order: bool },
    /// The server sent us away for good; its words.
    Dismissed(String),
    /// We are registered again.
    Back,
    /// We cannot be: for a reason that does not go away.
    Refused(ClientError),
}

/// A connection on which the server knows us.
pub(super) type Registered = (Socket, Box<dyn Backend>);

enum State {
    Up(Box<Registered>),
    /// Trying again.
    Again(smol::Task<Result<Registered, ClientError>>),
    Down,
}

/// See the module.
pub(super) struct Wire {
    state: State,
}

impl Wire {
    /// Over a connection on which we are registered.
    pub(super) fn of(registered: Registered) -> Self {
        Self { state: State::Up(Box::new(registered)) }
    }

    /// What comes next. May be dropped while it waits, without loss.
    pub(super) async fn next(&mut self) -> Wired {
        match &mut self.state {
            State::Up(up) => loop {
                let (socket, lines) = &mut **up;
                match socket.receive().await {
                    Frame::Text(line) => return Wired::Said(lines.handle_text(&line)),
                    Frame::Binary(_) => {}
                    Frame::Closed(POLICY, reason) => {
                        self.state = State::Down;
                        return Wired::Dismissed(reason);
                    }
                    Frame::Closed(code, _) => {
                        self.state = State::Down;
                        return Wired::Lost { in_order: code == 1000 };
                    }
                }
            },
            State::Again(task) => {
                let result = task.await;
                self.state = State::Down;
                match result {
                    Ok(registered) => {
                        self.state = State::Up(Box::new(registered));
                        Wired::Back
                    }
                    Err(error) => Wired::Refused(error),
                }
            }
            State::Down => pending().await,
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

    /// Begins to register again, in the background, as long as that may work: at once where the server
    /// ended a session in order.
    pub(super) fn come_back(&mut self, registration: Registration, at_once: bool) {
        let mut backoff = Backoff::default();
        let pause = if at_once { Duration::ZERO } else { backoff.next_pause(fastrand::f64()) };
        self.begin(registration, pause, backoff);
    }

    /// Registers anew where a session is not over, or nobody tries yet: a call came to its end.
    pub(super) async fn free(&mut self, registration: Registration) {
        match std::mem::replace(&mut self.state, State::Down) {
            State::Up(up) if up.1.is_free() => self.state = State::Up(up),
            State::Again(task) => self.state = State::Again(task),
            State::Up(up) => {
                up.0.close().await;
                self.begin(registration, Duration::ZERO, Backoff::default());
            }
            State::Down => self.begin(registration, Duration::ZERO, Backoff::default()),
        }
    }

    /// Ends the session that is on, and registers anew.
    pub(super) fn hang_up(&mut self, registration: Registration) {
        self.begin(registration, Duration::ZERO, Backoff::default());
    }

    fn begin(&mut self, registration: Registration, mut pause: Duration, mut backoff: Backoff) {
        self.state = State::Again(smol::spawn(async move {
            loop {
                smol::Timer::after(pause).await;
                match registration.register().await {
                    Err(error) if error.is_retryable() => tracing::info!("not registered yet: {error}"),
                    done => return done,
                }
                pause = backoff.next_pause(fastrand::f64());
            }
        }));
    }

    /// Says goodbye.
    pub(super) async fn close(self) {
        if let State::Up(up) = self.state {
            up.0.close().await;
        }
    }
}

impl Client {
    /// Registers for the first time, to call somebody or not.
    pub(super) async fn wire(&self, calls: Option<&PeerId>) -> Result<Wire, ClientError> {
        let registration = Registration { calls: calls.cloned(), ..self.registration() };
        let registered = or(registration.register(), self.interrupted()).await?;
        if let Some(trace) = &self.plan.trace {
            trace.step(None, "the server answered", None);
        }
        Ok(Wire::of(registered))
    }
}
