//! The last picture once more: one who comes does not wait for the camera's next one. And time goes on, whatever
//! overtakes what: for a picture from before the last one vp8enc (1.22) throws away what libvpx made of it; where that was a
//! key frame it waits for it for ever, and gives no other.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gst::prelude::*;

/// Keeps the last picture that went over a link.
#[derive(Debug)]
pub(crate) struct Again {
    pad: gst::Pad,
    last: Arc<Mutex<Last>>,
}

#[derive(Debug, Default)]
struct Last {
    picture: Option<(gst::Buffer, Instant)>,
    /// The time of the one that is shown again, until it came.
    again: Option<gst::ClockTime>,
    /// Time of the last frame of the source, as the source gave it.
    given: Option<gst::ClockTime>,
}

impl Last {
    /// A picture that is shown again comes so long after its first time at least.
    const LATER: Duration = Duration::from_millis(1);
    /// A source that goes back by more than that begins anew.
    const ANEW: gst::ClockTime = gst::ClockTime::from_seconds(1);

    /// Returns a new time, right after the newest frame, for a frame of the source that comes long after its own time: a
    /// process that was stopped for a while repeats a frame as soon as it continues, and the source's frames of the time
    /// before follow.
    fn late(&self, pts: gst::ClockTime) -> Option<gst::ClockTime> {
        let newest = self.picture.as_ref().and_then(|(picture, _)| picture.pts())?;
        let is_own = self.again != Some(pts) && self.given.is_some_and(|given| given < pts);
        let is_late = is_own && pts.saturating_add(Self::ANEW) <= newest;
        is_late.then(|| newest + gst::ClockTime::from_nseconds(Self::LATER.as_nanos() as u64))
    }

    /// Accepts a frame as [`Self::take`] does, after it has given a late frame its new time.
    fn accept(&mut self, buffer: &mut gst::Buffer) -> bool {
        let own = buffer.pts();
        let Some(later) = own.and_then(|pts| self.late(pts)) else { return self.take(buffer) };
        buffer.make_mut().set_pts(later);
        let is_taken = self.take(buffer);
        self.given = own;
        is_taken
    }

    /// Takes a picture; whether it goes on: not if it is from before the last one.
    fn take(&mut self, buffer: &gst::Buffer) -> bool {
        let is_again = self.again.is_some() && self.again == buffer.pts();
        if is_again {
            self.again = None;
        }
        let newest = self.picture.as_ref().and_then(|(picture, _)| picture.pts());
        let behind = newest.zip(buffer.pts()).and_then(|(newest, pts)| newest.checked_sub(pts));
        if behind.is_some_and(|behind| is_again || behind < Self::ANEW) {
            return false;
        }
        if !is_again {
            self.given = buffer.pts();
        }
        self.picture = Some((buffer.clone(), Instant::now()));
        true
    }

    /// The last one, as if it were taken now; none where one has come since it was asked for.
    fn again(&mut self, asked: Instant, now: Instant) -> Option<gst::Buffer> {
        let (mut buffer, at) = self.picture.clone().filter(|(_, at)| *at < asked)?;
        let since = now.saturating_duration_since(at).max(Self::LATER);
        self.again = buffer.pts().map(|pts| pts + gst::ClockTime::from_nseconds(since.as_nanos() as u64));
        let copy = buffer.make_mut();
        copy.set_pts(self.again);
        copy.set_dts(gst::ClockTime::NONE);
        Some(buffer)
    }
}

