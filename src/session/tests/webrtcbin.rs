//! The model of webrtcbin that all tests of the session use.

use crate::protocol::SdpKind;
use crate::sdp::Sdp;
use crate::sdp::webrtcbin::tests::{expect_fit_for_webrtcbin, lines, made_by_webrtcbin};
use crate::sdp::webrtcbin::{Adapter, Credentials, Ours};
use crate::session::{Effect, EffectId};

/// Id and result of an effect.
pub(super) type Done = (EffectId, Result<Option<Sdp>, String>);

/// A model of webrtcbin: executes effects, and makes the smallest descriptions that pass the checks.
#[derive(Debug, Default)]
pub(super) struct Connection {
    /// Number of connections opened so far.
    pub(super) opened: usize,
    /// Kinds of media to offer, always in this order.
    pub(super) kinds: Vec<&'static str>,
    /// Whether the model can drop an offer of its own that adds m-lines, as 1.22 can.
    pub(super) drops_added_lines: bool,
    /// Kind and mid of the current m-lines.
    pub(super) lines: Vec<(String, String)>,
    /// Kind and mid of the m-lines of the last offer.
    pub(super) offered: Vec<(String, String)>,
    /// Types of the applied descriptions.
    pub(super) local: Option<SdpKind>,
    pub(super) remote: Option<SdpKind>,
    /// Whether an applied offer waits for its answer.
    pub(super) pending_offer: bool,
    /// Candidates of the peer.
    pub(super) candidates: Vec<String>,
    /// Number of offers made.
    pub(super) offers: usize,
    /// User fragment of the peer's description.
    pub(super) theirs: String,
    pub(super) adapter: Adapter,
    /// Number of descriptions with new ICE credentials, and the user fragment that was applied last.
    pub(super) restarts: usize,
    pub(super) applied: Option<String>,
}

impl Connection {
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

    /// Returns a description of the current m-lines, with the ICE credentials of this connection.
    pub(super) fn sdp(&self, setup: &str, mark: usize) -> String {
        made_by_webrtcbin(&self.lines, setup, (&self.ufrag(), &self.fingerprint()), mark).to_string()
    }

    fn fingerprint(&self) -> String {
        format!("sha-256 {:02X}", self.opened)
    }

    pub(super) fn ufrag(&self) -> String {
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
        let sdp = made_by_webrtcbin(lines, setup, (&self.ufrag(), &self.fingerprint()), mark);
        let fingerprint = self.fingerprint();
        let ours = Ours { fingerprint: &fingerprint, credentials, idle: &[] };
        Some(self.adapter.made(kind, sdp, ours))
    }

    pub(super) fn execute(&mut self, effect: &Effect) -> Option<Done> {
        match effect {
            Effect::Open => {
                *self = Self {
                    opened: self.opened + 1,
                    kinds: self.kinds.clone(),
                    drops_added_lines: self.drops_added_lines,
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
                expect_fit_for_webrtcbin(&remote.sdp, &self.lines);
                let is_dropped = *kind == SdpKind::Offer && self.offered.len() > self.lines.len();
                assert!(self.drops_added_lines || !is_dropped, "it ends the process");
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
