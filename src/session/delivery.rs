//! Detects from the peer's receiver reports (RFC 3550, 6.4.2) that media of our side no longer arrives. A path may fail
//! in one direction alone: packets of the peer arrive here, but ours do not arrive there.

use std::time::{Duration, Instant};

/// Time without progress in the peer's reports after which the direction from our side to the peer counts as dead.
pub const DEAD: Duration = Duration::from_secs(8);
/// Minimum number of new reports in that time: without new reports, nothing is known.
const REPORTS: u32 = 3;
/// Minimum number of packets that our side sent in that time.
const PACKETS: u64 = 50;
/// Pause in sending after which the time without progress begins anew: a paused stream cannot make progress.
const PAUSED: Duration = Duration::from_secs(2);
/// Maximum number of streams that are watched at a time; connections send fewer.
const MAX_STREAMS: usize = 16;
/// Time without a new report after which a stream counts as ended: its place is free for another one.
const ENDED: Duration = Duration::from_secs(30);

/// The peer's last report on one stream of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// SSRC of the stream.
    pub source: u32,
    /// Number of packets that our side sent on the stream so far.
    pub sent: u64,
    /// Extended highest sequence number that the peer received.
    pub highest: u32,
    /// Last sender report that the peer received, and the delay since then (LSR and DLSR): the pair differs between any
    /// two reports.
    pub stamp: (u32, u32),
}

/// State of a stream since the last progress.
#[derive(Debug)]
struct Stream {
    /// First report with the current highest sequence number.
    first: Report,
    /// Time of that report.
    since: Instant,
    /// Stamp of the last report.
    stamp: (u32, u32),
    /// Time of the last new report.
    reported: Instant,
    /// Number of new reports since the first one.
    reports: u32,
    /// Number of packets sent by the last report, and the time of the last report at which this number changed.
    sent: (u64, Instant),
    /// Whether the peer reported progress on this path before; a peer that never does may not count packets.
    has_progressed: bool,
}

/// Progress of the streams that this side sends.
#[derive(Debug, Default)]
pub struct Delivery {
    streams: Vec<Stream>,
    /// Time of the last report of progress on any stream: as long as one stream arrives, the path works.
    progress: Option<Instant>,
}

impl Delivery {
    /// Handles a report; ignores one that was handled before. Returns true when our direction of the path is dead, and
    /// then false until the peer reports progress again.
    pub fn handle_report(&mut self, now: Instant, report: Report) -> bool {
        let begin = |has_progressed| Stream {
            first: report,
            since: now,
            stamp: report.stamp,
            reported: now,
            reports: 0,
            sent: (report.sent, now),
            has_progressed,
        };
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.first.source == report.source) else {
            if self.streams.len() >= MAX_STREAMS {
                self.streams.retain(|stream| now < stream.reported + ENDED);
            }
            if self.streams.len() < MAX_STREAMS {
                self.streams.push(begin(false));
            }
            return false;
        };
        if report.stamp != stream.stamp {
            stream.reported = now;
        }
        let mut was_paused = false;
        if report.sent != stream.sent.0 {
            was_paused = stream.sent.1 + PAUSED <= now;
            stream.sent = (report.sent, now);
        }
        // The difference is modulo 2^32. A smaller number belongs to another receiver in the same peer.
        match report.highest.wrapping_sub(stream.first.highest).cast_signed() {
            1.. => {
                *stream = begin(true);
                self.progress = Some(now);
            }
            0 if was_paused => *stream = begin(stream.has_progressed),
            0 => {
                let is_dead = stream.is_dead(now, report) && self.progress.is_none_or(|at| at + DEAD <= now);
                if is_dead {
                    self.streams.clear();
                }
                return is_dead;
            }
            _ => {}
        }
        false
    }
}

