//! Pools for programs: connections with all peers of a room or a pool, to which streams and data channels are added and
//! removed at any time. Offers, answers, collisions and reconnects happen inside.
//!
//! A pool uses a [`SignallingChannel`]: over a server ([`Pool::join`]), within this process ([`Memory`]), or the
//! program's own ([`Pool::over`]).
//!
//! `examples/pool.rs` is a whole program.

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use smol::channel::{Receiver, Sender, bounded};
use smol::future::or;

pub use super::channels::memory::{Memory, MemoryChannel};
pub use super::channels::server::ServerChannel;
pub use super::channels::{Boxed, SignallingChannel};
use super::conference::{Conference, Order};
use super::error::ClientError;
use super::ice::Ice;
use super::peers::Peers;
pub use super::report::PoolEvent;
use super::report::Report;
use crate::base::timeout::sleep_until;
use crate::media::peer::{PeerConfig, Stats};
use crate::media::receive::playout_delay::Latency;
use crate::media::webrtc::data_channel::ChannelConfig;
use crate::media::{MediaError, Stream, inventory};
use crate::protocol::{PeerId, RoomId, Secret};
use crate::sdp::{Codec, Kind};
use crate::session::{Patience, Terms};
use crate::signalling::{ConnectError, ServerRequest, Target};

/// Maximum number of events that wait to be read; at the limit the pool waits for the reader.
const EVENTS: usize = 1024;
/// Maximum number of orders that wait to be executed.
const ORDERS: usize = 64;

/// Options of a pool's connections.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// The kinds of media to receive.
    pub receive: Vec<Kind>,
    /// The codecs in the order of preference; if empty, all that this machine has.
    pub codecs: Vec<Codec>,
    /// STUN and TURN servers, and other settings of ICE.
    pub ice: Arc<Ice>,
    /// Playout delay of received media.
    pub latency: Latency,
    /// When a path counts as broken, and as lost.
    pub patience: Patience,
    /// Maximum number of connections.
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
            latency: self.latency,
            ..PeerConfig::default()
        }
    }
}

/// A pool that this endpoint has joined. Dropping the value leaves the pool.
#[derive(Debug)]
pub struct Pool {
    orders: Sender<Order>,
    events: Receiver<PoolEvent>,
    task: smol::Task<()>,
}

impl Pool {
    /// Joins a pool or a room of a server, as `id` if the server lets clients choose their ids.
    pub async fn join(
        target: Target,
        id: PeerId,
        room: RoomId,
        options: PoolOptions,
    ) -> Result<Self, ClientError> {
        let pool = target.capabilities().assigns_ids;
        let channel = ServerChannel::join(target, id, room, options.ice.clone()).await?;
        Ok(Self::start(Box::new(channel), options, pool)?)
    }

    /// Joins a pool over a signalling channel of the program.
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
        let peers = Peers::new(options.peer_config(), options.ice.clone(), None);
        // No kind of media is waited for: the side that sends media offers it.
        let terms = Terms {
            pool,
            patience: options.patience,
            mdns: options.ice.mdns(),
            reach: options.ice.reach(),
            drops_added_lines: crate::media::forgets_offers(),
            ..Terms::new(true, vec![])
        };
        let conference = Conference::new(channel, peers, options.ice.clone(), options.most, terms);
        let task = smol::spawn(run(conference, ordered, event));
        Ok(Self { orders, events, task })
    }

    async fn order(&self, order: Order) {
        // A pool that is over ignores orders.
        let _ = self.orders.send(order).await;
    }

    /// Returns the next event; none after the last. The program has to read all events, because the pool waits when too
    /// many are unread.
    pub async fn next(&self) -> Option<PoolEvent> {
        self.events.recv().await.ok()
    }

    /// Sends the stream to all peers, present and future.
    pub async fn add_stream(&self, stream: &Stream) {
        self.order(Order::AddStream(None, stream.clone())).await;
    }

    /// Stops sending the stream.
    pub async fn remove_stream(&self, stream: &Stream) {
        self.order(Order::RemoveStream(None, stream.id.clone())).await;
    }

    /// Opens a data channel with each peer, present and future. If the peer opens one with the same label, that one is
    /// used.
    pub async fn open_channel(&self, config: ChannelConfig) {
        self.order(Order::OpenChannel(None, config)).await;
    }

    /// Closes the channels of that label with all peers once all sent data has arrived.
    pub async fn close_channel(&self, label: &str) {
        self.order(Order::CloseChannel(None, label.to_owned())).await;
    }

    /// Returns a handle for the connection with one peer.
    pub fn peer(&self, id: &PeerId) -> ManagedConnection {
        ManagedConnection { id: id.clone(), orders: self.orders.clone() }
    }

    /// Sends an event to the application behind the server, if the server's protocol has such events.
    pub async fn send_event(&self, kind: &str, data: Value) {
        self.order(Order::Application(kind.to_owned(), data)).await;
    }

    /// Shows the server the next token of this endpoint, for example after [`PoolEvent::TokenExpires`]. A server that cannot take
    /// it on this connection gets it with the next one.
    pub async fn show_token(&self, token: Secret) {
        self.order(Order::Ask(ServerRequest::Token(token))).await;
    }

    /// Leaves the pool once all data that was sent over channels has arrived.
    pub async fn leave(self) {
        self.order(Order::Leave).await;
        self.task.await;
    }
}

