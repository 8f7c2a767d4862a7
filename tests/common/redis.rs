//! A redis-server of the test, on a free port of loopback.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use super::wait_for;

/// A running redis-server, which keeps nothing on disk.
pub struct Redis {
    process: Child,
    port: u16,
    options: Vec<String>,
    folder: tempfile::TempDir,
}

impl Redis {
    /// Starts it.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts it with these options.
    pub fn with(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let port = super::free_port();
        let process = run(port, &options, folder.path()).expect("redis-server");
        Self { process, port, options, folder }
    }

    /// Returns its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills it.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Starts it again at its port, without its data.
    pub fn start_again(&mut self) {
        self.process =
            wait_for("the redis-server again", || run(self.port, &self.options, self.folder.path()));
    }

    /// Runs a command of redis-cli; returns its output.
    pub fn command(&self, words: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Starts the server; none if it ends before it answers.
fn run(port: u16, options: &[String], folder: &std::path::Path) -> Option<Child> {
    let mut process = Command::new("redis-server")
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(folder)
        .args(options)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let is_there = wait_for("redis-server to listen", || match process.try_wait().unwrap() {
        Some(_) => Some(false),
        None => TcpStream::connect(("127.0.0.1", port)).ok().map(|_| true),
    });
    is_there.then_some(process)
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
