//! A stream: video, audio or both, sent to peers under one id.

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
    /// Identifier of the stream (`a=msid`, RFC 8830).
    pub id: String,
    /// Encoders of the stream's sources, shared by all peers.
    pub encoders: Arc<Encoders>,
    /// Tasks that restart the sources.
    _watch: Arc<Vec<smol::Task<()>>>,
}

impl Stream {
    /// Creates a stream with a random id.
    pub fn new(encoders: Encoders) -> Self {
        let encoders = Arc::new(encoders);
        let watch = Arc::new(supervise::watch(&encoders, encoders.failures()));
        Self { id: format!("roomtone-{:08x}", fastrand::u32(..)), encoders, _watch: watch }
    }

    /// Starts sources, at most one of each kind; `rates` bounds the bitrate of video. Later failures go to `failures`.
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
