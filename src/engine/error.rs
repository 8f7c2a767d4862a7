//! The reasons why an engine cannot be used.
//!
//! Pure: no clock, sockets, files or random numbers.

/// A reason why a server cannot use its engine. No text contains a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// No connection comes about.
    #[error("the engine {0} is not reached: {1}")]
    Unreachable(String, String),
    /// The engine wants another password, or one at all.
    #[error(
        "the engine {0} refuses the password: check user and password in its address (redis://USER:PASSWORD@HOST)"
    )]
    Denied(String),
    /// The user of the engine may not do what servers need.
    #[error(
        "the engine {0} does not permit a command that servers need: {1}. docs/shards.md lists the permissions"
    )]
    NotPermitted(String, String),
    /// The version is too old.
    #[error("the engine {0} has the version {1}: Redis 7.0 or later, or Valkey, is needed")]
    TooOld(String, String),
    /// The engine is a cluster, whose keys are in several places.
    #[error(
        "the engine {0} is in cluster mode, but one transaction needs all keys: start it without cluster-enabled"
    )]
    Cluster(String),
    /// The engine is a replica.
    #[error("the engine {0} is a replica, which accepts no changes: name its primary, or the Sentinels")]
    Replica(String),
    /// The engine has no memory left.
    #[error("the engine {0} is out of memory: raise its maxmemory")]
    Full(String),
    /// No Sentinel names a primary.
    #[error("no Sentinel of {0} names a primary: {1}")]
    NoPrimary(String, String),
    /// The engine is about to be ready.
    #[error("the engine {0} is not ready yet: {1}")]
    NotReady(String, String),
    /// The engine gave an answer that no script gives.
    #[error("the engine {0} gave an answer that is not understood: {1}")]
    Strange(String, String),
    /// The engine gave no answer, or the connection broke.
    #[error("the connection to the engine {0} is lost: {1}")]
    Lost(String, String),
}

impl EngineError {
    /// Returns the meaning of an error of the engine `address`.
    pub(super) fn of(address: &str, error: &redis::RedisError) -> Self {
        let address = address.to_owned();
        // The category alone for errors of the connection: details of others are the server's own words.
        let why = error.detail().map_or_else(|| error.to_string(), str::to_owned);
        if error.kind() == redis::ErrorKind::AuthenticationFailed {
            return Self::Denied(address);
        }
        match error.code() {
            Some("WRONGPASS" | "NOAUTH") => Self::Denied(address),
            Some("NOPERM") => Self::NotPermitted(address, why),
            Some("OOM") => Self::Full(address),
            Some("READONLY") => Self::Replica(address),
            Some("MOVED" | "ASK" | "CLUSTERDOWN" | "CROSSSLOT") => Self::Cluster(address),
            Some("LOADING" | "MASTERDOWN" | "TRYAGAIN" | "BUSY") => Self::NotReady(address, why),
            // A script's own error carries the error of its command in its words.
            Some(_) if why.contains("OOM ") => Self::Full(address),
            Some(code) => Self::Strange(address, format!("{code} {why}")),
            None if error.is_connection_refusal() => {
                Self::Unreachable(address, "connection refused".to_owned())
            }
            None if error.is_timeout() => Self::Lost(address, "no answer".to_owned()),
            None => Self::Lost(address, error.to_string()),
        }
    }
}
