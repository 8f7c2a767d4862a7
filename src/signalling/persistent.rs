//! Keeps a client registered: limits each attempt to register, and registers again by the one policy of
//! [`reconnect`](super::reconnect). Wraps the back end of any protocol, and is a signaller itself.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use super::error::ConnectError;
use super::event::Event;
use super::reconnect::{ATTEMPT, Ended, Reconnect, Stage, Verdict, verdict};
use super::registry;
use super::signaller::{ConnId, Frame, In, Out, Registration, Signaller};
use super::target::Target;

/// The largest number of application events that are kept from one attempt to register; further events are dropped.
const MAX_EARLY: usize = 64;

/// The state of the registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No connection, and no attempt planned.
    Down,
    /// The next attempt begins at this time.
    Waiting(Instant),
    /// An attempt is under way, and fails at this time.
    Attempt(Instant),
    /// The client is registered, and has joined its room if it has one.
    Up,
}

/// A signaller that registers again.
pub struct Persistent {
    target: Target,
    inner: Box<dyn Signaller>,
    /// The client has a room: an attempt succeeds only with the join.
    has_room: bool,
    state: State,
    stage: Stage,
    reconnect: Reconnect,
    /// The source of random numbers from 0 to 1, by which the pauses vary.
    chance: fn() -> f64,
    /// The connections that are open or being opened.
    conns: BTreeSet<ConnId>,
    /// The number of application events of this attempt.
    early: usize,
    /// The failure reported last, so that the same text is not reported twice.
    reported: Option<String>,
    outputs: VecDeque<Out>,
}

impl Persistent {
    /// Wraps the back end of a server's protocol.
    pub fn new(target: &Target, registration: Registration, chance: fn() -> f64) -> Self {
        let has_room = registration.room.is_some();
        Self {
            target: target.clone(),
            inner: registry::start(target, registration, chance),
            has_room,
            state: State::Down,
            stage: Stage::BeforeFirstSuccess,
            reconnect: Reconnect::default(),
            chance,
            conns: BTreeSet::new(),
            early: 0,
            reported: None,
            outputs: VecDeque::new(),
        }
    }

    fn report(&mut self, event: Event) {
        self.outputs.push_back(Out::Event(event));
    }

    fn register(&mut self, now: Instant) {
        (self.state, self.early) = (State::Attempt(now + ATTEMPT), 0);
        self.inner.handle(now, In::Register);
    }

    /// Gives up all connections, and plans the next attempt.
    fn reconnect(&mut self, now: Instant, ended: Ended) {
        self.close();
        let pause = self.reconnect.pause(now, ended, (self.chance)());
        self.state = State::Waiting(now + pause);
    }

    fn close(&mut self) {
        self.outputs.extend(std::mem::take(&mut self.conns).into_iter().map(Out::Close));
    }

    /// Handles the end of a call or of the stay in a room.
    fn release(&mut self, now: Instant, ended: Ended) {
        match self.state {
            State::Up if self.inner.is_idle() => {}
            State::Up | State::Down => self.reconnect(now, ended),
            State::Waiting(_) | State::Attempt(_) => {}
        }
    }

    fn timeout(&mut self, now: Instant) {
        match self.state {
            State::Attempt(until) if until <= now => {
                let advice = registry::advice(&self.target, None);
                let seconds = ATTEMPT.as_secs();
                let why = format!("it did not accept the registration within {seconds} s; {advice}");
                self.failed(now, ConnectError::Silent(self.target.name(), why));
            }
            State::Waiting(at) if at <= now => self.register(now),
            State::Down | State::Waiting(_) | State::Attempt(_) | State::Up => {}
        }
        if self.inner.poll_timeout().is_some_and(|at| at <= now) {
            self.inner.handle(now, In::Timeout);
        }
    }

