//! Derives events from the hub's outputs: follows each registered peer from its registration to its end.
//!
//! Pure: no clock, sockets, files or random numbers.

use std::collections::HashMap;
use std::time::Instant;

use super::happening::Happening;
use crate::base::limit::Bucket;
use crate::hub::{ConnId, Hub, Notice, Output, Presence, Reason, Refusal};
use crate::protocol::{PeerId, PeerMessage, RoomId, SdpKind};

/// Calls in vain of one peer that are reported: so many at once, and so many a second in the long run. A client may try
/// ids as fast as it can send them, and each report may wake a phone.
const VAIN: (u32, u32) = (20, 1);

/// A registered peer.
#[derive(Debug)]
struct Stay {
    name: PeerId,
    since: Instant,
    place: Place,
    /// Limit on the reports of its calls in vain.
    vain: Bucket,
}

#[derive(Debug)]
enum Place {
    Lobby,
    Room(RoomId, Instant),
    Call(Call),
    /// In a call to a peer of another server, which reports the call.
    CallElsewhere,
}

/// A call, seen from one of its sides.
#[derive(Debug)]
struct Call {
    /// The other side, which may be a client of another server.
    other: ConnId,
    name: PeerId,
    is_caller: bool,
    since: Instant,
    /// This side has sent or received an answer that accepts something.
    is_answered: bool,
}

/// A room with members.
#[derive(Debug)]
struct Room {
    members: usize,
    since: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub(in crate::server) struct Observer {
    stays: HashMap<ConnId, Stay>,
    rooms: HashMap<RoomId, Room>,
}

impl Observer {
    /// Returns the events that an output of the hub means, in order.
    pub(in crate::server) fn observe(&mut self, now: Instant, hub: &Hub, output: &Output) -> Vec<Happening> {
        match output {
            Output::Notify(conn, notice) => self.notice(now, hub, *conn, notice),
            Output::Close(conn, reason) => self.ended(now, *conn, reason_word(*reason)),
            Output::Probe(_) => vec![],
        }
    }

    /// Returns the events that the end of a connection means, in order.
    pub(in crate::server) fn ended(
        &mut self,
        now: Instant,
        conn: ConnId,
        reason: &'static str,
    ) -> Vec<Happening> {
        let Some(Stay { name: peer, since, place, .. }) = self.stays.remove(&conn) else { return vec![] };
        let mut all = match place {
            Place::Lobby | Place::CallElsewhere => vec![],
            Place::Room(room, since) => self.left(now, room, &peer, since, reason),
            Place::Call(call) => self.call_ended(now, &peer, &call),
        };
        all.push(Happening::Gone { peer, reason, seconds: seconds(since, now) });
        all
    }

    fn notice(&mut self, now: Instant, hub: &Hub, conn: ConnId, notice: &Notice) -> Vec<Happening> {
        match notice {
            Notice::Registered => self.register(now, hub, conn).into_iter().collect(),
            Notice::Joined(_) => self.joined(now, hub, conn),
            Notice::CalledBy(from) => self.called(now, hub, conn, from).into_iter().collect(),
            Notice::CallStarted => {
                // A callee of this server was told first, and has made it a call already.
                if let Some(stay) =
                    self.stays.get_mut(&conn).filter(|stay| matches!(stay.place, Place::Lobby))
                {
                    stay.place = Place::CallElsewhere;
                }
                vec![]
            }
            Notice::Relayed(text) => {
                self.said(conn, text);
                vec![]
            }
            Notice::Refused(refusal) => self.refused(now, hub, conn, refusal).into_iter().collect(),
            _ => vec![],
        }
    }

    fn register(&mut self, now: Instant, hub: &Hub, conn: ConnId) -> Option<Happening> {
        let name = hub.name(conn)?;
        let vain = Bucket::new(VAIN.0, VAIN.1);
        self.stays.insert(conn, Stay { name: name.clone(), since: now, place: Place::Lobby, vain });
        Some(Happening::Registered { peer: name })
    }

    fn joined(&mut self, now: Instant, hub: &Hub, conn: ConnId) -> Vec<Happening> {
        let mut all = vec![];
        if !self.stays.contains_key(&conn) {
            // An endpoint of a pool registers and joins at once.
            all.extend(self.register(now, hub, conn));
        }
        let Some(stay) = self.stays.get_mut(&conn) else { return all };
        let Presence::Room(room) = hub.presence(&stay.name) else { return all };
        stay.place = Place::Room(room.clone(), now);
        let known = self.rooms.entry(room.clone()).or_insert(Room { members: 0, since: now });
        known.members += 1;
        let members = known.members;
        if members == 1 {
            all.push(Happening::RoomStarted { room: room.clone() });
        }
        all.push(Happening::Joined { room, peer: stay.name.clone(), members });
        all
    }

