//! Limit on the number of malloc arenas of glibc.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Environment variable with the most arenas (mallopt(3)); glibc reads it once, before `main`.
const VARIABLE: &str = "MALLOC_ARENA_MAX";

/// Number of arenas that the program sets; glibc's default is eight per processor. A single arena would make threads
/// wait for its lock more often.
const ARENAS: &str = "2";

/// Replaces this process by a new run of the program with [`ARENAS`] arenas, unless the user's environment sets the
/// number.
///
/// A call has dozens of threads, which GStreamer starts and ends with the streams, and each arena keeps the most
/// memory that its threads ever needed. Ten floods of sources (`tests/it/hostile.rs`) on two processors left 17 MB
/// unreturned with the default, 4 MB with two arenas (2026-11-30). malloc_trim(3) and mallopt(3) would need `unsafe`
/// code.
pub(super) fn have_few() {
    let is_said = [VARIABLE, "GLIBC_TUNABLES"].iter().any(|name| std::env::var_os(name).is_some());
    let Some(program) = std::env::current_exe().ok().filter(|_| !is_said) else { return };
    let mut arguments = std::env::args_os();
    let mut command = Command::new(program);
    arguments.next().into_iter().for_each(|name| {
        command.arg0(name);
    });
    // exec() returns only on failure; the program then continues with the default number of arenas.
    let error = command.args(arguments).env(VARIABLE, ARENAS).exec();
    tracing::debug!("the program does not start with fewer arenas: {error}");
}
