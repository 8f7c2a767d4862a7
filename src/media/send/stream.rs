//! What is sent to peers together: pictures, sound or both, under one id.

use std::sync::Arc;

use smol::channel::Sender;

use super::capture::{Capture, SourceConfig};
use super::encode::{Encoders, Rates};
use super::supervise;
use crate::media::gst::error::MediaError;
use crate::sdp::Kind;

/// A stream of ours, for any number of peers. Clones are the same stream.
#[derive(Debug, Clone)]
pub struct Stream {
    /// How peers tell it from others (`a=msid`, RFC 8830).
    pub id: String,
    /// Its sources, encoded once for all.
    pub encoders: Arc<Encoders>,
    /// Tasks that restart the sources.
    _watch: Arc<Vec<smol::Task<()>>>,
}

impl Stream {
    /// A stream under an id of its own.
    pub fn new(encoders: Encoders) -> Self {
        let encoders = Arc::new(encoders);
        let watch = Arc::new(supervise::watch(&encoders, encoders.failures()));
        Self { id: format!("roomtone-{:08x}", fastrand::u32(..)), encoders, _watch: watch }
    }

    /// Starts sources, at most one of each kind, with the bounds of the pictures' bitrate. What stops later is told
    /// to `failures`.
    pub async fn start(
        sources: &[(Kind, SourceConfig)],
        rates: Rates,
        failures: Sender<String>,
    ) -> Result<Self, MediaError> {
        crate::media::gst::init()?;
        let captures = Self::sources(sources, &failures).await?;
        Ok(Self::new(Encoders::new(captures, rates, failures)))
    }

    /// Starts sources, at most one of each kind. If a file or camera lacks a kind, a report goes to `failures`.
    ///
    /// # Errors
    ///
    /// Returns an error if a source does not start, or if no source has the media that is wanted of it.
    pub async fn sources(
        sources: &[(Kind, SourceConfig)],
        failures: &Sender<String>,
    ) -> Result<Vec<Capture>, MediaError> {
        supervise::start(sources, failures).await
    }

    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.encoders.has(kind)
    }
}
