//! Header fields of an endpoint's responses that have a meaning for further attempts.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::time::Duration;

use crate::signalling::reconnect::retry_after;
use crate::signalling::signaller::{Headers, Response, header};

/// Returns whether a `WWW-Authenticate` field says that the token has ended (RFC 6750, 3.1).
pub(super) fn names_invalid_token(headers: &Headers) -> bool {
    headers.iter().any(|(name, value)| name == "www-authenticate" && value.contains("invalid_token"))
}

/// Returns the pause that a response asks for. A date is compared with the server's own clock (`Date`).
pub(super) fn after(response: &Response) -> Option<Duration> {
    let date = header(&response.headers, "date").and_then(|date| httpdate::parse_http_date(date).ok());
    let now = date.and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok());
    let value = header(&response.headers, "retry-after")?;
    match now {
        Some(now) => retry_after(value, now),
        None => value.trim().parse().ok().map(Duration::from_secs),
    }
}
