//! Tokens (JSON Web Tokens, RFC 7519, signed with HS256): a back end grants a client access, for a time, under a name and
//! to rooms, and describes the client.

use std::collections::BTreeSet;
use std::time::Duration;

use hyper::Request;
use hyper::header;
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::Value;

use crate::base::random::{NoRandomness, secret_id};
use crate::hub::Grant;
use crate::protocol::{PeerId, RoomId, Secret};

/// The latest time that a token may contain, in seconds since 1970: the largest interoperable integer of JSON (RFC
/// 8259, 6).
const LATEST: f64 = 9_007_199_254_740_991.0;

/// The reason why a token is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    /// The request has no token.
    #[error("a token is wanted here (?token=…)")]
    Missing,
    /// The signature is not valid: a guess, or the back end signs with another secret.
    #[error("the token is not good: {0}")]
    Forged(String),
    /// The signature is valid, but the token has expired, is not valid yet, or contains unusable claims.
    #[error("the token is not good: {0}")]
    Refused(String),
}

/// The reason why the secret of a request is rejected.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denied {
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The owner of the address sent too many wrong secrets; contains the time to wait.
    #[error("too many wrong secrets came from your address: try again in {} s", .0.as_secs() + 1)]
    Later(Duration),
}

/// Verifies tokens.
pub(super) struct Tokens {
    key: DecodingKey,
    rules: Validation,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

/// The claims of a token other than its times (`exp`, which is required, `nbf` and `iat`).
#[derive(Debug, Deserialize)]
struct Claims {
    /// The only id that the client may register.
    sub: Option<String>,
    /// The only rooms or pools that the client may join.
    rooms: Option<Vec<String>>,
    /// The description that other members of the room receive.
    #[serde(default)]
    description: Value,
}

/// Returns the token of a request: `Authorization: Bearer TOKEN`, or else `token` in its query.
pub(super) fn shown<B>(request: &Request<B>) -> Option<String> {
    let in_query = || {
        let query = request.uri().query().unwrap_or_default();
        let mut query = url::form_urlencoded::parse(query.as_bytes());
        query.find(|(key, _)| key == "token").map(|(_, token)| token.into_owned())
    };
    bearer(request).map(str::to_owned).or_else(in_query)
}

/// Returns the credentials in a request's `Authorization: Bearer …` header (RFC 6750, 2.1).
pub(super) fn bearer<B>(request: &Request<B>) -> Option<&str> {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    header.and_then(|value| value.strip_prefix("Bearer "))
}

/// Returns the id of an endpoint of a pool: the name in the client's token, or else a random id.
pub(super) fn endpoint_id(grant: &Grant) -> Result<PeerId, NoRandomness> {
    match &grant.name {
        Some(name) => Ok(name.clone()),
        None => secret_id()?.parse().map_err(|_| NoRandomness),
    }
}

impl Tokens {
    /// Returns a verifier for tokens that are signed with `secret`.
    pub(super) fn new(secret: &Secret) -> Self {
        let mut rules = Validation::new(Algorithm::HS256);
        rules.validate_nbf = true;
        rules.leeway = 30;
        Self { key: DecodingKey::from_secret(secret.0.as_bytes()), rules }
    }

    /// Verifies a token and returns the permissions that it grants.
    pub(super) fn read(&self, token: &str) -> Result<Grant, TokenError> {
        let claims = jsonwebtoken::decode::<Value>(token, &self.key, &self.rules).map_err(|error| {
            let words = error.to_string();
            if is_authentic(&error) { TokenError::Refused(words) } else { TokenError::Forged(words) }
        })?;
        grant(claims.claims).map_err(TokenError::Refused)
    }
}

/// Returns whether the signature of a rejected token is valid: the library checks the claims after the signature.
fn is_authentic(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ExpiredSignature
            | ErrorKind::ImmatureSignature
            | ErrorKind::MissingRequiredClaim(_)
            | ErrorKind::InvalidAudience
            | ErrorKind::InvalidIssuer
            | ErrorKind::InvalidSubject
    )
}

