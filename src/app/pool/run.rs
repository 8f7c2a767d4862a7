//! The loop of a pool: its machine, and a line to each peer.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;
use smol::channel::{Receiver, Sender, bounded};
use smol::future::{or, pending};

use super::channel::SignallingChannel;
use super::{PoolEvent, PoolOptions};
use crate::app::line::{Funnel, Happened, Line};
use crate::media::channel::ChannelConfig;
use crate::media::peer::Stats;
use crate::media::{PeerEvent, Stream};
use crate::protocol::PeerId;
use crate::session::room::{Input, Output, Room};
use crate::session::{ConnectionState, Effect, Terms, link};
use crate::signalling::{ConnectError, Event};

/// What the user wants; of all peers where none is named.
#[derive(Debug)]
pub(super) enum Order {
    Add(Option<PeerId>, Stream),
    Remove(Option<PeerId>, String),
    Open(Option<PeerId>, ChannelConfig),
    Close(Option<PeerId>, String),
    Renew(PeerId),
    HangUp(PeerId),
    Stats(PeerId, Sender<Stats>),
    Tell(String, Value),
    Leave,
}

/// What a peer is to get.
#[derive(Debug, Clone, Default)]
struct Wanted {
    streams: Vec<Stream>,
    channels: Vec<ChannelConfig>,
}

/// A connection, and what is for it alone.
struct Member {
    number: u64,
    line: Line,
    own: Wanted,
}

/// See the module.
pub(super) struct Run {
    options: PoolOptions,
    room: Room,
    members: BTreeMap<PeerId, Member>,
    funnel: Funnel,
    /// For all.
    wanted: Wanted,
    events: Sender<PoolEvent>,
}

enum Next {
    Signal(Event),
    Happened(u64, Happened),
    Order(Order),
    Timer,
}

impl Run {
    pub(super) fn new(options: PoolOptions, pool: bool, events: Sender<PoolEvent>) -> Self {
        // Media that we would take is offered by who has some: nobody waits for it.
        let terms = Terms {
            pool,
            patience: options.patience,
            mdns: options.ice.mdns(),
            reach: options.ice.reach(),
            forgets: crate::media::forgets_offers(),
            ..Terms::new(true, vec![])
        };
        let room = Room::new(options.most, terms);
        let funnel = Funnel::new(false);
        Self { options, room, members: BTreeMap::new(), funnel, wanted: Wanted::default(), events }
    }

    async fn tell(&self, event: PoolEvent) {
        // A pool whose events nobody reads any more is about to be left.
        let _ = self.events.send(event).await;
    }

    pub(super) async fn run(mut self, mut channel: Box<dyn SignallingChannel>, orders: Receiver<Order>) {
        loop {
            self.act(&mut *channel).await;
            let until = self.room.poll_timeout();
            let timer = async {
                match until {
                    Some(time) => smol::Timer::at(time).await,
                    None => pending().await,
                };
                Next::Timer
            };
            let signal = async { Next::Signal(channel.next().await) };
            let happened = async {
                let (number, happened) = self.funnel.next().await;
                Next::Happened(number, happened)
            };
            let order = async { Next::Order(orders.recv().await.unwrap_or(Order::Leave)) };
            match or(timer, or(or(order, signal), happened)).await {
                Next::Timer => self.room.handle_timeout(Instant::now()),
                Next::Signal(Event::Ended(error)) => {
                    let why = match error {
                        ConnectError::Dismissed(why) => why,
                        error => error.to_string(),
                    };
                    self.tell(PoolEvent::Stop(why)).await;
                    break;
                }
                Next::Signal(signal) => self.signal(signal).await,
                Next::Happened(number, happened) => self.happened(number, happened).await,
                Next::Order(Order::Leave) => break,
                Next::Order(Order::Tell(kind, data)) => channel.tell(&kind, &data).await,
                Next::Order(order) => self.order(order).await,
            }
        }
        channel.close().await;
        for (_, member) in std::mem::take(&mut self.members) {
            member.line.peer.finish_channels(None).await;
            member.line.peer.say_goodbye().await;
        }
    }

