//! Bounds the sources (SSRCs, RFC 3550, 3) of a peer on one connection.
//!
//! Each new source allocates state in `srtpdec`, in libsrtp and in the RTP session before anything is known of the
//! source, and much of that state stays until the connection ends. A peer may use another source in each packet.
//! Packets of sources beyond the bound are therefore dropped before these elements, which is possible because the
//! source is not encrypted in SRTP and SRTCP (RFC 3711, 3.1 and 3.4).

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gst::prelude::*;

use super::rtcp::{self, word};
use crate::base::lock::lock;
use crate::media::gst::elements;
use crate::media::gst::pipeline::running_time;

/// Maximum number of sources at a time; a stream and its retransmissions have one each.
const MAX_AT_A_TIME: usize = 64;

/// Maximum number of sources over the life of a connection. Each costs a few kilobytes until the connection ends.
const MAX_IN_ALL: usize = 1024;

/// Silence after which a source may be replaced by another one.
const IDLE: Duration = Duration::from_secs(30);

/// The admitted sources of a connection.
#[derive(Debug, Default)]
struct Sources {
    /// Time of the last packet of each source.
    known: HashMap<u32, Duration>,
    /// Number of sources admitted so far.
    admitted: usize,
}

impl Sources {
    /// Returns whether a packet of this source is admitted now.
    fn admit(&mut self, now: Duration, ssrc: u32) -> bool {
        if let Some(last) = self.known.get_mut(&ssrc) {
            *last = now;
            return true;
        }
        if self.admitted == MAX_IN_ALL {
            return false;
        }
        if self.known.len() == MAX_AT_A_TIME {
            let oldest = self.known.iter().min_by_key(|(_, last)| **last).map(|(ssrc, last)| (*ssrc, *last));
            match oldest {
                Some((ssrc, last)) if now.saturating_sub(last) >= IDLE => self.known.remove(&ssrc),
                _ => return false,
            };
        }
        self.admitted += 1;
        self.known.insert(ssrc, now);
        true
    }

    /// Returns whether all these sources are admitted.
    fn admit_all(&mut self, now: Duration, ssrcs: impl IntoIterator<Item = u32>) -> bool {
        ssrcs.into_iter().all(|ssrc| self.admit(now, ssrc))
    }
}

/// Drops packets of sources beyond [`MAX_AT_A_TIME`] and [`MAX_IN_ALL`] before they reach SRTP and the RTP session.
pub(crate) fn bound(webrtc: &gst::Element) {
    let sources = Arc::new(Mutex::new(Sources::default()));
    let is_reported = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let admits = move |named: Option<Vec<u32>>| {
        let Some(named) = named else { return true };
        let now = Duration::from(running_time());
        let is_admitted = lock(&sources).admit_all(now, named);
        if !is_admitted && !is_reported.swap(true, std::sync::atomic::Ordering::Relaxed) {
            tracing::warn!(
                "a peer uses too many RTP sources (at most {MAX_AT_A_TIME} at a time, {MAX_IN_ALL} in all): packets of further ones are dropped"
            );
        }
        is_admitted
    };
    let admits = Arc::new(admits);
    let reports = admits.clone();
    elements::on_added(webrtc, &["nicesrc"], move |element| {
        if let Some(pad) = element.static_pad("src") {
            let admits = admits.clone();
            filter(&pad, move |bytes| admits(of_encrypted(bytes)));
        }
    });
    // SSRCs inside RTCP reports are encrypted up to this element.
    elements::on_added(webrtc, &["srtpdec"], move |element| {
        if let Some(pad) = element.static_pad("rtcp_src") {
            let admits = reports.clone();
            filter(&pad, move |bytes| admits(of_reports(bytes)));
        }
    });
}

/// Drops the packets and list entries at a pad that `admits` rejects.
fn filter(pad: &gst::Pad, admits: impl Fn(&[u8]) -> bool + Send + Sync + 'static) {
    let is_admitted = move |buffer: &gst::BufferRef| buffer.map_readable().is_ok_and(|bytes| admits(&bytes));
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, info| {
        if let Some(buffer) = info.buffer() {
            return if is_admitted(buffer) { gst::PadProbeReturn::Ok } else { gst::PadProbeReturn::Drop };
        }
        let Some(list) = info.buffer_list_mut().filter(|list| !list.iter().all(&is_admitted)) else {
            return gst::PadProbeReturn::Ok;
        };
        list.make_mut()
            .foreach_mut(|buffer, _| std::ops::ControlFlow::Continue(is_admitted(&buffer).then_some(buffer)));
        if list.is_empty() { gst::PadProbeReturn::Drop } else { gst::PadProbeReturn::Ok }
    });
}

