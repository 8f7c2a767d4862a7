//! The times of captured frames: every source's own times become times on the common base, frames of a source that is not
//! live wait for their time, and a source gives no more frames a second than are wanted.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;
use smol::channel::Sender;

use super::Fault;
use crate::media::pipeline;

/// How a source's time becomes the common time.
#[derive(Debug, Default)]
struct Pace {
    segment: gst::FormattedSegment<gst::ClockTime>,
    /// From the source's running time to the common one; none before the first frame, which sets it to now.
    shift: Option<gst::ClockTime>,
    /// The last frame's time.
    last: Option<gst::ClockTime>,
}

impl Pace {
    /// A source that goes back by more than that begins anew, now: no encoder takes frames from before the last one.
    const ANEW: gst::ClockTime = gst::ClockTime::from_seconds(1);

    /// Returns the common time of a frame, given the common time now. A frame without a time is taken to be of now.
    /// Returns none for a frame outside its segment, which is not meant to be shown.
    fn time(&mut self, pts: Option<gst::ClockTime>, now: gst::ClockTime) -> Option<gst::ClockTime> {
        let Some(pts) = pts else {
            self.last = Some(now);
            return Some(now);
        };
        let running = self.segment.to_running_time(pts)?;
        let shift = *self.shift.get_or_insert_with(|| now.saturating_sub(running));
        let mut time = running.saturating_add(shift);
        if self.last.is_some_and(|last| time.saturating_add(Self::ANEW) < last) {
            (self.shift, time) = (Some(now.saturating_sub(running)), now);
        }
        self.last = Some(time);
        Some(time)
    }
}

#[derive(Debug, Default)]
struct State {
    pace: Pace,
    /// Frames wait for their time. Unknown before the first frame.
    waits: Option<bool>,
    frames: u64,
    /// When the last frame came.
    came: Option<Instant>,
    is_stopped: bool,
}

/// The pace of one source, for all pads that its frames come over.
#[derive(Debug)]
pub(super) struct Pacer {
    state: Mutex<State>,
    stopped: Condvar,
    /// From the running time of a live source to the common time.
    live_shift: gst::ClockTime,
}

