//! Meaning of signals (Ctrl-C, SIGTERM).

use std::time::{Duration, Instant};

/// Time after the first signal in which another one counts as the same request: `timeout` signals the process and
/// then its group, and a terminal's Ctrl-C also reaches a wrapper, which forwards it. A person who presses twice
/// needs longer.
const SAME: Duration = Duration::from_secs(1);

/// Request that a signal stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    /// Orderly end: recordings are completed, and the peer is informed.
    End,
    /// Repetition of the first signal: nothing more to do.
    Same,
    /// End without waiting for anything.
    EndNow,
}

/// State of the signals received so far.
#[derive(Debug, Default)]
struct Signals {
    first: Option<Instant>,
}

impl Signals {
    /// Records a signal received `now`, and returns its request.
    fn accept(&mut self, now: Instant) -> Request {
        match self.first {
            None => {
                self.first = Some(now);
                Request::End
            }
            Some(first) if now.saturating_duration_since(first) < SAME => Request::Same,
            Some(_) => Request::EndNow,
        }
    }
}

/// Calls `on_signal` at the first Ctrl-C or SIGTERM. A second signal ends the program at once, if it comes a second
/// or more after the first.
pub(super) fn on_signal(mut on_signal: impl FnMut() + Send + 'static) {
    let mut signals = Signals::default();
    let handler = move || match signals.accept(Instant::now()) {
        Request::End => on_signal(),
        Request::Same => {}
        Request::EndNow => {
            #[cfg(feature = "media")]
            crate::cli::input::terminal::restore();
            std::process::exit(130);
        }
    };
    if let Err(error) = ctrlc::set_handler(handler) {
        tracing::warn!("signals end the program at once: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_within_a_second_are_one_request() {
        let (mut signals, now) = (Signals::default(), Instant::now());
        assert_eq!(signals.accept(now), Request::End);
        assert_eq!(signals.accept(now), Request::Same);
        assert_eq!(signals.accept(now + Duration::from_micros(999_999)), Request::Same);
        assert_eq!(signals.accept(now + SAME), Request::EndNow);
        assert_eq!(signals.accept(now + 3600 * SAME), Request::EndNow);
    }
}
