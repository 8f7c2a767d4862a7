//! Conformance test: tries every rule of the HELLO protocol on a server.

use std::time::{Duration, Instant};

use super::run::run;
use super::script::{Script, SyntaxError};
use crate::base::text::shown;
use crate::signalling::Target;

/// Weight of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Clients rely on the rule.
    Required,
    /// Deployed servers are known to break the rule; the text names the consequence.
    Deviates(&'static str),
    /// Addition of roomtone's server.
    Ours,
}

/// A rule, and the script that tries it.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// The rule in words.
    pub name: &'static str,
    /// Weight of the rule.
    pub weight: Weight,
    /// The script, in which `peer !register` stands for the lines of [`REGISTER`].
    script: &'static str,
}

/// Result of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Deviation from the rule; `None` if the rule holds.
    pub failure: Option<String>,
    /// Duration of the script.
    pub took: Duration,
}

impl Outcome {
    /// Returns the result as a word for a table.
    pub fn word(&self, weight: Weight) -> &'static str {
        match (&self.failure, weight) {
            (None, _) => "ok",
            (Some(_), Weight::Required) => "FAILED",
            (Some(_), Weight::Deviates(_)) => "deviates",
            (Some(_), Weight::Ours) => "absent",
        }
    }
}

const fn rule(name: &'static str, weight: Weight, script: &'static str) -> Rule {
    Rule { name, weight, script }
}

/// Lines that connect and register a peer.
const REGISTER: &str = "PEER !connect\nPEER > HELLO PEER-{run}\nPEER < HELLO";

use Weight::{Deviates, Ours, Required};

/// All rules, in the order in which they are tried.
pub const RULES: &[Rule] = &[
    rule("HELLO is answered by HELLO", Required, "a !register"),
    rule(
        "HELLO may have white space around and within",
        Required,
        "a !connect\na > \\s HELLO \\t a-{run} \\s\na < HELLO",
    ),
    rule(
        "a first word that is not HELLO is closed with 1002",
        Required,
        "a !connect\na > SESSION x\na !closed 1002 invalid protocol",
    ),
    rule(
        "an id with white space is closed with 1002",
        Required,
        "a !connect\na > HELLO a b\na !closed 1002 invalid peer uid",
    ),
    rule(
        "SESSION is answered by SESSION_OK, and the callee receives nothing",
        Required,
        "a !register\nb !register\na > SESSION b-{run}\na < SESSION_OK\nb !quiet 200ms",
    ),
    rule(
        "a session relays verbatim, both ways",
        Required,
        "a !register\nb !register\na > SESSION b-{run}\na < SESSION_OK\n\
         a > {\"sdp\": {\"type\": \"offer\"}}\nb < {\"sdp\": {\"type\": \"offer\"}}\nb > OFFER_REQUEST\n\
         a < OFFER_REQUEST",
    ),
    rule(
        "a session ends for both peers when the connection of one ends",
        Required,
        "a !register\nb !register\na > SESSION b-{run}\na < SESSION_OK\nb !drop\na !closed * *",
    ),
    rule(
        "… with code 1000 and no reason",
        Deviates("clients that read the code take the end of a call for a fault"),
        "a !register\nb !register\na > SESSION b-{run}\na < SESSION_OK\nb !close\na !closed 1000",
    ),
    rule(
        "a call to an unknown peer gets 'not found'",
        Required,
        "a !register\na > SESSION x-{run}\na < ERROR peer 'x-{run}' not found",
    ),
    rule(
        "a peer in a session is busy",
        Required,
        "a !register\nb !register\nc !register\na > SESSION b-{run}\na < SESSION_OK\n\
         c > SESSION a-{run}\nc < ERROR peer 'a-{run}' busy",
    ),
    rule(
        "a new room is empty: 'ROOM_OK ' with its space",
        Required,
        "a !register\na > ROOM r-{run}\na < ROOM_OK\\s",
    ),
    rule(
        "a peer that joins gets the list of members, and the members get its id",
        Required,
        "a !register\nb !register\na > ROOM r-{run}\na < ROOM_OK *\nb > ROOM r-{run}\n\
         b < ROOM_OK a-{run}\na < ROOM_PEER_JOINED b-{run}",
    ),
    rule(
        "messages in a room go to one member, unchanged",
        Required,
        "a !register\nb !register\na > ROOM r-{run}\na < ROOM_OK *\nb > ROOM r-{run}\n\
         b < ROOM_OK a-{run}\nb > ROOM_PEER_MSG a-{run} {\"x\":  1}\na < ROOM_PEER_JOINED b-{run}\n\
         a < ROOM_PEER_MSG b-{run} {\"x\":  1}",
    ),
    rule(
        "members learn when a peer leaves",
        Required,
        "a !register\nb !register\na > ROOM r-{run}\na < ROOM_OK *\nb > ROOM r-{run}\nb < ROOM_OK *\n\
         a < ROOM_PEER_JOINED *\nb !close\na < ROOM_PEER_LEFT b-{run}",
    ),
    rule(
        "a peer in a room is busy",
        Required,
        "a !register\nb !register\na > ROOM r-{run}\na < ROOM_OK *\nb > SESSION a-{run}\n\
         b < ERROR peer 'a-{run}' busy",
    ),
    rule(
        "a room's name has no white space and is not 'session'",
        Required,
        "a !register\na > ROOM a b\na < ERROR invalid room id *\na > ROOM session\n\
         a < ERROR invalid room id *",
    ),
    rule(
        "messages go to members of the room only",
        Required,
        "a !register\nb !register\na > ROOM r-{run}\na < ROOM_OK *\na > ROOM_PEER_MSG b-{run} x\n\
         a < ERROR *\nb !quiet 200ms",
    ),
    rule(
        "an id that is in use is refused",
        Required,
        "a !register\nb !connect\nb > HELLO a-{run}\na !quiet 500ms\nb !closed 1002 invalid peer uid",
    ),
    rule(
        "a large message (1 MiB) is relayed",
        Required,
        "a !register\nb !register\na > SESSION b-{run}\na < SESSION_OK\na > {fill:1048576}\nb < xxx*",
    ),
    rule(
        "ROOM_PEER_LIST lists the others",
        Deviates("the demos' server ends the connection of the peer that asks"),
        "a !register\na > ROOM r-{run}\na < ROOM_OK *\na > ROOM_PEER_LIST\na < ROOM_PEER_LIST\\s",
    ),
    rule(
        "members learn of all peers that leave at once",
        Deviates("peers that left stay in the room, and their ids stay in use"),
        "a !register\nb !register\nc !register\na > ROOM r-{run}\na < ROOM_OK *\nb > ROOM r-{run}\n\
         b < ROOM_OK *\nc > ROOM r-{run}\nc < ROOM_OK *\na < ROOM_PEER_JOINED *\n\
         a < ROOM_PEER_JOINED *\nb !drop\nc !drop\n{\na < ROOM_PEER_LEFT b-{run}\n\
         a < ROOM_PEER_LEFT c-{run}\n}\nb !connect\nb > HELLO b-{run}\nb < HELLO",
    ),
    rule(
        "a bare command gets an ERROR, and the connection stays",
        Deviates("a client's mistake ends its connection without an error"),
        "a !register\na > SESSION\na < ERROR *\na > ROOM r-{run}\na < ROOM_OK *",
    ),
    rule(
        "a binary frame gets an ERROR, and the connection stays",
        Deviates("a client's mistake ends its connection without an error"),
        "a !register\na !binary 4\na < ERROR *\na > ROOM r-{run}\na < ROOM_OK *",
    ),
    rule(
        "more than 1 MiB ends the sender alone, with 1009",
        Deviates("a larger message is relayed, or ends more than its sender"),
        "a !register\na > {fill:1048577}\na !closed 1009 *",
    ),
    rule(
        "a client that asks for additions gets the caller's id and the list of peers",
        Ours,
        "b !register\na !connect +\na > HELLO a-{run}\na < HELLO\na > PEER_LIST\na < PEER_LIST *\n\
         b > SESSION a-{run}\nb < SESSION_OK\na < SESSION_FROM b-{run}",
    ),
];

