//! Numbers of the process, from `/proc`; 0 where there is none.

/// Returns the number of open descriptors.
pub(super) fn open_descriptors() -> i64 {
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    i64::try_from(open).unwrap_or(i64::MAX)
}

/// Returns the most descriptors that the process may open; 0 if there is no limit.
#[cfg(unix)]
pub(super) fn descriptor_limit() -> i64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.and_then(|limit| i64::try_from(limit).ok()).unwrap_or(0)
}

#[cfg(not(unix))]
pub(super) fn descriptor_limit() -> i64 {
    0
}

/// Returns the resident memory, in bytes.
pub(super) fn resident_bytes() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<i64>().ok());
    kilobytes.map_or(0, |kilobytes| kilobytes * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_descriptors_and_memory() {
        assert!(open_descriptors() >= 3);
        assert!(descriptor_limit() >= open_descriptors());
        assert!(resident_bytes() > 1 << 20);
    }
}
