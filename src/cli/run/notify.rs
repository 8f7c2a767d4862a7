//! Reports to systemd (sd_notify(3)): that the server is ready, reads its settings again, stops, and lives.

use std::time::Duration;

/// The socket to which reports are sent; none if the program was not started by systemd.
#[derive(Debug, Default)]
pub(super) struct Notify {
    #[cfg(target_os = "linux")]
    socket: Option<(std::os::unix::net::UnixDatagram, std::os::unix::net::SocketAddr)>,
}

impl Notify {
    /// Returns the socket that the environment names. A name that cannot be used is reported and ignored.
    #[cfg(target_os = "linux")]
    pub(super) fn from_environment() -> Self {
        use std::os::unix::net::UnixDatagram;
        let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        let open = |address| {
            let socket = UnixDatagram::unbound()?;
            // A manager that does not read must not hold the server up.
            socket.set_nonblocking(true)?;
            Ok((socket, address))
        };
        let socket = address(&name).and_then(open);
        if let Err(error) = &socket {
            tracing::warn!("NOTIFY_SOCKET cannot be used: {error}");
        }
        Self { socket: socket.ok() }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn from_environment() -> Self {
        Self::default()
    }

    /// Sends a report: lines of `NAME=VALUE`.
    #[cfg(target_os = "linux")]
    fn send(&self, text: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(text.as_bytes(), address)
        {
            tracing::debug!("systemd is not notified: {error}");
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn send(&self, _text: &str) {}

    /// Reports that the server serves; `status` is shown to people.
    pub(super) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
    }

    /// Reports that the settings are being read again; [`Notify::ready`] has to follow.
    pub(super) fn reloading(&self) {
        #[cfg(target_os = "linux")]
        {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let now = Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0));
            self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
        }
    }

    /// Reports that the server stops.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stops");
    }

    /// Reports that the server lives, as it has to at least once in the time of [`watchdog`].
    pub(super) fn alive(&self, status: &str) {
        self.send(&format!("WATCHDOG=1\nSTATUS={status}"));
    }
}

/// Returns the address of a socket: a path, or a name in the abstract namespace after `@`.
#[cfg(target_os = "linux")]
fn address(name: &std::ffi::OsStr) -> std::io::Result<std::os::unix::net::SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::SocketAddr;
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        path if path.starts_with(b"/") => SocketAddr::from_pathname(name),
        _ => Err(std::io::Error::other("a path, or a name after '@', is wanted")),
    }
}

/// Returns the time after which systemd ends a silent server; none if it does not watch this process.
pub(super) fn watchdog() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    watched(number("WATCHDOG_USEC"), number("WATCHDOG_PID"), std::process::id())
}

fn watched(limit: Option<u64>, watched: Option<u64>, own: u32) -> Option<Duration> {
    let is_meant = watched.is_none_or(|pid| pid == u64::from(own));
    limit.filter(|limit| *limit > 0 && is_meant).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_process_is_watched() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(watched(Some(1_000_000), None, 7), second);
        assert_eq!(watched(Some(1_000_000), Some(7), 7), second);
        assert_eq!(watched(Some(1_000_000), Some(8), 7), None);
        assert_eq!((watched(None, Some(7), 7), watched(Some(0), None, 7)), (None, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        use std::os::linux::net::SocketAddrExt;
        let at = |name: &str| address(name.as_ref());
        assert_eq!(at("@roomtone").unwrap().as_abstract_name(), Some(&b"roomtone"[..]));
        assert_eq!(at("/run/notify").unwrap().as_pathname().unwrap().to_str(), Some("/run/notify"));
        assert!(at("").is_err() && at("run/notify").is_err() && at(&"@x".repeat(100)).is_err());
    }
}
