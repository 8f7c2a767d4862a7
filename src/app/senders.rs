//! Senders of received tracks: assigns each track of a connection to the participant that sends it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::report::{PoolEvent, Report};
use crate::media::receive::Track;
use crate::protocol::{ParticipantId, PeerId};
use crate::session::{Participant, Participants};

/// First frame of a track whose participant is not announced yet: the track, the frame's width and height, and the time
/// since the connection was opened.
type FirstFrame = (Track, Option<(u32, u32)>, Duration);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Senders {
    participants: Participants,
    /// First frames, by the peer of the connection. Bounded, because each track of a connection has one.
    early: BTreeMap<PeerId, Vec<FirstFrame>>,
}

impl Senders {
    /// Returns the participants that the connection with `peer` carries.
    pub(super) fn of(&self, peer: &PeerId) -> Vec<ParticipantId> {
        self.participants.of(peer)
    }

    /// Returns the participant that sends a stream over the connection with `peer`, if it is announced.
    pub(super) fn sender(&self, peer: &PeerId, stream: Option<&str>) -> Option<ParticipantId> {
        self.participants.sender(peer, stream)
    }

    /// Forgets the tracks of a connection that is closed or replaced.
    pub(super) fn closed(&mut self, peer: &PeerId) {
        self.early.remove(peer);
    }

    /// Forgets the participants of a connection whose peer left.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.participants.forget(peer);
    }

    /// Assigns the track of a report, if the report has one. A track whose participant is not announced is reported as
    /// [`Report::Unassigned`]; further reports about it wait for [`Senders::announce`].
    pub(super) fn assign(&mut self, peer: &PeerId, mut report: Report) -> Option<Report> {
        let (Report::Pool(PoolEvent::Track(participant, track) | PoolEvent::TrackEnded(participant, track))
        | Report::FirstFrame { participant, track, .. }) = &mut report
        else {
            return Some(report);
        };
        if let Some(sender) = self.participants.sender(peer, track.stream.as_deref()) {
            *participant = sender.clone();
            track.participant = Some(sender);
            return Some(report);
        }
        match report {
            Report::Pool(PoolEvent::Track(_, track)) => return Some(Report::Unassigned(track)),
            Report::FirstFrame { track, size, after, .. } => {
                self.early.entry(peer.clone()).or_default().push((track, size, after));
            }
            _ => {}
        }
        None
    }

    /// Replaces the participants that the connection with `peer` carries, where `tracks` are the connection's tracks;
    /// returns the reports about those that have another sender from now on.
    pub(super) fn announce(
        &mut self,
        peer: &PeerId,
        participants: Vec<Participant>,
        tracks: Vec<Track>,
    ) -> Vec<Report> {
        let sender = |by: &Participants, track: &Track| by.sender(peer, track.stream.as_deref());
        let before: Vec<_> = tracks.iter().map(|track| sender(&self.participants, track)).collect();
        self.participants.announce(peer, participants);
        let mut reports = vec![];
        for (mut track, before) in tracks.into_iter().zip(before) {
            let now = sender(&self.participants, &track);
            if now == before {
                continue;
            }
            track.participant = now.clone();
            let Some(participant) = now else {
                let ended = before.map(|before| Report::Pool(PoolEvent::TrackEnded(before, track.clone())));
                reports.extend(ended.into_iter().chain([Report::Unassigned(track)]));
                continue;
            };
            reports.push(Report::Pool(PoolEvent::Track(participant.clone(), track.clone())));
            let early = self.early.entry(peer.clone()).or_default();
            let is_same = |(early, ..): &FirstFrame| Arc::ptr_eq(&early.counters, &track.counters);
            if let Some(at) = early.iter().position(is_same) {
                let (_, size, after) = early.remove(at);
                reports.push(Report::FirstFrame { participant, track, size, after });
            }
        }
        reports
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::test_media::produce;
    use crate::sdp::Codec;

    fn announced(id: &str, stream: &str) -> Participant {
        Participant { id: id.parse().unwrap(), streams: vec![stream.to_owned()] }
    }

    fn text(report: Report) -> String {
        match report {
            Report::Pool(PoolEvent::Track(id, track)) => {
                assert_eq!(track.participant.as_ref(), Some(&id));
                format!("{id} sends {}", track.stream.unwrap())
            }
            Report::Pool(PoolEvent::TrackEnded(id, track)) => format!("{id} ends {}", track.stream.unwrap()),
            Report::FirstFrame { participant, size, after, .. } => {
                format!("first frame of {participant}: {size:?} after {after:?}")
            }
            Report::Unassigned(track) => format!("nobody sends {}", track.stream.unwrap()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reports_about_a_track_wait_for_the_announcement_of_its_participant() {
        let (_running, producer) = produce("audiotestsrc num-buffers=1");
        let (mut senders, sfu) = (Senders::default(), "sfu".parse::<PeerId>().unwrap());
        let mut track = Track::of(Codec::Opus, &producer);
        track.stream = Some("a".into());
        let announce = |senders: &mut Senders, all: &[Participant]| -> Vec<String> {
            let reports = senders.announce(&sfu, all.to_vec(), vec![track.clone()]);
            reports.into_iter().map(text).collect()
        };
        senders.participants.announce(&sfu, vec![]);
        let participant: ParticipantId = (&sfu).into();
        let first = Report::Pool(PoolEvent::Track(participant.clone(), track.clone()));
        assert_eq!(senders.assign(&sfu, first).map(text).as_deref(), Some("nobody sends a"));
        let after = Duration::from_millis(7);
        let first = Report::FirstFrame { participant, track: track.clone(), size: None, after };
        assert!(senders.assign(&sfu, first).is_none());
        assert_eq!(
            announce(&mut senders, &[announced("ann", "a")]),
            ["ann sends a", "first frame of ann: None after 7ms"]
        );
        // The first frame is reported once, and a track without a participant is not the last one's any more.
        assert_eq!(announce(&mut senders, &[announced("bob", "a")]), ["bob sends a"]);
        assert!(announce(&mut senders, &[announced("bob", "a"), announced("cat", "c")]).is_empty());
        assert_eq!(announce(&mut senders, &[announced("bob", "b")]), ["bob ends a", "nobody sends a"]);
    }
}
