//! The origins that get requests and the token.

use super::*;

#[test]
fn redirects_are_followed_and_the_token_stays_with_its_origin() {
    let mut run = run_of(Role::Publisher);
    let (id, _) = post(&mut run);
    let (id, request) = reply(&mut run, id, response(307, &[("location", "/edge")], "")).requests.remove(0);
    assert_eq!((request.method, request.url.as_str()), ("POST", "http://h:1/edge"));
    assert_eq!(field(&request, "authorization"), Some("Bearer T"));
    let other = response(308, &[("location", "https://other.example/whip")], "");
    let (id, request) = reply(&mut run, id, other).requests.remove(0);
    assert_eq!(request.url.as_str(), "https://other.example/whip");
    assert_eq!(field(&request, "authorization"), None);
    // The location is relative to the URL that answered.
    reply(&mut run, id, created(&[]));
    let (_, request) = run.give(In::Close).requests.remove(0);
    assert_eq!(request.url.as_str(), "https://other.example/session/7");
    assert_eq!(field(&request, "authorization"), None);

    let mut run = run_of(Role::Publisher);
    let (mut id, _) = post(&mut run);
    for hop in 0..5 {
        id = reply(&mut run, id, response(307, &[("location", &format!("/{hop}"))], "")).requests[0].0;
    }
    let outs = reply(&mut run, id, response(307, &[("location", "/again")], ""));
    assert!(
        matches!(&outs.events[..], [Event::Ended(error)] if error.to_string().contains("more than 5 redirects"))
    );
    let mut run = run_of(Role::Publisher);
    let (id, _) = post(&mut run);
    let id = reply(&mut run, id, response(307, &[("location", "http://b/")], "")).requests[0].0;
    let outs = reply(&mut run, id, response(401, &[], ""));
    assert!(outs.events[0..1].iter().any(|event| format!("{event:?}").contains("the token was not sent")));
}

#[test]
fn a_session_on_another_host_gets_no_token() {
    let mut run = run_of(Role::Publisher);
    let (id, _) = post(&mut run);
    let fields = [("location", "http://elsewhere/7"), ("etag", "x")];
    reply(&mut run, id, response(201, &fields, &description(["0", "1"], "passive")));
    let (_, patch) = run.give(candidate(1)).requests.remove(0);
    let (_, delete) = run.give(In::Close).requests.remove(0);
    for request in [patch, delete] {
        assert_eq!((request.url.as_str(), field(&request, "authorization")), ("http://elsewhere/7", None));
    }
}

#[test]
fn the_token_is_the_last_one_given_or_the_user_of_the_url() {
    let mut run = run_of(Role::Publisher);
    run.give(In::Ask(ServerRequest::Token(Secret("next".into()))));
    assert_eq!(field(&post(&mut run).1, "authorization"), Some("Bearer next"));
    let mut run = Run::new(machine(Role::Publisher, "https://ann:p%40ss@h/whip", None));
    let (_, request) = post(&mut run);
    assert_eq!(request.url.as_str(), "https://h/whip");
    assert_eq!(field(&request, "authorization"), Some("Basic YW5uOnBAc3M="));
    assert_eq!(
        field(&post(&mut Run::new(machine(Role::Publisher, "https://h", None))).1, "authorization"),
        None
    );
}

#[test]
fn the_user_of_the_url_goes_before_a_token_which_others_may_not_read() {
    for (url, token, authorization, warnings) in [
        ("https://ann:p%40ss@h/whip", Some("T"), "Basic YW5uOnBAc3M=", &["the token is not sent"][..]),
        (
            "http://ann:p%40ss@h/whip",
            None,
            "Basic YW5uOnBAc3M=",
            &["the password for http://h/whip can be read"],
        ),
        (
            "http://192.0.2.1/whip",
            Some("T"),
            "Bearer T",
            &["the token for http://192.0.2.1/whip can be read"],
        ),
        ("http://127.0.0.1:1/whip", Some("T"), "Bearer T", &[]),
        ("https://h/whip", Some("T"), "Bearer T", &[]),
    ] {
        let mut run = Run::new(machine(Role::Publisher, url, token));
        let events = run.give(In::Register).events;
        assert_eq!(events[0], Event::Registered);
        assert_eq!(events.len() - 1, warnings.len(), "{url}: {events:?}");
        for (event, words) in events[1..].iter().zip(warnings) {
            assert!(matches!(event, Event::Warning(text) if text.contains(words)), "{event:?}");
        }
        assert_eq!(field(&post(&mut run).1, "authorization"), Some(authorization));
    }
}

