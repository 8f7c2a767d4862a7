//! A room as one of its members sees it: the other members, and a link with each. A newcomer makes the first offers;
//! the others wait for them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::io::{EndReason, Input, Output};
use super::link::{Begin, Link};
use super::terms::{Terms, decline};
use crate::protocol::{PeerId, PeerMessage, SdpKind};

/// Maximum number of peers of a room that are remembered.
pub const MAX_ROSTER: usize = 4096;

/// Pause before an offer that failed is repeated, and maximum number of repetitions; the pause doubles each time.
const RETRY_PAUSE: Duration = Duration::from_secs(10);
const MAX_RETRIES: u32 = 3;
/// Time after our side joined again in which a peer that hangs up is offered a new connection: the peer gave up the
/// earlier one when our side lost the server.
const RESUMED: Duration = Duration::from_secs(10);

/// State machine of a room.
#[derive(Debug)]
pub struct Room {
    terms: Terms,
    /// Maximum number of links.
    max_links: usize,
    /// Peers that are in the room.
    roster: BTreeSet<PeerId>,
    links: BTreeMap<PeerId, Link>,
    /// Peers that were connected when our side joined again, each with the time of that join.
    resumed: BTreeMap<PeerId, Instant>,
    /// Peers to which an offer of ours failed: the number of failures, and when the next offer is due.
    retries: BTreeMap<PeerId, (u32, Option<Instant>)>,
    outputs: VecDeque<(PeerId, Output)>,
}

