//! Collisions of offers (glare), with a webrtcbin that can drop its own offer and with one that cannot.

use std::collections::VecDeque;
use std::time::Instant;

use super::{Connection, described, terms};
use crate::protocol::{Description, PeerMessage, SdpKind};
use crate::session::negotiation::{Event, Negotiation};
use crate::session::{Output, Terms};

struct Side {
    negotiation: Negotiation,
    connection: Connection,
    out: VecDeque<PeerMessage>,
    /// Number of connections that the negotiation replaced.
    replaced: usize,
}

impl Side {
    fn new(polite: bool, drops_added_lines: bool) -> Self {
        let negotiation = Negotiation::new(Terms { polite, drops_added_lines, ..terms() });
        let connection = Connection { kinds: vec!["video"], drops_added_lines, ..Connection::default() };
        Self { negotiation, connection, out: VecDeque::new(), replaced: 0 }
    }

    fn work(&mut self, now: Instant) {
        while let Some(output) = self.negotiation.poll_output() {
            match output {
                Output::Effect(effect) => {
                    if let Some((id, result)) = self.connection.execute(&effect) {
                        self.negotiation.handle_result(now, id, result);
                    }
                }
                Output::Send(message) => self.out.push_back(message),
                other => panic!("{other:?}"),
            }
        }
        while let Some(event) = self.negotiation.poll_event() {
            match event {
                Event::Replaced => self.replaced += 1,
                Event::Negotiated | Event::IceRestarted => {}
                Event::Dropped(_) | Event::Declined(_) | Event::Failed(..) => panic!("{event:?}"),
            }
        }
    }

    fn add(&mut self, now: Instant, kind: &'static str) {
        self.connection.kinds.push(kind);
        self.negotiation.request_offer(now);
        self.work(now);
    }

    fn receive(&mut self, now: Instant, message: PeerMessage) {
        self.negotiation.handle_peer(now, message);
        self.work(now);
    }
}

fn settle(now: Instant, a: &mut Side, b: &mut Side) {
    for _ in 0..50 {
        if let Some(message) = a.out.pop_front() {
            b.receive(now, message);
        } else if let Some(message) = b.out.pop_front() {
            a.receive(now, message);
        } else {
            return;
        }
    }
    panic!("the exchange does not end");
}

fn is_offer(message: &PeerMessage) -> bool {
    matches!(message, PeerMessage::Description(Description { kind: SdpKind::Offer, .. }))
}

/// Returns two connected sides.
fn connected(drops_added_lines: bool) -> (Side, Side) {
    let now = Instant::now();
    let (mut polite, mut impolite) =
        (Side::new(true, drops_added_lines), Side::new(false, drops_added_lines));
    impolite.negotiation.request_offer(now);
    impolite.work(now);
    polite.work(now);
    settle(now, &mut impolite, &mut polite);
    polite.negotiation.handle_connected(now);
    impolite.negotiation.handle_connected(now);
    assert!(polite.negotiation.is_at_rest() && impolite.negotiation.is_at_rest());
    (polite, impolite)
}

/// Returns two connected sides after both added audio at the same time.
fn glare(drops_added_lines: bool) -> (Side, Side) {
    let now = Instant::now();
    let (mut polite, mut impolite) = connected(drops_added_lines);
    polite.add(now, "audio");
    impolite.add(now, "audio");
    assert!(is_offer(&polite.out[0]) && is_offer(&impolite.out[0]), "both offers are under way");
    settle(now, &mut impolite, &mut polite);
    (polite, impolite)
}

/// Tests a peer that answers an offer although our side has dropped it in a collision: the link learns that its
/// connection is replaced.
#[test]
fn an_answer_to_a_dropped_offer_that_replaces_the_connection_is_reported() {
    let now = Instant::now();
    let (mut polite, mut impolite) = connected(true);
    polite.add(now, "audio");
    impolite.add(now, "audio");
    polite.receive(now, impolite.out.pop_front().expect("the peer's offer"));
    assert_eq!((polite.connection.opened, polite.replaced), (1, 0));
    assert!(is_offer(polite.out.back().expect("the next offer")), "our side offers its audio again");
    let sdp = described(&[("video".into(), "late".into())], "active", 9);
    polite.receive(now, PeerMessage::Description(Description { kind: SdpKind::Answer, sdp }));
    assert_eq!((polite.connection.opened, polite.replaced), (2, 1));
}

#[test]
fn an_offer_that_was_dropped_in_a_collision_is_repeated_on_the_same_connection() {
    let (polite, impolite) = glare(true);
    assert!(polite.negotiation.is_at_rest() && impolite.negotiation.is_at_rest());
    assert_eq!((polite.connection.opened, impolite.connection.opened), (1, 1));
    assert_eq!((polite.replaced, impolite.replaced), (0, 0));
}

#[test]
fn an_offer_that_cannot_be_dropped_in_a_collision_replaces_both_connections() {
    let (polite, impolite) = glare(false);
    assert!(polite.negotiation.is_at_rest() && impolite.negotiation.is_at_rest());
    assert_eq!((polite.connection.opened, impolite.connection.opened), (2, 2));
    assert_eq!((polite.replaced, impolite.replaced), (1, 1));
    assert_eq!(
        impolite.connection.remote,
        Some(SdpKind::Offer),
        "the polite side's offer over a fresh connection"
    );
}
