//! The m-lines of one connection in two orders: the peer's, which stays the same for the whole life of its
//! `RTCPeerConnection` (RFC 8829, 5.2.2), and webrtcbin's, which starts empty with each fresh webrtcbin.
//!
//! An m-line that the peer rejected has port 0 and needs no transport attributes (RFC 8843, 7.3.3). webrtcbin (1.22
//! to 1.28) requires these attributes nevertheless, needs the m-line that names its bundle, and copies attributes of
//! the last description into the next. [`Layout`] therefore shows webrtcbin a rejected m-line that it knows as an
//! active one, and hides an m-line that it never knew. The peer gets port 0, at the same place, in every description.

use crate::sdp::{Direction, Kind, Line, MAX_MLINES, Media, Sdp, SdpError, Section};

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
pub(super) struct Layout {
    /// M-lines in the peer's order.
    slots: Vec<Slot>,
    /// Mids of webrtcbin's m-lines, in its order.
    own: Vec<String>,
    /// Mids of the BUNDLE group, the tagged one first.
    group: Vec<String>,
}

/// A description of the peer, rewritten for webrtcbin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// The description, with the m-lines and directions of our side.
    pub sdp: Sdp,
    /// The peer's true directions, by webrtcbin's m-lines; none on rejected m-lines.
    pub flows: Vec<Direction>,
    /// Indexes of webrtcbin's m-lines that the peer does not have, or has rejected.
    pub rejected: Vec<usize>,
}

const NOTHING: Direction = Direction { send: false, receive: false };

impl Layout {
    /// Returns the layout of a fresh webrtcbin, for a peer that has the m-lines of `standing`: a description of the peer, or an
    /// offer of ours that it may have applied.
    pub(super) fn fresh(standing: &Sdp) -> Self {
        let slot = |media: &Media| Slot {
            mid: media.mid().unwrap_or_default().to_owned(),
            kind: media.kind.clone(),
            formats: media.formats().to_owned(),
            own: None,
            is_rejected: media.is_rejected() || !is_understood(media),
            is_agreed: media.attribute("bundle-only").is_none(),
        };
        Self { slots: standing.media.iter().map(slot).collect(), own: vec![], group: group(standing) }
    }

    /// Returns whether no description was exchanged yet.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Returns the kinds of the peer's active m-lines that have no m-line of webrtcbin yet.
    pub(super) fn awaited(&self) -> Vec<Kind> {
        let open = self.slots.iter().filter(|slot| slot.own.is_none() && !slot.is_rejected);
        open.filter_map(|slot| Kind::ALL.into_iter().find(|kind| kind.as_str() == slot.kind)).collect()
    }

    /// Returns the peer's index and mid for a candidate of ours. All m-lines share one transport: a candidate of an
    /// m-line that the peer rejected is sent with the first active one.
    pub(super) fn peer_mline(&self, own: u32) -> Option<(u32, &str)> {
        let goes_on = |slot: &Slot| !slot.is_rejected && slot.own.is_some();
        let same = |slot: &Slot| goes_on(slot) && slot.own == Some(own as usize);
        let at = self.slots.iter().position(same).or_else(|| self.slots.iter().position(goes_on))?;
        Some((u32::try_from(at).ok()?, &self.slots[at].mid))
    }

    /// Rewrites an offer of webrtcbin for the peer. A new m-line takes the place of a standing one of the same kind
    /// that has no m-line of webrtcbin, or is appended; standing m-lines that are not offered are rejected.
    pub(super) fn offer_to_peer(&self, ours: &Sdp) -> (Self, Sdp) {
        let mut next = self.clone();
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
                        formats: media.formats().to_owned(),
                        own: Some(own),
                        is_rejected: false,
                        is_agreed: false,
                    });
                }
            }
            next.own.push(mid);
        }
        next.slots.iter_mut().filter(|slot| slot.own.is_none()).for_each(|slot| slot.is_rejected = true);
        let sent = next.to_peer(ours);
        next.group = group(&sent);
        (next, sent)
    }

    /// Rewrites webrtcbin's answer to the peer's last shown offer for the peer.
    pub(super) fn answer_to_peer(&self, ours: &Sdp) -> Sdp {
        self.to_peer(ours)
    }

    /// Rewrites a description of webrtcbin into the peer's order and with its mids.
    fn to_peer(&self, ours: &Sdp) -> Sdp {
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
                    media.give_port();
                }
                media
            }
            None => slot.placeholder(),
        });
        Sdp { session, media: media.collect() }
    }

    /// Rewrites our answer for webrtcbin to apply: m-lines that webrtcbin itself rejects get the attributes of its
    /// own transport instead of the peer's, and its bundle keeps all of its m-lines.
    pub(super) fn answer_to_apply(&self, ours: &Sdp) -> Sdp {
        let mut applied = ours.clone();
        let Some(live) = ours.media.iter().find(|media| !media.is_rejected()) else { return applied };
        for media in applied.media.iter_mut().filter(|media| media.is_rejected()) {
            carry(media, live);
        }
        if applied.attribute("group").is_some() {
            applied.set_attribute("group", &format!("BUNDLE {}", self.own.join(" ")));
        }
        applied
    }

    /// Rewrites the peer's offer for webrtcbin; `local` is webrtcbin's current local description.
    pub(super) fn offer_of_peer(
        &self,
        theirs: &Sdp,
        local: Option<&Sdp>,
    ) -> Result<(Self, Remote), SdpError> {
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
                formats: media.formats().to_owned(),
                own,
                is_rejected: !is_live,
                is_agreed: true,
            };
            match next.slots.get_mut(at) {
                Some(there) => *there = slot,
                None => next.slots.push(slot),
            }
        }
        next.of_peer(theirs, local)
    }

    /// Rewrites the peer's answer to our offer `ours` for webrtcbin.
    pub(super) fn answer_of_peer(&self, theirs: &Sdp, ours: &Sdp) -> Result<(Self, Remote), SdpError> {
        if theirs.media.len() != self.slots.len() {
            return Err(SdpError::OtherLines);
        }
        let mut next = self.clone();
        for (slot, media) in next.slots.iter_mut().zip(&theirs.media) {
            slot.is_rejected |= media.is_rejected();
            slot.is_agreed = true;
        }
        next.of_peer(theirs, Some(ours))
    }

    fn of_peer(self, theirs: &Sdp, local: Option<&Sdp>) -> Result<(Self, Remote), SdpError> {
        let source = theirs.media.iter().find(|media| !media.is_rejected());
        let (Some(source), false) = (source, self.own.is_empty()) else { return Err(SdpError::MLines(0)) };
        let (mut media, mut flows, mut rejected) = (vec![], vec![], vec![]);
        for (own, mid) in self.own.iter().enumerate() {
            let goes_on = |slot: &Slot| slot.own == Some(own) && !slot.is_rejected;
            let mut line = match self.slots.iter().position(goes_on).and_then(|at| theirs.media.get(at)) {
                Some(line) => {
                    flows.push(line.direction());
                    line.clone()
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
        Ok((self, Remote { sdp: Sdp { session, media }, flows, rejected }))
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
    Kind::of(media).is_some() || media.kind == "application" && media.formats().contains("SCTP")
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
        media.give_port();
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
