//! The m-lines of one connection in two orders: the peer's, which stays the same for the whole life of its
//! `RTCPeerConnection` (RFC 8829, 5.2.2), and webrtcbin's, which starts empty with each fresh webrtcbin.
//!
//! An m-line that the peer rejected has port 0 and needs no transport attributes (RFC 8843, 7.3.3). webrtcbin (1.22
//! to 1.28) requires these attributes nevertheless, needs the m-line that names its bundle, and copies attributes of
//! the last description into the next. [`Layout`] therefore shows webrtcbin a rejected m-line that it knows as an
//! active one, and hides an m-line that it never knew. The peer gets port 0, at the same place, in every description.

use super::{Direction, Kind, Line, MAX_MLINES, Media, Sdp, SdpError, Section};

/// Transport attributes, the same in all m-lines of a bundle.
const TRANSPORT: [&str; 4] = ["ice-ufrag", "ice-pwd", "fingerprint", "setup"];
/// Attributes that describe our side only, and are removed from a description made in the peer's place.
const OURS: [&str; 9] = [
    "ice-options",
    "candidate",
    "end-of-candidates",
    "ssrc",
    "ssrc-group",
    "msid",
    "bundle-only",
    "rtcp-mux-only",
    "rtcp",
];

/// An m-line of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    mid: String,
    kind: String,
    /// Protocol and formats: the text behind the port.
    formats: String,
    /// Index of webrtcbin's m-line for it.
    own: Option<usize>,
    /// Whether it is rejected (port 0) and carries nothing.
    is_rejected: bool,
    /// Whether a description of the peer had this m-line.
    is_agreed: bool,
}

/// Mapping between the m-lines of the peer and those of webrtcbin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// M-lines in the peer's order.
    slots: Vec<Slot>,
    /// Mids of webrtcbin's m-lines, in its order.
    own: Vec<String>,
    /// Mids of the BUNDLE group, the tagged one first.
    group: Vec<String>,
}

/// A description of the peer, rewritten for webrtcbin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Mapping of the m-lines once this description is applied.
    pub layout: Layout,
    /// The description, in webrtcbin's order and with its mids.
    pub sdp: Sdp,
    /// The peer's true directions, indexed by webrtcbin's m-lines.
    pub flows: Vec<Direction>,
    /// Indexes of webrtcbin's m-lines that the peer does not have, or has rejected.
    pub rejected: Vec<usize>,
}

const NOTHING: Direction = Direction { send: false, receive: false };

impl Layout {
    /// Returns the m-lines of a description of the peer, for a fresh webrtcbin.
    pub fn of_peer(theirs: &Sdp) -> Self {
        let slot = |media: &Media| Slot {
            mid: media.mid().unwrap_or_default().to_owned(),
            kind: media.kind.clone(),
            formats: formats(media).to_owned(),
            own: None,
            is_rejected: media.is_rejected() || !is_understood(media),
            is_agreed: true,
        };
        Self { slots: theirs.media.iter().map(slot).collect(), own: vec![], group: group(theirs) }
    }

    /// Returns whether a description of the peer has these m-lines, in this order and with these mids.
    pub fn has_lines_of(&self, theirs: &Sdp) -> bool {
        let mut all = self.slots.iter().zip(&theirs.media);
        let same = |(slot, media): (&Slot, &Media)| media.mid() == Some(&slot.mid) && media.kind == slot.kind;
        self.slots.len() == theirs.media.len() && all.all(same)
    }

    /// Returns the same m-lines of the peer without those of webrtcbin, for a fresh webrtcbin.
    pub fn standing(&self) -> Self {
        let slots = self.slots.iter().map(|slot| Slot { own: None, ..slot.clone() });
        Self { slots: slots.collect(), own: vec![], group: self.group.clone() }
    }

    /// Returns whether the peer has m-lines of that kind and rejected all of them.
    pub fn is_refused(&self, kind: Kind) -> bool {
        let mut of_kind = self.slots.iter().filter(|slot| slot.kind == kind.as_str()).peekable();
        of_kind.peek().is_some() && of_kind.all(|slot| slot.is_rejected)
    }

