//! `serve --check-engine`: the findings about redis-servers that servers can use, and about others.

use std::process::Command;

use crate::common::redis::Redis;
use crate::common::{free_address, needs};
use serde_json::Value;

/// The exit code, and the findings.
struct Report(i32, Vec<Value>);

impl Report {
    fn of(url: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_roomtone"))
            .args(["serve", "--check-engine", "--json"])
            .env("ROOMTONE_ENGINE", url)
            .env("HOME", home.path())
            .env_remove("XDG_CONFIG_HOME")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let findings: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(!findings.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(output.status.code().unwrap(), findings)
    }

    fn subjects(&self, is_fine: bool) -> Vec<&str> {
        let of = self.1.iter().filter(|finding| finding["fine"] == is_fine);
        of.map(|finding| finding["check"].as_str().unwrap()).collect()
    }

    /// Checks that this alone is wrong, and that the text has these words.
    fn expect_wrong(&self, subject: &str, words: &[&str]) {
        assert_eq!((self.0, self.subjects(false)), (1, vec![subject]), "{:?}", self.1);
        let finding = self.1.iter().find(|finding| finding["fine"] == false).unwrap();
        let text = finding["text"].as_str().unwrap();
        let has = |word: &&str| text.to_lowercase().contains(&word.to_lowercase());
        assert!(words.iter().all(has), "{text}");
    }
}

const ALL: [&str; 8] =
    ["address", "version", "mode", "role", "memory", "permissions", "scripts", "round trip"];

#[test]
fn a_suitable_engine_passes_and_no_key_remains() {
    needs!(Redis);
    let redis = Redis::start();
    let report = Report::of(&redis.url());
    assert_eq!((report.0, report.subjects(true)), (0, ALL.to_vec()), "{:?}", report.1);
    assert_eq!(redis.command(&["DBSIZE"]).trim(), "0");
}

#[test]
fn an_engine_that_cannot_be_used_is_reported_with_the_reason() {
    needs!(Redis);
    Report::of(&format!("redis://{}", free_address())).expect_wrong("address", &["refused"]);
    let redis = Redis::with(&["--requirepass", "the password"]);
    Report::of(&redis.url()).expect_wrong("address", &["password"]);
    let redis = Redis::with(&["--cluster-enabled", "yes"]);
    Report::of(&redis.url()).expect_wrong("mode", &["without cluster-enabled"]);
    let redis = Redis::with(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let report = Report::of(&redis.url());
    report.expect_wrong("memory", &["allkeys-lru", "Set noeviction"]);
    assert_eq!(report.subjects(true).len(), ALL.len() - 1, "the other checks are made, too");
}

#[test]
fn each_permission_that_a_user_lacks_is_named() {
    needs!(Redis);
    let redis = Redis::start();
    let url = redis.url().replace("//", "//call:word@");
    let user = |rights: &[&str]| {
        let fixed = ["ACL", "SETUSER", "call", "reset", "on", ">word"];
        assert_eq!(redis.command(&[&fixed, rights].concat()).trim(), "OK");
    };
    // The permissions that the documentation names are enough.
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/shards.md")).unwrap();
    let list = docs.split('`').find(|text| text.starts_with("+info")).unwrap();
    let rights: Vec<&str> = list.split(' ').collect();
    assert!(rights.len() > 10, "{list}");
    let keys = "~rt1:*";
    user(&[&[keys], &rights[..]].concat());
    let report = Report::of(&url);
    assert_eq!((report.0, report.subjects(true)), (0, ALL.to_vec()), "{:?}", report.1);
    // Each of them is needed.
    for lacking in &rights {
        let others = rights.iter().filter(|right| *right != lacking).copied();
        user(&std::iter::once(keys).chain(others).collect::<Vec<_>>());
        let command = lacking[1..].split('|').next().unwrap();
        Report::of(&url).expect_wrong("permissions", &[command, "docs/shards.md"]);
    }
    user(&[&["~other:*"], &rights[..]].concat());
    Report::of(&url).expect_wrong("permissions", &["HGET", "keys"]);
    assert_eq!(redis.command(&["DBSIZE"]).trim(), "0");
}

#[test]
fn the_check_needs_an_address() {
    let output = Command::new(env!("CARGO_BIN_EXE_roomtone"))
        .args(["serve", "--check-engine"])
        .env_remove("ROOMTONE_ENGINE")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), error.contains("--engine")), (Some(2), true), "{error}");
}
