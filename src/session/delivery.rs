//! Detects from the peer's receiver reports (RFC 3550, 6.4.2) that media of our side no longer arrives. A path may fail
//! in one direction alone: packets of the peer arrive here, but ours do not arrive there.

use std::time::{Duration, Instant};

/// Time without progress in the peer's reports after which the direction from our side to the peer counts as dead.
pub const DEAD: Duration = Duration::from_secs(8);
/// Minimum number of new reports in that time: without new reports, nothing is known.
const REPORTS: u64 = 3;
/// Minimum number of packets that our side sent in that time.
const PACKETS: u64 = 50;
/// Pause in sending after which the time without progress begins anew: paused media cannot make progress.
const PAUSED: Duration = Duration::from_secs(2);

/// Numbers of a connection since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Number of RTP packets that our side sent, of all streams.
    pub sent: u64,
    /// Number of sender and receiver reports of the peer. Those without a block about our streams count too: a receiver
    /// leaves out a stream of which nothing arrives.
    pub reports: u64,
    /// Number of those reports, and of the peer's feedback, that showed the arrival of further packets of any stream.
    pub progress: u64,
}

/// Time since the last progress.
#[derive(Debug)]
struct Standstill {
    /// Report with which that time began.
    first: Report,
    /// Time of that report.
    since: Instant,
    /// Number of packets sent by the last report.
    sent: u64,
    /// Time of the first report with that number, if there were several.
    idle_since: Option<Instant>,
    /// Whether the peer reported progress on this path before; a peer that never does may not count packets.
    has_progressed: bool,
}

/// Progress of the media that our side sends.
#[derive(Debug, Default)]
pub struct Delivery {
    standstill: Option<Standstill>,
}

impl Delivery {
    /// Handles a report. Returns true when our direction of the path is dead, and then false until the peer reports
    /// progress again.
    pub fn handle_report(&mut self, now: Instant, report: Report) -> bool {
        let begin = |has_progressed| Standstill {
            first: report,
            since: now,
            sent: report.sent,
            idle_since: None,
            has_progressed,
        };
        let Some(standstill) = &mut self.standstill else {
            self.standstill = Some(begin(false));
            return false;
        };
        let was_paused = standstill.ends_pause(now, report.sent);
        if report.progress != standstill.first.progress {
            *standstill = begin(true);
        } else if was_paused {
            *standstill = begin(standstill.has_progressed);
        } else if standstill.is_dead(now, report) {
            self.standstill = None;
            return true;
        }
        false
    }
}

impl Standstill {
    /// Handles the number of sent packets; returns whether packets are sent again after a pause. A report that comes late,
    /// from a busy machine, shows no pause.
    fn ends_pause(&mut self, now: Instant, sent: u64) -> bool {
        if sent == self.sent {
            self.idle_since.get_or_insert(now);
            return false;
        }
        self.sent = sent;
        self.idle_since.take().is_some_and(|since| since + PAUSED <= now)
    }

    /// Returns whether nothing of our side arrives any more.
    fn is_dead(&self, now: Instant, report: Report) -> bool {
        self.has_progressed
            && self.since + DEAD <= now
            && report.reports.saturating_sub(self.first.reports) >= REPORTS
            && report.sent.saturating_sub(self.first.sent) >= PACKETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Handles a report every second, with the given numbers of sent packets and of reports with progress; returns after
    /// how many seconds our direction counts as dead.
    fn dead_after(numbers: impl Iterator<Item = (u64, u64)>) -> Option<usize> {
        let (mut delivery, start) = (Delivery::default(), Instant::now());
        numbers.enumerate().position(|(second, (sent, progress))| {
            let report = Report { sent, reports: second as u64, progress };
            let now = start + Duration::from_secs(second as u64);
            // Each report is handled twice.
            let again = now + Duration::from_millis(500);
            delivery.handle_report(now, report) || delivery.handle_report(again, report)
        })
    }

    #[test]
    fn a_peer_that_reports_no_progress_while_media_is_sent_does_not_receive() {
        let until = |end: u64| (0..40).map(move |n: u64| (n * 20, n.min(end)));
        assert_eq!(dead_after(until(40)), None);
        assert_eq!(dead_after(until(5)), Some(13));
        // The peer never counted a packet: it may not count at all.
        assert_eq!(dead_after(until(0)), None);
    }

    #[test]
    fn a_side_that_sends_nothing_is_not_dead() {
        let paused = (0..40).map(|n: u64| (n.min(5) * 20, n.min(5)));
        assert_eq!(dead_after(paused), None);
    }

    #[test]
    fn after_a_pause_the_time_without_progress_begins_anew() {
        // The media pauses from second 5 to 30; then the peer first reports no progress.
        let sent = |n: u64| (n.min(5) + n.saturating_sub(30)) * 100;
        let resumed =
            |late: u64| (0..60).map(move |n: u64| (sent(n), n.min(5) + n.saturating_sub(30 + late)));
        assert_eq!(dead_after(resumed(3)), None);
        let silent = (0..60).map(|n: u64| (sent(n), n.min(5)));
        assert_eq!(dead_after(silent), Some(39));
    }

    #[test]
    fn reports_that_come_late_are_no_pause() {
        let (mut delivery, start) = (Delivery::default(), Instant::now());
        let report = |second: u64| Report { sent: second * 20, reports: second, progress: second.min(6) };
        let mut seconds = (0..60).step_by(3);
        let dead = seconds
            .find(|second| delivery.handle_report(start + Duration::from_secs(*second), report(*second)));
        assert_eq!(dead, Some(15));
    }

    #[test]
    fn without_new_reports_a_direction_is_not_dead() {
        let (mut delivery, start) = (Delivery::default(), Instant::now());
        for second in 0..40 {
            let report = Report { sent: second * 20, reports: second.min(7), progress: second.min(5) };
            assert!(!delivery.handle_report(start + Duration::from_secs(second), report));
        }
    }

    #[test]
    fn a_dead_direction_is_reported_once_until_there_is_progress() {
        let (mut delivery, start, mut dead) = (Delivery::default(), Instant::now(), Vec::new());
        for second in 0..80 {
            let progress = if second < 40 { second.min(5) } else { second.min(45) };
            let report = Report { sent: second * 20, reports: second, progress };
            if delivery.handle_report(start + Duration::from_secs(second), report) {
                dead.push(second);
            }
        }
        assert_eq!(dead, [13, 53]);
    }
}
