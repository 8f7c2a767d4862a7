//! HTTP responses: the headers that every response bears, errors, and the bounded reading of request bodies.

use std::convert::Infallible;
use std::time::Duration;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use crate::base::random::NoRandomness;
use crate::server::token::{Denied, TokenError};

/// The content security policy: nothing from other origins, nothing inline, and no frame around the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    media-src 'self' blob: mediastream:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// Further headers of every response: only the page itself may use camera, microphone and screen; no `Referer` reveals
/// an address that may contain a token; browsers do not guess content types; other sites can neither frame or embed the
/// page nor keep a reference to its window.
const HARDENING: [(HeaderName, &str); 6] = [
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(self), microphone=(self), display-capture=(self)",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The most bytes of an oversized body that are read and dropped before the error response.
const MAX_DROPPED: usize = 16 << 20;

pub(in crate::server) type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

pub(super) fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()).boxed_unsync());
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    for (name, value) in &HARDENING {
        headers.insert(name, HeaderValue::from_static(value));
    }
    reply
}

pub(in crate::server) fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    reply(status, "text/plain; charset=utf-8", body)
}

impl From<Denied> for Reply {
    fn from(denied: Denied) -> Self {
        let status = match denied {
            Denied::Token(TokenError::NoKeys | TokenError::NoAnswer) => StatusCode::SERVICE_UNAVAILABLE,
            Denied::Token(_) => StatusCode::UNAUTHORIZED,
            Denied::Later(_) => StatusCode::TOO_MANY_REQUESTS,
        };
        let mut reply = text(status, format!("{denied}\n"));
        let headers = reply.headers_mut();
        match denied {
            // A client that was registered before ends only at this challenge (RFC 6750, 3.1), which no proxy sends.
            Denied::Token(TokenError::Forged(_) | TokenError::Refused(_)) => {
                let words = HeaderValue::from_static(r#"Bearer error="invalid_token""#);
                headers.insert(header::WWW_AUTHENTICATE, words);
            }
            Denied::Token(TokenError::Missing) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Denied::Token(TokenError::NoKeys) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
            }
            Denied::Token(TokenError::NoAnswer) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            Denied::Later(wait) => {
                headers.insert(header::RETRY_AFTER, (wait.as_secs() + 1).into());
            }
        }
        reply
    }
}

pub(super) fn no_randomness(error: NoRandomness) -> Reply {
    tracing::error!("{error}");
    text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"))
}

/// Returns the body if it is complete and has at most `most` bytes. Reads a longer body up to [`MAX_DROPPED`] and drops it: closing a
/// connection with unread bytes would send a reset, and the client could lose the response.
pub(super) async fn read_body(mut body: Incoming, most: usize) -> Option<Vec<u8>> {
    let (mut kept, mut length) = (vec![], 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.ok()?.into_data() else { continue };
        length += data.len();
        if length > MAX_DROPPED {
            return None;
        }
        if length <= most {
            kept.extend_from_slice(&data);
        }
    }
    (length <= most).then_some(kept)
}

/// Returns the response to an address from which too many connections come.
pub(super) fn too_many_connects(wait: Duration) -> Reply {
    let mut reply = text(StatusCode::TOO_MANY_REQUESTS, "too many new connections from this address\n");
    reply.headers_mut().insert(header::RETRY_AFTER, (wait.as_secs() + 1).into());
    reply
}

/// Returns the response to a client that exceeds its request rate.
pub(in crate::server) fn too_often() -> Reply {
    let mut reply = text(StatusCode::TOO_MANY_REQUESTS, "too many requests; try again in a second\n");
    reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    reply
}

/// Returns the response to a request whose body did not arrive in time.
pub(super) fn too_slow() -> Reply {
    text(StatusCode::REQUEST_TIMEOUT, "the request body did not arrive in time\n")
}
