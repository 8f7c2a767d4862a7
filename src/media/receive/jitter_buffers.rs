//! Jitter buffers of a connection, one for each received stream: the retransmissions they request, the time they wait
//! for them, and the lateness of their packets.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::playout_delay::{Delays, Latency, Lateness, PlayoutDelay, Sample};
use crate::base::lock::lock;
use crate::media::gst::pipeline::running_time;
use crate::media::gst::rtp;

/// A jitter buffer.
#[derive(Debug)]
struct Buffer {
    ssrc: u32,
    element: gst::glib::WeakRef<gst::Element>,
    /// Whether lost packets are requested again.
    repairs: AtomicBool,
    /// Number of packets by lateness, since the last sample.
    late: [AtomicU32; Lateness::BUCKETS],
    /// Arrival times of the last packets in ns of the running time, indexed by the low byte of the sequence number.
    arrivals: [AtomicU64; 256],
    requests: Mutex<Requests>,
}

impl Buffer {
    /// Sets the waiting times: buffers with retransmission wait `delays.repair`, all others `delays.playout`.
    fn set(&self, element: &gst::Element, delays: Delays) {
        let repairs = self.repairs.load(Ordering::Relaxed);
        let wait = if repairs { delays.repair } else { delays.playout }.as_millis() as u32;
        if element.property::<u32>("latency") != wait {
            element.set_property("latency", wait);
        }
        element.set_property("rtx-retry-timeout", delays.retry.as_millis() as i32);
    }

    /// Returns the arrival time of the last packet with this number, in ns of the running time.
    fn arrival(&self, number: u16) -> &AtomicU64 {
        &self.arrivals[usize::from(number) % self.arrivals.len()]
    }

    /// Observes the arrival of packets, the retransmission requests, and the lateness of each packet. With
    /// retransmission, a packet's lateness is measured where it leaves the buffer. Without, waiting for lost packets
    /// gains nothing, and the arrival counts.
    fn watch(self: &Arc<Self>, element: &gst::Element) {
        let (Some(sink), Some(src)) = (element.static_pad("sink"), element.static_pad("src")) else { return };
        let buffer = self.clone();
        sink.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(number) = info.buffer().and_then(|packet| number(packet)) {
                let now = running_time();
                buffer.arrival(number).store(now.nseconds(), Ordering::Relaxed);
                lock(&buffer.requests).arrive(now.into(), number);
            }
            gst::PadProbeReturn::Ok
        });
        let buffer = self.clone();
        sink.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
            if let Some(Ok(number)) =
                rtp::retransmission_request(info).map(|request| request.get::<u32>("seqnum"))
            {
                lock(&buffer.requests).request(running_time().into(), number as u16);
            }
            gst::PadProbeReturn::Ok
        });
        let buffer = self.clone();
        src.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let times = info.buffer().and_then(|packet| Some((packet.pts()?, number(packet)?)));
            let Some((due, number)) = times else { return gst::PadProbeReturn::Ok };
            let there = match buffer.repairs.load(Ordering::Relaxed) {
                true => running_time().nseconds(),
                false => buffer.arrival(number).load(Ordering::Relaxed),
            };
            let bucket = Lateness::bucket(Duration::from_nanos(there.saturating_sub(due.nseconds())));
            buffer.late[bucket].fetch_add(1, Ordering::Relaxed);
            gst::PadProbeReturn::Ok
        });
    }
}

/// Open retransmission requests of a stream, and the round trip that the answers show. The jitter buffer's own
/// measurement takes an answer to a first request for an answer to the second, and so requests earlier and earlier.
#[derive(Debug, Default)]
struct Requests {
    /// Sequence number, time of the first request, and whether that was the only one; the oldest first.
    open: VecDeque<(u16, Duration, bool)>,
    trip: Option<Duration>,
}

impl Requests {
    /// Maximum number of open requests that are kept.
    const MOST: usize = 256;

    fn request(&mut self, now: Duration, number: u16) {
        if let Some((_, _, is_first)) = self.open.iter_mut().find(|(open, ..)| *open == number) {
            *is_first = false;
            return;
        }
        if self.open.len() == Self::MOST {
            self.open.pop_front();
        }
        self.open.push_back((number, now, true));
    }

    fn arrive(&mut self, now: Duration, number: u16) {
        let Some(at) = self.open.iter().position(|(open, ..)| *open == number) else { return };
        let Some((_, asked, true)) = self.open.remove(at) else { return };
        let took = now.saturating_sub(asked);
        // Smoothed as in TCP (RFC 6298, 2.3).
        self.trip = Some(self.trip.map_or(took, |trip| (trip * 7 + took) / 8));
    }
}

