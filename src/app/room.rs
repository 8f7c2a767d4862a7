//! The event loop of a room: a link and a connection with each peer, one source and one encode for all.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{Client, ClientError, Happening};
use super::command::Command;
use super::connection::Connection;
use super::line::Funnel;
use super::wire::Wire;
use super::{Event, PeerState};
use crate::base::limit::Bucket;
use crate::base::text::{brief, shown};
use crate::media::MediaError;
use crate::protocol::{PeerId, RoomId};
use crate::session::room::{Input, Output, Room};
use crate::session::{Effect, EndReason, Terms, link};
use crate::signalling::reconnect::Ended;
use crate::signalling::{self, ConnectError, Protocol};

/// What the loop holds besides the machine.
struct Hall {
    connections: BTreeMap<PeerId, Connection>,
    funnel: Funnel,
    stats_at: Option<Instant>,
    /// What the server's back end says of those who are there.
    descriptions: BTreeMap<PeerId, Value>,
    /// What is told of the server's junk.
    warnings: Bucket,
    /// Reason why the server refused to register the client again; the loop ends once the last peer has left.
    refused: Option<ClientError>,
}

impl Hall {
    /// A peer's name for people: the one that the back end gives it, or its id.
    fn label(&self, peer: &PeerId) -> String {
        let name = self.descriptions.get(peer).and_then(|description| description["name"].as_str());
        name.map_or_else(|| shown(peer.as_str()), brief)
    }

    fn describe(&mut self, peer: PeerId, description: Value) {
        self.descriptions.insert(peer.clone(), description);
        let label = self.label(&peer);
        if let Some(connection) = self.connections.get_mut(&peer) {
            connection.label(label);
        }
    }
}

impl Client {
    /// Joins a room and stays until the user ends it; comes back when the server was gone.
    pub async fn join(&self, room: &RoomId, most: usize) -> Result<(), ClientError> {
        let result = self.stay(room, most).await;
        self.finish().await;
        result
    }

    async fn stay(&self, name: &RoomId, most: usize) -> Result<(), ClientError> {
        let mut wire = self.wire(None, Some(name)).await?;
        let pool = matches!(self.target.protocol(), Protocol::Ssp(_));
        let mut room = Room::new(most, Terms { pool, ..self.plan.terms() });
        let stats_at = self.plan.stats.map(|every| Instant::now() + every);
        let mut hall = Hall {
            connections: BTreeMap::new(),
            funnel: Funnel::new(self.plan.trace.is_some()),
            stats_at,
            descriptions: BTreeMap::new(),
            warnings: Bucket::new(link::WARNINGS.0, link::WARNINGS.1),
            refused: None,
        };
        let end = loop {
            if let Err(error) = self.act_in_room(&mut wire, &mut room, &mut hall).await {
                break Err(error);
            }
            if hall.connections.is_empty()
                && let Some(error) = hall.refused.take()
            {
                break Err(error);
            }
            let records = hall.connections.values().filter_map(Connection::record_at);
            let deadline = room.poll_timeout().into_iter().chain(hall.stats_at).chain(records).min();
            let input = match self.next(&mut wire, &hall.funnel, deadline).await {
                Happening::Timer => {
                    self.room_timer(&mut room, &mut hall);
                    continue;
                }
                Happening::Wire(signalling::Event::Lost { .. }) => {
                    self.warn("the server is gone; trying again");
                    wire.come_back(Ended::Failed(None));
                    Input::ServerGone
                }
                Happening::Wire(event) => match self.said(event, name, &mut hall).await {
                    Ok(Some(input)) => input,
                    Ok(None) => continue,
                    Err(error) => break Err(error),
                },
                Happening::Connection(number, happened) => {
                    let mut all = hall.connections.iter_mut();
                    let Some((peer, connection)) = all.find(|(_, c)| c.number == number) else { continue };
                    match connection.handle(happened, &self.plan, &self.sink) {
                        Some(input) => Input::Link(peer.clone(), input),
                        None => continue,
                    }
                }
                Happening::Failure(text) => {
                    self.warn(&text);
                    continue;
                }
                Happening::Command(Command::Quit) => break Ok(()),
                Happening::Command(Command::Interrupt) => break Err(ClientError::Interrupted),
                Happening::Command(Command::Tell(name, data)) => {
                    wire.say(|backend| backend.tell(&name, &data)).await;
                    continue;
                }
                Happening::Command(Command::HangUp(Some(peer))) => Input::Link(peer, link::Input::HangUp),
                Happening::Command(Command::Reconnect(Some(peer))) => Input::Link(peer, link::Input::Renew),
                Happening::Command(command) => {
                    self.command_in_room(command, &mut room, &hall).await;
                    continue;
                }
            };
            room.handle_input(Instant::now(), input);
        };
        wire.close().await;
        for (peer, connection) in std::mem::take(&mut hall.connections) {
            connection.close(true, &self.sink).await;
            self.tell(peer.as_str(), PeerState::Left, Some(EndReason::HungUp.to_string()));
        }
        end
    }

