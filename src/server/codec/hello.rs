//! The codec of the HELLO/SESSION/ROOM protocol: a peer's text to the hub's commands, and the hub's notices to text.

use super::rejection::Rejection;
use crate::hub::{Command, Measure, Notice, Phase, Reason};
use crate::protocol::hello::{ABOUT_TOKEN, ClientMessage, HelloError, ServerMessage};
use crate::protocol::id::IdError;

/// Close code "protocol error" (RFC 6455, 7.4.1), with which the demos' server ends a bad HELLO.
const PROTOCOL_ERROR: u16 = 1002;
/// Close code "policy violation" (RFC 6455, 7.4.1): the client should not return.
const POLICY: u16 = 1008;
/// Close code "service restart" (IANA's registry of WebSocket close codes): the client should return.
const SERVICE_RESTART: u16 = 1012;
/// Close code "try again later" (IANA's registry of WebSocket close codes).
const TRY_AGAIN_LATER: u16 = 1013;
const ROOM_CLOSED: &str = "the room was closed";
const INVISIBLE: Rejection =
    Rejection::Close(PROTOCOL_ERROR, "invalid peer uid: it holds an invisible character");
const INVALID_ID: Rejection = Rejection::Close(PROTOCOL_ERROR, "invalid peer uid");

/// Converts a text of a peer in this phase to a command.
pub fn decode(phase: Phase, line: String) -> Result<Command, Rejection> {
    match phase {
        Phase::Relay => Ok(Command::Relay(line)),
        Phase::Unregistered => match ClientMessage::parse(&line) {
            Ok(ClientMessage::Hello(id)) => Ok(Command::Register(id)),
            Err(HelloError::Peer(IdError::Invisible(_))) if line.trim_start().starts_with("HELLO") => {
                Err(INVISIBLE)
            }
            Err(HelloError::Missing("HELLO", _) | HelloError::Peer(_))
                if line.trim_start().starts_with("HELLO") =>
            {
                Err(INVALID_ID)
            }
            Ok(_) | Err(_) => Err(Rejection::Close(PROTOCOL_ERROR, "invalid protocol")),
        },
        Phase::Commands => match ClientMessage::parse(&line) {
            Ok(ClientMessage::Hello(id)) => Ok(Command::Register(id)),
            Ok(ClientMessage::Session(to)) => Ok(Command::Call(to)),
            Ok(ClientMessage::Room(room)) => Ok(Command::Join(room)),
            Ok(ClientMessage::RoomPeerMsg { to, body }) => Ok(Command::Send { to, body }),
            Ok(ClientMessage::RoomPeerList) => Ok(Command::ListRoom),
            Ok(ClientMessage::PeerList) => Ok(Command::ListPeers),
            Ok(ClientMessage::RoomPeerRemove(peer)) => Ok(Command::Moderate(peer, Measure::Remove)),
            Ok(ClientMessage::RoomPeerMute(peer, kind)) => Ok(Command::Moderate(peer, Measure::Mute(kind))),
            // The framing and the switchboard handle both for clients with extensions.
            Ok(ClientMessage::Token(_) | ClientMessage::Presence(_)) => Err(Rejection::Error(
                ServerMessage::Error("an extension that the client did not ask for".to_owned()).to_string(),
            )),
            Err(error) => Err(Rejection::Error(ServerMessage::Error(error.to_string()).to_string())),
        },
    }
}

