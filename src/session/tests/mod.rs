//! Two peers and a network in one thread, on virtual time.

mod admission;
mod browser;
mod glare;
mod media_server;
mod path;
mod restart;
mod rooms;
mod webrtcbin;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use self::webrtcbin::{Connection, Done};
use super::call::{self, Admission, Call};
use super::{ConnectionState, Effect, EndReason, Input, Output, STEP, Terms};
use crate::protocol::{Candidate, Description, PeerId, PeerMessage, SdpKind};
use crate::sdp::webrtcbin::tests::lines;
use crate::sdp::{Kind, Sdp};

fn sdp(kinds: &[&str], setup: &str, mark: usize) -> String {
    let mut text = format!("v=0\r\no=- {mark} 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n");
    for kind in kinds {
        text += &format!(
            "m={kind} 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:{kind}\r\na=ice-ufrag:ufrag\r\n\
             a=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 AA\r\na=setup:{setup}\r\na=sendrecv\r\n"
        );
    }
    text
}

/// Builds a description with these m-lines, given by kinds and mids.
fn described(lines: &[(String, String)], setup: &str, mark: usize) -> String {
    let mut text = format!("v=0\r\no=- {mark} 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n");
    let mids: Vec<&str> = lines.iter().map(|(_, mid)| mid.as_str()).collect();
    text += &format!("a=group:BUNDLE {}\r\n", mids.join(" "));
    for (kind, mid) in lines {
        let format =
            if kind == "application" { "UDP/DTLS/SCTP webrtc-datachannel" } else { "UDP/TLS/RTP/SAVPF 96" };
        text += &format!(
            "m={kind} 9 {format}\r\na=mid:{mid}\r\na=ice-ufrag:ufrag\r\n\
             a=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 AA\r\na=setup:{setup}\r\na=sendrecv\r\n"
        );
    }
    text
}

/// A side of a call: its state machine and its connection.
struct Side {
    call: Call,
    connection: Connection,
    outbox: VecDeque<PeerMessage>,
    results: VecDeque<Done>,
    events: Vec<String>,
    ended: Option<EndReason>,
}

fn id(text: &str) -> PeerId {
    text.parse().unwrap()
}

fn terms() -> Terms {
    Terms::new(true, vec![Kind::Video])
}

impl Side {
    fn new(call: Call) -> Self {
        let connection =
            Connection { kinds: vec!["video"], drops_added_lines: true, ..Connection::default() };
        Self {
            call,
            connection,
            outbox: VecDeque::new(),
            results: VecDeque::new(),
            events: vec![],
            ended: None,
        }
    }

    fn caller(now: Instant, request_offer: bool) -> Self {
        Self::new(Call::dial(now, id("callee"), request_offer, terms()))
    }

    fn callee() -> Self {
        Self::new(Call::answer(Terms { reconnects_first: false, ..terms() }, Admission::default()))
    }

    fn input(&mut self, now: Instant, input: Input) {
        self.call.handle_input(now, input);
        self.pump();
    }

    fn call_event(&mut self, now: Instant, event: call::Event) {
        self.call.handle_event(now, event);
        self.pump();
    }

    fn timeout(&mut self, now: Instant) {
        self.call.handle_timeout(now);
        self.pump();
    }

    fn pump(&mut self) {
        while let Some(output) = self.call.poll_output() {
            assert!(self.ended.is_none(), "{output:?} after the end");
            match output {
                Output::Dial(peer) => self.events.push(format!("dial {peer}")),
                Output::Caller(peer) => self.events.push(format!("caller {peer}")),
                Output::Ask => self.events.push("ask".into()),
                Output::Connecting => self.events.push("connecting".into()),
                Output::Busy => self.events.push("busy".into()),
                Output::Send(message) => self.outbox.push_back(message),
                Output::Effect(effect) => {
                    self.results.extend(self.connection.execute(&effect));
                }
                Output::Connected => self.events.push("connected".into()),
                Output::Reconnecting => self.events.push("reconnecting".into()),
                Output::Warning(text) => self.events.push(format!("warning: {text}")),
                Output::Ended(reason) => self.ended = Some(reason),
                Output::Joined | Output::Left => panic!("an output of a room: {output:?}"),
            }
        }
    }

    /// Delivers the oldest result of an effect; returns false if there is none.
    fn result(&mut self, now: Instant) -> bool {
        let Some((id, result)) = self.results.pop_front() else { return false };
        self.input(now, Input::Result(id, result));
        true
    }

    fn is_stable(&self) -> bool {
        self.results.is_empty() && self.outbox.is_empty() && !self.connection.pending_offer
    }
}

