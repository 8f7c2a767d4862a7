//! Tokens (JSON Web Tokens, RFC 7519, signed with HS256) by which a back end says who may come in, for how long,
//! under which name, into which rooms, and who it is.

use std::collections::BTreeSet;

use hyper::Request;
use hyper::header;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::Value;

use crate::hub::Grant;
use crate::protocol::{PeerId, RoomId, Secret};

/// The least length of a secret, in bytes: the strength of the signature (RFC 7518, 3.2).
const LEAST: usize = 32;

/// Reads tokens.
pub(super) struct Tokens {
    key: DecodingKey,
    rules: Validation,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

/// What a token says, besides `exp`, which it must have, and `nbf`.
#[derive(Debug, Deserialize)]
struct Claims {
    /// The only id.
    sub: Option<String>,
    /// The only rooms, or pools.
    rooms: Option<Vec<String>>,
    /// Who it is.
    #[serde(default)]
    description: Value,
}

impl Tokens {
    /// Signed with this secret; nothing where it is too short to be one.
    pub(super) fn new(secret: &Secret) -> Option<Self> {
        let mut rules = Validation::new(Algorithm::HS256);
        rules.validate_nbf = true;
        rules.leeway = 30;
        let key = DecodingKey::from_secret(secret.0.as_bytes());
        (secret.0.len() >= LEAST).then_some(Self { key, rules })
    }

    /// What a request's token grants; the reason where it grants nothing.
    pub(super) fn grant<B>(&self, request: &Request<B>) -> Result<Grant, String> {
        let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let bearer = header.and_then(|value| value.strip_prefix("Bearer ")).map(str::to_owned);
        let query = request.uri().query().unwrap_or_default();
        let mut query = url::form_urlencoded::parse(query.as_bytes());
        let in_query = || query.find(|(key, _)| key == "token").map(|(_, token)| token.into_owned());
        let token = bearer.or_else(in_query).ok_or("a token is wanted here (?token=…)")?;
        self.read(&token)
    }

    fn read(&self, token: &str) -> Result<Grant, String> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.rules);
        let claims = claims.map_err(|error| format!("the token is not good: {error}"))?.claims;
        let id = |text: &str| PeerId::from_foreign(text).map_err(|error| format!("the token's sub: {error}"));
        let room = |text: &String| {
            RoomId::from_foreign(text).map_err(|error| format!("a room of the token: {error}"))
        };
        let rooms = claims.rooms.as_ref().map(|rooms| rooms.iter().map(room).collect());
        let rooms: Option<BTreeSet<RoomId>> = rooms.transpose()?;
        Ok(Grant { name: claims.sub.as_deref().map(id).transpose()?, rooms, description: claims.description })
    }
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
    fn a_good_token_grants_what_it_says() {
        let tokens = Tokens::new(&Secret(SECRET.into())).unwrap();
        let read = |claims: Value| tokens.read(&token(&claims, SECRET, Algorithm::HS256));
        let far = 4_000_000_000_u64;
        assert_eq!(read(json!({"exp": far})), Ok(Grant::default()));
        let grant =
            read(json!({"exp": far, "sub": "ann", "rooms": ["the attic"], "description": {"name": "Ann"}}));
        let grant = grant.unwrap();
        assert_eq!(grant.name, Some("ann".parse().unwrap()));
        assert_eq!(grant.rooms, Some([RoomId::from_foreign("the attic").unwrap()].into()));
        assert_eq!(grant.description, json!({"name": "Ann"}));
        let wrong = |claims: Value| read(claims).unwrap_err();
        assert!(wrong(json!({"exp": 1})).contains("ExpiredSignature"));
        assert!(wrong(json!({"exp": far, "nbf": far - 1})).contains("ImmatureSignature"));
        assert!(wrong(json!({})).contains("exp"));
        assert!(wrong(json!({"exp": far, "sub": ""})).contains("sub"));
        assert!(tokens.read(&token(&json!({"exp": far}), &SECRET.to_uppercase(), Algorithm::HS256)).is_err());
        assert!(tokens.read(&token(&json!({"exp": far}), SECRET, Algorithm::HS512)).is_err());
        for junk in ["", "a.b.c", "..", "eyJhbGciOiJub25lIn0.e30."] {
            assert!(tokens.read(junk).is_err(), "{junk}");
        }
        assert!(Tokens::new(&Secret("short".into())).is_none());
    }
}
