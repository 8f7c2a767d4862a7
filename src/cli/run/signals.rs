//! Meaning of signals (Ctrl-C, SIGTERM, SIGHUP).

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use async_signal::{Signal, Signals as Incoming};
use smol::stream::StreamExt;

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

/// Calls `on_end` at the first Ctrl-C, SIGTERM or SIGHUP. A second signal ends the program at once, if it comes a second
/// or more after the first.
#[cfg(feature = "media")]
pub(super) fn on_signal(on_end: impl FnMut() + Send + 'static) {
    listen(on_end, None);
}

/// The same, but calls `on_reload` at SIGHUP, unless the program's terminal is gone.
pub(super) fn on_signals(on_end: impl FnMut() + Send + 'static, on_reload: impl FnMut() + Send + 'static) {
    listen(on_end, Some(Box::new(on_reload)));
}

fn listen(mut on_end: impl FnMut() + Send + 'static, mut on_reload: Option<Box<dyn FnMut() + Send>>) {
    #[cfg(unix)]
    let wanted = [Signal::Int, Signal::Term, Signal::Hup];
    #[cfg(not(unix))]
    let wanted = [Signal::Int];
    let mut incoming = match Incoming::new(wanted) {
        Ok(incoming) => incoming,
        Err(error) => return tracing::warn!("signals end the program at once: {error}"),
    };
    // A terminal that hangs up sends SIGHUP, and is no terminal any more.
    let had_terminal = std::io::stdin().is_terminal();
    let is_hung_up = move || had_terminal && !std::io::stdin().is_terminal();
    let mut signals = Signals::default();
    let mut handle = move |signal| {
        if let (Signal::Hup, Some(reload), false) = (signal, &mut on_reload, is_hung_up()) {
            return reload();
        }
        match signals.accept(Instant::now()) {
            Request::End => on_end(),
            Request::Same => {}
            Request::EndNow => {
                #[cfg(feature = "media")]
                crate::cli::input::terminal::restore();
                std::process::exit(130);
            }
        }
    };
    std::thread::spawn(move || {
        smol::block_on(async {
            while let Some(Ok(signal)) = incoming.next().await {
                handle(signal);
            }
        });
    });
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