    async fn signal(&mut self, signal: Event) {
        let now = Instant::now();
        let input = match signal {
            Event::Joined { me, peers, descriptions } => {
                self.tell(PoolEvent::Join { me, peers: peers.clone() }).await;
                for (peer, description) in descriptions {
                    self.tell(PoolEvent::Describe(peer, description)).await;
                }
                Input::Joined(peers)
            }
            Event::PeerJoined(peer) => Input::PeerJoined(peer),
            Event::PeerLeft(peer) => Input::PeerLeft(peer),
            Event::From(peer, message) => Input::Link(peer, link::Input::Peer(message)),
            Event::JunkFrom(peer, why) => Input::Link(peer, link::Input::Junk(why)),
            Event::Described(peer, what) => return self.tell(PoolEvent::Describe(peer, what)).await,
            Event::Application(kind, data) => return self.tell(PoolEvent::Application(kind, data)).await,
            Event::Refused(refusal) => return self.tell(PoolEvent::Warning(refusal.to_string())).await,
            Event::Junk(text) | Event::Retrying(text) => return self.tell(PoolEvent::Warning(text)).await,
            Event::IceServers(servers) => return self.options.ice.take(servers).await,
            Event::Lost { .. } => {
                self.tell(PoolEvent::Gone).await;
                Input::ServerGone
            }
            Event::Ended(_)
            | Event::Registered
            | Event::Foreign(_)
            | Event::Accepted
            | Event::Caller(_)
            | Event::Peer(_) => return,
        };
        self.room.handle_input(now, input);
    }

    async fn happened(&mut self, number: u64, happened: Happened) {
        let mut all = self.members.iter();
        let Some(peer) = all.find(|(_, member)| member.number == number).map(|(peer, _)| peer.clone()) else {
            return;
        };
        let input = match happened {
            Happened::Result(id, result) => link::Input::Result(id, result),
            Happened::Heard(media) => link::Input::Heard(media),
            Happened::NetworkChanged => link::Input::NetworkChanged,
            Happened::Negotiate => link::Input::Negotiate,
            Happened::Failure(text) => return self.tell(PoolEvent::Warning(text)).await,
            // Of those who have outputs and bridges.
            Happened::Message(..) | Happened::ChannelDone | Happened::Done(..) => return,
            Happened::Event(event) => match event {
                PeerEvent::LocalCandidate(mline, candidate) => link::Input::LocalCandidate(mline, candidate),
                PeerEvent::Connection(state) => link::Input::Connection(state),
                PeerEvent::Forged => link::Input::Connection(ConnectionState::Forged),
                PeerEvent::Failed(text) => {
                    self.tell(PoolEvent::Warning(text)).await;
                    link::Input::Connection(ConnectionState::Failed)
                }
                PeerEvent::Track(track) => return self.tell(PoolEvent::Track(peer, track)).await,
                PeerEvent::TrackEnded(track) => return self.tell(PoolEvent::TrackEnded(peer, track)).await,
                PeerEvent::Channel(channel) => {
                    return self.tell(PoolEvent::DataChannel(peer, channel)).await;
                }
                PeerEvent::FirstFrame { .. } => return,
                PeerEvent::Broken(codec) => {
                    let text = format!("some of the {codec} of {peer} cannot be read and is left out");
                    return self.tell(PoolEvent::Warning(text)).await;
                }
            },
        };
        self.room.handle_input(Instant::now(), Input::Link(peer, input));
    }

    async fn order(&mut self, order: Order) {
        match order {
            Order::Add(whom, stream) => {
                self.note(&whom, |wanted| wanted.streams.push(stream.clone()));
                self.change(&whom, |member| {
                    member.line.peer.add_stream(stream.clone());
                    Ok(true)
                })
                .await;
            }
            Order::Remove(whom, id) => {
                self.note(&whom, |wanted| wanted.streams.retain(|stream| stream.id != id));
                self.change(&whom, |member| {
                    member.line.peer.remove_stream(&id);
                    Ok(true)
                })
                .await;
            }
            Order::Open(whom, config) => {
                self.note(&whom, |wanted| wanted.channels.push(config.clone()));
                self.change(&whom, |member| member.line.peer.want_channel(config.clone())).await;
            }
            Order::Close(whom, label) => {
                self.note(&whom, |wanted| wanted.channels.retain(|channel| channel.label != label));
                let concerned = |peer: &PeerId| whom.as_ref().is_none_or(|whom| whom == peer);
                for (_, member) in self.members.iter().filter(|(peer, _)| concerned(peer)) {
                    let (peer, label) = (member.line.peer.clone(), label.clone());
                    smol::spawn(async move { peer.finish_channels(Some(&label)).await }).detach();
                }
            }
            Order::Renew(peer) => self.input(peer, link::Input::Renew),
            Order::HangUp(peer) => self.input(peer, link::Input::HangUp),
            Order::Stats(peer, reply) => {
                if let Some(member) = self.members.get(&peer) {
                    let _ = reply.send(member.line.peer.stats()).await;
                }
            }
            Order::Tell(..) | Order::Leave => {}
        }
    }