/// Returns the sources named in the clear part of a packet, with the contributing ones (CSRCs); `None` if the packet is
/// neither RTP nor RTCP.
fn of_encrypted(packet: &[u8]) -> Option<Vec<u32>> {
    let [first @ 128..192, second, ..] = packet else { return None };
    // Range of the second byte that marks RTCP (RFC 5761, 4).
    if (192..224).contains(second) {
        return Some(word(packet, 4).into_iter().collect());
    }
    let mixed = usize::from(first & 0x0f);
    Some((0..=mixed).filter_map(|n| word(packet, 8 + 4 * n)).collect())
}

/// Returns the sources that RTCP reports introduce, over all packets of a compound (RFC 3550, 6.1).
fn of_reports(compound: &[u8]) -> Option<Vec<u32>> {
    let mut named = Vec::new();
    for packet in rtcp::packets(compound) {
        match packet.kind {
            rtcp::SDES => named.extend(of_descriptions(packet.body, packet.count)),
            rtcp::BYE => {}
            _ => named.extend(word(packet.body, 0)),
        }
    }
    Some(named)
}

/// Returns the sources of the chunks of an SDES packet (RFC 3550, 6.5).
fn of_descriptions(mut chunks: &[u8], count: u8) -> Vec<u32> {
    let mut named = Vec::new();
    for _ in 0..count {
        let Some(ssrc) = word(chunks, 0) else { break };
        named.push(ssrc);
        // Items have a type, a length and a text, and end with a null byte; the next chunk starts at the next 32-bit
        // word.
        let mut end = 4;
        while let Some([kind, length]) = chunks.get(end..end + 2)
            && *kind != 0
        {
            end += 2 + usize::from(*length);
        }
        chunks = chunks.get((end + 1).next_multiple_of(4)..).unwrap_or_default();
    }
    named
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sources_beyond_the_bound_are_dropped_until_others_are_silent() {
        let (mut sources, start) = (Sources::default(), Duration::from_secs(5));
        assert!(sources.admit_all(start, 0..MAX_AT_A_TIME as u32));
        assert!(!sources.admit(start, 1000));
        let later = start + IDLE / 2;
        assert!(sources.admit_all(later, 1..MAX_AT_A_TIME as u32));
        assert!(!sources.admit(later, 1000));
        // Another source replaces the silent one, which is rejected when it resumes.
        assert!(sources.admit(start + IDLE, 1000));
        assert!(!sources.admit(start + IDLE, 0));
    }

    #[test]
    fn a_flood_gets_a_bounded_number_of_sources() {
        let mut sources = Sources::default();
        let admitted =
            (0..1_000_000_u32).filter(|n| sources.admit(Duration::from_millis(u64::from(*n) * 10), *n));
        assert_eq!(admitted.count(), MAX_IN_ALL);
        assert_eq!(sources.known.len(), MAX_AT_A_TIME);
    }

    #[test]
    fn sources_are_read_from_rtp_and_rtcp_packets() {
        let word = |n: u32| n.to_be_bytes();
        let rtp = [&[0x82, 96, 0, 1][..], &word(0), &word(7), &word(8), &word(9), b"payload"].concat();
        assert_eq!(of_encrypted(&rtp), Some(vec![7, 8, 9]));
        assert_eq!(of_encrypted(&rtp[..18]), Some(vec![7, 8]));
        let report = [&[0x80, 201, 0, 1][..], &word(5)].concat();
        assert_eq!(of_encrypted(&report), Some(vec![5]));
        // A DTLS packet names no sources.
        assert_eq!(of_encrypted(&[22, 254, 253, 0]), None);
        let names =
            [&[0x82, 202, 0, 5][..], &word(6), &[1, 2, b'a', b'b'], &[0; 4], &word(7), &[1, 1, b'c', 0]];
        let compound = [report, names.concat(), [&[0x81, 203, 0, 1][..], &word(8)].concat()].concat();
        assert_eq!(of_reports(&compound), Some(vec![5, 6, 7]));
    }

    proptest! {
        #[test]
        fn arbitrary_packets_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            of_encrypted(&bytes);
            of_reports(&bytes);
        }
    }
}
