//! Our negotiation against a model of a browser: W3C's perfect negotiation with rollback, as pages write it.

use std::collections::BTreeSet;

use super::*;
use crate::session::negotiation::{Event, Negotiation};

/// Behaviour of a page.
#[derive(Debug, Clone)]
pub(super) struct Page {
    /// Whether the page gives way in a collision of offers.
    pub(super) polite: bool,
    /// Whether the page does not know roomtone: such a page keeps its `RTCPeerConnection` when our side starts another
    /// transport.
    pub(super) keeps: bool,
    /// Whether the page keeps its DTLS connection for the life of the `RTCPeerConnection`, as Firefox and Pion do.
    pub(super) keeps_dtls: bool,
    /// Kinds of media that the page sends, in the order of its m-lines, and how many of them its first offer has.
    pub(super) brings: Vec<&'static str>,
    pub(super) first: usize,
}

/// An `RTCPeerConnection` and the page around it.
#[derive(Debug)]
pub(super) struct Browser {
    page: Page,
    /// Kinds and mids of the agreed m-lines, and of an offer without an answer yet. Order and mids stay in every later
    /// description (RFC 8829, 5.2.2 and 5.10).
    lines: Vec<(String, String)>,
    offered: Vec<(String, String)>,
    mids: usize,
    pub(super) signalling: Signalling,
    making_offer: bool,
    ignoring: bool,
    needs_negotiation: bool,
    /// State of the transport: the number of the current ICE credentials, the highest such number so far, and the
    /// number of the certificate.
    generation: usize,
    generations: usize,
    certificate: usize,
    descriptions: usize,
    /// Marks of the agreed descriptions: the browser's and the peer's.
    agreed: Option<(usize, usize)>,
    /// User fragment of the peer.
    pub(super) theirs: Option<String>,
    certificate_of_peer: Option<String>,
    /// Whether ICE and DTLS are connected.
    pub(super) connected: bool,
    /// Whether the peer began a second DTLS connection, which this browser refuses.
    pub(super) failed: bool,
    /// Candidates of the peer, and those that arrived before its description.
    candidates: Vec<Candidate>,
    waiting: Vec<Candidate>,
    /// The browser's candidates, each with the number of its transport.
    sent: Vec<(usize, String)>,
    pub(super) outbox: VecDeque<PeerMessage>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Signalling {
    Stable,
    /// Mark of the offer, and the number of the transport to return to in a rollback.
    HaveLocalOffer(usize, usize),
}

/// Returns the number of a description, which its `o=` line contains.
fn mark(sdp: &str) -> usize {
    sdp.split(' ').nth(1).unwrap().parse().unwrap()
}

fn value(sdp: &str, name: &str) -> String {
    sdp.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned()
}

impl Browser {
    pub(super) fn new(page: Page) -> Self {
        Self {
            page,
            lines: vec![],
            offered: vec![],
            mids: 0,
            signalling: Signalling::Stable,
            making_offer: false,
            ignoring: false,
            needs_negotiation: false,
            generation: 1,
            generations: 1,
            certificate: 1,
            descriptions: 0,
            agreed: None,
            theirs: None,
            certificate_of_peer: None,
            connected: false,
            failed: false,
            candidates: vec![],
            waiting: vec![],
            sent: vec![],
            outbox: VecDeque::new(),
        }
    }

    pub(super) fn ufrag(&self) -> String {
        format!("web{}", self.generation)
    }

    /// Returns the m-lines of the next offer.
    fn next_lines(&mut self) -> Vec<(String, String)> {
        let mut all = self.lines.clone();
        let brings =
            if all.is_empty() { &self.page.brings[..self.page.first] } else { &self.page.brings[..] };
        for kind in brings {
            if !all.iter().any(|(there, _)| there == kind) {
                self.mids += 1;
                all.push(((*kind).to_owned(), self.mids.to_string()));
            }
        }
        all
    }

