//! A conference: connects the state machine of a room or a pool with the signalling channel and with the connections to
//! the peers. A *peer* is the other end of a connection; a *participant* is somebody whose media it carries.
//!
//! Two event loops run a conference: that of the command line presents the reports (`join.rs`), and that of
//! [`Pool`](super::Pool) passes them to a program. Both wait for [`Conference::next`], or for a timer and then call
//! [`Conference::handle_timeout`]; then they read [`Conference::next_report`] until it is empty.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::Either;
use serde_json::Value;
use smol::channel::Sender;
use smol::future::or;

use super::channels::SignallingChannel;
use super::ice::Ice;
use super::peers::Peers;
use super::report::{PoolEvent, Report};
use crate::base::limit::Bucket;
use crate::base::tasks::Tasks;
use crate::media::peer::Stats;
use crate::media::webrtc::data_channel::ChannelConfig;
use crate::media::{MediaError, Peer, Stream};
use crate::protocol::{ParticipantId, PeerId};
use crate::session::{Input, Output, Participant, Room, Terms, link};
use crate::signalling::{ConnectError, Event, ServerRequest};

/// An order of the application. Streams and channels concern one peer, or without a peer all, present and future.
#[derive(Debug)]
pub(super) enum Order {
    AddStream(Option<PeerId>, Stream),
    RemoveStream(Option<PeerId>, String),
    OpenChannel(Option<PeerId>, ChannelConfig),
    CloseChannel(Option<PeerId>, String),
    /// Requests a new path to the peer.
    Renew(PeerId),
    HangUp(PeerId),
    /// Requests the counters of a connection; there is no reply if the peer has no connection.
    Stats(PeerId, Sender<Stats>),
    /// Sends an event, given by name and data, to the application behind the server.
    Application(String, Value),
    /// Makes a request of the server itself.
    Ask(ServerRequest),
    Leave,
}

/// Returns the warning about a refused token.
pub(super) fn token_refused(why: &str) -> String {
    format!("the server does not accept the next token: {why}")
}

/// Maximum number of tasks that close data channels at a time: one for each peer and label.
const MAX_CLOSING: usize = 1024;

/// See the module.
pub(super) struct Conference {
    room: Room,
    pub(super) peers: Peers,
    channel: Box<dyn SignallingChannel>,
    ice: Arc<Ice>,
    /// Reports that are not read yet.
    reports: VecDeque<Report>,
    /// Limit on the warnings about refusals and useless messages of the server.
    warnings: Bucket,
    /// Error with which the signalling channel ended for good. The conference ends once no connection is left; after a
    /// dismissal it ends at once.
    ended: Option<ConnectError>,
    /// Tasks that close data channels once the data in their queues is sent.
    closing: Tasks,
}

impl Conference {
    /// Returns a conference over a signalling channel that joins the room, with at most `max_connections` connections.
    pub(super) fn new(
        channel: Box<dyn SignallingChannel>,
        peers: Peers,
        ice: Arc<Ice>,
        max_connections: usize,
        terms: Terms,
    ) -> Self {
        let (room, warnings) =
            (Room::new(max_connections, terms), Bucket::new(link::WARNINGS.0, link::WARNINGS.1));
        Self {
            room,
            peers,
            channel,
            ice,
            reports: VecDeque::new(),
            warnings,
            ended: None,
            closing: Tasks::new(MAX_CLOSING),
        }
    }

    /// Waits for the next event of the server or report of a connection, and handles it; [`Conference::next_report`] then
    /// executes the consequences. Events of the server come first. Cancel-safe: dropping the future loses nothing.
    pub(super) async fn next(&mut self) {
        let (channel, peers, ice) = (&mut self.channel, &mut self.peers, &self.ice);
        let event = async { Either::Left(ice.next_event(channel.next()).await) };
        let arrival = async { Either::Right(peers.next().await) };
        match or(event, arrival).await {
            Either::Left(event) => self.handle_event(event),
            Either::Right(Either::Left((peer, input))) => self.pass_to_link(&peer, input),
            Either::Right(Either::Right(report)) => self.reports.push_back(report),
        }
    }

