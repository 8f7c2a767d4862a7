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
    /// Whether retransmissions of lost packets are requested.
    has_nack: AtomicBool,
    /// Number of packets by lateness, since the last sample.
    late: [AtomicU32; Lateness::BUCKETS],
    /// Number of packets that arrived after the buffer had skipped them, up to the last sample.
    too_late: AtomicU64,
    /// Arrival times of the last packets in ns of the running time, indexed by the low byte of the sequence number.
    arrivals: [AtomicU64; 256],
    requests: Mutex<Requests>,
}

impl Buffer {
    /// Sets how long the buffer holds packets behind a missing one: with NACK `delays.repair`, else `delays.playout`.
    fn set_delays(&self, element: &gst::Element, delays: Delays) {
        let has_nack = self.has_nack.load(Ordering::Relaxed);
        let wait = if has_nack { delays.repair } else { delays.playout }.as_millis() as u32;
        if element.property::<u32>("latency") != wait {
            element.set_property("latency", wait);
        }
        element.set_property("rtx-retry-timeout", delays.retry.as_millis() as i32);
    }

    /// Returns the place for the arrival time of the last packet with this sequence number.
    fn arrival_slot(&self, number: u16) -> &AtomicU64 {
        &self.arrivals[usize::from(number) % self.arrivals.len()]
    }

    /// Observes the arrival of packets, the retransmission requests, and the lateness of each packet. With NACK, a packet's
    /// lateness is measured where the packet leaves the buffer. Without, no lost packet will come, and the lateness is
    /// measured on arrival.
    fn watch(self: &Arc<Self>, element: &gst::Element) {
        let (Some(sink), Some(src)) = (element.static_pad("sink"), element.static_pad("src")) else { return };
        let buffer = self.clone();
        sink.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(number) = info.buffer().and_then(|packet| sequence_number(packet)) {
                let now = running_time();
                buffer.arrival_slot(number).store(now.nseconds(), Ordering::Relaxed);
                lock(&buffer.requests).note_arrival(now.into(), number);
            }
            gst::PadProbeReturn::Ok
        });
        let buffer = self.clone();
        sink.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
            if let Some(Ok(number)) =
                rtp::retransmission_request(info).map(|request| request.get::<u32>("seqnum"))
            {
                lock(&buffer.requests).note_request(running_time().into(), number as u16);
            }
            gst::PadProbeReturn::Ok
        });
        let buffer = self.clone();
        src.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let times = info.buffer().and_then(|packet| Some((packet.pts()?, sequence_number(packet)?)));
            let Some((expected, number)) = times else { return gst::PadProbeReturn::Ok };
            let arrived = match buffer.has_nack.load(Ordering::Relaxed) {
                true => running_time().nseconds(),
                false => buffer.arrival_slot(number).load(Ordering::Relaxed),
            };
            let bucket = Lateness::bucket(Duration::from_nanos(arrived.saturating_sub(expected.nseconds())));
            buffer.late[bucket].fetch_add(1, Ordering::Relaxed);
            gst::PadProbeReturn::Ok
        });
    }
}

/// Open retransmission requests of a stream, and the round trip that the answers show. Packets that were requested twice
/// do not count (Karn's algorithm, RFC 6298, 3). The jitter buffer's own measurement takes an answer to a first request
/// for an answer to the second, and so requests earlier and earlier.
#[derive(Debug, Default)]
struct Requests {
    /// The oldest first.
    open: VecDeque<Request>,
    round_trip: Option<Duration>,
}

#[derive(Debug)]
struct Request {
    sequence_number: u16,
    /// Time of the first request for this packet.
    first_at: Duration,
    /// Whether that was the only request.
    is_only: bool,
}

impl Requests {
    /// Maximum number of open requests that are kept.
    const MOST: usize = 256;

    fn note_request(&mut self, now: Duration, sequence_number: u16) {
        if let Some(open) = self.open.iter_mut().find(|open| open.sequence_number == sequence_number) {
            open.is_only = false;
            return;
        }
        if self.open.len() == Self::MOST {
            self.open.pop_front();
        }
        self.open.push_back(Request { sequence_number, first_at: now, is_only: true });
    }

