//! Runs a signaller on virtual time, for the tests of this folder.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::event::Event;
use super::signaller::{
    ConnId, Endpoint, Frame, Headers, In, Out, Registration, Request, RequestId, Signaller, header,
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
    pub(super) abandoned: Vec<RequestId>,
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
                Out::Abandon(id) => outs.abandoned.push(id),
                Out::Event(event) => outs.events.push(event),
            }
        }
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

/// A protocol that uses the parts of the port that no other protocol uses: offers subprotocols, greets in binary, and
/// opens a second WebSocket with the token that the server answers. Application events go to the WebSocket of their
/// name; frames come back as application events of that name.
pub(super) struct Toy {
    target: Target,
    outputs: VecDeque<Out>,
}

impl Toy {
    pub(super) const FIRST: &str = "first";
    pub(super) const SECOND: &str = "second";
    pub(super) const SUBPROTOCOLS: [&str; 2] = ["toy.v2", "toy.v1"];
    pub(super) const GREETING: &[u8] = &[0, 0xff, 1];
    pub(super) const CLOSE: (u16, &str) = (4001, "done");

    pub(super) fn new(target: &Target) -> Self {
        Self { target: target.clone(), outputs: VecDeque::new() }
    }

    fn name(conn: ConnId) -> String {
        [Self::FIRST, Self::SECOND][usize::from(conn == ConnId(2))].to_owned()
    }
}

impl Signaller for Toy {
    fn handle(&mut self, _now: Instant, input: In) {
        let data = |bytes: Vec<u8>| serde_json::Value::from(bytes);
        self.outputs.extend(match input {
            In::Register => {
                let subprotocols = Self::SUBPROTOCOLS.map(str::to_owned).to_vec();
                vec![Out::Connect(ConnId(1), Endpoint { subprotocols, ..self.target.endpoint() })]
            }
            In::Application(name, data) => {
                let conn = ConnId(if name == Self::SECOND { 2 } else { 1 });
                vec![Out::Send(conn, Frame::Binary(data.to_string().into_bytes()))]
            }
            In::Close => vec![],
            In::Release(_) => {
                let (code, reason) = Self::CLOSE;
                let frame = Frame::Closed(code, reason.to_owned());
                vec![Out::Send(ConnId(2), frame), Out::Close(ConnId(2))]
            }
            In::Opened(ConnId(1), headers) => {
                assert_eq!(header(&headers, "sec-websocket-protocol"), Some("toy.v1"));
                vec![Out::Send(ConnId(1), Frame::Binary(Self::GREETING.to_vec()))]
            }
            In::Frame(ConnId(1), Frame::Text(token)) => {
                let headers = vec![("x-token".to_owned(), token)];
                let mut endpoint = Endpoint { headers, ..self.target.endpoint() };
                endpoint.url.set_path("/media");
                vec![Out::Connect(ConnId(2), endpoint)]
            }
            In::Opened(..) => vec![Out::Event(Event::Registered)],
            In::Frame(conn, Frame::Binary(bytes)) => {
                vec![Out::Event(Event::Application(Self::name(conn), data(bytes)))]
            }
            input => panic!("{input:?}"),
        });
    }

    fn poll_output(&mut self) -> Option<Out> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn is_idle(&self) -> bool {
        true
    }
}
