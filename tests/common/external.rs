//! Programs of other makes: servers and drivers that tests run beside roomtone.

use std::fs::File;
use std::process::{Child, Command, Stdio};

use super::{PATIENCE, until};

/// A program that is killed when the value is dropped. Its stdout and stderr go to a file, which a failed test prints.
pub struct External {
    name: String,
    child: Child,
    output: tempfile::NamedTempFile,
}

impl External {
    /// Starts the program of this command.
    pub fn start(command: &mut Command) -> Self {
        super::machine::share();
        let output = tempfile::NamedTempFile::new().unwrap();
        let end = || Stdio::from(File::options().append(true).open(output.path()).unwrap());
        let name = format!("{command:?}");
        let child = command.stdin(Stdio::null()).stdout(end()).stderr(end()).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name, child, output }
    }

    /// Returns the output up to now.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.output.path()).unwrap()).into_owned()
    }

    /// Returns whether the program has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until the program, in its network, listens on this TCP port.
    pub fn listens(&mut self, port: u16) {
        let file = format!("/proc/{}/net/tcp", self.child.id());
        self.wait_for("a listener", |_| has_port(&file, port, Some(LISTEN)).then_some(()));
    }

    /// Waits until the program, in its network, has a UDP socket at this port.
    pub fn receives(&mut self, port: u16) {
        let file = format!("/proc/{}/net/udp", self.child.id());
        self.wait_for("a UDP socket", |_| has_port(&file, port, None).then_some(()));
    }

    /// Polls until `is_ready` returns something. Fails the test with the output if the program ends before.
    pub fn wait_for<T>(&mut self, what: &str, mut is_ready: impl FnMut(&str) -> Option<T>) -> T {
        until(what, PATIENCE, || {
            let (has_ended, output) = (self.has_ended(), self.output());
            let found = is_ready(&output);
            assert!(found.is_some() || !has_ended, "{} ended without {what}:\n{output}", self.name);
            found.ok_or("see the output below")
        })
    }

    /// Waits for a whole line of the output that contains `start`; returns the rest of that line.
    pub fn line(&mut self, start: &str) -> String {
        self.wait_for(start, |output| {
            let (whole, _) = output.rsplit_once('\n')?;
            whole.lines().find_map(|line| Some(line.split_once(start)?.1.to_owned()))
        })
    }

    /// Kills it, and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for External {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (ended, output) = (self.child.try_wait(), self.output());
            let from = output.len().saturating_sub(SHOWN);
            let output = output.get(from..).unwrap_or(&output);
            eprintln!("{} (ended: {ended:?}):\n{output}", self.name);
        }
        self.kill();
    }
}

/// State of a TCP socket that listens (proc(5), /proc/net/tcp).
const LISTEN: &str = "0A";

/// Returns whether a table of IPv4 sockets has one at this port, in this state.
fn has_port(file: &str, port: u16, state: Option<&str>) -> bool {
    let rows = std::fs::read_to_string(file).unwrap_or_default();
    let end = format!(":{port:04X}");
    rows.lines()
        .map(|row| row.split_whitespace().collect::<Vec<_>>())
        .any(|row| row.len() > 3 && row[1].ends_with(&end) && state.is_none_or(|state| row[3] == state))
}

/// Bytes of the end of the output that a failed test prints.
const SHOWN: usize = 20_000;
