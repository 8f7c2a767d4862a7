//! Keeps the encoded frames since the last key frame, which a decoder that starts in between receives first.

use std::sync::{Arc, Mutex};

use crate::base::lock::lock;

use gst::prelude::*;

/// Maximum number of bytes kept. If more lie between two key frames, a new decoder starts at the next key frame.
const MOST_BYTES: usize = 16 << 20;
/// Maximum number of frames kept: 40 s at 30 frames per second.
const MOST_FRAMES: usize = 1200;
/// Maximum number of bytes queued before a decoder; a slower decoder resumes at the next key frame.
const MOST_WAITING: u64 = 32 << 20;

/// A receiver of encoded frames.
trait ReceiveFrames {
    /// Queues a frame.
    fn push(&self, sample: &gst::Sample);
    /// Returns the number of bytes queued.
    fn waiting(&self) -> u64;
}

impl ReceiveFrames for gst_app::AppSrc {
    fn push(&self, sample: &gst::Sample) {
        let _ = self.push_sample(sample);
    }

    fn waiting(&self) -> u64 {
        self.current_level_bytes()
    }
}

#[derive(Debug)]
struct Receiver<T> {
    number: u64,
    to: T,
    needs_key: bool,
}

impl<T: ReceiveFrames> Receiver<T> {
    fn give(&mut self, sample: &gst::Sample, is_key: bool) {
        self.needs_key = (self.needs_key && !is_key) || self.to.waiting() > MOST_WAITING;
        if !self.needs_key {
            self.to.push(sample);
        }
    }
}

/// The frames since the last key frame, and the receivers of these and all later frames.
#[derive(Debug)]
struct Gop<T> {
    samples: Vec<gst::Sample>,
    bytes: usize,
    receivers: Vec<Receiver<T>>,
    next: u64,
}

impl<T: ReceiveFrames> Gop<T> {
    fn new() -> Self {
        Self { samples: vec![], bytes: 0, receivers: vec![], next: 0 }
    }

    fn push(&mut self, sample: gst::Sample, is_key: bool) {
        for receiver in &mut self.receivers {
            receiver.give(&sample, is_key);
        }
        let size = sample.buffer().map_or(0, gst::BufferRef::size);
        let fits = self.bytes + size <= MOST_BYTES && self.samples.len() < MOST_FRAMES;
        if is_key || !fits {
            self.samples.clear();
            self.bytes = 0;
        }
        // Frames without their key frame cannot be decoded and are not kept.
        if is_key || !self.samples.is_empty() {
            self.bytes += size;
            self.samples.push(sample);
        }
    }

    /// Adds a receiver and queues the kept frames for it; returns its number and the time of the last kept frame.
    fn join(&mut self, to: T) -> (u64, Option<gst::ClockTime>) {
        self.samples.iter().for_each(|sample| to.push(sample));
        let last = self.samples.last().and_then(|sample| sample.buffer()?.pts());
        let number = self.next;
        self.next += 1;
        self.receivers.push(Receiver { number, to, needs_key: self.samples.is_empty() });
        (number, last)
    }
}

/// The frames since the last key frame of one source. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct RecentFrames(Arc<Mutex<Gop<gst_app::AppSrc>>>);

impl RecentFrames {
    /// Creates an empty store.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Gop::new())))
    }

    /// Stores the next frame of the source, and passes it to all receivers.
    pub(crate) fn push(&self, buffer: &gst::Buffer, caps: &gst::Caps, is_key: bool) {
        lock(&self.0).push(gst::Sample::builder().buffer(buffer).caps(caps).build(), is_key);
    }

    /// Feeds a decoder until the returned value is dropped: first with all frames since the last key frame, then with
    /// each new frame. The sink pad `raw`, behind the decoder, drops the frames older than the current one.
    pub(crate) fn feed(&self, appsrc: gst_app::AppSrc, raw: Option<gst::Pad>) -> DecoderFeed {
        let mut gop = lock(&self.0);
        let (number, now) = gop.join(appsrc);
        // The lock is still held, so that hardly any decoded frame passes before the probe is installed.
        if let (Some(now), Some(raw)) = (now, raw) {
            raw.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
                let time = info.buffer().and_then(|buffer| buffer.pts());
                match time.is_some_and(|time| time < now) {
                    true => gst::PadProbeReturn::Handled,
                    false => gst::PadProbeReturn::Ok,
                }
            });
        }
        drop(gop);
        DecoderFeed { frames: self.clone(), number }
    }
}

/// Registration of a decoder; removes it on drop.
#[derive(Debug)]
pub(crate) struct DecoderFeed {
    frames: RecentFrames,
    number: u64,
}

impl Drop for DecoderFeed {
    fn drop(&mut self) {
        lock(&self.frames.0).receivers.retain(|receiver| receiver.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use crate::media::test_media;

    /// A receiver that records the times (ms) of its frames, and reports a set number of queued bytes.
    #[derive(Clone, Default)]
    struct Recorder(Rc<RefCell<Vec<u64>>>, Rc<Cell<u64>>);

    impl ReceiveFrames for Recorder {
        fn push(&self, sample: &gst::Sample) {
            self.0.borrow_mut().push(sample.buffer().unwrap().pts().unwrap().mseconds());
        }

        fn waiting(&self) -> u64 {
            self.1.get()
        }
    }

    fn sample(ms: u64, bytes: usize) -> gst::Sample {
        gst::Sample::builder().buffer(&test_media::frame(ms, bytes)).build()
    }

    #[test]
    fn a_new_receiver_gets_all_frames_since_the_key_frame() {
        let (mut gop, early, late) = (Gop::new(), Recorder::default(), Recorder::default());
        assert_eq!(gop.join(early.clone()).1, None);
        for ms in [0, 1, 2, 3, 4] {
            gop.push(sample(ms, 10), ms == 2);
        }
        assert_eq!(gop.join(late.clone()).1, Some(gst::ClockTime::from_mseconds(4)));
        gop.push(sample(5, 10), false);
        assert_eq!(*early.0.borrow(), [2, 3, 4, 5], "a decoder begins with a key frame");
        assert_eq!(*late.0.borrow(), [2, 3, 4, 5]);
    }

    #[test]
    fn kept_and_waiting_frames_are_bounded() {
        let (mut gop, slow) = (Gop::new(), Recorder::default());
        gop.push(sample(0, 10), true);
        gop.join(slow.clone());
        for ms in 1..3000 {
            gop.push(sample(ms, 10), false);
            assert!(gop.samples.len() <= MOST_FRAMES);
        }
        assert!(gop.samples.is_empty(), "without their key frame they are of no use");
        gop.push(sample(3000, MOST_BYTES), true);
        gop.push(sample(3001, 1), false);
        assert_eq!((gop.samples.len(), gop.bytes), (0, 0));
        slow.1.set(MOST_WAITING + 1);
        gop.push(sample(3002, 1), true);
        slow.1.set(0);
        gop.push(sample(3003, 1), false);
        gop.push(sample(3004, 1), true);
        assert_eq!(slow.0.borrow()[3000..], [3000, 3001, 3004]);
    }
}