    /// Returns the kinds of the peer's active m-lines that have no m-line of webrtcbin yet.
    pub fn awaited(&self) -> Vec<Kind> {
        let open = self.slots.iter().filter(|slot| slot.own.is_none() && !slot.is_rejected);
        open.filter_map(|slot| Kind::ALL.into_iter().find(|kind| kind.as_str() == slot.kind)).collect()
    }

    /// Returns the peer's index and mid for a candidate of ours. All m-lines share one transport: a candidate of an
    /// m-line that the peer rejected is sent with the first active one.
    pub fn told_line(&self, own: u32) -> Option<(u32, &str)> {
        let goes_on = |slot: &Slot| !slot.is_rejected && slot.own.is_some();
        let same = |slot: &Slot| goes_on(slot) && slot.own == Some(own as usize);
        let at = self.slots.iter().position(same).or_else(|| self.slots.iter().position(goes_on))?;
        Some((u32::try_from(at).ok()?, &self.slots[at].mid))
    }

    /// Returns webrtcbin's m-line for a candidate of the peer, which names its m-line by mid or by index. The result
    /// is the first m-line for every known name: webrtcbin drops candidates of any m-line but the one that names its
    /// bundle.
    pub fn shown_line(&self, mid: Option<&str>, mline: Option<u32>) -> Option<u32> {
        let by_mid = mid.is_some_and(|mid| self.slots.iter().any(|slot| slot.mid == mid));
        let by_index = || mline.is_some_and(|mline| (mline as usize) < self.slots.len());
        (!self.own.is_empty() && (by_mid || by_index())).then_some(0)
    }

    /// Adds the mids of the offer to m-lines of an answer without mid: rejected m-lines need none.
    pub fn name_answer(&self, answer: &mut Sdp) {
        for (media, slot) in answer.media.iter_mut().zip(&self.slots) {
            if media.mid().is_none() {
                media.set_attribute("mid", &slot.mid);
            }
        }
    }

    /// Rewrites an offer of webrtcbin for the peer. A new m-line takes the place of a standing one of the same kind
    /// that has no m-line of webrtcbin, or is appended; standing m-lines that are not offered are rejected.
    pub fn tell_offer(&self, ours: &Sdp) -> (Self, Sdp) {
        let mut next = self.clone();
        // webrtcbin leaves out its last m-line, that of data channels, if all of them are closed.
        next.own.truncate(ours.media.len());
        next.slots
            .iter_mut()
            .filter(|slot| slot.own >= Some(next.own.len()))
            .for_each(|slot| slot.own = None);
        for (own, media) in ours.media.iter().enumerate().skip(self.own.len()) {
            let mid = media.mid().unwrap_or_default().to_owned();
            let open = |slot: &&mut Slot| slot.own.is_none() && !slot.is_rejected && slot.kind == media.kind;
            match next.slots.iter_mut().find(open) {
                Some(slot) => slot.own = Some(own),
                None => {
                    let mid = unused(&mid, next.slots.iter().map(|slot| slot.mid.as_str()));
                    next.slots.push(Slot {
                        mid,
                        kind: media.kind.clone(),
                        formats: formats(media).to_owned(),
                        own: Some(own),
                        is_rejected: false,
                        is_agreed: false,
                    });
                }
            }
            next.own.push(mid);
        }
        next.slots.iter_mut().filter(|slot| slot.own.is_none()).for_each(|slot| slot.is_rejected = true);
        let told = next.tell(ours);
        next.group = group(&told);
        (next, told)
    }

    /// Rewrites webrtcbin's answer to the peer's last shown offer for the peer.
    pub fn tell_answer(&self, ours: &Sdp) -> Sdp {
        self.tell(ours)
    }

