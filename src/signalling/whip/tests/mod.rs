//! The back end on virtual time, against an endpoint that the test plays.

mod ending;
mod origins;

use proptest::prelude::*;

use super::offer::tests::description;
use super::*;
use crate::protocol::{Candidate, Secret};
use crate::signalling::persistent::Persistent;
use crate::signalling::testing::{Outs, Run, ann};
use crate::tls::Trust;

const URL: &str = "http://h:1/live/whip?key=secret";
const SESSION: &str = "http://h:1/session/7";

fn machine(role: Role, url: &str, token: Option<&str>) -> Whip {
    let target = Target::parse_stream(url, role, Trust::System).unwrap();
    Whip::new(&target.token(token.map(|token| Secret(token.to_owned()))), role, || 0.0)
}

fn run_of(role: Role) -> Run {
    Run::new(machine(role, URL, Some("T")))
}

fn message(message: PeerMessage) -> In {
    In::Send { to: None, message }
}

fn offer() -> In {
    let sdp = description(["video0", "audio1"], "actpass");
    message(PeerMessage::Description(Description { kind: SdpKind::Offer, sdp }))
}

fn candidate(number: u32) -> In {
    let candidate = format!("candidate:{number} 1 UDP 1 192.0.2.1 9 typ host");
    message(PeerMessage::Candidate(Candidate { candidate, ..Candidate::default() }))
}

fn response(status: u16, headers: &[(&str, &str)], body: &str) -> Result<Response, ConnectError> {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Ok(Response { status, headers, body: body.as_bytes().to_vec(), server: None })
}

/// Returns the response that accepts an offer, with these header fields besides `Location`.
fn created(headers: &[(&str, &str)]) -> Result<Response, ConnectError> {
    let fields = [&[("content-type", "application/sdp"), ("location", "/session/7")], headers].concat();
    response(201, &fields, &description(["0", "1"], "passive"))
}

/// Gives the response to the latest request.
fn reply(run: &mut Run, id: RequestId, result: Result<Response, ConnectError>) -> Outs {
    run.give(In::Response(id, result))
}

/// Sends an offer; returns the request.
fn post(run: &mut Run) -> (RequestId, Request) {
    let mut outs = run.give(offer());
    assert_eq!(outs.requests.len(), 1);
    outs.requests.remove(0)
}

fn field<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    header(&request.headers, name)
}

/// Returns whether the events are those of an answer without STUN and TURN servers.
fn is_answer(events: &[Event]) -> bool {
    matches!(events, [Event::IceServers(servers), Event::Peer(PeerMessage::Description(_))] if servers.is_empty())
}

