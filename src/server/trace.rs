//! The ids by which a request is found again in the logs of several services.

use hyper::header::{HeaderMap, HeaderName};

/// The header with the id of a request, which a client or a proxy may choose.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header with the place of a request in a trace (W3C Trace Context).
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The longest id that is accepted.
const MAX_REQUEST_ID: usize = 128;

/// Returns the id that a request bears, if it is usable.
pub(super) fn request_id(headers: &HeaderMap) -> Option<&str> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let is_usable =
        (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    is_usable.then_some(id)
}

/// Returns the place of a request in a trace, if it is well-formed: version, trace, parent and flags in hexadecimal digits.
pub(super) fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(TRACEPARENT)?.to_str().ok()?;
    let parts: Vec<&str> = text.split('-').collect();
    let is_hex =
        |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    (lengths == [2, 32, 16, 2] && parts.iter().all(is_hex)).then_some(text)
}

/// Returns the headers that pass the ids of a request on to another service.
pub(super) fn passed_on(headers: &HeaderMap) -> Vec<(HeaderName, String)> {
    let id = request_id(headers).map(|id| (REQUEST_ID, id.to_owned()));
    let place = traceparent(headers).map(|place| (TRACEPARENT, place.to_owned()));
    id.into_iter().chain(place).collect()
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn malformed_ids_are_not_passed_on() {
        let headers = |id: &str, place: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(id).unwrap());
            headers.insert(TRACEPARENT, HeaderValue::from_str(place).unwrap());
            headers
        };
        let place = format!("00-{}-{}-01", "0a".repeat(16), "1f".repeat(8));
        assert_eq!(passed_on(&headers("req-7", &place)).len(), 2);
        let wrong_place = [&place.to_uppercase(), &place[1..], "", "00-zz-1-01", &format!("{place}-00")];
        for wrong in wrong_place {
            assert_eq!(traceparent(&headers("x", wrong)), None, "{wrong}");
        }
        for wrong in ["", "a b", &"x".repeat(MAX_REQUEST_ID + 1)] {
            assert_eq!(request_id(&headers(wrong, &place)), None, "{wrong}");
        }
    }
}