    /// Rewrites a description of webrtcbin into the peer's order and with its mids.
    fn tell(&self, ours: &Sdp) -> Sdp {
        let goes_on = |slot: &Slot| {
            let own = slot.own.and_then(|own| ours.media.get(own));
            own.filter(|media| !slot.is_rejected && !media.is_rejected()).cloned()
        };
        let lines: Vec<Option<Media>> = self.slots.iter().map(goes_on).collect();
        let is_live = |mid: &&str| self.slots.iter().zip(&lines).any(|(s, l)| s.mid == *mid && l.is_some());
        let known = self.group.iter().map(String::as_str).filter(is_live);
        let mut group: Vec<&str> = known.collect();
        let all = self.slots.iter().map(|slot| slot.mid.as_str()).filter(is_live);
        let new: Vec<&str> = all.filter(|mid| !group.contains(mid)).collect();
        group.extend(new);
        let mut session: Vec<Line> = ours.session.clone();
        if ours.attribute("group").is_some() {
            session.retain(|line| line.as_attribute().is_none_or(|(name, _)| name != "group"));
            session.push(Line::attribute("group", format!("BUNDLE {}", group.join(" ")).trim_end()));
        }
        let media = self.slots.iter().zip(lines).map(|(slot, line)| match line {
            Some(mut media) => {
                media.set_attribute("mid", &slot.mid);
                // The tagged m-line has a port, and so has an m-line that was agreed on before (RFC 8843, 7.2.2).
                if slot.is_agreed || group.first() == Some(&slot.mid.as_str()) {
                    give_port(&mut media);
                }
                media
            }
            None => slot.placeholder(),
        });
        Sdp { session, media: media.collect() }
    }

    /// Rewrites our answer for webrtcbin to apply: m-lines that webrtcbin itself rejects get the attributes of its
    /// own transport instead of the peer's, and its bundle keeps all of its m-lines.
    pub fn hold(&self, ours: &Sdp) -> Sdp {
        let mut held = ours.clone();
        let Some(live) = ours.media.iter().find(|media| !media.is_rejected()) else { return held };
        for media in held.media.iter_mut().filter(|media| media.is_rejected()) {
            carry(media, live);
        }
        if held.attribute("group").is_some() {
            held.set_attribute("group", &format!("BUNDLE {}", self.own.join(" ")));
        }
        held
    }

    /// Rewrites the peer's offer for webrtcbin; `local` is webrtcbin's current local description.
    pub fn show_offer(&self, theirs: &Sdp, local: Option<&Sdp>) -> Result<Shown, SdpError> {
        let mut next = self.clone();
        next.slots.truncate(theirs.media.len());
        next.group = group(theirs);
        for (at, media) in theirs.media.iter().enumerate() {
            let mid = media.mid().unwrap_or_default();
            let stands = |slot: &&Slot| !slot.is_rejected && slot.mid == mid && slot.kind == media.kind;
            let before = next.slots.get(at);
            let known = before.filter(stands).and_then(|slot| slot.own);
            let is_live = !media.is_rejected()
                && is_understood(media)
                && (known.is_some() || next.own.len() < MAX_MLINES);
            let own = match known {
                // The m-line is new to webrtcbin, even if it reuses a rejected one, perhaps for another kind.
                None if is_live => {
                    let mid = unused(mid, next.own.iter().map(String::as_str));
                    next.own.push(mid);
                    Some(next.own.len() - 1)
                }
                None => before.and_then(|slot| slot.own),
                Some(own) => Some(own),
            };
            let slot = Slot {
                mid: mid.to_owned(),
                kind: media.kind.clone(),
                formats: formats(media).to_owned(),
                own,
                is_rejected: !is_live,
                is_agreed: true,
            };
            match next.slots.get_mut(at) {
                Some(there) => *there = slot,
                None => next.slots.push(slot),
            }
        }
        next.show(theirs, local)
    }

    /// Rewrites the peer's answer to our offer `ours` for webrtcbin.
    pub fn show_answer(&self, theirs: &Sdp, ours: &Sdp) -> Result<Shown, SdpError> {
        if !self.has_lines_of(theirs) {
            return Err(SdpError::OtherLines);
        }
        let mut next = self.clone();
        for (slot, media) in next.slots.iter_mut().zip(&theirs.media) {
            slot.is_rejected |= media.is_rejected();
            slot.is_agreed = true;
        }
        next.show(theirs, Some(ours))
    }

