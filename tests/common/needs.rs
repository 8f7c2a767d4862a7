//! Parts of the machine that some tests need besides GStreamer.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

/// A part of the machine. `scripts/test` installs those that can be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Chromium and its driver.
    Browser,
    /// The right to make network namespaces and TUN devices.
    Networks,
    /// Packet filters, for routers between networks.
    Routers,
    /// coturn.
    TurnServer,
    /// PulseAudio.
    SoundServer,
    /// PyRTC, RTCPool and socket.io, in `tests/peers`.
    Pools,
    /// schemathesis, in `tests/peers`.
    ApiTester,
    /// HAProxy.
    LoadBalancer,
    /// redis-server and redis-cli.
    Redis,
    /// systemd's check of units.
    Systemd,
    /// An address besides loopback.
    Address,
}

impl Part {
    fn is_there(self) -> bool {
        match self {
            Self::Browser => has_program("chromedriver") && Path::new("/usr/bin/chromium").exists(),
            Self::Networks => *NETWORKS,
            Self::Routers => *NETWORKS && has_program("nft"),
            Self::TurnServer => has_program("turnserver"),
            Self::SoundServer => has_program("pulseaudio"),
            Self::LoadBalancer => has_program("haproxy") || Path::new("/usr/sbin/haproxy").exists(),
            Self::Redis => has_program("redis-server") && has_program("redis-cli"),
            Self::Systemd => has_program("systemd-analyze"),
            Self::Pools => ["venv/bin/python", "bundle.js", "node_modules/socket.io"]
                .iter()
                .all(|what| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(what).exists()),
            Self::ApiTester => {
                Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/api-venv/bin/schemathesis").exists()
            }
            Self::Address => roomtone::server::tls::addresses().iter().any(std::net::IpAddr::is_ipv4),
        }
    }
}

static NETWORKS: LazyLock<bool> = LazyLock::new(|| {
    let name = format!("rt{}-may", std::process::id());
    let netns = |what: &str| Command::new("ip").args(["netns", what, &name]).output();
    let made = netns("add").is_ok_and(|output| output.status.success());
    made && netns("delete").is_ok_and(|output| output.status.success()) && Path::new("/dev/net/tun").exists()
});

fn has_program(name: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(name).exists())
}

/// Fails the test for want of a part of the machine, unless `ALLOW_SKIP=1`. The line that is written then goes past
/// the capture of libtest, and `.ci/run` counts it; the caller returns.
pub fn skip(reason: &str) {
    let is_allowed = std::env::var("ALLOW_SKIP").is_ok_and(|value| value == "1");
    assert!(is_allowed, "{reason}; with ALLOW_SKIP=1 such tests are skipped");
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}

/// Whether all of these are there; [`skip`]s the test otherwise.
pub fn are_there(parts: &[Part]) -> bool {
    let missing: Vec<&Part> = parts.iter().filter(|part| !part.is_there()).collect();
    if !missing.is_empty() {
        skip(&format!("this machine lacks {missing:?}"));
    }
    missing.is_empty()
}

/// The first line of a test that needs these [`Part`]s.
macro_rules! needs {
    ($($part:ident),+) => {
        if !$crate::common::needs::are_there(&[$($crate::common::needs::Part::$part),+]) {
            return;
        }
    };
}
pub(crate) use needs;