impl Pacer {
    /// A pacer for a source whose pipeline has a base time so much after the common one. A source that `is_file` always
    /// waits; for others their answer to a latency query decides.
    pub(super) fn new(live_shift: gst::ClockTime, is_file: bool) -> Arc<Self> {
        let state = State { waits: is_file.then_some(true), ..State::default() };
        Arc::new(Self { state: Mutex::new(state), stopped: Condvar::new(), live_shift })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many frames came since the source began, or began again.
    pub(super) fn frames(&self) -> u64 {
        self.lock().frames
    }

    /// How long ago the last frame came; zero before the first one.
    pub(super) fn age(&self) -> Duration {
        self.lock().came.map_or(Duration::ZERO, |came| came.elapsed())
    }

    /// Whether frames wait for their time; false before the first frame of a source that is no file.
    pub(super) fn waits(&self) -> bool {
        self.lock().waits == Some(true)
    }

    /// The source begins again: its next frame is of now.
    pub(super) fn begin_again(&self) {
        let mut state = self.lock();
        (state.pace.shift, state.frames) = (None, 0);
    }

    /// Ends all waiting, for good: the source's thread must be free when its pipeline stops.
    pub(super) fn stop(&self) {
        self.lock().is_stopped = true;
        self.stopped.notify_all();
    }

    /// Returns the common time of a frame, after the wait that the frame's time asks for. `is_live` is asked once.
    fn take(&self, pts: Option<gst::ClockTime>, is_live: impl FnOnce() -> bool) -> Option<gst::ClockTime> {
        // Not under the lock: elements are asked.
        let waits = self.lock().waits;
        let waits = waits.unwrap_or_else(|| !is_live());
        let mut state = self.lock();
        if state.waits.is_none() {
            state.waits = Some(waits);
            state.pace.shift = (!waits).then_some(self.live_shift);
        }
        let now = pipeline::running_time();
        let time = state.pace.time(pts, now)?;
        (state.frames, state.came) = (state.frames + 1, Some(Instant::now()));
        if waits {
            let wait = Duration::from(time.saturating_sub(now));
            drop(self.stopped.wait_timeout_while(state, wait, |state| !state.is_stopped));
        }
        Some(time)
    }
}

/// Whether what comes over a sink pad comes of a live source. Where nobody answers, it is taken to be live.
fn is_live(pad: &gst::Pad) -> bool {
    let mut query = gst::query::Latency::new();
    !pad.peer_query(&mut query) || query.result().0
}

/// Gives every buffer before a sink pad its time on the common base, in one endless segment, whatever the source's own
/// segments are. Tells `first` of the first frame, and `end` of the end, which goes no further.
pub(super) fn retime(pad: &gst::Pad, pacer: Arc<Pacer>, first: Sender<Result<(), Fault>>, end: Sender<()>) {
    let types = gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::BUFFER;
    pad.add_probe(types, move |pad, info| {
        match info.event().map(|event| event.view()) {
            Some(gst::EventView::Segment(new)) => {
                if let Some(new) = new.segment().downcast_ref::<gst::ClockTime>() {
                    pacer.lock().pace.segment = new.clone();
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
            // In the source's own thread, which has nothing else to do than to wait.
            let Some(time) = pacer.take(buffer.pts(), || is_live(pad)) else {
                // Not Drop: on a sink pad GStreamer is then left to free a buffer that the binding has taken.
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

/// Leaves frames out, so that no more than so many come in a second. No frame waits for the next one.
#[derive(Debug)]
struct Thin {
    interval: gst::ClockTime,
    /// When the next frame is due.
    due: Option<gst::ClockTime>,
}

impl Thin {
    fn new(fps: u32) -> Self {
        Self { interval: gst::ClockTime::SECOND / u64::from(fps.max(1)), due: None }
    }

    /// Takes a frame's time; whether the frame goes on. A frame may come early by a quarter of the interval.
    fn take(&mut self, time: gst::ClockTime) -> bool {
        let due = self.due.unwrap_or(time);
        // A source whose time went back begins anew.
        let is_anew = time.saturating_add(2 * self.interval) < due;
        if !is_anew && time.saturating_add(self.interval / 4) < due {
            return false;
        }
        let is_regular = !is_anew && time < due.saturating_add(self.interval);
        self.due = Some(if is_regular { due } else { time }.saturating_add(self.interval));
        true
    }
}

/// The frame rate that encoders are told, for a source's own (a fraction) and the most that is wanted. Elements divide by
/// it and plan bits with it: none at all, 0/1 (variable), and absurd ones are replaced.
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

/// Lets at most so many raw frames a second through a sink pad, and names a sane frame rate in their caps, whatever the
/// source says: videorate of GStreamer 1.22 ends the process at 0/1.
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
        let goes_on = |time| state.lock().unwrap_or_else(PoisonError::into_inner).take(time);
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
    fn a_source_whose_time_goes_back_goes_on_now() {
        crate::media::init().unwrap();
        let mut pace = Pace { shift: Some(ms(0)), ..Pace::default() };
        let mut time = |at, now| pace.time(Some(ms(at)), ms(now)).unwrap();
        // An hour ahead; a little disorder stays as it is.
        assert_eq!(
            [3_600_000, 3_599_900, 3_600_033].map(|at| time(at, 5)),
            [3_600_000, 3_599_900, 3_600_033].map(ms)
        );
        assert_eq!([time(0, 7), time(33, 40)], [ms(7), ms(40)]);
    }

    #[test]
    fn frames_without_a_time_are_of_now_and_those_outside_their_segment_of_no_time() {
        crate::media::init().unwrap();
        let mut pace = Pace::default();
        assert_eq!(pace.time(None, ms(70)), Some(ms(70)));
        pace.segment.set_start(ms(1000));
        assert_eq!(pace.time(Some(ms(10)), ms(80)), None);
        assert_eq!(pace.time(Some(ms(1000)), ms(90)), Some(ms(90)), "the first one is of now");
        assert_eq!(pace.time(Some(ms(1040)), ms(91)), Some(ms(130)));
    }

    #[test]
    fn no_more_frames_than_wanted_and_all_where_there_are_fewer() {
        let passed = |fps, every: u64, count: u64| {
            let mut thin = Thin::new(fps);
            (0..count).filter(|n| thin.take(gst::ClockTime::from_useconds(n * every))).count()
        };
        assert_eq!(passed(30, 16_667, 600), 300, "60 a second");
        assert_eq!(passed(30, 33_333, 300), 300);
        assert_eq!(passed(30, 40_000, 250), 250);
        assert!((299..=302).contains(&passed(30, 25_000, 400)), "40 a second");
        assert!((10..=11).contains(&passed(0, 100_000, 100)), "at least one a second");
        let mut thin = Thin::new(10);
        assert!(thin.take(ms(5000)) && !thin.take(ms(5010)) && thin.take(ms(0)), "it begins anew");
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
        /// Whatever the times, nothing overflows, and what goes on keeps its distance as long as time goes forward.
        #[test]
        fn any_times(times in prop::collection::vec(any::<u64>(), 0..100), fps: u32) {
            let mut thin = Thin::new(fps);
            let mut pace = Pace::default();
            for time in times {
                let time = gst::ClockTime::from_nseconds(time.min(u64::MAX - 1));
                let _ = (thin.take(time), pace.time(Some(time), ms(1)));
            }
        }
    }
}
