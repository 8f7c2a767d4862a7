//! Runs a signaller on virtual time, for the tests of this folder.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::event::Event;
use super::signaller::{
    Command, ConnId, Endpoint, Frame, Headers, In, Out, Registration, Request, RequestId, Signaller,
};
use super::target::Target;
use crate::tls::Trust;

pub(super) fn target(url: &str) -> Target {
    Target::parse(url, Trust::System).unwrap()
}

/// Returns the registration of `ann`, in the room `attic` if `in_room`.
pub(super) fn ann(in_room: bool) -> Registration {
    let room = in_room.then(|| "attic".parse().unwrap());
    Registration { id: "ann".parse().unwrap(), room, calls: None }
}

/// The outputs of one or several inputs, by kind.
#[derive(Debug, Default)]
pub(super) struct Outs {
    pub(super) connects: Vec<(ConnId, Endpoint)>,
    pub(super) sent: Vec<String>,
    pub(super) closed: Vec<ConnId>,
    pub(super) silence: Vec<Duration>,
    pub(super) requests: Vec<(RequestId, Request)>,
    pub(super) events: Vec<Event>,
}

/// A signaller, and the connection that it opened last.
pub(super) struct Run {
    pub(super) now: Instant,
    pub(super) signaller: Box<dyn Signaller>,
    pub(super) conn: ConnId,
    live: BTreeSet<ConnId>,
    /// The times of all connects.
    pub(super) connected_at: Vec<Instant>,
}

impl Run {
    pub(super) fn new(signaller: impl Signaller + 'static) -> Self {
        Self {
            now: Instant::now(),
            signaller: Box::new(signaller),
            conn: ConnId::default(),
            live: BTreeSet::new(),
            connected_at: vec![],
        }
    }

    pub(super) fn give(&mut self, input: In) -> Outs {
        if let In::Failed(conn, _) | In::Frame(conn, Frame::Closed(..)) = &input {
            self.live.remove(conn);
        }
        self.signaller.handle(self.now, input);
        let mut outs = Outs::default();
        self.drain(&mut outs);
        outs
    }

    fn drain(&mut self, outs: &mut Outs) {
        while let Some(output) = self.signaller.poll_output() {
            match output {
                Out::Connect(conn, endpoint) => {
                    assert!(conn > self.conn, "a number is used twice");
                    self.conn = conn;
                    self.live.insert(conn);
                    assert_eq!(self.live.len(), 1, "two connections at a time");
                    self.connected_at.push(self.now);
                    outs.connects.push((conn, endpoint));
                }
                Out::Send(_, Frame::Text(text)) => outs.sent.push(text),
                Out::Send(_, frame) => panic!("{frame:?}"),
                Out::Close(conn) => {
                    self.live.remove(&conn);
                    outs.closed.push(conn);
                }
                Out::Silence(_, longest) => outs.silence.push(longest),
                Out::Request(id, request) => outs.requests.push((id, request)),
                Out::Event(event) => outs.events.push(event),
            }
        }
    }

    pub(super) fn command(&mut self, command: Command) -> Outs {
        self.give(In::Command(command))
    }

    /// Opens the latest connection; the server's `Server` header is `server`.
    pub(super) fn open(&mut self, server: &str) -> Outs {
        let headers: Headers = vec![("server".to_owned(), server.to_owned())];
        self.give(In::Opened(self.conn, headers))
    }

    pub(super) fn text(&mut self, text: impl ToString) -> Outs {
        self.give(In::Frame(self.conn, Frame::Text(text.to_string())))
    }

    pub(super) fn event(&mut self, text: impl ToString) -> Event {
        let mut events = self.text(text).events;
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }

    pub(super) fn close(&mut self, code: u16, reason: &str) -> Outs {
        self.give(In::Frame(self.conn, Frame::Closed(code, reason.to_owned())))
    }

    /// Lets time pass, with all timers that fall due.
    pub(super) fn pass(&mut self, time: Duration) -> Outs {
        let (until, mut outs) = (self.now + time, Outs::default());
        for _ in 0..1000 {
            match self.signaller.poll_timeout() {
                Some(at) if at <= until => {
                    self.now = self.now.max(at);
                    self.signaller.handle(self.now, In::Timeout);
                    self.drain(&mut outs);
                }
                _ => {
                    self.now = until;
                    return outs;
                }
            }
        }
        panic!("a timer does not advance");
    }
}
