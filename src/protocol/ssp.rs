//! ssp, the protocol of RTCPool and PyRTC: events of a pool as JSON, `{"type": string, "data": object}`, one in each
//! message. Contains version 2 (RTCPool 3, PyRTC 2), and the events in which version 1 differs.

use serde_json::{Map, Value, json};

use super::MAX_MESSAGE;
use super::negotiation::{self, Description, PeerMessage, SdpKind};

/// Version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// Unknown until the events of the other side show it.
    #[default]
    Auto,
    /// Version 1: RTCPool before 3, PyRTC before 2.
    One,
    /// Version 2: RTCPool since 3, PyRTC since 2, roomtone.
    Two,
}

impl std::str::FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "1" => Ok(Self::One),
            "2" => Ok(Self::Two),
            _ => Err(format!("'{text}' is no version of ssp: auto, 1 or 2")),
        }
    }
}

/// Error of a text that is not an event, in PyRTC's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SspError {
    /// The text is not JSON, or too large.
    #[error("Please send valid JSON data.")]
    NotJson,
    /// The JSON does not have the shape of an event.
    #[error("Please send an event with \"type\" and \"data\" fields.")]
    Shape,
    /// `rtc:join` names no pool.
    #[error("Please specify a pool to join.")]
    NoPool,
    /// The description or its recipient is missing.
    #[error("Please specify a valid answer target.")]
    NoTarget,
    /// The candidate or its recipient is missing.
    #[error("Please specify a candidate recipient in the 'for' field.")]
    NoRecipient,
    /// The `rtc:` event is unknown.
    #[error("RTC action '{0}' not recognized.")]
    Unknown(String),
}

/// Message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// `rtc:join`: joins a pool.
    Join(String),
    /// `rtc:sdp`: an offer or an answer to an endpoint.
    Sdp(String, Description),
    /// `rtc:candidate`: a candidate to an endpoint, or the end of candidates.
    Candidate(String, PeerMessage),
    /// Version 1, `rtc:offers`: an offer to each of these endpoints.
    Offers(Vec<(String, Description)>),
    /// Version 1, `rtc:answer`: an answer.
    Answer(String, Description),
    /// An event of the application: its type and its data.
    Other(String, Map<String, Value>),
}

/// Message of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerEvent {
    /// `rtc:joined`: the client is in the pool.
    Joined {
        /// Id of the client, until it leaves.
        id: String,
        /// The pool.
        pool: String,
        /// The endpoints that joined before this one.
        peers: Vec<String>,
        /// The back end's descriptions of endpoints, this one included.
        descriptions: Vec<(String, Value)>,
    },
    /// `rtc:peer`: an endpoint joined.
    Peer(String),
    /// `rtc:close`: an endpoint left.
    Close(String),
    /// `rtc:describe`: the back end's description of an endpoint.
    Describe(String, Value),
    /// `rtc:stop`: the pool is closed.
    Stop,
    /// `rtc:error`: a request failed.
    Error {
        /// The error in PyRTC's words.
        message: String,
        /// The reason in roomtone's words.
        reason: Option<String>,
    },
    /// `rtc:sdp`: an offer or an answer of an endpoint.
    Sdp(String, Description),
    /// `rtc:candidate`: a candidate of an endpoint, or the end of candidates.
    Candidate(String, PeerMessage),
    /// Version 1, `rtc:request_offers`: an endpoint joined and expects an offer.
    RequestOffers(String),
    /// Version 1, `rtc:offer`: an offer of an endpoint.
    Offer(String, Description),
    /// Version 1, `rtc:answer`: an answer.
    Answer(String, Description),
    /// An event of the application: its type and its data.
    Other(String, Map<String, Value>),
}

/// Parses an event; returns its type and data.
fn event(text: &str) -> Result<(String, Map<String, Value>), SspError> {
    if text.len() > MAX_MESSAGE {
        return Err(SspError::NotJson);
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(mut event)) => match (event.remove("type"), event.remove("data")) {
            (Some(Value::String(kind)), Some(Value::Object(data))) => Ok((kind, data)),
            _ => Err(SspError::Shape),
        },
        Ok(_) => Err(SspError::Shape),
        Err(_) => Err(SspError::NotJson),
    }
}

fn text(data: &Map<String, Value>, key: &str) -> Option<String> {
    data.get(key)?.as_str().map(str::to_owned)
}

