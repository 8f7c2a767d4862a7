//! A client in a room: presents the reports of the conference, and obeys commands.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

use super::channels::server::ServerChannel;
use super::client::{Client, Happening};
use super::command::Command;
use super::conference::{Conference, Order};
use super::error::ClientError;
use super::peers::Peers;
use super::presentation::Presentation;
use super::report::{PoolEvent, Report};
use super::{Event, PeerState};
use crate::base::text::{brief, shown};
use crate::protocol::{PeerId, RoomId};
use crate::session::{EndReason, Terms};

/// A client's stay in a room.
struct Stay<'a> {
    client: &'a Client,
    room: &'a RoomId,
    conference: Conference,
    presentation: Presentation<'a>,
    /// Descriptions of peers by the server's back end.
    descriptions: BTreeMap<PeerId, Value>,
}

impl Client {
    /// Joins a room and stays until the user ends it; reconnects when the connection to the server is lost. Connects
    /// with at most `most` peers.
    pub async fn join(&self, room: &RoomId, most: usize) -> Result<(), ClientError> {
        let result = self.stay(room, most).await;
        self.finish().await;
        result
    }

    async fn stay(&self, room: &RoomId, most: usize) -> Result<(), ClientError> {
        let server = self.register(None, Some(room)).await?;
        let channel = Box::new(ServerChannel::over(server, room.clone()));
        let setup = &self.setup;
        let peers = Peers::new(setup.peer.clone(), setup.ice.clone(), setup.trace.clone());
        let terms = Terms { pool: self.target.capabilities().assigns_ids, ..setup.terms() };
        let mut stay = Stay {
            client: self,
            room,
            conference: Conference::new(channel, peers, setup.ice.clone(), most, terms),
            presentation: Presentation::new(setup, &self.sink),
            descriptions: BTreeMap::new(),
        };
        stay.presentation.start_stats(Instant::now());
        let end = stay.run().await;
        stay.leave().await;
        end
    }
}

