//! Requests that outlive their session: offers that were given up, whose responses may begin a session, and requests that
//! end a session.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use url::Url;

use crate::protocol::whip;
use crate::signalling::error::ConnectError;
use crate::signalling::signaller::{RequestId, Response};

/// Time limit of a request that ends a session, before the next offer is sent and when the client ends.
pub(super) const END: Duration = Duration::from_secs(2);
/// Time that an offer has for its response when the client ends: the session that it begins has to be ended.
const LAST_OFFER: Duration = Duration::from_secs(5);
/// Maximum number of offers that were given up while their response was pending.
const MAX_OFFERS: usize = 8;

/// Requests of one client that outlive their session.
#[derive(Default)]
pub(super) struct Ending {
    /// Offers that were given up, at most [`MAX_OFFERS`], with their URLs.
    offers: BTreeMap<RequestId, Url>,
    /// Requests that end a session, with its URL. A response or a failure follows each.
    ends: BTreeMap<RequestId, Url>,
    /// Time at which the client waits no longer for these requests; none while the client runs.
    closes_at: Option<Instant>,
}

impl Ending {
    /// Notes that an offer is given up, whose response is pending.
    pub(super) fn add_offer(&mut self, request: RequestId, url: Url) {
        self.offers.insert(request, url);
        if self.offers.len() > MAX_OFFERS {
            self.offers.pop_first();
        }
    }

    /// Notes a request that ends the session at `url`.
    pub(super) fn add_end(&mut self, now: Instant, request: RequestId, url: Url) {
        self.ends.insert(request, url);
        self.closes_at = self.closes_at.map(|at| at.max(now + END));
    }

    /// Returns the URL of an offer that was given up, and forgets the offer.
    pub(super) fn take_offer(&mut self, request: RequestId) -> Option<Url> {
        self.offers.remove(&request)
    }

    /// Returns the URL of the session that a request ends, and forgets the request.
    pub(super) fn take_end(&mut self, request: RequestId) -> Option<Url> {
        self.ends.remove(&request)
    }

    /// Handles that the client ends.
    pub(super) fn close(&mut self, now: Instant) {
        self.closes_at = Some(now + if self.offers.is_empty() { END } else { LAST_OFFER });
    }

    /// Returns whether the client ends.
    pub(super) fn is_closed(&self) -> bool {
        self.closes_at.is_some()
    }

    /// Returns when [`Ending::expired`] is to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.closes_at.filter(|_| !self.offers.is_empty() || !self.ends.is_empty())
    }

    /// Returns and forgets the requests that the client that ends waits for no longer: offers, and requests that end a
    /// session.
    pub(super) fn expired(&mut self, now: Instant) -> [BTreeMap<RequestId, Url>; 2] {
        match self.closes_at.is_some_and(|at| at <= now) {
            true => [std::mem::take(&mut self.offers), std::mem::take(&mut self.ends)],
            false => Default::default(),
        }
    }
}

/// Returns why a session was not ended; none if it is over. A session that the server does not know is over.
pub(super) fn failure(result: &Result<Response, ConnectError>) -> Option<String> {
    match result {
        Ok(response) if matches!(response.status, 200..=299 | 404 | 410) => None,
        Ok(response) => Some(format!("it answered {}", whip::status_name(response.status))),
        Err(error) => Some(error.to_string()),
    }
}
