//! The program `room-client`.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match roomtone::cli::room_client() {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, error)) => {
            let _ = writeln!(std::io::stderr(), "room-client: {}", roomtone::cli::output::shown(&error));
            ExitCode::from(code)
        }
    }
}
