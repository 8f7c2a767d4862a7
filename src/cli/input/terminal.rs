//! The terminal's own line editing, switched off while keys are read and back on at the end.

use std::io::{IsTerminal, Stdin, stdin};
use std::sync::Mutex;

use crate::base::lock::lock;

use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};

/// How the terminal was before.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Where keys come from.
pub(super) enum Source {
    /// A terminal that gives every key as it is pressed, and echoes none.
    Keys,
    /// A pipe or a file.
    Lines,
    /// A terminal that belongs to another program: to read from it would stop us.
    Background,
}

/// Looks at stdin, and makes a terminal give single keys. Ctrl-C stays a signal.
pub(super) fn open() -> Source {
    let stdin = stdin();
    if !stdin.is_terminal() {
        return Source::Lines;
    }
    // One that is not our controlling terminal has no foreground.
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

/// Leaves the terminal as it was found. To be called at every end of the program.
pub(in crate::cli) fn restore() {
    let before = lock(&BEFORE).take();
    if let Some(before) = before {
        let _ = termios::tcsetattr(stdin(), OptionalActions::Now, &before);
    }
}
