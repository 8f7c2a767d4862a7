//! Translation between the descriptions that session and peer exchange, and those of one webrtcbin.

use super::layout::{Layout, Remote};
use super::setup::Setup;
use super::{Credentials, attributes, directions};
use crate::protocol::{Candidate, SdpKind};
use crate::sdp::{Direction, Kind, Sdp, SdpError};

/// Index of the m-line that all candidates of the peer are given to webrtcbin with. webrtcbin drops candidates of any m-line
/// but the one that names its bundle.
pub const CANDIDATES: u32 = 0;

/// Properties of our side that webrtcbin does not write into its descriptions.
#[derive(Debug)]
pub struct Ours<'a> {
    /// Fingerprint of our certificate.
    pub fingerprint: &'a str,
    /// New ICE credentials. Without them the description repeats those of the description applied last.
    pub credentials: Option<Credentials>,
    /// Indexes of the m-lines on which nothing is sent for now.
    pub idle: &'a [usize],
}

/// A description that webrtcbin made and that is not applied yet.
#[derive(Debug)]
struct Made {
    sdp: Sdp,
    /// Order of the m-lines once the description is applied.
    layout: Layout,
}

/// Translator of one webrtcbin, from its start to its end.
#[derive(Debug, Default)]
pub struct Adapter {
    layout: Layout,
    /// Our DTLS role, which stays for the life of the transport (RFC 8842, 5.5).
    role: Option<Setup>,
    /// Our description as webrtcbin applied it last.
    local: Option<Sdp>,
    made: Option<Made>,
    /// The peer's directions, by webrtcbin's m-lines.
    flows: Vec<Direction>,
}

impl Adapter {
    /// Returns the kinds of m-lines that the next offer needs for a peer that has the m-lines of `standing`.
    pub fn kinds_to_offer(&mut self, standing: Option<&Sdp>) -> Vec<Kind> {
        if let Some(standing) = standing.filter(|_| self.layout.is_empty()) {
            self.layout = Layout::fresh(standing);
        }
        self.layout.awaited()
    }

    /// Completes a description that webrtcbin made, and returns it as the peer gets it. A description made before that was
    /// not applied is forgotten.
    pub fn made(&mut self, kind: SdpKind, mut sdp: Sdp, ours: Ours<'_>) -> Sdp {
        attributes::name_certificate(&mut sdp, ours.fingerprint);
        // webrtcbin repeats the credentials of the first description that it made, whatever was applied since.
        let credentials = ours.credentials.or_else(|| self.local.as_ref().and_then(Credentials::of));
        credentials.into_iter().for_each(|credentials| credentials.write(&mut sdp));
        let (sdp, layout, sent) = match kind {
            SdpKind::Offer => {
                attributes::complete_offer(&mut sdp);
                directions::silence(&mut sdp, ours.idle);
                let (layout, sent) = self.layout.offer_to_peer(&sdp);
                (sdp, layout, sent)
            }
            SdpKind::Answer => {
                directions::silence(&mut sdp, ours.idle);
                self.role = self.role.or_else(|| Setup::of_answer(&sdp));
                self.role.into_iter().for_each(|role| role.write(&mut sdp));
                let applied = self.layout.answer_to_apply(&sdp);
                directions::narrow_answer(&mut sdp, &self.flows);
                (applied, self.layout.clone(), self.layout.answer_to_peer(&sdp))
            }
        };
        self.made = Some(Made { sdp, layout });
        sent
    }

    /// Returns the description that was made last, for webrtcbin to apply; `None` if there is none. `sending` are the m-lines
    /// with a sender of ours.
    pub fn local(&mut self, sending: &[usize]) -> Option<Sdp> {
        let Made { mut sdp, layout } = self.made.take()?;
        directions::unsilence(&mut sdp, sending);
        self.layout = layout;
        self.local = Some(sdp.clone());
        Some(sdp)
    }

    /// Rewrites a checked description of the peer for webrtcbin.
    pub fn remote(&mut self, kind: SdpKind, theirs: &Sdp, sending: &[usize]) -> Result<Remote, SdpError> {
        let mut theirs = theirs.clone();
        theirs.media.iter_mut().for_each(attributes::clean);
        let (layout, mut remote) = match (kind, &self.local) {
            (SdpKind::Answer, None) => return Err(SdpError::OtherLines),
            (SdpKind::Answer, Some(offer)) => {
                self.role = self.role.or(Setup::of_answer(&theirs).map(Setup::opposite));
                let (layout, mut remote) = self.layout.answer_of_peer(&theirs, offer)?;
                directions::widen_answer(&mut remote.sdp, offer);
                (layout, remote)
            }
            (SdpKind::Offer, local) => {
                let (layout, mut remote) = self.layout.offer_of_peer(&theirs, local.as_ref())?;
                // The role stays, even if the offer names another one.
                self.role.into_iter().for_each(|role| role.opposite().write(&mut remote.sdp));
                directions::widen_offer(&mut remote.sdp);
                (layout, remote)
            }
        };
        directions::listen(&mut remote.sdp, sending);
        (self.layout, self.made, self.flows) = (layout, None, remote.flows.clone());
        Ok(remote)
    }

    /// Returns a candidate of ours with the index and the mid of the peer's m-line.
    pub fn candidate(&self, mline: u32, candidate: String) -> Candidate {
        let layout = self.made.as_ref().map_or(&self.layout, |made| &made.layout);
        let (mline, mid) = match layout.peer_mline(mline) {
            Some((mline, mid)) => (mline, Some(mid.to_owned())),
            None => (mline, None),
        };
        Candidate { candidate, mline: Some(mline), mid, ufrag: None }
    }
}
