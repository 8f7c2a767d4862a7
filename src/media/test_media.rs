//! Media for tests.

use gst_utils::{StreamProducer, streamproducer::ProducerSettings};
use smol::channel::{Receiver, bounded};

use super::gst::launch;
use super::gst::pipeline::Owned;
use super::send::capture::{Capture, SourceConfig};
use super::send::encode::{Encoders, Rates};
use crate::sdp::Kind;

/// Returns a frame of `bytes` bytes with this time in ms.
pub(crate) fn frame(ms: u64, bytes: usize) -> gst::Buffer {
    super::gst::init().unwrap();
    let mut buffer = gst::Buffer::with_size(bytes).unwrap();
    buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(ms));
    buffer
}

/// Runs elements that make media, in gst-launch words, until dropped. A `valve` of that name can stop the media.
pub(crate) fn produce(text: &str) -> (Owned, StreamProducer) {
    super::gst::init().unwrap();
    let pipeline =
        launch::parse(&format!("{text} ! valve name=valve ! appsink name=out sync=false")).unwrap();
    let appsink: gst_app::AppSink = launch::by_name(&pipeline, "out").unwrap();
    let producer = StreamProducer::with(&appsink, ProducerSettings { sync: false });
    let owned = Owned::new(pipeline, |_, _| {});
    owned.play().unwrap();
    (owned, producer)
}

/// Starts a small test picture, 30 frames per second, with its encoders; returns them with the reports of failures.
pub(crate) async fn pictures() -> (Encoders, Receiver<String>) {
    super::gst::init().unwrap();
    let (failures, failed) = bounded(16);
    let config = SourceConfig { size: Some((64, 48)), fps: 30, ..SourceConfig::named("test") };
    let capture = Capture::start(Kind::Video, &config, failures.clone()).await.unwrap();
    (Encoders::new(vec![capture], Rates::fixed(200_000), failures), failed)
}
