//! What is sent to peers together: pictures, sound or both, under one id.

use std::sync::Arc;

use super::encode::Encoders;
use crate::sdp::Kind;

/// A stream of ours, for any number of peers. Clones are the same stream.
#[derive(Debug, Clone)]
pub struct Stream {
    /// How peers tell it from others (`a=msid`, RFC 8830).
    pub id: String,
    /// Its sources, encoded once for all.
    pub encoders: Arc<Encoders>,
}

impl Stream {
    /// A stream under an id of its own.
    pub fn new(encoders: Encoders) -> Self {
        Self { id: format!("roomtone-{:08x}", fastrand::u32(..)), encoders: Arc::new(encoders) }
    }

    pub(super) fn has(&self, kind: Kind) -> bool {
        self.encoders.has(kind)
    }
}