impl Stay<'_> {
    /// Runs until the user leaves or the conference is over.
    async fn run(&mut self) -> Result<(), ClientError> {
        loop {
            while let Some(report) = self.conference.poll_report().await {
                self.present(report).await?;
            }
            let timeouts = self.conference.poll_timeout().into_iter().chain(self.presentation.poll_timeout());
            let deadline = timeouts.min();
            match self.client.next(self.conference.next(), &self.presentation, deadline).await {
                Happening::Timer => {
                    let now = Instant::now();
                    self.conference.handle_timeout(now);
                    self.presentation.handle_timeout(now, &self.conference.peers);
                }
                Happening::Outside(happening) => self.conference.handle(happening).await,
                Happening::Notice(notice) => {
                    if let Some(peer) = self.presentation.handle_notice(notice, &mut self.conference.peers) {
                        self.hang_up(peer).await;
                    }
                }
                Happening::Command(Command::Quit) => return Ok(()),
                Happening::Command(Command::Interrupt) => return Err(ClientError::Interrupted),
                Happening::Command(command) => self.obey(command).await,
            }
        }
    }

    async fn present(&mut self, report: Report) -> Result<(), ClientError> {
        let client = self.client;
        let event = match report {
            Report::Pool(event) => event,
            Report::Stopped(error) => return Err(error),
            Report::Connecting(peer) => {
                client.tell(peer.as_str(), PeerState::Connecting, None);
                return Ok(());
            }
            Report::Opened(_) | Report::FirstFrame { .. } | Report::Link(..) => {
                self.show(report);
                return Ok(());
            }
        };
        match event {
            PoolEvent::Join { peers, .. } => {
                (client.sink)(&Event::Room {
                    room: self.room.to_string(),
                    peers: peers.iter().map(PeerId::to_string).collect(),
                });
            }
            PoolEvent::Peer(peer) => client.tell(peer.as_str(), PeerState::Joined, None),
            PoolEvent::Connected(peer) => client.tell(peer.as_str(), PeerState::Connected, None),
            PoolEvent::Reconnecting(peer) => client.tell(peer.as_str(), PeerState::Reconnecting, None),
            PoolEvent::Close(peer, reason) => self.closed(&peer, reason).await,
            PoolEvent::Describe(peer, description) => self.describe(peer, description),
            PoolEvent::Application(name, data) => (client.sink)(&Event::Application { name, data }),
            PoolEvent::Gone => client.warn("the server is gone; trying again"),
            PoolEvent::Stop(why) => client.warn(&why),
            PoolEvent::Track(..)
            | PoolEvent::TrackEnded(..)
            | PoolEvent::DataChannel(..)
            | PoolEvent::Warning(_) => self.show(Report::Pool(event)),
        }
        Ok(())
    }

    fn show(&mut self, report: Report) {
        let descriptions = &self.descriptions;
        self.presentation.handle_report(report, &self.conference.peers, |peer| label(descriptions, peer));
    }

    /// Ends the presentation of a peer that left (no reason) or whose connection ended.
    async fn closed(&mut self, peer: &PeerId, reason: Option<EndReason>) {
        self.presentation.close(peer).await;
        let state = match &reason {
            None => {
                self.descriptions.remove(peer);
                PeerState::Left
            }
            Some(EndReason::HungUp | EndReason::PeerHungUp) => PeerState::Left,
            Some(EndReason::NoPath(_)) => {
                smol::spawn(self.client.setup.ice.explain(&self.client.sink)).detach();
                PeerState::Failed
            }
            Some(_) => PeerState::Failed,
        };
        self.client.tell(peer.as_str(), state, reason.map(|reason| reason.to_string()));
    }

    fn describe(&mut self, peer: PeerId, description: Value) {
        (self.client.sink)(&Event::Described { peer: peer.to_string(), description: description.clone() });
        self.descriptions.insert(peer.clone(), description);
        let label = label(&self.descriptions, &peer);
        self.presentation.label(&peer, label);
    }

    async fn obey(&mut self, command: Command) {
        let client = self.client;
        match command {
            Command::Say { to, text } => {
                if self.presentation.say(to.as_ref(), &text) == 0 {
                    let whom = to.map_or("anybody".to_owned(), |peer| format!("'{peer}'"));
                    client.warn(&format!("not sent: there is no data channel with {whom}"));
                }
            }
            Command::Peers => {
                for (peer, connected) in self.conference.present() {
                    let state = if connected { PeerState::Connected } else { PeerState::Joined };
                    client.tell(peer.as_str(), state, None);
                    if let Some(description) = self.descriptions.get(peer).cloned() {
                        (client.sink)(&Event::Described { peer: peer.to_string(), description });
                    }
                }
            }
            Command::Send(change) => client.change(change).await,
            Command::Stats => self.presentation.report_stats(&self.conference.peers),
            Command::Reconnect(peer) => {
                let peers = peer.map_or_else(|| self.conference.peers.ids(), |peer| vec![peer]);
                for peer in peers {
                    self.conference.obey(Order::Renew(peer)).await;
                }
            }
            Command::HangUp(Some(peer)) => self.hang_up(peer).await,
            Command::HangUp(None) => client.warn("hang up on whom? hang-up PEER; quit leaves the room"),
            Command::Decide(_) => client.warn("nobody waits to be let in"),
            Command::Tell(name, data) => self.conference.obey(Order::Tell(name, data)).await,
            Command::Quit | Command::Interrupt => {}
        }
    }

    /// Ends the connection with a peer once the data for it is sent.
    async fn hang_up(&mut self, peer: PeerId) {
        self.presentation.finish(Some(&peer)).await;
        self.conference.obey(Order::HangUp(peer)).await;
    }

    async fn leave(mut self) {
        self.presentation.finish(None).await;
        for peer in self.conference.close().await {
            self.presentation.close(&peer).await;
            self.client.tell(peer.as_str(), PeerState::Left, Some(EndReason::HungUp.to_string()));
        }
    }
}

/// Returns the name of a peer for people: the one that the back end gives it, or its id.
fn label(descriptions: &BTreeMap<PeerId, Value>, peer: &PeerId) -> String {
    let name = descriptions.get(peer).and_then(|description| description["name"].as_str());
    name.map_or_else(|| shown(peer.as_str()), brief)
}
