//! The end of sessions, and of the client.

use super::*;

/// Returns the run of a publisher whose session is up, with these header fields besides `Location`.
fn up(headers: &[(&str, &str)]) -> Run {
    let mut run = run_of(Role::Publisher);
    let (id, _) = post(&mut run);
    reply(&mut run, id, created(headers));
    run
}

/// Checks that the events are one warning with these words.
fn assert_warns(events: &[Event], words: &str) {
    assert!(matches!(events, [Event::Warning(text)] if text.contains(words)), "{words}: {events:?}");
}

#[test]
fn a_request_that_hangs_at_the_end_of_a_session_delays_the_next_by_two_seconds() {
    let mut run = run_of(Role::Publisher);
    let (id, _) = post(&mut run);
    reply(&mut run, id, created(&[]));
    assert_eq!(post(&mut run).1.method, "DELETE");
    assert!(run.pass(Duration::from_millis(1999)).requests.is_empty());
    assert_eq!(run.pass(Duration::from_millis(1)).requests[0].1.method, "POST");
}

#[test]
fn a_session_that_begins_too_late_is_ended() {
    let mut run = run_of(Role::Publisher);
    let (first, _) = post(&mut run);
    let (second, _) = post(&mut run);
    let (_, request) = reply(&mut run, first, created(&[])).requests.remove(0);
    assert_eq!((request.method, request.url.as_str()), ("DELETE", SESSION));
    assert!(run.give(In::Close).requests.is_empty(), "there is no session yet");
    let outs = reply(&mut run, second, created(&[]));
    assert_eq!((outs.requests[0].1.method, outs.events.len()), ("DELETE", 0));
    // An answer that cannot be used has begun a session, too.
    let mut run = run_of(Role::Publisher);
    let (id, _) = post(&mut run);
    let outs = reply(&mut run, id, response(201, &[("location", "/session/7")], "junk"));
    assert_eq!(outs.requests[0].1.url.as_str(), SESSION);
}

#[test]
fn a_session_that_is_not_ended_is_reported() {
    for (result, words) in [
        (response(200, &[], ""), None),
        (response(204, &[], ""), None),
        (response(404, &[], ""), None),
        (response(410, &[], ""), None),
        (
            response(405, &[], ""),
            Some("could not be ended, and may go on there: it answered 405 Method Not Allowed"),
        ),
        (response(403, &[], ""), Some("it answered 403 Forbidden")),
        (Err(ConnectError::Broken("reset".into())), Some("the connection to the server broke: reset")),
    ] {
        for closes in [false, true] {
            let mut run = up(&[]);
            let mut outs = if closes { run.give(In::Close) } else { run.give(offer()) };
            let (id, request) = outs.requests.remove(0);
            assert_eq!(request.method, "DELETE");
            let outs = reply(&mut run, id, result.clone());
            match words {
                Some(words) => assert_warns(&outs.events, words),
                None => assert_eq!(outs.events, []),
            }
            assert!(
                !format!("{:?}", outs.events).contains("session/7"),
                "the URL is enough to end the session"
            );
            assert_eq!(outs.requests.len(), usize::from(!closes), "the next offer");
        }
    }
    // At another origin the lack of the token is a likely cause.
    let mut run = run_of(Role::Publisher);
    let (id, _) = post(&mut run);
    let fields = [("location", "https://b/7")];
    reply(&mut run, id, response(201, &fields, &description(["0", "1"], "passive")));
    let (id, _) = run.give(In::Close).requests.remove(0);
    let outs = reply(&mut run, id, response(401, &[], ""));
    assert_warns(&outs.events, "401 Unauthorized; the token was not sent to https://b");
}

#[test]
fn the_client_waits_for_the_end_of_its_session_but_not_for_candidates() {
    let mut run = up(&[("etag", "*")]);
    let (patch, _) = run.give(candidate(1)).requests.remove(0);
    let outs = run.give(In::Close);
    assert_eq!((outs.requests[0].1.method, outs.abandoned), ("DELETE", vec![patch]));
    let delete = outs.requests[0].0;
    assert!(run.pass(Duration::from_millis(1999)).abandoned.is_empty());
    let outs = run.pass(Duration::from_millis(1));
    assert_eq!(outs.abandoned, [delete]);
    assert_warns(&outs.events, "no response came in time");
    assert_eq!(run.signaller.poll_timeout(), None);
}

#[test]
fn an_offer_that_is_pending_at_the_end_has_five_seconds_and_its_session_two_more() {
    let mut run = run_of(Role::Publisher);
    let (id, _) = post(&mut run);
    assert!(run.give(In::Close).requests.is_empty());
    assert!(run.pass(Duration::from_millis(4999)).abandoned.is_empty());
    let (delete, request) = reply(&mut run, id, created(&[])).requests.remove(0);
    assert_eq!((request.method, request.url.as_str()), ("DELETE", SESSION));
    assert!(run.pass(Duration::from_millis(1999)).abandoned.is_empty());
    assert_eq!(reply(&mut run, delete, response(200, &[], "")).events, []);
    assert_eq!(run.signaller.poll_timeout(), None);
    // A server that takes longer keeps the session, which is reported.
    let mut run = run_of(Role::Publisher);
    let (id, _) = post(&mut run);
    run.give(In::Close);
    let outs = run.pass(Duration::from_secs(5));
    assert_eq!(outs.abandoned, [id]);
    assert_warns(&outs.events, "a session at http://h:1 could not be ended, and may go on there");
    assert_eq!(run.signaller.poll_timeout(), None);
}

#[test]
fn the_wrapper_for_all_protocols_passes_on_what_was_not_ended() {
    let target = Target::parse_stream(URL, Role::Publisher, Trust::System).unwrap();
    let mut run = Run::new(Persistent::new(&target, ann(false), || 0.0));
    run.give(In::Register);
    let (id, _) = post(&mut run);
    reply(&mut run, id, created(&[("etag", "*")]));
    let (patch, _) = run.give(candidate(1)).requests.remove(0);
    let outs = run.give(In::Close);
    assert_eq!(outs.abandoned, [patch]);
    assert_warns(
        &reply(&mut run, outs.requests[0].0, response(500, &[], "")).events,
        "500 Internal Server Error",
    );
}
