//! The keys of a terminal, on a real one.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::common::{PATIENCE, Program, REGISTRY, SMALL, Stage, WebSocket, until, wait_for, ws};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};
use serde_json::json;

/// A client at a terminal, as a person has it.
struct AtTerminal {
    child: Child,
    keyboard: File,
    terminal: File,
    screen: Arc<Mutex<String>>,
}

impl AtTerminal {
    fn start(home: &std::path::Path, args: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, vec![]).unwrap().into_string().unwrap();
        let terminal = File::options().read(true).write(true).open(name).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_roomtone"))
            .args(args)
            .env("HOME", home)
            .env(REGISTRY.0, REGISTRY.1)
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("DISPLAY")
            .stdin(terminal.try_clone().unwrap())
            .stdout(Stdio::null())
            .stderr(terminal.try_clone().unwrap())
            .spawn()
            .unwrap();
        let keyboard = File::from(master);
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut source, shown) = (keyboard.try_clone().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = source.read(&mut buffer) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
        });
        Self { child, keyboard, terminal, screen }
    }

    fn modes(&self) -> Termios {
        tcgetattr(&self.terminal).unwrap()
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for a text on the screen, after so many bytes of it; where it ends.
    fn sees(&self, text: &str, after: usize) -> usize {
        until(&format!("{text:?} on the screen"), PATIENCE, || {
            let screen = self.screen.lock().unwrap();
            let at = screen[after..].find(text).ok_or_else(|| screen.clone())?;
            Ok::<_, String>(after + at + text.len())
        })
    }
}

impl Drop for AtTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn keys_act_at_once_and_the_terminal_is_left_as_it_was() {
    let stage = Stage::new();
    let join = ["join", "attic", "--id", "ann", "--server", &stage.url, "--headless"];
    let mut bob = stage.join("bob").ready();
    let mut ann = AtTerminal::start(stage.home(), &[&join, &SMALL[..]].concat());
    let at = ann.sees("keys: m mute", 0);
    let canonical = LocalModes::ICANON | LocalModes::ECHO;
    assert!(!ann.modes().local_modes.intersects(canonical), "single keys");
    assert!(ann.modes().local_modes.contains(LocalModes::ISIG), "Ctrl-C is a signal");
    ann.sees("bob: messages can be sent", at);

    // None of these is followed by Enter.
    ann.press("m");
    let at = ann.sees("audio: muted", at);
    ann.press("m");
    let at = ann.sees("audio: on", at);
    ann.press("s");
    let at = ann.sees("bob: sent", at);
    // A line is shown as it is typed, and mended.
    ann.press("thelko\u{7f}\u{7f}lo\r");
    bob.expect("message", &[("peer", "ann"), ("text", "hello")]);
    ann.press(":camera off\r");
    let at = ann.sees("video: muted", at);
    // Text of a peer does not move the cursor, and does not reverse the line.
    bob.say(&json!({"command": "say", "text": "\u{1b}[2J\u{202e}h\u{200b}i"}));
    ann.sees("bob says: \\u{1b}[2J\\u{202e}h\\u{200b}i", at);

    ann.press("q");
    let status = wait_for("the end", || ann.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(ann.modes().local_modes.contains(canonical), "the terminal is as it was");
}

#[test]
fn the_log_has_colours_on_a_terminal_alone() {
    let home = tempfile::tempdir().unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--plain", "-vv"];
    let mut server = Program::start(home.path(), &serve);
    drop(WebSocket::connect(&ws(&server.link())));
    server.interrupt();
    let (_, log) = server.end_with_warnings();
    assert!(log.contains("DEBUG") && !log.contains('\u{1b}'), "{log}");

    let server = AtTerminal::start(home.path(), &serve);
    let at = server.sees("on this machine   http://", 0);
    let address = wait_for("the whole address", || {
        let screen = server.screen.lock().unwrap();
        screen[at..].split_once('/').map(|(address, _)| address.to_owned())
    });
    drop(WebSocket::connect(&format!("ws://{address}")));
    server.sees("\u{1b}[", at);
}
