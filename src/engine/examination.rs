//! The examination of an engine for its operator: each check that servers make, and each command that they send.

use std::time::Instant;

use redis::Value;
use redis::aio::MultiplexedConnection;

use super::check::{self, Outcome};
use super::error::EngineError;
use super::link::{ANSWER, ask, connect, primary_of};
use super::settings::Engine;
use crate::hub::shard::scripts::{ATTACH, BEAT, TX};
use crate::hub::shard::{Attach, Beat, NodeId, Tx, Verdict};

/// The number of requests whose round trips are measured.
const ROUNDS: usize = 20;
/// The SHA-1 sum of the script `return 1`.
const RETURN_1: &str = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The subject: `address`, `version`, `mode`, `role`, `memory`, `permissions`, `scripts` or `round trip`.
    pub subject: &'static str,
    /// Whether servers can use the engine without danger to the service, as far as this check tells.
    pub is_fine: bool,
    /// The state of the engine or, if it is not fine, what is wrong and what to do.
    pub text: String,
}

impl Finding {
    fn new(subject: &'static str, outcome: Outcome) -> Self {
        let (is_fine, text) = match outcome {
            Outcome::Fine(text) => (true, text),
            Outcome::Risk(text) => (false, text),
            Outcome::Wrong(error) => (false, error.to_string()),
        };
        Self { subject, is_fine, text }
    }
}

impl Engine {
    /// Examines the engine: everything that [`Engine::check`] checks, and each command that servers send, under keys of its own
    /// that it removes afterwards. Ends at the first finding without which further ones would say nothing.
    pub async fn examine(&self) -> Vec<Finding> {
        let connected = async {
            let address = primary_of(self).await?;
            let name = address.to_string();
            let connection = connect(&address, &name, Some(ANSWER)).await?;
            // A prefix below that of the servers, for which their user has permissions.
            let prefix = format!("{}check:{:016x}:", self.prefix, fastrand::u64(..));
            Ok(Trial { connection, name, prefix })
        };
        match connected.await {
            Ok(trial) => trial.run().await,
            Err(error) => vec![Finding::new("address", Outcome::Wrong(error))],
        }
    }
}

/// A connection, and the keys that the examination uses.
struct Trial {
    connection: MultiplexedConnection,
    name: String,
    prefix: String,
}

impl Trial {
    async fn run(mut self) -> Vec<Finding> {
        let mut findings = vec![Finding::new("address", Outcome::Fine(self.name.clone()))];
        match self.ask::<String>(&["INFO"]).await {
            Ok(info) => {
                let examined = check::examine(&self.name, &info);
                let is_usable = !examined.iter().any(|(_, outcome)| matches!(outcome, Outcome::Wrong(_)));
                findings.extend(examined.map(|(subject, outcome)| Finding::new(subject, outcome)));
                if !is_usable {
                    return findings;
                }
            }
            // Reported with the other permissions.
            Err(EngineError::NotPermitted(..)) => {}
            Err(error) => return vec![Finding::new("address", Outcome::Wrong(error))],
        }
        let permissions = self.permissions().await.unwrap_or_else(Outcome::Wrong);
        let is_permitted = matches!(permissions, Outcome::Fine(_));
        findings.push(Finding::new("permissions", permissions));
        if is_permitted {
            let scripts = self.scripts().await.unwrap_or_else(Outcome::Wrong);
            findings.push(Finding::new("scripts", scripts));
            let round_trip = self.round_trip().await.unwrap_or_else(Outcome::Wrong);
            findings.push(Finding::new("round trip", round_trip));
        }
        findings
    }

