//! Commands on stdin while a client runs: words for people, JSON lines for programs.

use std::io::BufRead;

use serde::Deserialize;
use smol::channel::Sender;

use super::output::human;
use crate::app::Command;

/// The longest line taken, in bytes.
const MAX_LINE: usize = 64 * 1024;

/// A command as JSON: `{"command":"say","text":"hello"}`.
#[derive(Debug, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
enum JsonCommand {
    Say { text: String },
    HangUp,
    Stats,
    Quit,
}

const HELP: &str = "commands: say TEXT, hang-up, stats, quit";

fn parse(line: &str, json: bool) -> Result<Option<Command>, String> {
    let line = line.trim();
    if line.is_empty() {
        return Ok(None);
    }
    if json {
        let command: JsonCommand =
            serde_json::from_str(line).map_err(|error| format!("not a command: {error}"))?;
        return Ok(Some(match command {
            JsonCommand::Say { text } => Command::Say(text),
            JsonCommand::HangUp => Command::HangUp,
            JsonCommand::Stats => Command::Stats,
            JsonCommand::Quit => Command::Quit,
        }));
    }
    match line.split_once(' ').unwrap_or((line, "")) {
        ("say", text) if !text.trim().is_empty() => Ok(Some(Command::Say(text.trim().to_owned()))),
        ("hang-up" | "hangup", "") => Ok(Some(Command::HangUp)),
        ("stats", "") => Ok(Some(Command::Stats)),
        ("quit" | "exit", "") => Ok(Some(Command::Quit)),
        _ => Err(HELP.to_owned()),
    }
}

/// Reads stdin in a thread of its own until it ends; that stdin ends does not end the call.
pub(super) fn listen(commands: Sender<Command>, json: bool) {
    std::thread::spawn(move || {
        let stdin = std::io::stdin().lock();
        for line in stdin.lines() {
            let Ok(line) = line else { break };
            match parse(&line[..line.floor_char_boundary(MAX_LINE)], json) {
                Ok(None) => {}
                Ok(Some(command)) => {
                    if commands.send_blocking(command).is_err() {
                        break;
                    }
                }
                Err(help) => human(&help),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_people_and_programs() {
        assert_eq!(parse("say  hello there ", false), Ok(Some(Command::Say("hello there".into()))));
        assert_eq!(parse("quit", false), Ok(Some(Command::Quit)));
        assert_eq!(parse("  ", false), Ok(None));
        assert_eq!(parse("dance", false), Err(HELP.into()));
        assert_eq!(parse("say", false), Err(HELP.into()));
        assert_eq!(parse(r#"{"command":"say","text":"a b"}"#, true), Ok(Some(Command::Say("a b".into()))));
        assert_eq!(parse(r#"{"command":"hang-up"}"#, true), Ok(Some(Command::HangUp)));
        assert!(parse("quit", true).is_err());
    }
}
