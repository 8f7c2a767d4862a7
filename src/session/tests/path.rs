//! Paths that break, and servers that are lost, during a call.

use super::*;
use crate::session::Patience;

const QUIET: Duration = Duration::from_secs(4);
const GIVE_UP: Duration = Duration::from_secs(30);

/// Returns a connected call, in which the caller reconnects first.
fn connected() -> (Instant, Side, Side) {
    connected_for(GIVE_UP)
}

fn connected_for(give_up: Duration) -> (Instant, Side, Side) {
    let now = Instant::now();
    let patience = Patience { quiet: QUIET, give_up };
    let caller = Terms { reconnects_first: true, patience, ..terms() };
    let callee = Terms { reconnects_first: false, patience, ..terms() };
    let mut a = Side::new(Call::dial(now, id("callee"), false, caller));
    let mut b = Side::new(Call::answer(callee, Admission::default()));
    a.call_event(now, call::Event::Accepted);
    b.call_event(now, call::Event::Caller(id("ann")));
    settle(now, &mut a, &mut b);
    connect(now, &mut a, &mut b);
    (now, a, b)
}

fn connect(now: Instant, a: &mut Side, b: &mut Side) {
    for side in [a, b] {
        side.input(now, Input::Connection(ConnectionState::Connected));
        side.input(now, Input::Heard(true));
    }
}

fn last(side: &Side) -> &str {
    side.events.last().unwrap()
}

#[test]
fn silence_breaks_the_path_and_the_caller_reconnects() {
    let (now, mut a, mut b) = connected();
    a.timeout(now + QUIET / 2);
    assert_eq!(last(&a), "connected");
    let later = now + QUIET;
    a.timeout(later);
    b.timeout(later);
    assert_eq!((last(&a), last(&b)), ("reconnecting", "reconnecting"));
    a.timeout(later);
    settle(later, &mut a, &mut b);
    assert_eq!((a.connection.opened, b.connection.opened), (2, 2), "a fresh connection each");
    connect(later, &mut a, &mut b);
    assert_eq!((last(&a), last(&b)), ("connected", "connected"));
    assert!(a.is_stable() && b.is_stable() && a.ended.is_none() && b.ended.is_none());
}

#[test]
fn a_peer_without_media_may_be_silent_for_twice_its_longest_pause() {
    for (pause, quiet) in [(1, QUIET), (3, Duration::from_secs(6)), (9, 3 * QUIET)] {
        let (mut now, mut a, _) = connected();
        // The interval of the reports is not known yet.
        a.input(now, Input::Heard(false));
        a.timeout(now + 2 * QUIET);
        assert_eq!(last(&a), "connected");
        for _ in 0..5 {
            now += Duration::from_secs(pause);
            a.input(now, Input::Heard(false));
        }
        a.timeout(now + quiet - Duration::from_millis(1));
        assert_eq!(last(&a), "connected");
        a.timeout(now + quiet);
        assert_eq!(last(&a), "reconnecting");
    }
    // For a peer that sends media again, the shorter silence applies at once.
    let (now, mut a, _) = connected();
    a.input(now, Input::Heard(false));
    a.input(now, Input::Heard(true));
    a.timeout(now + QUIET);
    assert_eq!(last(&a), "reconnecting");
}

/// Tests a peer whose packets arrive all the time, but whose reports show that ours do not.
#[test]
fn a_path_that_is_dead_in_our_direction_is_renewed() {
    let (mut now, mut a, _) = connected();
    let mut seconds = 0;
    while last(&a) == "connected" {
        assert!(seconds < 20);
        let (sent, progress) = (seconds * 50, seconds.min(3));
        let report = crate::session::delivery::Report { sent, reports: seconds, progress };
        a.input(now, Input::Report(report));
        a.input(now, Input::Heard(true));
        (now, seconds) = (now + Duration::from_secs(1), seconds + 1);
    }
    assert_eq!((last(&a), seconds), ("reconnecting", 12));
}

#[test]
fn a_path_that_stays_broken_is_given_up() {
    let (mut now, mut a, mut b) = connected();
    let began = now + QUIET;
    // Every offer is lost.
    while a.ended.is_none() || b.ended.is_none() {
        now = [&a, &b].iter().filter_map(|side| side.call.poll_timeout()).min().expect("a timer");
        assert!(now <= began + GIVE_UP, "in time");
        for side in [&mut a, &mut b] {
            side.timeout(now);
            while side.result(now) {}
            side.outbox.clear();
        }
    }
    assert_eq!((a.ended, b.ended), (Some(EndReason::Lost), Some(EndReason::Lost)));
    assert!(a.connection.opened > 2, "it was tried more than once: {}", a.connection.opened);
}