    /// Passes the back end's outputs on. During an attempt, passes on only the events that describe its result.
    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.inner.poll_output() {
            match (output, self.state) {
                (Out::Event(event), State::Attempt(_)) => self.early_event(now, event),
                (Out::Event(event), State::Up) => self.event(event),
                (Out::Event(Event::IceServers(servers)), _) => self.report(Event::IceServers(servers)),
                // Sessions that were not ended when the client ends.
                (Out::Event(Event::Warning(text)), State::Down) => self.report(Event::Warning(text)),
                (Out::Event(_), State::Down | State::Waiting(_)) => {}
                (Out::Connect(conn, endpoint), State::Attempt(_) | State::Up) => {
                    self.reconnect.connects(now);
                    self.conns.insert(conn);
                    self.outputs.push_back(Out::Connect(conn, endpoint));
                }
                (Out::Connect(..), State::Down | State::Waiting(_)) => {}
                (Out::Close(conn), _) => {
                    self.conns.remove(&conn);
                    self.outputs.push_back(Out::Close(conn));
                }
                (output @ (Out::Send(..) | Out::Silence(..) | Out::Request(..) | Out::Abandon(_)), _) => {
                    self.outputs.push_back(output);
                }
            }
        }
    }

    /// Handles an event of the back end during an attempt.
    fn early_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::Registered => {
                self.report(Event::Registered);
                if !self.has_room {
                    self.succeeded(now);
                }
            }
            Event::Joined { .. } => {
                self.report(event);
                self.succeeded(now);
            }
            Event::Ended(error) => {
                let error = self.advised(error);
                self.failed(now, error);
            }
            Event::Refused(refusal) => self.failed(now, ConnectError::Refused(refusal)),
            Event::Lost { .. } => self.failed(now, ConnectError::Broken(self.target.name())),
            Event::IceServers(_)
            | Event::Participants(..)
            | Event::TokenExpires(_)
            | Event::TokenRefused(_) => {
                self.report(event);
            }
            Event::Application(..) => {
                self.early += 1;
                if self.early <= MAX_EARLY {
                    self.report(event);
                }
            }
            Event::Warning(_)
            | Event::Junk(_)
            | Event::Accepted
            | Event::Caller(_)
            | Event::Peer(_)
            | Event::PeerJoined(_)
            | Event::PeerLeft(_)
            | Event::From(..)
            | Event::JunkFrom(..)
            | Event::MuteRequested(..)
            | Event::Moved(_)
            | Event::Described(..) => {}
        }
    }

    /// Adds the URLs to try to an error that another protocol may have caused.
    fn advised(&self, error: ConnectError) -> ConnectError {
        let advice = || registry::advice(&self.target, None);
        match (error, self.stage) {
            (ConnectError::OtherProtocol(name, why), _) => {
                ConnectError::OtherProtocol(name, format!("{why}; {}", advice()))
            }
            (ConnectError::Broken(why), Stage::BeforeFirstSuccess) => {
                ConnectError::Broken(format!("{why}; {}", advice()))
            }
            (error, _) => error,
        }
    }

    /// Handles an event of the back end of a registered client.
    fn event(&mut self, event: Event) {
        if let Event::Lost { .. } | Event::Ended(_) = event {
            self.close();
            self.state = State::Down;
        }
        self.report(event);
    }

    fn succeeded(&mut self, now: Instant) {
        self.reconnect.registered(now);
        (self.state, self.stage, self.reported) = (State::Up, Stage::AfterFirstSuccess, None);
    }

    fn failed(&mut self, now: Instant, error: ConnectError) {
        match verdict(error.cause(), self.stage) {
            Verdict::End => {
                self.close();
                self.state = State::Down;
                self.report(Event::Ended(error));
            }
            Verdict::Retry => {
                self.reconnect(now, Ended::Failed(error.retry_after()));
                let text = error.to_string();
                if self.reported.as_ref() != Some(&text) {
                    self.reported = Some(text.clone());
                    self.report(Event::Warning(text));
                }
            }
        }
    }
}

impl Signaller for Persistent {
    fn handle(&mut self, now: Instant, input: In) {
        match input {
            In::Register => self.register(now),
            In::Close => {
                self.state = State::Down;
                self.inner.handle(now, In::Close);
            }
            In::Reconnect(ended) => self.reconnect(now, ended),
            In::Release(ended) => self.release(now, ended),
            // The next attempt to register shows the next token.
            In::Ask(_) => self.inner.handle(now, input),
            In::Call(_) | In::Send { .. } | In::Application(..) | In::RenewIceServers => {
                // Without a registration, messages are lost.
                if self.state == State::Up {
                    self.inner.handle(now, input);
                }
            }
            In::Timeout => self.timeout(now),
            In::Frame(conn, frame) => {
                if let Frame::Closed(..) = frame {
                    self.conns.remove(&conn);
                }
                let foreign = match (&frame, self.state) {
                    (Frame::Text(text), State::Attempt(_)) => registry::foreign(&self.target, text),
                    _ => None,
                };
                match foreign {
                    Some(error) => self.failed(now, error),
                    None => self.inner.handle(now, In::Frame(conn, frame)),
                }
            }
            In::Failed(conn, error) => {
                self.conns.remove(&conn);
                self.inner.handle(now, In::Failed(conn, error));
            }
            input @ (In::Opened(..) | In::Response(..)) => self.inner.handle(now, input),
        }
        self.drain(now);
    }

