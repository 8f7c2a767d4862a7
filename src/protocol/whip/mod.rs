//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep) on the wire: the statuses and header fields of an endpoint's responses,
//! and the fragments of SDP that carry candidates ([`fragment`]). STUN and TURN servers are in [`link`] headers.
//!
//! Pure: no clock, chance, socket or GStreamer.

pub mod fragment;
pub mod link;

use url::Url;

/// Content type of descriptions.
pub const SDP: &str = "application/sdp";
/// Content type of fragments of SDP (RFC 8840, 9).
pub const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// Maximum length of a URL in a response, in bytes.
const MAX_URL: usize = 2048;
/// Maximum length of an entity tag, in bytes.
const MAX_ETAG: usize = 256;
/// Maximum length of a quoted text of the endpoint, in characters.
const MAX_WORDS: usize = 200;

/// Direction of the media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// WHIP: our side sends.
    Publisher,
    /// WHEP: our side receives.
    Player,
}

impl Role {
    /// Returns the name of the protocol.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Publisher => "WHIP",
            Self::Player => "WHEP",
        }
    }
}

/// Meaning of the status that answers an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The response has the answer.
    Accepted,
    /// The offer has to be sent to the URL in `Location` (RFC 9110, 15.4.8 and 15.4.9).
    Redirected,
    /// A player finds no publisher yet, or a publisher finds another one: the next attempt may succeed.
    NotNow,
    /// The token is missing, wrong or without the right.
    Denied,
    /// The URL is not that of an endpoint for this use.
    WrongUrl,
    /// The endpoint does not accept this offer.
    Refused,
    /// The server is overloaded, restarting or faulty.
    Overloaded,
}

/// Returns the meaning of a status that answers an offer, and advice for the user: a clause without a full stop.
pub fn meaning(role: Role, status: u16) -> (Meaning, &'static str) {
    match (status, role) {
        // Some servers answer 200 in place of 201.
        (200 | 201, _) => (Meaning::Accepted, ""),
        (307 | 308, _) => (Meaning::Redirected, ""),
        (301..=303, _) => {
            (Meaning::WrongUrl, "use the URL that it redirects to: this redirect loses the offer")
        }
        (404, Role::Player) => (Meaning::NotNow, "nobody publishes there yet, or the path is wrong"),
        (409, Role::Player) => (Meaning::NotNow, "nobody publishes there yet"),
        (409, Role::Publisher) => (Meaning::NotNow, "somebody publishes there already"),
        (404 | 410, _) => {
            (Meaning::WrongUrl, "there is no endpoint at this path, or no longer: check the path")
        }
        (405 | 501, _) => (Meaning::WrongUrl, "it takes no offers at this path: check the path"),
        (401, _) => (Meaning::Denied, "it requires a token, or another one"),
        (403, _) => (Meaning::Denied, "the token does not permit this at this path"),
        (400, _) => (Meaning::Refused, "check the path, and that it is for this direction of media"),
        (406, _) => (
            Meaning::Refused,
            "it supports none of the codecs, or another number of tracks: offer other codecs",
        ),
        (413, _) => (Meaning::Refused, "the offer is too large for it: offer fewer codecs"),
        (415, _) => (Meaning::Refused, "it does not read SDP at this path: check the path"),
        (422, _) => (Meaning::Refused, "it reads the offer and cannot use it: offer other codecs"),
        (429, _) => (Meaning::Overloaded, "it gets too many requests"),
        (500.., _) => (Meaning::Overloaded, "it is overloaded or restarting, or it has a fault"),
        (402..=499, _) => (Meaning::Refused, "its text, if any, has the reason"),
        (..=399, _) => (Meaning::WrongUrl, "this is no answer to an offer: check the path"),
    }
}

/// Returns the name of a status for people, such as `404 Not Found`; the number alone where the status has no name here.
pub fn status_name(status: u16) -> String {
    let name = http_name(status);
    if name.is_empty() { status.to_string() } else { format!("{status} {name}") }
}

fn http_name(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "",
    }
}

