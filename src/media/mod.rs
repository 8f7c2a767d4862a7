//! The only place that knows GStreamer. Capture and encoding run once, in pipelines of their own
//! ([`capture`], [`encode`]); each peer has a pipeline around a webrtcbin ([`peer`]); what a peer sends goes from
//! there to windows, speakers and files, again in pipelines of their own ([`output`], [`record`]), so
//! that none of them can stop another. Between them run `StreamProducer`s: an appsink that feeds any
//! number of bounded, leaky appsrcs. All pipelines share one clock and one base time.

pub mod gst;
mod rate;
pub mod receive;
pub mod send;
#[cfg(test)]
mod test_media;
pub mod webrtc;

pub use self::gst::error::MediaError;
pub use self::gst::{finish, init, inventory, launch, level, pipeline, version, voice, warm_up};
pub use receive::{grid as stage, output, playout_delay as playout, recorder as record};
pub use send::capture::{self, Capture};
pub use send::encode::{self, Encoders, Rates};
pub use send::encoded_source as encoded;
pub use send::stream::{self, Stream};
pub use webrtc::data_channel as channel;
pub use webrtc::peer::{self, Peer, PeerEvent};
pub use webrtc::{forgets_offers, stats, transport};
