//! The participants of a room, apart from the connections that carry their media.
//!
//! In a mesh, each connection carries one participant: its peer. A server that forwards media announces the participants
//! of its connection, and the streams of each.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::collections::BTreeMap;

use crate::protocol::{ParticipantId, PeerId};

/// Maximum number of connections with announced participants; further ones are ignored.
const MAX_CONNECTIONS: usize = 16;
/// Maximum number of participants of one connection; further ones are ignored.
const MAX_PARTICIPANTS: usize = 4096;
/// Maximum number of streams of one participant; further ones are ignored.
const MAX_STREAMS: usize = 16;

/// A participant of a connection that carries several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// The name of the participant.
    pub id: ParticipantId,
    /// Ids of the streams that the participant sends (`a=msid`, RFC 8830).
    pub streams: Vec<String>,
}

/// The announced participants of all connections, by the peer of the connection.
#[derive(Debug, Clone, Default)]
pub struct Participants {
    announced: BTreeMap<PeerId, Vec<Participant>>,
}

impl Participants {
    /// Replaces the participants that the connection with `peer` carries.
    pub fn announce(&mut self, peer: &PeerId, mut participants: Vec<Participant>) {
        if self.announced.len() < MAX_CONNECTIONS || self.announced.contains_key(peer) {
            participants.truncate(MAX_PARTICIPANTS);
            participants.iter_mut().for_each(|participant| participant.streams.truncate(MAX_STREAMS));
            self.announced.insert(peer.clone(), participants);
        }
    }

    /// Forgets the announced participants of a connection whose peer left.
    pub fn forget(&mut self, peer: &PeerId) {
        self.announced.remove(peer);
    }

    /// Returns the participants that the connection with `peer` carries: those that were announced, or else the peer.
    pub fn of(&self, peer: &PeerId) -> Vec<ParticipantId> {
        match self.announced.get(peer) {
            Some(participants) => participants.iter().map(|participant| participant.id.clone()).collect(),
            None => vec![peer.into()],
        }
    }

    /// Returns the participant that sends a stream over the connection with `peer`; `None` if participants were
    /// announced and none of them sends it.
    pub fn sender(&self, peer: &PeerId, stream: Option<&str>) -> Option<ParticipantId> {
        let Some(participants) = self.announced.get(peer) else { return Some(peer.into()) };
        let sends = |participant: &&Participant| participant.streams.iter().any(|id| Some(&**id) == stream);
        participants.iter().find(sends).map(|participant| participant.id.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn participant(id: &str, streams: &[&str]) -> Participant {
        Participant { id: id.parse().unwrap(), streams: streams.iter().map(|id| (*id).to_owned()).collect() }
    }

    fn names(ids: impl IntoIterator<Item = ParticipantId>) -> Vec<String> {
        ids.into_iter().map(|id| id.to_string()).collect()
    }

    #[test]
    fn a_peer_without_announced_participants_sends_all_its_streams_itself() {
        let (participants, ann) = (Participants::default(), "ann".parse().unwrap());
        assert_eq!(names(participants.of(&ann)), ["ann"]);
        assert_eq!(names(participants.sender(&ann, Some("any"))), ["ann"]);
        assert_eq!(names(participants.sender(&ann, None)), ["ann"]);
    }

    #[test]
    fn a_connection_carries_the_participants_that_were_announced_last() {
        let (mut participants, sfu) = (Participants::default(), "sfu".parse().unwrap());
        participants.announce(&sfu, vec![participant("ann", &["a1", "a2"]), participant("bob", &["b"])]);
        assert_eq!(names(participants.of(&sfu)), ["ann", "bob"]);
        assert_eq!(names(participants.sender(&sfu, Some("a2"))), ["ann"]);
        assert_eq!(names(participants.sender(&sfu, Some("b"))), ["bob"]);
        assert_eq!(participants.sender(&sfu, Some("c")), None);
        assert_eq!(participants.sender(&sfu, None), None);
        participants.announce(&sfu, vec![participant("bob", &["a2"])]);
        assert_eq!(names(participants.of(&sfu)), ["bob"]);
        assert_eq!(names(participants.sender(&sfu, Some("a2"))), ["bob"]);
        participants.announce(&sfu, vec![]);
        assert!(participants.of(&sfu).is_empty());
        participants.forget(&sfu);
        assert_eq!(names(participants.of(&sfu)), ["sfu"]);
    }

    #[test]
    fn announcements_are_bounded() {
        let mut participants = Participants::default();
        let peer = |n: usize| format!("p{n}").parse::<PeerId>().unwrap();
        let streams = vec![String::from("s"); 2 * MAX_STREAMS];
        let many = vec![Participant { id: "ann".parse().unwrap(), streams }; 2 * MAX_PARTICIPANTS];
        for n in 0..2 * MAX_CONNECTIONS {
            participants.announce(&peer(n), if n == 0 { many.clone() } else { vec![] });
        }
        assert_eq!(participants.announced.len(), MAX_CONNECTIONS);
        let first = &participants.announced[&peer(0)];
        assert_eq!((first.len(), first[0].streams.len()), (MAX_PARTICIPANTS, MAX_STREAMS));
    }
}