    fn input(&mut self, peer: PeerId, input: link::Input) {
        self.room.handle_input(Instant::now(), Input::Link(peer, input));
    }

    /// Remembers a wish for connections that are opened later.
    fn note(&mut self, whom: &Option<PeerId>, change: impl FnOnce(&mut Wanted)) {
        match whom {
            None => change(&mut self.wanted),
            Some(peer) => {
                if let Some(member) = self.members.get_mut(peer) {
                    change(&mut member.own);
                }
            }
        }
    }

    /// Changes the connections there are, and negotiates where that takes it.
    async fn change(
        &mut self,
        whom: &Option<PeerId>,
        change: impl Fn(&Member) -> Result<bool, crate::media::MediaError>,
    ) {
        let concerned = |peer: &PeerId| whom.as_ref().is_none_or(|whom| whom == peer);
        let changes: Vec<_> = self
            .members
            .iter()
            .filter(|(peer, _)| concerned(peer))
            .map(|(peer, member)| (peer.clone(), change(member)))
            .collect();
        for (peer, changed) in changes {
            match changed {
                Ok(true) => self.input(peer, link::Input::Negotiate),
                Ok(false) => {}
                Err(error) => self.tell(PoolEvent::Warning(error.to_string())).await,
            }
        }
    }

    async fn act(&mut self, channel: &mut dyn SignallingChannel) {
        while let Some(output) = self.room.poll_output() {
            match output {
                Output::Joined(peer) => self.tell(PoolEvent::Peer(peer)).await,
                Output::Left(peer) => {
                    self.members.remove(&peer);
                    self.tell(PoolEvent::Close(peer, None)).await;
                }
                Output::Connecting(_) => {}
                Output::Warning(text) => self.tell(PoolEvent::Warning(text)).await,
                Output::Link(peer, link::Output::Send(message)) => channel.send(&peer, &message).await,
                Output::Link(peer, link::Output::Effect(Effect::Open)) => self.open(peer).await,
                Output::Link(peer, link::Output::Effect(effect)) => {
                    if let Some(member) = self.members.get(&peer) {
                        member.line.execute(effect);
                    }
                }
                Output::Link(peer, link::Output::Connected) => self.tell(PoolEvent::Connected(peer)).await,
                Output::Link(peer, link::Output::Reconnecting) => {
                    self.tell(PoolEvent::Reconnecting(peer)).await;
                }
                Output::Link(peer, link::Output::Warning(text)) => {
                    self.tell(PoolEvent::Warning(format!("{peer}: {text}"))).await;
                }
                Output::Link(peer, link::Output::Ended(reason)) => {
                    if let Some(member) = self.members.remove(&peer) {
                        member.line.peer.say_goodbye().await;
                    }
                    self.tell(PoolEvent::Close(peer, Some(reason))).await;
                }
            }
        }
    }

    /// A fresh connection with a peer, for all that it is to get.
    async fn open(&mut self, peer: PeerId) {
        let before = self.members.remove(&peer);
        let own = before.map(|member| {
            // A goodbye of the old one would end the talk on the other side.
            member.line.peer.abandon();
            member.own
        });
        let own = own.unwrap_or_default();
        let mut config = self.options.peer_config();
        config.streams.extend(self.wanted.streams.iter().chain(&own.streams).cloned());
        config.channels.extend(self.wanted.channels.iter().chain(&own.channels).cloned());
        let number = self.funnel.number();
        // Nothing but bridges and outputs fails apart from the connection.
        let (_, failures) = bounded(1);
        match Line::open(config, number, failures, &self.funnel) {
            Ok(line) => {
                self.members.insert(peer, Member { number, line, own });
            }
            Err(error) => self.tell(PoolEvent::Warning(error.to_string())).await,
        }
    }
}
