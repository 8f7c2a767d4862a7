//! Times of video and audio frames on their way from a source to an encoder: in the common base of all pipelines, and
//! never going back, for any source and any repetitions in between.

use std::time::Duration;

/// Minimum step back that counts as a restart of the source. After a smaller one, frames are only out of order.
const RESTART: gst::ClockTime = gst::ClockTime::from_seconds(1);

/// Minimum time between a frame and its repetition, or a late frame after it.
const STEP: gst::ClockTime = gst::ClockTime::from_mseconds(1);

/// Mapping from a source's time to the common time.
#[derive(Debug, Default)]
pub(super) struct SourceTime {
    pub(super) segment: gst::FormattedSegment<gst::ClockTime>,
    /// Offset from the source's running time to the common time; absent before the first frame, whose time then becomes
    /// now.
    pub(super) shift: Option<gst::ClockTime>,
    /// Common time of the last frame.
    last: Option<gst::ClockTime>,
}

impl SourceTime {
    /// Returns the common time of a frame, given the current common time. A frame without a timestamp gets the current
    /// time. Returns `None` for a frame outside its segment, which must not be shown.
    pub(super) fn time(
        &mut self,
        pts: Option<gst::ClockTime>,
        now: gst::ClockTime,
    ) -> Option<gst::ClockTime> {
        let Some(pts) = pts else {
            self.last = Some(now);
            return Some(now);
        };
        let running = self.segment.to_running_time(pts)?;
        let shift = *self.shift.get_or_insert_with(|| now.saturating_sub(running));
        let mut time = running.saturating_add(shift);
        // Encoders accept no frame older than the last one: a source that restarted continues at the current time.
        if self.last.is_some_and(|last| time.saturating_add(RESTART) < last) {
            (self.shift, time) = (Some(now.saturating_sub(running)), now);
        }
        self.last = Some(time);
        Some(time)
    }
}

/// Times of the frames that passed one link. Frames arrive from the source and, as repetitions of the last one, from
/// another thread, so that they may overtake each other. vp8enc (1.22) discards the output for a frame that is older
/// than the last one; if the discarded output is a key frame, vp8enc waits for that frame for ever and outputs no
/// other.
#[derive(Debug, Default)]
pub(super) struct LinkTime {
    /// Time of the last frame that passed.
    newest: Option<gst::ClockTime>,
    /// Time of a repetition until it passes.
    repeated: Option<gst::ClockTime>,
    /// Time of the last frame of the source, as the source gave it.
    given: Option<gst::ClockTime>,
}

/// Decision on a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// The frame passes, with this time.
    Pass(Option<gst::ClockTime>),
    /// The frame is older than the last one and is dropped.
    Drop,
}

impl LinkTime {
    /// Decides on a frame with this time, and stores the time under which the frame passes.
    pub(super) fn accept(&mut self, pts: Option<gst::ClockTime>) -> Passage {
        if let Some(later) = pts.and_then(|pts| self.late(pts)) {
            (self.newest, self.given) = (Some(later), pts);
            return Passage::Pass(Some(later));
        }
        let is_repetition = self.repeated.is_some() && self.repeated == pts;
        if is_repetition {
            self.repeated = None;
        }
        let behind = self.newest.zip(pts).and_then(|(newest, pts)| newest.checked_sub(pts));
        if behind.is_some_and(|behind| is_repetition || behind < RESTART) {
            return Passage::Drop;
        }
        if !is_repetition {
            self.given = pts;
        }
        self.newest = pts;
        Passage::Pass(pts)
    }

    /// Returns the time of a repetition of the last frame, which passed `since` ago; `None` if that frame had no time.
    pub(super) fn repeat(&mut self, since: Duration) -> Option<gst::ClockTime> {
        let since = gst::ClockTime::try_from(since).unwrap_or(gst::ClockTime::ZERO).max(STEP);
        self.repeated = self.newest.map(|newest| newest.saturating_add(since));
        self.repeated
    }

