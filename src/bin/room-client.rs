//! The program `room-client`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match roomtone::cli::room_client() {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, error)) => {
            roomtone::cli::output::fatal("room-client", &error);
            ExitCode::from(code)
        }
    }
}