    fn describe(&mut self, kind: SdpKind) -> usize {
        self.descriptions += 1;
        let setup = if kind == SdpKind::Offer { "actpass" } else { "active" };
        if kind == SdpKind::Offer {
            self.offered = self.next_lines();
        }
        let lines = if kind == SdpKind::Offer { &self.offered } else { &self.lines };
        let sdp = described(lines, setup, self.descriptions)
            .replace("ufrag:ufrag", &format!("ufrag:{}", self.ufrag()))
            .replace("sha-256 AA", &format!("sha-256 B{}", self.certificate));
        let sdp = if self.page.keeps { sdp } else { sdp.replace("t=0 0", "t=0 0\r\na=tool:roomtone") };
        self.outbox.push_back(PeerMessage::Description(Description { kind, sdp }));
        self.descriptions
    }

    /// Begins `setLocalDescription()`, as a page does at `negotiationneeded`; [`Browser::work`] completes it.
    pub(super) fn want_offer(&mut self) {
        if self.making_offer || self.signalling != Signalling::Stable {
            self.needs_negotiation = true;
        } else {
            (self.making_offer, self.needs_negotiation) = (true, false);
        }
    }

    /// Completes `setLocalDescription()`; returns false if it has not begun.
    pub(super) fn work(&mut self, restarts_ice: bool) -> bool {
        if !std::mem::replace(&mut self.making_offer, false) {
            return false;
        }
        if self.signalling != Signalling::Stable {
            self.needs_negotiation = true;
            return true;
        }
        let before = self.generation;
        if restarts_ice && self.agreed.is_some() {
            self.next_generation();
        }
        let mark = self.describe(SdpKind::Offer);
        self.signalling = Signalling::HaveLocalOffer(mark, before);
        true
    }

    fn next_generation(&mut self) {
        self.generations += 1;
        self.generation = self.generations;
    }

    /// Replaces the `RTCPeerConnection` by a fresh one.
    fn renew(&mut self) {
        let (generations, certificate) = (self.generations + 1, self.certificate + 1);
        let (descriptions, sent) = (self.descriptions, std::mem::take(&mut self.sent));
        let outbox = std::mem::take(&mut self.outbox);
        *self = Self { generations, certificate, descriptions, sent, outbox, ..Self::new(self.page.clone()) };
        self.generation = generations;
    }

    fn gather(&mut self) {
        if self.agreed.is_some() || self.signalling != Signalling::Stable {
            let line = line(self.sent.len(), self.generation);
            self.sent.push((self.generation, line.clone()));
            let ufrag = Some(self.ufrag());
            let candidate = Candidate { candidate: line, mline: Some(0), mid: None, ufrag };
            self.outbox.push_back(PeerMessage::Candidate(candidate));
        }
    }

    /// Handles a message of the peer.
    pub(super) fn receive(&mut self, message: PeerMessage) {
        match message {
            PeerMessage::Description(Description { kind, sdp }) => self.description(kind, &sdp),
            PeerMessage::Candidate(candidate) if self.theirs.is_some() => self.add(candidate),
            PeerMessage::Candidate(_) if self.ignoring => {}
            PeerMessage::Candidate(candidate) => self.waiting.push(candidate),
            PeerMessage::OfferRequest => self.want_offer(),
            PeerMessage::EndOfCandidates | PeerMessage::Placeholder => {}
        }
    }

    fn add(&mut self, candidate: Candidate) {
        // `addIceCandidate()` fails for a candidate with the user fragment of another transport.
        if candidate.ufrag.is_some() && candidate.ufrag != self.theirs {
            return;
        }
        let of = candidate.candidate.split(' ').nth(5).unwrap().parse::<usize>().unwrap() - FIRST_PORT;
        let connection = self.theirs.as_ref().unwrap().split('.').next();
        assert_eq!(connection, Some(&*format!("ufrag{of}")), "a candidate of another transport");
        self.candidates.push(candidate);
    }

