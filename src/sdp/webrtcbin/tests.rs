//! Models of the peer and of webrtcbin around an [`Adapter`].

use proptest::prelude::*;

use super::{Adapter, Ours};
use crate::protocol::SdpKind;
use crate::sdp::{Direction, Kind, Line, Media, Sdp, SdpError, Section, add_missing_mids, validate};

const TRANSPORT: [&str; 4] = ["ice-ufrag", "ice-pwd", "fingerprint", "setup"];
const KINDS: [&str; 4] = ["audio", "video", "application", "text"];

/// Kind, mid, and whether the m-line is active.
type Wire = (&'static str, String, bool);

fn attributes((ufrag, fingerprint): (&str, &str), setup: &str) -> String {
    format!(
        "a=ice-ufrag:{ufrag}\na=ice-pwd:0123456789012345678901\na=fingerprint:{fingerprint}\na=setup:{setup}\n"
    )
}

fn format_of(kind: &str) -> &'static str {
    if kind == "application" { "UDP/DTLS/SCTP webrtc-datachannel" } else { "UDP/TLS/RTP/SAVPF 96" }
}

/// Builds a description of the peer. Only the tagged m-line, the first active one, has the transport attributes.
fn theirs(lines: &[Wire], setup: &str, has_mids: bool) -> Sdp {
    let live: Vec<&str> = lines.iter().filter(|line| line.2).map(|line| line.1.as_str()).collect();
    let mut text = format!("v=0\na=group:BUNDLE {}\n", live.join(" "));
    for (kind, mid, goes_on) in lines {
        text += &format!("m={kind} {} {}\n", if *goes_on { 9 } else { 0 }, format_of(kind));
        if has_mids || *goes_on {
            text += &format!("a=mid:{mid}\n");
        }
        if live.first() == Some(&mid.as_str()) {
            text += &attributes(("theirufrag", "sha-256 AA"), setup);
        }
    }
    Sdp::parse(&text).unwrap()
}

/// Builds a description as webrtcbin makes it: all m-lines, given by kinds and mids, in the bundle, and in an offer only the
/// first with a port. `mark` is the id of the description.
pub(crate) fn made_by_webrtcbin(
    lines: &[(String, String)],
    setup: &str,
    (ufrag, fingerprint): (&str, &str),
    mark: usize,
) -> Sdp {
    let mids: Vec<&str> = lines.iter().map(|(_, mid)| mid.as_str()).collect();
    let mut text = format!("v=0\no=- {mark} 1 IN IP4 0.0.0.0\na=group:BUNDLE {}\n", mids.join(" "));
    for (n, (kind, mid)) in lines.iter().enumerate() {
        let (port, only) = if n > 0 && setup == "actpass" { (0, "a=bundle-only\n") } else { (9, "") };
        text += &format!("m={kind} {port} {}\na=mid:{mid}\n{only}a=sendrecv\n", format_of(kind));
        text += &attributes((ufrag, fingerprint), setup);
    }
    Sdp::parse(&text).unwrap()
}

fn ours(lines: &[(String, String)], setup: &str) -> Sdp {
    made_by_webrtcbin(lines, setup, ("ourufrag", "sha-256 BB"), 0)
}

/// Returns kinds and mids of a description's m-lines.
pub(crate) fn lines(sdp: &Sdp) -> Vec<(String, String)> {
    sdp.media.iter().map(|media| (media.kind.clone(), media.mid().unwrap().to_owned())).collect()
}

/// Checks that webrtcbin 1.22 accepts a description: `validate_sdp`, `_check_sdp_crypto`, and the m-lines of its
/// bundle from `before`.
pub(crate) fn expect_fit_for_webrtcbin(sdp: &Sdp, before: &[(String, String)]) {
    assert!(lines(sdp).starts_with(before), "its m-lines stay: {:?} {before:?}", lines(sdp));
    let mids: Vec<&str> = sdp.media.iter().filter_map(Media::mid).collect();
    assert_eq!(sdp.attribute("group"), Some(format!("BUNDLE {}", mids.join(" ")).as_str()));
    for media in &sdp.media {
        assert!(media.attribute("bundle-only").is_none());
        for name in TRANSPORT {
            let all: Vec<&str> = media.attributes(name).collect();
            assert_eq!(all.len(), 1, "{name} in {}", media.kind);
            assert_eq!(all, sdp.media[0].attributes(name).collect::<Vec<_>>());
        }
        assert!(KINDS[..3].contains(&media.kind.as_str()), "webrtcbin knows no {}", media.kind);
    }
}

