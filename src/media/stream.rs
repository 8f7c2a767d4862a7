//! What is sent to peers together: pictures, sound or both, under one id.

use std::sync::Arc;

use smol::channel::Sender;

use super::MediaError;
use super::capture::{Capture, SourceConfig};
use super::encode::{Encoders, Rates};
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

    /// Starts sources, at most one of each kind, with the bounds of the pictures' bitrate. What stops later is told
    /// to `failures`.
    pub async fn start(
        sources: &[(Kind, SourceConfig)],
        rates: Rates,
        failures: Sender<String>,
    ) -> Result<Self, MediaError> {
        super::init()?;
        let mut captures = Vec::new();
        for (kind, config) in sources {
            captures.push(Capture::start(*kind, config, failures.clone()).await?);
        }
        Ok(Self::new(Encoders::new(captures, rates, failures)))
    }

    pub(super) fn has(&self, kind: Kind) -> bool {
        self.encoders.has(kind)
    }
}