/// Returns what follows the response to a first offer: the error that ends the client.
fn ends(role: Role, result: Result<Response, ConnectError>) -> ConnectError {
    let mut run = run_of(role);
    let (id, _) = post(&mut run);
    let mut outs = reply(&mut run, id, result);
    assert_eq!(run.signaller.poll_timeout(), None);
    match outs.events.pop() {
        Some(Event::Ended(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_offer_is_posted_and_its_answer_comes_after_the_servers() {
    let mut run = run_of(Role::Publisher);
    assert_eq!(run.give(In::Register).events[0], Event::Registered);
    assert_eq!(run.give(In::Call("h".parse().unwrap())).events, [Event::Accepted]);
    let (id, request) = post(&mut run);
    assert_eq!((request.method, request.url.as_str()), ("POST", URL));
    assert_eq!(field(&request, "content-type"), Some("application/sdp"));
    assert_eq!(field(&request, "authorization"), Some("Bearer T"));
    assert!(String::from_utf8(request.body).unwrap().contains("a=mid:1\r\n"));
    let link = "<turn:turn.example.net>; rel=\"ice-server\"; username=\"u\"; credential=\"c\"";
    let outs = reply(
        &mut run,
        id,
        created(&[("link", link), ("link", "junk"), ("link", "<stun:s>;rel=ice-server")]),
    );
    let [Event::IceServers(servers), Event::Peer(PeerMessage::Description(answer))] = &outs.events[..] else {
        panic!("{:?}", outs.events)
    };
    assert_eq!(servers.len(), 2);
    assert_eq!(answer.kind, SdpKind::Answer);
    assert!(answer.sdp.contains("a=mid:video0\r\n") && answer.sdp.contains("a=mid:audio1\r\n"));
    // The end of the client ends the session.
    let (_, request) = run.give(In::Close).requests.remove(0);
    assert_eq!((request.method, request.url.as_str()), ("DELETE", SESSION));
    assert_eq!(field(&request, "authorization"), Some("Bearer T"));
    assert!(run.give(offer()).requests.is_empty(), "after the end");
}

#[test]
fn an_answer_without_servers_replaces_those_of_an_earlier_session() {
    let mut run = run_of(Role::Publisher);
    let (id, _) = post(&mut run);
    let outs = reply(&mut run, id, created(&[("link", "<stun:192.0.2.1>; rel=\"ice-server\"")]));
    assert!(matches!(&outs.events[0], Event::IceServers(servers) if servers.len() == 1));
    let (delete, _) = post(&mut run);
    let id = reply(&mut run, delete, response(200, &[], "")).requests[0].0;
    assert!(is_answer(&reply(&mut run, id, created(&[])).events));
}

#[test]
fn candidates_trickle_in_one_request_at_a_time_where_the_server_offers_it() {
    let up = |headers: &[(&str, &str)]| {
        let mut run = run_of(Role::Publisher);
        let (id, _) = post(&mut run);
        reply(&mut run, id, created(headers));
        run
    };
    // Without an entity tag and `Accept-Patch` a PATCH may begin another session.
    assert!(up(&[]).give(candidate(1)).requests.is_empty());
    assert!(up(&[("accept-patch", "text/plain")]).give(candidate(1)).requests.is_empty());
    let (_, request) =
        up(&[("accept-patch", "application/trickle-ice-sdpfrag")]).give(candidate(1)).requests.remove(0);
    assert_eq!(field(&request, "if-match"), None);

    let mut run = up(&[("etag", "EsAw")]);
    let (first, request) = run.give(candidate(1)).requests.remove(0);
    assert_eq!((request.method, request.url.as_str()), ("PATCH", SESSION));
    assert_eq!(field(&request, "content-type"), Some("application/trickle-ice-sdpfrag"));
    assert_eq!(
        (field(&request, "if-match"), field(&request, "authorization")),
        (Some("EsAw"), Some("Bearer T"))
    );
    let has = |request: &Request, number: u32| {
        String::from_utf8_lossy(&request.body).contains(&format!("a=candidate:{number} "))
    };
    assert!(has(&request, 1));
    assert!(run.give(candidate(2)).requests.is_empty() && run.give(candidate(3)).requests.is_empty());
    let theirs = "a=mid:0\r\na=candidate:9 1 UDP 1 192.0.2.9 9 typ host\r\n";
    let fields = [("etag", "\"2\""), ("content-type", "application/trickle-ice-sdpfrag")];
    let mut outs = reply(&mut run, first, response(200, &fields, theirs));
    assert!(matches!(&outs.events[..], [Event::Peer(PeerMessage::Candidate(_))]), "{:?}", outs.events);
    let (second, request) = outs.requests.remove(0);
    assert!(has(&request, 2) && has(&request, 3) && !has(&request, 1));
    assert_eq!(field(&request, "if-match"), Some("\"2\""));
    // A refusal ends trickling, and nothing else.
    let outs = reply(&mut run, second, response(405, &[], ""));
    assert!(outs.events.is_empty() && run.give(candidate(4)).requests.is_empty());
}

#[test]
fn a_request_with_candidates_that_hangs_is_given_up() {
    let mut run = run_of(Role::Publisher);
    let (id, _) = post(&mut run);
    reply(&mut run, id, created(&[("etag", "*")]));
    assert_eq!(run.give(candidate(1)).requests.len(), 1);
    let outs = run.pass(Duration::from_secs(3));
    assert_eq!(outs.abandoned.len(), 1);
    assert!(outs.events.is_empty() && run.give(candidate(2)).requests.is_empty());
    assert_eq!(run.signaller.poll_timeout(), None);
    assert_eq!(run.give(In::Close).requests.len(), 1);
}

#[test]
fn the_first_failure_ends_with_its_cause_and_what_to_do() {
    let page = "<html>hello</html>";
    let html = [("content-type", "text/html")];
    for (result, words) in [
        (response(200, &html, page), "sent a page: is this the URL of the endpoint"),
        (response(200, &[], ""), "no SDP: it does not begin with v=0"),
        (response(201, &[("content-encoding", "gzip")], "\u{1f}"), "its body is encoded (gzip)"),
        (response(201, &[], &description(["0", "1"], "actpass")), "an offer in place of an answer"),
        (response(204, &[], ""), "204 No Content: this is no answer to an offer"),
        (response(302, &[("location", "/x")], ""), "302 Found: use the URL that it redirects to"),
        (response(307, &[], ""), "307 Temporary Redirect without a URL that may be used"),
        (response(404, &html, page), "404 Not Found: there is no endpoint at this path"),
        (response(405, &[], ""), "405 Method Not Allowed: it takes no offers at this path"),
        (
            response(406, &[("content-type", "text/plain")], "only AV2"),
            "406 Not Acceptable (only AV2): it supports",
        ),
        (response(415, &[], ""), "415 Unsupported Media Type: it does not read SDP"),
        (response(422, &[], r#"{"error":"no audio"}"#), "422 Unprocessable Content (no audio)"),
        (response(401, &[], ""), "it requires a token, or another one"),
        (response(403, &[], ""), "the token does not permit this"),
        (response(503, &[], ""), "503 Service Unavailable: it is overloaded or restarting"),
        (response(429, &[], ""), "429 Too Many Requests: it gets too many requests"),
    ] {
        let error = ends(Role::Publisher, result);
        let text = error.to_string();
        assert!(text.contains(words), "{text}");
        assert!(text.contains("h:1/live/whip") && !text.contains("secret"), "{text}");
    }
    let denied =
        ends(Role::Player, response(401, &[("www-authenticate", "Bearer error=\"invalid_token\"")], ""));
    assert!(matches!(denied, ConnectError::TokenEnded(..)), "{denied:?}");
    let unreachable = ConnectError::Unreachable("h".into(), "refused".into());
    assert_eq!(ends(Role::Player, Err(unreachable.clone())), unreachable);
}

#[test]
fn a_player_waits_for_its_publisher_and_a_publisher_for_its_place() {
    for (role, status, words) in [
        (Role::Player, 404, "nobody publishes there yet, or the path is wrong (404 Not Found)"),
        (Role::Player, 409, "nobody publishes there yet (409 Conflict)"),
        (Role::Publisher, 409, "somebody publishes there already"),
    ] {
        let mut run = run_of(role);
        let (mut id, request) = post(&mut run);
        let mut outs = reply(&mut run, id, response(status, &[], ""));
        assert!(
            matches!(&outs.events[..], [Event::Warning(text)] if text.contains(words)),
            "{:?}",
            outs.events
        );
        for pause in [500, 1000, 2000, 4000, 8000, 15_000, 15_000] {
            assert!(run.pass(Duration::from_millis(pause - 1)).requests.is_empty());
            outs = run.pass(Duration::from_millis(1));
            let (next, again) = outs.requests.remove(0);
            assert_eq!(again, request, "the same offer");
            id = next;
            assert!(reply(&mut run, id, response(status, &[], "")).events.is_empty(), "said once");
        }
        // The server is the right one: that it is not reached now does not end the client.
        run.pass(Duration::from_secs(15));
        let outs = reply(&mut run, RequestId(id.0 + 1), Err(ConnectError::Broken("reset".into())));
        assert!(matches!(&outs.events[..], [Event::Warning(_)]), "{:?}", outs.events);
        let (id, _) = run.pass(Duration::from_secs(15)).requests.remove(0);
        assert!(is_answer(&reply(&mut run, id, created(&[])).events));
    }
}

#[test]
fn a_lost_session_is_ended_before_the_next_and_retried_without_end() {
    let mut run = run_of(Role::Publisher);
    let (id, _) = post(&mut run);
    reply(&mut run, id, created(&[]));
    run.pass(Duration::from_secs(60));
    let (delete, request) = post(&mut run);
    assert_eq!((request.method, request.url.as_str()), ("DELETE", SESSION));
    let (id, request) = reply(&mut run, delete, response(404, &[], "")).requests.remove(0);
    assert_eq!(request.method, "POST");
    let busy = response(503, &[("retry-after", "20")], "");
    let outs = reply(&mut run, id, busy);
    assert!(matches!(&outs.events[..], [Event::Warning(text)] if text.contains("503")), "{:?}", outs.events);
    assert!(run.pass(Duration::from_millis(20_499)).requests.is_empty());
    let (id, _) = run.pass(Duration::from_millis(1)).requests.remove(0);
    let dates = [("date", "Sun, 06 Nov 1994 08:49:00 GMT"), ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")];
    reply(&mut run, id, response(429, &dates, ""));
    assert!(run.pass(Duration::from_secs(37)).requests.is_empty());
    let (id, _) = run.pass(Duration::from_secs(2)).requests.remove(0);
    reply(&mut run, id, response(401, &[], ""));
    let (id, _) = run.pass(Duration::from_secs(5)).requests.remove(0);
    // A token that ended does end the client.
    let ended = response(401, &[("www-authenticate", "Bearer error=\"invalid_token\"")], "");
    assert!(matches!(&reply(&mut run, id, ended).events[..], [Event::Ended(ConnectError::TokenEnded(..))]));
    assert_eq!(run.signaller.poll_timeout(), None);
}

#[test]
fn a_new_offer_keeps_the_pause_after_a_failure() {
    let mut run = run_of(Role::Publisher);
    let (id, _) = post(&mut run);
    reply(&mut run, id, created(&[]));
    run.pass(Duration::from_secs(60));
    let (delete, _) = post(&mut run);
    let id = reply(&mut run, delete, response(200, &[], "")).requests[0].0;
    reply(&mut run, id, response(503, &[("retry-after", "20")], ""));
    for _ in 0..4 {
        assert!(run.pass(Duration::from_secs(5)).requests.is_empty());
        assert!(run.give(offer()).requests.is_empty(), "the server asked for 20 s");
    }
    assert_eq!(run.pass(Duration::from_millis(500)).requests.len(), 1);
}

#[test]
fn a_server_that_asked_to_wait_may_fail_but_not_refuse() {
    for (status, is_retried) in
        [(503, true), (429, true), (401, false), (403, false), (406, false), (410, false)]
    {
        let mut run = run_of(Role::Player);
        let (id, _) = post(&mut run);
        reply(&mut run, id, response(404, &[], ""));
        let id = run.pass(Duration::from_millis(500)).requests[0].0;
        let outs = reply(&mut run, id, response(status, &[], ""));
        assert_eq!(
            matches!(&outs.events[..], [Event::Warning(_)]),
            is_retried,
            "{status}: {:?}",
            outs.events
        );
        assert_eq!(matches!(&outs.events[..], [Event::Ended(_)]), !is_retried, "{status}: {:?}", outs.events);
        assert_eq!(run.signaller.poll_timeout().is_some(), is_retried, "{status}");
    }
}

#[test]
fn all_fields_of_one_name_are_read() {
    let fields = [("www-authenticate", "Basic"), ("www-authenticate", "Bearer error=\"invalid_token\"")];
    let ended = ends(Role::Player, response(401, &fields, ""));
    assert!(matches!(ended, ConnectError::TokenEnded(..)), "{ended:?}");
    let mut run = run_of(Role::Publisher);
    let (id, _) = post(&mut run);
    let fields = [("accept-patch", "text/plain"), ("accept-patch", "application/trickle-ice-sdpfrag")];
    reply(&mut run, id, created(&fields));
    assert_eq!(run.give(candidate(1)).requests.len(), 1);
}

#[test]
fn debug_texts_have_no_secrets() {
    let mut whip = machine(Role::Publisher, URL, Some("geheim"));
    whip.handle(Instant::now(), offer());
    let Some(Out::Request(_, request)) = whip.poll_output() else { panic!("no request") };
    assert_eq!(field(&request, "authorization"), Some("Bearer geheim"));
    let text = format!("{whip:?} {request:?}");
    assert!(text.contains("POST http://h:1/live/whip"), "{text}");
    assert!(!text.contains("geheim") && !text.contains("secret") && !text.contains("ufrag"), "{text}");
}

#[test]
fn the_wrapper_for_all_protocols_leaves_retrying_to_the_back_end() {
    let target = Target::parse_stream(URL, Role::Player, Trust::System).unwrap();
    let target = target.token(Some(Secret("T".into())));
    let mut run = Run::new(Persistent::new(&target, ann(false), || 0.0));
    assert!(
        matches!(&run.give(In::Register).events[..], [Event::Registered, Event::Warning(_)]),
        "a token over http"
    );
    let (id, _) = post(&mut run);
    assert_eq!(reply(&mut run, id, response(404, &[], "")).events.len(), 1);
    let (id, _) = run.pass(Duration::from_millis(500)).requests.remove(0);
    assert!(is_answer(&reply(&mut run, id, created(&[])).events));
    assert_eq!(run.give(In::Close).requests[0].1.method, "DELETE");
    assert!(run.pass(Duration::from_secs(60)).requests.is_empty());
}

/// A step of an endpoint and of time.
#[derive(Debug, Clone)]
enum Step {
    Offer,
    Candidate,
    Respond(u16, Vec<(String, String)>, Vec<u8>),
    Accept,
    Fail,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let name = "(location|etag|link|retry-after|content-type|accept-patch|date|\\PC{0,5})";
    let value = "(/x|http://b/|application/sdp|<stun:a>;rel=ice-server|[0-9]{1,3}|\\PC{0,20})";
    let status = prop_oneof![Just(201_u16), Just(307), Just(404), Just(503), any::<u16>()];
    let headers = prop::collection::vec((name, value), 0..4);
    let respond = (status, headers, prop::collection::vec(any::<u8>(), 0..30));
    prop_oneof![
        2 => Just(Step::Offer),
        2 => Just(Step::Candidate),
        4 => respond.prop_map(|(status, headers, body)| Step::Respond(status, headers, body)),
        2 => Just(Step::Accept),
        1 => Just(Step::Fail),
        3 => (0..20_000_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    /// For any endpoint and any number of offers: at most 9 attempts in 15 s, no token to another origin, and an end within
    /// 5 s.
    #[test]
    fn no_endpoint_makes_a_storm_or_gets_a_token_of_another(
        steps in prop::collection::vec(step(), 0..80), plays: bool
    ) {
        let mut run = run_of(if plays { Role::Player } else { Role::Publisher });
        let (mut pending, mut attempts) = (VecDeque::new(), vec![]);
        for step in steps {
            let mut answer = |run: &mut Run, result| match pending.pop_front() {
                Some(id) => reply(run, id, result),
                None => Outs::default(),
            };
            let outs = match step {
                Step::Offer => run.give(offer()),
                Step::Candidate => run.give(candidate(1)),
                Step::Pass(ms) => run.pass(Duration::from_millis(ms)),
                Step::Respond(status, headers, body) => {
                    answer(&mut run, Ok(Response { status, headers, body, server: None }))
                }
                Step::Accept => answer(&mut run, created(&[("etag", "x")])),
                Step::Fail => answer(&mut run, Err(ConnectError::Broken("x".into()))),
            };
            for (id, request) in outs.requests {
                let is_own = request.url.origin() == Url::parse(URL).unwrap().origin();
                prop_assert_eq!(field(&request, "authorization").is_some(), is_own);
                if request.method == "POST" && request.url.as_str() == URL {
                    attempts.push(run.now);
                }
                pending.push_back(id);
            }
        }
        for (first, begin) in attempts.iter().enumerate() {
            let count = attempts[first..].iter().filter(|at| **at <= *begin + Duration::from_secs(15)).count();
            prop_assert!(count <= 9, "{} attempts in 15 s", count);
        }
        // The end sends no offer, and gives up all requests with a response that is still wanted.
        let mut outs = run.give(In::Close);
        prop_assert!(outs.requests.iter().all(|(_, request)| request.method == "DELETE"));
        pending.extend(outs.requests.drain(..).map(|(id, _)| id));
        outs.abandoned.extend(run.pass(Duration::from_secs(5)).abandoned);
        prop_assert!(outs.abandoned.iter().all(|id| pending.contains(id)), "{:?}", outs.abandoned);
        prop_assert_eq!(run.signaller.poll_timeout(), None);
    }
}
