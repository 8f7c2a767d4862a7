//! Managed connections: a pool of peers, to whom streams and data channels are added and taken away at any
//! time. Who offers, who answers, what collides and what breaks is never seen.
//!
//! A pool speaks over a [`SignallingChannel`]: that of a server ([`Pool::join`]), within this process
//! ([`Memory`]), or one of your own ([`Pool::over`]).
//!
//! `examples/pool.rs` is a whole program.

mod channel;
mod memory;
mod run;
mod server;

use std::sync::Arc;

use serde_json::Value;
use smol::channel::{Receiver, Sender, bounded};

pub use self::channel::{Boxed, SignallingChannel};
pub use self::memory::{Memory, MemoryChannel};
use self::run::{Order, Run};
pub use self::server::ServerChannel;
use super::client::{ClientError, Registration};
use super::ice::Ice;
use crate::media::channel::{Channel, ChannelConfig};
use crate::media::peer::{PeerConfig, Stats};
use crate::media::playout::Latency;
use crate::media::receive::Track;
use crate::media::{MediaError, Stream, inventory};
use crate::protocol::{PeerId, RoomId};
use crate::sdp::{Codec, Kind};
use crate::session::{EndReason, Patience};
use crate::signalling::Target;

/// The most events that wait to be read; the pool then waits too.
const EVENTS: usize = 1024;
/// The most wishes that wait to be done.
const ORDERS: usize = 64;

/// What connections of a pool are to be.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// What is taken of peers.
    pub receive: Vec<Kind>,
    /// The codecs, in the order of preference; all that this machine has, where none is named.
    pub codecs: Vec<Codec>,
    /// STUN and TURN servers, and the rest of how paths are found.
    pub ice: Arc<Ice>,
    /// How long received media waits to be put in order.
    pub latency: Latency,
    /// When a path counts as broken, and as lost.
    pub patience: Patience,
    /// The most peers to be connected with.
    pub most: usize,
}

impl Default for PoolOptions {
    fn default() -> Self {
        Self {
            receive: Kind::ALL.to_vec(),
            codecs: vec![],
            ice: Arc::default(),
            latency: Latency::default(),
            patience: Patience::default(),
            most: 16,
        }
    }
}

impl PoolOptions {
    fn peer_config(&self) -> PeerConfig {
        PeerConfig {
            receive: self.receive.clone(),
            codecs: self.codecs.clone(),
            preferred: self.codecs.clone(),
            fec: false,
            ice: self.ice.config(),
            latency: self.latency,
            ..PeerConfig::default()
        }
    }
}

/// What happens in a pool.
#[derive(Debug)]
#[non_exhaustive]
pub enum PoolEvent {
    /// We are in, for the first time or again.
    Join {
        /// Our id, where we are given one.
        me: Option<PeerId>,
        /// Who is there.
        peers: Vec<PeerId>,
    },
    /// A peer is there.
    Peer(PeerId),
    /// Media and messages flow between us and a peer, for the first time or again.
    Connected(PeerId),
    /// The path to a peer broke; a new one is looked for.
    Reconnecting(PeerId),
    /// A peer sends a stream, for the first time or again.
    Track(PeerId, Track),
    /// A peer no longer sends a stream.
    TrackEnded(PeerId, Track),
    /// A data channel with a peer is open, whoever opened it.
    DataChannel(PeerId, Channel),
    /// What the back end says of a peer from now on.
    Describe(PeerId, Value),
    /// A peer is gone, or the connection with it is over; why, where it is known.
    Close(PeerId, Option<EndReason>),
    /// An event of the application behind the server: its name and its data.
    Application(String, Value),
    /// The way to the server is interrupted. Who is connected stays so.
    Gone,
    /// Nobody can be reached any more; why. The last event.
    Stop(String),
    /// What people should know.
    Warning(String),
}

/// A pool that we are in. Dropped, it is left.
#[derive(Debug)]
pub struct Pool {
    orders: Sender<Order>,
    events: Receiver<PoolEvent>,
    task: smol::Task<()>,
}

impl Pool {
    /// Enters a pool, or a room, of a server; where the server takes ids of clients, under this one.
    pub async fn join(
        target: Target,
        id: PeerId,
        room: RoomId,
        options: PoolOptions,
    ) -> Result<Self, ClientError> {
        let registration = Registration {
            target,
            id,
            ice: options.ice.clone(),
            sink: Arc::new(|_: &super::Event| {}),
            calls: None,
            room: None,
            impatient: true,
        };
        let pool = registration.names_pools();
        let channel = ServerChannel::join(registration, room).await?;
        Ok(Self::start(Box::new(channel), options, pool)?)
    }

