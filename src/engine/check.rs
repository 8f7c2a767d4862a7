//! Checks whether an engine is suitable, by its answer to `INFO`.
//!
//! Pure: no clock, sockets, files or random numbers.

use super::error::EngineError;

/// The oldest version of Redis (major), whose scripts and streams do what the shards need.
const OLDEST: u32 = 7;

/// A suitable engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checked {
    /// The name and the version.
    pub(super) version: String,
    /// Whether the memory is used up. Such an engine gives back names and ends stays, but accepts no newcomers.
    pub(super) is_full: bool,
    /// Settings that endanger the service.
    pub(super) warnings: Vec<String>,
}

/// Checks the answer of the engine `address` to `INFO`.
pub(super) fn check(address: &str, info: &str) -> Result<Checked, EngineError> {
    let field = |name: &str| {
        let value = |line: &str| Some(line.trim_end().strip_prefix(name)?.strip_prefix(':')?.to_owned());
        info.lines().find_map(value)
    };
    let redis = field("redis_version")
        .ok_or_else(|| EngineError::Strange(address.to_owned(), "INFO names no version".to_owned()))?;
    let valkey = field("valkey_version");
    let major = redis.split('.').next().and_then(|major| major.parse::<u32>().ok());
    if valkey.is_none() && major.is_none_or(|major| major < OLDEST) {
        return Err(EngineError::TooOld(address.to_owned(), redis));
    }
    if field("cluster_enabled").is_some_and(|on| on == "1") {
        return Err(EngineError::Cluster(address.to_owned()));
    }
    if field("role").is_some_and(|role| role != "master") {
        return Err(EngineError::Replica(address.to_owned()));
    }
    let bytes = |name: &str| field(name).and_then(|bytes| bytes.parse::<u64>().ok()).unwrap_or_default();
    let (most, used) = (bytes("maxmemory"), bytes("used_memory"));
    let policy = field("maxmemory_policy").filter(|policy| most > 0 && policy != "noeviction");
    let is_full = most > 0 && used >= most && policy.is_none();
    let mut warnings = vec![];
    if let Some(policy) = policy {
        warnings.push(format!(
            "maxmemory-policy is {policy}: an engine that is full then drops peers and rooms. Set noeviction"
        ));
    }
    let version = valkey.map_or_else(|| format!("Redis {redis}"), |valkey| format!("Valkey {valkey}"));
    Ok(Checked { version, is_full, warnings })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(fields: &[&str]) -> String {
        format!("# Server\r\n{}\r\n", fields.join("\r\n"))
    }

    #[test]
    fn suitable_engines_pass() {
        let redis = info(&[
            "redis_version:7.0.15",
            "role:master",
            "cluster_enabled:0",
            "maxmemory:0",
            "maxmemory_policy:allkeys-lru",
        ]);
        let checked = check("a", &redis).unwrap();
        assert_eq!((checked.version.as_str(), checked.warnings.len()), ("Redis 7.0.15", 0));
        assert!(!checked.is_full);
        let valkey = info(&["redis_version:7.2.4", "valkey_version:8.1.1", "role:master"]);
        assert_eq!(check("a", &valkey).unwrap().version, "Valkey 8.1.1");
        let evicts =
            info(&["redis_version:8.0.0", "role:master", "maxmemory:100000", "maxmemory_policy:allkeys-lru"]);
        assert!(check("a", &evicts).unwrap().warnings[0].contains("allkeys-lru"));
    }

    #[test]
    fn others_are_refused_with_the_reason() {
        let refused = |fields: &[&str]| check("a", &info(fields)).unwrap_err();
        assert_eq!(refused(&["redis_version:6.2.1"]), EngineError::TooOld("a".into(), "6.2.1".into()));
        assert_eq!(refused(&["redis_version:7.0.0", "cluster_enabled:1"]), EngineError::Cluster("a".into()));
        assert_eq!(refused(&["redis_version:7.0.0", "role:slave"]), EngineError::Replica("a".into()));
        let full =
            ["redis_version:7.0.0", "used_memory:2000", "maxmemory:1000", "maxmemory_policy:noeviction"];
        assert!(check("a", &info(&full)).unwrap().is_full, "servers that run connect to it again");
        assert!(matches!(refused(&["x:1"]), EngineError::Strange(..)));
    }
}
