//! A room as one of its members sees it: the other members, and a link with each. A newcomer makes the first offers; the
//! others wait for them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::link::{self, Begin, EndReason, Link};
use super::terms::{Terms, decline};
use crate::protocol::{PeerId, PeerMessage, SdpKind};

/// Maximum number of peers of a room that are remembered.
pub const MAX_ROSTER: usize = 4096;

/// Wait before an offer that failed is repeated; it doubles each time.
const RETRY: Duration = Duration::from_secs(10);
const RETRIES: u32 = 3;
/// Time after our side joined again in which a peer may turn out to have given up the connection.
const KEPT: Duration = Duration::from_secs(10);

/// An input of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Our side joined; these peers were there before.
    Joined(Vec<PeerId>),
    /// A peer joined.
    PeerJoined(PeerId),
    /// A peer left.
    PeerLeft(PeerId),
    /// The server is lost; connected peers stay connected.
    ServerGone,
    /// An input from a peer, or from the connection with it.
    Link(PeerId, link::Input),
}

/// An output of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A peer is there.
    Joined(PeerId),
    /// A peer is no longer there, nor its link, where there was one.
    Left(PeerId),
    /// Descriptions will be exchanged with a peer.
    Connecting(PeerId),
    /// An output of the link with a peer.
    Link(PeerId, link::Output),
    /// A problem of the room, or with a peer that is not in it.
    Warning(String),
}

/// State machine of a room.
#[derive(Debug)]
pub struct Room {
    terms: Terms,
    most: usize,
    roster: BTreeSet<PeerId>,
    links: BTreeMap<PeerId, Link>,
    /// Peers that stayed connected when our side joined again, and when that was.
    kept: BTreeMap<PeerId, Instant>,
    /// Peers to which an offer of ours failed: the number of failures, and when the next offer is due.
    retries: BTreeMap<PeerId, (u32, Option<Instant>)>,
    outputs: VecDeque<Output>,
}