/// The connection with one peer of a pool. Requests to a connection that has ended are ignored.
#[derive(Debug, Clone)]
pub struct ManagedConnection {
    id: PeerId,
    orders: Sender<Order>,
}

impl ManagedConnection {
    /// Returns the peer's id.
    pub fn id(&self) -> &PeerId {
        &self.id
    }

    async fn order(&self, order: Order) {
        let _ = self.orders.send(order).await;
    }

    /// Sends the stream to the peer.
    pub async fn add_stream(&self, stream: &Stream) {
        self.order(Order::AddStream(Some(self.id.clone()), stream.clone())).await;
    }

    /// Stops sending the stream.
    pub async fn remove_stream(&self, stream: &Stream) {
        self.order(Order::RemoveStream(Some(self.id.clone()), stream.id.clone())).await;
    }

    /// Opens a data channel with the peer.
    pub async fn open_channel(&self, config: ChannelConfig) {
        self.order(Order::OpenChannel(Some(self.id.clone()), config)).await;
    }

    /// Closes the channels of that label with the peer once all sent data has arrived.
    pub async fn close_channel(&self, label: &str) {
        self.order(Order::CloseChannel(Some(self.id.clone()), label.to_owned())).await;
    }

    /// Negotiates the connection again over a new path.
    pub async fn renew(&self) {
        self.order(Order::Renew(self.id.clone())).await;
    }

    /// Ends the connection; the peer stays in the pool.
    pub async fn hang_up(&self) {
        self.order(Order::HangUp(self.id.clone())).await;
    }

    /// Returns the counters; none if there is no connection.
    pub async fn stats(&self) -> Option<Stats> {
        let (reply, stats) = bounded(1);
        self.order(Order::Stats(self.id.clone(), reply)).await;
        stats.recv().await.ok()
    }
}

/// Runs a conference until it is over, or left.
async fn run(mut conference: Conference, orders: Receiver<Order>, events: Sender<PoolEvent>) {
    enum Next {
        Conference,
        Order(Order),
        Timer,
    }
    loop {
        while let Some(report) = conference.next_report().await {
            let event = match report {
                Report::Pool(event) => event,
                Report::Stopped(error) => {
                    let why = match error {
                        ClientError::Connect(ConnectError::Dismissed(why)) => why,
                        error => error.to_string(),
                    };
                    let _ = events.send(PoolEvent::Stop(why)).await;
                    return leave(conference).await;
                }
                // Programs join pools by name: they decide where they are.
                Report::Moved(room) => {
                    PoolEvent::Warning(format!("the server asks this endpoint to move to the room '{room}'"))
                }
                Report::Opened(_)
                | Report::Connecting(_)
                | Report::Unassigned(_)
                | Report::FirstFrame { .. } => {
                    continue;
                }
            };
            // A pool whose events are not read any more is about to be left.
            let _ = events.send(event).await;
        }
        let until = conference.poll_timeout();
        let timer = async {
            sleep_until(until).await;
            Next::Timer
        };
        let order = async { Next::Order(orders.recv().await.unwrap_or(Order::Leave)) };
        let arrival = async {
            conference.next().await;
            Next::Conference
        };
        match or(timer, or(order, arrival)).await {
            Next::Timer => conference.handle_timeout(Instant::now()),
            Next::Conference => {}
            Next::Order(Order::Leave) => return leave(conference).await,
            Next::Order(order) => conference.handle_order(order).await,
        }
    }
}

