//! Media: capture, encoding, connections, and the outputs of received media. No other layer uses GStreamer.
//!
//! Sources and encoders run once for all peers, in pipelines of their own ([`capture`], [`encode`]). Each peer has a
//! pipeline with a webrtcbin ([`peer`]). Received media goes from there to windows, loudspeakers and files, each in a
//! pipeline of its own ([`output`], [`receive::recorder`]), so that no pipeline can stop another. `StreamProducer`s connect the
//! pipelines: an appsink that feeds any number of bounded, leaky appsrcs. All pipelines share one clock and one base
//! time.

pub mod gst;
mod rate;
pub mod receive;
pub mod send;
#[cfg(test)]
pub(crate) mod test_media;
pub mod webrtc;

pub use self::gst::error::MediaError;
pub use self::gst::{finish, init, inventory, launch, level, pipeline, version, voice, warm_up};
pub use receive::output;
pub use send::capture::{self, Capture};
pub use send::encode::{self, Encoders, Rates};
pub use send::stream::{self, Stream};
pub use webrtc::peer::{self, Peer, PeerEvent};
pub use webrtc::{forgets_offers, stats, transport};
