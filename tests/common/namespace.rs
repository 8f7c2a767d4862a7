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
    /// A fresh one with loopback up.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("rt{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        assert!(ip(&format!("netns add {name}")), "no namespace {name}");
        let namespace = Self { name };
        assert!(namespace.ip("link set lo up"));
        namespace
    }

    /// A hub, and two that reach it and not each other, at 10.78.1.1 and 10.78.2.1.
    pub fn around_a_hub() -> [Self; 3] {
        let (hub, left, right) = (Self::new(), Self::new(), Self::new());
        hub.join(&left, "left", "10.78.1.1", "10.78.1.2");
        hub.join(&right, "right", "10.78.2.1", "10.78.2.2");
        [hub, left, right]
    }

    /// `ip` in here; whether it worked.
    pub fn ip(&self, words: &str) -> bool {
        ip(&format!("-n {} {words}", self.name))
    }

    fn shows(&self, device: &str, what: &str) -> bool {
        let output = Command::new("ip").args(["-n", &self.name, "link", "show", device]).output();
        output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(what))
    }

    /// Path of the namespace in the file system.
    pub fn path(&self) -> std::path::PathBuf {
        std::path::Path::new("/run/netns").join(&self.name)
    }

    fn runs(&self, program: &str, words: &[&str]) -> bool {
        let [ip, prefix @ ..] = self.prefix();
        let status = Command::new(ip).args(prefix).arg(program).args(words).status();
        status.is_ok_and(|status| status.success())
    }

    /// Passes on what is for others; whether it can.
    pub fn forwards(&self) -> bool {
        self.runs("sh", &["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
    }

    /// Takes rules of `nft`; whether they can be kept here.
    pub fn filters(&self, rules: &str) -> bool {
        self.runs("nft", &[rules])
    }

    /// The bytes that came in by that cable.
    pub fn received(&self, device: &str) -> u64 {
        let output = Command::new("ip").args(["-n", &self.name, "-s", "-j", "link", "show", device]).output();
        let found: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        found[0]["stats64"]["rx"]["bytes"].as_u64().unwrap()
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
        for (end, name, address) in [(self, cable, ours), (other, far.as_str(), theirs)] {
            // libnice gathers nothing after an address that it cannot use, as IPv6's own is for a second.
            let up = [
                format!("link set {name} addrgenmode none"),
                format!("addr add {address}/24 dev {name}"),
                format!("link set {name} up"),
            ];
            assert!(up.iter().all(|words| end.ip(words)), "{name}");
        }
        // The kernel takes up to a second to say that a cable is in, and libnice looks at that.
        for (end, name) in [(self, cable), (other, far.as_str())] {
            super::wait_for("a cable", || end.shows(name, "state UP").then_some(()));
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&format!("netns delete {}", self.name));
    }
}
