//! A client in a room: presents the reports of the conference, and executes commands.

use std::time::Instant;

use super::Event;
use super::channels::SignallingChannel;
use super::channels::server::ServerChannel;
use super::client::{Client, Happening};
use super::command::{Change, Command};
use super::conference::{Conference, Order};
use super::error::ClientError;
use super::peers::Peers;
use super::presentation::Presentation;
use super::report::{PoolEvent, Report};
use crate::protocol::hello::MediaKind;
use crate::protocol::{ParticipantId, PeerId, RoomId};
use crate::sdp::Kind;
use crate::session::Terms;

/// The event loop of a client in a room.
struct RoomLoop<'a> {
    client: &'a Client,
    room: &'a RoomId,
    conference: Conference,
    presentation: Presentation<'a>,
    /// The room to join next.
    next: Option<RoomId>,
}

impl Client {
    /// Joins a room and stays until the user ends it; reconnects when the connection to the server is lost. Connects
    /// with at most `most` peers.
    pub async fn join(&self, room: &RoomId, most: usize) -> Result<(), ClientError> {
        let mut room = room.clone();
        let result = loop {
            let server = match self.register(None, Some(&room)).await {
                Ok(server) => server,
                Err(error) => break Err(error),
            };
            let channel = Box::new(ServerChannel::over(server, room.clone()));
            match self.run_room(&room, channel, most).await {
                Ok(Some(next)) => room = next,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.finish().await;
        result
    }

    /// Stays in a room until the end; returns the room to join next, if the back end moves the client.
    async fn run_room(
        &self,
        room: &RoomId,
        channel: Box<dyn SignallingChannel>,
        most: usize,
    ) -> Result<Option<RoomId>, ClientError> {
        let setup = &self.setup;
        let peers = Peers::new(setup.peer.clone(), setup.ice.clone(), setup.trace.clone());
        let terms = Terms { pool: self.target.capabilities().assigns_ids, ..setup.terms() };
        let mut room_loop = RoomLoop {
            client: self,
            room,
            conference: Conference::new(channel, peers, setup.ice.clone(), most, terms),
            presentation: Presentation::new(setup, &self.sink),
            next: None,
        };
        let end = room_loop.run().await;
        let next = room_loop.next.take();
        room_loop.leave().await;
        end.map(|()| next)
    }
}

impl RoomLoop<'_> {
    /// Runs until the user leaves, the client has to join another room, or the conference is over.
    async fn run(&mut self) -> Result<(), ClientError> {
        loop {
            while let Some(report) = self.conference.next_report().await {
                self.present(report).await?;
            }
            if self.next.is_some() {
                return Ok(());
            }
            let timeouts = self.conference.poll_timeout().into_iter().chain(self.presentation.poll_timeout());
            let deadline = timeouts.min();
            match self.client.next(self.conference.next(), &self.presentation, deadline).await {
                Happening::Timer => {
                    let now = Instant::now();
                    self.conference.handle_timeout(now);
                    self.presentation.handle_timeout(now, &self.conference.peers);
                }
                Happening::Arrived => {}
                Happening::Notice(notice) => {
                    if let Some(peer) = self.presentation.handle_notice(notice, &mut self.conference.peers) {
                        self.hang_up(peer).await;
                    }
                }
                Happening::Command(Command::Quit) => return Ok(()),
                Happening::Command(Command::Interrupt) => return Err(ClientError::Interrupted),
                Happening::Command(command) => self.handle_command(command).await,
            }
        }
    }

    async fn present(&mut self, report: Report) -> Result<(), ClientError> {
        match report {
            Report::Stopped(error) => return Err(error),
            Report::Moved(room) => {
                self.client.warn(&format!("the server moves this client to the room '{room}'"));
                self.next = Some(room);
            }
            Report::Pool(PoolEvent::Join { participants, .. }) => {
                let peers = participants.iter().map(ParticipantId::to_string).collect();
                (self.client.sink)(&Event::Room { room: self.room.to_string(), peers });
            }
            Report::Pool(PoolEvent::MuteRequested(kind, by)) => {
                let by = by.map_or_else(|| "the server".to_owned(), |by| by.to_string());
                self.client.warn(&format!("{by} asks for silence: {kind} is muted"));
                let kind = match kind {
                    MediaKind::Audio => Kind::Audio,
                    MediaKind::Video => Kind::Video,
                };
                self.client.change(Change::Mute(kind, true)).await;
            }
            report => self.presentation.handle_report(report, &self.conference.peers).await,
        }
        Ok(())
    }

    async fn handle_command(&mut self, command: Command) {
        let client = self.client;
        match command {
            Command::Say { to, text } => {
                if self.presentation.say(to.as_ref(), &text) == 0 {
                    let whom = to.map_or("anybody".to_owned(), |peer| format!("'{peer}'"));
                    client.warn(&format!("not sent: there is no data channel with {whom}"));
                }
            }
            Command::Peers => {
                self.conference
                    .present()
                    .for_each(|(id, is_up)| self.presentation.show_participant(&id, is_up));
            }
            Command::Send(change) => client.change(change).await,
            Command::Stats => self.presentation.report_stats(&self.conference.peers),
            Command::Reconnect(peer) => {
                let peers = peer.map_or_else(|| self.conference.peers.ids(), |peer| vec![peer]);
                for peer in peers {
                    self.conference.handle_order(Order::Renew(peer)).await;
                }
            }
            Command::HangUp(Some(peer)) => self.hang_up(peer).await,
            Command::HangUp(None) => client.warn("hang up on whom? hang-up PEER; quit leaves the room"),
            Command::Decide(_) => client.warn("nobody waits to be let in"),
            Command::Application(name, data) => {
                self.conference.handle_order(Order::Application(name, data)).await
            }
            Command::Server(request) => self.conference.handle_order(Order::Ask(request)).await,
            Command::Quit | Command::Interrupt => {}
        }
    }

    /// Ends the connection with a peer once the data for it is sent.
    async fn hang_up(&mut self, peer: PeerId) {
        self.presentation.finish(Some(&peer)).await;
        self.conference.handle_order(Order::HangUp(peer)).await;
    }

    async fn leave(mut self) {
        self.presentation.finish(None).await;
        self.presentation.leave(&mut self.conference.leave().await).await;
    }
}

#[cfg(test)]
mod tests {
    use std::fs::DirEntry;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use clap::Parser;
    use smol::channel::{Receiver, bounded, unbounded};
    use smol::future::zip;

