//! Messages between two peers: session descriptions and candidates as JSON, in the shape of the WebRTC API
//! (`{"sdp":{"type","sdp"}}`, `{"ice":{"candidate","sdpMLineIndex",…}}`), and `OFFER_REQUEST`.

use serde_json::{Value, json};

use super::MAX_MESSAGE;

/// Type of a description in the offer/answer exchange (RFC 3264).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SdpKind {
    /// Offer.
    Offer,
    /// Answer.
    Answer,
}

impl SdpKind {
    /// Returns `offer` or `answer`, as in the WebRTC API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Answer => "answer",
        }
    }
}

/// Session description of the wire: unparsed and untrusted.
#[derive(Clone, PartialEq, Eq)]
pub struct Description {
    /// Type of the description.
    pub kind: SdpKind,
    /// The SDP text (RFC 8866).
    pub sdp: String,
}

impl Description {
    /// Returns the description in the shape of `RTCSessionDescription.toJSON()`.
    pub(super) fn to_json(&self) -> Value {
        json!({"type": self.kind.as_str(), "sdp": self.sdp})
    }
}

impl Candidate {
    /// Returns the candidate in the shape of `RTCIceCandidate.toJSON()`.
    pub(super) fn to_json(&self) -> Value {
        let mut ice = json!({"candidate": self.candidate});
        if let Some(mline) = self.mline {
            ice["sdpMLineIndex"] = json!(mline);
        }
        if let Some(mid) = &self.mid {
            ice["sdpMid"] = json!(mid);
        }
        if let Some(ufrag) = &self.ufrag {
            ice["usernameFragment"] = json!(ufrag);
        }
        ice
    }
}

impl std::fmt::Debug for Description {
    // SDP contains addresses and keys, which `{:?}` must not print.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Description({}, {} bytes)", self.kind.as_str(), self.sdp.len())
    }
}

/// Trickled candidate (RFC 8838) of the wire.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Candidate {
    /// The candidate attribute's text, `candidate:…`.
    pub candidate: String,
    /// The index of its m-line.
    pub mline: Option<u32>,
    /// The mid of its m-line.
    pub mid: Option<String>,
    /// The ICE user fragment of the candidate's generation.
    pub ufrag: Option<String>,
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Candidate(m-line {:?}, mid {:?})", self.mline, self.mid)
    }
}

/// Message from peer to peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerMessage {
    /// An offer or an answer.
    Description(Description),
    /// A candidate.
    Candidate(Candidate),
    /// The end of candidates (an empty or null candidate).
    EndOfCandidates,
    /// `OFFER_REQUEST`: asks the other side to make the offer.
    OfferRequest,
    /// Placeholder of a test client, `{"sdp": "some text"}`, which is valid and has no meaning.
    Placeholder,
}

/// Error of a text that is not a message of a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMessageError {
    /// The text is larger than [`MAX_MESSAGE`].
    #[error("a message of {0} bytes is too large")]
    TooLarge(usize),
    /// The text is neither `OFFER_REQUEST` nor JSON.
    #[error("a message that is not JSON")]
    NotJson,
    /// The JSON has neither `sdp` nor `ice` of the right shape.
    #[error("JSON without a usable 'sdp' or 'ice'")]
    Shape,
    /// The description is neither an offer nor an answer.
    #[error("a description of an unknown type")]
    Kind,
}

impl PeerMessage {
    /// Parses a message. Ignores unknown keys.
    pub fn parse(text: &str) -> Result<Self, PeerMessageError> {
        if text.len() > MAX_MESSAGE {
            return Err(PeerMessageError::TooLarge(text.len()));
        }
        if text.trim() == "OFFER_REQUEST" {
            return Ok(Self::OfferRequest);
        }
        let value: Value = serde_json::from_str(text).map_err(|_| PeerMessageError::NotJson)?;
        let object = value.as_object().ok_or(PeerMessageError::Shape)?;
        match (object.get("sdp"), object.get("ice")) {
            (Some(Value::String(_)), _) => Ok(Self::Placeholder),
            (Some(sdp), _) => description(sdp).map(Self::Description),
            (None, Some(ice)) => candidate(ice),
            (None, None) => Err(PeerMessageError::Shape),
        }
    }
}

/// Parses `{type, sdp}`.
pub(super) fn description(value: &Value) -> Result<Description, PeerMessageError> {
    let text = |key| value.get(key).and_then(Value::as_str).ok_or(PeerMessageError::Shape);
    let kind = match text("type")? {
        "offer" => SdpKind::Offer,
        "answer" => SdpKind::Answer,
        _ => return Err(PeerMessageError::Kind),
    };
    Ok(Description { kind, sdp: text("sdp")?.to_owned() })
}