/// Checks the rules of RFC 8829, 5.2.2 and 5.3.1, and RFC 8843, 7.2 and 7.3.
fn expect_conform(sent: &Sdp, peer: &[Wire]) {
    let stands: Vec<(String, String)> = peer.iter().map(|line| (line.0.to_owned(), line.1.clone())).collect();
    assert!(lines(sent).starts_with(&stands), "order and mids stand: {:?} {stands:?}", lines(sent));
    let group: Vec<&str> = sent.attribute("group").unwrap().split(' ').skip(1).collect();
    for (n, media) in sent.media.iter().enumerate() {
        let mid = media.mid().unwrap();
        assert_eq!(sent.media.iter().filter(|other| other.mid() == Some(mid)).count(), 1);
        assert_eq!(group.iter().filter(|other| **other == mid).count(), usize::from(!media.is_rejected()));
        match media.is_rejected() {
            true => assert!(TRANSPORT.iter().all(|name| media.attribute(name).is_none())),
            false => assert!(TRANSPORT.iter().all(|name| media.attribute(name).is_some())),
        }
        if group.first() == Some(&mid) || n < peer.len() && !media.is_rejected() {
            assert!(
                media.rest.starts_with("9 ") && media.attribute("bundle-only").is_none(),
                "{}",
                media.rest
            );
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// An offer of the peer: each standing m-line is kept, rejected or reused for a kind; then new m-lines, each
    /// with whether it is active; then the m-lines that our side refuses.
    PeerOffers(Vec<(u8, usize)>, Vec<(usize, bool)>, Vec<bool>),
    /// An offer of ours: kinds of new m-lines, the m-lines that the peer rejects, and whether its rejected ones
    /// have mids.
    WeOffer(Vec<usize>, Vec<bool>, bool),
    /// An offer of ours over a fresh webrtcbin, which has its own order.
    Afresh(Vec<usize>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kinds = || prop::collection::vec(0_usize..3, 0..3);
    let flags = || prop::collection::vec(any::<bool>(), 8);
    let peer = (
        prop::collection::vec((0_u8..6, 0_usize..4), 8),
        prop::collection::vec((0_usize..4, any::<bool>()), 0..3),
        flags(),
    );
    prop::collection::vec(
        prop_oneof![
            3 => peer.prop_map(|(now, new, refuses)| Step::PeerOffers(now, new, refuses)),
            2 => (kinds(), flags(), any::<bool>()).prop_map(|(new, no, mids)| Step::WeOffer(new, no, mids)),
            1 => kinds().prop_map(Step::Afresh),
        ],
        1..8,
    )
}

/// Returns a description of webrtcbin as the peer gets it.
fn made(adapter: &mut Adapter, kind: SdpKind, sdp: Sdp) -> Sdp {
    adapter.made(kind, sdp, Ours { fingerprint: "sha-256 BB", credentials: None, idle: &[] })
}

/// Models of the peer and of webrtcbin.
#[derive(Default)]
struct World {
    adapter: Adapter,
    peer: Vec<Wire>,
    bin: Vec<(String, String)>,
    standing: Option<Sdp>,
    mids: usize,
}

impl World {
    fn peer_offers(&mut self, now: &[(u8, usize)], new: &[(usize, bool)], refuses: &[bool]) {
        let mut offered = self.peer.clone();
        for (line, (what, kind)) in offered.iter_mut().zip(now) {
            match what {
                0 => line.2 = false,
                1 if !line.2 => {
                    self.mids += 1;
                    *line = (KINDS[*kind], format!("p{}", self.mids), true);
                }
                _ => {}
            }
        }
        for (kind, goes_on) in new {
            self.mids += 1;
            offered.push((KINDS[*kind], format!("p{}", self.mids), *goes_on));
        }
        if offered.is_empty() {
            return;
        }
        let Ok(sdp) = validate(theirs(&offered, "actpass", true)) else { return };
        let Ok(remote) = self.adapter.remote(SdpKind::Offer, &sdp, &[]) else {
            // The offer has nothing that webrtcbin could handle.
            assert!(self.bin.is_empty() && offered.iter().all(|line| !line.2 || line.0 == "text"));
            return;
        };
        self.peer = offered;
        expect_fit_for_webrtcbin(&remote.sdp, &self.bin);
        self.bin = lines(&remote.sdp);
        let mut answer = ours(&self.bin, "active");
        // webrtcbin rejects an m-line by a copy of the offer's.
        for ((media, offered), refused) in answer.media.iter_mut().zip(&remote.sdp.media).zip(refuses) {
            if *refused {
                *media = offered.clone();
                media.rest = format!("0 {}", offered.formats());
            }
        }
        let is_accepted = answer.media.iter().any(|media| !media.is_rejected());
        let sent = made(&mut self.adapter, SdpKind::Answer, answer);
        let applied = self.adapter.local(&[]).unwrap();
        if is_accepted {
            expect_fit_for_webrtcbin(&applied, &self.bin);
            assert!(applied.media.iter().all(|media| media.attribute("ice-ufrag") == Some("ourufrag")));
        }
        assert_eq!(sent.media.len(), self.peer.len());
        expect_conform(&sent, &self.peer);
        for (line, media) in self.peer.iter_mut().zip(&sent.media) {
            assert!(line.2 || media.is_rejected(), "a rejected m-line stays rejected");
            line.2 &= !media.is_rejected();
        }
        self.standing = Some(sdp);
    }

    /// Makes an offer of ours; returns whether the peer accepts any of it.
    fn we_offer(&mut self, new: &[usize], rejects: &[bool], has_mids: bool) -> bool {
        for kind in new {
            self.bin.push((KINDS[*kind].to_owned(), format!("{}{}", KINDS[*kind], self.bin.len())));
        }
        if self.bin.is_empty() {
            return false;
        }
        self.adapter.kinds_to_offer(self.standing.as_ref());
        let sent = made(&mut self.adapter, SdpKind::Offer, ours(&self.bin, "actpass"));
        expect_conform(&sent, &self.peer);
        let mut answer: Vec<Wire> = vec![];
        for (n, media) in sent.media.iter().enumerate() {
            let kind = KINDS.into_iter().find(|kind| *kind == media.kind).unwrap();
            let goes_on = !media.is_rejected() && !rejects[n % rejects.len()];
            answer.push((kind, media.mid().unwrap().to_owned(), goes_on));
        }
        if answer.iter().all(|line| !line.2) {
            // A peer that rejects everything declines the call.
            return false;
        }
        let mut sdp = theirs(&answer, "active", has_mids);
        add_missing_mids(&mut sdp, &sent);
        let sdp = validate(sdp).unwrap();
        self.adapter.local(&[]).unwrap();
        let remote = self.adapter.remote(SdpKind::Answer, &sdp, &[]).unwrap();
        expect_fit_for_webrtcbin(&remote.sdp, &self.bin);
        assert_eq!(remote.sdp.media.len(), self.bin.len());
        for own in 0..self.bin.len() {
            let ours = self.adapter.candidate(u32::try_from(own).unwrap(), String::new());
            let line = &answer[ours.mline.unwrap() as usize];
            assert!(line.2 && Some(&line.1) == ours.mid.as_ref(), "a candidate of ours");
        }
        (self.standing, self.peer) = (Some(sdp), answer);
        true
    }
}

proptest! {
    /// Tests every mix of m-lines that either side rejects, reuses and adds, at every place.
    #[test]
    fn webrtcbin_gets_the_m_lines_that_it_needs_and_the_peer_those_of_the_rfcs(steps in steps()) {
        let mut world = World::default();
        for step in steps {
            match step {
                Step::PeerOffers(now, new, refuses) => world.peer_offers(&now, &new, &refuses),
                Step::WeOffer(new, rejects, has_mids) => {
                    let before = world.bin.clone();
                    if !world.we_offer(&new, &rejects, has_mids) {
                        world.bin = before;
                    }
                }
                Step::Afresh(mut new) => {
                    if new.is_empty() {
                        new.push(0);
                    }
                    (world.bin, world.adapter) = (vec![], Adapter::default());
                    prop_assert!(world.we_offer(&new, &[false], true));
                }
            }
        }
    }
}

fn own(kinds: &[&str]) -> Vec<(String, String)> {
    kinds.iter().map(|kind| ((*kind).to_owned(), format!("{kind}0"))).collect()
}

/// Makes an offer of ours and applies the answer that `answer` makes of it; returns the answer as webrtcbin gets it.
fn exchange(adapter: &mut Adapter, offer: Sdp, answer: impl Fn(&Sdp) -> Sdp) -> super::Remote {
    let sent = made(adapter, SdpKind::Offer, offer);
    let mut answer = answer(&sent);
    add_missing_mids(&mut answer, &sent);
    adapter.local(&[]).unwrap();
    adapter.remote(SdpKind::Answer, &validate(answer).unwrap(), &[]).unwrap()
}

/// Tests that the page's order is kept over a fresh webrtcbin, which has its own.
#[test]
fn a_fresh_connection_offers_in_the_standing_order() {
    let page =
        [("application", "0".to_owned(), true), ("audio", "1".into(), true), ("video", "2".into(), true)];
    let standing = validate(theirs(&page, "actpass", true)).unwrap();
    let mut adapter = Adapter::default();
    assert_eq!(adapter.kinds_to_offer(Some(&standing)), [Kind::Audio, Kind::Video]);
    let remote = exchange(&mut adapter, ours(&own(&["video", "audio", "application"]), "actpass"), |sent| {
        let mids: Vec<_> = page.iter().map(|line| (line.0.to_owned(), line.1.clone())).collect();
        assert_eq!((lines(sent), sent.attribute("group")), (mids, Some("BUNDLE 0 1 2")));
        assert!(sent.media.iter().all(|media| media.rest.starts_with("9 ")));
        let mut answer = theirs(&page, "active", true);
        answer.media[1].lines.push(Line::attribute("candidate", "1 1 udp 1 192.0.2.1 9 typ host"));
        answer
    });
    let candidate = adapter.candidate(0, String::new());
    assert_eq!((candidate.mline, candidate.mid.as_deref()), (Some(2), Some("2")));
    let candidates: Vec<_> = remote.sdp.media.iter().map(|m| m.attributes("candidate").count()).collect();
    assert_eq!(candidates, [1, 0, 0], "webrtcbin uses the candidates of its first m-line alone");
}

#[test]
fn a_peer_may_accept_video_alone_and_leave_out_all_else_of_a_rejected_m_line() {
    let offer = || ours(&own(&["audio", "video"]), "actpass");
    let mut adapter = Adapter::default();
    let video_alone = |sent: &Sdp| {
        let video = sent.media[1].mid().unwrap().to_owned();
        theirs(&[("audio", "?".into(), false), ("video", video, true)], "active", false)
    };
    let remote = exchange(&mut adapter, offer(), video_alone);
    assert_eq!((remote.rejected, remote.flows[0]), (vec![0], Direction { send: false, receive: false }));
    let candidate = adapter.candidate(0, String::new());
    assert_eq!((candidate.mline, candidate.mid.as_deref()), (Some(1), Some("video0")), "an active m-line");
    // A later offer of ours still has the rejected m-line, with port 0.
    let sent = made(&mut adapter, SdpKind::Offer, offer());
    assert!(sent.media[0].is_rejected() && sent.attribute("group") == Some("BUNDLE video0"));
    // An answer with fewer m-lines belongs to another offer.
    let mut answer = validate(video_alone(&sent)).unwrap();
    answer.media.pop();
    adapter.local(&[]).unwrap();
    assert_eq!(adapter.remote(SdpKind::Answer, &answer, &[]), Err(SdpError::OtherLines));
}