/// Parses the URL of an endpoint.
pub fn parse_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    url.host().is_some().then_some(url)
}

/// Reason why a `Location` is not used, as a clause about the `Location`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// The text is empty or no URL.
    #[error("it is no URL")]
    NoUrl,
    /// The URL is too long.
    #[error("it has more than {MAX_URL} bytes")]
    TooLong,
    /// The URL is of another protocol.
    #[error("it begins with neither http nor https")]
    Scheme,
    /// The URL leads from `https` to `http`.
    #[error("it leads from https to http at another host")]
    Downgrade,
}

/// Resolves a `Location` against the URL of the request (RFC 3986, 5.2). A URL with `http` of the host that was asked by
/// `https` gets the origin that was asked: a proxy that ends TLS hides `https` from the server.
///
/// # Errors
///
/// [`LocationError`] if the URL cannot be used.
pub fn resolve(base: &Url, location: &str) -> Result<Url, LocationError> {
    let text = location.trim();
    if text.is_empty() {
        return Err(LocationError::NoUrl);
    }
    if text.len() > MAX_URL {
        return Err(LocationError::TooLong);
    }
    let mut url = base.join(text).map_err(|_| LocationError::NoUrl)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(LocationError::Scheme);
    }
    if base.scheme() == "https" && url.scheme() == "http" {
        let is_own = url.host() == base.host() && url.set_scheme("https").is_ok();
        if !is_own || url.set_port(base.port()).is_err() {
            return Err(LocationError::Downgrade);
        }
    }
    url.set_fragment(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    Ok(url)
}

/// Returns an entity tag as the endpoint wrote it, quoted or not: deployed servers compare the bytes. Returns none for one
/// that is empty, too long or not printable.
pub fn entity_tag(value: &str) -> Option<&str> {
    let is_tag = !value.is_empty() && value.len() <= MAX_ETAG && value.bytes().all(|b| b.is_ascii_graphic());
    is_tag.then_some(value)
}

/// Returns whether a `Content-Type` is this one, whatever its parameters.
pub fn is_of_type(value: &str, wanted: &str) -> bool {
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted)
}