/// Converts a notice to a text; none if the notice is an extension that the client did not ask for.
pub fn encode(notice: Notice, extended: bool) -> Option<String> {
    let message = match notice {
        // The client takes such a line for the server's.
        Notice::Relayed(text) if extended && text.starts_with(ABOUT_TOKEN) => return None,
        Notice::Relayed(text) => return Some(text),
        Notice::CalledBy(_) | Notice::Described(..) | Notice::Moderator | Notice::MuteRequested(..)
            if !extended =>
        {
            return None;
        }
        Notice::Moderator => ServerMessage::RoomModerator,
        Notice::MuteRequested(kind, by) => ServerMessage::Mute(kind, by),
        Notice::CalledBy(peer) => ServerMessage::SessionFrom(peer),
        Notice::PeerList(peers) => ServerMessage::PeerList(peers),
        Notice::Described(peer, description) => ServerMessage::RoomPeerDescribed(peer, description),
        Notice::Stopped => ServerMessage::Error(ROOM_CLOSED.to_owned()),
        Notice::Registered => ServerMessage::Hello,
        Notice::CallStarted => ServerMessage::SessionOk,
        Notice::Joined(peers) => ServerMessage::RoomOk(peers),
        Notice::PeerJoined(peer) => ServerMessage::RoomPeerJoined(peer),
        Notice::PeerLeft(peer) => ServerMessage::RoomPeerLeft(peer),
        Notice::RoomList(peers) => ServerMessage::RoomPeerList(peers),
        Notice::From { from, body } => ServerMessage::RoomPeerMsg { from, body },
        Notice::Refused(refusal) => ServerMessage::Error(refusal.to_string()),
    };
    Some(message.to_string())
}

/// Returns the close code and reason for a connection that the hub closes.
pub fn close(reason: Reason) -> (u16, &'static str) {
    match reason {
        Reason::IdTaken => (PROTOCOL_ERROR, "invalid peer uid"),
        Reason::Replaced => (1001, "registered again elsewhere"),
        Reason::CallOver => (1000, ""),
        Reason::NotGranted => (POLICY, "your token is for another id"),
        Reason::Removed => (POLICY, "removed"),
        Reason::RemovedByModerator => (POLICY, "removed by a moderator"),
        Reason::RoomClosed => (POLICY, ROOM_CLOSED),
        Reason::Expired => (SERVICE_RESTART, "the server was cut off: connect again"),
        Reason::Unavailable => (TRY_AGAIN_LATER, "the servers cannot reach each other: try again later"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_hello_closes_as_the_demos_expect() {
        let close = |line: &str| match decode(Phase::Unregistered, line.into()) {
            Err(Rejection::Close(1002, words)) => words,
            other => panic!("{line:?}: {other:?}"),
        };
        assert_eq!(close("SESSION bob"), "invalid protocol");
        assert_eq!(close(""), "invalid protocol");
        assert_eq!(close("HELLO"), "invalid peer uid");
        assert_eq!(close("HELLO a b"), "invalid peer uid");
        assert_eq!(close("HELLO a\u{200b}"), "invalid peer uid: it holds an invisible character");
        assert_eq!(close("HELLO \u{202e}a"), "invalid peer uid: it holds an invisible character");
        assert_eq!(close("HELLOO a"), "invalid protocol");
        let ok = decode(Phase::Unregistered, " HELLO\tann\n".into());
        assert_eq!(ok, Ok(Command::Register("ann".parse().unwrap())));
    }

    #[test]
    fn a_malformed_command_is_an_error_and_a_call_relays_any_text() {
        let error = |line: &str| decode(Phase::Commands, line.into()).unwrap_err();
        assert_eq!(error("SESSION"), Rejection::Error("ERROR 'SESSION' needs the id of a peer".into()));
        assert_eq!(error("nonsense"), Rejection::Error("ERROR unknown command".into()));
        assert_eq!(error("ROOM a b"), Rejection::Error("ERROR invalid room id 'a b'".into()));
        assert_eq!(decode(Phase::Relay, "HELLO x".into()), Ok(Command::Relay("HELLO x".into())));
    }

    #[test]
    fn no_peer_imitates_the_messages_about_the_token() {
        let relayed = |text: &str, extended| encode(Notice::Relayed(text.to_owned()), extended);
        for text in ["TOKEN_EXPIRES 5", "TOKEN_OK", "TOKEN_REFUSED no"] {
            assert_eq!(relayed(text, true), None);
            assert_eq!(relayed(text, false).as_deref(), Some(text));
        }
        assert_eq!(relayed("TOKEN a", true).as_deref(), Some("TOKEN a"));
    }

    #[test]
    fn extensions_reach_only_clients_that_asked() {
        let called = || Notice::CalledBy("ann".parse().unwrap());
        assert_eq!(encode(called(), false), None);
        assert_eq!(encode(called(), true).as_deref(), Some("SESSION_FROM ann"));
    }
}
