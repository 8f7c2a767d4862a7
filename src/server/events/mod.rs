//! The events of the server for back ends: each is one object of JSON, with a number that grows by one. Webhooks and the
//! stream of the API read them from one [`Log`].
//!
//! [`Log`]: log::Log

pub(super) mod happening;
pub(super) mod log;
pub(super) mod observer;

use std::time::{Instant, SystemTime};

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use happening::Happening;

/// An occurrence with its number and its time.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    /// The number: 1 for the first event after the start, and one more for each further event.
    pub(super) number: u64,
    pub(super) at: SystemTime,
    /// The same time on the monotonic clock.
    pub(super) since: Instant,
    pub(super) what: Happening,
}

impl Event {
    /// Returns the type.
    pub(super) fn kind(&self) -> &'static str {
        self.what.parts().0
    }

    /// Returns the event as JSON. `lost` is the number of events before this one that the receiver does not get.
    pub(super) fn json(&self, lost: u64) -> String {
        let (kind, data) = self.what.parts();
        let time = OffsetDateTime::from(self.at).format(&Rfc3339).unwrap_or_default();
        let mut event = json!({"type": kind, "timestamp": time, "seq": self.number, "data": data});
        if lost > 0 {
            event["lost"] = json!(lost);
        }
        event.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::Value;

    use super::happening::TYPES;
    use super::*;
    use crate::protocol::{PeerId, RoomId};

    #[test]
    fn each_event_has_a_listed_type_and_its_data() {
        let (ann, attic) = (|| "ann".parse::<PeerId>().unwrap(), || "attic".parse::<RoomId>().unwrap());
        let bob: PeerId = "bob".parse().unwrap();
        let (reason, seconds) = ("closed", 1.5);
        let all = [
            (Happening::Registered { peer: ann() }, json!({"peer": "ann"})),
            (
                Happening::Gone { peer: ann(), reason, seconds },
                json!({"peer": "ann", "reason": "closed", "seconds": 1.5}),
            ),
            (Happening::RoomStarted { room: attic() }, json!({"room": "attic"})),
            (Happening::RoomEnded { room: attic(), seconds }, json!({"room": "attic", "seconds": 1.5})),
            (
                Happening::Joined { room: attic(), peer: ann(), members: 2 },
                json!({"room": "attic", "peer": "ann", "members": 2}),
            ),
            (
                Happening::Left { room: attic(), peer: ann(), members: 1, reason, seconds },
                json!({"room": "attic", "peer": "ann", "members": 1, "reason": "closed", "seconds": 1.5}),
            ),
            (Happening::CallStarted { from: ann(), to: bob.clone() }, json!({"from": "ann", "to": "bob"})),
            (
                Happening::CallEnded { from: ann(), to: bob.clone(), answered: true, seconds },
                json!({"from": "ann", "to": "bob", "answered": true, "seconds": 1.5}),
            ),
            (
                Happening::Missed { from: ann(), to: bob.clone(), reason: "busy" },
                json!({"from": "ann", "to": "bob", "reason": "busy"}),
            ),
            (Happening::Unreachable { from: ann(), to: bob }, json!({"from": "ann", "to": "bob"})),
            (Happening::Draining, json!({})),
        ];
        for ((what, data), kind) in all.into_iter().zip(TYPES) {
            let at = UNIX_EPOCH + Duration::from_secs(1);
            let event = Event { number: 7, at, since: Instant::now(), what };
            assert_eq!(event.kind(), kind);
            let text: Value = serde_json::from_str(&event.json(0)).unwrap();
            let wanted = json!({"type": kind, "timestamp": "1970-01-01T00:00:01Z", "seq": 7, "data": data});
            assert_eq!(text, wanted);
            let text: Value = serde_json::from_str(&event.json(3)).unwrap();
            assert_eq!(text["lost"], 3);
        }
    }
}
