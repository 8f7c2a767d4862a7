//! Media, data channels and paths that a connection is opened with.

use super::data_channel::ChannelConfig;
use super::transport::ice::IceConfig;
use crate::media::receive::playout_delay::Latency;
use crate::media::send::stream::Stream;
use crate::sdp::{Codec, Kind};

/// What a connection is to carry.
#[derive(Debug, Clone, Default)]
pub struct PeerConfig {
    /// What there is to send from the start.
    pub streams: Vec<Stream>,
    /// The data channel to open with the first offer; where the peer offers, it is the peer's matter.
    pub chat: Option<ChannelConfig>,
    /// The data channels to open with the first offer, or to find opened by the peer; else they are opened
    /// later.
    pub channels: Vec<ChannelConfig>,
    /// Whether to take what the peer sends, of each kind.
    pub receive: Vec<Kind>,
    /// The codecs that we take, in the order that we offer them in.
    pub codecs: Vec<Codec>,
    /// Those that are taken before others when the peer offers; else its order counts.
    pub preferred: Vec<Codec>,
    /// Whether pictures are sent with error correction (ULPFEC in RED), and it is taken.
    pub fec: bool,
    /// How a path to the peer is looked for.
    pub ice: IceConfig,
    /// How long received media waits to be put in order.
    pub latency: Latency,
}

impl PeerConfig {
    pub(crate) fn receives(&self, kind: Kind) -> bool {
        self.receive.contains(&kind)
    }

    /// The kinds of media that our side sends or receives.
    pub fn wanted(&self) -> Vec<Kind> {
        let sends = |kind| self.streams.iter().any(|stream| stream.has(kind));
        Kind::ALL.into_iter().filter(|kind| sends(*kind) || self.receives(*kind)).collect()
    }
}
