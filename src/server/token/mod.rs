//! Tokens (JSON Web Tokens, RFC 7519): a back end or an identity provider grants a client access, for a time, under a name
//! and to rooms, and describes the client.

mod claims;
mod config;
mod freshness;
mod key_set;
mod keys;
mod provider;

use std::time::Duration;

use hyper::{Request, header};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, EncodingKey, Header, Validation};
use serde_json::Value;

pub use self::config::{KeySource, KeySourceError, TokenConfig};
use self::key_set::KeySet;
pub use self::keys::KeySetError;
use self::keys::{Key, Keys};
use crate::base::random::{NoRandomness, secret_id};
use crate::hub::Grant;
use crate::protocol::{PeerId, Secret};

/// The longest token that is read, in bytes.
const MAX_TOKEN: usize = 8 * 1024;
/// How far the clocks of the issuer and of this server may differ, in seconds.
pub(super) const LEEWAY: u64 = 30;

const EXPIRED: &str = "it has expired (exp)";
const IMMATURE: &str = "it is not valid yet (nbf)";

/// The reason why a token is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    /// The request has no token.
    #[error("a token is wanted here (?token=…)")]
    Missing,
    /// No key verifies the signature: a guess, or the back end signs with another key.
    #[error("the token is not good: {0}")]
    Forged(String),
    /// The signature is valid, but the token has expired, is not valid yet, or contains unusable claims.
    #[error("the token is not good: {0}")]
    Refused(String),
    /// The back end that decides about tokens does not answer.
    #[error("the token cannot be checked now: the back end does not answer; try again later")]
    NoAnswer,
    /// The keys of the identity provider cannot be read at the moment.
    #[error("the token cannot be checked now: the keys of its issuer cannot be read; try again later")]
    NoKeys,
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

impl Denied {
    /// Returns whether the same secret may be accepted later.
    pub(super) fn is_for_now(&self) -> bool {
        match self {
            Self::Later(_) | Self::Token(TokenError::NoAnswer | TokenError::NoKeys) => true,
            Self::Token(TokenError::Missing | TokenError::Forged(_) | TokenError::Refused(_)) => false,
        }
    }
}

/// Verifies tokens.
pub(super) struct Tokens {
    secrets: Keys,
    set: Option<KeySet>,
    rules: Validation,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
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
    /// Returns a verifier for tokens that are signed with a secret or a key of the configuration. The key set is read
    /// by [`Tokens::refresh`].
    pub(super) fn new(config: &TokenConfig) -> Self {
        provider::install();
        let mut rules = Validation::new(Algorithm::HS256);
        rules.validate_nbf = true;
        rules.leeway = LEEWAY;
        if !config.audience.is_empty() {
            rules.set_audience(&config.audience);
            rules.required_spec_claims.insert("aud".into());
        }
        if !config.issuer.is_empty() {
            rules.set_issuer(&config.issuer);
            rules.required_spec_claims.insert("iss".into());
        }
        let set = config.keys.clone().map(KeySet::new);
        Self { secrets: Keys::secrets(&config.secrets), set, rules }
    }

    /// Reads the key set, if there is one.
    ///
    /// # Errors
    ///
    /// The reason in words, if the set cannot be read or used; the set before stays in use.
    pub(super) async fn refresh(&self) -> Result<(), String> {
        match &self.set {
            Some(set) => set.read().await,
            None => Ok(()),
        }
    }

    /// Reads the key set again whenever that is due. Never completes.
    pub(super) async fn keep_fresh(&self) {
        match &self.set {
            Some(set) => set.keep_fresh().await,
            None => std::future::pending().await,
        }
    }

    /// Verifies a token and returns the permissions that it grants. A token of an unknown key makes the key set be read
    /// again, at most every 30 s.
    pub(super) async fn read(&self, token: &str) -> Result<Granted, TokenError> {
        let header = header(token)?;
        if let Some(grant) = self.verify(token, self.secrets.matching(&header)) {
            return grant;
        }
        let is_public = keys::PUBLIC.contains(&header.alg);
        let Some(set) = self.set.as_ref().filter(|_| is_public) else { return Err(wrong_key()) };
        let keys = set.keys();
        if let Some(grant) = self.verify(token, keys.matching(&header)) {
            return grant;
        }
        if keys.knows(&header) {
            return Err(wrong_key());
        }
        let is_current = set.renew_for_unknown_key().await;
        match self.verify(token, set.keys().matching(&header)) {
            Some(grant) => grant,
            // The key may be a new one: nobody can guess a signature, so the token need not count as a guess.
            None if !is_current => Err(TokenError::NoKeys),
            None => Err(wrong_key()),
        }
    }