    fn poll_output(&mut self) -> Option<Out> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let own = match self.state {
            State::Waiting(at) | State::Attempt(at) => Some(at),
            State::Down | State::Up => None,
        };
        own.into_iter().chain(self.inner.poll_timeout()).min()
    }

    fn is_idle(&self) -> bool {
        self.state == State::Up && self.inner.is_idle()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::Refusal;
    use crate::signalling::reconnect::FIRST_PAUSE;
    use crate::signalling::testing::{Run, ann, target};

    fn run(in_room: bool) -> Run {
        let mut run = Run::new(Persistent::new(&target("ws://h:1"), ann(in_room), || 0.0));
        assert_eq!(run.give(In::Register).connects.len(), 1);
        run
    }

    /// Registers on the latest connection.
    fn register(run: &mut Run) -> Vec<Event> {
        run.open("other");
        run.text("HELLO").events
    }

    #[test]
    fn the_first_failure_ends_and_later_ones_are_repeated() {
        let mut first = run(false);
        let unreachable = || ConnectError::Unreachable("h".into(), "refused".into());
        let outs = first.give(In::Failed(first.conn, unreachable()));
        assert_eq!(outs.events, [Event::Ended(unreachable())]);
        assert!(first.pass(Duration::from_secs(3600)).connects.is_empty());

        let mut later = run(false);
        assert_eq!(register(&mut later), [Event::Registered]);
        assert_eq!(later.close(1006, "").events, [Event::Lost { in_order: false }]);
        assert!(later.pass(Duration::from_secs(3600)).connects.is_empty(), "the application decides");
        later.give(In::Reconnect(Ended::Failed(None)));
        assert_eq!(later.pass(FIRST_PAUSE).connects.len(), 1);
        let retrying = Event::Warning(unreachable().to_string());
        assert_eq!(later.give(In::Failed(later.conn, unreachable())).events, [retrying]);
        assert_eq!(later.pass(FIRST_PAUSE * 2).connects.len(), 1);
        assert!(later.give(In::Failed(later.conn, unreachable())).events.is_empty(), "the same reason");
        later.pass(FIRST_PAUSE * 4);
        assert_eq!(register(&mut later), [Event::Registered]);
        let dismissed = ConnectError::Dismissed("kicked".into());
        assert_eq!(later.close(1008, "kicked").events, [Event::Ended(dismissed)]);
    }

    #[test]
    fn a_silent_server_fails_the_attempt_with_urls_to_try() {
        let mut run = run(true);
        run.open("other");
        let before = run.pass(ATTEMPT - Duration::from_millis(1));
        assert!(before.events.is_empty());
        let outs = run.pass(Duration::from_millis(1));
        assert_eq!(outs.closed, [run.conn]);
        let [Event::Ended(error @ ConnectError::Silent(..))] = &outs.events[..] else { panic!("{outs:?}") };
        assert!(error.to_string().contains("ssp+ws://h:1/ssp"), "{error}");
    }

    #[test]
    fn another_protocol_is_reported_with_its_url() {
        let mut run = run(false);
        run.open("other");
        let outs = run.text(r#"{"type":"rtc:error","data":{"message":"Please send valid JSON data."}}"#);
        let [Event::Ended(error @ ConnectError::OtherProtocol(..))] = &outs.events[..] else {
            panic!("{outs:?}")
        };
        assert!(error.to_string().ends_with("of a server of pools is ssp+ws://h:1/ssp"), "{error}");
        // A registered client may receive any text.
        let mut run = super::tests::run(false);
        register(&mut run);
        assert!(matches!(run.event(r#"{"type":"x"}"#), Event::Junk(_)));
    }

    #[test]
    fn an_attempt_succeeds_with_the_join_and_reports_nothing_else() {
        let mut run = run(true);
        assert_eq!(register(&mut run), [Event::Registered]);
        assert!(run.text("ROOM_PEER_JOINED bob").events.is_empty(), "before the join");
        let full = Refusal::Other("room 'attic' is full".into());
        let ended = Event::Ended(ConnectError::Refused(full.clone()));
        assert_eq!(run.text("ERROR room 'attic' is full").events, [ended]);

        let mut run = super::tests::run(true);
        register(&mut run);
        assert!(matches!(run.event("ROOM_OK "), Event::Joined { .. }));
        assert_eq!(run.event("ERROR room 'attic' is full"), Event::Refused(full), "no attempt");
    }

    #[test]
    fn a_call_that_ends_closes_the_connection_and_registers_again_at_once() {
        let mut run = run(false);
        register(&mut run);
        let idle = run.give(In::Release(Ended::InOrder));
        assert!(idle.closed.is_empty() && run.signaller.poll_timeout().is_none(), "idle");
        run.text("SESSION_FROM bob");
        let over = run.give(In::Release(Ended::CallOver));
        assert_eq!(over.closed.len(), 1);
        assert!(run.text("OFFER_REQUEST").events.is_empty(), "of the call that is over");
        assert_eq!(run.pass(Duration::ZERO).connects.len(), 1);
        let again = run.give(In::Release(Ended::CallOver));
        assert!(again.closed.is_empty(), "an attempt is under way");
        assert_eq!(register(&mut run), [Event::Registered]);
    }

    /// A step of a server and of time.
    #[derive(Debug, Clone)]
    enum Step {
        Open,
        Text(String),
        Close(u16),
        Fail,
        Pass(u64),
        Command(In),
    }

    fn step() -> impl Strategy<Value = Step> {
        let text = "(HELLO|ROOM_OK bob|SESSION_OK|SESSION_FROM bob|ERROR x|\\{\"type\":\"x\"\\}|\\PC*)";
        prop_oneof![
            3 => Just(Step::Open),
            5 => text.prop_map(Step::Text),
            1 => prop_oneof![Just(1000), Just(1001), Just(1006), Just(1008)].prop_map(Step::Close),
            1 => Just(Step::Fail),
            3 => (0..40_000_u64).prop_map(Step::Pass),
            1 => Just(Step::Command(In::Reconnect(Ended::Failed(None)))),
            1 => Just(Step::Command(In::Release(Ended::CallOver))),
            1 => Just(Step::Command(In::Call("bob".parse().unwrap()))),
        ]
    }

    proptest! {
        /// For any server: at most 9 connects in 15 s, one connection at a time, and no event after the end.
        #[test]
        fn no_server_makes_a_client_storm(
            steps in prop::collection::vec(step(), 0..60), in_room: bool, scheme in 0..3_usize
        ) {
            // ssp abandons up to two connections before the first success.
            let (url, most) = [("ws://h", 9), ("ssp+ws://h", 11), ("ssp+http://h", 11)][scheme];
            let mut run = Run::new(Persistent::new(&target(url), ann(in_room), || 1.0));
            run.give(In::Register);
            let mut has_ended = false;
            for step in steps {
                if let Step::Command(_) = step {
                    has_ended = false;
                }
                let outs = match step {
                    Step::Open => run.open("roomtone"),
                    Step::Text(text) => run.text(text),
                    Step::Close(code) => run.close(code, "x"),
                    Step::Fail => run.give(In::Failed(run.conn, ConnectError::Broken("x".into()))),
                    Step::Pass(ms) => run.pass(Duration::from_millis(ms)),
                    Step::Command(command) => run.give(command),
                };
                prop_assert!(!has_ended || outs.events.is_empty(), "{:?} after the end", outs.events);
                has_ended |= outs.events.iter().any(|event| matches!(event, Event::Ended(_)));
            }
            for begin in &run.connected_at {
                let within = |at: &&Instant| **at >= *begin && **at <= *begin + Duration::from_secs(15);
                let count = run.connected_at.iter().filter(within).count();
                prop_assert!(count <= most, "{count} connects in 15 s");
            }
        }
    }
}
