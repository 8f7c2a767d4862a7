//! A client in a room: presents the reports of the conference, and obeys commands.

use std::time::Instant;

use super::Event;
use super::channels::server::ServerChannel;
use super::client::{Client, Happening};
use super::command::Command;
use super::conference::{Conference, Order};
use super::error::ClientError;
use super::peers::Peers;
use super::presentation::Presentation;
use super::report::{PoolEvent, Report};
use crate::protocol::{PeerId, RoomId};
use crate::session::Terms;

/// A client's stay in a room.
struct Stay<'a> {
    client: &'a Client,
    room: &'a RoomId,
    conference: Conference,
    presentation: Presentation<'a>,
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
        };
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
        match report {
            Report::Stopped(error) => return Err(error),
            Report::Pool(PoolEvent::Join { peers, .. }) => {
                let peers = peers.iter().map(PeerId::to_string).collect();
                (self.client.sink)(&Event::Room { room: self.room.to_string(), peers });
            }
            report => self.presentation.handle_report(report, &self.conference.peers).await,
        }
        Ok(())
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
                self.conference.present().for_each(|(peer, is_up)| self.presentation.show_peer(peer, is_up));
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
        self.presentation.leave(self.conference.close().await).await;
    }
}
