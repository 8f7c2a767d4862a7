//! The connections of a call, a room or a pool, one for each peer, and the participants that they carry. Executes the
//! outputs of the links with the peers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smol::channel::{Receiver, Sender, bounded};
use smol::future::pending;

use super::driver::{Driver, Outlet};
use super::ice::Ice;
use super::report::{PoolEvent, Report};
use super::trace::Trace;
use crate::media::peer::{PeerConfig, Stats};
use crate::media::receive::Track;
use crate::media::webrtc::data_channel::ChannelConfig;
use crate::media::{MediaError, Peer, Stream};
use crate::protocol::{ParticipantId, PeerId};
use crate::session::{Effect, EffectResult, Participant, Participants, link};

/// Maximum number of reports that wait to be read. The queue is short on purpose: further reports wait with their
/// connection, so that no connection can crowd out the others.
const REPORTS: usize = 16;

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
    /// Streams and channels for this peer alone.
    own: Wanted,
}

/// See the module.
pub(super) struct Peers {
    /// Configuration of every connection, apart from the STUN and TURN servers.
    base: PeerConfig,
    ice: Arc<Ice>,
    trace: Option<Arc<Trace>>,
    /// Decides which participant sends a track.
    pub(super) participants: Participants,
    /// Streams and channels for all peers, present and future.
    everyone: Wanted,
    connections: BTreeMap<PeerId, Connection>,
    /// Number of connections opened so far.
    opened: u64,
    queue: Sender<(u64, Report)>,
    reports: Receiver<(u64, Report)>,
}

impl Peers {
    pub(super) fn new(base: PeerConfig, ice: Arc<Ice>, trace: Option<Arc<Trace>>) -> Self {
        let (queue, reports) = bounded(REPORTS);
        Self {
            base,
            ice,
            trace,
            participants: Participants::default(),
            everyone: Wanted::default(),
            connections: BTreeMap::new(),
            opened: 0,
            queue,
            reports,
        }
    }

    /// Waits for the next report of a connection. May be dropped while it waits, without loss. Reports of connections
    /// that were closed or replaced are left out.
    pub(super) async fn next(&self) -> Report {
        while let Ok((number, report)) = self.reports.recv().await {
            let mut all = self.connections.iter();
            let of = all.find(|(_, connection)| connection.number == number);
            if let Some(report) = of.and_then(|(peer, _)| self.assign(peer, report)) {
                return report;
            }
        }
        pending().await
    }

    /// Assigns the track of a report, if the report has one, to the participant that sends it. Returns `None` if that
    /// participant is not announced yet; [`Peers::announce`] reports the track later.
    fn assign(&self, peer: &PeerId, mut report: Report) -> Option<Report> {
        if let Report::Pool(
            PoolEvent::Track(participant, track) | PoolEvent::TrackEnded(participant, track),
        )
        | Report::FirstFrame { participant, track, .. } = &mut report
        {
            *participant = self.participants.sender(peer, track.stream.as_deref())?;
            track.participant = Some(participant.clone());
        }
        Some(report)
    }

    /// Replaces the participants that the connection with `peer` carries; returns the tracks that another participant
    /// sends from now on.
    pub(super) fn announce(&mut self, peer: &PeerId, participants: Vec<Participant>) -> Vec<Report> {
        let tracks = self.peer(peer).map_or_else(Vec::new, |peer| peer.tracks());
        let before = self.participants.clone();
        self.participants.announce(peer, participants);
        let is_new = |track: &Track| {
            let sender = |by: &Participants| by.sender(peer, track.stream.as_deref());
            sender(&before) != sender(&self.participants)
        };
        let new = tracks.into_iter().filter(is_new);
        new.filter_map(|track| self.assign(peer, Report::Pool(PoolEvent::Track(peer.into(), track))))
            .collect()
    }

    /// Returns the number of tracks that a participant sends by the last descriptions of the peers.
    pub(super) fn expected_tracks(&self, participant: &ParticipantId) -> usize {
        let all = self.connections.iter().flat_map(|(peer, connection)| {
            let streams = connection.driver.peer.expected_tracks().into_iter();
            streams.filter_map(|stream| self.participants.sender(peer, stream.as_deref()))
        });
        all.filter(|sender| sender == participant).count()
    }

    /// Executes an output of the link with `peer`; returns its report, if there is any.
    pub(super) async fn execute(&mut self, peer: &PeerId, output: link::Output) -> Option<Report> {
        let id = peer.clone();
        Some(Report::Pool(match output {
            link::Output::Send(message) => return Some(Report::Send(id, message)),
            link::Output::Effect(Effect::Open) => match self.open(peer) {
                Ok(()) => return Some(Report::Opened(id)),
                // An element that is missing is missing for all peers.
                Err(error @ MediaError::MissingElement { .. }) => return Some(Report::Stopped(error.into())),
                Err(error) => PoolEvent::Warning(format!("{peer}: {error}")),
            },
            link::Output::Effect(effect) => return self.execute_effect(id, effect),
            link::Output::Connected => PoolEvent::Connected(id),
            link::Output::Reconnecting => PoolEvent::Reconnecting(id),
            link::Output::Warning(text) => PoolEvent::Warning(format!("{peer}: {text}")),
            link::Output::Ended(reason) => {
                self.close(peer).await;
                PoolEvent::Close(id, Some(reason))
            }
        }))
    }

    /// Executes an effect on the open connection with `peer`. If the connection could not be opened, returns the
    /// effect's failure for the link.
    fn execute_effect(&self, peer: PeerId, effect: Effect) -> Option<Report> {
        let Some(connection) = self.connections.get(&peer) else {
            let failed = EffectResult::Failed("the connection could not be opened".to_owned());
            return effect.id().map(|id| Report::Link(peer, link::Input::Result(id, failed)));
        };
        connection.driver.execute(effect);
        None
    }

    /// Opens a connection with `peer`, in place of the previous one if there is any.
    fn open(&mut self, peer: &PeerId) -> Result<(), MediaError> {
        let own = self.connections.remove(peer).map(|before| {
            // A close_notify of the previous connection would end the call on the other side.
            before.driver.peer.abandon();
            before.own
        });
        let own = own.unwrap_or_default();
        let mut config = PeerConfig { ice: self.ice.config(), ..self.base.clone() };
        config.streams.extend(self.everyone.streams.iter().chain(&own.streams).cloned());
        config.channels.extend(self.everyone.channels.iter().chain(&own.channels).cloned());
        config.channels.retain(|channel| !own.closed.contains(&channel.label));
        self.opened += 1;
        let (peer, number) = (peer.clone(), self.opened);
        let out = Outlet { number, peer: peer.clone(), queue: self.queue.clone(), trace: self.trace.clone() };
        let driver = Driver::open(config, &out)?;
        self.connections.insert(peer, Connection { number, driver, own });
        Ok(())
    }

    /// Closes the connection with `peer`, with DTLS's close_notify.
    pub(super) async fn close(&mut self, peer: &PeerId) {
        if let Some(connection) = self.connections.remove(peer) {
            connection.driver.peer.close().await;
        }
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
                if let Some(connection) = self.connections.get_mut(peer) {
                    change(&mut connection.own);
                }
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
        let report = smol::block_on(peers.execute(&ann, link::Output::Effect(effect)));
        let Some(Report::Link(peer, link::Input::Result(id, EffectResult::Failed(_)))) = report else {
            panic!("{report:?}");
        };
        assert_eq!((peer, id), (ann, EffectId(7)));
    }
}
