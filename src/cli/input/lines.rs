//! Commands of one line each: JSON from programs, words from people.

use serde::Deserialize;

use crate::app::{Change, Command};
use crate::protocol::hello::MediaKind;
use crate::protocol::{PeerId, Secret};
use crate::sdp::Kind;
use crate::signalling::ServerRequest;

/// A command in JSON, such as `{"command":"say","text":"hello"}`.
#[derive(Debug, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
enum JsonCommand {
    Say { text: String, to: Option<String> },
    Mute,
    Unmute,
    CameraOff,
    CameraOn,
    Video { source: String, device: Option<String> },
    Audio { source: String, device: Option<String> },
    Peers,
    Accept,
    Decline,
    Event { name: String, data: serde_json::Map<String, serde_json::Value> },
    Token { token: String },
    Remove { peer: String },
    AskMute { peer: String, kind: Option<String> },
    HangUp { peer: Option<String> },
    Reconnect { peer: Option<String> },
    Stats,
    Quit,
}

const HELP: &str = "commands: say TEXT, tell PEER TEXT, mute, unmute, camera off, camera on, \
    video SOURCE, audio SOURCE, peers, stats, accept, decline, hang-up [PEER], reconnect [PEER], event NAME JSON, \
    remove PEER, ask-mute PEER [video], token TEXT, quit; in short: m, c, p, s, y, n, q";

fn peer(text: Option<String>) -> Result<Option<PeerId>, String> {
    text.map(|text| PeerId::from_server(&text).map_err(|error| format!("'{text}': {error}"))).transpose()
}

fn of_program(line: &str) -> Result<Command, String> {
    let command: JsonCommand =
        serde_json::from_str(line).map_err(|error| format!("not a command: {error}"))?;
    Ok(match command {
        JsonCommand::Say { text, to } => Command::Say { to: peer(to)?, text },
        JsonCommand::Mute => Command::Send(Change::Mute(Kind::Audio, true)),
        JsonCommand::Unmute => Command::Send(Change::Mute(Kind::Audio, false)),
        JsonCommand::CameraOff => Command::Send(Change::Mute(Kind::Video, true)),
        JsonCommand::CameraOn => Command::Send(Change::Mute(Kind::Video, false)),
        JsonCommand::Video { source, device } => Command::Send(Change::Source(Kind::Video, source, device)),
        JsonCommand::Audio { source, device } => Command::Send(Change::Source(Kind::Audio, source, device)),
        JsonCommand::Peers => Command::Peers,
        JsonCommand::Accept => Command::Decide(true),
        JsonCommand::Decline => Command::Decide(false),
        JsonCommand::Event { name, data } => Command::Application(name, data.into()),
        JsonCommand::Token { token } => next_token(token),
        JsonCommand::Remove { peer } => remove(&peer)?,
        JsonCommand::AskMute { peer, kind } => ask_mute(&peer, kind.as_deref())?,
        JsonCommand::HangUp { peer: who } => Command::HangUp(peer(who)?),
        JsonCommand::Reconnect { peer: who } => Command::Reconnect(peer(who)?),
        JsonCommand::Stats => Command::Stats,
        JsonCommand::Quit => Command::Quit,
    })
}

fn next_token(token: String) -> Command {
    Command::Server(ServerRequest::Token(Secret(token)))
}

fn member(text: &str) -> Result<PeerId, String> {
    PeerId::from_server(text).map_err(|error| format!("'{text}': {error}"))
}

fn remove(who: &str) -> Result<Command, String> {
    Ok(Command::Server(ServerRequest::Remove(member(who)?)))
}

/// Reads the request to mute, audio without a kind.
fn ask_mute(who: &str, kind: Option<&str>) -> Result<Command, String> {
    let kind = kind.map_or(Ok(MediaKind::Audio), str::parse).map_err(|error| error.to_string())?;
    Ok(Command::Server(ServerRequest::Mute(member(who)?, kind)))
}

/// Reads a source: a name and its device on one line, or a whole pipeline.
fn source(kind: Kind, text: &str) -> Command {
    let (name, device) = match text.split_once(' ') {
        Some((name, device)) if !text.contains('!') => (name, Some(device.trim().to_owned())),
        _ => (text, None),
    };
    Command::Send(Change::Source(kind, name.to_owned(), device))
}