/// Jitter buffers of one connection.
#[derive(Debug)]
pub(crate) struct JitterBuffers {
    all: Mutex<Vec<Arc<Buffer>>>,
    /// Delays that the buffers have now.
    delays: Mutex<Delays>,
    playout: Mutex<PlayoutDelay>,
}

impl JitterBuffers {
    /// Manages the jitter buffers that this webrtcbin makes from now on.
    pub(crate) fn of(webrtc: &gst::Element, latency: Latency) -> Arc<Self> {
        let playout = PlayoutDelay::new(latency);
        let delays = Mutex::new(playout.delays());
        let buffers = Arc::new(Self { all: Mutex::default(), delays, playout: Mutex::new(playout) });
        let rtpbin = webrtc.downcast_ref::<gst::Bin>().and_then(|bin| bin.by_name("rtpbin"));
        if let Some(rtpbin) = rtpbin {
            let made = buffers.clone();
            rtpbin.connect("new-jitterbuffer", false, move |args| {
                made.add(&args.get(1)?.get().ok()?, args.get(3)?.get().ok()?);
                None
            });
        }
        buffers
    }

    fn add(&self, element: &gst::Element, ssrc: u32) {
        // The first frame must not wait for packets that may have been sent before it.
        element.set_property("faststart-min-packets", 2_u32);
        let buffer = Arc::new(Buffer {
            ssrc,
            element: element.downgrade(),
            repairs: AtomicBool::new(false),
            late: std::array::from_fn(|_| AtomicU32::new(0)),
            arrivals: std::array::from_fn(|_| AtomicU64::new(0)),
            requests: Mutex::default(),
        });
        buffer.watch(element);
        buffer.set(element, self.delays());
        let mut all = lock(&self.all);
        all.retain(|buffer| buffer.element.upgrade().is_some());
        all.push(buffer);
    }

    /// Returns the jitter buffers that still exist. Callers use them without the lock, because a call to one may wait
    /// for another that is being made.
    fn all(&self) -> Vec<(Arc<Buffer>, gst::Element)> {
        lock(&self.all)
            .iter()
            .filter_map(|buffer| Some((buffer.clone(), buffer.element.upgrade()?)))
            .collect()
    }

    /// Reads the statistics of the buffers, and sets the delays that follow from them and from the `round_trip`.
    pub(crate) fn adapt(&self, webrtc: &gst::Element, round_trip: Option<Duration>) {
        let sample = self.sample(round_trip);
        let mut playout = lock(&self.playout);
        self.set(webrtc, playout.update(Instant::now(), sample));
    }

    /// Returns the playout delay in ms; `None` before media is received.
    pub(crate) fn playout_ms(&self) -> Option<u32> {
        (!self.all().is_empty()).then(|| self.delays().playout.as_millis() as u32)
    }

    /// Requests retransmissions for the stream that leaves over `pad` if that was agreed. webrtcbin (1.22) looks at the
    /// last m-line of a bundle alone, and requests nothing if that is audio.
    pub(crate) fn request_retransmissions(&self, pad: &gst::Pad) {
        let caps = pad.current_caps();
        let Some(stream) = caps.as_ref().and_then(|caps| caps.structure(0)) else { return };
        let (Ok(ssrc), Ok(true)) = (stream.get::<u32>("ssrc"), stream.get::<bool>("rtcp-fb-nack")) else {
            return;
        };
        for (buffer, element) in self.all().into_iter().filter(|(buffer, _)| buffer.ssrc == ssrc) {
            element.set_property("do-retransmission", true);
            // More requests, or requests for late packets, would fill a congested path further.
            element.set_property("rtx-max-retries", 3_i32);
            if element.has_property("rtx-next-seqnum") {
                element.set_property("rtx-next-seqnum", false);
            }
            buffer.repairs.store(true, Ordering::Relaxed);
            buffer.set(&element, self.delays());
        }
    }

    /// Sets the delays of all buffers; a changed playout delay makes the pipeline recalculate its latency.
    fn set(&self, webrtc: &gst::Element, delays: Delays) {
        let before = {
            let mut now = lock(&self.delays);
            std::mem::replace(&mut *now, delays)
        };
        for (buffer, element) in self.all() {
            buffer.set(&element, delays);
        }
        if delays.playout != before.playout {
            let _ = webrtc.post_message(gst::message::Latency::builder().src(webrtc).build());
        }
    }

    /// Returns the delays that the buffers have now.
    fn delays(&self) -> Delays {
        *lock(&self.delays)
    }

