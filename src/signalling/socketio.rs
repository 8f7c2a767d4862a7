//! The framing of socket.io around a back end: opens the default namespace, answers pings, and puts each text into a
//! packet. The packets themselves ([`Packet`]) are shared with the server.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::error::{ConnectError, NO_STATUS, brief};
use super::signaller::{ConnId, Frame, Headers, In, Out, Signaller};
use super::target::Target;
use crate::protocol::socketio::Packet;

/// The path of socket.io in a URL that names none.
pub(super) const PATH: &str = "/socket.io/";
/// The query of a WebSocket of Engine.IO 4.
pub(super) const QUERY: &str = "EIO=4&transport=websocket";

/// Returns whether a text is the first packet of a socket.io server.
pub(super) fn is_greeting(text: &str) -> bool {
    matches!(Packet::parse(text), Ok(Packet::Open(_)))
}

/// A back end whose messages are socket.io's events.
pub struct SocketIo {
    server: String,
    inner: Box<dyn Signaller>,
    /// The connection on which the default namespace is not open yet, with the header fields of its upgrade.
    opening: Option<(ConnId, Headers)>,
    outputs: VecDeque<Out>,
}

impl SocketIo {
    /// Wraps a back end.
    pub fn new(target: &Target, inner: Box<dyn Signaller>) -> Self {
        Self { server: target.name(), inner, opening: None, outputs: VecDeque::new() }
    }

    fn send(&mut self, conn: ConnId, packet: &Packet) {
        self.outputs.push_back(Out::Send(conn, Frame::Text(packet.to_string())));
    }

    fn opens(&self, conn: ConnId) -> bool {
        self.opening.as_ref().is_some_and(|(opening, _)| *opening == conn)
    }

    /// Handles a text before the namespace is open; returns the back end's input, if any.
    fn opening(&mut self, conn: ConnId, text: &str) -> Option<In> {
        match Packet::parse(text) {
            Ok(Packet::Open(open)) => {
                // The server pings every `pingInterval`; a socket.io client gives up after `pingInterval + pingTimeout`
                // without a ping.
                let longest = open.ping_interval.saturating_add(open.ping_timeout);
                self.outputs.push_back(Out::Silence(conn, Duration::from_millis(longest)));
                self.send(conn, &Packet::Connect(None));
                None
            }
            Ok(Packet::Connect(_)) => self.opening.take().map(|(conn, headers)| In::Opened(conn, headers)),
            Ok(Packet::ConnectError(why)) => {
                let why = format!("socket.io: {}", brief(&why));
                Some(self.failed(conn, ConnectError::Denied(self.server.clone(), why)))
            }
            Ok(_) => None,
            Err(why) => {
                let error = ConnectError::OtherProtocol(self.server.clone(), format!("socket.io: {why}"));
                Some(self.failed(conn, error))
            }
        }
    }

    fn failed(&mut self, conn: ConnId, error: ConnectError) -> In {
        self.opening = None;
        self.outputs.push_back(Out::Close(conn));
        In::Failed(conn, error)
    }

    /// Handles a text after the namespace is open; returns the back end's input, if any.
    fn text(&mut self, conn: ConnId, text: &str) -> Option<In> {
        match Packet::parse(text) {
            Ok(Packet::Event(event)) => Some(In::Frame(conn, Frame::Text(event))),
            Ok(Packet::Ping(data)) => {
                self.send(conn, &Packet::Pong(data));
                None
            }
            Ok(Packet::Disconnect | Packet::Close) => {
                self.outputs.push_back(Out::Close(conn));
                Some(In::Frame(conn, Frame::Closed(NO_STATUS, String::new())))
            }
            // Packets for other namespaces, and packets that do not parse.
            Ok(_) | Err(_) => None,
        }
    }

    /// Returns the back end's input for an input of the driver, if any.
    fn unwrap(&mut self, input: In) -> Option<In> {
        match input {
            In::Opened(conn, headers) => {
                self.opening = Some((conn, headers));
                None
            }
            In::Frame(conn, Frame::Text(text)) if self.opens(conn) => self.opening(conn, &text),
            In::Frame(conn, Frame::Text(text)) => self.text(conn, &text),
            In::Frame(conn, Frame::Binary(_)) if self.opens(conn) => None,
            In::Frame(conn, Frame::Closed(code, why)) if self.opens(conn) => {
                self.opening = None;
                let why = format!("{} closed it ({code} {why}) while socket.io began", self.server);
                Some(In::Failed(conn, ConnectError::Broken(why)))
            }
            input => Some(input),
        }
    }
}

impl Signaller for SocketIo {
    fn handle(&mut self, now: Instant, input: In) {
        if let Some(input) = self.unwrap(input) {
            self.inner.handle(now, input);
        }
        while let Some(output) = self.inner.poll_output() {
            self.outputs.push_back(match output {
                Out::Send(conn, Frame::Text(text)) => {
                    Out::Send(conn, Frame::Text(Packet::Event(text).to_string()))
                }
                output => output,
            });
        }
    }

    fn poll_output(&mut self) -> Option<Out> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.inner.poll_timeout()
    }

    fn is_idle(&self) -> bool {
        self.inner.is_idle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ssp::ServerEvent;
    use crate::signalling::event::Event;
    use crate::signalling::ssp::Ssp;
    use crate::signalling::testing::{Run, ann, target};

    const GREETING: &str =
        r#"0{"sid":"x","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":9}"#;

    fn run() -> Run {
        let target = target("ssp+http://h:1/x/?k=v");
        let ssp = Ssp::new(&target, ann(true).room);
        let mut run = Run::new(SocketIo::new(&target, Box::new(ssp)));
        let (_, endpoint) = run.give(In::Register).connects.remove(0);
        assert_eq!(endpoint.url.as_str(), "ws://h:1/x/?k=v&EIO=4&transport=websocket");
        assert!(run.open("").sent.is_empty(), "the server begins");
        run
    }

    #[test]
    fn the_namespace_is_opened_before_the_back_end_begins() {
        assert!(is_greeting(GREETING) && !is_greeting("0") && !is_greeting("HELLO"));
        let mut run = run();
        let outs = run.text(GREETING);
        assert_eq!((outs.sent, outs.silence), (vec!["40".to_owned()], vec![Duration::from_secs(45)]));
        assert_eq!(run.text("2").sent.len(), 0, "no ping is answered before");
        assert_eq!(run.text(r#"40{"sid":"y"}"#).sent, [r#"42["rtc:join",{"pool":"attic"}]"#]);
        assert_eq!(run.text("2x").sent, ["3x"]);
        let stop = Packet::Event(ServerEvent::Peer("bob".into()).to_string());
        assert_eq!(run.event(stop), Event::PeerJoined("bob".parse().unwrap()));
        assert!(run.text("5").events.is_empty() && run.text("no packet").events.is_empty());
        let outs = run.text("41");
        assert_eq!((outs.closed.len(), outs.events.len()), (1, 1));
    }

    #[test]
    fn a_refusal_another_protocol_and_an_early_end_fail_the_connection() {
        let failed = |text: &str| match run().event(text) {
            Event::Ended(error) => error,
            event => panic!("{event:?}"),
        };
        assert!(
            matches!(failed(r#"44{"message":"no"}"#), ConnectError::Denied(_, why) if why == "socket.io: no")
        );
        assert!(matches!(failed("HELLO"), ConnectError::OtherProtocol(..)));
        let early = run().close(1001, "restart").events.remove(0);
        assert!(matches!(early, Event::Ended(ConnectError::Broken(_))));
    }
}