impl Rule {
    fn script(&self) -> Result<Script, SyntaxError> {
        let line = |line: &str| match line.strip_suffix(" !register") {
            Some(peer) => REGISTER.replace("PEER", peer),
            None => line.to_owned(),
        };
        Script::parse(&self.script.lines().map(line).collect::<Vec<_>>().join("\n"))
    }

    /// Tries the rule. All its peers leave the server at the end.
    pub async fn try_on(&self, target: &Target) -> Outcome {
        let began = Instant::now();
        let failure = match self.script() {
            Ok(script) => run(&script, target, &|_, _, _| {}).await.err().map(|failure| failure.reason),
            Err(error) => Some(error.to_string()),
        };
        Outcome { failure, took: began.elapsed() }
    }
}

/// Returns a report in JUnit's XML format, which continuous integration reads.
pub fn junit(results: &[(Rule, Outcome)]) -> String {
    let escape = |text: &str| {
        let text =
            text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
        shown(&text)
    };
    let is_failure = |rule: &Rule, outcome: &Outcome| rule.weight == Required && outcome.failure.is_some();
    let failures = results.iter().filter(|(rule, outcome)| is_failure(rule, outcome)).count();
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"HELLO protocol\" tests=\"{}\" failures=\"{failures}\">\n",
        results.len()
    );
    for (rule, outcome) in results {
        let (name, time) = (escape(rule.name), outcome.took.as_secs_f64());
        xml += &format!("  <testcase classname=\"room\" name=\"{name}\" time=\"{time:.3}\">");
        if let Some(reason) = &outcome.failure {
            let reason = escape(reason);
            xml += &match rule.weight {
                Required => format!("<failure message=\"{reason}\"/>"),
                Deviates(consequence) => format!("<skipped message=\"{}: {reason}\"/>", escape(consequence)),
                Ours => format!("<skipped message=\"{reason}\"/>"),
            };
        }
        xml += "</testcase>\n";
    }
    xml + "</testsuite>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_a_script() {
        for rule in RULES {
            let script = rule.script().unwrap_or_else(|error| panic!("{}: {error}", rule.name));
            assert!(script.lines.len() >= 3, "{}", rule.name);
        }
    }
}