    /// What the server's words mean to the room.
    async fn said(
        &self,
        event: signalling::Event,
        name: &RoomId,
        hall: &mut Hall,
    ) -> Result<Option<Input>, ClientError> {
        Ok(Some(match event {
            signalling::Event::Joined { peers, me, descriptions } => {
                me.iter().for_each(|me| self.registration().tell(me));
                (self.sink)(&Event::Room {
                    room: name.to_string(),
                    peers: peers.iter().map(PeerId::to_string).collect(),
                });
                for (peer, description) in descriptions {
                    self.described(hall, peer, description);
                }
                Input::Joined(peers)
            }
            signalling::Event::PeerJoined(peer) => Input::PeerJoined(peer),
            signalling::Event::PeerLeft(peer) => Input::PeerLeft(peer),
            signalling::Event::From(peer, message) => Input::Link(peer, link::Input::Peer(message)),
            signalling::Event::JunkFrom(peer, why) => Input::Link(peer, link::Input::Junk(why)),
            signalling::Event::Refused(refusal) => return Ok(self.complain(hall, &refusal.to_string())),
            signalling::Event::Junk(why) => return Ok(self.complain(hall, &why)),
            signalling::Event::Retrying(why) => {
                self.warn(&why);
                return Ok(None);
            }
            signalling::Event::Ended(error @ ConnectError::Dismissed(_)) => return Err(error.into()),
            signalling::Event::Ended(error) => {
                if !hall.connections.is_empty() {
                    self.warn(&format!("{error}; those who are connected stay so"));
                }
                hall.refused = Some(error.into());
                return Ok(None);
            }
            signalling::Event::IceServers(servers) => {
                self.plan.ice.take(servers).await;
                return Ok(None);
            }
            signalling::Event::Application(name, data) => {
                (self.sink)(&Event::Application { name, data });
                return Ok(None);
            }
            signalling::Event::Described(peer, description) => {
                self.described(hall, peer, description);
                return Ok(None);
            }
            signalling::Event::Registered
            | signalling::Event::Lost { .. }
            | signalling::Event::Foreign(_)
            | signalling::Event::Accepted
            | signalling::Event::Caller(_)
            | signalling::Event::Peer(_) => return Ok(None),
        }))
    }

    /// Warns about a useless message of the server, at a limited rate.
    fn complain(&self, hall: &mut Hall, text: &str) -> Option<Input> {
        if hall.warnings.take(Instant::now()) {
            self.warn(text);
        }
        None
    }

    fn described(&self, hall: &mut Hall, peer: PeerId, description: Value) {
        (self.sink)(&Event::Described { peer: peer.to_string(), description: description.clone() });
        hall.describe(peer, description);
    }