fn description(data: &Map<String, Value>, key: &str) -> Option<Description> {
    negotiation::description(data.get(key)?).ok()
}

fn candidate(data: &Map<String, Value>) -> Option<PeerMessage> {
    negotiation::candidate(data.get("candidate")?).ok()
}

/// Returns a candidate in the shape of the WebRTC API, or null for the end of candidates.
fn candidate_json(message: &PeerMessage) -> Value {
    match message {
        PeerMessage::Candidate(candidate) => candidate.to_json(),
        PeerMessage::EndOfCandidates
        | PeerMessage::Description(_)
        | PeerMessage::OfferRequest
        | PeerMessage::Placeholder => Value::Null,
    }
}

fn write(kind: &str, data: Value) -> String {
    json!({"type": kind, "data": data}).to_string()
}

impl ClientEvent {
    /// Parses an event. Ignores unknown keys.
    pub fn parse(line: &str) -> Result<Self, SspError> {
        let (kind, data) = event(line)?;
        match kind.as_str() {
            "rtc:join" => {
                text(&data, "pool").filter(|pool| !pool.is_empty()).map(Self::Join).ok_or(SspError::NoPool)
            }
            "rtc:sdp" => {
                let sdp = text(&data, "to").zip(description(&data, "description"));
                sdp.map(|(to, sdp)| Self::Sdp(to, sdp)).ok_or(SspError::NoTarget)
            }
            "rtc:candidate" => {
                let candidate = text(&data, "for").zip(candidate(&data));
                candidate.map(|(to, candidate)| Self::Candidate(to, candidate)).ok_or(SspError::NoRecipient)
            }
            "rtc:offers" => {
                let offers = data.keys().filter_map(|to| Some((to.clone(), description(&data, to)?)));
                Ok(Self::Offers(offers.collect()))
            }
            "rtc:answer" => {
                let answer = text(&data, "for").zip(description(&data, "answer"));
                answer.map(|(to, answer)| Self::Answer(to, answer)).ok_or(SspError::NoTarget)
            }
            kind => match kind.strip_prefix("rtc:") {
                Some(action) => Err(SspError::Unknown(action.to_owned())),
                None => Ok(Self::Other(kind.to_owned(), data)),
            },
        }
    }
}

impl std::fmt::Display for ClientEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&match self {
            Self::Join(pool) => write("rtc:join", json!({"pool": pool})),
            Self::Sdp(to, sdp) => write("rtc:sdp", json!({"to": to, "description": sdp.to_json()})),
            // PyRTC requires `from` and ignores its value.
            Self::Candidate(to, candidate) => {
                write("rtc:candidate", json!({"from": "", "for": to, "candidate": candidate_json(candidate)}))
            }
            Self::Offers(offers) => {
                let offers = offers.iter().map(|(to, offer)| (to.clone(), offer.to_json()));
                write("rtc:offers", Value::Object(offers.collect()))
            }
            Self::Answer(to, answer) => write("rtc:answer", json!({"for": to, "answer": answer.to_json()})),
            Self::Other(kind, data) => write(kind, Value::Object(data.clone())),
        })
    }
}

impl ServerEvent {
    /// The error message of a server of version 1 for a message of version 2.
    pub const NOT_TWO: &'static str = "RTC action 'sdp' not recognized.";

    /// Returns whether this is the error of a server of version 1 for a message of version 2.
    pub fn refuses_version_two(&self) -> bool {
        matches!(self, Self::Error { message, .. } if message == Self::NOT_TWO)
    }

