//! How many arenas glibc's malloc has.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Reads the number of arenas (mallopt(3)); malloc reads it once, before `main`.
const VARIABLE: &str = "MALLOC_ARENA_MAX";

/// With one, threads wait for each other more; by default there are eight for each processor.
const ARENAS: &str = "2";

/// Starts the program anew in this process, with few arenas, unless the user said how many there are to be.
///
/// A call has dozens of threads, which GStreamer makes and ends with the streams, and each arena keeps what its threads
/// needed at most. Ten floods of sources (`tests/hostile.rs`) on two processors took 17 MB that were not given back, and 4 MB
/// with two arenas (2026-11-30). malloc_trim(3) and mallopt(3) would take `unsafe` code.
pub(super) fn have_few() {
    let is_said = [VARIABLE, "GLIBC_TUNABLES"].iter().any(|name| std::env::var_os(name).is_some());
    let Some(program) = std::env::current_exe().ok().filter(|_| !is_said) else { return };
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program);
    arguments.next().into_iter().for_each(|name| {
        command.arg0(name);
    });
    // It comes back only where it fails, and then all goes on with as many arenas as there are.
    let error = command.args(arguments).env(VARIABLE, ARENAS).exec();
    tracing::debug!("the program does not start with fewer arenas: {error}");
}
