//! A peer that answers one offer on each connection, as endpoints of WHIP and WHEP do.

use super::*;

fn with_media_server() -> (Instant, Side, Side) {
    let now = Instant::now();
    let ours = Terms { single_exchange: true, reconnects_first: true, ..terms() };
    let mut client = Side::new(Call::dial(now, id("server"), false, ours));
    let mut server = Side::callee();
    client.call_event(now, call::Event::Accepted);
    server.call_event(now, call::Event::Caller(id("client")));
    while client.result(now) {}
    (now, client, server)
}

fn connect(now: Instant, client: &mut Side, server: &mut Side) {
    settle(now, client, server);
    client.input(now, Input::Connection(ConnectionState::Connected));
    client.input(now, Input::Heard(true));
    assert_eq!(client.events.last().unwrap(), "connected");
}

#[test]
fn the_offer_is_applied_with_its_answer() {
    let (now, mut client, mut server) = with_media_server();
    assert_eq!((client.connection.offers, client.connection.local), (1, None));
    assert_eq!(client.outbox.len(), 1);
    connect(now, &mut client, &mut server);
    assert_eq!(client.connection.local, Some(SdpKind::Offer));
    assert_eq!(client.connection.remote, Some(SdpKind::Answer));
    client.input(now, Input::Negotiate);
    assert!(client.outbox.is_empty() && client.is_stable(), "no later offers");
}

#[test]
fn a_broken_path_and_a_server_that_closes_take_a_fresh_connection() {
    for event in [ConnectionState::Failed, ConnectionState::Closed] {
        let (now, mut client, mut server) = with_media_server();
        connect(now, &mut client, &mut server);
        client.input(now, Input::Connection(event));
        assert_eq!(client.events.last().unwrap(), "reconnecting");
        client.timeout(now);
        while client.result(now) {}
        assert_eq!((client.connection.opened, client.connection.local), (2, None), "{event:?}");
        let PeerMessage::Description(offer) = &client.outbox[0] else { panic!("{:?}", client.outbox) };
        assert!(offer.kind == SdpKind::Offer && offer.sdp.contains("ufrag2"));
        connect(now, &mut client, &mut server);
        assert_eq!(client.ended, None);
    }
}

#[test]
fn a_server_that_closes_before_the_path_is_found_ends_the_call() {
    let (now, mut client, mut server) = with_media_server();
    settle(now, &mut client, &mut server);
    client.input(now, Input::Connection(ConnectionState::Closed));
    assert_eq!(client.ended, Some(EndReason::PeerHungUp));
}

#[test]
fn a_session_whose_media_ends_while_reports_go_on_is_replaced_once() {
    use crate::session::link::STALLED;
    let (mut now, mut client, mut server) = with_media_server();
    connect(now, &mut client, &mut server);
    let begin = now;
    while now < begin + STALLED - Duration::from_secs(1) {
        now += Duration::from_secs(1);
        client.input(now, Input::Heard(false));
        client.timeout(now);
        assert_eq!(client.events.last().unwrap(), "connected");
    }
    now += Duration::from_secs(1);
    client.input(now, Input::Heard(false));
    client.timeout(now);
    assert_eq!(client.events.last().unwrap(), "reconnecting");
    client.timeout(now);
    settle(now, &mut client, &mut server);
    assert_eq!(client.connection.opened, 2);
    // A session in which no media has arrived yet is kept.
    client.input(now, Input::Connection(ConnectionState::Connected));
    for _ in 0..20 {
        now += Duration::from_secs(1);
        client.input(now, Input::Heard(false));
        client.timeout(now);
    }
    assert_eq!(client.events.last().unwrap(), "connected");
}
