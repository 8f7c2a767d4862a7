//! New paths to a peer that does not know roomtone, which keeps its `RTCPeerConnection` and its DTLS connection.

use super::browser::{Browser, Page, Signalling};
use super::*;
use crate::session::delivery;

struct Pair {
    now: Instant,
    native: Side,
    browser: Browser,
    /// User fragments of the transports that are connected.
    connected: (String, String),
}

impl Pair {
    /// Returns a connected call, in which our side makes new paths.
    fn connected(keeps_dtls: bool) -> Self {
        let page = Page { polite: true, keeps: true, keeps_dtls, brings: vec!["video"], first: 1 };
        let now = Instant::now();
        let native = Side::caller(now, false);
        let mut pair = Self { now, native, browser: Browser::new(page), connected: Default::default() };
        pair.native.call_event(now, call::Event::Accepted);
        pair.settle();
        assert!(pair.is_connected());
        pair
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            let mut moved = self.native.result(self.now) | self.browser.work(false);
            if let Some(message) = self.native.outbox.pop_front() {
                self.browser.receive(PeerMessage::parse(&message.to_string()).unwrap());
                moved = true;
            }
            if let Some(message) = self.browser.outbox.pop_front() {
                self.native.input(self.now, Input::Peer(PeerMessage::parse(&message.to_string()).unwrap()));
                moved = true;
            }
            self.connect();
            if !moved {
                return;
            }
        }
        panic!("the exchange does not end");
    }

    /// Lets media pass if both sides have each other's current transport.
    fn connect(&mut self) {
        let pair = (self.native.connection.ufrag(), self.browser.ufrag());
        let agreed = self.browser.theirs.as_ref() == Some(&pair.0)
            && self.native.connection.theirs == pair.1
            && self.browser.signalling == Signalling::Stable
            && self.native.is_stable();
        if agreed && !self.browser.failed && self.connected != pair {
            self.browser.connected = true;
            self.native.input(self.now, Input::Connection(ConnectionState::Connected));
            self.native.input(self.now, Input::Heard(true));
            self.connected = pair;
        }
    }

    fn is_connected(&self) -> bool {
        self.native.events.last().is_some_and(|event| event == "connected") && !self.browser.failed
    }
}

#[test]
fn a_peer_that_does_not_run_roomtone_gets_an_ice_restart() {
    let mut pair = Pair::connected(true);
    let before = pair.connected.clone();
    pair.native.input(pair.now, Input::Renew);
    pair.settle();
    assert!(!pair.browser.failed, "it refuses another DTLS connection");
    assert_eq!(pair.native.connection.opened, 1, "the connection stays");
    assert!(pair.connected.0 != before.0 && pair.connected.1 != before.1, "each side has new credentials");
    assert!(pair.is_connected());
}

impl Pair {
    /// Lets both sides agree on an ICE restart that finds no path.
    fn agree_in_vain(&mut self) {
        while self.native.result(self.now) {}
        let offer = self.native.outbox.pop_front().unwrap();
        self.browser.receive(PeerMessage::parse(&offer.to_string()).unwrap());
        let answer = self.browser.outbox.pop_front().unwrap();
        self.native.input(self.now, Input::Peer(PeerMessage::parse(&answer.to_string()).unwrap()));
        while self.native.result(self.now) {}
        assert_eq!(self.native.events.last().unwrap(), "reconnecting");
    }

    /// Lets time pass; checks that our side makes no offer and opens no connection before the end.
    fn pass(&mut self, time: Duration) {
        let (opened, offers) = (self.native.connection.opened, self.native.connection.offers);
        self.now += time - Duration::from_millis(1);
        self.native.timeout(self.now);
        assert_eq!((self.native.connection.opened, self.native.connection.offers), (opened, offers));
        self.now += Duration::from_millis(1);
        self.native.timeout(self.now);
    }
}

#[test]
fn an_ice_restart_that_is_not_answered_is_followed_by_a_fresh_connection() {
    let mut pair = Pair::connected(false);
    pair.native.input(pair.now, Input::Renew);
    while pair.native.result(pair.now) {}
    pair.native.outbox.clear();
    pair.pass(crate::session::link::RESTART);
    assert_eq!(pair.native.connection.opened, 2);
    pair.settle();
    assert!(pair.is_connected(), "{:?}", pair.native.events);
}

#[test]
fn ice_restarts_without_a_path_are_followed_by_a_fresh_connection() {
    let mut pair = Pair::connected(false);
    pair.native.input(pair.now, Input::Renew);
    for restart in 1..=crate::session::link::RESTARTS as usize {
        assert_eq!((pair.native.connection.opened, pair.native.connection.restarts), (1, restart));
        pair.agree_in_vain();
        pair.pass(crate::session::link::RESTARTED);
    }
    assert_eq!(pair.native.connection.opened, 2);
    pair.settle();
    assert!(pair.is_connected(), "{:?}", pair.native.events);
}