/// Parses the output of `RTCIceCandidate.toJSON()`, or null for the end of candidates.
pub(super) fn candidate(value: &Value) -> Result<PeerMessage, PeerMessageError> {
    if value.is_null() {
        return Ok(PeerMessage::EndOfCandidates);
    }
    if !value.is_object() {
        return Err(PeerMessageError::Shape);
    }
    let text = |key| value.get(key).and_then(Value::as_str);
    match text("candidate") {
        None | Some("") => Ok(PeerMessage::EndOfCandidates),
        Some(candidate) => Ok(PeerMessage::Candidate(Candidate {
            candidate: candidate.to_owned(),
            mline: value.get("sdpMLineIndex").and_then(Value::as_u64).and_then(|n| n.try_into().ok()),
            mid: text("sdpMid").map(str::to_owned),
            ufrag: text("usernameFragment").map(str::to_owned),
        })),
    }
}

impl std::fmt::Display for PeerMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OfferRequest => f.write_str("OFFER_REQUEST"),
            Self::Placeholder => f.write_str(r#"{"sdp":""}"#),
            Self::Description(description) => write!(f, "{}", json!({"sdp": description.to_json()})),
            Self::Candidate(candidate) => write!(f, "{}", json!({"ice": candidate.to_json()})),
            Self::EndOfCandidates => f.write_str(r#"{"ice":{"candidate":"","sdpMLineIndex":0}}"#),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> impl Strategy<Value = PeerMessage> {
        let kind = prop_oneof![Just(SdpKind::Offer), Just(SdpKind::Answer)];
        prop_oneof![
            (kind, ".*").prop_map(|(kind, sdp)| PeerMessage::Description(Description { kind, sdp })),
            (".+", any::<Option<u32>>(), any::<Option<String>>(), any::<Option<String>>()).prop_map(
                |(candidate, mline, mid, ufrag)| {
                    PeerMessage::Candidate(Candidate { candidate, mline, mid, ufrag })
                }
            ),
            Just(PeerMessage::EndOfCandidates),
            Just(PeerMessage::OfferRequest),
            Just(PeerMessage::Placeholder),
        ]
    }

    proptest! {
        #[test]
        fn messages_survive_a_round_trip(message in message()) {
            prop_assert_eq!(PeerMessage::parse(&message.to_string()), Ok(message));
        }

        #[test]
        fn perturbed_bytes_never_panic(
            message in message(), at in any::<prop::sample::Index>(), byte in any::<u8>()
        ) {
            let mut bytes = message.to_string().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = PeerMessage::parse(&String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn wire_text() {
        let lines = [
            PeerMessage::Description(Description { kind: SdpKind::Offer, sdp: "v=0\r\n".into() }),
            PeerMessage::Candidate(Candidate {
                candidate: "candidate:1 1 UDP 1 10.0.0.1 9 typ host".into(),
                mline: Some(0),
                mid: Some("video0".into()),
                ufrag: None,
            }),
            PeerMessage::EndOfCandidates,
            PeerMessage::OfferRequest,
            PeerMessage::Placeholder,
        ];
        insta::assert_snapshot!(lines.map(|m| m.to_string()).join("\n"), @r#"
        {"sdp":{"sdp":"v=0\r\n","type":"offer"}}
        {"ice":{"candidate":"candidate:1 1 UDP 1 10.0.0.1 9 typ host","sdpMLineIndex":0,"sdpMid":"video0"}}
        {"ice":{"candidate":"","sdpMLineIndex":0}}
        OFFER_REQUEST
        {"sdp":""}
        "#);
    }

    #[test]
    fn messages_of_deployed_peers_are_parsed() {
        let parse = PeerMessage::parse;
        assert_eq!(parse(r#"{"sdp": "initial sdp"}"#), Ok(PeerMessage::Placeholder));
        assert_eq!(parse(r#"{"ice": null}"#), Ok(PeerMessage::EndOfCandidates));
        assert_eq!(parse(r#"{"ice": {"candidate": null}}"#), Ok(PeerMessage::EndOfCandidates));
        assert_eq!(parse("{}"), Err(PeerMessageError::Shape));
        assert_eq!(parse("[]"), Err(PeerMessageError::Shape));
        assert_eq!(parse(r#"{"ice": 7}"#), Err(PeerMessageError::Shape));
        assert_eq!(parse(r#"{"sdp": {"type": "rollback", "sdp": ""}}"#), Err(PeerMessageError::Kind));
        assert_eq!(parse("ERROR forged"), Err(PeerMessageError::NotJson));
        let big = format!("{{\"ice\": \"{}\"}}", "x".repeat(MAX_MESSAGE));
        assert!(matches!(parse(&big), Err(PeerMessageError::TooLarge(_))));
    }
}