impl Again {
    /// Of what an element gives to the next one.
    pub(crate) fn after(element: &gst::Element) -> Option<Self> {
        let pad = element.static_pad("src")?;
        let last: Arc<Mutex<Last>> = Arc::default();
        let kept = last.clone();
        // There one comes after the other; before the link two could still change places. Not Drop: on a sink pad GStreamer is
        // then left to free a buffer that the binding has taken.
        pad.peer()?.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let mut last = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let is_taken = info.buffer_mut().is_none_or(|buffer| last.accept(buffer));
            if is_taken { gst::PadProbeReturn::Ok } else { gst::PadProbeReturn::Handled }
        });
        Some(Self { pad, last })
    }

    /// Returns the time since the last video frame arrived or was repeated; `None` before the first frame.
    pub(crate) fn age(&self) -> Option<Duration> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.picture.as_ref().map(|(_, at)| at.elapsed())
    }

    /// Gives the last one again, unless another comes first.
    pub(crate) fn show(&self) {
        let (pad, last, asked) = (self.pad.clone(), self.last.clone(), Instant::now());
        // Where it is encoded, which takes its time.
        smol::unblock(move || {
            let again = last.lock().unwrap_or_else(PoisonError::into_inner).again(asked, Instant::now());
            if let Some(Err(error)) = again.map(|buffer| pad.push(buffer)) {
                tracing::debug!("a picture is not shown again: {error}");
            }
        })
        .detach();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_with_the_one_that_is_shown_again() {
        crate::media::gst::init().unwrap();
        let picture = |ms| {
            let mut buffer = gst::Buffer::with_size(1).unwrap();
            buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(ms));
            buffer
        };
        let (mut last, start) = (Last::default(), Instant::now());
        assert!(last.again(start, start).is_none());
        assert!(last.take(&picture(100)));
        assert!(last.again(start, Instant::now()).is_none(), "it came since");
        let mut later = |ms| {
            let now = Instant::now();
            last.again(now, now + Duration::from_millis(ms))
        };
        // One that came just before is not: it is encoded by now, and no key frame.
        assert!(later(0).unwrap().pts().unwrap().mseconds() >= 101);
        let again = later(20).unwrap();
        let time = again.pts().unwrap().mseconds();
        assert!((120..125).contains(&time) && again.size() == 1, "{time}");
        // What was taken before it and comes after it is left out, and what has its time.
        assert!(last.take(&again));
        assert!(![103, 110, time].into_iter().any(|ms| last.take(&picture(ms))));
        assert!(last.take(&picture(133)));
        // So is the one that is shown again, where others overtook it, however long ago.
        let now = Instant::now();
        let late = last.again(now, now + Duration::from_millis(20)).unwrap();
        assert!(last.take(&picture(5000)));
        assert!(!last.take(&late));
        // A source whose time begins anew is not.
        assert!(last.take(&picture(50)));
    }

    /// After a stop of twelve seconds a frame is repeated first, and the source's frames of that time come late.
    #[test]
    fn time_goes_on_after_the_process_was_stopped() {
        crate::media::gst::init().unwrap();
        let picture = |ms| {
            let mut buffer = gst::Buffer::with_size(1).unwrap();
            buffer.get_mut().unwrap().set_pts(gst::ClockTime::from_mseconds(ms));
            buffer
        };
        let (mut last, mut newest) = (Last::default(), gst::ClockTime::ZERO);
        assert!(last.accept(&mut picture(100)));
        let now = Instant::now();
        let mut again = last.again(now, now + Duration::from_secs(12)).unwrap();
        assert!(last.accept(&mut again));
        for ms in (200..20_000).step_by(100) {
            let mut frame = picture(ms);
            if last.accept(&mut frame) {
                assert!(frame.pts().unwrap() > newest, "{ms}");
                newest = frame.pts().unwrap();
            }
        }
        assert_eq!(newest.mseconds(), 19_900);
        assert!(newest > again.pts().unwrap());
    }

    /// With many that come at once, as the camera's pictures do: no encode of a call may stop to give key frames.
    #[test]
    fn time_never_goes_back_however_many_come() {
        crate::media::gst::init().unwrap();
        let pipeline = crate::media::gst::launch::parse(
            "videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=60/1 ! identity name=rate ! \
             identity name=next sleep-time=12000 ! fakesink",
        )
        .unwrap();
        let again = Again::after(&pipeline.by_name("rate").unwrap()).unwrap();
        let times: Arc<Mutex<Vec<gst::ClockTime>>> = Arc::default();
        let seen = times.clone();
        // Within the streaming thread's lock, after the probe of the pictures.
        let next = pipeline.by_name("next").unwrap().static_pad("src").unwrap();
        next.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            seen.lock().unwrap().extend(info.buffer().and_then(|buffer| buffer.pts()));
            gst::PadProbeReturn::Ok
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        for _ in 0..300 {
            again.show();
            std::thread::sleep(Duration::from_millis(3));
        }
        pipeline.set_state(gst::State::Null).unwrap();
        let times = times.lock().unwrap();
        assert!(times.len() > 40, "{}", times.len());
        assert!(times.is_sorted_by(|a, b| a < b), "{times:?}");
    }
}
