//! Timing of captured frames: maps the times of each source to the common base, holds back frames of sources that are
//! not live until their time, and limits the frame rate.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;
use smol::channel::Sender;

use super::end::Fault;
use crate::base::lock::lock;
use crate::media::gst::pipeline;
use crate::media::send::frame_time::SourceTime;

#[derive(Debug, Default)]
struct State {
    time: SourceTime,
    /// Whether frames are held back until their time; absent before the first frame, unless the source is a file.
    waits: Option<bool>,
    frames: u64,
    /// Arrival time of the last frame.
    came: Option<Instant>,
    is_stopped: bool,
}

/// Pacing state of one source, shared by all pads that its frames pass.
#[derive(Debug)]
pub(super) struct Pacer {
    state: Mutex<State>,
    stopped: Condvar,
    /// Offset from a live source's running time to the common time.
    live_shift: gst::ClockTime,
}

impl Pacer {
    /// Creates the state for a source whose pipeline's base time is `live_shift` after the common base. Frames of a
    /// file always wait for their time; other sources wait unless their latency query reports a live source.
    pub(super) fn new(live_shift: gst::ClockTime, is_file: bool) -> Arc<Self> {
        let state = State { waits: is_file.then_some(true), ..State::default() };
        Arc::new(Self { state: Mutex::new(state), stopped: Condvar::new(), live_shift })
    }

    /// Returns the number of frames since the source started or restarted.
    pub(super) fn frames(&self) -> u64 {
        lock(&self.state).frames
    }

    /// Returns the time since the last frame arrived; zero before the first frame.
    pub(super) fn age(&self) -> Duration {
        lock(&self.state).came.map_or(Duration::ZERO, |came| came.elapsed())
    }

    /// Returns whether frames wait for their time; false before the first frame of a source that is no file.
    pub(super) fn waits(&self) -> bool {
        lock(&self.state).waits == Some(true)
    }

    /// Restarts the timing of the source: its next frame gets the current time.
    pub(super) fn begin_again(&self) {
        let mut state = lock(&self.state);
        (state.time.shift, state.frames) = (None, 0);
    }

    /// Ends all waits for good, so that the source's thread is free when its pipeline stops.
    pub(super) fn stop(&self) {
        lock(&self.state).is_stopped = true;
        self.stopped.notify_all();
    }

    /// Waits until the time of a frame, if the source is paced, and returns the frame's common time. Calls `is_live`
    /// only for the first frame.
    fn accept(&self, pts: Option<gst::ClockTime>, is_live: impl FnOnce() -> bool) -> Option<gst::ClockTime> {
        // The lock is released here, because `is_live` queries other elements.
        let waits = lock(&self.state).waits;
        let waits = waits.unwrap_or_else(|| !is_live());
        let mut state = lock(&self.state);
        if state.waits.is_none() {
            state.waits = Some(waits);
            state.time.shift = (!waits).then_some(self.live_shift);
        }
        let now = pipeline::running_time();
        let time = state.time.time(pts, now)?;
        (state.frames, state.came) = (state.frames + 1, Some(Instant::now()));
        if waits {
            let wait = Duration::from(time.saturating_sub(now));
            drop(self.stopped.wait_timeout_while(state, wait, |state| !state.is_stopped));
        }
        Some(time)
    }
}

/// Returns whether the media at a sink pad is of a live source; true if no element answers the latency query.
fn is_live(pad: &gst::Pad) -> bool {
    let mut query = gst::query::Latency::new();
    !pad.peer_query(&mut query) || query.result().0
}

/// Sets the time of every buffer at a sink pad to the common base, in one endless segment that replaces the source's
/// segments. Reports each frame to `first`, and the end of the stream to `end`; drops the end-of-stream event.
pub(super) fn retime(pad: &gst::Pad, pacer: Arc<Pacer>, first: Sender<Result<(), Fault>>, end: Sender<()>) {
    let types = gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::BUFFER;
    pad.add_probe(types, move |pad, info| {
        match info.event().map(|event| event.view()) {
            Some(gst::EventView::Segment(new)) => {
                if let Some(new) = new.segment().downcast_ref::<gst::ClockTime>() {
                    lock(&pacer.state).time.segment = new.clone();
                }
                let endless = gst::FormattedSegment::<gst::ClockTime>::new();
                info.data = Some(gst::PadProbeData::Event(gst::event::Segment::new(&endless)));
            }
            Some(gst::EventView::Eos(_)) => {
                let _ = end.try_send(());
                return gst::PadProbeReturn::Handled;
            }
            _ => {}
        }
        if let Some(buffer) = info.buffer_mut() {
            // The wait blocks the source's own streaming thread, which has no other work.
            let Some(time) = pacer.accept(buffer.pts(), || is_live(pad)) else {
                // Handled instead of Drop: after Drop on a sink pad, GStreamer frees a buffer that the binding
                // has taken.
                return gst::PadProbeReturn::Handled;
            };
            let buffer = buffer.make_mut();
            buffer.set_pts(time);
            buffer.set_dts(gst::ClockTime::NONE);
            let _ = first.try_send(Ok(()));
        }
        gst::PadProbeReturn::Ok
    });
}

