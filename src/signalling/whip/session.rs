//! A session with an endpoint: its URL, and the candidates that trickle to it (RFC 9725, 4.3.1).
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::time::{Duration, Instant};

use url::Url;

use super::offer::Offer;
use crate::protocol::Candidate;
use crate::protocol::whip::{self, fragment};
use crate::signalling::error::ConnectError;
use crate::signalling::signaller::{Headers, RequestId, Response, header};

/// Time limit of a request with candidates: some servers never answer it.
const PATCH: Duration = Duration::from_secs(2);

/// A session that is up. Without `Debug`: its URL is all that a stranger needs to end the session.
pub(super) struct Session {
    /// The session's URL; none if the server named none that can be used.
    pub(super) url: Option<Url>,
    offer: Offer,
    /// The entity tag, as the server wrote it.
    tag: Option<String>,
    /// Whether the server accepts candidates. A refusal or a missing response ends that, but not the session.
    trickles: bool,
    /// Candidates that were not sent yet, at most [`fragment::MAX_CANDIDATES`].
    collected: Vec<String>,
    /// The pending request, and its time limit.
    pending: Option<(RequestId, Instant)>,
}

impl Session {
    /// Returns the session that a response with these header fields began. The server accepts candidates if it names the
    /// type of fragments or sent an entity tag: others may take a PATCH for a new session.
    pub(super) fn new(url: Option<Url>, offer: Offer, headers: &Headers) -> Self {
        let tag = header(headers, "etag").and_then(whip::entity_tag).map(str::to_owned);
        let mut fields = headers.iter().filter(|(name, _)| name == "accept-patch");
        let is_named =
            fields.any(|(_, types)| types.split(',').any(|name| whip::is_of_type(name, whip::FRAGMENT)));
        Self { url, offer, trickles: is_named || tag.is_some(), tag, collected: vec![], pending: None }
    }

    /// Adds a candidate of our side.
    pub(super) fn add(&mut self, candidate: String) {
        if self.trickles && self.collected.len() < fragment::MAX_CANDIDATES {
            self.collected.push(candidate);
        }
    }

    /// Returns URL, header fields and body of the next request, with all candidates collected so far.
    pub(super) fn next_fragment(&mut self) -> Option<(Url, Headers, String)> {
        let is_due = self.trickles && self.pending.is_none() && !self.collected.is_empty();
        let url = self.url.clone().filter(|_| is_due)?;
        let mut headers = vec![("content-type".to_owned(), whip::FRAGMENT.to_owned())];
        headers.extend(self.tag.clone().map(|tag| ("if-match".to_owned(), tag)));
        Some((url, headers, self.offer.fragment(&std::mem::take(&mut self.collected))))
    }

    /// Notes that this request sends candidates.
    pub(super) fn patching(&mut self, now: Instant, id: RequestId) {
        self.pending = Some((id, now + PATCH));
    }

    /// Handles the response to a request; returns the candidates of the server in it.
    pub(super) fn patched(
        &mut self,
        id: RequestId,
        result: Result<Response, ConnectError>,
    ) -> Vec<Candidate> {
        if self.pending.take_if(|(pending, _)| *pending == id).is_none() {
            return vec![];
        }
        let Some(response) = result.ok().filter(|response| (200..300).contains(&response.status)) else {
            self.trickles = false;
            return vec![];
        };
        let field = |name| header(&response.headers, name);
        if let Some(tag) = field("etag").and_then(whip::entity_tag) {
            self.tag = Some(tag.to_owned());
        }
        let is_fragment = field("content-type").is_some_and(|kind| whip::is_of_type(kind, whip::FRAGMENT));
        let found = if is_fragment { fragment::candidates(&response.body) } else { vec![] };
        let candidate = |candidate| Candidate { candidate, mline: Some(0), ..Candidate::default() };
        found.into_iter().map(candidate).collect()
    }

    /// Gives up a request whose time is over, and further ones; returns the request.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<RequestId> {
        let (request, _) = self.pending.take_if(|(_, at)| *at <= now)?;
        self.trickles = false;
        Some(request)
    }

    /// Returns the request with candidates that has no response yet.
    pub(super) fn pending(&self) -> Option<RequestId> {
        self.pending.map(|(request, _)| request)
    }

    /// Returns when [`Session::handle_timeout`] is to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.pending.map(|(_, at)| at)
    }
}
