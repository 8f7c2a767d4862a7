//! The engine's three scripts, which an engine without memory executes, too: their texts, arguments and replies, and the fields of the messages in an inbox.

use super::data::{Attach, Beat, Fields, Key, Message, NodeId, Tx, Verdict};

/// The script that executes [`Attach`].
pub const ATTACH: &str = concat!(include_str!("scripts/common.lua"), include_str!("scripts/attach.lua"));
/// The script that executes [`Beat`].
pub const BEAT: &str = concat!(include_str!("scripts/common.lua"), include_str!("scripts/beat.lua"));
/// The script that executes [`Tx`].
pub const TX: &str = concat!(include_str!("scripts/common.lua"), include_str!("scripts/tx.lua"));

/// The field of a message that was sent outside of transactions.
pub const BODY: &str = "b";

impl Key {
    /// Returns the key of the inbox of an attachment, a stream.
    pub fn inbox(node: &NodeId) -> Self {
        Self(format!("in:{}", node.0))
    }
}

impl Attach {
    /// Returns the arguments of the script.
    pub fn arguments(&self) -> Vec<String> {
        let old = self.old.as_ref().map(|old| old.0.clone()).unwrap_or_default();
        let is_rewound = if self.is_rewound { "1" } else { "0" };
        vec![self.node.0.clone(), old, self.epoch.clone().unwrap_or_default(), is_rewound.to_owned()]
    }
}

impl Beat {
    /// Returns the arguments of the script.
    pub fn arguments(&self) -> Vec<String> {
        vec![self.node.0.clone(), self.epoch.clone(), self.op.to_string(), self.place.to_string()]
    }
}

impl Tx {
    /// Returns the arguments of the script, for the attachment `node` in this epoch.
    pub fn arguments(&self, node: &NodeId, epoch: &str) -> Vec<String> {
        vec![node.0.clone(), epoch.to_owned(), serde_json::to_string(self).unwrap_or_default()]
    }
}

impl Verdict {
    /// Parses the reply of a script.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "TAKEN" => Some(Self::Taken),
            "FENCED" => Some(Self::Fenced),
            "REWOUND" => Some(Self::Rewound),
            _ => None,
        }
    }
}

impl Message {
    /// Parses the fields of a message in an inbox. Returns its number among the messages of transactions, 0 for a message
    /// outside of transactions.
    pub fn parse(fields: &Fields) -> Option<(u64, Self)> {
        let number = |name: &str| fields.get(name).map_or(Some(0), |text| text.parse().ok());
        let place = number("p")?;
        let Some(reads) = fields.get("r") else {
            return Some((place, Self::Frame(number("s")?, fields.get(BODY)?.clone())));
        };
        let reads: Vec<Vec<String>> = serde_json::from_str(reads).ok()?;
        let read = |list: Vec<String>| {
            let (name, rest) = list.split_first()?;
            let pairs = rest.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
            Some((Key(name.clone()), pairs.collect()))
        };
        let reads = reads.into_iter().map(read).collect::<Option<_>>()?;
        let is_done = fields.get("k").is_some_and(|done| done == "1");
        Some((place, Self::Done { op: number("o")?, is_done, number: number("s")?, reads }))
    }
}
