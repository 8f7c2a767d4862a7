//! Sources that run and give no frames.

use std::sync::Arc;
use std::time::Duration;

use smol::channel::Sender;

use super::End;
use super::pace::Pacer;

/// A live source without frames for so long is told of.
const SILENT: Duration = Duration::from_secs(5);
/// A camera in the network without frames for so long is taken to be gone: with UDP nothing else tells.
const GONE: Duration = Duration::from_secs(10);
/// The longest silence before the next report of a source that falls silent again and again.
const MOST: Duration = Duration::from_secs(300);
/// The pause between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// What is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Report {
    /// No frame came for so long.
    Silent(Duration),
    /// Frames come again.
    Back,
}

/// Whether a source's silence is to be told. Each report doubles the silence that the next one takes.
#[derive(Debug)]
struct Silence {
    after: Duration,
    is_told: bool,
}

impl Silence {
    fn new() -> Self {
        Self { after: SILENT, is_told: false }
    }

    /// Takes the age of the last frame.
    fn look(&mut self, age: Duration) -> Option<Report> {
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

/// Watches a source of that name: tells `failures` when it falls silent and when it gives frames again, and ends one in the
/// network that stays silent. A source that is not live has its own time.
pub(super) fn watch(
    pacer: Arc<Pacer>,
    (name, is_network): (String, bool),
    failures: Sender<String>,
    over: Sender<End>,
) -> smol::Task<()> {
    smol::spawn(async move {
        let mut silence = Silence::new();
        while !pacer.waits() {
            smol::Timer::after(LOOK).await;
            let age = pacer.age();
            if is_network && age >= GONE {
                let _ = over.try_send(End::Stopped(format!("it gives no frames for {} s", GONE.as_secs())));
                return;
            }
            let text = match silence.look(age) {
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
    fn silence_is_told_once_each_way_and_ever_more_rarely() {
        let mut silence = Silence::new();
        let mut look = |seconds: u64| silence.look(Duration::from_secs(seconds));
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
