//! The STUN and TURN servers that clients receive, with fresh credentials if the TURN server shares a secret (the "REST
//! API" of coturn's `use-auth-secret`, draft-uberti-behave-turn-rest).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::protocol::{IceServer, Secret};

/// The lifetime of the credentials.
pub const VALID: Duration = Duration::from_secs(24 * 3600);

/// The way in which clients authenticate to a TURN server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// No authentication.
    #[default]
    None,
    /// The same user and password for all clients.
    Fixed(String, Secret),
    /// Credentials for each client, derived from a secret that the TURN server shares.
    Shared(Secret),
}

/// The STUN and TURN servers for clients.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IceServers {
    /// `stun:` URIs.
    pub stun: Vec<String>,
    /// `turn:` and `turns:` URIs.
    pub turn: Vec<String>,
    /// The credentials for the TURN servers.
    pub credentials: Credentials,
}

/// Returns a user name that expires at `until`, in seconds since 1970, and its password.
pub fn time_limited(secret: &Secret, until: u64) -> (String, Secret) {
    let user = format!("{until}:roomtone");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.0.as_bytes());
    let password = STANDARD.encode(ring::hmac::sign(&key, user.as_bytes()));
    (user, Secret(password))
}

impl IceServers {
    /// Returns the list for a client, with credentials that are valid from `now`.
    pub fn list(&self, now: SystemTime) -> Vec<IceServer> {
        let mut list = Vec::new();
        if !self.stun.is_empty() {
            list.push(IceServer { urls: self.stun.clone(), username: None, credential: None });
        }
        if !self.turn.is_empty() {
            let (username, credential) = match &self.credentials {
                Credentials::None => (None, None),
                Credentials::Fixed(user, password) => (Some(user.clone()), Some(password.clone())),
                Credentials::Shared(secret) => {
                    let until = (now + VALID).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                    let (user, password) = time_limited(secret, until);
                    (Some(user), Some(password))
                }
            };
            list.push(IceServer { urls: self.turn.clone(), username, credential });
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_match_those_of_the_turn_server() {
        // openssl: printf 86400:roomtone | openssl dgst -sha1 -hmac north -binary | base64
        let (user, password) = time_limited(&Secret("north".into()), 86400);
        assert_eq!((user.as_str(), password.0.as_str()), ("86400:roomtone", "QXoBxzpuPi6qdi0tYdDYw0/zxds="));
        let servers = IceServers {
            stun: vec!["stun:a".into()],
            turn: vec!["turn:b".into()],
            credentials: Credentials::Shared(Secret("north".into())),
        };
        let list = servers.list(UNIX_EPOCH);
        assert_eq!(list.len(), 2);
        assert_eq!(
            (list[1].username.as_deref(), list[1].credential.clone()),
            (Some("86400:roomtone"), Some(password))
        );
    }
}
