//! Two peers and a network in one thread, on virtual time.

mod admission;
mod browser;
mod glare;
mod path;
mod restart;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::call::{self, Admission, Call};
use super::{ConnectionState, Effect, EffectId, EndReason, Input, Output, STEP, Terms};
use crate::protocol::{Candidate, Description, PeerId, PeerMessage, SdpKind};
use crate::sdp::webrtcbin::{Adapter, Credentials, Ours};
use crate::sdp::{Kind, Media, Sdp, Section};

/// Id and result of an effect.
type Done = (EffectId, Result<Option<Sdp>, String>);

/// A model of webrtcbin: executes effects, and makes the smallest descriptions that pass the checks.
#[derive(Debug, Default)]
struct Connection {
    /// Number of connections opened so far.
    opened: usize,
    /// Kinds of media to offer, always in this order.
    kinds: Vec<&'static str>,
    /// Whether the model can forget an offer of its own that adds m-lines, as 1.22 can.
    forgets: bool,
    /// Kind and mid of the current m-lines.
    lines: Vec<(String, String)>,
    /// Kind and mid of the m-lines of the last offer.
    offered: Vec<(String, String)>,
    /// Types of the applied descriptions.
    local: Option<SdpKind>,
    remote: Option<SdpKind>,
    /// Whether an applied offer waits for its answer.
    pending_offer: bool,
    /// Candidates of the peer.
    candidates: Vec<String>,
    /// Number of offers made.
    offers: usize,
    /// User fragment of the peer's description.
    theirs: String,
    adapter: Adapter,
    /// Number of descriptions with new ICE credentials, and the user fragment that was applied last.
    restarts: usize,
    applied: Option<String>,
}

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

/// Returns kinds and mids of a description's m-lines.
fn lines(sdp: &Sdp) -> Vec<(String, String)> {
    sdp.media.iter().map(|media| (media.kind.clone(), media.mid().unwrap().to_owned())).collect()
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

impl Connection {
    /// Returns a description of the current m-lines, with the ICE credentials of this connection.
    fn sdp(&self, setup: &str, mark: usize) -> String {
        self.describe(&self.lines, setup, mark, &self.ufrag())
    }

    fn describe(&self, lines: &[(String, String)], setup: &str, mark: usize, ufrag: &str) -> String {
        let sdp = described(lines, setup, mark).replace("ufrag:ufrag", &format!("ufrag:{ufrag}"));
        sdp.replace("sha-256 AA", &format!("sha-256 {:02X}", self.opened))
    }

    /// Returns the current m-lines, and new ones for kinds that have none yet.
    fn next_lines(&self) -> Vec<(String, String)> {
        let mut all = self.lines.clone();
        for kind in &self.kinds {
            if !all.iter().any(|(there, _)| there == kind) {
                all.push(((*kind).to_owned(), format!("{kind}{}", all.len())));
            }
        }
        all
    }

    /// Checks that webrtcbin 1.22 would accept a description of the peer.
    fn check(&self, remote: &Sdp) {
        let mids: Vec<&str> = remote.media.iter().filter_map(Media::mid).collect();
        let group = remote.attribute("group").unwrap();
        assert_eq!(group, format!("BUNDLE {}", mids.join(" ")), "the bundle begins with the first m-line");
        for media in &remote.media {
            for name in ["ice-ufrag", "ice-pwd", "fingerprint", "setup"] {
                assert_eq!(media.attribute(name), remote.media[0].attribute(name), "{name}");
                assert!(media.attribute(name).is_some(), "{name}");
            }
        }
        assert!(lines(remote).starts_with(&self.lines), "its m-lines stay where they are");
    }

    fn ufrag(&self) -> String {
        self.applied.clone().unwrap_or_else(|| format!("ufrag{}", self.opened))
    }

    /// Makes a description of these m-lines; returns it as the peer gets it.
    fn make(&mut self, kind: SdpKind, lines: &[(String, String)], restarts_ice: bool) -> Option<Sdp> {
        let credentials = restarts_ice.then(|| {
            assert!(self.local.is_some() && self.remote.is_some(), "nothing to restart");
            self.restarts += 1;
            let ufrag = format!("ufrag{}.{}", self.opened, self.restarts);
            Credentials { ufrag, password: "0123456789012345678901".into() }
        });
        let (setup, mark) = if kind == SdpKind::Offer { ("actpass", self.offers) } else { ("active", 0) };
        let sdp = Sdp::parse(&self.describe(lines, setup, mark, &self.ufrag())).unwrap();
        let fingerprint = format!("sha-256 {:02X}", self.opened);
        let ours = Ours { fingerprint: &fingerprint, credentials, idle: &[] };
        Some(self.adapter.made(kind, sdp, ours))
    }

    fn execute(&mut self, effect: &Effect) -> Option<Done> {
        match effect {
            Effect::Open => {
                *self = Self {
                    opened: self.opened + 1,
                    kinds: self.kinds.clone(),
                    forgets: self.forgets,
                    ..Self::default()
                };
                None
            }
            Effect::CreateOffer { id, standing, restarts_ice } => {
                self.offers += 1;
                self.offered = self.next_lines();
                self.adapter.kinds_to_offer(standing.as_ref());
                Some((*id, Ok(self.make(SdpKind::Offer, &self.offered.clone(), *restarts_ice))))
            }
            Effect::CreateAnswer { id, restarts_ice } => {
                assert_eq!(self.remote, Some(SdpKind::Offer), "an answer needs an offer");
                Some((*id, Ok(self.make(SdpKind::Answer, &self.lines.clone(), *restarts_ice))))
            }
            Effect::ApplyLocal(id, kind) => {
                let sdp = self.adapter.local(&[]).expect("it was made");
                self.applied = sdp.ufrag().map(str::to_owned);
                match kind {
                    SdpKind::Offer => {
                        assert!(!self.pending_offer, "webrtcbin is not stable");
                        self.pending_offer = true;
                    }
                    SdpKind::Answer => assert_eq!(self.remote, Some(SdpKind::Offer)),
                }
                self.local = Some(*kind);
                Some((*id, Ok(None)))
            }
            Effect::ApplyRemote(id, kind, remote) => {
                match kind {
                    SdpKind::Offer => assert!(!self.pending_offer, "rollback is not there"),
                    SdpKind::Answer => {
                        assert!(std::mem::take(&mut self.pending_offer), "an answer to nothing")
                    }
                }
                let remote = self.adapter.remote(*kind, remote, &[]).unwrap();
                self.check(&remote.sdp);
                let forgotten = *kind == SdpKind::Offer && self.offered.len() > self.lines.len();
                assert!(self.forgets || !forgotten, "it ends the process");
                if *kind == SdpKind::Answer {
                    assert_eq!(lines(&remote.sdp), self.offered, "the answer has the offer's m-lines");
                }
                self.remote = Some(*kind);
                self.theirs = remote.sdp.ufrag().unwrap().to_owned();
                self.lines = lines(&remote.sdp);
                Some((*id, Ok(None)))
            }
            Effect::AddCandidate(candidate) => {
                assert!(self.remote.is_some(), "a candidate before the description");
                self.candidates.push(candidate.clone());
                None
            }
        }
    }
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
        let connection = Connection { kinds: vec!["video"], forgets: true, ..Connection::default() };
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
fn in_a_collision_the_polite_side_forgets_its_later_offer_and_repeats_it() {
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