/// Delivers the oldest message of one side to the other; returns false if there is none.
fn deliver(now: Instant, from: &mut Side, to: &mut Side) -> bool {
    let Some(message) = from.outbox.pop_front() else { return false };
    // The message passes through its wire text.
    to.input(now, Input::Peer(PeerMessage::parse(&message.to_string()).unwrap()));
    true
}

/// Delivers all results and messages of both sides; fails if there is no end of them.
fn settle(now: Instant, a: &mut Side, b: &mut Side) {
    for _ in 0..200 {
        let moved = [a.result(now), b.result(now), deliver(now, a, b), deliver(now, b, a)];
        if !moved.contains(&true) {
            return;
        }
    }
    panic!("the exchange does not end");
}

/// Returns a call that the server has just accepted.
fn accepted(request_offer: bool) -> (Instant, Side, Side) {
    let now = Instant::now();
    let (mut a, mut b) = (Side::caller(now, request_offer), Side::callee());
    a.pump();
    assert_eq!(a.events, ["dial callee"]);
    b.call_event(now, call::Event::Caller(id("caller")));
    a.call_event(now, call::Event::Accepted);
    (now, a, b)
}

#[test]
fn the_caller_offers() {
    let (now, mut a, mut b) = accepted(false);
    settle(now, &mut a, &mut b);
    assert_eq!((a.connection.local, a.connection.remote), (Some(SdpKind::Offer), Some(SdpKind::Answer)));
    assert_eq!((b.connection.local, b.connection.remote), (Some(SdpKind::Answer), Some(SdpKind::Offer)));
    for side in [&mut a, &mut b] {
        side.input(now, Input::Connection(ConnectionState::Connected));
        assert!(side.events.contains(&"connected".to_owned()));
        assert_eq!(side.call.poll_timeout(), None, "no timer is left");
    }
    a.input(now, Input::HangUp);
    assert_eq!(a.ended, Some(EndReason::HungUp));
    // The server's report of the peer's end does not end the call, since media may go on. The end of the media does.
    b.input(now, Input::PeerGone);
    assert_eq!(b.ended, None);
    b.input(now, Input::Connection(ConnectionState::Closed));
    assert_eq!(b.ended, Some(EndReason::PeerHungUp));
}

#[test]
fn the_caller_requests_the_offer() {
    let (now, mut a, mut b) = accepted(true);
    settle(now, &mut a, &mut b);
    assert_eq!((a.connection.local, b.connection.local), (Some(SdpKind::Answer), Some(SdpKind::Offer)));
}

#[test]
fn a_first_offer_with_a_data_channel_alone_is_completed_by_our_side() {
    let now = Instant::now();
    let mut b = Side::callee();
    let channel = "v=0\r\na=ice-ufrag:ufrag\r\na=ice-pwd:0123456789012345678901\r\na=fingerprint:sha-256 AA\r\n\
        m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:0\r\na=setup:actpass\r\n";
    let offer = Description { kind: SdpKind::Offer, sdp: channel.into() };
    b.input(now, Input::Peer(PeerMessage::Description(offer)));
    while b.result(now) {}
    assert!(matches!(&b.outbox[0], PeerMessage::Description(d) if d.kind == SdpKind::Answer));
    // An offer before the data channel is open would move the channel's m-line, so our side waits for the connection.
    let now = now + Duration::from_secs(2);
    b.timeout(now);
    assert_eq!((b.outbox.len(), b.connection.offers), (1, 0));
    b.input(now, Input::Connection(ConnectionState::Connected));
    let due = b.call.poll_timeout().expect("a timer for the data channel");
    assert!(due > now && due <= now + Duration::from_secs(1));
    b.timeout(due);
    while b.result(due) {}
    assert!(matches!(&b.outbox[1], PeerMessage::Description(d) if d.kind == SdpKind::Offer));
}

#[test]
fn in_a_collision_the_polite_side_drops_its_later_offer_and_repeats_it() {
    let (now, mut a, mut b) = accepted(false);
    settle(now, &mut a, &mut b);
    // A later offer of ours and an offer of the page cross.
    b.input(now, Input::Peer(PeerMessage::OfferRequest));
    while b.result(now) {}
    let ours = b.outbox.pop_front().unwrap();
    assert!(matches!(&ours, PeerMessage::Description(d) if d.kind == SdpKind::Offer));
    assert!(!b.connection.pending_offer, "it is not applied before its answer");
    let theirs = Description { kind: SdpKind::Offer, sdp: a.connection.sdp("actpass", 7) };
    b.input(now, Input::Peer(PeerMessage::Description(theirs)));
    while b.result(now) {}
    let kinds: Vec<SdpKind> = b
        .outbox
        .iter()
        .filter_map(|m| match m {
            PeerMessage::Description(d) => Some(d.kind),
            _ => None,
        })
        .collect();
    assert_eq!(
        kinds,
        [SdpKind::Answer, SdpKind::Offer],
        "our side answers the page's offer, and repeats its own"
    );
    assert_eq!(b.connection.opened, 1, "on the same connection");
    assert_eq!(b.ended, None);
}

