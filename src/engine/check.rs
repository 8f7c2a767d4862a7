//! Checks whether an engine is suitable, by its answer to `INFO`.
//!
//! Pure: no clock, sockets, files or random numbers.

use super::error::EngineError;

/// The oldest version of Redis (major), whose scripts and streams do what the shards need.
const OLDEST: u32 = 7;

/// The subject of the check that names the version.
const VERSION: &str = "version";

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

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The engine is suitable; in words.
    Fine(String),
    /// A setting endangers the service.
    Risk(String),
    /// Servers cannot use the engine.
    Wrong(EngineError),
}

/// Checks the answer of the engine `address` to `INFO`.
pub(super) fn check(address: &str, info: &str) -> Result<Checked, EngineError> {
    let mut checked = Checked { version: String::new(), is_full: false, warnings: vec![] };
    for (subject, outcome) in examine(address, info) {
        match outcome {
            Outcome::Fine(version) if subject == VERSION => checked.version = version,
            Outcome::Fine(_) => {}
            Outcome::Risk(warning) => checked.warnings.push(warning),
            Outcome::Wrong(EngineError::Full(_)) => checked.is_full = true,
            Outcome::Wrong(error) => return Err(error),
        }
    }
    Ok(checked)
}

/// Examines the answer of the engine `address` to `INFO`; returns the outcomes with their subjects.
pub(super) fn examine(address: &str, info: &str) -> [(&'static str, Outcome); 4] {
    let wrong = |error: fn(String) -> EngineError| Outcome::Wrong(error(address.to_owned()));
    let mode = match field(info, "cluster_enabled") {
        Some("1") => wrong(EngineError::Cluster),
        _ => Outcome::Fine("no cluster".to_owned()),
    };
    let role = match field(info, "role") {
        None | Some("master") => Outcome::Fine("primary".to_owned()),
        Some(_) => wrong(EngineError::Replica),
    };
    [(VERSION, version(address, info)), ("mode", mode), ("role", role), ("memory", memory(address, info))]
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
}

fn version(address: &str, info: &str) -> Outcome {
    let Some(redis) = field(info, "redis_version") else {
        let why = "INFO names no version".to_owned();
        return Outcome::Wrong(EngineError::Strange(address.to_owned(), why));
    };
    let major = redis.split('.').next().and_then(|major| major.parse::<u32>().ok());
    match field(info, "valkey_version") {
        Some(valkey) => Outcome::Fine(format!("Valkey {valkey}")),
        None if major.is_none_or(|major| major < OLDEST) => {
            Outcome::Wrong(EngineError::TooOld(address.to_owned(), redis.to_owned()))
        }
        None => Outcome::Fine(format!("Redis {redis}")),
    }
}

fn memory(address: &str, info: &str) -> Outcome {
    let bytes =
        |name: &str| field(info, name).and_then(|bytes| bytes.parse::<u64>().ok()).unwrap_or_default();
    let (most, used) = (bytes("maxmemory"), bytes("used_memory"));
    match field(info, "maxmemory_policy") {
        _ if most == 0 => Outcome::Fine(format!("{} KiB used, no limit", used / 1024)),
        Some(policy) if policy != "noeviction" => Outcome::Risk(format!(
            "maxmemory-policy is {policy}: an engine that is full then drops peers and rooms. Set noeviction"
        )),
        _ if used >= most => Outcome::Wrong(EngineError::Full(address.to_owned())),
        _ => Outcome::Fine(format!("{} of {} KiB used, noeviction", used / 1024, most / 1024)),
    }
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