#[test]
fn a_failed_connection_is_replaced_and_a_failed_attempt_is_repeated() {
    let (now, mut a, mut b) = connected();
    a.input(now, Input::Connection(ConnectionState::Failed));
    assert_eq!(last(&a), "reconnecting");
    a.timeout(now);
    assert_eq!(a.connection.opened, 2);
    while a.result(now) {}
    a.outbox.clear();
    // The answer does not arrive in time.
    let later = now + STEP;
    a.timeout(later);
    assert_eq!(a.connection.opened, 3, "for an offer of the peer");
    a.timeout(later + Duration::from_secs(1));
    assert_eq!(a.connection.opened, 4);
    settle(later, &mut a, &mut b);
    connect(later, &mut a, &mut b);
    assert_eq!((last(&a), last(&b)), ("connected", "connected"));
}

#[test]
fn media_outlives_the_server_and_a_new_session_is_dialled() {
    let (now, mut a, mut b) = connected();
    a.input(now, Input::Reachable(false));
    b.input(now, Input::PeerGone);
    for side in [&mut a, &mut b] {
        side.input(now + Duration::from_secs(1), Input::Heard(true));
        side.timeout(now + Duration::from_secs(2));
        assert_eq!((side.ended.as_ref(), last(side)), (None, "connected"));
    }
    a.call_event(now, call::Event::Registered);
    let later = a.call.poll_timeout().unwrap();
    a.timeout(later);
    assert_eq!(last(&a), "dial callee");
    // The peer is not registered again yet.
    a.call_event(
        later,
        call::Event::Refused(crate::protocol::Refusal::PeerNotFound("peer 'callee' not found".into())),
    );
    assert_eq!(a.ended, None);
    a.input(later, Input::Heard(true));
    let later = a.call.poll_timeout().unwrap();
    a.timeout(later);
    assert_eq!(a.events.iter().filter(|event| *event == "dial callee").count(), 3);
    a.call_event(later, call::Event::Accepted);
    b.call_event(later, call::Event::Caller(id("ann")));
    assert_eq!((a.connection.opened, b.connection.opened), (1, 1), "nothing was negotiated");
    // Later negotiations use the new session.
    a.input(later, Input::Renew);
    settle(later, &mut a, &mut b);
    connect(later, &mut a, &mut b);
    assert!(a.is_stable() && b.is_stable());
}

#[test]
fn a_peer_that_is_gone_and_silent_has_hung_up() {
    let (now, mut a, _) = connected();
    a.input(now, Input::PeerGone);
    let soon = a.call.poll_timeout().unwrap();
    assert!(soon < now + QUIET);
    a.timeout(soon);
    assert_eq!(a.ended, Some(EndReason::PeerHungUp));
}

#[test]
fn another_caller_does_not_replace_the_peer() {
    let (now, _, mut b) = connected();
    b.input(now, Input::PeerGone);
    b.call_event(now, call::Event::Caller(id("eve")));
    let offer = Description { kind: SdpKind::Offer, sdp: sdp(&["video"], "actpass", 9) };
    b.input(now, Input::Peer(PeerMessage::Description(offer.clone())));
    assert!(b.results.is_empty(), "this offer belongs to another call");
    // The first report may count packets from before the second call.
    b.input(now + Duration::from_millis(400), Input::Heard(true));
    assert_eq!(last(&b), "connected");
    b.input(now + Duration::from_millis(900), Input::Heard(true));
    assert_eq!((last(&b), b.ended.as_ref()), ("busy", None));

    // The first call is over: the second one begins.
    let (now, _, mut b) = connected();
    b.input(now, Input::PeerGone);
    b.call_event(now, call::Event::Caller(id("eve")));
    b.input(now, Input::Peer(PeerMessage::Description(offer)));
    b.timeout(now + QUIET);
    assert_eq!(b.ended, Some(EndReason::PeerHungUp));
    let mut next = Side::new(b.call.next(now).expect("the call of the second caller"));
    next.pump();
    while next.result(now) {}
    assert_eq!(next.connection.local, Some(SdpKind::Answer));
}