#[test]
fn a_collision_of_first_offers_opens_a_fresh_connection() {
    let (now, mut a, _) = accepted(false);
    while a.result(now) {}
    assert!(a.connection.pending_offer);
    let theirs = Description { kind: SdpKind::Offer, sdp: sdp(&["video"], "actpass", 7) };
    a.input(now, Input::Peer(PeerMessage::Description(theirs)));
    while a.result(now) {}
    assert_eq!((a.connection.opened, a.connection.local), (2, Some(SdpKind::Answer)));
}

#[test]
fn the_dtls_role_stays_over_later_offers() {
    let (now, mut a, mut b) = accepted(false);
    settle(now, &mut a, &mut b);
    // Our side made the first offer, and is the DTLS server. The page makes the next offer.
    let theirs = Description { kind: SdpKind::Offer, sdp: b.connection.sdp("actpass", 7) };
    a.input(now, Input::Peer(PeerMessage::Description(theirs)));
    while a.result(now) {}
    let Some(PeerMessage::Description(answer)) = a.outbox.pop_back() else { panic!("no answer") };
    assert!(
        answer.sdp.contains("a=setup:passive") && !answer.sdp.contains("a=setup:active"),
        "{}",
        answer.sdp
    );
}

fn ended_by(reason: &EndReason) -> String {
    reason.to_string()
}

#[test]
fn every_timeout_names_the_pending_step() {
    // The server does not answer.
    let now = Instant::now();
    let mut a = Side::caller(now, false);
    a.pump();
    let step = |side: &mut Side, at: Instant| {
        assert!(side.call.poll_timeout().is_some_and(|due| due <= at));
        side.call.handle_timeout(at);
        side.pump();
        ended_by(side.ended.as_ref().expect("it ended"))
    };
    assert_eq!(
        step(&mut a, now + STEP),
        "waiting for the server's answer to our call: nothing came for 10 s"
    );
    // The peer does not answer, or does not offer.
    let (now, mut a, mut b) = accepted(false);
    while a.result(now) {}
    assert_eq!(step(&mut a, now + STEP), "waiting for the peer's answer: nothing came for 10 s");
    assert_eq!(step(&mut b, now + STEP), "waiting for the peer's offer: nothing came for 10 s");
    let (now, mut a, _) = accepted(true);
    assert_eq!(step(&mut a, now + STEP), "waiting for the peer's offer: nothing came for 10 s");
    // No path.
    let (now, mut a, mut b) = accepted(false);
    settle(now, &mut a, &mut b);
    assert!(step(&mut a, now + super::link::CONNECT).starts_with("no network path"));
}

#[test]
fn useless_messages_do_not_disturb_a_call() {
    let (now, mut a, mut b) = accepted(false);
    b.input(now, Input::Junk("a message that is not JSON".into()));
    b.input(now, Input::Peer(PeerMessage::Placeholder));
    let bad = Description { kind: SdpKind::Offer, sdp: "v=0\r\nnonsense".into() };
    b.input(now, Input::Peer(PeerMessage::Description(bad)));
    let stray = Description { kind: SdpKind::Answer, sdp: sdp(&["video"], "active", 1) };
    b.input(now, Input::Peer(PeerMessage::Description(stray)));
    settle(now, &mut a, &mut b);
    assert_eq!((b.ended.as_ref(), b.connection.local), (None, Some(SdpKind::Answer)));
    assert_eq!(b.events.iter().filter(|event| event.starts_with("warning")).count(), 4, "{:?}", b.events);
}

#[test]
fn warnings_about_useless_messages_are_limited() {
    let (now, _, mut b) = accepted(false);
    (0..10_000).for_each(|_| b.input(now, Input::Junk("no JSON".into())));
    let warnings = |b: &Side| b.events.iter().filter(|event| event.starts_with("warning: ")).count();
    assert_eq!(warnings(&b), super::link::WARNINGS.0 as usize + 1);
    assert!(b.events.last().unwrap().contains("which are not reported"));
    b.input(now + Duration::from_secs(1), Input::Junk("no JSON".into()));
    assert!(b.events.last().unwrap().contains("no JSON"));
}

