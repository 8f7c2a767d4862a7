//! Runs a script against a server.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::script::{Action, Line, Names, Script, Step};
use crate::base::timeout::timeout_at;
use crate::signalling::{Frame, Socket, Target};

/// Failure of a script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct Failure {
    /// Number of the line, from 1.
    pub line: usize,
    /// Expectation and event in words.
    pub reason: String,
}

/// Callback for each message: the peer, `>` (sent), `<` (received) or `!` (closed), and the text.
pub type Trace<'a> = &'a (dyn Fn(&str, char, &str) + Sync);

/// Connection of a peer, and the messages received on it.
struct Peer {
    socket: Option<Socket>,
}

struct Runner<'a> {
    target: &'a Target,
    peers: BTreeMap<String, Peer>,
    names: Names,
    trace: Trace<'a>,
}

/// Runs all steps, and closes all connections at the end, also after a failure. `{run}` is a different word in each run,
/// so that runs do not interfere.
pub async fn run(script: &Script, target: &Target, trace: Trace<'_>) -> Result<(), Failure> {
    let names = Names::from([("run".to_owned(), format!("{:08x}", fastrand::u32(..)))]);
    let mut runner = Runner { target, peers: BTreeMap::new(), names, trace };
    let mut result = Ok(());
    for line in &script.lines {
        result = runner.step(line).await.map_err(|reason| Failure { line: line.number, reason });
        if result.is_err() {
            break;
        }
    }
    for peer in runner.peers.into_values() {
        if let Some(socket) = peer.socket {
            socket.close().await;
        }
    }
    result
}

fn shown(text: &str) -> String {
    let head: String = text.chars().take(200).collect();
    let more = if head.len() < text.len() { format!("… ({} bytes)", text.len()) } else { String::new() };
    format!("{head:?}{more}")
}

impl Runner<'_> {
    async fn step(&mut self, line: &Line) -> Result<(), String> {
        match &line.step {
            Step::Send(peer, pattern) => {
                let text = pattern.fill(&self.names)?;
                (self.trace)(peer, '>', &text);
                self.socket(peer)?.send(text).await.map_err(|error| error.to_string())
            }
            Step::Expect(..) => self.expect(std::slice::from_ref(line)).await,
            Step::Act(peer, action) => self.act(peer, action, line.timeout).await,
            Step::Unordered(lines) => self.expect(lines).await,
        }
    }

    fn socket(&mut self, peer: &str) -> Result<&mut Socket, String> {
        let socket = self.peers.get_mut(peer).and_then(|peer| peer.socket.as_mut());
        socket.ok_or_else(|| format!("{peer} is not connected"))
    }

    /// Returns the next message of the peer; `None` after the timeout.
    async fn receive(&mut self, peer: &str, until: Instant) -> Result<Option<Frame>, String> {
        let socket = self.socket(peer)?;
        let frame = timeout_at(Some(until), socket.receive()).await;
        match &frame {
            Some(Frame::Text(text)) => (self.trace)(peer, '<', text),
            Some(Frame::Closed(code, reason)) => {
                (self.trace)(peer, '!', &format!("closed {code} {reason}"));
                if let Some(peer) = self.peers.get_mut(peer) {
                    peer.socket = None;
                }
            }
            Some(Frame::Binary(_)) | None => {}
        }
        Ok(frame)
    }

    /// Expects one message for each line, in any order.
    async fn expect(&mut self, lines: &[Line]) -> Result<(), String> {
        let mut open: Vec<&Line> = lines.iter().collect();
        while let Some(first) = open.first() {
            let Step::Expect(peer, _) = &first.step else { return Err("a group of other steps".to_owned()) };
            let timeout = first.timeout;
            let came = match self.receive(peer, Instant::now() + timeout).await? {
                Some(Frame::Text(text)) => {
                    let names = &mut self.names;
                    let fits = |line: &&Line| match &line.step {
                        Step::Expect(of, pattern) if of == peer => pattern.matches(&text, names),
                        _ => false,
                    };
                    match open.iter().position(fits) {
                        Some(at) => {
                            open.remove(at);
                            continue;
                        }
                        None => format!("received {}", shown(&text)),
                    }
                }
                Some(Frame::Binary(bytes)) => format!("received a binary frame of {} bytes", bytes.len()),
                Some(Frame::Closed(code, reason)) => format!("its connection was closed ({code} {reason})"),
                None => format!("received nothing for {timeout:?}"),
            };
            let wanted: Vec<String> = open
                .iter()
                .filter_map(|line| match &line.step {
                    Step::Expect(of, pattern) if of == peer => Some(shown(&pattern.shown(&self.names))),
                    _ => None,
                })
                .collect();
            let any = if wanted.len() > 1 { "one of " } else { "" };
            return Err(format!("{peer} should receive {any}{}, but {came}", wanted.join(", ")));
        }
        Ok(())
    }

    async fn act(&mut self, peer: &str, action: &Action, timeout: Duration) -> Result<(), String> {
        match action {
            Action::Connect(extended) => {
                let target = self.target.clone().extended(*extended);
                let socket = Socket::connect(&target).await.map_err(|error| error.to_string())?;
                (self.trace)(peer, '!', "connected");
                self.peers.insert(peer.to_owned(), Peer { socket: Some(socket) });
                Ok(())
            }
            Action::Close | Action::Drop => {
                self.socket(peer)?;
                let socket = self.peers.get_mut(peer).and_then(|peer| peer.socket.take());
                if let (Action::Close, Some(socket)) = (action, socket) {
                    socket.close().await;
                }
                (self.trace)(peer, '!', "closed");
                Ok(())
            }
            Action::Quiet(time) => match self.receive(peer, Instant::now() + *time).await? {
                None => Ok(()),
                Some(Frame::Text(text)) => {
                    Err(format!("{peer} should receive nothing, but received {}", shown(&text)))
                }
                Some(frame) => Err(format!("{peer} should receive nothing, but received {frame:?}")),
            },
            Action::Closed(code, words) => {
                let until = Instant::now() + timeout;
                loop {
                    match self.receive(peer, until).await? {
                        Some(Frame::Closed(came, reason)) => {
                            let names = &mut self.names;
                            let fits =
                                code.matches(&came.to_string(), names) && words.matches(&reason, names);
                            let wanted = format!("{} {}", code.shown(names), words.shown(names));
                            return match fits {
                                true => Ok(()),
                                false => Err(format!(
                                    "{peer} should be closed with {wanted}, but was closed with {came} {reason}"
                                )),
                            };
                        }
                        Some(_) => {}
                        None => {
                            return Err(format!("{peer} should be closed, but was not within {timeout:?}"));
                        }
                    }
                }
            }
            Action::Binary(bytes) => {
                let sent = self.socket(peer)?.send_binary(vec![0xff; *bytes]).await;
                sent.map_err(|error| error.to_string())
            }
        }
    }
}