    async fn ask<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> Result<T, EngineError> {
        let mut command = redis::Cmd::new();
        command.arg(words);
        ask(&self.name, command, &mut self.connection).await
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn strange(&self, what: impl std::fmt::Debug) -> EngineError {
        EngineError::Strange(self.name.clone(), format!("{what:?}"))
    }

    /// Sends each command that servers and their scripts send.
    async fn permissions(&mut self) -> Result<Outcome, EngineError> {
        let (hash, stream) = (self.key("hash"), self.key("stream"));
        let remove: &[&str] = &["DEL", &hash, &stream];
        // These write nothing, since their keys do not exist.
        let harmless: [&[&str]; 14] = [
            remove,
            &["INFO"],
            &["TIME"],
            &["EXISTS", &hash],
            &["HGET", &hash, "a"],
            &["HDEL", &hash, "a"],
            &["HKEYS", &hash],
            &["HGETALL", &hash],
            &["XADD", &stream, "NOMKSTREAM", "*", "a", "1"],
            &["XDEL", &stream, "1-0"],
            &["XREAD", "COUNT", "1", "STREAMS", &stream, "0-0"],
            &["XTRIM", &stream, "MINID", "1-0"],
            &["SCRIPT", "LOAD", "return 1"],
            &["EVALSHA", RETURN_1, "1", &hash],
        ];
        let writing: [&[&str]; 3] = [&["HSET", &hash, "a", "1"], &["HINCRBY", &hash, "a", "1"], remove];
        let mut refused = vec![];
        for words in harmless {
            self.attempt(words, &mut refused).await?;
        }
        if !refused.iter().any(|(name, _)| *name == "DEL") {
            for words in writing {
                self.attempt(words, &mut refused).await?;
            }
        }
        let Some((_, why)) = refused.first() else {
            return Ok(Outcome::Fine(format!("all commands, on keys that begin with {}", self.prefix)));
        };
        let names: Vec<&str> = refused.iter().map(|(name, _)| *name).collect();
        let why = format!("{} ({why})", names.join(", "));
        Ok(Outcome::Wrong(EngineError::NotPermitted(self.name.clone(), why)))
    }

    /// Sends a command; notes its name and the words of the engine if the user has no permission.
    async fn attempt<'a>(
        &mut self,
        words: &[&'a str],
        refused: &mut Vec<(&'a str, String)>,
    ) -> Result<(), EngineError> {
        match self.ask::<Value>(words).await {
            Ok(_) => {}
            Err(EngineError::NotPermitted(_, why)) => refused.push((words[0], why)),
            // The script is missing if it was not permitted to load it.
            Err(EngineError::Strange(_, why)) if why.starts_with("NOSCRIPT") => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Runs the scripts as a server does that attaches, makes an empty change and beats.
    async fn scripts(&mut self) -> Result<Outcome, EngineError> {
        let outcome = self.run_scripts().await;
        let keys = ["meta", "op", "beats", "placed", "in:check"].map(|name| self.key(name));
        let mut remove = vec!["DEL"];
        remove.extend(keys.iter().map(String::as_str));
        self.ask::<Value>(&remove).await?;
        outcome
    }

    async fn run_scripts(&mut self) -> Result<Outcome, EngineError> {
        let node = NodeId("check".to_owned());
        let attach = Attach { node: node.clone(), old: None, epoch: None, is_rewound: false };
        let (epoch, _): (String, i64) = self.script(ATTACH, &attach.arguments()).await?;
        let tx = Tx { op: 1, guards: vec![], writes: vec![], sends: vec![], reads: vec![] };
        let verdict: String = self.script(TX, &tx.arguments(&node, &epoch)).await?;
        if Verdict::parse(&verdict) != Some(Verdict::Taken) {
            return Err(self.strange(verdict));
        }
        let inbox = self.key("in:check");
        let outcome: Value = self.ask(&["XREAD", "COUNT", "2", "STREAMS", &inbox, "0-0"]).await?;
        if outcome == Value::Nil {
            return Err(self.strange("no outcome of a transaction"));
        }
        let beat = Beat { node, epoch, op: 1, place: 1 };
        let answer: Vec<Value> = self.script(BEAT, &beat.arguments()).await?;
        match answer.first() {
            Some(Value::BulkString(verdict)) if verdict == b"TAKEN" => {
                Ok(Outcome::Fine("all run".to_owned()))
            }
            _ => Err(self.strange(answer)),
        }
    }

    async fn script<T: redis::FromRedisValue>(
        &mut self,
        text: &str,
        arguments: &[String],
    ) -> Result<T, EngineError> {
        let sum: String = self.ask(&["SCRIPT", "LOAD", text]).await?;
        let prefix = self.prefix.clone();
        let mut words = vec!["EVALSHA", &sum, "1", &prefix];
        words.extend(arguments.iter().map(String::as_str));
        self.ask(&words).await
    }

    async fn round_trip(&mut self) -> Result<Outcome, EngineError> {
        let mut times = vec![];
        for _ in 0..ROUNDS {
            let since = Instant::now();
            self.ask::<Value>(&["TIME"]).await?;
            times.push(since.elapsed());
        }
        times.sort();
        let median = times[ROUNDS / 2].as_secs_f64() * 1000.0;
        Ok(Outcome::Fine(format!("{median:.2} ms, the median of {ROUNDS} requests")))
    }
}