    /// Verifies a token with keys that may have signed it; returns nothing if none of them has.
    fn verify(&self, token: &str, keys: Vec<&Key>) -> Option<Result<Granted, TokenError>> {
        for key in keys {
            let mut rules = self.rules.clone();
            rules.algorithms = vec![key.algorithm];
            return Some(match jsonwebtoken::decode::<Value>(token, &key.key, &rules) {
                Ok(token) => granted(token.claims).map_err(TokenError::Refused),
                Err(error) => match refusal(&error) {
                    Some(why) => Err(TokenError::Refused(why)),
                    None => continue,
                },
            });
        }
        None
    }
}

/// The permissions that a token grants.
#[derive(Debug, Clone)]
pub(super) struct Granted {
    pub(super) grant: Grant,
    /// The end of the token, in seconds since 1970; none if the back end that granted the permissions named none.
    pub(super) expires: Option<u64>,
}

/// Returns the permissions that authentic claims grant; the error is a text for the bearer.
pub(super) fn granted(claims: Value) -> Result<Granted, String> {
    // Times may have a fraction; claims::grant checks their range.
    let expires = claims.get("exp").and_then(Value::as_f64).map(|end| end as u64);
    Ok(Granted { grant: claims::grant(claims)?, expires })
}

/// Refuses claims whose times exclude `now`, in seconds since 1970, as tokens with these claims are refused.
pub(super) fn check_times(claims: &Value, now: u64) -> Result<(), String> {
    let time = |claim| claims.get(claim).and_then(Value::as_f64);
    let (now, leeway) = (now as f64, LEEWAY as f64);
    if time("exp").is_some_and(|end| end + leeway < now) {
        return Err(EXPIRED.to_owned());
    }
    if time("nbf").is_some_and(|start| now + leeway < start) {
        return Err(IMMATURE.to_owned());
    }
    Ok(())
}

/// Refuses a token of more than [`MAX_TOKEN`] bytes.
pub(super) fn check_length(token: &str) -> Result<(), TokenError> {
    match token.len() {
        0..=MAX_TOKEN => Ok(()),
        _ => Err(TokenError::Forged(format!("it is longer than {MAX_TOKEN} bytes"))),
    }
}

/// Reads the header of a token, which is not verified yet.
fn header(token: &str) -> Result<Header, TokenError> {
    check_length(token)?;
    jsonwebtoken::decode_header(token).map_err(|error| TokenError::Forged(error.to_string()))
}

fn wrong_key() -> TokenError {
    TokenError::Forged("no key of this server verifies its signature".into())
}

/// Returns why a token is refused whose signature is valid; nothing if the signature is not. The library checks the claims
/// after the signature.
fn refusal(error: &Error) -> Option<String> {
    Some(match error.kind() {
        ErrorKind::ExpiredSignature => EXPIRED.into(),
        ErrorKind::ImmatureSignature => IMMATURE.into(),
        ErrorKind::MissingRequiredClaim(claim) => format!("it has no {claim}"),
        ErrorKind::InvalidClaimFormat(claim) => format!("its {claim} has the wrong type"),
        ErrorKind::InvalidAudience => "it is for another audience (aud)".into(),
        ErrorKind::InvalidIssuer => "it is from another issuer (iss)".into(),
        ErrorKind::InvalidSubject => "it is for another client (sub)".into(),
        _ => return None,
    })
}

/// Returns the permissions that claims would grant, or the reason why a server refuses them.
///
/// # Errors
///
/// A text that names the claim.
pub fn check(claims: &Value) -> Result<Grant, String> {
    if claims.get("exp").is_none() {
        return Err("a token needs the time of its end (exp)".into());
    }
    claims::grant(claims.clone())
}

/// Signs claims with a secret (HS256), whether or not a server would accept them.
///
/// # Errors
///
/// A text, if the secret is empty.
pub fn sign(claims: &Value, secret: &Secret) -> Result<String, String> {
    provider::install();
    let key = EncodingKey::from_secret(secret.0.as_bytes());
    let token = key.and_then(|key| jsonwebtoken::encode(&Header::default(), claims, &key));
    token.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
