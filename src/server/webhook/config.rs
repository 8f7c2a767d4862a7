//! The settings of webhooks.
//!
//! Pure: no clock, sockets, files or random numbers.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use url::Url;

use crate::base::net::{is_protected, without_secrets};
use crate::server::events::happening::TYPES;

/// The most addresses.
pub(super) const MAX_WEBHOOKS: usize = 8;
/// The prefix of a secret in the form of Standard Webhooks.
const PREFIX: &str = "whsec_";
/// The lengths of a secret that Standard Webhooks allows, in bytes.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// The settings of webhooks; the default has none.
#[derive(Debug, Clone, Default)]
pub struct WebhookConfig {
    /// The addresses that get events.
    pub urls: Vec<WebhookUrl>,
    /// The secrets that sign them. Each message bears a signature of each secret, so that a new one can replace an old
    /// one.
    pub secrets: Vec<SigningSecret>,
    /// The types of events that the addresses get; empty for all.
    pub types: Vec<EventType>,
}

/// The reason why a setting of webhooks cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// The text is no address of HTTP.
    #[error("an address such as https://portal.example.org/hook is wanted")]
    Url,
    /// The text is no secret of Standard Webhooks.
    #[error("a secret is whsec_ and the base64 of 24 to 64 bytes: echo whsec_$(openssl rand -base64 32)")]
    Secret,
    /// No event has this type.
    #[error("no event has this type; the types are: {}", TYPES.join(", "))]
    Type,
    /// There are addresses but no secret.
    #[error("the requests to a back end have to be signed: a secret for webhooks is wanted")]
    NoSecret,
    /// There are too many addresses.
    #[error("more than {MAX_WEBHOOKS} webhooks")]
    TooMany,
    /// An address is named twice.
    #[error("the webhook {0} is named twice")]
    Twice(WebhookUrl),
    /// The answers of the address could be forged on the way.
    #[error(
        "an https:// address is wanted: over http://, which only 127.0.0.1 may use, answers can be forged on the way"
    )]
    Plain,
}

impl WebhookConfig {
    /// Returns an error if the settings do not fit together.
    pub(in crate::server) fn check(&self) -> Result<(), WebhookError> {
        if self.urls.len() > MAX_WEBHOOKS {
            return Err(WebhookError::TooMany);
        }
        if !self.urls.is_empty() && self.secrets.is_empty() {
            return Err(WebhookError::NoSecret);
        }
        let twice = self.urls.iter().enumerate().find(|(n, url)| self.urls[..*n].contains(url));
        twice.map_or(Ok(()), |(_, url)| Err(WebhookError::Twice(url.clone())))
    }

    pub(super) fn wants(&self, kind: &str) -> bool {
        self.types.is_empty() || self.types.iter().any(|wanted| wanted.0 == kind)
    }
}

/// The address of a webhook. Displayed without user, password and query, which may be secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(Url);

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookUrl({self})")
    }
}

impl WebhookUrl {
    pub(super) fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(super) fn url(&self) -> &Url {
        &self.0
    }
}

impl FromStr for WebhookUrl {
    type Err = WebhookError;

    fn from_str(text: &str) -> Result<Self, WebhookError> {
        let url = Url::parse(text).map_err(|_| WebhookError::Url)?;
        let is_http = ["http", "https"].contains(&url.scheme()) && url.has_host();
        if is_http { Ok(Self(url)) } else { Err(WebhookError::Url) }
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&without_secrets(&self.0))
    }
}

/// The address of a back end whose answers decide about tokens: `https`, or `http` on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthUrl(WebhookUrl);

impl AuthUrl {
    pub(in crate::server) fn url(&self) -> &WebhookUrl {
        &self.0
    }
}

impl FromStr for AuthUrl {
    type Err = WebhookError;

    fn from_str(text: &str) -> Result<Self, WebhookError> {
        let url: WebhookUrl = text.parse()?;
        if is_protected(&url.0) { Ok(Self(url)) } else { Err(WebhookError::Plain) }
    }
}