/// Tests that a restart ends with its own path, with or without media, and not with packets over the path before.
#[test]
fn an_ice_restart_ends_when_ice_has_a_path() {
    let mut pair = Pair::connected(true);
    pair.native.input(pair.now, Input::Renew);
    pair.agree_in_vain();
    pair.native.input(pair.now, Input::Heard(true));
    assert_eq!(pair.native.events.last().unwrap(), "reconnecting");
    pair.native.input(pair.now, Input::Connection(ConnectionState::Connected));
    assert!(pair.is_connected());
    assert_eq!(pair.native.connection.opened, 1);
}

impl Pair {
    /// Lets packets of the peer arrive for the time of a restart in vain.
    fn hear_in_vain(&mut self) {
        let end = self.now + crate::session::link::RESTARTED;
        while self.now < end {
            self.native.input(self.now, Input::Heard(true));
            self.now += Duration::from_millis(500);
            self.native.timeout(self.now);
        }
    }

    /// Lets the peer report for ten seconds that nothing of our side arrives.
    fn report_nothing(&mut self) {
        for second in 0..=10 {
            let report = delivery::Report { sent: 100 * second, reports: second, progress: second.min(1) };
            self.native.input(self.now, Input::Heard(true));
            self.native.input(self.now, Input::Report(report));
            self.now += Duration::from_secs(1);
        }
    }
}

/// Tests that a renewal in vain costs nothing while the path before still works.
#[test]
fn a_path_that_works_is_kept_if_the_restart_finds_no_other() {
    let mut pair = Pair::connected(true);
    pair.native.input(pair.now, Input::Renew);
    pair.agree_in_vain();
    pair.hear_in_vain();
    assert!(pair.native.events.iter().any(|event| event.contains("still works")), "{:?}", pair.native.events);
    assert!(pair.is_connected());
    assert_eq!((pair.native.connection.opened, pair.native.connection.restarts), (1, 1));
}

/// Tests that packets of the peer do not keep a path on which ours get lost.
#[test]
fn a_path_that_is_dead_in_our_direction_is_not_kept() {
    let mut pair = Pair::connected(false);
    pair.report_nothing();
    assert_eq!(pair.native.events.last().unwrap(), "reconnecting");
    while pair.native.connection.restarts == 0 {
        pair.now = pair.native.call.poll_timeout().unwrap();
        pair.native.timeout(pair.now);
    }
    for restart in 1..=crate::session::link::RESTARTS as usize {
        assert_eq!((pair.native.connection.opened, pair.native.connection.restarts), (1, restart));
        pair.agree_in_vain();
        pair.hear_in_vain();
    }
    assert_eq!(pair.native.connection.opened, 2, "{:?}", pair.native.events);
}

/// Tests the restart after a change of the local network, which gathers candidates on the new addresses.
#[test]
fn a_changed_network_leads_to_an_ice_restart() {
    let mut pair = Pair::connected(true);
    pair.native.input(pair.now, Input::NetworkChanged);
    for _ in ["the path breaks", "a new one is made"] {
        pair.now = pair.native.call.poll_timeout().unwrap();
        pair.native.timeout(pair.now);
        assert_eq!(pair.native.events.last().unwrap(), "reconnecting");
    }
    pair.settle();
    assert_eq!((pair.native.connection.opened, pair.native.connection.restarts), (1, 1));
    assert!(pair.is_connected());
}

/// Tests a network that changes while the descriptions of a restart are under way: the addresses in them are gone.
#[test]
fn a_network_that_changes_during_an_ice_restart_leads_to_another_one() {
    let mut pair = Pair::connected(true);
    pair.native.input(pair.now, Input::Renew);
    while pair.native.result(pair.now) {}
    pair.native.input(pair.now, Input::NetworkChanged);
    pair.native.timeout(pair.now);
    assert_eq!((pair.native.connection.opened, pair.native.connection.restarts), (1, 1));
    pair.settle();
    assert_eq!((pair.native.connection.opened, pair.native.connection.restarts), (1, 2));
    assert!(pair.is_connected());
}

/// Tests that both sides can restart ICE in any order and number, and keep the connection.
#[test]
fn ice_restarts_of_both_sides_keep_the_connection() {
    let mut pair = Pair::connected(true);
    for restarts_of_peer in [true, false, true, true, false] {
        if restarts_of_peer {
            pair.browser.want_offer();
            assert!(pair.browser.work(true));
        } else {
            pair.native.input(pair.now, Input::Renew);
        }
        let before = pair.connected.clone();
        pair.settle();
        assert!(
            pair.connected.0 != before.0 && pair.connected.1 != before.1,
            "each side has new credentials"
        );
        assert_eq!(pair.native.connection.opened, 1);
        assert!(pair.is_connected());
    }
}