#[test]
fn a_redirect_to_https_of_the_same_host_keeps_the_token() {
    let mut run = Run::new(machine(Role::Publisher, "http://h/whip", Some("T")));
    let (id, _) = post(&mut run);
    let (id, request) =
        reply(&mut run, id, response(308, &[("location", "https://h/whip")], "")).requests.remove(0);
    assert_eq!(
        (request.url.as_str(), field(&request, "authorization")),
        ("https://h/whip", Some("Bearer T"))
    );
    let outs = reply(&mut run, id, response(401, &[], ""));
    assert!(!format!("{:?}", outs.events).contains("not sent"), "{:?}", outs.events);
    // Another port may be another server.
    let mut run = Run::new(machine(Role::Publisher, "http://h/whip", Some("T")));
    let (id, _) = post(&mut run);
    let to = response(308, &[("location", "https://h:8443/whip")], "");
    let (id, request) = reply(&mut run, id, to).requests.remove(0);
    assert_eq!(field(&request, "authorization"), None);
    let outs = reply(&mut run, id, response(401, &[], ""));
    assert!(
        format!("{:?}", outs.events).contains("the token was not sent to https://h:8443"),
        "{:?}",
        outs.events
    );
}

#[test]
fn a_location_with_http_behind_a_proxy_ends_the_session_by_https() {
    let mut run = Run::new(machine(Role::Publisher, "https://h/whip", Some("T")));
    let (id, _) = post(&mut run);
    let fields = [("location", "http://h:8080/session/7")];
    let outs = reply(&mut run, id, response(201, &fields, &description(["0", "1"], "passive")));
    assert!(is_answer(&outs.events), "{:?}", outs.events);
    let (_, request) = run.give(In::Close).requests.remove(0);
    assert_eq!((request.method, request.url.as_str()), ("DELETE", "https://h/session/7"));
    assert_eq!(field(&request, "authorization"), Some("Bearer T"));
}

#[test]
fn a_location_that_is_not_used_is_reported_with_the_reason() {
    let long = "x".repeat(3000);
    for (location, words) in [
        (None, "there is none"),
        (Some("http://other.example/7"), "it leads from https to http at another host"),
        (Some("ftp://h/7"), "it begins with neither http nor https"),
        (Some("https://192.168.1.1/7"), "narrower than that of the endpoint (192.168.1.1)"),
        (Some("https://localhost/7"), "narrower than that of the endpoint (localhost)"),
        (Some(long.as_str()), "it has more than 2048 bytes"),
    ] {
        let mut run = Run::new(machine(Role::Publisher, "https://h/whip", Some("T")));
        let (id, _) = post(&mut run);
        let fields: Vec<_> = location.iter().map(|location| ("location", *location)).collect();
        let mut outs = reply(&mut run, id, response(201, &fields, &description(["0", "1"], "passive")));
        let warning = outs.events.pop();
        assert!(matches!(&warning, Some(Event::Warning(text)) if text.contains(words)), "{warning:?}");
        assert!(run.give(candidate(1)).requests.is_empty() && run.give(In::Close).requests.is_empty());
    }
}

#[test]
fn a_redirect_into_the_users_network_is_followed_from_inside_alone() {
    let to = [("location", "http://127.0.0.1:80/admin")];
    let ended = ends(Role::Publisher, response(307, &to, "")).to_string();
    assert!(ended.contains("without a URL that may be used") && ended.contains("(127.0.0.1)"), "{ended}");
    // The endpoint's name leads to this machine.
    let mut run = run_of(Role::Publisher);
    let (id, _) = post(&mut run);
    let mut result = response(307, &to, "").unwrap();
    result.server = Some("127.0.0.1".parse().unwrap());
    assert_eq!(reply(&mut run, id, Ok(result)).requests[0].1.url.as_str(), "http://127.0.0.1/admin");
}
