//! Rules for accepting calls, and the time that a call rings.

use super::*;
use crate::session::call::ASK;

fn asked(admission: Admission) -> (Instant, Side, Side) {
    let now = Instant::now();
    let mut caller = Side::caller(now, false);
    let mut callee = Side::new(Call::answer(terms(), admission));
    caller.call_event(now, call::Event::Accepted);
    callee.call_event(now, call::Event::Caller(id("ann")));
    caller.result(now);
    (now, caller, callee)
}

#[test]
fn a_call_begins_once_our_side_has_accepted_it() {
    let (now, mut caller, mut callee) = asked(Admission { allowed: None, ask: true });
    while deliver(now, &mut caller, &mut callee) {}
    assert_eq!(
        (callee.events.as_slice(), callee.connection.opened),
        (&["caller ann".to_owned(), "ask".into()][..], 0)
    );
    assert!(
        callee.outbox.is_empty() && callee.results.is_empty(),
        "the callee sends and opens nothing before the decision"
    );
    callee.call_event(now, call::Event::Decision(true));
    settle(now, &mut caller, &mut callee);
    assert_eq!(
        (callee.connection.remote, callee.connection.local),
        (Some(SdpKind::Offer), Some(SdpKind::Answer))
    );
    assert!(caller.is_stable() && caller.ended.is_none());
}

#[test]
fn a_declined_caller_gets_the_reason() {
    let only_bob = Admission { allowed: Some(vec![id("bob")]), ask: true };
    let asking = Admission { allowed: None, ask: true };
    for (admission, decision, reason) in [
        (only_bob.clone(), None, "only chosen peers may call here"),
        (asking.clone(), Some(false), "the call was declined"),
        (asking, None, "nobody took the call"),
    ] {
        let (now, mut caller, mut callee) = asked(admission);
        match decision {
            Some(accepts) => callee.call_event(now, call::Event::Decision(accepts)),
            None if reason.starts_with("nobody") => callee.timeout(now + ASK),
            None => {}
        }
        settle(now, &mut caller, &mut callee);
        assert_eq!(callee.connection.opened, 0);
        assert_eq!(callee.ended, Some(EndReason::NotTaken(reason.into())));
        assert_eq!(caller.ended, Some(EndReason::Declined(reason.into())));
    }
    // The server does not name the caller, so the caller is not known to be allowed.
    let mut callee = Side::new(Call::answer(terms(), only_bob));
    let now = Instant::now();
    callee.input(now, Input::Peer(PeerMessage::OfferRequest));
    assert_eq!(callee.ended, Some(EndReason::NotTaken("only chosen peers may call here".into())));
}

#[test]
fn a_peer_that_asks_a_person_gets_more_time() {
    let ring = Duration::from_secs(45);
    let now = Instant::now();
    for request_offer in [false, true] {
        let terms = Terms { ring, ..terms() };
        let mut caller = Side::new(Call::dial(now, id("callee"), request_offer, terms));
        caller.call_event(now, call::Event::Accepted);
        while caller.result(now) {}
        caller.timeout(now + STEP);
        assert_eq!(caller.ended, None);
        caller.timeout(now + ring);
        assert!(ended_by(caller.ended.as_ref().unwrap()).ends_with("nothing came for 45 s"));
    }
}