    /// Reports [`Delays::playout`] as the latency to the consumers of `pad`, not the longer wait for retransmissions: a
    /// frame that needed one is shown late, and the next one on time.
    pub(crate) fn report_playout_delay(self: &Arc<Self>, pad: &gst::Pad) {
        let buffers = Arc::downgrade(self);
        pad.add_probe(gst::PadProbeType::QUERY_UPSTREAM | gst::PadProbeType::PULL, move |_, info| {
            if let Some(gst::QueryViewMut::Latency(latency)) = info.query_mut().map(|query| query.view_mut())
                && let Some(buffers) = buffers.upgrade()
            {
                let (live, _, most) = latency.result();
                let playout = gst::ClockTime::from_nseconds(buffers.delays().playout.as_nanos() as u64);
                latency.set(live, playout, most.map(|most| most.max(playout)));
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Reads the statistics of the buffers since the last call.
    fn sample(&self, round_trip: Option<Duration>) -> Sample {
        let mut all = Sample { round_trip, ..Sample::default() };
        for (buffer, element) in self.all() {
            let stats = element.property::<gst::Structure>("stats");
            let number = |name: &str| stats.get::<u64>(name).unwrap_or_default();
            all.jitter = all.jitter.max(Duration::from_nanos(number("avg-jitter")));
            let repairs = buffer.repairs.load(Ordering::Relaxed);
            let late = if repairs { &mut all.video } else { &mut all.audio };
            for (bucket, count) in buffer.late.iter().enumerate() {
                late.add(bucket, count.swap(0, Ordering::Relaxed));
            }
            if !repairs {
                all.too_late += number("num-late");
            }
            all.round_trip = all.round_trip.max(lock(&buffer.requests).trip);
        }
        all
    }

    /// Returns the numbers of requested and of recovered packets.
    pub(crate) fn retransmissions(&self) -> (u64, u64) {
        let mut all = (0, 0);
        for (_, element) in self.all() {
            let stats = element.property::<gst::Structure>("stats");
            let number = |name: &str| stats.get::<u64>(name).unwrap_or_default();
            all = (all.0 + number("rtx-count"), all.1 + number("rtx-success-count"));
        }
        all
    }
}

/// Returns a packet's sequence number (RFC 3550, 5.1).
fn number(packet: &gst::BufferRef) -> Option<u16> {
    let mut number = [0; 2];
    packet.copy_to_slice(2, &mut number).is_ok().then(|| u16::from_be_bytes(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_request_measures_the_round_trip() {
        const MS: Duration = Duration::from_millis(1);
        let mut requests = Requests::default();
        requests.request(Duration::ZERO, 7);
        requests.arrive(100 * MS, 8);
        assert_eq!(requests.trip, None, "nobody asked for that");
        requests.arrive(100 * MS, 7);
        assert_eq!(requests.trip, Some(100 * MS));
        // The answer to the first request arrives just after the second request.
        requests.request(200 * MS, 9);
        requests.request(299 * MS, 9);
        requests.arrive(300 * MS, 9);
        assert_eq!(requests.trip, Some(100 * MS));
        requests.request(400 * MS, 10);
        requests.arrive(580 * MS, 10);
        assert_eq!(requests.trip, Some(110 * MS));
        // A peer never answers.
        (0..=u16::MAX).for_each(|number| requests.request(1000 * MS, number));
        assert_eq!(requests.open.len(), Requests::MOST);
    }

    #[test]
    fn only_buffers_with_retransmission_wait_for_repair() {
        crate::media::gst::init().unwrap();
        let webrtc = gst::ElementFactory::make("webrtcbin").build().unwrap();
        let ms = Duration::from_millis;
        let delays = |playout, repair| Delays { playout: ms(playout), repair: ms(repair), retry: ms(145) };
        let buffers = JitterBuffers::of(&webrtc, Latency::Auto);
        buffers.set(&webrtc, delays(10, 360));
        let make = || gst::ElementFactory::make("rtpjitterbuffer").build().unwrap();
        let (video, audio) = (make(), make());
        buffers.add(&video, 1);
        buffers.add(&audio, 2);
        assert_eq!(audio.property::<u32>("latency"), 10);
        lock(&buffers.all)[0].repairs.store(true, Ordering::Relaxed);
        buffers.set(&webrtc, delays(30, 400));
        let latency = |buffer: &gst::Element| buffer.property::<u32>("latency");
        assert_eq!((latency(&video), latency(&audio)), (400, 30));
        assert_eq!(video.property::<i32>("rtx-retry-timeout"), 145);
        assert_eq!(buffers.delays().playout, ms(30));
    }
}
