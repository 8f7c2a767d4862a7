//! The last frame of a link once more: a peer that joins sees it at once, instead of the camera's next one.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::base::lock::lock;
use crate::base::tasks::Tasks;

use gst::prelude::*;

use super::frame_time::{LinkTime, Passage};

/// Maximum number of repetitions that wait for the encoder; each serves all peers that joined before it.
const MAX_REPEATS: usize = 16;

/// The last frame that passed a link, and the pad to repeat it on.
#[derive(Debug)]
pub(crate) struct LastFrame {
    pad: gst::Pad,
    last: Arc<Mutex<Last>>,
    repeats: Tasks,
}

#[derive(Debug, Default)]
struct Last {
    frame: Option<(gst::Buffer, Instant)>,
    times: LinkTime,
}

impl Last {
    /// Keeps a frame that passes, with the time under which it does; returns false for a frame to be dropped.
    fn accept(&mut self, buffer: &mut gst::Buffer) -> bool {
        match self.times.accept(buffer.pts()) {
            Passage::Pass(time) => {
                if time != buffer.pts() {
                    buffer.make_mut().set_pts(time);
                }
                self.frame = Some((buffer.clone(), Instant::now()));
                true
            }
            Passage::Drop => false,
        }
    }

    /// Returns the last frame with the time of `now`; `None` if a frame has passed since `asked`.
    fn repeat(&mut self, asked: Instant, now: Instant) -> Option<gst::Buffer> {
        let (mut buffer, at) = self.frame.clone().filter(|(_, at)| *at < asked)?;
        let copy = buffer.make_mut();
        copy.set_pts(self.times.repeat(now.saturating_duration_since(at)));
        copy.set_dts(gst::ClockTime::NONE);
        Some(buffer)
    }
}

impl LastFrame {
    /// Keeps the frames on the link behind an element; `None` if the element has no link.
    pub(crate) fn after(element: &gst::Element) -> Option<Self> {
        let pad = element.static_pad("src")?;
        let last: Arc<Mutex<Last>> = Arc::default();
        let kept = last.clone();
        // On the sink pad frames are in sequence; in front of the link two threads could still change their order.
        // Handled instead of Drop: after Drop on a sink pad, GStreamer frees a buffer that the binding has taken.
        pad.peer()?.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let mut last = lock(&kept);
            let is_taken = info.buffer_mut().is_none_or(|buffer| last.accept(buffer));
            if is_taken { gst::PadProbeReturn::Ok } else { gst::PadProbeReturn::Handled }
        });
        Some(Self { pad, last, repeats: Tasks::new(MAX_REPEATS) })
    }

    /// Returns the time since the last video frame arrived or was repeated; `None` before the first frame.
    pub(crate) fn age(&self) -> Option<Duration> {
        let last = lock(&self.last);
        last.frame.as_ref().map(|(_, at)| at.elapsed())
    }

    /// Repeats the last frame on another thread, unless a frame passes before.
    pub(crate) fn repeat(&self) {
        let (pad, last, asked) = (self.pad.clone(), self.last.clone(), Instant::now());
        // The push returns when the frame is encoded.
        self.repeats.spawn(smol::unblock(move || {
            let frame = lock(&last).repeat(asked, Instant::now());
            if let Some(Err(error)) = frame.map(|buffer| pad.push(buffer)) {
                tracing::debug!("the last frame is not repeated: {error}");
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::test_media;

    #[test]
    fn a_frame_is_not_repeated_after_a_newer_one() {
        let (mut last, start) = (Last::default(), Instant::now());
        assert!(last.repeat(start, start).is_none(), "no frame yet");
        assert!(last.accept(&mut test_media::frame(100, 1)));
        assert!(last.repeat(start, Instant::now()).is_none(), "it came since");
        let now = Instant::now();
        let repeated = last.repeat(now, now + Duration::from_millis(20)).unwrap();
        // The frame came between the start and now.
        let longest = 121 + u64::try_from((now - start).as_millis()).unwrap();
        let time = repeated.pts().unwrap().mseconds();
        assert!((120..=longest).contains(&time) && repeated.size() == 1, "{time}, {longest} at most");
    }

    /// Repeats frames while the camera's arrive, as when many peers join at once: no encoder may stop to make key
    /// frames.
    #[test]
    fn many_repetitions_never_move_time_back() {
        crate::media::gst::init().unwrap();
        let pipeline = crate::media::gst::launch::parse(
            "videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=60/1 ! identity name=rate ! \
             identity name=next sleep-time=12000 ! fakesink",
        )
        .unwrap();
        let last = LastFrame::after(&pipeline.by_name("rate").unwrap()).unwrap();
        let times: Arc<Mutex<Vec<gst::ClockTime>>> = Arc::default();
        let seen = times.clone();
        // The probe runs within the streaming thread's lock, after the probe of [`LastFrame`].
        let next = pipeline.by_name("next").unwrap().static_pad("src").unwrap();
        next.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            seen.lock().unwrap().extend(info.buffer().and_then(|buffer| buffer.pts()));
            gst::PadProbeReturn::Ok
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        let repeat = || {
            last.repeat();
            std::thread::sleep(Duration::from_millis(3));
        };
        (0..300).for_each(|_| repeat());
        test_media::wait("more than forty frames", || {
            repeat();
            times.lock().unwrap().len() > 40
        });
        pipeline.set_state(gst::State::Null).unwrap();
        let times = times.lock().unwrap();
        assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    }
}
