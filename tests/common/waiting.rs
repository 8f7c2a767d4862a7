//! Waiting for a condition, for a future, or until something is due. Tests and the rest of the harness sleep nowhere
//! else; `tests/architecture` counts the calls.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use roomtone::base::timeout::timeout;

/// How long anything may take before a test fails. Nothing waits that long when all is well.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two polls.
const POLL: Duration = Duration::from_millis(20);

/// Polls until `poll` returns `Ok`. Fails the test with the last `Err`, which says how far things have come, after
/// `limit`.
pub fn until<T, P: Debug>(what: &str, limit: Duration, mut poll: impl FnMut() -> Result<T, P>) -> T {
    let end = Instant::now() + limit;
    loop {
        match poll() {
            Ok(found) => return found,
            Err(progress) => {
                assert!(
                    Instant::now() < end,
                    "no {what} within {limit:?} at {}; so far: {progress:?}",
                    load()
                );
                // waits for: the next poll
                std::thread::sleep(POLL);
            }
        }
    }
}

/// Returns the load of the machine, for the report of a failed wait.
pub fn load() -> String {
    let average = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("load {}", average.trim_end())
}

/// Polls until `poll` returns something, for as long as [`PATIENCE`].
pub fn wait_for<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    until(what, PATIENCE, || poll().ok_or("nothing"))
}

/// Waits until `value` has stayed the same for as long as `quiet`, and returns it.
pub fn settled<T: PartialEq + Debug>(what: &str, quiet: Duration, mut value: impl FnMut() -> T) -> T {
    let mut last = (value(), Instant::now());
    until(what, PATIENCE, || {
        let now = value();
        if now != last.0 {
            last = (now, Instant::now());
        }
        if last.1.elapsed() < quiet { Err(format!("{:?}", last.0)) } else { Ok(()) }
    });
    last.0
}

/// Sleeps until `due`: for packets that are sent, and samples that are taken, at a pace.
pub fn pace(due: Instant) {
    // waits for: the time that the caller has computed
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}

/// Returns the result of `work`, or fails the test after [`PATIENCE`].
pub async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.unwrap_or_else(|| panic!("waited in vain for {what} at {}", load()))
}