    /// Returns the time at which [`Conference::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.room.poll_timeout()
    }

    /// Handles that time has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.room.handle_timeout(now);
    }

    /// Returns the participants that are present, each with whether its connection is up.
    pub(super) fn present(&self) -> impl Iterator<Item = (ParticipantId, bool)> {
        let carried = |(peer, is_up)| self.peers.senders.of(peer).into_iter().map(move |id| (id, is_up));
        self.room.peers().flat_map(carried)
    }

    /// Passes an input to the link with a peer.
    fn pass_to_link(&mut self, peer: &PeerId, input: Input) {
        self.room.handle_input(Instant::now(), peer, input);
    }

    fn report(&mut self, event: PoolEvent) {
        self.reports.push_back(Report::Pool(event));
    }

    /// Handles an event of the server.
    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Joined { me, peers, descriptions } => {
                let participants = peers.iter().flat_map(|peer| self.peers.senders.of(peer)).collect();
                self.report(PoolEvent::Join { me, participants });
                for (participant, description) in descriptions {
                    self.report(PoolEvent::Describe(participant, description));
                }
                self.room.handle_joined(Instant::now(), peers);
            }
            Event::PeerJoined(peer) => self.room.handle_peer_joined(Instant::now(), peer),
            Event::PeerLeft(peer) => self.room.handle_peer_left(Instant::now(), &peer),
            Event::From(peer, message) => self.pass_to_link(&peer, Input::Peer(message)),
            Event::JunkFrom(peer, why) => self.pass_to_link(&peer, Input::Junk(why)),
            Event::Participants(peer, participants) => self.announce(&peer, participants),
            Event::Described(participant, what) => self.report(PoolEvent::Describe(participant, what)),
            Event::Application(kind, data) => self.report(PoolEvent::Application(kind, data)),
            Event::MuteRequested(kind, by) => self.report(PoolEvent::MuteRequested(kind, by)),
            Event::Moved(room) => self.reports.push_back(Report::Moved(room)),
            Event::TokenExpires(seconds) => self.report(PoolEvent::TokenExpires(seconds)),
            Event::TokenRefused(why) => self.warn(token_refused(&why)),
            Event::Refused(refusal) => self.warn(refusal.to_string()),
            Event::Junk(why) => self.warn(why),
            Event::Warning(why) => self.report(PoolEvent::Warning(why)),
            Event::Lost { .. } => {
                self.report(PoolEvent::Gone);
                self.room.handle_server_gone(Instant::now());
            }
            Event::Ended(error @ ConnectError::Dismissed(_)) => {
                self.reports.push_back(Report::Stopped(error.into()));
            }
            Event::Ended(error) => {
                if !self.peers.is_empty() {
                    self.report(PoolEvent::Warning(format!("{error}; those who are connected stay so")));
                }
                self.ended = Some(error);
            }
            // `Ice` handles the servers; the others concern calls of two.
            Event::Registered
            | Event::IceServers(_)
            | Event::Accepted
            | Event::Caller(_)
            | Event::Peer(_) => {}
        }
    }

    /// Replaces the participants that the connection with `peer` carries. Reports those that left and joined if the peer is
    /// in the room, and the tracks that changed hands.
    fn announce(&mut self, peer: &PeerId, participants: Vec<Participant>) {
        let before = self.peers.senders.of(peer);
        let tracks = self.peers.announce(peer, participants);
        let now = self.peers.senders.of(peer);
        if self.room.peers().any(|(present, _)| present == peer) {
            let left = before.iter().filter(|id| !now.contains(id));
            left.for_each(|id| self.reports.push_back(Report::Pool(PoolEvent::Left(id.clone()))));
            let joined = now.iter().filter(|id| !before.contains(id));
            joined.for_each(|id| self.reports.push_back(Report::Pool(PoolEvent::Participant(id.clone()))));
        }
        self.reports.extend(tracks);
    }

    /// Warns about a refusal or a useless message of the server, at a limited rate.
    fn warn(&mut self, text: String) {
        if self.warnings.take(Instant::now()) {
            self.report(PoolEvent::Warning(text));
        }
    }

    /// Executes outputs of the room until there is a report. Once no output is left, returns the end of the conference if it
    /// is due, and `None` otherwise.
    pub(super) async fn next_report(&mut self) -> Option<Report> {
        loop {
            if let Some(report) = self.reports.pop_front() {
                return Some(report);
            }
            let Some((peer, output)) = self.room.poll_output() else { break };
            self.execute(peer, output).await;
        }
        self.ended.take_if(|_| self.peers.is_empty()).map(|error| Report::Stopped(error.into()))
    }

    async fn execute(&mut self, peer: PeerId, output: Output) {
        match output {
            Output::Joined => {
                let participants = self.peers.senders.of(&peer);
                participants.into_iter().for_each(|id| self.report(PoolEvent::Participant(id)));
            }
            Output::Left => {
                if self.peers.close(&peer).await {
                    self.report(PoolEvent::Close(peer.clone(), None));
                }
                let participants = self.peers.senders.of(&peer);
                participants.into_iter().for_each(|id| self.report(PoolEvent::Left(id)));
                self.peers.senders.forget(&peer);
            }
            Output::Warning(text) => self.report(PoolEvent::Warning(text)),
            Output::Send(message) => self.channel.send(&peer, &message).await,
            output => match self.peers.execute(&peer, output).await {
                Some(Either::Left(input)) => self.pass_to_link(&peer, input),
                Some(Either::Right(report)) => self.reports.push_back(report),
                None => {}
            },
        }
    }

    /// Executes an order, apart from [`Order::Leave`], for which the caller uses [`Conference::leave`].
    pub(super) async fn handle_order(&mut self, order: Order) {
        match order {
            Order::AddStream(peer, stream) => {
                self.peers.want(peer.as_ref(), |wanted| wanted.streams.push(stream.clone()));
                self.change_connections(peer.as_ref(), |peer| {
                    peer.add_stream(stream.clone());
                    Ok(true)
                });
            }
            Order::RemoveStream(peer, id) => {
                self.peers.want(peer.as_ref(), |wanted| wanted.streams.retain(|stream| stream.id != id));
                self.change_connections(peer.as_ref(), |peer| {
                    peer.remove_stream(&id);
                    Ok(true)
                });
            }
            Order::OpenChannel(peer, config) => {
                self.peers.want(peer.as_ref(), |wanted| wanted.open_channel(config.clone()));
                self.change_connections(peer.as_ref(), |peer| peer.want_channel(config.clone()));
            }
            Order::CloseChannel(peer, label) => {
                self.peers.want(peer.as_ref(), |wanted| wanted.close_channel(&label));
                for (_, peer) in self.peers.open_peers(peer.as_ref()) {
                    let (peer, label) = (peer.clone(), label.clone());
                    self.closing.spawn(async move { peer.finish_channels(Some(&label)).await });
                }
            }
            Order::Renew(peer) => self.pass_to_link(&peer, Input::Renew),
            Order::HangUp(peer) => self.pass_to_link(&peer, Input::HangUp),
            Order::Stats(peer, reply) => {
                if let Some(peer) = self.peers.peer(&peer) {
                    let _ = reply.send(peer.stats()).await;
                }
            }
            Order::Application(kind, data) => self.channel.send_event(&kind, &data).await,
            Order::Ask(request) => self.channel.ask(request),
            Order::Leave => {}
        }
    }

    /// Changes the open connection with `peer`, or with every peer, and requests a negotiation of each one for which `change`
    /// returns true.
    fn change_connections(
        &mut self,
        peer: Option<&PeerId>,
        change: impl Fn(&Peer) -> Result<bool, MediaError>,
    ) {
        let changes = self.peers.open_peers(peer).map(|(id, peer)| (id.clone(), change(peer)));
        for (peer, changed) in changes.collect::<Vec<_>>() {
            match changed {
                Ok(true) => self.pass_to_link(&peer, Input::Negotiate),
                Ok(false) => {}
                Err(error) => self.report(PoolEvent::Warning(format!("{peer}: {error}"))),
            }
        }
    }

    /// Closes the signalling channel, cancels the closing of data channels, and returns the connections, which the caller
    /// closes.
    pub(super) async fn leave(self) -> Peers {
        self.channel.close().await;
        self.peers
    }
}
