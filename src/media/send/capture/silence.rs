//! Detection of running sources that deliver no frames.

use std::sync::Arc;
use std::time::Duration;

use smol::channel::Sender;

use super::end::End;
use super::pace::Pacer;

/// Silence of a live source after which the first report is sent.
const SILENT: Duration = Duration::from_secs(5);
/// Silence after which a network camera counts as unavailable: over UDP there is no other sign of its end.
const GONE: Duration = Duration::from_secs(10);
/// Maximum silence before the next report, for a source that falls silent repeatedly.
const MOST: Duration = Duration::from_secs(300);
/// Interval of the checks.
const INTERVAL: Duration = Duration::from_secs(1);

/// A report about a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Report {
    /// No frame arrived for this long.
    Silent(Duration),
    /// Frames arrive again.
    Back,
}

/// Decides when the silence of a source is reported. Each recovery doubles the silence required for the next report, up
/// to [`MOST`].
#[derive(Debug)]
struct Silence {
    after: Duration,
    is_told: bool,
}

impl Silence {
    fn new() -> Self {
        Self { after: SILENT, is_told: false }
    }

    /// Returns the report that is due, given the age of the last frame.
    fn update(&mut self, age: Duration) -> Option<Report> {
        match (self.is_told, age >= self.after) {
            (false, true) => {
                self.is_told = true;
                Some(Report::Silent(self.after))
            }
            (true, _) if age < SILENT => {
                *self = Self { after: (self.after * 2).min(MOST), is_told: false };
                Some(Report::Back)
            }
            _ => None,
        }
    }
}

/// Watches a live source: reports to `failures` when the source falls silent and when it recovers, and ends a network
/// camera that stays silent. The watch stops at once for a source that is not live, because such a source keeps its own
/// pace.
pub(super) fn watch(
    pacer: Arc<Pacer>,
    (name, is_network): (String, bool),
    failures: Sender<String>,
    over: Sender<End>,
) -> smol::Task<()> {
    smol::spawn(async move {
        let mut silence = Silence::new();
        while !pacer.waits() {
            smol::Timer::after(INTERVAL).await;
            let age = pacer.age();
            if is_network && age >= GONE {
                let _ = over.try_send(End::Stopped(format!("it gives no frames for {} s", GONE.as_secs())));
                return;
            }
            let text = match silence.update(age) {
                Some(Report::Silent(length)) => format!("{name} gives no frames for {} s", length.as_secs()),
                Some(Report::Back) => format!("{name} gives frames again"),
                None => continue,
            };
            let _ = failures.try_send(text);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_source_is_reported_once_each_way_and_more_rarely() {
        let mut silence = Silence::new();
        let mut look = |seconds: u64| silence.update(Duration::from_secs(seconds));
        let silent = |seconds| Some(Report::Silent(Duration::from_secs(seconds)));
        assert_eq!(
            [0, 4, 5, 6, 60, 0, 1].map(&mut look),
            [None, None, silent(5), None, None, Some(Report::Back), None]
        );
        assert_eq!([5, 9, 10, 0].map(&mut look), [None, None, silent(10), Some(Report::Back)]);
        for _ in 0..20 {
            look(3600);
            look(0);
        }
        assert_eq!([299, 300].map(&mut look), [None, silent(300)]);
    }
}