    fn left(
        &mut self,
        now: Instant,
        room: RoomId,
        peer: &PeerId,
        since: Instant,
        reason: &'static str,
    ) -> Vec<Happening> {
        let Some(known) = self.rooms.get_mut(&room) else { return vec![] };
        known.members -= 1;
        let (members, began) = (known.members, known.since);
        let seconds_in = seconds(since, now);
        let mut all = vec![Happening::Left {
            room: room.clone(),
            peer: peer.clone(),
            members,
            reason,
            seconds: seconds_in,
        }];
        if members == 0 {
            self.rooms.remove(&room);
            all.push(Happening::RoomEnded { room, seconds: seconds(began, now) });
        }
        all
    }

    /// Handles the beginning of a call to `conn`.
    fn called(&mut self, now: Instant, hub: &Hub, conn: ConnId, from: &PeerId) -> Option<Happening> {
        let caller = hub.connection(from)?;
        let callee = self.stays.get_mut(&conn)?;
        let to = callee.name.clone();
        let call = |other, name: &PeerId, is_caller| {
            Place::Call(Call { other, name: name.clone(), is_caller, since: now, is_answered: false })
        };
        callee.place = call(caller, from, false);
        if let Some(caller) = self.stays.get_mut(&caller) {
            caller.place = call(conn, &to, true);
        }
        Some(Happening::CallStarted { from: from.clone(), to })
    }

    /// Handles a message that a side of a call sends or receives.
    pub(in crate::server) fn said(&mut self, conn: ConnId, text: &str) {
        if let Some(Stay { place: Place::Call(call), .. }) = self.stays.get_mut(&conn)
            && !call.is_answered
            && text.contains("\"sdp\"")
        {
            call.is_answered = is_acceptance(text);
        }
    }

    /// Returns the events that the end of a call means for the side that ends first.
    fn call_ended(&mut self, now: Instant, peer: &PeerId, call: &Call) -> Vec<Happening> {
        let theirs = self.stays.get_mut(&call.other).map(|other| &mut other.place);
        let theirs = theirs.map(|place| std::mem::replace(place, Place::Lobby));
        let answered = call.is_answered || matches!(theirs, Some(Place::Call(theirs)) if theirs.is_answered);
        let (from, to) = match call.is_caller {
            true => (peer.clone(), call.name.clone()),
            false => (call.name.clone(), peer.clone()),
        };
        let ended = Happening::CallEnded {
            from: from.clone(),
            to: to.clone(),
            answered,
            seconds: seconds(call.since, now),
        };
        match answered {
            true => vec![ended],
            false => vec![ended, Happening::Missed { from, to, reason: "unanswered" }],
        }
    }

    fn refused(&mut self, now: Instant, hub: &Hub, conn: ConnId, refusal: &Refusal) -> Option<Happening> {
        let Stay { name: from, place: Place::Lobby, vain, .. } = self.stays.get_mut(&conn)? else {
            return None;
        };
        let from = &*from;
        let happening = match refusal {
            // A peer that the caller may not see is there.
            Refusal::NotFound(to) if !hub.has_peer(to) => {
                Some(Happening::Unreachable { from: from.clone(), to: to.clone() })
            }
            Refusal::Busy(to) if to != from => {
                Some(Happening::Missed { from: from.clone(), to: to.clone(), reason: "busy" })
            }
            _ => None,
        };
        happening.filter(|_| vain.take(now))
    }
}

/// Returns the reason for the end of a connection in one word.
fn reason_word(reason: Reason) -> &'static str {
    match reason {
        Reason::IdTaken | Reason::NotGranted => "refused",
        Reason::Replaced => "replaced",
        Reason::CallOver => "call_over",
        Reason::Removed => "removed",
        Reason::RemovedByModerator => "moderator",
        Reason::RoomClosed => "room_closed",
        Reason::Expired => "expired",
        Reason::Unavailable => "unavailable",
    }
}

/// Returns the time between two instants in seconds, with milliseconds.
fn seconds(since: Instant, now: Instant) -> f64 {
    (now.saturating_duration_since(since).as_secs_f64() * 1000.0).round() / 1000.0
}

/// Returns whether a message is an answer (RFC 3264) with an m-line that is not rejected (port 0).
fn is_acceptance(text: &str) -> bool {
    let Ok(PeerMessage::Description(description)) = PeerMessage::parse(text) else { return false };
    let is_open = |line: &str| line.starts_with("m=") && line.split_whitespace().nth(1) != Some("0");
    description.kind == SdpKind::Answer && description.sdp.lines().any(is_open)
}

#[cfg(test)]
mod tests;
