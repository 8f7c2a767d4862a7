//! The connections of a call, a room or a pool, one for each peer, and the participants that they carry. Executes the
//! outputs of the links with the peers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::Either;
use smol::channel::{Receiver, Sender, bounded};
use smol::future::pending;

use super::driver::{Driver, Outlet};
use super::ice::Ice;
use super::report::{PoolEvent, Report};
use super::senders::Senders;
use super::trace::Trace;
use crate::media::peer::{PeerConfig, Stats};
use crate::media::webrtc::data_channel::ChannelConfig;
use crate::media::{MediaError, Peer, Stream};
use crate::protocol::{ParticipantId, PeerId, SdpKind};
use crate::session::{Effect, Input, Output, Participant};

/// Maximum number of inputs and reports that wait to be read. The queue is short on purpose: further ones wait with their
/// connection, so that no connection can crowd out the others.
const ARRIVALS: usize = 16;

/// Streams and data channels for one peer, or for all peers.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) streams: Vec<Stream>,
    channels: Vec<ChannelConfig>,
    /// Labels of channels that are not opened with this peer, even if all others get them.
    closed: BTreeSet<String>,
}

impl Wanted {
    pub(super) fn open_channel(&mut self, config: ChannelConfig) {
        self.closed.remove(&config.label);
        self.channels.push(config);
    }

    pub(super) fn close_channel(&mut self, label: &str) {
        self.channels.retain(|channel| channel.label != label);
        self.closed.insert(label.to_owned());
    }
}

struct Connection {
    number: u64,
    driver: Driver,
}

/// See the module.
pub(super) struct Peers {
    /// Configuration of every connection, apart from the STUN and TURN servers.
    base: PeerConfig,
    ice: Arc<Ice>,
    trace: Option<Arc<Trace>>,
    /// Decides which participant sends a track.
    pub(super) senders: Senders,
    /// Streams and channels for all peers, present and future.
    everyone: Wanted,
    /// Streams and channels for one peer alone, until its connection is closed. They stay if a connection fails to open.
    own: BTreeMap<PeerId, Wanted>,
    connections: BTreeMap<PeerId, Connection>,
    /// Number of connections opened so far.
    opened: u64,
    /// Inputs for the links, and reports, each with the number of its connection.
    queue: Sender<(u64, Either<Input, Report>)>,
    arrivals: Receiver<(u64, Either<Input, Report>)>,
}

impl Peers {
    pub(super) fn new(base: PeerConfig, ice: Arc<Ice>, trace: Option<Arc<Trace>>) -> Self {
        let (queue, arrivals) = bounded(ARRIVALS);
        Self {
            base,
            ice,
            trace,
            senders: Senders::default(),
            everyone: Wanted::default(),
            own: BTreeMap::new(),
            connections: BTreeMap::new(),
            opened: 0,
            queue,
            arrivals,
        }
    }

    /// Waits for the next input for the link with a peer, or report of a connection. May be dropped while it waits, without
    /// loss. Inputs and reports of connections that were closed or replaced are left out.
    pub(super) async fn next(&mut self) -> Either<(PeerId, Input), Report> {
        while let Ok((number, arrival)) = self.arrivals.recv().await {
            let mut all = self.connections.iter();
            let Some((peer, _)) = all.find(|(_, connection)| connection.number == number) else { continue };
            match arrival {
                Either::Left(input) => return Either::Left((peer.clone(), input)),
                Either::Right(report) => {
                    if let Some(report) = self.senders.assign(peer, report) {
                        return Either::Right(report);
                    }
                }
            }
        }
        pending().await
    }

    /// Replaces the participants that the connection with `peer` carries; returns the reports about the tracks that
    /// another participant sends from now on.
    pub(super) fn announce(&mut self, peer: &PeerId, participants: Vec<Participant>) -> Vec<Report> {
        let tracks = self.peer(peer).map_or_else(Vec::new, |peer| peer.tracks());
        self.senders.announce(peer, participants, tracks)
    }

    /// Returns the number of tracks that a participant sends by the last descriptions of the peers.
    pub(super) fn expected_tracks(&self, participant: &ParticipantId) -> usize {
        let all = self.connections.iter().flat_map(|(peer, connection)| {
            let streams = connection.driver.peer.expected_tracks().into_iter();
            streams.filter_map(|stream| self.senders.sender(peer, stream.as_deref()))
        });
        all.filter(|sender| sender == participant).count()
    }

    /// Executes an output of the link with `peer`; returns the report that results, or the input for the link. Messages and
    /// questions are the caller's to pass on.
    pub(super) async fn execute(&mut self, peer: &PeerId, output: Output) -> Option<Either<Input, Report>> {
        let id = peer.clone();
        Some(Either::Right(match output {
            Output::Effect(Effect::Open) => match self.open(peer) {
                Ok(()) => Report::Opened(id),
                // An element that is missing is missing for all peers.
                Err(error @ MediaError::MissingElement { .. }) => Report::Stopped(error.into()),
                Err(error) => Report::Pool(PoolEvent::Warning(format!("{peer}: {error}"))),
            },
            Output::Effect(effect) => return self.execute_effect(peer, effect).map(Either::Left),
            Output::Connecting => Report::Connecting(id),
            Output::Connected => Report::Pool(PoolEvent::Connected(id)),
            Output::Reconnecting => Report::Pool(PoolEvent::Reconnecting(id)),
            Output::Warning(text) => Report::Pool(PoolEvent::Warning(format!("{peer}: {text}"))),
            Output::Ended(reason) => {
                self.close(peer).await;
                Report::Pool(PoolEvent::Close(id, Some(reason)))
            }
            Output::Send(_)
            | Output::Joined
            | Output::Left
            | Output::Dial(_)
            | Output::Caller(_)
            | Output::Ask
            | Output::Busy => return None,
        }))
    }

