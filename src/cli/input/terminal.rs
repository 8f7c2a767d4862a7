//! The terminal's own line editing, switched off while keys are read and back on at the end.

use std::io::{IsTerminal, Stdin, stdin};
use std::sync::Mutex;

use crate::base::lock::lock;

use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};

/// Settings of the terminal before the program changed them.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Kind of stdin.
pub(super) enum Source {
    /// Terminal that delivers each key at once, without echo.
    Keys,
    /// Pipe or file.
    Lines,
    /// Terminal of another foreground process: reading from it would stop this process.
    Background,
}

/// Returns the kind of stdin; switches a terminal to single keys. Ctrl-C remains a signal.
pub(super) fn open() -> Source {
    let stdin = stdin();
    if !stdin.is_terminal() {
        return Source::Lines;
    }
    // A terminal that does not control this process has no foreground process.
    if termios::tcgetpgrp(&stdin).is_ok_and(|group| group != rustix::process::getpgrp()) {
        return Source::Background;
    }
    match single_keys(&stdin) {
        Ok(()) => Source::Keys,
        Err(_) => Source::Lines,
    }
}

fn single_keys(stdin: &Stdin) -> rustix::io::Result<()> {
    let before = termios::tcgetattr(stdin)?;
    let mut now = before.clone();
    now.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
    now.special_codes[SpecialCodeIndex::VMIN] = 1;
    now.special_codes[SpecialCodeIndex::VTIME] = 0;
    termios::tcsetattr(stdin, OptionalActions::Now, &now)?;
    *lock(&BEFORE) = Some(before);
    Ok(())
}

/// Restores the settings of the terminal. Every end of the program calls it.
pub(in crate::cli) fn restore() {
    let before = lock(&BEFORE).take();
    if let Some(before) = before {
        let _ = termios::tcsetattr(stdin(), OptionalActions::Now, &before);
    }
}
