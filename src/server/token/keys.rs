//! Keys that verify tokens: secrets of this server, and public keys of an identity provider (JSON Web Key Set, RFC 7517).
//!
//! Pure: no clock, sockets, files or random numbers.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use serde_json::Value;

use crate::protocol::Secret;

/// The longest key set that is read, in bytes.
pub(super) const MAX_SET: usize = 64 * 1024;
/// The most keys of one set that are used.
const MAX_KEYS: usize = 20;
/// The shortest RSA modulus, in bytes (RFC 7518, 3.3: 2048 bits).
const MIN_MODULUS: usize = 256;

/// The reason why a key set cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// The set is longer than 64 KiB.
    #[error("it is longer than 64 KiB")]
    TooLong,
    /// The text is no JSON object with a list `keys`.
    #[error("it is no JSON Web Key Set, {{\"keys\": [...]}}: {0}")]
    NoKeySet(String),
    /// The set has more than 20 keys.
    #[error("it has more than {MAX_KEYS} keys")]
    TooMany,
    /// No key of the set can verify a signature; contains the reason for each key.
    #[error("none of its keys can be used: {0}")]
    Unusable(String),
}

/// The algorithms of keys in a set.
pub(super) const PUBLIC: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

/// A key and the algorithm that it is used with. The algorithm never comes from a token.
#[derive(Debug, Clone)]
pub(super) struct Key {
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// Several keys.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys(Vec<Key>);

impl Keys {
    /// Returns keys for HS256; empty secrets are left out.
    pub(super) fn secrets(secrets: &[Secret]) -> Self {
        let key = |secret: &Secret| DecodingKey::from_secret(secret.0.as_bytes()).ok();
        let keys = secrets.iter().filter_map(key);
        Self(keys.map(|key| Key { id: None, algorithm: Algorithm::HS256, key }).collect())
    }

    /// Reads a key set. Keys for other purposes and of other types are left out.
    pub(super) fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        if text.len() > MAX_SET {
            return Err(KeySetError::TooLong);
        }
        let set: Value =
            serde_json::from_slice(text).map_err(|error| KeySetError::NoKeySet(error.to_string()))?;
        let list = set.get("keys").and_then(Value::as_array);
        let list = list.ok_or_else(|| KeySetError::NoKeySet("it has no list 'keys'".into()))?;
        if list.len() > MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        let (mut keys, mut reasons) = (Vec::new(), Vec::new());
        for (n, value) in list.iter().enumerate() {
            match key(value) {
                Ok(key) => keys.push(key),
                Err(why) => reasons.push(format!("key {n} {why}")),
            }
        }
        if keys.is_empty() {
            let reasons =
                if reasons.is_empty() { "the list is empty".to_owned() } else { reasons.join("; ") };
            return Err(KeySetError::Unusable(reasons));
        }
        Ok(Self(keys))
    }

    /// Returns whether a key has the algorithm and the key id (`kid`) of this header.
    pub(super) fn knows(&self, header: &Header) -> bool {
        header.kid.is_some() && self.0.iter().any(|key| key.algorithm == header.alg && key.id == header.kid)
    }

    /// Returns the keys that may have signed a token with this header: those of its algorithm and its key id (`kid`). A
    /// token without a key id matches a named key only if that is the only key of the algorithm.
    pub(super) fn matching(&self, header: &Header) -> Vec<&Key> {
        let same: Vec<&Key> = self.0.iter().filter(|key| key.algorithm == header.alg).collect();
        let is_alone = same.len() == 1;
        let matches = |key: &&Key| match (&key.id, &header.kid) {
            (None, _) => true,
            (Some(_), None) => is_alone,
            (Some(id), Some(kid)) => id == kid,
        };
        same.into_iter().filter(matches).collect()
    }
}

/// Converts a key of a set; the error is a text that continues "key 0 …".
fn key(value: &Value) -> Result<Key, String> {
    let jwk: Jwk = serde_json::from_value(value.clone()).map_err(|error| format!("is invalid: {error}"))?;
    let is_for_signatures = |purpose: &PublicKeyUse| *purpose == PublicKeyUse::Signature;
    if !jwk.common.public_key_use.as_ref().is_none_or(is_for_signatures) {
        return Err("is not for signatures (use)".into());
    }
    let verifies = |operations: &Vec<KeyOperations>| operations.contains(&KeyOperations::Verify);
    if !jwk.common.key_operations.as_ref().is_none_or(verifies) {
        return Err("is not for verification (key_ops)".into());
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        AlgorithmParameters::OctetKey(_) => return Err("is a secret, which no key set may contain".into()),
        _ => return Err("has a type or curve other than RSA, P-256 and Ed25519".into()),
    };
    let named = |name| Algorithm::try_from(name).ok();
    if jwk.common.key_algorithm.is_some_and(|name| named(name) != Some(algorithm)) {
        return Err("is for an algorithm other than RS256, ES256 and EdDSA (alg)".into());
    }
    if let AlgorithmParameters::RSA(key) = &jwk.algorithm
        && key.n.len() * 3 / 4 < MIN_MODULUS
    {
        return Err("is shorter than 2048 bits".into());
    }
    let key = DecodingKey::from_jwk(&jwk).map_err(|error| format!("is invalid: {error}"))?;
    Ok(Key { id: jwk.common.key_id, algorithm, key })
}
