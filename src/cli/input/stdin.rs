//! The thread that reads commands from stdin.

use std::io::{BufRead, Read, Write};

use smol::channel::Sender;

use super::keys::{self, Keys};
use super::lines::parse;
use super::terminal::{self, Source};
use crate::app::Command;
use crate::cli::output::human;

/// Longest line that is accepted, in bytes.
const MAX_LINE: usize = 64 * 1024;

/// Reads stdin in a separate thread. The end of stdin does not end the call. In a terminal, single keys act at once.
pub(in crate::cli) fn listen(commands: Sender<Command>, json: bool) {
    let source = if json { Source::Lines } else { terminal::open() };
    std::thread::spawn(move || match source {
        Source::Background => {}
        Source::Lines => {
            let lines = std::io::stdin().lock().lines().map_while(Result::ok);
            for line in lines {
                if !obey(&line, json, &commands) {
                    break;
                }
            }
        }
        Source::Keys => {
            human(keys::HELP);
            let mut keys = Keys::new();
            for byte in std::io::stdin().lock().bytes().map_while(Result::ok) {
                let typed = keys.take(byte);
                let mut out = std::io::stderr().lock();
                let _ = out.write_all(typed.echo.as_bytes()).and_then(|()| out.flush());
                drop(out);
                if typed.line.is_some_and(|line| !obey(&line, json, &commands)) {
                    break;
                }
            }
        }
    });
}

/// Sends the command of a line; returns false if the client accepts no more commands.
fn obey(line: &str, json: bool, commands: &Sender<Command>) -> bool {
    match parse(&line[..line.floor_char_boundary(MAX_LINE)], json) {
        Ok(None) => true,
        Ok(Some(command)) => commands.send_blocking(command).is_ok(),
        Err(help) => {
            human(&help);
            true
        }
    }
}