    /// Parses an event. Ignores unknown keys.
    pub fn parse(line: &str) -> Result<Self, SspError> {
        let (kind, data) = event(line)?;
        // Clients before version 3 read `uid`, later ones `id`; PyRTC 2.0.0 writes a wrong `id` into `rtc:close`.
        let id = || text(&data, "uid").or_else(|| text(&data, "id")).ok_or(SspError::Shape);
        let from = |key| text(&data, key).ok_or(SspError::Shape);
        Ok(match kind.as_str() {
            "rtc:joined" => {
                let peers = data.get("peers").and_then(Value::as_array).ok_or(SspError::Shape)?;
                let descriptions = data.get("descriptions").and_then(Value::as_object);
                Self::Joined {
                    id: from("client_id")?,
                    pool: text(&data, "pool").unwrap_or_default(),
                    peers: peers.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect(),
                    descriptions: descriptions
                        .map(|all| all.iter().map(|(id, value)| (id.clone(), value.clone())).collect())
                        .unwrap_or_default(),
                }
            }
            "rtc:peer" => Self::Peer(text(&data, "id").map_or_else(id, Ok)?),
            "rtc:close" => Self::Close(id()?),
            "rtc:describe" => Self::Describe(id()?, data.get("description").cloned().unwrap_or_default()),
            "rtc:stop" => Self::Stop,
            "rtc:error" => Self::Error {
                message: text(&data, "message").unwrap_or_default(),
                reason: text(&data, "reason"),
            },
            "rtc:sdp" => Self::Sdp(from("peer")?, description(&data, "description").ok_or(SspError::Shape)?),
            "rtc:candidate" => Self::Candidate(from("from")?, candidate(&data).ok_or(SspError::Shape)?),
            "rtc:request_offers" => Self::RequestOffers(from("for")?),
            "rtc:offer" => Self::Offer(from("for")?, description(&data, "offer").ok_or(SspError::Shape)?),
            "rtc:answer" => Self::Answer(from("for")?, description(&data, "answer").ok_or(SspError::Shape)?),
            kind => match kind.strip_prefix("rtc:") {
                Some(action) => return Err(SspError::Unknown(action.to_owned())),
                None => Self::Other(kind.to_owned(), data),
            },
        })
    }
}

impl std::fmt::Display for ServerEvent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&match self {
            Self::Joined { id, pool, peers, descriptions } => {
                let descriptions: Map<String, Value> = descriptions.iter().cloned().collect();
                write(
                    "rtc:joined",
                    json!({"client_id": id, "pool": pool, "peers": peers, "descriptions": descriptions}),
                )
            }
            Self::Peer(id) => write("rtc:peer", json!({"id": id})),
            Self::Close(id) => write("rtc:close", json!({"uid": id, "id": id})),
            Self::Describe(id, description) => {
                write("rtc:describe", json!({"uid": id, "id": id, "description": description}))
            }
            Self::Stop => write("rtc:stop", json!({})),
            Self::Error { message, reason: None } => write("rtc:error", json!({"message": message})),
            Self::Error { message, reason } => {
                write("rtc:error", json!({"message": message, "reason": reason}))
            }
            Self::Sdp(from, sdp) => write("rtc:sdp", json!({"peer": from, "description": sdp.to_json()})),
            Self::Candidate(from, candidate) => {
                write("rtc:candidate", json!({"from": from, "candidate": candidate_json(candidate)}))
            }
            Self::RequestOffers(id) => write("rtc:request_offers", json!({"for": id})),
            Self::Offer(from, offer) => write("rtc:offer", json!({"for": from, "offer": offer.to_json()})),
            Self::Answer(from, answer) => {
                write("rtc:answer", json!({"for": from, "answer": answer.to_json()}))
            }
            Self::Other(kind, data) => write(kind, Value::Object(data.clone())),
        })
    }
}