    fn description(&mut self, kind: SdpKind, sdp: &str) {
        let (theirs, certificate) = (value(sdp, "a=ice-ufrag:"), value(sdp, "a=fingerprint:"));
        let is_other = self.theirs.as_ref().is_some_and(|before| *before != theirs);
        if kind == SdpKind::Offer && is_other && !self.page.keeps {
            self.renew();
        }
        let parsed = Sdp::parse(sdp).unwrap();
        let collision =
            kind == SdpKind::Offer && (self.making_offer || self.signalling != Signalling::Stable);
        self.ignoring = collision && !self.page.polite;
        if self.ignoring {
            return;
        }
        let expected = if kind == SdpKind::Answer { &self.offered } else { &self.lines };
        let keeps_lines = lines(&parsed).starts_with(expected);
        assert!(kind == SdpKind::Answer || keeps_lines, "{:?} instead of {expected:?}", lines(&parsed));
        if kind == SdpKind::Answer && (!keeps_lines || parsed.media.len() != expected.len()) {
            // `setRemoteDescription()` fails: the answer belongs to another offer.
            return;
        }
        let first = self.theirs.is_none();
        let mark = mark(sdp);
        match (kind, self.signalling) {
            (SdpKind::Offer, state) => {
                if let Signalling::HaveLocalOffer(_, before) = state {
                    // Implicit rollback; in that of a first offer the browser drops its transports.
                    self.needs_negotiation = true;
                    self.generation = before;
                    if first {
                        self.next_generation();
                    }
                }
                // A browser that answers an ICE restart restarts its own ICE (RFC 8839, 4.4.1.2.1).
                if is_other && self.page.keeps {
                    self.next_generation();
                }
                self.lines = lines(&parsed);
                self.accept(theirs, certificate);
                let ours = self.describe(SdpKind::Answer);
                self.settled(ours, mark);
                let has = |kind: &&str| self.lines.iter().any(|(there, _)| there == kind);
                if !self.page.brings.iter().all(has) {
                    self.want_offer();
                }
            }
            (SdpKind::Answer, Signalling::HaveLocalOffer(ours, _)) => {
                self.lines = self.offered.clone();
                self.accept(theirs, certificate);
                self.settled(ours, mark);
            }
            (SdpKind::Answer, Signalling::Stable) => {}
        }
    }

    /// Makes the peer's transport the current one.
    fn accept(&mut self, theirs: String, certificate: String) {
        // A browser keeps an established DTLS connection, and the peer's certificate with it. A new certificate over
        // another transport begins a new DTLS connection (RFC 8842, 5.5).
        let is_same = self.certificate_of_peer.as_ref() == Some(&certificate);
        assert!(!self.connected || is_same || self.theirs.as_ref() != Some(&theirs));
        self.failed |= self.page.keeps_dtls && self.connected && !is_same;
        self.connected &= is_same;
        if self.theirs.as_ref() != Some(&theirs) {
            self.candidates.clear();
        }
        (self.theirs, self.certificate_of_peer) = (Some(theirs), Some(certificate));
        for candidate in std::mem::take(&mut self.waiting) {
            self.add(candidate);
        }
    }

    fn settled(&mut self, ours: usize, theirs: usize) {
        self.agreed = Some((ours, theirs));
        self.signalling = Signalling::Stable;
        if std::mem::take(&mut self.needs_negotiation) {
            self.want_offer();
        }
    }
}

/// Our side: the state machine of the negotiation, and the connection that executes its effects.
struct Native {
    negotiation: Negotiation,
    connection: Connection,
    outbox: VecDeque<PeerMessage>,
    results: VecDeque<Done>,
    /// Marks of the descriptions sent and applied last.
    sent_mark: usize,
    applied_mark: usize,
    /// Our candidates, each with the number of its connection and of its ICE restart.
    sent: Vec<((usize, usize), String)>,
    failed: Option<String>,
}

impl Native {
    fn new(polite: bool, drops_added_lines: bool) -> Self {
        let negotiation = Negotiation::new(Terms { polite, drops_added_lines, ..terms() });
        let connection = Connection {
            kinds: vec!["video", "audio", "application"],
            drops_added_lines,
            ..Connection::default()
        };
        let (outbox, results, sent) = Default::default();
        let mut native = Self {
            negotiation,
            connection,
            outbox,
            results,
            sent_mark: 0,
            applied_mark: 0,
            sent,
            failed: None,
        };
        native.pump();
        native
    }