fn of_person(line: &str) -> Result<Command, String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.trim();
    Ok(match (word, rest) {
        ("say", text) if !text.is_empty() => Command::Say { to: None, text: text.to_owned() },
        ("tell", rest) => match rest.split_once(' ') {
            Some((who, text)) => {
                Command::Say { to: peer(Some(who.to_owned()))?, text: text.trim().to_owned() }
            }
            None => return Err(HELP.to_owned()),
        },
        ("event", rest) => match rest.split_once(' ') {
            Some((name, data)) => {
                let data = serde_json::from_str::<serde_json::Map<_, _>>(data);
                let data = data.map_err(|error| format!("event NAME {{\"key\": value}}: {error}"))?;
                Command::Application(name.to_owned(), data.into())
            }
            None => return Err(HELP.to_owned()),
        },
        // Commands of a single letter and Enter, for people at a terminal.
        ("m", "") => Command::Send(Change::Toggle(Kind::Audio)),
        ("c", "") => Command::Send(Change::Toggle(Kind::Video)),
        ("y" | "yes" | "accept", "") => Command::Decide(true),
        ("n" | "no" | "decline", "") => Command::Decide(false),
        ("p", "") => Command::Peers,
        ("s", "") => Command::Stats,
        ("q", "") => Command::Quit,
        ("mute", "") => Command::Send(Change::Mute(Kind::Audio, true)),
        ("unmute", "") => Command::Send(Change::Mute(Kind::Audio, false)),
        ("camera", "off") => Command::Send(Change::Mute(Kind::Video, true)),
        ("camera", "on") => Command::Send(Change::Mute(Kind::Video, false)),
        ("video", text) if !text.is_empty() => source(Kind::Video, text),
        ("audio", text) if !text.is_empty() => source(Kind::Audio, text),
        ("peers", "") => Command::Peers,
        ("hang-up" | "hangup", "") => Command::HangUp(None),
        ("hang-up" | "hangup", who) => Command::HangUp(peer(Some(who.to_owned()))?),
        ("reconnect", "") => Command::Reconnect(None),
        ("reconnect", who) => Command::Reconnect(peer(Some(who.to_owned()))?),
        ("remove", who) if !who.is_empty() => remove(who)?,
        ("ask-mute", rest) if !rest.is_empty() => match rest.split_once(' ') {
            Some((who, kind)) => ask_mute(who, Some(kind.trim()))?,
            None => ask_mute(rest, None)?,
        },
        ("token", text) if !text.is_empty() => next_token(text.to_owned()),
        ("stats", "") => Command::Stats,
        ("quit" | "exit", "") => Command::Quit,
        _ => return Err(HELP.to_owned()),
    })
}

/// Reads a line of a program (`json`) or of a person. Returns `None` for a blank line, and an error in words for an
/// invalid one.
pub fn parse(line: &str, json: bool) -> Result<Option<Command>, String> {
    match (line.trim(), json) {
        ("", _) => Ok(None),
        (line, true) => of_program(line).map(Some),
        (line, false) => of_person(line).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_people_and_programs() {
        let id = |text: &str| -> PeerId { text.parse().unwrap() };
        let say = |to: Option<&str>, text: &str| Command::Say { to: to.map(id), text: text.into() };
        for (line, json, command) in [
            ("say  hello there ", r#"{"command":"say","text":"hello there"}"#, say(None, "hello there")),
            ("tell bob hi", r#"{"command":"say","to":"bob","text":"hi"}"#, say(Some("bob"), "hi")),
            ("mute", r#"{"command":"mute"}"#, Command::Send(Change::Mute(Kind::Audio, true))),
            ("camera on", r#"{"command":"camera-on"}"#, Command::Send(Change::Mute(Kind::Video, false))),
            (
                "video file a b.mkv",
                r#"{"command":"video","source":"file","device":"a b.mkv"}"#,
                Command::Send(Change::Source(Kind::Video, "file".into(), Some("a b.mkv".into()))),
            ),
            (
                "audio audiotestsrc ! identity",
                r#"{"command":"audio","source":"audiotestsrc ! identity"}"#,
                Command::Send(Change::Source(Kind::Audio, "audiotestsrc ! identity".into(), None)),
            ),
            ("hang-up", r#"{"command":"hang-up"}"#, Command::HangUp(None)),
            ("hang-up bob", r#"{"command":"hang-up","peer":"bob"}"#, Command::HangUp(Some(id("bob")))),
            ("accept", r#"{"command":"accept"}"#, Command::Decide(true)),
            ("no", r#"{"command":"decline"}"#, Command::Decide(false)),
            ("reconnect bob", r#"{"command":"reconnect","peer":"bob"}"#, Command::Reconnect(Some(id("bob")))),
            (
                r#"event seat {"row":2}"#,
                r#"{"command":"event","name":"seat","data":{"row":2}}"#,
                Command::Application("seat".into(), serde_json::json!({"row": 2})),
            ),
            ("token a.b.c", r#"{"command":"token","token":"a.b.c"}"#, next_token("a.b.c".into())),
            ("remove bob", r#"{"command":"remove","peer":"bob"}"#, remove("bob").unwrap()),
            (
                "ask-mute bob",
                r#"{"command":"ask-mute","peer":"bob"}"#,
                Command::Server(ServerRequest::Mute(id("bob"), MediaKind::Audio)),
            ),
            (
                "ask-mute bob video",
                r#"{"command":"ask-mute","peer":"bob","kind":"video"}"#,
                Command::Server(ServerRequest::Mute(id("bob"), MediaKind::Video)),
            ),
            ("peers", r#"{"command":"peers"}"#, Command::Peers),
            ("quit", r#"{"command":"quit"}"#, Command::Quit),
        ] {
            assert_eq!(parse(line, false), Ok(Some(command.clone())), "{line}");
            assert_eq!(parse(json, true), Ok(Some(command)), "{json}");
        }
        assert_eq!(parse("  ", false), Ok(None));
        assert_eq!(parse("m", false), Ok(Some(Command::Send(Change::Toggle(Kind::Audio)))));
        assert_eq!(parse("q", false), Ok(Some(Command::Quit)));
        for wrong in ["remove", "ask-mute", "token", "dance", "say", "tell bob", "mute x", "camera"] {
            assert_eq!(parse(wrong, false), Err(HELP.into()), "{wrong}");
        }
        assert!(parse("quit", true).is_err());
        assert!(parse(r#"{"command":"say"}"#, true).is_err());
    }
}
