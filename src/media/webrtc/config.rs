//! Media, data channels and paths that a connection is opened with.

use super::data_channel::ChannelConfig;
use super::transport::ice::IceConfig;
use crate::media::receive::playout_delay::Latency;
use crate::media::send::stream::Stream;
use crate::sdp::{Codec, Kind};

/// Settings of a connection.
#[derive(Debug, Clone, Default)]
pub struct PeerConfig {
    /// Streams to send from the start.
    pub streams: Vec<Stream>,
    /// Data channel to open with the first offer; if the peer makes that, the peer opens the channel.
    pub chat: Option<ChannelConfig>,
    /// Data channels to open with the first offer, or that the peer may open; missing ones are opened once connected.
    pub channels: Vec<ChannelConfig>,
    /// Kinds of media to receive.
    pub receive: Vec<Kind>,
    /// Codecs that may be used, in the order in which they are offered.
    pub codecs: Vec<Codec>,
    /// Codecs that are preferred to the order of the peer's offer.
    pub preferred: Vec<Codec>,
    /// Whether video may be sent and received with forward error correction (ULPFEC in RED).
    pub fec: bool,
    /// Settings of ICE.
    pub ice: IceConfig,
    /// Playout delay of received media.
    pub latency: Latency,
}

impl PeerConfig {
    pub(crate) fn receives(&self, kind: Kind) -> bool {
        self.receive.contains(&kind)
    }

    /// Returns the kinds of media that are sent or received.
    pub fn wanted(&self) -> Vec<Kind> {
        let sends = |kind| self.streams.iter().any(|stream| stream.has(kind));
        Kind::ALL.into_iter().filter(|kind| sends(*kind) || self.receives(*kind)).collect()
    }
}