    fn pump(&mut self) {
        while let Some(output) = self.negotiation.poll_output() {
            match output {
                Output::Effect(effect) => {
                    if let Effect::ApplyRemote(_, _, remote) = &effect {
                        self.applied_mark = mark(&remote.to_string());
                    }
                    self.results.extend(self.connection.execute(&effect));
                }
                Output::Send(message) => {
                    if let PeerMessage::Description(description) = &message {
                        self.sent_mark = mark(&description.sdp);
                    }
                    self.outbox.push_back(message);
                }
                other => panic!("{other:?}"),
            }
        }
        while let Some(event) = self.negotiation.poll_event() {
            if let Event::Declined(reason) | Event::Failed(_, reason) = event {
                self.failed = Some(reason);
            }
        }
    }

    fn gather(&mut self) {
        if self.connection.local.is_some() {
            let line = line(self.sent.len(), self.connection.opened);
            self.sent.push(((self.connection.opened, self.connection.restarts), line.clone()));
            let candidate = self.connection.adapter.candidate(0, line);
            self.negotiation.handle_local_candidate(candidate);
            self.pump();
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Result,
    ToNative,
    ToBrowser,
    /// The browser completes `setLocalDescription()`; contains whether it restarts its ICE.
    Work(bool),
    NativeOffers,
    /// Our side restarts ICE, if it can.
    NativeRestarts,
    BrowserOffers,
    NativeGathers,
    BrowserGathers,
    /// A candidate arrives twice.
    Twice,
    /// The server is lost with all messages under way; then one side begins anew, ours if true.
    Lost(bool),
}

struct Pair {
    now: Instant,
    native: Native,
    browser: Browser,
    connected: (usize, usize),
}

impl Pair {
    fn step(&mut self, step: Step) -> bool {
        let Self { now, native, browser, .. } = self;
        let moved = match step {
            Step::Result => {
                let Some((id, result)) = native.results.pop_front() else { return false };
                native.negotiation.handle_result(*now, id, result);
                true
            }
            Step::ToNative => {
                let Some(message) = browser.outbox.pop_front() else { return false };
                native.negotiation.handle_peer(*now, PeerMessage::parse(&message.to_string()).unwrap());
                true
            }
            Step::ToBrowser => {
                let Some(message) = native.outbox.pop_front() else { return false };
                browser.receive(PeerMessage::parse(&message.to_string()).unwrap());
                true
            }
            Step::Work(restarts_ice) => browser.work(restarts_ice),
            Step::NativeOffers => {
                native.negotiation.request_offer(*now);
                true
            }
            Step::NativeRestarts => native.negotiation.restart_ice(*now),
            Step::BrowserOffers => {
                browser.want_offer();
                true
            }
            Step::NativeGathers => {
                native.gather();
                true
            }
            Step::BrowserGathers => {
                browser.gather();
                true
            }
            Step::Twice => {
                if let Some(PeerMessage::Candidate(candidate)) = browser.outbox.front().cloned() {
                    browser.outbox.push_front(PeerMessage::Candidate(candidate));
                }
                true
            }
            Step::Lost(native_begins) => {
                native.outbox.clear();
                browser.outbox.clear();
                native.sent.clear();
                browser.sent.clear();
                // The timer of the other side ends an exchange that is stuck.
                if native_begins || !native.negotiation.is_at_rest() {
                    native.results.clear();
                    native.negotiation.replace_and_offer(*now);
                }
                if !native_begins || browser.signalling != Signalling::Stable || browser.making_offer {
                    browser.renew();
                    browser.want_offer();
                }
                true
            }
        };
        self.native.pump();
        self.connect();
        moved
    }

    /// Connects ICE and DTLS if both sides have each other's current transport.
    fn connect(&mut self) {
        let Self { now, native, browser, .. } = self;
        let pair = (native.connection.opened, browser.certificate);
        let agreed = browser.theirs == Some(native.connection.ufrag())
            && native.connection.theirs == browser.ufrag()
            && browser.signalling == Signalling::Stable
            && native.negotiation.is_stable();
        if agreed && self.connected != pair {
            self.connected = pair;
            native.negotiation.handle_connected(*now);
            native.pump();
            browser.connected = true;
        }
    }

    /// Executes steps until none is left, and no timer runs.
    fn settle(&mut self) {
        for _ in 0..400 {
            let all = [Step::Result, Step::ToNative, Step::ToBrowser, Step::Work(false)];
            if all.iter().filter(|step| self.step(**step)).count() > 0 {
                continue;
            }
            // No step is left: the clock advances to the next timeout.
            let Some(due) = self.native.negotiation.poll_timeout() else { return };
            self.now = due;
            self.native.negotiation.handle_timeout(due);
            self.native.pump();
        }
        panic!("the exchange does not end");
    }
}

/// Port of the candidates of transport 0; other transports count up from it.
const FIRST_PORT: usize = 9000;

/// Returns a candidate with the number `n`, of this transport.
fn line(n: usize, transport: usize) -> String {
    format!("candidate:{n} 1 udp 1 192.0.2.1 {} typ host", FIRST_PORT + transport)
}

/// Returns the first word of a candidate, which contains its number.
fn name(line: &str) -> &str {
    line.split(' ').next().unwrap()
}

fn of_transport<T: PartialEq>(sent: &[(T, String)], transport: T) -> BTreeSet<&str> {
    sent.iter().filter(|(of, _)| *of == transport).map(|(_, line)| name(line)).collect()
}

/// Executes `steps`, and checks that both sides then agree on the same descriptions and have all candidates of each
/// other.
fn agree(
    native_is_polite: bool,
    drops_added_lines: bool,
    page: &Page,
    steps: &[Step],
) -> Result<(), TestCaseError> {
    let native = Native::new(native_is_polite, drops_added_lines);
    // At least one side has to be polite. A page that does not know roomtone may be polite too: it accepts every
    // offer.
    let polite = !native_is_polite || page.keeps && page.polite;
    let browser = Browser::new(Page { polite, ..page.clone() });
    let mut pair = Pair { now: Instant::now(), native, browser, connected: (0, 0) };
    for step in steps {
        pair.step(*step);
    }
    if pair.browser.agreed.is_none() && pair.browser.signalling == Signalling::Stable {
        pair.step(Step::BrowserOffers);
    }
    pair.settle();
    let Pair { native, browser, .. } = &mut pair;
    prop_assert_eq!(&native.failed, &None);
    prop_assert!(native.negotiation.is_at_rest() && native.results.is_empty());
    prop_assert_eq!(browser.signalling, Signalling::Stable);
    // If both sides give way, each may have accepted the other's re-offer of the same m-lines.
    let both_give_way = polite && native_is_polite;
    if !both_give_way {
        prop_assert_eq!(
            browser.agreed,
            Some((native.applied_mark, native.sent_mark)),
            "the agreed descriptions"
        );
    }
    prop_assert_eq!(&native.connection.theirs, &browser.ufrag());
    let received: BTreeSet<&str> = native.connection.candidates.iter().map(|line| name(line)).collect();
    // Candidates of the current transport; after an ICE restart of the browser, earlier candidates may be there, too.
    let sent = of_transport(&browser.sent, browser.generation);
    let kinds =
        |lines: &[(String, String)]| lines.iter().map(|(kind, _)| kind.clone()).collect::<BTreeSet<_>>();
    prop_assert_eq!(kinds(&native.connection.lines), kinds(&browser.lines));
    prop_assert_eq!(native.connection.lines.len(), browser.lines.len());
    prop_assert!(both_give_way || received.is_superset(&sent), "{:?} of {:?}", received, sent);
    let received: BTreeSet<&str> = browser.candidates.iter().map(|c| name(&c.candidate)).collect();
    let ufrag = native.connection.ufrag();
    let restart = ufrag.split_once('.').map_or(0, |(_, number)| number.parse().unwrap());
    let sent = of_transport(&native.sent, (native.connection.opened, restart));
    prop_assert!(received.is_superset(&sent), "{:?} of {:?}", received, sent);
    Ok(())
}

proptest! {
    /// Tests that both sides agree, with either side polite, in any order of offers, restarts, candidates, duplicates
    /// and losses.
    #[test]
    fn our_side_and_a_browser_agree_in_any_order(
        native_is_polite in any::<bool>(), drops_added_lines in any::<bool>(), page in pages(),
        steps in prop::collection::vec(prop_oneof![
            6 => Just(Step::Result), 6 => Just(Step::ToNative), 6 => Just(Step::ToBrowser),
            4 => Just(Step::Work(false)), 1 => Just(Step::Work(true)),
            1 => Just(Step::NativeOffers), 1 => Just(Step::NativeRestarts), 1 => Just(Step::BrowserOffers),
            2 => Just(Step::NativeGathers), 2 => Just(Step::BrowserGathers), 1 => Just(Step::Twice),
            1 => any::<bool>().prop_map(Step::Lost),
        ], 0..80)
    ) {
        agree(native_is_polite, drops_added_lines, &page, &steps)?;
    }
}

fn pages() -> impl Strategy<Value = Page> {
    let brings = Just(vec!["audio", "video", "application"]).prop_shuffle();
    (any::<bool>(), any::<bool>(), brings, 1..4_usize).prop_map(|(polite, keeps, brings, first)| Page {
        polite,
        keeps,
        keeps_dtls: false,
        brings,
        first,
    })
}

/// Tests an offer of ours that reaches a page that began anew and whose own offer is on its way: the page's answer is
/// not used as the answer to the next offer of ours.
#[test]
fn the_answer_to_a_dropped_offer_is_not_used_for_the_next_offer() {
    use self::Step::{Lost, NativeOffers, Result, ToBrowser, ToNative, Work};
    let stands = [NativeOffers, Result, ToBrowser, ToNative, Result, Result];
    let begins_anew = [Lost(false), Work(false), NativeOffers, ToNative, NativeOffers, Result];
    let page = Page { polite: true, keeps: false, keeps_dtls: false, brings: vec!["video"], first: 1 };
    agree(false, true, &page, &[stands, begins_anew].concat()).unwrap();
}

/// Tests that an impolite side drops the candidates of the offer that it ignores, and no others.
#[test]
fn candidates_are_dropped_only_for_an_ignored_offer() {
    let page = Page { polite: true, keeps: true, keeps_dtls: false, brings: vec!["video"], first: 1 };
    let native = Native::new(false, true);
    let mut pair = Pair { now: Instant::now(), native, browser: Browser::new(page), connected: (0, 0) };
    pair.step(Step::NativeOffers);
    pair.settle();
    let current = pair.browser.generation;
    pair.step(Step::BrowserGathers);
    // Offers cross. That of the page restarts its ICE, and a candidate follows the offer.
    pair.step(Step::BrowserOffers);
    pair.step(Step::Work(true));
    let ignored = pair.browser.generation;
    assert_ne!(ignored, current);
    pair.step(Step::BrowserGathers);
    pair.step(Step::NativeOffers);
    pair.step(Step::Result);
    while pair.step(Step::ToNative) {}
    pair.settle();
    pair.step(Step::BrowserGathers);
    pair.settle();
    let Pair { native, browser, .. } = &pair;
    let received: BTreeSet<&str> = native.connection.candidates.iter().map(|line| name(line)).collect();
    let dropped: Vec<usize> =
        browser.sent.iter().filter(|(_, line)| !received.contains(name(line))).map(|(of, _)| *of).collect();
    assert_eq!(dropped, [ignored]);
    assert_eq!(browser.sent.len(), 3);
}