#[test]
fn an_offer_that_the_connection_cannot_answer_is_answered_over_a_fresh_one() {
    let (now, mut a, mut b) = connected();
    let offer = b.connection.sdp("actpass", 7);
    let offer = PeerMessage::Description(Description { kind: SdpKind::Offer, sdp: offer });
    a.input(now, Input::Peer(offer));
    let (id, _) = a.results.pop_front().unwrap();
    a.input(now, Input::Result(id, Err("no".into())));
    assert_eq!((a.connection.opened, a.ended.as_ref()), (2, None));
    while a.result(now) {}
    assert_eq!(a.connection.local, Some(SdpKind::Answer));
    b.outbox.clear();
    a.input(now, Input::Connection(ConnectionState::Connected));
    assert_eq!(last(&a), "connected");
}

#[test]
fn a_side_whose_attempt_failed_accepts_the_attempt_of_the_peer() {
    let (now, mut a, mut b) = connected();
    b.input(now, Input::Renew);
    // Its media layer makes no offer.
    b.results.clear();
    let later = now + STEP;
    b.timeout(later);
    assert!(last(&b).contains("waiting for our offer to be made"));
    a.input(later, Input::Renew);
    settle(later, &mut a, &mut b);
    connect(later, &mut a, &mut b);
    assert_eq!((last(&a), last(&b)), ("connected", "connected"));
}

/// Tests that two polite sides, as in a call between two clients of roomtone, agree even if their messages always
/// cross.
#[test]
fn two_polite_sides_do_not_give_way_without_end() {
    let (now, mut a, mut b) = connected();
    a.input(now, Input::Negotiate);
    b.input(now, Input::Negotiate);
    settle(now, &mut a, &mut b);
    assert!(a.is_stable() && b.is_stable());
    assert_eq!((a.connection.opened, b.connection.opened), (1, 1));
}

#[test]
fn a_changed_network_shortens_the_permitted_silence() {
    let (now, mut a, _) = connected();
    a.input(now, Input::NetworkChanged);
    let soon = a.call.poll_timeout().unwrap();
    assert!(soon < now + QUIET);
    a.timeout(soon);
    assert_eq!(last(&a), "reconnecting");
}

#[test]
fn a_peer_that_offers_without_end_ends_the_call() {
    let (now, mut a, b) = connected();
    let offer = Description { kind: SdpKind::Offer, sdp: b.connection.sdp("actpass", 7) };
    for _ in 0..crate::session::negotiation::OFFERS.0 {
        assert_eq!(a.ended, None);
        a.input(now, Input::Peer(PeerMessage::Description(offer.clone())));
        while a.result(now) {}
    }
    assert_eq!((a.ended.as_ref(), a.connection.opened), (None, 1));
    a.input(now, Input::Peer(PeerMessage::Description(offer)));
    assert!(ended_by(a.ended.as_ref().unwrap()).contains("the peer sends too many"));
}

#[derive(Debug, Clone)]
enum Step {
    ResultA,
    ResultB,
    ToA,
    ToB,
    RenewA,
    RenewB,
    ReofferB,
    /// The server is lost with all messages under way.
    ServerGone,
    /// The server is back.
    ServerBack,
    /// Time passes, and timers fire.
    Time,
}

/// Two sides, their server and the network between their connections.
struct World {
    now: Instant,
    a: Side,
    b: Side,
    /// Numbers of the two connections that are connected with each other.
    connected: (usize, usize),
    has_server: bool,
}

impl World {
    /// Connects ICE and DTLS if both sides have each other's current connection.
    fn connect(&mut self) {
        let (a, b) = (&self.a.connection, &self.b.connection);
        let pair = (a.opened, b.opened);
        let agreed = a.theirs == b.ufrag() && b.theirs == a.ufrag() && !a.pending_offer && !b.pending_offer;
        let both = a.local.is_some() && b.local.is_some();
        if agreed && both && self.connected != pair {
            self.connected = pair;
            connect(self.now, &mut self.a, &mut self.b);
        }
    }

    fn time(&mut self, passes: Duration) {
        self.now += passes;
        if self.connected == (self.a.connection.opened, self.b.connection.opened) {
            self.a.input(self.now, Input::Heard(true));
            self.b.input(self.now, Input::Heard(true));
        }
        self.a.timeout(self.now);
        self.b.timeout(self.now);
    }

