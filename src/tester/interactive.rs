//! Interactive use, and the classic test client: shows the lines of the server, and sends typed lines or the test
//! client's own answers.

use std::io::{BufRead, IsTerminal};

use smol::channel::{Receiver, bounded};
use smol::future::{or, pending};

use crate::protocol::hello::{ClientMessage, ServerMessage};
use crate::protocol::{PeerId, RoomId};
use crate::signalling::{ConnectError, Frame, Socket, Target};

/// Action after the registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Sends typed lines only.
    None,
    /// Joins this room.
    Room(RoomId),
    /// Calls this peer.
    Session(PeerId),
}

/// Reason why the client ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InteractiveError {
    /// The connection to the server failed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server closed the connection.
    #[error("closed by the server: {0} {1}")]
    Closed(u16, String),
    /// The server sent ERROR to the test client.
    #[error("the server said ERROR {0}")]
    Refused(String),
}

/// Placeholders that the classic test client sends in place of descriptions.
const OFFER: &str = r#"{"sdp": "initial sdp"}"#;
const ANSWER: &str = r#"{"sdp": "reply sdp"}"#;

/// Reads lines of stdin in a separate thread.
fn typed() -> Receiver<String> {
    let (line, lines) = bounded(16);
    std::thread::spawn(move || {
        for text in std::io::stdin().lock().lines().map_while(Result::ok) {
            if line.send_blocking(text).is_err() {
                break;
            }
        }
    });
    lines
}

/// Returns the classic test client's answer to a line of the server.
pub fn reply(line: &str, part: &Part) -> Vec<String> {
    let to = |peer: &PeerId, body: &str| {
        ClientMessage::RoomPeerMsg { to: peer.clone(), body: body.to_owned() }.to_string()
    };
    match (ServerMessage::parse(line), part) {
        (Ok(ServerMessage::RoomOk(peers)), Part::Room(_)) => {
            peers.iter().map(|peer| to(peer, OFFER)).collect()
        }
        (Ok(ServerMessage::RoomPeerMsg { from, body }), Part::Room(_)) if is_offer(&body) => {
            vec![to(&from, ANSWER)]
        }
        (Ok(ServerMessage::SessionOk), Part::Session(_)) => vec![OFFER.to_owned()],
        (Err(_), Part::None) if is_offer(line) => vec![ANSWER.to_owned()],
        _ => vec![],
    }
}

fn is_offer(text: &str) -> bool {
    let value: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    value["sdp"] == "initial sdp" || value["sdp"]["type"] == "offer"
}

/// Exchanges lines until the server closes the connection or typed input ends. `show` receives the direction and the text
/// of each line. At a terminal only typed lines are sent; elsewhere the test client answers.
pub async fn run(
    target: &Target,
    id: &PeerId,
    part: &Part,
    show: impl Fn(char, &str),
) -> Result<(), InteractiveError> {
    let is_typed = std::io::stdin().is_terminal();
    let mut socket = Socket::connect(&target.clone().extended(false)).await?;
    let lines = typed();
    let send = async |socket: &mut Socket, text: String| {
        show('>', &text);
        socket.send(text).await
    };
    send(&mut socket, ClientMessage::Hello(id.clone()).to_string()).await?;
    let mut typing = true;
    loop {
        let frame = async { Ok(socket.receive().await) };
        let line = async {
            match typing {
                true => Err(lines.recv().await),
                false => pending().await,
            }
        };
        match or(frame, line).await {
            Ok(Frame::Text(text)) => {
                show('<', &text);
                for text in answers(&text, part, is_typed)? {
                    send(&mut socket, text).await?;
                }
            }
            Ok(Frame::Binary(bytes)) => show('<', &format!("[a binary frame of {} bytes]", bytes.len())),
            Ok(Frame::Closed(1000, _)) => return Ok(()),
            Ok(Frame::Closed(code, reason)) => return Err(InteractiveError::Closed(code, reason)),
            Err(Ok(line)) => send(&mut socket, line).await?,
            Err(Err(_)) if is_typed => {
                socket.close().await;
                return Ok(());
            }
            // Input has ended: the test client stays until the server closes the connection.
            Err(Err(_)) => typing = false,
        }
    }
}

/// Returns the answers to a line of the server: after HELLO the request for the room or the session, then the test
/// client's answers unless a person types.
fn answers(line: &str, part: &Part, is_typed: bool) -> Result<Vec<String>, InteractiveError> {
    Ok(match (ServerMessage::parse(line), part) {
        (Ok(ServerMessage::Hello), Part::Room(room)) => vec![ClientMessage::Room(room.clone()).to_string()],
        (Ok(ServerMessage::Hello), Part::Session(peer)) => {
            vec![ClientMessage::Session(peer.clone()).to_string()]
        }
        (Ok(ServerMessage::Error(text)), _) if !is_typed => return Err(InteractiveError::Refused(text)),
        _ if is_typed => vec![],
        _ => reply(line, part),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_client_offers_to_all_and_answers_offers() {
        let room = Part::Room("attic".parse().unwrap());
        assert_eq!(
            reply("ROOM_OK ann bob", &room),
            ["ROOM_PEER_MSG ann {\"sdp\": \"initial sdp\"}", "ROOM_PEER_MSG bob {\"sdp\": \"initial sdp\"}"]
        );
        let offer = "ROOM_PEER_MSG ann {\"sdp\": \"initial sdp\"}";
        assert_eq!(reply(offer, &room), ["ROOM_PEER_MSG ann {\"sdp\": \"reply sdp\"}"]);
        assert!(reply("ROOM_PEER_MSG ann {\"sdp\": \"reply sdp\"}", &room).is_empty(), "no endless answers");
        let session = Part::Session("ann".parse().unwrap());
        assert_eq!(reply("SESSION_OK", &session), ["{\"sdp\": \"initial sdp\"}"]);
        assert_eq!(reply("{\"sdp\": {\"type\": \"offer\"}}", &Part::None), ["{\"sdp\": \"reply sdp\"}"]);
        assert!(matches!(answers("ERROR no", &room, false), Err(InteractiveError::Refused(_))));
        assert!(answers("ERROR no", &room, true).unwrap().is_empty());
    }
}