/// A secret that signs messages (HMAC-SHA256).
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(pub(super) Vec<u8>);

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret")
    }
}

impl FromStr for SigningSecret {
    type Err = WebhookError;

    fn from_str(text: &str) -> Result<Self, WebhookError> {
        let bytes = text.strip_prefix(PREFIX).and_then(|text| STANDARD.decode(text).ok());
        let bytes = bytes.filter(|bytes| LENGTHS.contains(&bytes.len()));
        bytes.map(Self).ok_or(WebhookError::Secret)
    }
}

/// The type of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventType(&'static str);

impl FromStr for EventType {
    type Err = WebhookError;

    fn from_str(text: &str) -> Result<Self, WebhookError> {
        TYPES.into_iter().find(|kind| *kind == text).map(Self).ok_or(WebhookError::Type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_secrets_are_not_shown() {
        let url: WebhookUrl = "https://user:word@example.org:1/hook?key=7".parse().unwrap();
        assert_eq!(url.to_string(), "https://example.org:1/hook");
        assert_eq!(format!("{url:?}"), "WebhookUrl(https://example.org:1/hook)");
        for right in ["https://example.org/auth", "http://127.0.0.1:1/auth", "http://[::1]/auth"] {
            assert!(right.parse::<AuthUrl>().is_ok(), "{right}");
        }
        for wrong in ["http://example.org/auth", "http://localhost/auth"] {
            assert_eq!(wrong.parse::<AuthUrl>(), Err(WebhookError::Plain), "{wrong}");
        }
        for wrong in ["", "example.org", "ftp://example.org", "file:///etc"] {
            assert_eq!(wrong.parse::<WebhookUrl>(), Err(WebhookError::Url), "{wrong}");
        }
        let secret: SigningSecret = format!("whsec_{}", STANDARD.encode([7; 32])).parse().unwrap();
        assert_eq!((secret.0.len(), format!("{secret:?}")), (32, "SigningSecret".to_owned()));
        let [short, long] = [23, 65].map(|length| format!("whsec_{}", STANDARD.encode(vec![7; length])));
        for wrong in ["", "whsec_", "whsec_!", &STANDARD.encode([7; 32]), &short, &long] {
            assert_eq!(wrong.parse::<SigningSecret>(), Err(WebhookError::Secret), "{wrong}");
        }
        assert!("peer.joined".parse::<EventType>().is_ok());
        assert_eq!("peer.danced".parse::<EventType>(), Err(WebhookError::Type));
    }

    #[test]
    fn addresses_need_a_secret_and_are_few() {
        let url = |n: usize| format!("https://example.org/?n={n}").parse::<WebhookUrl>().unwrap();
        let with = |n: usize, secrets: Vec<SigningSecret>| {
            WebhookConfig { urls: (0..n).map(url).collect(), secrets, types: vec![] }.check()
        };
        assert_eq!(WebhookConfig::default().check(), Ok(()));
        assert_eq!(with(1, vec![]), Err(WebhookError::NoSecret));
        assert_eq!(with(MAX_WEBHOOKS, vec![SigningSecret(vec![7; 32])]), Ok(()));
        assert_eq!(with(MAX_WEBHOOKS + 1, vec![SigningSecret(vec![7; 32])]), Err(WebhookError::TooMany));
        let secrets = vec![SigningSecret(vec![7; 32])];
        let twice = WebhookConfig { urls: vec![url(1), url(2), url(1)], secrets, types: vec![] };
        assert_eq!(twice.check(), Err(WebhookError::Twice(url(1))));
        let some = WebhookConfig { types: vec!["peer.left".parse().unwrap()], ..WebhookConfig::default() };
        assert!(some.wants("peer.left") && !some.wants("peer.joined"));
        assert!(WebhookConfig::default().wants("peer.joined"));
    }
}
