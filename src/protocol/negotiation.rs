//! The messages between two peers: session descriptions and candidates as JSON, in the shape of
//! the WebRTC API (`{"sdp":{"type","sdp"}}`, `{"ice":{"candidate","sdpMLineIndex",…}}`), and
//! `OFFER_REQUEST`.

use serde_json::{Value, json};

use super::MAX_MESSAGE;

/// Which half of an offer/answer exchange a description is (RFC 3264).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SdpKind {
    /// An offer.
    Offer,
    /// An answer.
    Answer,
}

impl SdpKind {
    /// `offer` or `answer`, as in the WebRTC API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Answer => "answer",
        }
    }
}

/// A session description as it stands on the wire: unparsed and untrusted.
#[derive(Clone, PartialEq, Eq)]
pub struct Description {
    /// Offer or answer.
    pub kind: SdpKind,
    /// The SDP text (RFC 8866).
    pub sdp: String,
}

impl Description {
    /// As `RTCSessionDescription.toJSON()` gives it.
    pub(super) fn to_json(&self) -> Value {
        json!({"type": self.kind.as_str(), "sdp": self.sdp})
    }
}

impl Candidate {
    /// As `RTCIceCandidate.toJSON()` gives it.
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
    // SDP holds addresses and keys: never through a stray `{:?}`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Description({}, {} bytes)", self.kind.as_str(), self.sdp.len())
    }
}

/// A trickled candidate (RFC 8838) as it stands on the wire.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Candidate {
    /// The candidate attribute's text, `candidate:…`.
    pub candidate: String,
    /// The index of its m-line.
    pub mline: Option<u32>,
    /// The mid of its m-line.
    pub mid: Option<String>,
    /// The ICE user fragment it belongs to.
    pub ufrag: Option<String>,
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Candidate(m-line {:?}, mid {:?})", self.mline, self.mid)
    }
}

/// A message from peer to peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerMessage {
    /// An offer or an answer.
    Description(Description),
    /// A candidate.
    Candidate(Candidate),
    /// No more candidates (an empty or null candidate).
    EndOfCandidates,
    /// `OFFER_REQUEST`: the other side is to make the offer.
    OfferRequest,
    /// A placeholder of a test client, `{"sdp": "some text"}`: valid, and without meaning.
    Placeholder,
}

/// Why a text is no message of a peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMessageError {
    /// Larger than [`MAX_MESSAGE`].
    #[error("a message of {0} bytes is too large")]
    TooLarge(usize),
    /// Neither `OFFER_REQUEST` nor JSON.
    #[error("a message that is not JSON")]
    NotJson,
    /// JSON that holds neither `sdp` nor `ice` of the right shape.
    #[error("JSON without a usable 'sdp' or 'ice'")]
    Shape,
    /// A description that is neither an offer nor an answer.
    #[error("a description of an unknown type")]
    Kind,
}

impl PeerMessage {
    /// Reads one message. Unknown keys count for nothing.
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

/// Reads `{type, sdp}`.
pub(super) fn description(value: &Value) -> Result<Description, PeerMessageError> {
    let text = |key| value.get(key).and_then(Value::as_str).ok_or(PeerMessageError::Shape);
    let kind = match text("type")? {
        "offer" => SdpKind::Offer,
        "answer" => SdpKind::Answer,
        _ => return Err(PeerMessageError::Kind),
    };
    Ok(Description { kind, sdp: text("sdp")?.to_owned() })
}

/// Reads what `RTCIceCandidate.toJSON()` gives, or null.
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
        fn what_is_written_is_read_again(message in message()) {
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
    fn what_deployed_peers_send() {
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
