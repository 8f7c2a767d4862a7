//! Networks of the test's own: namespaces joined by pairs of virtual interfaces. They need root.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A machine with a network of its own.
pub struct Namespace {
    name: String,
}

fn ip(words: &str) -> bool {
    let output = Command::new("ip").args(words.split_whitespace()).output();
    output.is_ok_and(|output| output.status.success())
}

impl Namespace {
    /// A fresh one with loopback up; none where this user may not make one.
    pub fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("rt{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let made = ip(&format!("netns add {name}"));
        let namespace = made.then_some(Self { name })?;
        namespace.ip("link set lo up").then_some(namespace)
    }

    /// `ip` in here; whether it worked.
    pub fn ip(&self, words: &str) -> bool {
        ip(&format!("-n {} {words}", self.name))
    }

    /// The words that run a program in here.
    pub fn prefix(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.name]
    }

    /// A cable to another: its name here, our address and the other's, of one network.
    pub fn join(&self, other: &Self, cable: &str, ours: &str, theirs: &str) {
        let far = format!("{cable}x");
        let (a, b) = (&self.name, &other.name);
        assert!(ip(&format!("link add {cable} netns {a} type veth peer name {far} netns {b}")), "a cable");
        assert!(
            self.ip(&format!("addr add {ours}/24 dev {cable}")) && self.ip(&format!("link set {cable} up"))
        );
        assert!(
            other.ip(&format!("addr add {theirs}/24 dev {far}")) && other.ip(&format!("link set {far} up"))
        );
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&format!("netns delete {}", self.name));
    }
}

/// Says that a test did not run, for lack of the right to make networks.
pub fn skipped() {
    eprintln!("SKIPPED: this user may not make network namespaces");
}
