//! The codecs: a connection's text to the hub's commands, and the hub's notices to text.
//!
//! Pure: no file of this folder has a clock, chance, a socket or GStreamer.

pub(super) mod descriptions;
pub(super) mod framing;
pub mod hello;
pub mod rejection;
pub mod ssp;

use serde_json::Value;

use descriptions::described;
use rejection::Rejection;
use ssp::Endpoint;

use crate::hub::{Command, Notice, Phase};
use crate::protocol::{PeerId, socketio};

/// The protocol of a connection, and the connection's state in it.
#[derive(Debug)]
pub(in crate::server) enum Codec {
    /// The HELLO/SESSION/ROOM protocol, with or without roomtone's extensions.
    Room { extended: bool },
    /// ssp, the protocol of pools.
    Ssp(Endpoint),
}

impl Codec {
    /// Returns the codec for a request path: ssp, with the endpoint id `id`, on its own paths, else the HELLO protocol.
    pub(in crate::server) fn of(path: &str, extended: bool, id: PeerId) -> Self {
        match path.trim_end_matches('/') {
            "/ssp" | socketio::PATH => Self::Ssp(Endpoint::new(id)),
            _ => Self::Room { extended },
        }
    }

    /// Returns whether the client asked for roomtone's extensions.
    pub(in crate::server) fn is_extended(&self) -> bool {
        matches!(self, Self::Room { extended: true })
    }

    /// Returns whether the client speaks ssp.
    pub(in crate::server) fn is_ssp(&self) -> bool {
        matches!(self, Self::Ssp(_))
    }

    pub(in crate::server) fn decode(
        &mut self,
        phase: Phase,
        line: String,
    ) -> Result<Vec<Command>, Rejection> {
        match self {
            Self::Room { .. } => hello::decode(phase, line).map(|command| vec![command]),
            Self::Ssp(endpoint) => endpoint.decode(&line),
        }
    }

    /// Rejects a binary message.
    pub(in crate::server) fn reject_binary(&mut self) -> Rejection {
        match self {
            Self::Room { .. } => {
                Rejection::Error("ERROR binary messages are not part of this protocol".to_owned())
            }
            // Handled like text that is not JSON.
            Self::Ssp(endpoint) => match endpoint.decode("") {
                Err(rejection) => rejection,
                Ok(_) => Rejection::Close(1003, "text only"),
            },
        }
    }