    fn step(&mut self, step: &Step) -> bool {
        let now = self.now;
        let moved = match step {
            Step::ResultA => self.a.result(now),
            Step::ResultB => self.b.result(now),
            Step::ToA => deliver(now, &mut self.b, &mut self.a),
            Step::ToB => deliver(now, &mut self.a, &mut self.b),
            Step::RenewA => {
                self.a.input(now, Input::Renew);
                true
            }
            Step::RenewB => {
                self.b.input(now, Input::Renew);
                true
            }
            Step::ReofferB => {
                self.b.input(now, Input::Peer(PeerMessage::OfferRequest));
                true
            }
            // During an exchange, a lost server may look like a peer that hung up.
            Step::ServerGone if self.connected != (self.a.connection.opened, self.b.connection.opened) => {
                false
            }
            Step::ServerGone => {
                self.has_server = false;
                self.a.outbox.clear();
                self.b.outbox.clear();
                self.a.input(now, Input::Reachable(false));
                self.b.input(now, Input::PeerGone);
                true
            }
            Step::ServerBack => {
                self.has_server = true;
                self.a.input(now, Input::Reachable(true));
                self.b.input(now, Input::Reachable(true));
                true
            }
            Step::Time => {
                self.time(Duration::from_millis(900));
                true
            }
        };
        if !self.has_server {
            self.a.outbox.clear();
            self.b.outbox.clear();
        }
        self.connect();
        moved
    }
}

proptest! {
    /// Tests that the call goes on, and that both sides end with the same connection, in any order of new paths,
    /// repeated offers, and lost, delayed or reordered messages.
    #[test]
    fn a_call_survives_any_loss_of_path_and_server(
        steps in prop::collection::vec(prop_oneof![
            5 => Just(Step::ResultA), 5 => Just(Step::ResultB), 5 => Just(Step::ToA), 5 => Just(Step::ToB),
            1 => Just(Step::RenewA), 1 => Just(Step::RenewB), 1 => Just(Step::ReofferB),
            1 => Just(Step::ServerGone), 1 => Just(Step::ServerBack), 2 => Just(Step::Time),
        ], 0..80)
    ) {
        let (now, mut a, mut b) = connected_for(Duration::from_secs(100_000));
        // In this test no peer hangs up, as one that left the server and is silent would have.
        a.input(now, Input::Heard(true));
        b.input(now, Input::Heard(true));
        let mut world = World { now, a, b, connected: (1, 1), has_server: true };
        for step in &steps {
            world.step(step);
        }
        world.step(&Step::ServerBack);
        let mut calm = 0;
        for _ in 0..400 {
            let all = [Step::ResultA, Step::ResultB, Step::ToA, Step::ToB];
            while all.iter().filter(|step| world.step(step)).count() > 0 {}
            let pair = (world.a.connection.opened, world.b.connection.opened);
            calm = if world.connected == pair { calm + 1 } else { 0 };
            if calm > 60 {
                break;
            }
            world.time(Duration::from_millis(900));
        }
        prop_assert!(calm > 60, "the exchange does not end");
        prop_assert!(world.a.is_stable() && world.b.is_stable());
        prop_assert_eq!((world.a.ended, world.b.ended), (None, None));
        for events in [&world.a.events, &world.b.events] {
            let state = events.iter().rfind(|event| *event == "connected" || *event == "reconnecting");
            prop_assert_eq!(state.map(String::as_str), Some("connected"));
        }
    }
}

/// Tests both orders of a broken path and another caller: in each, the server has no session of the old peer any
/// more.
#[test]
fn another_caller_is_accepted_at_once_while_the_path_is_broken() {
    for breaks_first in [true, false] {
        let (now, _, mut b) = connected();
        let breaks = Input::Connection(ConnectionState::Failed);
        if breaks_first {
            b.input(now, breaks.clone());
            assert_eq!((last(&b), &b.ended), ("reconnecting", &None));
            b.input(now, Input::PeerGone);
        }
        b.call_event(now, call::Event::Caller(id("bob")));
        if !breaks_first {
            assert_eq!(b.ended, None, "the media of the first call may go on");
            b.input(now, breaks);
        }
        assert_eq!(b.ended, Some(EndReason::Lost));
        let mut next = b.call.next(now).expect("the call of the second caller");
        assert_eq!(next.poll_output(), Some(Output::Caller(id("bob"))));
        assert_eq!(next.poll_output(), Some(Output::Connecting));
    }
}

/// Tests that the side that called repairs its path, and accepts no other caller meanwhile.
#[test]
fn a_side_that_called_accepts_no_other_caller_while_it_reconnects() {
    let (now, mut a, _) = connected();
    a.input(now, Input::Connection(ConnectionState::Failed));
    a.call_event(now, call::Event::Caller(id("bob")));
    assert_eq!(a.ended, None);
}