impl Room {
    /// Returns a room that our side is about to join, with at most `most` links. The room sets in each link whether our side
    /// is polite and reconnects first.
    pub fn new(most: usize, terms: Terms) -> Self {
        Self {
            terms,
            most,
            roster: BTreeSet::new(),
            links: BTreeMap::new(),
            kept: BTreeMap::new(),
            retries: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Returns the peers of the room, each with whether media can flow.
    pub fn peers(&self) -> impl Iterator<Item = (&PeerId, bool)> {
        self.roster.iter().map(|id| (id, self.links.get(id).is_some_and(Link::is_connected)))
    }

    /// Returns the next output.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns when [`Room::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let retries = self.retries.values().filter_map(|(_, at)| *at);
        self.links.values().filter_map(Link::poll_timeout).chain(retries).min()
    }

    /// Handles one input.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Joined(peers) => self.joined(now, peers),
            Input::PeerJoined(peer) => {
                if self.is_back(now, &peer) {
                    return;
                }
                // The same id again: what was before is over.
                self.leave(&peer);
                if self.admit(&peer) && !self.begin(now, &peer, Begin::AwaitOffer) {
                    self.tell_unconnected(&[peer]);
                }
            }
            Input::PeerLeft(peer) => self.left(now, &peer, link::Input::PeerGone),
            Input::ServerGone => {
                for peer in self.roster.clone() {
                    self.left(now, &peer, link::Input::Reachable(false));
                }
            }
            Input::Link(peer, input) => self.link(now, &peer, input),
        }
    }

    /// Handles that our side joined, for the first time or again: connected peers stay connected.
    fn joined(&mut self, now: Instant, peers: Vec<PeerId>) {
        let absent: Vec<PeerId> = self.links.keys().filter(|peer| !peers.contains(peer)).cloned().collect();
        absent.iter().for_each(|peer| self.left(now, peer, link::Input::PeerGone));
        let mut unconnected = Vec::new();
        for peer in peers {
            if self.is_back(now, &peer) {
                self.kept.insert(peer, now);
                continue;
            }
            self.leave(&peer);
            if self.admit(&peer) && !self.begin(now, &peer, Begin::Offer) {
                unconnected.push(peer);
            }
        }
        self.tell_unconnected(&unconnected);
    }

    /// Handles that a peer cannot be reached. Its media may go on, if only its connection to the server, or ours, is lost.
    fn left(&mut self, now: Instant, peer: &PeerId, input: link::Input) {
        // A peer that returns to a pool has another id, so the link with the earlier one is over.
        let is_over = self.terms.pool && input == link::Input::PeerGone;
        match self.links.get_mut(peer) {
            Some(link) if link.was_connected() && !is_over => {
                self.roster.remove(peer);
                link.handle_input(now, input);
                self.pass_on(now, peer);
            }
            Some(_) | None => self.leave(peer),
        }
    }

    /// Handles that a peer can be reached again; returns whether its link from before goes on.
    fn is_back(&mut self, now: Instant, peer: &PeerId) -> bool {
        let Some(link) = self.links.get_mut(peer).filter(|link| link.was_connected()) else { return false };
        self.roster.insert(peer.clone());
        link.handle_input(now, link::Input::Reachable(true));
        self.pass_on(now, peer);
        true
    }

    /// Handles that time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        for peer in self.links.keys().cloned().collect::<Vec<_>>() {
            if let Some(link) = self.links.get_mut(&peer) {
                link.handle_timeout(now);
            }
            self.pass_on(now, &peer);
        }
        let due = self.retries.iter_mut().filter(|(_, (_, at))| at.is_some_and(|at| at <= now));
        let due: Vec<PeerId> = due.map(|(peer, (_, at))| (at.take(), peer.clone()).1).collect();
        for peer in due {
            if self.roster.contains(&peer) && !self.links.contains_key(&peer) {
                self.begin(now, &peer, Begin::Offer);
            }
        }
    }

    /// Remembers a peer; returns false if it was there before, or the roster is full.
    fn admit(&mut self, peer: &PeerId) -> bool {
        if self.roster.len() >= MAX_ROSTER {
            self.outputs.push_back(Output::Warning(format!("the room has more than {MAX_ROSTER} peers")));
            return false;
        }
        let is_new = self.roster.insert(peer.clone());
        if is_new {
            self.outputs.push_back(Output::Joined(peer.clone()));
        }
        is_new
    }

    /// Begins a link; returns false if the maximum number is reached.
    fn begin(&mut self, now: Instant, peer: &PeerId, begin: Begin) -> bool {
        if self.links.len() >= self.most {
            return false;
        }
        self.outputs.push_back(Output::Connecting(peer.clone()));
        // If two offer at once, the later newcomer gives way.
        let polite = begin == Begin::Offer;
        self.links.insert(
            peer.clone(),
            Link::new(now, begin, Terms { polite, reconnects_first: polite, ..self.terms.clone() }),
        );
        self.pass_on(now, peer);
        true
    }

    fn tell_unconnected(&mut self, peers: &[PeerId]) {
        let (Some(first), most) = (peers.first(), self.most) else { return };
        let others = if peers.len() > 1 { format!(" and {} more", peers.len() - 1) } else { String::new() };
        let text = format!("not connected to '{first}'{others}: the limit of {most} connections is reached");
        self.outputs.push_back(Output::Warning(text));
    }

    /// Answers an offer by a refusal with the reason.
    fn decline(&mut self, peer: &PeerId, input: link::Input) {
        let link::Input::Peer(PeerMessage::Description(offer)) = input else { return };
        let reason = format!("it is connected with {} peers already, as many as it takes", self.most);
        if let Some(answer) = decline(&offer, &reason) {
            self.outputs.push_back(Output::Link(peer.clone(), link::Output::Send(answer)));
        }
    }

    fn leave(&mut self, peer: &PeerId) {
        self.retries.remove(peer);
        let was_linked = self.links.remove(peer).is_some();
        if self.roster.remove(peer) || was_linked {
            self.outputs.push_back(Output::Left(peer.clone()));
        }
    }

    fn link(&mut self, now: Instant, peer: &PeerId, input: link::Input) {
        // Anything else, of a peer without a link, belongs to a call that is over.
        let offers =
            matches!(&input, link::Input::Peer(PeerMessage::Description(d)) if d.kind == SdpKind::Offer);
        let begins = offers || input == link::Input::Peer(PeerMessage::OfferRequest);
        if !self.links.contains_key(peer) && begins {
            if !self.roster.contains(peer) {
                let text = format!("a message from '{peer}', who is not in the room");
                self.outputs.push_back(Output::Warning(text));
                return;
            }
            // The peer's link ended, and the peer begins anew.
            if !self.begin(now, peer, Begin::AwaitOffer) {
                self.decline(peer, input);
                return;
            }
        }
        if let Some(link) = self.links.get_mut(peer) {
            link.handle_input(now, input);
        }
        self.pass_on(now, peer);
    }

    fn pass_on(&mut self, now: Instant, peer: &PeerId) {
        let Some(link) = self.links.get_mut(peer) else { return };
        let (mut hung_up, mut came_to_nothing) = (false, false);
        while let Some(output) = link.poll_output() {
            if let link::Output::Ended(reason) = &output {
                hung_up = *reason == EndReason::PeerHungUp;
                came_to_nothing =
                    matches!(reason, EndReason::Negotiation { .. } | EndReason::NoPath(_) | EndReason::Lost);
            }
            self.outputs.push_back(Output::Link(peer.clone(), output));
        }
        let (has_ended, offered) = (link.has_ended(), link.makes_offers());
        if link.is_connected() {
            self.retries.remove(peer);
        }
        if has_ended {
            self.links.remove(peer);
            if came_to_nothing && offered && self.roster.contains(peer) {
                let (count, at) = self.retries.entry(peer.clone()).or_default();
                *at = (*count < RETRIES).then(|| now + RETRY * 2_u32.pow(*count));
                *count += 1;
            }
            // The peer did not keep the connection when our side lost the server: to the peer our side is a newcomer.
            let kept = self.kept.remove(peer).is_some_and(|at| now < at + KEPT);
            if kept && hung_up && self.roster.contains(peer) {
                self.begin(now, peer, Begin::Offer);
            }
        }
    }
}