impl Room {
    /// Returns a room that our side is about to join, with at most `max_links` links. The room sets in each link
    /// whether our side is polite and reconnects first.
    pub fn new(max_links: usize, terms: Terms) -> Self {
        Self {
            terms,
            max_links,
            roster: BTreeSet::new(),
            links: BTreeMap::new(),
            resumed: BTreeMap::new(),
            retries: BTreeMap::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Returns the peers of the room, each with whether media can flow.
    pub fn peers(&self) -> impl Iterator<Item = (&PeerId, bool)> {
        self.roster.iter().map(|id| (id, self.links.get(id).is_some_and(Link::is_connected)))
    }

    /// Returns the next output, and the peer that it concerns.
    pub fn poll_output(&mut self) -> Option<(PeerId, Output)> {
        self.outputs.pop_front()
    }

    /// Returns when [`Room::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let retries = self.retries.values().filter_map(|(_, at)| *at);
        self.links.values().filter_map(Link::poll_timeout).chain(retries).min()
    }

    /// Handles that our side joined, for the first time or again; these peers were there before. Connected peers stay
    /// connected.
    pub fn handle_joined(&mut self, now: Instant, peers: Vec<PeerId>) {
        let absent: Vec<PeerId> = self.links.keys().filter(|peer| !peers.contains(peer)).cloned().collect();
        absent.iter().for_each(|peer| self.handle_peer_left(now, peer));
        let mut unconnected = Vec::new();
        for peer in peers {
            if self.is_back(now, &peer) {
                self.resumed.insert(peer, now);
                continue;
            }
            self.leave(&peer);
            if self.admit(&peer) && !self.begin(now, &peer, Begin::Offer) {
                unconnected.push(peer);
            }
        }
        self.warn_unconnected(&unconnected);
    }

    /// Handles that a peer joined.
    pub fn handle_peer_joined(&mut self, now: Instant, peer: PeerId) {
        if self.is_back(now, &peer) {
            return;
        }
        // The peer joined again under its id: its earlier link is over.
        self.leave(&peer);
        if self.admit(&peer) && !self.begin(now, &peer, Begin::AwaitOffer) {
            self.warn_unconnected(&[peer]);
        }
    }

    /// Handles that a peer left.
    pub fn handle_peer_left(&mut self, now: Instant, peer: &PeerId) {
        self.left(now, peer, Input::PeerGone);
    }

    /// Handles that the server is lost; connected peers stay connected.
    pub fn handle_server_gone(&mut self, now: Instant) {
        for peer in self.roster.clone() {
            self.left(now, &peer, Input::Reachable(false));
        }
    }

    /// Handles that a peer cannot be reached. Its media may go on, if only its connection to the server, or ours, is
    /// lost.
    fn left(&mut self, now: Instant, peer: &PeerId, input: Input) {
        // A peer that returns to a pool has another id, so the link with the earlier one is over.
        let is_over = self.terms.pool && input == Input::PeerGone;
        match self.links.get_mut(peer) {
            Some(link) if link.was_connected() && !is_over => {
                self.roster.remove(peer);
                link.handle_input(now, input);
                self.forward_outputs(now, peer);
            }
            Some(_) | None => self.leave(peer),
        }
    }

    /// Handles that a peer can be reached again; returns whether its link from before goes on.
    fn is_back(&mut self, now: Instant, peer: &PeerId) -> bool {
        let Some(link) = self.links.get_mut(peer).filter(|link| link.was_connected()) else { return false };
        self.roster.insert(peer.clone());
        link.handle_input(now, Input::Reachable(true));
        self.forward_outputs(now, peer);
        true
    }

    /// Handles that time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        for peer in self.links.keys().cloned().collect::<Vec<_>>() {
            if let Some(link) = self.links.get_mut(&peer) {
                link.handle_timeout(now);
            }
            self.forward_outputs(now, &peer);
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
            self.push(peer, Output::Warning(format!("the room has more than {MAX_ROSTER} peers")));
            return false;
        }
        let is_new = self.roster.insert(peer.clone());
        if is_new {
            self.push(peer, Output::Joined);
        }
        is_new
    }

    fn push(&mut self, peer: &PeerId, output: Output) {
        self.outputs.push_back((peer.clone(), output));
    }

    /// Begins a link; returns false if the maximum number is reached.
    fn begin(&mut self, now: Instant, peer: &PeerId, begin: Begin) -> bool {
        if self.links.len() >= self.max_links {
            return false;
        }
        self.push(peer, Output::Connecting);
        // If both sides offer at once, the newcomer gives way. The newcomer is the side that makes the first offer.
        let polite = begin == Begin::Offer;
        self.links.insert(
            peer.clone(),
            Link::new(now, begin, Terms { polite, reconnects_first: polite, ..self.terms.clone() }),
        );
        self.forward_outputs(now, peer);
        true
    }

    /// Warns that these peers get no connection because of the limit.
    fn warn_unconnected(&mut self, peers: &[PeerId]) {
        let (Some(first), max_links) = (peers.first(), self.max_links) else { return };
        let others = if peers.len() > 1 { format!(" and {} more", peers.len() - 1) } else { String::new() };
        let text =
            format!("not connected to '{first}'{others}: the limit of {max_links} connections is reached");
        self.push(first, Output::Warning(text));
    }

    /// Answers an offer by a refusal with the reason.
    fn decline(&mut self, peer: &PeerId, input: Input) {
        let Input::Peer(PeerMessage::Description(offer)) = input else { return };
        let reason = format!("it is connected with {} peers already, as many as it takes", self.max_links);
        if let Some(answer) = decline(&offer, &reason) {
            self.push(peer, Output::Send(answer));
        }
    }

    /// Forgets a peer and its link.
    fn leave(&mut self, peer: &PeerId) {
        self.retries.remove(peer);
        let was_linked = self.links.remove(peer).is_some();
        if self.roster.remove(peer) || was_linked {
            self.push(peer, Output::Left);
        }
    }

    /// Handles an input from a peer, or from the connection with it; begins a link if the input is an offer or a request
    /// for one.
    pub fn handle_input(&mut self, now: Instant, peer: &PeerId, input: Input) {
        // Other messages of a peer without a link belong to a link that is over.
        let offers = matches!(&input, Input::Peer(PeerMessage::Description(d)) if d.kind == SdpKind::Offer);
        let begins = offers || input == Input::Peer(PeerMessage::OfferRequest);
        if !self.links.contains_key(peer) && begins {
            if !self.roster.contains(peer) {
                let text = format!("a message from '{peer}', who is not in the room");
                self.push(peer, Output::Warning(text));
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
        self.forward_outputs(now, peer);
    }

    /// Forwards the outputs of the link with a peer; removes a link that ended, and decides whether another one
    /// follows.
    fn forward_outputs(&mut self, now: Instant, peer: &PeerId) {
        let Some(link) = self.links.get_mut(peer) else { return };
        let (mut hung_up, mut failed) = (false, false);
        while let Some(mut output) = link.poll_output() {
            if let Output::Ended(reason) = &output {
                hung_up = *reason == EndReason::PeerHungUp;
                failed =
                    matches!(reason, EndReason::Negotiation { .. } | EndReason::NoPath(_) | EndReason::Lost);
            }
            if let Output::Warning(text) = &mut output {
                *text = format!("{peer}: {text}");
            }
            self.outputs.push_back((peer.clone(), output));
        }
        let (has_ended, offered) = (link.has_ended(), link.makes_offers());
        if link.is_connected() {
            self.retries.remove(peer);
        }
        if has_ended {
            self.links.remove(peer);
            if !self.roster.contains(peer) {
                // The peer left while media went on.
                self.retries.remove(peer);
                self.push(peer, Output::Left);
            }
            if failed && offered && self.roster.contains(peer) {
                let (count, at) = self.retries.entry(peer.clone()).or_default();
                *at = (*count < MAX_RETRIES).then(|| now + RETRY_PAUSE * 2_u32.pow(*count));
                *count += 1;
            }
            // The peer gave up the connection when our side lost the server: for the peer, our side is a newcomer.
            let is_recent = self.resumed.remove(peer).is_some_and(|at| now < at + RESUMED);
            if is_recent && hung_up && self.roster.contains(peer) {
                self.begin(now, peer, Begin::Offer);
            }
        }
    }
}