/// Drops frames above a maximum frame rate; decides on each frame at once, without waiting for the next one.
#[derive(Debug)]
struct Thin {
    interval: gst::ClockTime,
    /// Time at which the next frame is due.
    due: Option<gst::ClockTime>,
}

impl Thin {
    fn new(fps: u32) -> Self {
        Self { interval: gst::ClockTime::SECOND / u64::from(fps.max(1)), due: None }
    }

    /// Returns whether the frame at this time passes; it may be early by a quarter of the interval.
    fn accept(&mut self, time: gst::ClockTime) -> bool {
        let due = self.due.unwrap_or(time);
        // A source whose time stepped back restarts the schedule.
        let is_anew = time.saturating_add(2 * self.interval) < due;
        if !is_anew && time.saturating_add(self.interval / 4) < due {
            return false;
        }
        let is_regular = !is_anew && time < due.saturating_add(self.interval);
        self.due = Some(if is_regular { due } else { time }.saturating_add(self.interval));
        true
    }
}

/// Returns the frame rate announced to encoders, from the source's own rate (a fraction) and the maximum. Encoders
/// divide by the rate and plan their bit budget with it, so that a missing rate, 0/1 (variable) and extreme rates are
/// replaced.
fn sane_rate(own: Option<(i32, i32)>, fps: u32) -> (i32, i32) {
    let most = i32::try_from(fps.max(1)).unwrap_or(i32::MAX);
    match own {
        Some((frames, seconds)) if frames > 0 && seconds > 0 => {
            let rate = f64::from(frames) / f64::from(seconds);
            if rate < 1.0 {
                (1, 1)
            } else if rate > f64::from(most) {
                (most, 1)
            } else {
                (frames, seconds)
            }
        }
        _ => (most, 1),
    }
}

/// Drops raw frames above `fps` frames per second at a sink pad, and sets a valid frame rate in their caps: videorate
/// of GStreamer 1.22 aborts the process at 0/1.
pub(super) fn thin(pad: &gst::Pad, fps: u32) {
    let state = Mutex::new(Thin::new(fps));
    let types = gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::BUFFER;
    pad.add_probe(types, move |_, info| {
        if let Some(gst::EventView::Caps(event)) = info.event().map(|event| event.view()) {
            let mut caps = event.caps_owned();
            let own = caps.structure(0).and_then(|caps| caps.get::<gst::Fraction>("framerate").ok());
            let (frames, seconds) = sane_rate(own.map(|own| (own.numer(), own.denom())), fps);
            caps.make_mut().set("framerate", gst::Fraction::new(frames, seconds));
            info.data = Some(gst::PadProbeData::Event(gst::event::Caps::new(&caps)));
        }
        let time = info.buffer().and_then(|buffer| buffer.pts());
        let goes_on = |time| lock(&state).accept(time);
        if time.is_some_and(|time| !goes_on(time)) {
            return gst::PadProbeReturn::Handled;
        }
        gst::PadProbeReturn::Ok
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn ms(ms: u64) -> gst::ClockTime {
        gst::ClockTime::from_mseconds(ms)
    }

    #[test]
    fn the_frame_rate_is_limited_and_never_raised() {
        let passed = |fps, every: u64, count: u64| {
            let mut thin = Thin::new(fps);
            (0..count).filter(|n| thin.accept(gst::ClockTime::from_useconds(n * every))).count()
        };
        assert_eq!(passed(30, 16_667, 600), 300, "60 a second");
        assert_eq!(passed(30, 33_333, 300), 300);
        assert_eq!(passed(30, 40_000, 250), 250);
        assert!((299..=302).contains(&passed(30, 25_000, 400)), "40 a second");
        assert!((10..=11).contains(&passed(0, 100_000, 100)), "at least one a second");
        let mut thin = Thin::new(10);
        assert!(thin.accept(ms(5000)) && !thin.accept(ms(5010)) && thin.accept(ms(0)), "it begins anew");
    }

    #[test]
    fn absurd_frame_rates_are_replaced() {
        let sane = |own| sane_rate(own, 30);
        assert_eq!([sane(None), sane(Some((0, 1))), sane(Some((1, 0))), sane(Some((-5, 1)))], [(30, 1); 4]);
        assert_eq!([sane(Some((1000, 1))), sane(Some((i32::MAX, 1)))], [(30, 1); 2]);
        assert_eq!([sane(Some((1, 1000))), sane(Some((1, i32::MAX)))], [(1, 1); 2]);
        assert_eq!(sane(Some((30000, 1001))), (30000, 1001));
        assert_eq!(sane_rate(Some((1, 0)), 0), (1, 1));
    }

    proptest! {
        /// Arbitrary times cause no overflow and no panic in pacing and frame dropping.
        #[test]
        fn arbitrary_times_do_not_panic(times in prop::collection::vec(any::<u64>(), 0..100), fps: u32) {
            crate::media::gst::init().unwrap();
            let mut thin = Thin::new(fps);
            let mut source = SourceTime::default();
            for time in times {
                let time = gst::ClockTime::from_nseconds(time.min(u64::MAX - 1));
                let _ = (thin.accept(time), source.time(Some(time), ms(1)));
            }
        }
    }
}
