//! Media for tests.

use std::cell::RefCell;
use std::sync::Once;
use std::time::{Duration, Instant};

use gst_utils::{StreamProducer, streamproducer::ProducerSettings};
use smol::channel::{Receiver, bounded};

use super::gst::launch;
use super::gst::pipeline::Owned;
use super::send::capture::{Capture, SourceConfig};
use super::send::encode::{Encoders, Rates};
use super::send::stream::Stream;
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

/// Check that the observed thread does at each step.
type IsFree = Box<dyn Fn() -> bool>;

thread_local! {
    /// The check of this thread, if the thread is observed.
    static CHECK: RefCell<Option<IsFree>> = const { RefCell::new(None) };
    /// Each step of the observed thread, with the result of the check.
    static STEPS: RefCell<Vec<(bool, String)>> = const { RefCell::new(vec![]) };
}

/// Passes GStreamer's log of created elements and of reached states to the thread's check. GStreamer frees a log function
/// that is removed even while another thread calls it, so that this function stays.
fn observe_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for category in ["GST_ELEMENT_FACTORY", "GST_STATES"] {
            gst::log::set_threshold_for_name(category, gst::DebugLevel::Info);
        }
        gst::log::remove_default_log_function();
        gst::log::add_log_function(|_, _, _, _, _, _, message| {
            let is_free = CHECK.try_with(|check| check.try_borrow().ok()?.as_ref().map(|is_free| is_free()));
            if let Ok(Some(is_free)) = is_free {
                let text = message.get().map(|text| text.to_string()).unwrap_or_default();
                STEPS.with(|steps| steps.borrow_mut().push((is_free, text)));
            }
        });
    });
}

/// Does `work`, and checks that `is_free` holds at each step of GStreamer that `work` causes in this thread: GStreamer
/// logs each element that it creates and each state that an element reaches. Returns the result of `work` and the steps.
pub(crate) fn steps_unlocked<T>(
    is_free: impl Fn() -> bool + 'static,
    work: impl FnOnce() -> T,
) -> (T, String) {
    super::gst::init().unwrap();
    observe_log();
    CHECK.with(|check| *check.borrow_mut() = Some(Box::new(is_free)));
    let result = work();
    CHECK.with(|check| *check.borrow_mut() = None);
    let steps = STEPS.take();
    let locked: Vec<_> = steps.iter().filter(|(is_free, _)| !is_free).collect();
    assert!(locked.is_empty(), "{locked:?}");
    let steps: Vec<String> = steps.into_iter().map(|(_, text)| text).collect();
    (result, steps.join("\n"))
}

/// Waits, a minute at most, until `is_true` holds.
pub(crate) fn wait(what: &str, is_true: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !is_true() {
        assert!(Instant::now() < until, "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Starts a small test video, 30 frames per second, with its encoders; returns them with the reports of failures.
pub(crate) async fn pictures() -> (Encoders, Receiver<String>) {
    super::gst::init().unwrap();
    let (failures, failed) = bounded(16);
    let config = SourceConfig { size: Some((64, 48)), fps: 30, ..SourceConfig::named("test") };
    let capture = Capture::start(Kind::Video, &config, failures.clone()).await.unwrap();
    (Encoders::new(vec![capture], Rates::fixed(200_000), failures), failed)
}

/// Starts to send video of this width.
pub(crate) async fn video(width: u32) -> Stream {
    let config = SourceConfig { size: Some((width, 64)), fps: 15, ..SourceConfig::named("test") };
    let (failures, _) = bounded(16);
    Stream::start(&[(Kind::Video, config)], Rates::fixed(200_000), failures).await.unwrap()
}