    fn show(self, theirs: &Sdp, local: Option<&Sdp>) -> Result<Shown, SdpError> {
        let source = theirs.media.iter().find(|media| !media.is_rejected());
        let (Some(source), false) = (source, self.own.is_empty()) else { return Err(SdpError::MLines(0)) };
        let (mut media, mut flows, mut rejected) = (vec![], vec![], vec![]);
        for (own, mid) in self.own.iter().enumerate() {
            let goes_on = |slot: &Slot| slot.own == Some(own) && !slot.is_rejected;
            let mut line = match self.slots.iter().position(goes_on).and_then(|at| theirs.media.get(at)) {
                Some(line) => {
                    flows.push(line.direction());
                    let mut line = line.clone();
                    give_port(&mut line);
                    line
                }
                None => {
                    flows.push(NOTHING);
                    rejected.push(own);
                    let ours = local.and_then(|local| local.media.get(own)).ok_or(SdpError::OtherLines)?;
                    mirrored(ours)
                }
            };
            line.set_attribute("mid", mid);
            carry(&mut line, source);
            media.push(line);
        }
        gather_candidates(&mut media);
        let mut session = theirs.session.clone();
        session.retain(|line| line.as_attribute().is_none_or(|(name, _)| name != "group"));
        session.push(Line::attribute("group", &format!("BUNDLE {}", self.own.join(" "))));
        Ok(Shown { sdp: Sdp { session, media }, layout: self, flows, rejected })
    }
}

impl Slot {
    /// Returns the m-line in its rejected form, with port 0.
    fn placeholder(&self) -> Media {
        let lines = vec![
            Line { letter: 'c', value: "IN IP4 0.0.0.0".to_owned() },
            Line::attribute("mid", &self.mid),
            Line::attribute("inactive", ""),
        ];
        Media { kind: self.kind.clone(), rest: format!("0 {}", self.formats), lines }
    }
}

/// Returns whether webrtcbin can handle this m-line: audio, video or a data channel over SCTP.
fn is_understood(media: &Media) -> bool {
    Kind::of(media).is_some() || media.kind == "application" && formats(media).contains("SCTP")
}

/// Moves all candidates to the first m-line: webrtcbin ignores candidates of the others.
fn gather_candidates(media: &mut [Media]) {
    let is_candidate = |line: &Line| line.letter == 'a' && line.value.starts_with("candidate:");
    let mut all: Vec<Line> = vec![];
    for line in media.iter_mut().flat_map(|media| media.lines.extract_if(.., |line| is_candidate(line))) {
        if !all.contains(&line) {
            all.push(line);
        }
    }
    if let Some(first) = media.first_mut() {
        first.lines.extend(all);
    }
}

/// Returns protocol and formats: the text behind the port.
fn formats(media: &Media) -> &str {
    media.rest.split_once(' ').map_or("", |(_, formats)| formats)
}

fn give_port(media: &mut Media) {
    media.remove_attribute("bundle-only");
    if media.rest.split(' ').next() == Some("0") {
        media.rest = format!("9 {}", formats(media));
    }
}

/// Replaces the transport attributes by those of another m-line of the bundle.
fn carry(media: &mut Media, source: &Media) {
    for name in TRANSPORT {
        if media.attributes(name).eq(source.attributes(name)) {
            continue;
        }
        media.remove_attribute(name);
        media.lines.extend(source.attributes(name).map(|value| Line::attribute(name, value)));
    }
}

/// Returns our m-line as a peer that accepts all of it would answer or repeat it.
fn mirrored(ours: &Media) -> Media {
    let mut media = ours.clone();
    // An m-line that webrtcbin itself rejected stays rejected.
    if !ours.is_rejected() {
        give_port(&mut media);
    }
    for name in OURS.iter().chain(&TRANSPORT) {
        media.remove_attribute(name);
    }
    if Kind::of(ours).is_some() {
        media.set_direction(ours.direction().reversed());
    }
    media
}

/// Returns the mids of a description's BUNDLE group.
fn group(sdp: &Sdp) -> Vec<String> {
    let group = sdp.attributes("group").find_map(|value| value.strip_prefix("BUNDLE"));
    group.into_iter().flat_map(str::split_whitespace).map(str::to_owned).collect()
}