    /// Enters a pool by a channel of one's own.
    pub fn over(channel: impl SignallingChannel + 'static, options: PoolOptions) -> Result<Self, MediaError> {
        Self::start(Box::new(channel), options, true)
    }

    fn start(
        channel: Box<dyn SignallingChannel>,
        mut options: PoolOptions,
        pool: bool,
    ) -> Result<Self, MediaError> {
        crate::media::init()?;
        crate::media::warm_up();
        inventory::check()?;
        if options.codecs.is_empty() {
            options.codecs = inventory::codecs(&[], None)?.all;
        }
        if channel.is_within_process() {
            options.ice.peers_are_here();
        }
        let (orders, ordered) = bounded(ORDERS);
        let (event, events) = bounded(EVENTS);
        let task = smol::spawn(Run::new(options, pool, event).run(channel, ordered));
        Ok(Self { orders, events, task })
    }

    async fn order(&self, order: Order) {
        // What cannot be told to a pool that is over cannot be done either.
        let _ = self.orders.send(order).await;
    }

    /// What happens next; none after the last. Events are to be read: the pool waits where too many are not.
    pub async fn next(&self) -> Option<PoolEvent> {
        self.events.recv().await.ok()
    }

    /// Sends this to all peers, present and future.
    pub async fn add_stream(&self, stream: &Stream) {
        self.order(Order::Add(None, stream.clone())).await;
    }

    /// Sends it no more.
    pub async fn remove_stream(&self, stream: &Stream) {
        self.order(Order::Remove(None, stream.id.clone())).await;
    }

    /// Opens a data channel with each peer, present and future; one that the peer opens under the same label
    /// is taken for it.
    pub async fn open_channel(&self, config: ChannelConfig) {
        self.order(Order::Open(None, config)).await;
    }

    /// Closes the channels of that label with all peers, when what was sent has arrived.
    pub async fn close_channel(&self, label: &str) {
        self.order(Order::Close(None, label.to_owned())).await;
    }

    /// The connection with one peer.
    pub fn peer(&self, id: &PeerId) -> ManagedConnection {
        ManagedConnection { id: id.clone(), orders: self.orders.clone() }
    }

    /// Says something to the application behind the server, where the server's protocol has words for it.
    pub async fn tell(&self, kind: &str, data: Value) {
        self.order(Order::Tell(kind.to_owned(), data)).await;
    }

    /// Leaves, in order: what is on its way to peers arrives.
    pub async fn leave(self) {
        self.order(Order::Leave).await;
        self.task.await;
    }
}

/// The connection with one peer of a pool. What is asked of one that is gone is not done.
#[derive(Debug, Clone)]
pub struct ManagedConnection {
    id: PeerId,
    orders: Sender<Order>,
}

impl ManagedConnection {
    /// With whom.
    pub fn id(&self) -> &PeerId {
        &self.id
    }

    async fn order(&self, order: Order) {
        let _ = self.orders.send(order).await;
    }

    /// Sends this to the peer.
    pub async fn add_stream(&self, stream: &Stream) {
        self.order(Order::Add(Some(self.id.clone()), stream.clone())).await;
    }

    /// Sends it no more.
    pub async fn remove_stream(&self, stream: &Stream) {
        self.order(Order::Remove(Some(self.id.clone()), stream.id.clone())).await;
    }

    /// Opens a data channel with the peer.
    pub async fn open_channel(&self, config: ChannelConfig) {
        self.order(Order::Open(Some(self.id.clone()), config)).await;
    }

    /// Closes the channels of that label with the peer, when what was sent has arrived.
    pub async fn close_channel(&self, label: &str) {
        self.order(Order::Close(Some(self.id.clone()), label.to_owned())).await;
    }

    /// Makes a new path to the peer.
    pub async fn renew(&self) {
        self.order(Order::Renew(self.id.clone())).await;
    }

    /// Ends the connection; the peer stays in the pool.
    pub async fn hang_up(&self) {
        self.order(Order::HangUp(self.id.clone())).await;
    }

    /// The counters; none where there is no connection.
    pub async fn stats(&self) -> Option<Stats> {
        let (reply, stats) = bounded(1);
        self.order(Order::Stats(self.id.clone(), reply)).await;
        stats.recv().await.ok()
    }
}
