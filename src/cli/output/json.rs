//! Events as lines of JSON, for programs.

use serde_json::Value;

use crate::base::text::escape_json;

/// Returns an event as a line of JSON, with the additional field `time` (RFC 3339, UTC).
pub(crate) fn json_line(event: &impl serde::Serialize, time: time::OffsetDateTime) -> String {
    let mut value = serde_json::to_value(event).unwrap_or_default();
    if let Value::Object(fields) = &mut value {
        let time = time.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
        fields.insert("time".to_owned(), Value::String(time));
    }
    escape_json(&value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{Event, PeerState};

    #[test]
    fn json_lines_are_as_documented() {
        let time = time::OffsetDateTime::UNIX_EPOCH;
        let lines = [
            json_line(&Event::Listening { url: "http://127.0.0.1:8443/".into(), fingerprint: None }, time),
            json_line(&Event::Registered { id: "ann".into(), server: "ws://127.0.0.1:8443".into() }, time),
            json_line(
                &Event::Peer { peer: "bob".into(), state: PeerState::Left, reason: Some("hung up".into()) },
                time,
            ),
            json_line(
                &Event::Media {
                    peer: "bob".into(),
                    kind: "video",
                    direction: "receive",
                    codec: "VP8".into(),
                    width: Some(640),
                    height: Some(480),
                    first_frame_ms: 120,
                },
                time,
            ),
            json_line(
                &Event::Message { peer: "bob".into(), channel: "chat".into(), text: "hi".into() },
                time,
            ),
            json_line(&Event::Ended { reason: "hung up".into() }, time),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r#"
        {"event":"listening","time":"1970-01-01T00:00:00Z","url":"http://127.0.0.1:8443/"}
        {"event":"registered","id":"ann","server":"ws://127.0.0.1:8443","time":"1970-01-01T00:00:00Z"}
        {"event":"peer","peer":"bob","reason":"hung up","state":"left","time":"1970-01-01T00:00:00Z"}
        {"codec":"VP8","direction":"receive","event":"media","first_frame_ms":120,"height":480,"kind":"video","peer":"bob","time":"1970-01-01T00:00:00Z","width":640}
        {"channel":"chat","event":"message","peer":"bob","text":"hi","time":"1970-01-01T00:00:00Z"}
        {"event":"ended","reason":"hung up","time":"1970-01-01T00:00:00Z"}
        "#);
    }
}