/// Returns `mid`, or another one if `mid` is empty or taken.
fn unused<'a>(mid: &str, taken: impl Iterator<Item = &'a str> + Clone) -> String {
    let is_free = |name: &str| !name.is_empty() && !taken.clone().any(|other| other == name);
    let others = (0..=MAX_MLINES * 2).map(|n| format!("m{n}"));
    std::iter::once(mid.to_owned()).chain(others).find(|name| is_free(name)).unwrap_or_else(|| mid.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::normalise;
    use super::*;

    const KINDS: [&str; 4] = ["audio", "video", "application", "text"];

    /// Kind, mid, and whether the m-line is active.
    type Wire = (&'static str, String, bool);

    fn attributes(who: &str, setup: &str) -> String {
        format!(
            "a=ice-ufrag:{who}ufrag\na=ice-pwd:0123456789012345678901\na=fingerprint:sha-256 {}\na=setup:{setup}\n",
            if who == "their" { "AA" } else { "BB" }
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
                text += &attributes("their", setup);
            }
        }
        Sdp::parse(&text).unwrap()
    }

    /// Builds a description as webrtcbin makes it: all m-lines in the bundle, and in an offer only the first with a
    /// port.
    fn ours(lines: &[(String, String)], setup: &str) -> Sdp {
        let mids: Vec<&str> = lines.iter().map(|(_, mid)| mid.as_str()).collect();
        let mut text = format!("v=0\na=group:BUNDLE {}\n", mids.join(" "));
        for (n, (kind, mid)) in lines.iter().enumerate() {
            let (port, only) = if n > 0 && setup == "actpass" { (0, "a=bundle-only\n") } else { (9, "") };
            text += &format!("m={kind} {port} {}\na=mid:{mid}\n{only}a=sendrecv\n", format_of(kind));
            text += &attributes("our", setup);
        }
        Sdp::parse(&text).unwrap()
    }

    fn lines(sdp: &Sdp) -> Vec<(String, String)> {
        sdp.media.iter().map(|media| (media.kind.clone(), media.mid().unwrap().to_owned())).collect()
    }

    /// Checks that webrtcbin 1.22 accepts a description: `validate_sdp`, `_check_sdp_crypto`, and the m-lines of its
    /// bundle from `before`.
    fn expect_fit_for_webrtcbin(sdp: &Sdp, before: &[(String, String)]) {
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
    fn expect_conform(told: &Sdp, peer: &[Wire]) {
        let stands: Vec<(String, String)> =
            peer.iter().map(|line| (line.0.to_owned(), line.1.clone())).collect();
        assert!(lines(told).starts_with(&stands), "order and mids stand: {:?} {stands:?}", lines(told));
        let group = group(told);
        for (n, media) in told.media.iter().enumerate() {
            let mid = media.mid().unwrap();
            assert_eq!(told.media.iter().filter(|other| other.mid() == Some(mid)).count(), 1);
            assert_eq!(group.iter().filter(|other| *other == mid).count(), usize::from(!media.is_rejected()));
            match media.is_rejected() {
                true => assert!(TRANSPORT.iter().all(|name| media.attribute(name).is_none())),
                false => assert!(TRANSPORT.iter().all(|name| media.attribute(name).is_some())),
            }
            if group.first().map(String::as_str) == Some(mid) || n < peer.len() && !media.is_rejected() {
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

    /// Models of the peer and of webrtcbin around a [`Layout`].
    #[derive(Default)]
    struct World {
        layout: Layout,
        peer: Vec<Wire>,
        bin: Vec<(String, String)>,
        local: Option<Sdp>,
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
            let Ok(sdp) = normalise(theirs(&offered, "actpass", true)) else { return };
            let Ok(shown) = self.layout.show_offer(&sdp, self.local.as_ref()) else {
                // The offer has nothing that webrtcbin could handle.
                assert!(self.bin.is_empty() && offered.iter().all(|line| !line.2 || line.0 == "text"));
                return;
            };
            self.peer = offered;
            expect_fit_for_webrtcbin(&shown.sdp, &self.bin);
            (self.layout, self.bin) = (shown.layout, lines(&shown.sdp));
            let mut answer = ours(&self.bin, "active");
            // webrtcbin rejects an m-line by a copy of the offer's.
            for ((media, offered), refused) in answer.media.iter_mut().zip(&shown.sdp.media).zip(refuses) {
                if *refused {
                    *media = offered.clone();
                    media.rest = format!("0 {}", formats(offered));
                }
            }
            let held = self.layout.hold(&answer);
            if answer.media.iter().any(|media| !media.is_rejected()) {
                expect_fit_for_webrtcbin(&held, &self.bin);
                assert!(held.media.iter().all(|media| media.attribute("ice-ufrag") == Some("ourufrag")));
            }
            let told = self.layout.tell_answer(&answer);
            assert_eq!(told.media.len(), self.peer.len());
            expect_conform(&told, &self.peer);
            for (line, media) in self.peer.iter_mut().zip(&told.media) {
                assert!(line.2 || media.is_rejected(), "what is rejected stays so");
                line.2 &= !media.is_rejected();
            }
            self.local = Some(held);
        }

        fn we_offer(&mut self, new: &[usize], rejects: &[bool], has_mids: bool) {
            for kind in new {
                self.bin.push((KINDS[*kind].to_owned(), format!("{}{}", KINDS[*kind], self.bin.len())));
            }
            if self.bin.is_empty() {
                return;
            }
            let offer = ours(&self.bin, "actpass");
            let (layout, told) = self.layout.tell_offer(&offer);
            expect_conform(&told, &self.peer);
            let mut answer: Vec<Wire> = vec![];
            for (n, media) in told.media.iter().enumerate() {
                let kind = KINDS.into_iter().find(|kind| *kind == media.kind).unwrap();
                let goes_on = !media.is_rejected() && !rejects[n % rejects.len()];
                answer.push((kind, media.mid().unwrap().to_owned(), goes_on));
            }
            if answer.iter().all(|line| !line.2) {
                // A peer that rejects everything declines the call.
                return;
            }
            let mut sdp = theirs(&answer, "active", has_mids);
            layout.name_answer(&mut sdp);
            let shown = layout.show_answer(&normalise(sdp).unwrap(), &offer).unwrap();
            expect_fit_for_webrtcbin(&shown.sdp, &self.bin);
            assert_eq!(shown.sdp.media.len(), self.bin.len());
            let live = |own: usize| shown.layout.told_line(u32::try_from(own).unwrap()).unwrap();
            for own in 0..self.bin.len() {
                let (mline, mid) = live(own);
                assert!(answer[mline as usize].2 && answer[mline as usize].1 == mid, "a candidate of ours");
            }
            (self.layout, self.local, self.peer) = (shown.layout, Some(offer), answer);
        }
    }

    proptest! {
        /// Tests every mix of m-lines that either side rejects, reuses and adds, at every place.
        #[test]
        fn webrtcbin_gets_what_it_needs_and_the_peer_what_the_rfcs_say(steps in steps()) {
            let mut world = World::default();
            for step in steps {
                match step {
                    Step::PeerOffers(now, new, refuses) => world.peer_offers(&now, &new, &refuses),
                    Step::WeOffer(new, rejects, has_mids) => {
                        let before = (world.bin.clone(), world.local.clone());
                        world.we_offer(&new, &rejects, has_mids);
                        if world.local == before.1 {
                            world.bin = before.0;
                        }
                    }
                    Step::Afresh(mut new) => {
                        if new.is_empty() {
                            new.push(0);
                        }
                        world.layout = world.layout.standing();
                        (world.bin, world.local) = (vec![], None);
                        world.we_offer(&new, &[false], true);
                        prop_assert!(world.local.is_some());
                    }
                }
            }
        }
    }

    /// Tests an offer after all data channels were closed: webrtcbin has no m-line for them any more.
    #[test]
    fn an_m_line_that_webrtcbin_leaves_out_is_rejected() {
        let own =
            |kinds: &[&str]| kinds.iter().map(|kind| ((*kind).to_owned(), format!("{kind}0"))).collect();
        let both: Vec<(String, String)> = own(&["video", "application"]);
        let (layout, told) = Layout::default().tell_offer(&ours(&both, "actpass"));
        let answer = |told: &Sdp| {
            let of = |(n, media): (usize, &Media)| {
                (["video", "application"][n], media.mid().unwrap().to_owned(), !media.is_rejected())
            };
            normalise(theirs(&told.media.iter().enumerate().map(of).collect::<Vec<_>>(), "active", true))
                .unwrap()
        };
        let layout = layout.show_answer(&answer(&told), &ours(&both, "actpass")).unwrap().layout;
        let left = ours(&both[..1], "actpass");
        let (layout, told) = layout.tell_offer(&left);
        assert_eq!((told.media.len(), told.media[1].is_rejected()), (2, true));
        let shown = layout.show_answer(&answer(&told), &left).unwrap();
        assert_eq!(lines(&shown.sdp), both[..1]);
        // A channel that is opened later gets a new m-line.
        let (_, told) = shown.layout.tell_offer(&ours(&both, "actpass"));
        assert_eq!(told.media.iter().map(Media::is_rejected).collect::<Vec<_>>(), [false, true, false]);
    }

    /// Tests that the page's order is kept over a fresh webrtcbin, which has its own.
    #[test]
    fn a_fresh_connection_offers_in_the_order_that_stands() {
        let page =
            [("application", "0".to_owned(), true), ("audio", "1".into(), true), ("video", "2".into(), true)];
        let offer = normalise(theirs(&page, "actpass", true)).unwrap();
        let layout = Layout::default().show_offer(&offer, None).unwrap().layout.standing();
        assert_eq!(layout.awaited(), [Kind::Audio, Kind::Video]);
        let own: Vec<(String, String)> =
            ["video", "audio", "application"].map(|k| (k.to_owned(), format!("{k}0"))).into();
        let fresh = ours(&own, "actpass");
        let (layout, told) = layout.tell_offer(&fresh);
        let mids: Vec<_> = page.iter().map(|line| (line.0.to_owned(), line.1.clone())).collect();
        assert_eq!((lines(&told), told.attribute("group")), (mids, Some("BUNDLE 0 1 2")));
        assert!(told.media.iter().all(|media| media.rest.starts_with("9 ")));
        assert_eq!(layout.told_line(0), Some((2, "2")));
        assert_eq!(
            (layout.shown_line(Some("1"), None), layout.shown_line(None, Some(2))),
            (Some(0), Some(0))
        );
        assert_eq!(
            (layout.shown_line(Some("?"), Some(0)), layout.shown_line(None, Some(3))),
            (Some(0), None)
        );
        let mut answer = theirs(&page, "active", true);
        answer.media[1].lines.push(Line::attribute("candidate", "1 1 udp 1 192.0.2.1 9 typ host"));
        let shown = layout.show_answer(&normalise(answer).unwrap(), &fresh).unwrap();
        let candidates: Vec<_> = shown.sdp.media.iter().map(|m| m.attributes("candidate").count()).collect();
        assert_eq!(candidates, [1, 0, 0], "webrtcbin takes those of its first m-line");
    }

    #[test]
    fn who_takes_pictures_alone_may_leave_out_everything_else() {
        let own: Vec<(String, String)> = ["audio", "video"].map(|k| (k.to_owned(), format!("{k}0"))).into();
        let offer = ours(&own, "actpass");
        let (layout, told) = Layout::default().tell_offer(&offer);
        let mut answer = theirs(
            &[("audio", "?".into(), false), ("video", told.media[1].mid().unwrap().to_owned(), true)],
            "active",
            false,
        );
        layout.name_answer(&mut answer);
        let shown = layout.show_answer(&normalise(answer.clone()).unwrap(), &offer).unwrap();
        assert_eq!((shown.rejected, shown.flows[0]), (vec![0], NOTHING));
        assert!(shown.layout.is_refused(Kind::Audio) && !shown.layout.is_refused(Kind::Video));
        assert_eq!(
            shown.layout.told_line(0),
            Some((1, "video0")),
            "a candidate needs an m-line that goes on"
        );
        // A later offer of ours still has the rejected m-line, with port 0.
        let (_, told) = shown.layout.tell_offer(&offer);
        assert!(told.media[0].is_rejected() && told.attribute("group") == Some("BUNDLE video0"));
        // An answer with fewer m-lines belongs to another offer.
        answer.media.pop();
        assert_eq!(layout.show_answer(&answer, &offer), Err(SdpError::OtherLines));
    }
}
