//! The log on stderr.

use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format;

use crate::base::text::shown;
use crate::cli::output;

/// Starts the log on stderr; the variable `ROOMTONE_LOG` accepts the filter language of tracing.
pub(super) fn start(verbose: u8) {
    let level = match verbose {
        // The TURN client logs addresses and users in its own words.
        0 => "warn,stun_proto=off,turn_client_proto=off",
        1 => "info,roomtone=debug,stun_proto=off,turn_client_proto=off",
        _ => "debug,roomtone=trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("ROOMTONE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    // The value of a field may contain text of other people: it is escaped.
    let fields = format::debug_fn(|writer, field, value| {
        let value = shown(&format!("{value:?}"));
        match field.name() {
            "message" => write!(writer, "{value}"),
            name => write!(writer, "{name}={value}"),
        }
    });
    tracing_subscriber::fmt()
        .fmt_fields(fields.delimited(" "))
        .with_env_filter(filter)
        .with_ansi(output::has_colours())
        .with_writer(std::io::stderr)
        .init();
}