/// Returns the event of version 1 that carries a description; its name depends on the type of the description.
pub fn in_version_1(from: String, description: Description) -> ServerEvent {
    match description.kind {
        SdpKind::Offer => ServerEvent::Offer(from, description),
        SdpKind::Answer => ServerEvent::Answer(from, description),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Candidate;
    use proptest::prelude::*;

    #[test]
    fn errors_have_the_texts_of_pyrtc() {
        let error = |line: &str| ClientEvent::parse(line).unwrap_err().to_string();
        assert_eq!(error("{"), "Please send valid JSON data.");
        for line in
            ["[]", "{}", r#"{"type":"rtc:join"}"#, r#"{"type":1,"data":{}}"#, r#"{"type":"x","data":[]}"#]
        {
            assert_eq!(error(line), "Please send an event with \"type\" and \"data\" fields.");
        }
        for data in ["{}", r#"{"pool":1}"#, r#"{"pool":""}"#] {
            assert_eq!(
                error(&format!(r#"{{"type":"rtc:join","data":{data}}}"#)),
                "Please specify a pool to join."
            );
        }
        let data = r#"{"to":"x","description":{"type":"rollback"}}"#;
        assert_eq!(
            error(&format!(r#"{{"type":"rtc:sdp","data":{data}}}"#)),
            "Please specify a valid answer target."
        );
        assert_eq!(
            error(r#"{"type":"rtc:candidate","data":{"candidate":null}}"#),
            "Please specify a candidate recipient in the 'for' field."
        );
        assert_eq!(error(r#"{"type":"rtc:dance","data":{}}"#), "RTC action 'dance' not recognized.");
        assert_eq!(
            ClientEvent::parse(r#"{"type":"chat","data":{}}"#),
            Ok(ClientEvent::Other("chat".into(), Map::new()))
        );
    }

    #[test]
    fn both_names_of_an_id_are_written_and_the_reliable_one_is_parsed() {
        let close = ServerEvent::Close("a".into()).to_string();
        assert!(close.contains(r#""uid":"a""#) && close.contains(r#""id":"a""#), "{close}");
        let of_pyrtc = r#"{"type":"rtc:close","data":{"id":"c","uid":"real"}}"#;
        assert_eq!(ServerEvent::parse(of_pyrtc), Ok(ServerEvent::Close("real".into())));
        let later = r#"{"type":"rtc:describe","data":{"id":"a","description":null}}"#;
        assert_eq!(ServerEvent::parse(later), Ok(ServerEvent::Describe("a".into(), Value::Null)));
        let short = r#"{"type":"rtc:joined","data":{"client_id":"me","peers":["a"]}}"#;
        assert!(
            matches!(ServerEvent::parse(short), Ok(ServerEvent::Joined { descriptions, .. }) if descriptions.is_empty())
        );
    }

    #[test]
    fn the_end_of_candidates_is_null() {
        let end = ClientEvent::Candidate("b".into(), PeerMessage::EndOfCandidates).to_string();
        assert!(end.contains(r#""candidate":null"#), "{end}");
        assert_eq!(
            ClientEvent::parse(&end),
            Ok(ClientEvent::Candidate("b".into(), PeerMessage::EndOfCandidates))
        );
    }

    fn description() -> impl Strategy<Value = Description> {
        (prop_oneof![Just(SdpKind::Offer), Just(SdpKind::Answer)], "\\PC*")
            .prop_map(|(kind, sdp)| Description { kind, sdp })
    }

    fn candidate() -> impl Strategy<Value = PeerMessage> {
        prop_oneof![
            Just(PeerMessage::EndOfCandidates),
            "c\\PC+".prop_map(|candidate| PeerMessage::Candidate(Candidate {
                candidate,
                mline: Some(1),
                ..Default::default()
            }))
        ]
    }

    proptest! {
        #[test]
        fn events_survive_a_round_trip(to in "\\PC+", sdp in description(), candidate in candidate()) {
            for event in [
                ClientEvent::Join(to.clone()),
                ClientEvent::Sdp(to.clone(), sdp.clone()),
                ClientEvent::Candidate(to.clone(), candidate.clone()),
                ClientEvent::Offers(vec![(to.clone(), sdp.clone())]),
                ClientEvent::Answer(to.clone(), sdp.clone()),
            ] {
                prop_assert_eq!(ClientEvent::parse(&event.to_string()), Ok(event));
            }
            for event in [
                ServerEvent::Peer(to.clone()),
                ServerEvent::Close(to.clone()),
                ServerEvent::Describe(to.clone(), json!({"name": to.clone()})),
                ServerEvent::Stop,
                ServerEvent::Sdp(to.clone(), sdp.clone()),
                ServerEvent::Candidate(to.clone(), candidate),
                ServerEvent::RequestOffers(to.clone()),
                in_version_1(to.clone(), sdp),
                ServerEvent::Error { message: to.clone(), reason: Some(to.clone()) },
                ServerEvent::Joined {
                    id: to.clone(),
                    pool: to.clone(),
                    peers: vec![to.clone()],
                    descriptions: vec![(to, Value::Null)],
                },
            ] {
                prop_assert_eq!(ServerEvent::parse(&event.to_string()), Ok(event));
            }
        }

        #[test]
        fn arbitrary_text_does_not_panic(line in "\\PC*", kind in "(rtc:)?[a-z_]*", data in "\\{\\}|\\[\\]|\\{\"(pool|to|for|id|candidate)\":(1|\"x\"|null)\\}") {
            let _ = (ClientEvent::parse(&line), ServerEvent::parse(&line));
            let line = format!(r#"{{"type":"{kind}","data":{data}}}"#);
            let _ = (ClientEvent::parse(&line), ServerEvent::parse(&line));
        }
    }
}