    use super::*;
    use crate::app::channels::Boxed;
    use crate::app::channels::memory::MemoryChannel;
    use crate::app::pool::{Memory, Pool, PoolOptions};
    use crate::app::{MediaOptions, MediaSetup, PeerState, Sink};
    use crate::base::timeout::timeout;
    use crate::media::test_media::video;
    use crate::protocol::PeerMessage;
    use crate::session::Participant;
    use crate::signalling::{self, Target};
    use crate::tls::Trust;

    #[derive(Parser)]
    struct Args {
        #[command(flatten)]
        media: MediaOptions,
    }

    /// A channel to a server that forwards media: it announces the participants of its connection.
    struct Announcing {
        channel: MemoryChannel,
        announcement: Option<signalling::Event>,
    }

    impl SignallingChannel for Announcing {
        fn next(&mut self) -> Boxed<'_, signalling::Event> {
            match self.announcement.take() {
                Some(event) => Box::pin(std::future::ready(event)),
                None => self.channel.next(),
            }
        }

        fn send<'a>(&'a mut self, to: &'a PeerId, message: &'a PeerMessage) -> Boxed<'a, ()> {
            self.channel.send(to, message)
        }

        fn close(self: Box<Self>) -> Boxed<'static, ()> {
            Box::new(self.channel).close()
        }
    }

    /// Maximum time that a test waits for an expected event.
    const PATIENCE: Duration = Duration::from_secs(60);

    /// Waits until each wish is true of an event; returns all events until then.
    async fn seen(events: &Receiver<Event>, wishes: &[&dyn Fn(&Event) -> bool]) -> Vec<Event> {
        let mut seen = Vec::new();
        while !wishes.iter().all(|wish| seen.iter().any(wish)) {
            let event = timeout(PATIENCE, events.recv()).await;
            seen.push(event.unwrap_or_else(|| panic!("only {seen:?}")).unwrap());
        }
        seen
    }

    /// Waits until so many recordings have media.
    async fn written(folder: &Path, count: usize) {
        const HEADER: u64 = 2000;
        let began = Instant::now();
        let has_media = |file: std::io::Result<DirEntry>| file.unwrap().metadata().unwrap().len() > HEADER;
        while folder.read_dir().unwrap().map(has_media).filter(|has| *has).count() < count {
            assert!(began.elapsed() < PATIENCE, "the recordings are empty");
            smol::Timer::after(Duration::from_millis(20)).await;
        }
    }

    fn is_media(event: &Event, from: &str, wide: u32) -> bool {
        matches!(event, Event::Media { peer, width, .. } if peer == from && *width == Some(wide))
    }

    fn is_recording(event: &Event, of: &str, is_finished: bool) -> bool {
        matches!(event, Event::Recording { peer, path, finished, error: None }
            if peer == of && path.contains(&format!("/{of}-")) && *finished == is_finished)
    }

    fn states(events: &[Event], of: &str) -> Vec<PeerState> {
        let state = |event: &Event| match event {
            Event::Peer { peer, state, .. } if peer == of => Some(*state),
            _ => None,
        };
        events.iter().filter_map(state).collect()
    }

    #[test]
    fn one_connection_carries_two_participants() {
        crate::media::init().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::default();
        let id = |id: &str| id.parse::<PeerId>().unwrap();
        smol::block_on(async {
            let streams = [video(96).await, video(160).await, video(200).await, video(240).await];
            let participants = streams.iter().zip(["ann", "bob", "cat"]).map(|(stream, name)| Participant {
                id: name.parse().unwrap(),
                streams: vec![stream.id.clone()],
            });
            let announcement = Some(signalling::Event::Participants(id("sfu"), participants.collect()));
            let (event, events) = unbounded();
            let sink: Sink = Arc::new(move |next: &Event| event.try_send(next.clone()).unwrap());
            let record = folder.path().to_str().unwrap();
            let args = ["", "--receive-only", "--record", record, "--show", "fakesink", "--play", "none"];
            let mut options = Args::parse_from(args).media;
            options.receive.together = true;
            let setup = MediaSetup::start(&options, &sink).await.unwrap();
            setup.ice.peers_are_here();
            let (command, commands) = bounded(1);
            let target = Target::parse("ws://127.0.0.1:1", Trust::System).unwrap();
            let client = Client::new(target, id("own"), setup, commands, sink);
            let channel = Box::new(Announcing { channel: memory.join(id("own")), announcement });
            let work = async {
                seen(&events, &[&|event| matches!(event, Event::Room { .. })]).await;
                let server = Pool::over(memory.join(id("sfu")), PoolOptions::default()).unwrap();
                server.add_stream(&streams[0]).await;
                server.add_stream(&streams[1]).await;
                let first = seen(
                    &events,
                    &[
                        &|event| is_media(event, "ann", 96),
                        &|event| is_media(event, "bob", 160),
                        &|event| is_recording(event, "ann", false),
                        &|event| is_recording(event, "bob", false),
                    ],
                )
                .await;
                for name in ["ann", "bob"] {
                    let expected = [PeerState::Joined, PeerState::Connecting, PeerState::Connected];
                    assert_eq!(states(&first, name), expected, "{name}");
                }
                assert!(states(&first, "sfu").is_empty());
                let mut grid = client.setup.mix.as_ref().unwrap().labels();
                grid.sort();
                assert_eq!(grid, ["ann", "bob"]);
                written(folder.path(), 2).await;
                // The m-line of ann's stream passes to cat's.
                server.remove_stream(&streams[0]).await;
                server.add_stream(&streams[2]).await;
                let passed: [&dyn Fn(&Event) -> bool; 2] =
                    [&|event| is_recording(event, "ann", true), &|event| is_recording(event, "cat", false)];
                seen(&events, &passed).await;
                written(folder.path(), 3).await;
                // It passes on to a stream of no announced participant, which is neither shown nor recorded.
                server.remove_stream(&streams[2]).await;
                server.add_stream(&streams[3]).await;
                seen(&events, &[&|event| is_recording(event, "cat", true)]).await;
                assert_eq!(client.setup.mix.as_ref().unwrap().labels(), ["bob"]);
                command.send(Command::Quit).await.unwrap();
            };
            let room = "attic".parse().unwrap();
            zip(client.run_room(&room, channel, 4), work).await.0.unwrap();
            let mut after = Vec::new();
            while let Ok(event) = events.try_recv() {
                after.push(event);
            }
            assert!(after.iter().any(|event| is_recording(event, "bob", true)), "{after:?}");
            for name in ["ann", "bob", "cat"] {
                assert_eq!(states(&after, name), [PeerState::Left]);
            }
        });
    }
}
