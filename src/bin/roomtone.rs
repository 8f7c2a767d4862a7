//! The program `roomtone`.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match roomtone::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = roomtone::cli::output::shown(&error.to_string());
            let _ = writeln!(std::io::stderr(), "roomtone: {text}");
            ExitCode::from(error.exit_code())
        }
    }
}
