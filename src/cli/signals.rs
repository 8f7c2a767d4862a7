//! What signals ask for (Ctrl-C, SIGTERM).

use std::time::{Duration, Instant};

/// A signal that comes so soon after the first is the same wish: `timeout` signals the process and then its group, and a
/// terminal's Ctrl-C goes to a wrapper too, which passes it on. A person who presses twice takes longer.
const SAME: Duration = Duration::from_secs(1);

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// End in order: what is recorded is completed, the peer hears a goodbye.
    End,
    /// Nothing more than the signal before.
    Same,
    /// End without waiting for anything.
    EndNow,
}

/// The signals that came so far.
#[derive(Debug, Default)]
pub(super) struct Signals {
    first: Option<Instant>,
}

impl Signals {
    /// Takes a signal that comes now, and returns what it asks for.
    pub(super) fn take(&mut self, now: Instant) -> Wish {
        match self.first {
            None => {
                self.first = Some(now);
                Wish::End
            }
            Some(first) if now.saturating_duration_since(first) < SAME => Wish::Same,
            Some(_) => Wish::EndNow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_within_a_second_are_one_wish() {
        let (mut signals, now) = (Signals::default(), Instant::now());
        assert_eq!(signals.take(now), Wish::End);
        assert_eq!(signals.take(now), Wish::Same);
        assert_eq!(signals.take(now + Duration::from_micros(999_999)), Wish::Same);
        assert_eq!(signals.take(now + SAME), Wish::EndNow);
        assert_eq!(signals.take(now + 3600 * SAME), Wish::EndNow);
    }
}