    /// Executes an effect on the open connection with `peer`. If the connection could not be opened, returns the
    /// effect's failure for the link.
    fn execute_effect(&self, peer: &PeerId, effect: Effect) -> Option<Input> {
        let Some(connection) = self.connections.get(peer) else {
            let failed = Err("the connection could not be opened".to_owned());
            return effect.id().map(|id| Input::Result(id, failed));
        };
        let gathers = matches!(effect, Effect::ApplyLocal(_, SdpKind::Offer));
        if gathers || effect.restarts_ice() {
            connection.driver.peer.use_servers(&self.ice.config());
        }
        connection.driver.execute(effect);
        None
    }

    /// Opens a connection with `peer`, in place of the previous one if there is any.
    fn open(&mut self, peer: &PeerId) -> Result<(), MediaError> {
        if let Some(before) = self.connections.remove(peer) {
            // A close_notify of the previous connection would end the call on the other side.
            before.driver.peer.abandon();
        }
        self.senders.closed(peer);
        let config = self.config(peer);
        self.opened += 1;
        let (peer, number) = (peer.clone(), self.opened);
        let out = Outlet { number, peer: peer.clone(), queue: self.queue.clone(), trace: self.trace.clone() };
        let driver = Driver::open(config, &out)?;
        self.connections.insert(peer, Connection { number, driver });
        Ok(())
    }

    /// Returns the configuration of a connection with `peer` that is opened now.
    fn config(&mut self, peer: &PeerId) -> PeerConfig {
        let own = self.own.entry(peer.clone()).or_default();
        let mut config = PeerConfig { ice: self.ice.config(), ..self.base.clone() };
        config.streams.extend(self.everyone.streams.iter().chain(&own.streams).cloned());
        config.channels.extend(self.everyone.channels.iter().chain(&own.channels).cloned());
        config.channels.retain(|channel| !own.closed.contains(&channel.label));
        config
    }

    /// Closes the connection with `peer`, with DTLS's close_notify; returns whether there was one.
    pub(super) async fn close(&mut self, peer: &PeerId) -> bool {
        self.own.remove(peer);
        self.senders.closed(peer);
        let Some(connection) = self.connections.remove(peer) else { return false };
        connection.driver.peer.close().await;
        true
    }

    /// Closes all connections; returns the peers that they were with.
    pub(super) async fn close_all(&mut self) -> Vec<PeerId> {
        let ids: Vec<_> = self.connections.keys().cloned().collect();
        for peer in &ids {
            self.close(peer).await;
        }
        ids
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Returns the peers that a connection is open with.
    pub(super) fn ids(&self) -> Vec<PeerId> {
        self.connections.keys().cloned().collect()
    }

    /// Returns the connection with `peer`.
    pub(super) fn peer(&self, peer: &PeerId) -> Option<&Arc<Peer>> {
        self.connections.get(peer).map(|connection| &connection.driver.peer)
    }

    /// Returns the counters of all connections.
    pub(super) fn stats(&self) -> impl Iterator<Item = (&PeerId, Stats)> {
        self.connections.iter().map(|(peer, connection)| (peer, connection.driver.peer.stats()))
    }

    /// Changes what `peer`, or every peer, gets over connections that are opened from now on.
    pub(super) fn want(&mut self, peer: Option<&PeerId>, change: impl FnOnce(&mut Wanted)) {
        match peer {
            None => change(&mut self.everyone),
            Some(peer) => {
                self.own.get_mut(peer).map(change);
            }
        }
    }

    /// Returns the open connections with `peer`, or with every peer.
    pub(super) fn open_peers(&self, peer: Option<&PeerId>) -> impl Iterator<Item = (&PeerId, &Arc<Peer>)> {
        self.connections
            .iter()
            .filter(move |(id, _)| peer.is_none_or(|peer| peer == *id))
            .map(|(id, connection)| (id, &connection.driver.peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::EffectId;

    #[test]
    fn an_effect_without_a_connection_fails_at_once() {
        let mut peers = Peers::new(PeerConfig::default(), Arc::default(), None);
        let ann: PeerId = "ann".parse().unwrap();
        let effect = Effect::CreateAnswer { id: EffectId(7), restarts_ice: false };
        let report = smol::block_on(peers.execute(&ann, Output::Effect(effect)));
        assert!(matches!(report, Some(Either::Left(Input::Result(EffectId(7), Err(_))))), "{report:?}");
    }

    #[test]
    fn streams_and_channels_of_a_peer_outlive_a_connection_that_fails_to_open() {
        let mut peers = Peers::new(PeerConfig::default(), Arc::default(), None);
        let ann: PeerId = "ann".parse().unwrap();
        let labels = |peers: &mut Peers| {
            peers.config(&ann).channels.into_iter().map(|channel| channel.label).collect::<Vec<_>>()
        };
        assert!(labels(&mut peers).is_empty());
        // The connection with this configuration did not open.
        peers.want(Some(&ann), |wanted| wanted.open_channel(ChannelConfig::reliable("notes")));
        assert_eq!(labels(&mut peers), ["notes"]);
        assert!(!smol::block_on(peers.close(&ann)), "there was no connection");
        peers.want(Some(&ann), |wanted| wanted.open_channel(ChannelConfig::reliable("late")));
        assert!(labels(&mut peers).is_empty(), "the link has ended");
    }
}
