//! Fast retransmission of DTLS handshakes. OpenSSL retransmits after 1, 2, 4 and 8 s, too late for a call; browsers
//! start with 50 ms (RFC 6347, 4.2.4.1).

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;

use crate::base::lock::lock;
use crate::base::tasks::Tasks;
use crate::media::gst::{elements, rtp};

/// Times of the retransmissions after a datagram was sent; later ones are left to OpenSSL. A peer that has the datagram
/// drops the copy as a replay (RFC 6347, 4.1.2.6).
const REPEATS: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
];
/// Maximum number of datagrams of one sink that are being repeated; a flight has a few.
const MAX_COPIES: usize = 64;
/// Minimum pause between two flights. A new flight means that the last one was answered or abandoned.
const PAUSE: Duration = Duration::from_millis(20);
/// Mark of retransmitted datagrams, as a buffer's offset.
const REPEATED: u64 = 0x6474_6c73;

/// Flights of one handshake.
#[derive(Debug, Default)]
struct Flights {
    number: u64,
    last: Option<Instant>,
}

impl Flights {
    /// Accepts a datagram of the handshake; returns the number of its flight.
    fn accept(&mut self, now: Instant) -> u64 {
        let follows = self.last.is_some_and(|last| now.saturating_duration_since(last) < PAUSE);
        self.number += u64::from(!follows);
        self.last = Some(now);
        self.number
    }
}

/// Returns whether a datagram belongs to a handshake: record type handshake or change_cipher_spec (RFC 6347, 4.1).
fn is_handshake(buffer: &gst::BufferRef) -> bool {
    matches!(rtp::first_byte(buffer), Some(20 | 22))
}

/// Retransmits the handshakes of a webrtcbin at its network sinks.
pub(crate) fn repeat_handshakes(webrtc: &gst::Element) {
    elements::on_added(webrtc, &["nicesink"], |element| {
        element.static_pad("sink").iter().for_each(repeat);
    });
}

fn repeat(pad: &gst::Pad) {
    let flights = Arc::new(Mutex::new(Flights::default()));
    let copies = Tasks::new(MAX_COPIES);
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let Some(buffer) = info.buffer() else { return gst::PadProbeReturn::Ok };
        if buffer.offset() == REPEATED || !is_handshake(buffer) {
            return gst::PadProbeReturn::Ok;
        }
        let flight = lock(&flights).accept(Instant::now());
        let (pad, mut buffer, flights) = (pad.downgrade(), buffer.copy(), flights.clone());
        buffer.make_mut().set_offset(REPEATED);
        copies.spawn(async move {
            let mut waited = Duration::ZERO;
            for at in REPEATS {
                smol::Timer::after(at - waited).await;
                waited = at;
                let Some(pad) = pad.upgrade().filter(|_| lock(&flights).number == flight) else { return };
                let buffer = buffer.clone();
                // The sink may be busy with another buffer, so a thread waits for it.
                if smol::unblock(move || pad.chain(buffer)).await.is_err() {
                    return;
                }
            }
        });
        gst::PadProbeReturn::Ok
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::gst::launch;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn datagrams_sent_together_are_one_flight() {
        let (mut flights, start) = (Flights::default(), Instant::now());
        let numbers = [0, 5, 12, 60, 61, 1060].map(|ms| flights.accept(start + ms * MS));
        assert_eq!(numbers, [1, 1, 1, 2, 2, 3]);
    }

    #[test]
    fn only_handshakes_are_repeated_until_the_next_flight() {
        crate::media::gst::init().unwrap();
        let pipeline = launch::parse("appsrc name=in ! fakesink name=out sync=false async=false").unwrap();
        let appsrc: gst_app::AppSrc = launch::by_name(&pipeline, "in").unwrap();
        let pad = launch::by_name::<gst::Element>(&pipeline, "out").unwrap().static_pad("sink").unwrap();
        repeat(&pad);
        let seen = Arc::new(Mutex::new(vec![]));
        let all = seen.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            all.lock().unwrap().push(info.buffer().unwrap().map_readable().unwrap().to_vec());
            gst::PadProbeReturn::Ok
        });
        pipeline.set_state(gst::State::Playing).unwrap();
        let send = |bytes: &[u8]| {
            appsrc.push_buffer(gst::Buffer::from_slice(bytes.to_vec())).unwrap();
        };
        let count = |bytes: &[u8]| seen.lock().unwrap().iter().filter(|sent| *sent == bytes).count();
        let wait = |bytes: &[u8], many| {
            let until = Instant::now() + Duration::from_secs(60);
            while count(bytes) < many {
                assert!(Instant::now() < until, "{bytes:?}: {} of {many}", count(bytes));
                std::thread::sleep(MS);
            }
        };
        let (hello, other, data, media) = ([22, 1], [22, 2], [23, 3], [128, 4]);
        send(&hello);
        wait(&hello, 2);
        send(&other);
        wait(&other, 1);
        let before = count(&hello);
        send(&data);
        send(&media);
        wait(&other, 1 + REPEATS.len());
        // These come from another thread than the repetitions.
        wait(&data, 1);
        wait(&media, 1);
        // A copy may have been sent already.
        assert!(count(&hello) <= before + 1, "{} after {before}", count(&hello));
        assert_eq!([count(&data), count(&media)], [1, 1]);
        pipeline.set_state(gst::State::Null).unwrap();
    }
}