/// Returns the endpoint's reason in the body of a refusal: plain text, or the message of a JSON object; none for pages
/// and other bodies. The text has at most 200 characters, and no control characters.
pub fn reason(content_type: &str, body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let json: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let mut names = ["error", "message", "detail", "reason"].into_iter().map(|name| &json[name]);
    let said = names.find_map(|said| said.as_str().or_else(|| said["message"].as_str()));
    let is_text = is_of_type(content_type, "text/plain") && !json.is_object();
    let said = said.or(Some(text).filter(|_| is_text))?.trim();
    let clean = said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_WORDS).collect();
    Some(clean).filter(|text: &String| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_status_has_a_meaning_and_advice() {
        use Meaning::{Accepted, Denied, NotNow, Overloaded, Redirected, Refused, WrongUrl};
        for (status, publisher, player) in [
            (200, Accepted, Accepted),
            (201, Accepted, Accepted),
            (204, WrongUrl, WrongUrl),
            (302, WrongUrl, WrongUrl),
            (304, WrongUrl, WrongUrl),
            (307, Redirected, Redirected),
            (308, Redirected, Redirected),
            (400, Refused, Refused),
            (401, Denied, Denied),
            (403, Denied, Denied),
            (404, WrongUrl, NotNow),
            (405, WrongUrl, WrongUrl),
            (406, Refused, Refused),
            (409, NotNow, NotNow),
            (410, WrongUrl, WrongUrl),
            (415, Refused, Refused),
            (418, Refused, Refused),
            (422, Refused, Refused),
            (429, Overloaded, Overloaded),
            (500, Overloaded, Overloaded),
            (501, WrongUrl, WrongUrl),
            (503, Overloaded, Overloaded),
        ] {
            let found = [Role::Publisher, Role::Player].map(|role| meaning(role, status));
            assert_eq!(found.map(|(meaning, _)| meaning), [publisher, player], "{status}");
            let has_advice = |(meaning, advice): &(Meaning, &str)| {
                matches!(meaning, Accepted | Redirected) == advice.is_empty()
            };
            assert!(found.iter().all(has_advice), "{status}");
        }
        assert_eq!((status_name(404), status_name(299)), ("404 Not Found".into(), "299".into()));
    }

    #[test]
    fn a_location_is_resolved_against_the_url_of_the_request() {
        let base = parse_url("https://user:word@example.org/live/whip?key=1").unwrap();
        let at = |location: &str| resolve(&base, location).map(|url| url.to_string());
        for (location, url) in [
            ("/session/7", "https://example.org/session/7"),
            ("session/7#x", "https://example.org/live/session/7"),
            ("?id=7", "https://example.org/live/whip?id=7"),
            ("https://a:b@[::1]:7/x", "https://[::1]:7/x"),
            ("/s\u{e9}ance/7", "https://example.org/s%C3%A9ance/7"),
            // As behind a proxy that ends TLS.
            ("http://example.org/x", "https://example.org/x"),
            ("http://example.org:8080/x", "https://example.org/x"),
        ] {
            assert_eq!(at(location).as_deref(), Ok(url));
        }
        for (wrong, error) in [
            ("", LocationError::NoUrl),
            (" ", LocationError::NoUrl),
            ("https://", LocationError::NoUrl),
            ("http://example.net/x", LocationError::Downgrade),
            ("ftp://example.org", LocationError::Scheme),
            ("javascript:x", LocationError::Scheme),
            (&"x".repeat(2049), LocationError::TooLong),
        ] {
            assert_eq!(at(wrong), Err(error), "{wrong}");
        }
        let plain = parse_url("http://h/whip").unwrap();
        assert_eq!(resolve(&plain, "https://h/s").map(|url| url.to_string()).as_deref(), Ok("https://h/s"));
        let tls = parse_url("https://h:8443/whip").unwrap();
        assert_eq!(resolve(&tls, "http://h/s").map(|url| url.to_string()).as_deref(), Ok("https://h:8443/s"));
        for wrong in ["h/whip", "ws://h", "file:///x", "http://"] {
            assert_eq!(parse_url(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_entity_tag_is_kept_byte_for_byte() {
        for tag in ["\"x\"", "W/\"x\"", "*", "EsAw"] {
            assert_eq!(entity_tag(tag), Some(tag));
        }
        for wrong in ["", "a b", "a\r\nb", "\u{e9}", &"x".repeat(257)] {
            assert_eq!(entity_tag(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_reason_of_a_refusal_is_text_or_json() {
        let said = |kind: &str, body: &str| reason(kind, body.as_bytes());
        assert_eq!(said("text/plain; charset=utf-8", " no\r\nstream ").as_deref(), Some("no  stream"));
        assert_eq!(said("application/json", r#"{"error":"bad codec"}"#).as_deref(), Some("bad codec"));
        assert_eq!(said("", r#"{"error":{"message":"deep"}}"#).as_deref(), Some("deep"));
        assert_eq!(said("text/plain", "").as_deref(), None);
        assert_eq!(said("text/html", "<html>").as_deref(), None);
        assert_eq!(said("text/plain", &"x".repeat(1000)).unwrap().len(), MAX_WORDS);
        assert_eq!(reason("text/plain", &[0xff, 0xfe]), None);
    }

    proptest! {
        #[test]
        fn any_response_is_read(
            status: u16, location in "\\PC*", kind in "\\PC*", bytes in prop::collection::vec(any::<u8>(), 0..200)
        ) {
            let base = parse_url("https://example.org/whip").unwrap();
            let _ = (meaning(Role::Player, status), status_name(status), entity_tag(&location), is_of_type(&kind, SDP));
            if let Ok(url) = resolve(&base, &location) {
                prop_assert_eq!((url.scheme(), url.username(), url.fragment()), ("https", "", None));
            }
            let said = reason("text/plain", &bytes).unwrap_or_default();
            prop_assert!(!said.contains(char::is_control) && said.chars().count() <= MAX_WORDS);
        }
    }
}