    fn note_arrival(&mut self, now: Duration, sequence_number: u16) {
        let place = self.open.iter().position(|open| open.sequence_number == sequence_number);
        let request = place.and_then(|at| self.open.remove(at)).filter(|request| request.is_only);
        let Some(request) = request else { return };
        let took = now.saturating_sub(request.first_at);
        // Smoothed as in TCP (RFC 6298, 2.3).
        self.round_trip = Some(self.round_trip.map_or(took, |trip| (trip * 7 + took) / 8));
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
    pub(crate) fn manage(webrtc: &gst::Element, latency: Latency) -> Arc<Self> {
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
            has_nack: AtomicBool::new(false),
            late: std::array::from_fn(|_| AtomicU32::new(0)),
            too_late: AtomicU64::new(0),
            arrivals: std::array::from_fn(|_| AtomicU64::new(0)),
            requests: Mutex::default(),
        });
        buffer.watch(element);
        buffer.set_delays(element, self.delays());
        let mut all = lock(&self.all);
        all.retain(|buffer| buffer.element.upgrade().is_some());
        all.push(buffer);
    }

    /// Returns the jitter buffers that still exist. Callers use them without the lock on `all`: a call to a buffer may wait
    /// for a lock of rtpbin, which is held while rtpbin makes another buffer and [`JitterBuffers::add`] takes the lock.
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
        self.set_delays(webrtc, playout.update(Instant::now(), sample));
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
            // More requests, or requests for packets that are not known to be lost, would fill a congested path further.
            element.set_property("rtx-max-retries", 3_i32);
            if element.has_property("rtx-next-seqnum") {
                element.set_property("rtx-next-seqnum", false);
            }
            buffer.has_nack.store(true, Ordering::Relaxed);
            buffer.set_delays(&element, self.delays());
        }
    }

    /// Sets the delays of all buffers; a changed playout delay makes the pipeline recalculate its latency.
    fn set_delays(&self, webrtc: &gst::Element, delays: Delays) {
        let before = {
            let mut now = lock(&self.delays);
            std::mem::replace(&mut *now, delays)
        };
        for (buffer, element) in self.all() {
            buffer.set_delays(&element, delays);
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
        // PULL: after webrtcbin has answered the query.
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

    /// Returns the measurements of the buffers: jitter and round trip as they are now, numbers of packets since the last
    /// call.
    fn sample(&self, round_trip: Option<Duration>) -> Sample {
        let mut all = Sample { round_trip, ..Sample::default() };
        for (buffer, element) in self.all() {
            let stats = element.property::<gst::Structure>("stats");
            let statistic = |name: &str| stats.get::<u64>(name).unwrap_or_default();
            all.jitter = all.jitter.max(Duration::from_nanos(statistic("avg-jitter")));
            let has_nack = buffer.has_nack.load(Ordering::Relaxed);
            let late = if has_nack { &mut all.with_nack } else { &mut all.without_nack };
            for (bucket, count) in buffer.late.iter().enumerate() {
                late.add(bucket, count.swap(0, Ordering::Relaxed));
            }
            if !has_nack {
                let too_late = statistic("num-late");
                all.too_late += too_late.saturating_sub(buffer.too_late.swap(too_late, Ordering::Relaxed));
            }
            all.round_trip = all.round_trip.max(lock(&buffer.requests).round_trip);
        }
        all
    }

    /// Returns the numbers of requested and of recovered packets.
    pub(crate) fn retransmissions(&self) -> (u64, u64) {
        let mut all = (0, 0);
        for (_, element) in self.all() {
            let stats = element.property::<gst::Structure>("stats");
            let statistic = |name: &str| stats.get::<u64>(name).unwrap_or_default();
            all = (all.0 + statistic("rtx-count"), all.1 + statistic("rtx-success-count"));
        }
        all
    }
}

/// Returns a packet's sequence number (RFC 3550, 5.1).
fn sequence_number(packet: &gst::BufferRef) -> Option<u16> {
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
        requests.note_request(Duration::ZERO, 7);
        requests.note_arrival(100 * MS, 8);
        assert_eq!(requests.round_trip, None, "nobody asked for that");
        requests.note_arrival(100 * MS, 7);
        assert_eq!(requests.round_trip, Some(100 * MS));
        // The answer to the first request arrives just after the second request.
        requests.note_request(200 * MS, 9);
        requests.note_request(299 * MS, 9);
        requests.note_arrival(300 * MS, 9);
        assert_eq!(requests.round_trip, Some(100 * MS));
        requests.note_request(400 * MS, 10);
        requests.note_arrival(580 * MS, 10);
        assert_eq!(requests.round_trip, Some(110 * MS));
        // A peer never answers.
        (0..=u16::MAX).for_each(|number| requests.note_request(1000 * MS, number));
        assert_eq!(requests.open.len(), Requests::MOST);
    }

    #[test]
    fn only_buffers_with_retransmission_wait_for_repair() {
        crate::media::gst::init().unwrap();
        let webrtc = gst::ElementFactory::make("webrtcbin").build().unwrap();
        let ms = Duration::from_millis;
        let delays = |playout, repair| Delays { playout: ms(playout), repair: ms(repair), retry: ms(145) };
        let buffers = JitterBuffers::manage(&webrtc, Latency::Auto);
        buffers.set_delays(&webrtc, delays(10, 360));
        let make = || gst::ElementFactory::make("rtpjitterbuffer").build().unwrap();
        let (video, audio) = (make(), make());
        buffers.add(&video, 1);
        buffers.add(&audio, 2);
        assert_eq!(audio.property::<u32>("latency"), 10);
        lock(&buffers.all)[0].has_nack.store(true, Ordering::Relaxed);
        buffers.set_delays(&webrtc, delays(30, 400));
        let latency = |buffer: &gst::Element| buffer.property::<u32>("latency");
        assert_eq!((latency(&video), latency(&audio)), (400, 30));
        assert_eq!(video.property::<i32>("rtx-retry-timeout"), 145);
        assert_eq!(buffers.delays().playout, ms(30));
    }
}
