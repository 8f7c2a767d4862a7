//! Output for people on stderr, and for programs on stdout.

pub(super) mod json;
mod people;

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use self::json::json_line;
use self::people::human_line;
use crate::app::Sink;
use crate::base::text::{shown, shown_lines};

/// Most characters of the error that ends the program: its text may come from a server.
const MAX_ERROR: usize = 1000;

#[cfg(feature = "media")]
/// Reserves stdout for a data channel: other output goes to stderr from now on.
pub(super) fn leave_stdout() {
    STDOUT_IS_TAKEN.store(true, Ordering::Relaxed);
}

static STDOUT_IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Writes a line to stdout, or to stderr if stdout is reserved. Ignores a closed pipe.
pub(super) fn result_line(line: &str) {
    if STDOUT_IS_TAKEN.load(Ordering::Relaxed) {
        return human(line);
    }
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", shown_lines(line)).and_then(|()| out.flush());
}

/// Writes a line, or several, to stderr. The caller has escaped the line ends in texts of other people.
pub(super) fn human(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", shown_lines(line));
}

/// Writes the error that ends a program to stderr.
pub fn fatal(program: &str, error: &str) {
    let mut error = shown(error);
    if let Some((at, _)) = error.char_indices().nth(MAX_ERROR) {
        error.truncate(at);
        error.push('…');
    }
    human(&format!("{program}: {error}"));
}

/// Returns whether stderr is a terminal whose user did not turn colours off (no-color.org).
pub(super) fn has_colours() -> bool {
    colours(std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR").as_deref())
}

fn colours(is_terminal: bool, no_colour: Option<&std::ffi::OsStr>) -> bool {
    is_terminal && no_colour.is_none_or(std::ffi::OsStr::is_empty)
}

/// Returns the sink of the programs, which writes each event.
pub(super) fn sink(json: bool) -> Sink {
    Arc::new(move |event| {
        if json {
            result_line(&json_line(event, time::OffsetDateTime::now_utc()));
        } else if let Some(line) = human_line(event) {
            human(&line);
        }
    })
}

#[cfg(feature = "media")]
/// Writes a QR code for phones to stderr if it is a terminal.
pub(super) fn qr(url: &str) {
    use qrcode::QrCode;
    use qrcode::render::unicode::Dense1x2;

    if std::io::stderr().is_terminal()
        && let Ok(code) = QrCode::new(url)
    {
        // Most terminals are dark: light modules are drawn, with a quiet zone.
        let mut picture = code.render::<Dense1x2>();
        picture.dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).quiet_zone(true);
        human(&picture.build());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_whose_user_wants_them() {
        assert!(colours(true, None) && colours(true, Some("".as_ref())));
        assert!(!colours(true, Some("1".as_ref())) && !colours(false, None));
    }
}
