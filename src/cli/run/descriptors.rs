//! The limit of descriptors: each connection of the server needs one.

/// The least limit that is no reason for a warning.
const ENOUGH: u64 = 4096;

/// Raises the limit to the most that the system allows, and reports it: in the log, and as the returned number. Returns
/// none if the limit is not known, or there is none.
#[cfg(unix)]
pub(super) fn raise() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum?,
        // macOS refuses to be without a limit.
        Err(_) => limit.current?,
    };
    match limit < ENOUGH {
        true => tracing::warn!(
            "this process may open {limit} descriptors, and each client needs one: raise the limit (ulimit -n, or \
             LimitNOFILE in a unit of systemd)"
        ),
        false => tracing::info!("this process may open {limit} descriptors, one for each client"),
    }
    Some(limit)
}

#[cfg(not(unix))]
pub(super) fn raise() -> Option<u64> {
    None
}
