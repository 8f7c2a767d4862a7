//! Counts the peer's receiver reports (RFC 3550, 6.4) and the progress that they show.
//!
//! The statistics of an RTP session keep one report block of each source of the peer, so that the block about one stream
//! hides the block about another. A receiver also stops to report on a stream some seconds after its last packet. The
//! reports are therefore counted where they arrive, with and without blocks.
//!
//! A receiver that sends much feedback sends its reports early and without blocks (RFC 4585, 3.5). Its feedback on the
//! transport shows progress as well: it asks for a lost packet once a later one has arrived, and reports arrival times of
//! packets that have arrived.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use gst::prelude::*;

use super::rtcp;
use crate::base::lock::lock;
use crate::media::gst::elements;

/// Maximum number of streams whose numbers are kept. When another one comes, all are forgotten and learnt again from the
/// next reports.
const MAX_STREAMS: usize = 64;
/// Size of the fields between the reporter's SSRC and the first report block of a sender report, in bytes.
const SENDER_INFO: usize = 20;
/// Size of a report block in bytes.
const BLOCK: usize = 24;

/// The receiver reports of a peer so far.
#[derive(Debug, Default)]
pub(crate) struct ReceiverReports {
    /// Number of reports so far, with or without report blocks.
    reports: u64,
    /// Number of reports that named a higher sequence number for a stream than the report before, and of feedback on the
    /// transport.
    progress: u64,
    /// Extended highest sequence number of each pair of a reporter and a stream.
    highest: HashMap<(u32, u32), u32>,
}

impl ReceiverReports {
    /// Counts the reports that arrive at a webrtcbin from now on.
    pub(crate) fn watch(webrtc: &gst::Element) -> Arc<Mutex<Self>> {
        let reports = Arc::new(Mutex::new(Self::default()));
        let shared = reports.clone();
        // Before this element the reports are encrypted.
        elements::on_added(webrtc, &["srtpdec"], move |element| {
            let (reports, Some(pad)) = (shared.clone(), element.static_pad("rtcp_src")) else { return };
            let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
            pad.add_probe(kinds, move |_, info| {
                let handle = |buffer: &gst::BufferRef| {
                    if let Ok(bytes) = buffer.map_readable() {
                        lock(&reports).handle_compound(&bytes);
                    }
                };
                info.buffer().into_iter().for_each(|buffer| handle(buffer));
                info.buffer_list().into_iter().flat_map(|list| list.iter()).for_each(handle);
                gst::PadProbeReturn::Ok
            });
        });
        reports
    }

    /// Returns the number of reports so far, and the number of those that showed progress.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (self.reports, self.progress)
    }

    fn handle_compound(&mut self, compound: &[u8]) {
        for packet in rtcp::packets(compound) {
            let first_block = match packet.kind {
                rtcp::SENDER_REPORT => 4 + SENDER_INFO,
                rtcp::RECEIVER_REPORT => 4,
                rtcp::TRANSPORT_FEEDBACK => {
                    self.progress += 1;
                    continue;
                }
                _ => continue,
            };
            let Some(reporter) = rtcp::word(packet.body, 0) else { continue };
            let blocks = packet.body.get(first_block..).unwrap_or_default().chunks_exact(BLOCK);
            let mut has_progress = false;
            for block in blocks.take(packet.count.into()) {
                if let (Some(source), Some(highest)) = (rtcp::word(block, 0), rtcp::word(block, 8)) {
                    has_progress |= self.is_progress((reporter, source), highest);
                }
            }
            self.reports += 1;
            self.progress += u64::from(has_progress);
        }
    }

    /// Keeps the highest sequence number of a stream; returns whether it is higher than the one before, modulo 2^32.
    fn is_progress(&mut self, stream: (u32, u32), highest: u32) -> bool {
        if self.highest.len() >= MAX_STREAMS && !self.highest.contains_key(&stream) {
            self.highest.clear();
        }
        let before = self.highest.insert(stream, highest);
        before.is_some_and(|before| highest.wrapping_sub(before).cast_signed() > 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A report of one reporter on streams with their highest sequence numbers.
    fn report(kind: u8, reporter: u32, streams: &[(u32, u32)]) -> Vec<u8> {
        let mut body = reporter.to_be_bytes().to_vec();
        if kind == rtcp::SENDER_REPORT {
            body.extend([0; SENDER_INFO]);
        }
        for (source, highest) in streams {
            body.extend([&source.to_be_bytes()[..], &[0; 4], &highest.to_be_bytes(), &[0; 12]].concat());
        }
        let words = u16::try_from(body.len() / 4).unwrap().to_be_bytes();
        [&[0x80 | streams.len() as u8, kind][..], &words, &body].concat()
    }

    #[test]
    fn progress_of_any_stream_in_any_kind_of_report_counts() {
        let mut reports = ReceiverReports::default();
        let mut counts_after = |compound: Vec<u8>| {
            reports.handle_compound(&compound);
            reports.counts()
        };
        let (sr, rr) = (rtcp::SENDER_REPORT, rtcp::RECEIVER_REPORT);
        assert_eq!(counts_after(report(rr, 1, &[(7, 10), (8, 20)])), (1, 0));
        assert_eq!(counts_after(report(rr, 1, &[(7, 10), (8, 21)])), (2, 1));
        assert_eq!(counts_after(report(sr, 1, &[(7, 11), (8, 21)])), (3, 2));
        assert_eq!(counts_after(report(sr, 1, &[(7, 11), (8, 21)])), (4, 2));
        // A report without blocks, as receivers send it when no stream arrives any more.
        assert_eq!(counts_after(report(rr, 1, &[])), (5, 2));
        // A second reporter has numbers of its own.
        assert_eq!(counts_after(report(rr, 2, &[(7, 500)])), (6, 2));
        assert_eq!(counts_after([report(rr, 2, &[(7, 501)]), report(sr, 1, &[])].concat()), (8, 3));
        // A request for a key frame shows no progress, a NACK does.
        assert_eq!(counts_after([report(rr, 1, &[]), report(206, 1, &[])].concat()), (9, 3));
        let nack = report(rtcp::TRANSPORT_FEEDBACK, 1, &[]);
        assert_eq!(counts_after([report(rr, 1, &[]), nack].concat()), (10, 4));
    }

    #[test]
    fn sequence_numbers_wrap() {
        let mut reports = ReceiverReports::default();
        assert!(!reports.is_progress((1, 7), u32::MAX));
        assert!(reports.is_progress((1, 7), 3));
        assert!(!reports.is_progress((1, 7), u32::MAX));
    }

    #[test]
    fn progress_is_seen_after_any_number_of_streams() {
        let mut reports = ReceiverReports::default();
        for source in 0..1000 {
            assert!(!reports.is_progress((1, source), 1));
            assert!(reports.is_progress((1, source), 2));
            assert!(reports.highest.len() <= MAX_STREAMS);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 199_u8..208) {
            let mut reports = ReceiverReports::default();
            reports.handle_compound(&bytes);
            reports.handle_compound(&[&[0x9f, kind, 0, 40][..], &bytes].concat());
        }
    }
}