#[test]
fn candidates_beyond_the_limit_are_dropped() {
    let (now, mut a, mut b) = accepted(false);
    settle(now, &mut a, &mut b);
    for n in 0..2000 {
        let candidate = format!("candidate:{n} 1 udp 1 192.0.2.1 {} typ host", n % 60_000 + 1024);
        b.input(
            now,
            Input::Peer(PeerMessage::Candidate(Candidate {
                candidate,
                mline: Some(0),
                ..Candidate::default()
            })),
        );
    }
    assert_eq!(b.connection.candidates.len(), super::negotiation::MAX_CANDIDATES);
    assert_eq!(b.ended, None);
}

#[test]
fn dropped_candidates_are_reported_once() {
    let (now, mut a, mut b) = accepted(false);
    settle(now, &mut a, &mut b);
    for (n, address) in
        ["192.168.1.1 22", "127.0.0.1 9000", "192.168.1.1 9000", "8.8.8.8 53"].iter().enumerate()
    {
        let candidate = format!("candidate:{n} 1 udp 1 {address} typ host");
        let candidate = Candidate { candidate, mline: Some(0), ..Candidate::default() };
        b.input(now, Input::Peer(PeerMessage::Candidate(candidate)));
    }
    assert_eq!(b.connection.candidates, ["candidate:2 1 udp 1 192.168.1.1 9000 typ host"]);
    b.timeout(now + super::filter::COUNT);
    let warnings: Vec<&String> = b.events.iter().filter(|event| event.starts_with("warning: ")).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let words = "warning: dropped from the peer: 3 candidates, the first of them 192.168.1.1 port 22: a port below 1024";
    assert!(warnings[0].starts_with(words), "{warnings:?}");
}

#[derive(Debug, Clone, Copy)]
enum Step {
    ResultA,
    ResultB,
    ToA,
    ToB,
    CandidateA,
    CandidateB,
    ReofferB,
    DuplicateToB,
}

proptest! {
    /// Tests that both sides agree within a bounded number of steps, in any order of results and messages, with
    /// candidates before descriptions, renegotiations and duplicates.
    #[test]
    fn two_sides_agree_in_any_order(
        request in any::<bool>(),
        steps in prop::collection::vec(prop_oneof![
            4 => Just(Step::ResultA), 4 => Just(Step::ResultB), 4 => Just(Step::ToA), 4 => Just(Step::ToB),
            1 => Just(Step::CandidateA), 1 => Just(Step::CandidateB), 1 => Just(Step::ReofferB),
            1 => Just(Step::DuplicateToB),
        ], 0..60)
    ) {
        let (now, mut a, mut b) = accepted(request);
        let local = |n: usize| {
            let candidate = format!("candidate:{n} 1 udp 1 192.0.2.1 9000 typ host");
            Input::LocalCandidate(Candidate { candidate, mline: Some(0), ..Candidate::default() })
        };
        let mut sent = (0, 0);
        for step in steps {
            match step {
                Step::ResultA => { a.result(now); }
                Step::ResultB => { b.result(now); }
                Step::ToA => { deliver(now, &mut b, &mut a); }
                Step::ToB => { deliver(now, &mut a, &mut b); }
                Step::CandidateA => { sent.0 += 1; a.input(now, local(sent.0)); }
                Step::CandidateB => { sent.1 += 1; b.input(now, local(sent.1)); }
                // The caller requests another offer of the callee once both have descriptions.
                Step::ReofferB if b.connection.local.is_some() => {
                    a.outbox.push_back(PeerMessage::OfferRequest);
                }
                Step::DuplicateToB => {
                    if let Some(PeerMessage::Candidate(candidate)) = a.outbox.front().cloned() {
                        sent.0 += 1;
                        a.outbox.push_front(PeerMessage::Candidate(candidate));
                    }
                }
                Step::ReofferB => {}
            }
        }
        settle(now, &mut a, &mut b);
        prop_assert!(a.is_stable() && b.is_stable());
        prop_assert!(a.ended.is_none() && b.ended.is_none(), "{:?} {:?}", a.ended, b.ended);
        prop_assert!(a.connection.local.is_some() && b.connection.local.is_some());
        prop_assert_ne!(a.connection.local, b.connection.local, "one offered, one answered");
        prop_assert_eq!(b.connection.candidates.len(), sent.0, "no candidate is lost");
        prop_assert_eq!(a.connection.candidates.len(), sent.1);
    }
}