    /// Does what the room wants.
    async fn act_in_room(
        &self,
        wire: &mut Wire,
        room: &mut Room,
        hall: &mut Hall,
    ) -> Result<(), ClientError> {
        while let Some(output) = room.poll_output() {
            match output {
                Output::Joined(peer) => self.tell(peer.as_str(), PeerState::Joined, None),
                Output::Left(peer) => {
                    hall.descriptions.remove(&peer);
                    self.close(hall, &peer, false).await;
                    self.tell(peer.as_str(), PeerState::Left, None);
                }
                Output::Connecting(peer) => self.tell(peer.as_str(), PeerState::Connecting, None),
                Output::Warning(text) => self.warn(&text),
                Output::Link(peer, link::Output::Send(message)) => {
                    wire.say(|backend| backend.address(Some(&peer), &message)).await;
                }
                Output::Link(peer, link::Output::Effect(Effect::Open)) => {
                    let opened = match hall.connections.get_mut(&peer) {
                        Some(connection) => connection.reopen(&self.plan, &mut hall.funnel),
                        None => Connection::open(&self.plan, peer.to_string(), &mut hall.funnel).map(
                            |mut connection| {
                                connection.label(hall.label(&peer));
                                hall.connections.insert(peer, connection);
                            },
                        ),
                    };
                    match opened {
                        Ok(()) => {}
                        // What is missing is missing for all.
                        Err(error @ MediaError::MissingElement { .. }) => return Err(error.into()),
                        Err(error) => self.warn(&error.to_string()),
                    }
                }
                Output::Link(peer, link::Output::Effect(effect)) => {
                    if let Some(connection) = hall.connections.get(&peer) {
                        connection.execute(effect);
                    }
                }
                Output::Link(peer, link::Output::Connected) => {
                    self.tell(peer.as_str(), PeerState::Connected, None)
                }
                Output::Link(peer, link::Output::Reconnecting) => {
                    self.tell(peer.as_str(), PeerState::Reconnecting, None);
                }
                Output::Link(peer, link::Output::Warning(text)) => self.warn(&format!("{peer}: {text}")),
                Output::Link(peer, link::Output::Ended(reason)) => {
                    self.close(hall, &peer, reason == EndReason::HungUp).await;
                    if matches!(reason, EndReason::NoPath(_)) {
                        smol::spawn(self.plan.ice.explain(&self.sink)).detach();
                    }
                    let state = match reason {
                        EndReason::HungUp | EndReason::PeerHungUp => PeerState::Left,
                        _ => PeerState::Failed,
                    };
                    self.tell(peer.as_str(), state, Some(reason.to_string()));
                }
            }
        }
        Ok(())
    }

    async fn close(&self, hall: &mut Hall, peer: &PeerId, is_there: bool) {
        if let Some(connection) = hall.connections.remove(peer) {
            connection.close(is_there, &self.sink).await;
        }
    }

    fn room_timer(&self, room: &mut Room, hall: &mut Hall) {
        let now = Instant::now();
        room.handle_timeout(now);
        for connection in hall.connections.values_mut() {
            if connection.record_at().is_some_and(|at| at <= now) {
                connection.go_on_recording(&self.plan, &self.sink);
            }
        }
        if hall.stats_at.is_some_and(|at| at <= now) {
            hall.stats_at = self.plan.stats.map(|every| now + every.max(Duration::from_millis(100)));
            self.tell_all_stats(hall);
        }
    }

    fn tell_all_stats(&self, hall: &Hall) {
        for (peer, connection) in &hall.connections {
            (self.sink)(&Event::Stats { peer: peer.to_string(), stats: connection.stats() });
        }
    }

    async fn command_in_room(&self, command: Command, room: &mut Room, hall: &Hall) {
        match command {
            Command::Say { to: Some(peer), text } => {
                if !hall.connections.get(&peer).is_some_and(|connection| connection.say(&text)) {
                    self.warn(&format!("not sent: there is no data channel with '{peer}'"));
                }
            }
            Command::Say { to: None, text } => {
                let sent = hall.connections.values().filter(|connection| connection.say(&text)).count();
                if sent == 0 {
                    self.warn("not sent: there is no data channel with anybody");
                }
            }
            Command::Peers => {
                for (peer, connected) in room.peers() {
                    let state = if connected { PeerState::Connected } else { PeerState::Joined };
                    self.tell(peer.as_str(), state, None);
                    if let Some(description) = hall.descriptions.get(peer).cloned() {
                        (self.sink)(&Event::Described { peer: peer.to_string(), description });
                    }
                }
            }
            Command::Send(change) => self.change(change).await,
            Command::Stats => self.tell_all_stats(hall),
            Command::Reconnect(_) => {
                for peer in hall.connections.keys() {
                    room.handle_input(Instant::now(), Input::Link(peer.clone(), link::Input::Renew));
                }
            }
            Command::HangUp(_) => self.warn("hang up on whom? hang-up PEER; quit leaves the room"),
            Command::Decide(_) => self.warn("nobody waits to be let in"),
            Command::Tell(..) | Command::Quit | Command::Interrupt => {}
        }
    }
}
