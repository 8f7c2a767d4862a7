//! The descriptions of peers that a peer gets when it joins a room, within bounds.

use serde_json::Value;

use crate::protocol::PeerId;

/// The most bytes of descriptions sent to a peer that joins a room; the descriptions of further peers are left out.
const MAX_TOLD: usize = 4 << 20;

/// Returns the length of a value as JSON, in bytes.
pub(in crate::server) fn text_length(value: &Value) -> usize {
    if value.is_null() { 4 } else { value.to_string().len() }
}

/// Returns the descriptions of the peers, up to [`MAX_TOLD`] bytes; null for the peers beyond the limit.
pub(in crate::server) fn described<'a>(
    peers: impl Iterator<Item = &'a PeerId>,
    describe: impl Fn(&PeerId) -> Value,
) -> Vec<(PeerId, Value)> {
    let mut bytes = 0;
    let all = peers.map(|peer| {
        let description = if bytes < MAX_TOLD { describe(peer) } else { Value::Null };
        bytes += text_length(&description);
        (peer.clone(), description)
    });
    all.collect()
}