    /// Returns a new time, right after the newest frame, for a frame of the source that arrives long after its own time:
    /// a process that was stopped for a while repeats a frame as soon as it continues, and the source's frames of the
    /// time before follow.
    fn late(&self, pts: gst::ClockTime) -> Option<gst::ClockTime> {
        let newest = self.newest?;
        let is_own = self.repeated != Some(pts) && self.given.is_some_and(|given| given < pts);
        (is_own && pts.saturating_add(RESTART) <= newest).then(|| newest.saturating_add(STEP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> gst::ClockTime {
        gst::ClockTime::from_mseconds(ms)
    }

    /// Returns the time (ms) under which a frame passes; `None` if it is dropped.
    fn pass(link: &mut LinkTime, at: u64) -> Option<u64> {
        match link.accept(Some(ms(at))) {
            Passage::Pass(time) => Some(time.unwrap().mseconds()),
            Passage::Drop => None,
        }
    }

    #[test]
    fn time_continues_after_a_repeated_frame() {
        let mut link = LinkTime::default();
        assert_eq!(link.repeat(Duration::ZERO), None);
        assert_eq!(pass(&mut link, 100), Some(100));
        assert_eq!(link.repeat(Duration::ZERO), Some(ms(101)));
        assert_eq!(link.repeat(Duration::from_millis(20)), Some(ms(120)));
        assert_eq!(pass(&mut link, 120), Some(120));
        // Frames of the source from before the repetition, and from its very time, are dropped.
        assert_eq!([103, 110, 120].map(|at| pass(&mut link, at)), [None; 3]);
        assert_eq!(pass(&mut link, 133), Some(133));
        // A repetition that was overtaken is dropped however long ago its time is.
        let late = link.repeat(Duration::from_millis(20)).unwrap().mseconds();
        assert_eq!(pass(&mut link, 5000), Some(5000));
        assert_eq!(pass(&mut link, late), None);
        assert_eq!(pass(&mut link, 50), Some(50), "a source that restarts");
    }

    /// After a stop of twelve seconds a frame is repeated first, and the source's frames of that time arrive late.
    #[test]
    fn time_continues_after_the_process_was_stopped() {
        let (mut link, mut newest) = (LinkTime::default(), 0);
        assert_eq!(pass(&mut link, 100), Some(100));
        let repeated = link.repeat(Duration::from_secs(12)).unwrap().mseconds();
        assert_eq!(pass(&mut link, repeated), Some(repeated));
        for at in (200..20_000).step_by(100) {
            if let Some(time) = pass(&mut link, at) {
                assert!(time > newest, "{at}");
                newest = time;
            }
        }
        assert_eq!(newest, 19_900);
    }

    #[test]
    fn a_source_whose_time_jumps_back_continues_now() {
        crate::media::gst::init().unwrap();
        let mut source = SourceTime { shift: Some(ms(0)), ..SourceTime::default() };
        let mut time = |at, now| source.time(Some(ms(at)), ms(now)).unwrap();
        // Times may lie an hour ahead, and small steps back are kept.
        assert_eq!(
            [3_600_000, 3_599_900, 3_600_033].map(|at| time(at, 5)),
            [3_600_000, 3_599_900, 3_600_033].map(ms)
        );
        assert_eq!([time(0, 7), time(33, 40)], [ms(7), ms(40)]);
    }

    #[test]
    fn frames_without_a_time_get_the_current_time() {
        crate::media::gst::init().unwrap();
        let mut source = SourceTime::default();
        assert_eq!(source.time(None, ms(70)), Some(ms(70)));
        source.segment.set_start(ms(1000));
        assert_eq!(source.time(Some(ms(10)), ms(80)), None);
        assert_eq!(source.time(Some(ms(1000)), ms(90)), Some(ms(90)), "the first one is of now");
        assert_eq!(source.time(Some(ms(1040)), ms(91)), Some(ms(130)));
    }
}
