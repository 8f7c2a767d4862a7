//! A redis-server of the test, on a free port of loopback.

use std::process::Command;

use super::External;

/// A running redis-server, which keeps nothing on disk.
pub struct Redis {
    process: External,
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
        let process = run(port, &options, folder.path());
        Self { process, port, options, folder }
    }

    /// Returns its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again at its port, without its data.
    pub fn start_again(&mut self) {
        self.process = run(self.port, &self.options, self.folder.path());
    }

    /// Runs a command of redis-cli; returns its output.
    pub fn command(&self, words: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-p", &port]).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Starts the server, and waits until it listens.
fn run(port: u16, options: &[String], folder: &std::path::Path) -> External {
    let mut command = Command::new("redis-server");
    command
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(folder)
        .args(options);
    let mut process = External::start(&mut command);
    process.line("Ready to accept connections");
    process
}