    /// Encodes a notice as messages of the peer's protocol. `describe` returns the back end's description of a peer.
    pub(in crate::server) fn encode(
        &mut self,
        notice: Notice,
        describe: impl Fn(&PeerId) -> Value,
    ) -> Vec<String> {
        match self {
            Self::Ssp(endpoint) => endpoint.encode(notice, describe),
            Self::Room { extended } => {
                let come = match &notice {
                    Notice::Joined(peers) if *extended => described(peers.iter(), describe),
                    Notice::PeerJoined(peer) if *extended => described([peer].into_iter(), describe),
                    _ => vec![],
                };
                // Each description is a message of its own: together they could exceed the longest message.
                let come = come.into_iter().filter(|(_, description)| !description.is_null());
                let described = come.map(|(peer, description)| Notice::Described(peer, description));
                let all = std::iter::once(notice).chain(described);
                all.filter_map(|notice| hello::encode(notice, *extended)).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Instant;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::hub::{Admin, ConnId, Hub, Input, Limits, Output, Owner};
    use crate::protocol::ssp::{ClientEvent, ServerEvent};
    use crate::protocol::{Description, PeerMessage, RoomId, SdpKind};

    #[derive(Debug, Clone)]
    enum Step {
        Open(Kind),
        Close(usize),
        Join(usize, bool),
        Describe(usize),
        Sdp(usize, usize),
        Candidate(usize, usize),
        CloseRoom(bool),
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Kind {
        One,
        Two,
        Room,
    }

    /// A connection, and the state that RTCPool would have.
    struct Client {
        kind: Kind,
        codec: Codec,
        name: String,
        known: BTreeSet<String>,
        described: BTreeSet<String>,
    }

    struct World {
        hub: Hub,
        clients: BTreeMap<ConnId, Client>,
    }

    fn pool(other: bool) -> &'static str {
        if other { "cellar" } else { "the attic" }
    }

    impl World {
        fn nth(&self, n: usize) -> Option<ConnId> {
            self.clients.keys().nth(n % self.clients.len().max(1)).copied()
        }

        fn say(&mut self, conn: ConnId, line: String) {
            let phase = self.hub.phase(conn);
            let client = self.clients.get_mut(&conn).unwrap();
            let Ok(commands) = client.codec.decode(phase, line) else { return };
            for command in commands {
                if let Command::Enter(name, _) = &command {
                    client.name = name.to_string();
                }
                self.hub.handle_input(Instant::now(), Input::Command(conn, command));
            }
        }

        fn deliver(&mut self) -> Result<(), TestCaseError> {
            while let Some(output) = self.hub.poll_output() {
                match output {
                    Output::Notify(conn, notice) => {
                        let Some(client) = self.clients.get_mut(&conn) else { continue };
                        let hub = &self.hub;
                        for line in client.codec.encode(notice, |peer| hub.description(peer)) {
                            if client.kind != Kind::Room {
                                client.hear(&line)?;
                            }
                        }
                    }
                    Output::Close(conn, _) => {
                        self.clients.remove(&conn);
                    }
                    Output::Probe(_) => {}
                }
            }
            Ok(())
        }
    }

    impl Client {
        fn is_known(&self, id: &str) -> Result<(), TestCaseError> {
            prop_assert!(id != self.name, "about itself");
            prop_assert!(self.known.contains(id), "an unknown endpoint");
            Ok(())
        }

        fn hear(&mut self, line: &str) -> Result<(), TestCaseError> {
            match ServerEvent::parse(line).unwrap() {
                ServerEvent::Joined { id, peers, .. } => {
                    prop_assert_eq!(&id, &self.name);
                    prop_assert!(!peers.contains(&id));
                    self.known = peers.into_iter().collect();
                }
                ServerEvent::Peer(id) => {
                    prop_assert!(
                        id != self.name && self.known.insert(id),
                        "an endpoint joined twice, or is the receiver"
                    );
                }
                ServerEvent::Close(id) => {
                    self.is_known(&id)?;
                    self.known.remove(&id);
                    self.described.remove(&id);
                }
                ServerEvent::Describe(id, _) | ServerEvent::RequestOffers(id) => self.is_known(&id)?,
                ServerEvent::Sdp(id, _) | ServerEvent::Offer(id, _) | ServerEvent::Answer(id, _) => {
                    self.is_known(&id)?;
                    self.described.insert(id);
                }
                ServerEvent::Candidate(id, _) => {
                    self.is_known(&id)?;
                    prop_assert!(self.described.contains(&id), "a candidate before a description");
                }
                ServerEvent::Error { .. } | ServerEvent::Stop | ServerEvent::Other(..) => {}
            }
            Ok(())
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        let n = || 0..8_usize;
        prop_oneof![
            3 => prop_oneof![Just(Kind::One), Just(Kind::Two), Just(Kind::Room)].prop_map(Step::Open),
            1 => n().prop_map(Step::Close),
            4 => (n(), prop::bool::weighted(0.2)).prop_map(|(n, other)| Step::Join(n, other)),
            1 => n().prop_map(Step::Describe),
            4 => (n(), n()).prop_map(|(from, to)| Step::Sdp(from, to)),
            4 => (n(), n()).prop_map(|(from, to)| Step::Candidate(from, to)),
            1 => any::<bool>().prop_map(Step::CloseRoom),
        ]
    }

    proptest! {
        /// Endpoints of both versions and peers of rooms, in any order of joins, leaves, descriptions and messages: no event
        /// names an unknown endpoint or the receiver itself, and no candidate precedes a description.
        #[test]
        fn events_meet_the_requirements_of_rtcpool(steps in prop::collection::vec(step(), 0..100)) {
            let mut world = World { hub: Hub::new(Limits::default()), clients: BTreeMap::new() };
            let mut next = 0;
            for step in steps {
                match step {
                    Step::Open(kind) => {
                        next += 1;
                        let conn = ConnId(next);
                        world.hub.handle_input(Instant::now(), Input::Opened(conn, Owner(1)));
                        let name = format!("peer{next}");
                        let path = if kind == Kind::Room { "/" } else { "/ssp" };
                        let codec = Codec::of(path, next % 2 == 0, name.parse().unwrap());
                        let (known, described) = Default::default();
                        world.clients.insert(conn, Client { kind, codec, name: name.clone(), known, described });
                        if kind == Kind::Room {
                            world.say(conn, format!("HELLO {name}"));
                        }
                    }
                    Step::Close(n) => {
                        let Some(conn) = world.nth(n) else { continue };
                        world.clients.remove(&conn);
                        world.hub.handle_input(Instant::now(), Input::Closed(conn));
                    }
                    Step::Join(n, other) => {
                        let Some(conn) = world.nth(n) else { continue };
                        let line = match world.clients[&conn].kind {
                            Kind::Room => format!("ROOM {}", RoomId::from_foreign(pool(other)).unwrap()),
                            Kind::One | Kind::Two => ClientEvent::Join(pool(other).into()).to_string(),
                        };
                        world.say(conn, line);
                    }
                    Step::Describe(n) => {
                        let Some(conn) = world.nth(n) else { continue };
                        let peer = world.clients[&conn].name.parse().unwrap();
                        let admin = Admin::Describe(peer, json!({"n": n}));
                        world.hub.handle_input(Instant::now(), Input::Admin(admin));
                    }
                    Step::CloseRoom(other) => {
                        let room = RoomId::from_foreign(pool(other)).unwrap();
                        world.hub.handle_input(Instant::now(), Input::Admin(Admin::Close(room)));
                    }
                    Step::Sdp(from, to) | Step::Candidate(from, to) => {
                        let (Some(conn), Some(to)) = (world.nth(from), world.nth(to)) else { continue };
                        let (kind, to) = (world.clients[&conn].kind, world.clients[&to].name.clone());
                        let offer = Description { kind: SdpKind::Offer, sdp: "v=0".into() };
                        let is_sdp = matches!(step, Step::Sdp(..));
                        let line = match (kind, is_sdp) {
                            (Kind::Room, true) => format!("ROOM_PEER_MSG {to} {}", PeerMessage::Description(offer)),
                            (Kind::Room, false) => format!("ROOM_PEER_MSG {to} {}", PeerMessage::EndOfCandidates),
                            (Kind::One, true) => ClientEvent::Offers(vec![(to, offer)]).to_string(),
                            (Kind::Two, true) => ClientEvent::Sdp(to, offer).to_string(),
                            (_, false) => ClientEvent::Candidate(to, PeerMessage::EndOfCandidates).to_string(),
                        };
                        world.say(conn, line);
                    }
                }
                world.deliver()?;
            }
        }
    }
}