/// Leaves once all data that was sent over channels has arrived.
async fn leave(conference: Conference) {
    for (_, peer) in conference.peers.open_peers(None) {
        peer.finish_channels(None).await;
    }
    conference.leave().await.close_all().await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::base::timeout::timeout;
    use crate::media::test_media::video;

    fn id(text: &str) -> PeerId {
        text.parse().unwrap()
    }

    /// Returns all events up to the first for which `is_last` is true.
    async fn events_until(pool: &Pool, is_last: impl Fn(&PoolEvent) -> bool) -> Vec<PoolEvent> {
        let mut events = vec![];
        while !events.last().is_some_and(&is_last) {
            let next = timeout(Duration::from_secs(60), pool.next()).await;
            events.push(next.flatten().unwrap_or_else(|| panic!("only {events:?}")));
        }
        events
    }

    fn closes(events: &[PoolEvent]) -> usize {
        events.iter().filter(|event| matches!(event, PoolEvent::Close(..))).count()
    }

    fn is_left(event: &PoolEvent) -> bool {
        matches!(event, PoolEvent::Left(_))
    }

    #[test]
    fn a_peer_that_was_never_connected_leaves_without_a_close() {
        crate::media::init().unwrap();
        smol::block_on(async {
            let memory = Memory::default();
            let ann =
                Pool::over(memory.join(id("ann")), PoolOptions { most: 0, ..Default::default() }).unwrap();
            let bob = memory.join(id("bob"));
            events_until(&ann, |event| matches!(event, PoolEvent::Participant(_))).await;
            drop(bob);
            assert_eq!(closes(&events_until(&ann, is_left).await), 0);
        });
    }

    #[test]
    fn streams_beyond_the_m_lines_of_the_peers_offer_get_m_lines_of_their_own() {
        crate::media::init().unwrap();
        smol::block_on(async {
            let (streams, memory) = ([video(96).await, video(160).await], Memory::default());
            let pool = |name| Pool::over(memory.join(id(name)), PoolOptions::default()).unwrap();
            let ann = pool("ann");
            for stream in &streams {
                ann.add_stream(stream).await;
            }
            // Bob offers one m-line of video, which ann's first stream gets.
            let bob = pool("bob");
            for stream in &streams {
                let is_it = |event: &PoolEvent| matches!(event, PoolEvent::Track(_, track) if track.stream.as_ref() == Some(&stream.id));
                events_until(&bob, is_it).await;
            }
        });
    }

    #[test]
    fn the_next_token_goes_to_the_server() {
        let ((orders, ordered), (_, events)) = (bounded(1), bounded(1));
        let pool = Pool { orders, events, task: smol::spawn(async {}) };
        smol::block_on(pool.show_token(Secret("next".into())));
        let order = ordered.try_recv().unwrap();
        assert!(matches!(order, Order::Ask(ServerRequest::Token(Secret(token))) if token == "next"));
    }

    #[test]
    fn the_end_of_a_connection_is_reported_once() {
        crate::media::init().unwrap();
        smol::block_on(async {
            let memory = Memory::default();
            let pool = |name| Pool::over(memory.join(id(name)), PoolOptions::default()).unwrap();
            let (ann, bob) = (pool("ann"), pool("bob"));
            events_until(&ann, |event| matches!(event, PoolEvent::Connected(_))).await;
            ann.peer(&id("bob")).hang_up().await;
            let end = |event: &PoolEvent| matches!(event, PoolEvent::Close(_, Some(_)));
            events_until(&ann, end).await;
            bob.leave().await;
            assert_eq!(closes(&events_until(&ann, is_left).await), 0);
        });
    }
}
