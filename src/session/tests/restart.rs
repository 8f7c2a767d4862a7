//! Paths renewed with a peer that does not know roomtone: it keeps its `RTCPeerConnection` and the DTLS connection.

use super::browser::{Browser, Page, Signalling};
use super::*;

struct Pair {
    now: Instant,
    native: Side,
    browser: Browser,
    /// Transports over which ICE and DTLS are known to stand.
    connected: (String, String),
}

impl Pair {
    /// A call that stands, in which the native side renews paths.
    fn connected(keeps_dtls: bool) -> Self {
        let page = Page { polite: true, keeps: true, keeps_dtls, brings: vec!["video"], first: 1 };
        let now = Instant::now();
        let native = Side::caller(now, false);
        let mut pair = Self { now, native, browser: Browser::new(page), connected: Default::default() };
        pair.native.call_input(now, CallInput::Accepted);
        pair.settle();
        assert!(pair.is_connected());
        pair
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            let mut moved = self.native.result(self.now) | self.browser.work(false);
            if let Some(message) = self.native.outbox.pop_front() {
                self.browser.hear(PeerMessage::parse(&message.to_string()).unwrap());
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
        panic!("they never come to rest");
    }

    /// Lets media pass where both sides mean each other's transports.
    fn connect(&mut self) {
        let pair = (self.native.connection.ufrag(), self.browser.ufrag());
        let agreed = self.browser.theirs.as_ref() == Some(&pair.0)
            && self.native.connection.theirs == pair.1
            && self.browser.signalling == Signalling::Stable
            && self.native.is_stable();
        if agreed && !self.browser.failed && self.connected != pair {
            if !std::mem::replace(&mut self.browser.connected, true) {
                self.native.input(self.now, Input::Connection(ConnectionState::Connected));
            }
            self.native.input(self.now, Input::Heard(true));
            self.connected = pair;
        }
    }

    fn is_connected(&self) -> bool {
        self.native.events.last().is_some_and(|event| event == "connected") && !self.browser.failed
    }
}

#[test]
fn a_peer_of_another_make_gets_an_ice_restart() {
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
    /// Both sides agree on an ICE restart, and nothing comes.
    fn agree_in_vain(&mut self) {
        while self.native.result(self.now) {}
        let offer = self.native.outbox.pop_front().unwrap();
        self.browser.hear(PeerMessage::parse(&offer.to_string()).unwrap());
        let answer = self.browser.outbox.pop_front().unwrap();
        self.native.input(self.now, Input::Peer(PeerMessage::parse(&answer.to_string()).unwrap()));
        while self.native.result(self.now) {}
        assert_eq!(self.native.events.last().unwrap(), "reconnecting");
    }

    /// Lets time pass, at whose end the native side does something.
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

/// A restart finds the path without media: data channels may be silent.
#[test]
fn an_ice_restart_ends_when_ice_has_a_path_or_media_comes() {
    for sign in [Input::Connection(ConnectionState::Connected), Input::Heard(true)] {
        let mut pair = Pair::connected(true);
        pair.native.input(pair.now, Input::Renew);
        pair.agree_in_vain();
        pair.native.input(pair.now, sign);
        assert!(pair.is_connected());
        assert_eq!(pair.native.connection.opened, 1);
    }
}

/// A restart gathers the addresses of the network that is there now.
#[test]
fn a_changed_network_takes_an_ice_restart() {
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

/// Both sides restart ICE in turn, as often as they like, and the connection stays.
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