/// Converts the claims of an authentic token to permissions.
fn grant(claims: Value) -> Result<Grant, String> {
    // The library ignores a time that it cannot parse (CVE-2026-25537).
    for key in ["exp", "nbf", "iat"] {
        let is_time = |time: &Value| time.as_f64().is_some_and(|time| (0.0..=LATEST).contains(&time));
        if claims.get(key).is_some_and(|time| !is_time(time)) {
            return Err(format!("its {key} is not a time: a number of seconds since 1970 is required"));
        }
    }
    let claims: Claims = serde_json::from_value(claims).map_err(|error| error.to_string())?;
    let id = |text: &str| PeerId::from_foreign(text).map_err(|error| format!("its sub: {error}"));
    let room =
        |text: &String| RoomId::from_foreign(text).map_err(|error| format!("one of its rooms: {error}"));
    let rooms = claims.rooms.as_ref().map(|rooms| rooms.iter().map(room).collect());
    let rooms: Option<BTreeSet<RoomId>> = rooms.transpose()?;
    Ok(Grant { name: claims.sub.as_deref().map(id).transpose()?, rooms, description: claims.description })
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn token(claims: &Value, secret: &str, algorithm: Algorithm) -> String {
        encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    #[test]
    fn a_valid_token_grants_its_claims() {
        let tokens = Tokens::new(&Secret(SECRET.into()));
        let read = |claims: Value| tokens.read(&token(&claims, SECRET, Algorithm::HS256));
        let far = 4_000_000_000_u64;
        assert_eq!(read(json!({"exp": far})), Ok(Grant::default()));
        let grant =
            read(json!({"exp": far, "sub": "ann", "rooms": ["the attic"], "description": {"name": "Ann"}}));
        let grant = grant.unwrap();
        assert_eq!(grant.name, Some("ann".parse().unwrap()));
        assert_eq!(grant.rooms, Some([RoomId::from_foreign("the attic").unwrap()].into()));
        assert_eq!(grant.description, json!({"name": "Ann"}));
        let wrong = |claims: Value| match read(claims) {
            Err(TokenError::Refused(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(wrong(json!({"exp": 1})).contains("ExpiredSignature"));
        assert!(wrong(json!({"exp": far, "nbf": far - 1})).contains("ImmatureSignature"));
        assert!(wrong(json!({})).contains("exp"));
        assert!(wrong(json!({"exp": far, "sub": ""})).contains("sub"));
        // A token counts as a guess if it is not signed with the secret and the right algorithm.
        let forged = |token: &str| matches!(tokens.read(token), Err(TokenError::Forged(_)));
        assert!(forged(&token(&json!({"exp": far}), &SECRET.to_uppercase(), Algorithm::HS256)));
        assert!(forged(&token(&json!({"exp": far}), SECRET, Algorithm::HS512)));
        for junk in ["", "a.b.c", "..", "eyJhbGciOiJub25lIn0.e30."] {
            assert!(forged(junk), "{junk}");
        }
    }

    #[test]
    fn an_invalid_time_is_refused() {
        let tokens = Tokens::new(&Secret(SECRET.into()));
        let far = 4_000_000_000_u64;
        for wrong in [json!("4000000000"), json!("soon"), json!(null), json!(-1), json!(1e300), json!(true)] {
            for key in ["exp", "nbf", "iat"] {
                let mut claims = json!({"exp": far});
                claims[key] = wrong.clone();
                let read = tokens.read(&token(&claims, SECRET, Algorithm::HS256));
                assert!(matches!(read, Err(TokenError::Refused(_))), "{claims}: {read:?}");
            }
        }
        let fine = json!({"exp": far as f64 + 0.5, "nbf": 1.5, "iat": 0});
        assert!(tokens.read(&token(&fine, SECRET, Algorithm::HS256)).is_ok());
    }
}