impl Stream {
    /// Handles a report without progress; returns whether nothing of this stream arrives any more.
    fn is_dead(&mut self, now: Instant, report: Report) -> bool {
        if self.stamp != report.stamp {
            self.stamp = report.stamp;
            self.reports += 1;
        }
        self.has_progressed
            && self.reports >= REPORTS
            && self.since + DEAD <= now
            && report.sent.saturating_sub(self.first.sent) >= PACKETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reports every second, with the given numbers of sent and received packets; returns after how many seconds our
    /// direction counts as dead.
    fn dead_after(reports: impl Iterator<Item = (u64, u32)>) -> Option<usize> {
        let (mut delivery, start) = (Delivery::default(), Instant::now());
        reports.enumerate().position(|(second, (sent, highest))| {
            let report = Report { source: 7, sent, highest, stamp: (1, second as u32) };
            let now = start + Duration::from_secs(second as u64);
            // Each report is handled twice.
            let again = now + Duration::from_millis(500);
            delivery.handle_report(now, report) || delivery.handle_report(again, report)
        })
    }

    #[test]
    fn a_peer_that_reports_no_progress_while_media_is_sent_does_not_receive() {
        let until = |end: u32| (0..40).map(move |n: u32| (u64::from(n) * 20, n.min(end) * 20));
        assert_eq!(dead_after(until(40)), None);
        assert_eq!(dead_after(until(5)), Some(13));
        // The peer never counted a packet: it may not count at all.
        assert_eq!(dead_after(until(0)), None);
    }

    #[test]
    fn a_stream_that_sends_nothing_is_not_dead() {
        let paused = (0..40).map(|n: u32| (u64::from(n.min(5)) * 20, n.min(5) * 20));
        assert_eq!(dead_after(paused), None);
    }

    #[test]
    fn after_a_pause_the_time_without_progress_begins_anew() {
        // The stream pauses from second 5 to 30; then the peer first repeats its earlier report.
        let sent = |n: u32| u64::from(n.min(5) + n.saturating_sub(30)) * 100;
        let resumed = |late: u32| {
            (0..60).map(move |n: u32| (sent(n), sent(n.min(5).max(n.saturating_sub(late))) as u32))
        };
        assert_eq!(dead_after(resumed(3)), None);
        let silent = (0..60).map(|n: u32| (sent(n), sent(n.min(5)) as u32));
        assert_eq!(dead_after(silent), Some(39));
    }

    #[test]
    fn reports_of_a_second_receiver_are_no_progress() {
        let reports = (0..40)
            .map(|n: u32| (u64::from(n) * 20, if n > 5 && n.is_multiple_of(2) { 7 } else { n.min(5) * 20 }));
        assert!(dead_after(reports).is_some());
    }

    #[test]
    fn without_new_reports_a_direction_is_not_dead() {
        let (mut delivery, start) = (Delivery::default(), Instant::now());
        for second in 0..40 {
            let highest = second.min(5) as u32;
            let report = Report { source: 7, sent: second * 20, highest, stamp: (1, highest) };
            assert!(!delivery.handle_report(start + Duration::from_secs(second), report));
        }
    }

    #[test]
    fn the_path_works_as_long_as_one_stream_arrives() {
        let (mut delivery, start) = (Delivery::default(), Instant::now());
        for second in 0..40 {
            let now = start + Duration::from_secs(second);
            let (sent, arrived) = (second * 50, second.min(5) as u32 * 50);
            for (source, highest) in [(1, arrived), (2, sent as u32)] {
                let report = Report { source, sent, highest, stamp: (1, second as u32) };
                assert!(!delivery.handle_report(now, report), "after {second} s");
            }
        }
    }

    #[test]
    fn a_stream_is_watched_also_after_many_others_have_ended() {
        let (mut delivery, start) = (Delivery::default(), Instant::now());
        for source in 0..MAX_STREAMS as u32 {
            let report = Report { source, sent: 100, highest: 100, stamp: (1, source) };
            assert!(!delivery.handle_report(start, report));
        }
        let later = start + ENDED;
        let dead_at = (0..40).position(|second: u32| {
            let report = Report {
                source: 100,
                sent: u64::from(second) * 20,
                highest: second.min(5) * 20,
                stamp: (1, second),
            };
            delivery.handle_report(later + Duration::from_secs(second.into()), report)
        });
        assert_eq!(dead_at, Some(13));
    }

    #[test]
    fn a_dead_direction_is_reported_once_until_there_is_progress() {
        let reports = (0..40).map(|n: u32| (u64::from(n) * 20, n.min(5)));
        let (mut delivery, start, mut dead) = (Delivery::default(), Instant::now(), 0);
        for (second, (sent, highest)) in reports.enumerate() {
            let report = Report { source: 7, sent, highest, stamp: (1, second as u32) };
            dead += usize::from(delivery.handle_report(start + Duration::from_secs(second as u64), report));
        }
        assert_eq!(dead, 1);
    }
}
