//! The program `roomtone`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match roomtone::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            roomtone::cli::output::fatal("roomtone", &error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}
