//! The log on stderr.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format;

use crate::base::text::{escape_json, shown};
use crate::cli::args::LogFormat;
use crate::cli::output;

/// Starts the log on stderr; the variable `ROOMTONE_LOG` accepts the filter language of tracing.
pub(super) fn start(verbose: u8, form: LogFormat) {
    let level = match verbose {
        // The TURN client logs addresses and users in its own words.
        0 => "warn,roomtone::audit=info,stun_proto=off,turn_client_proto=off",
        1 => "info,roomtone=debug,stun_proto=off,turn_client_proto=off",
        _ => "debug,roomtone=trace",
    };
    let filter = EnvFilter::try_from_env("ROOMTONE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    match form {
        LogFormat::Text => text(filter),
        LogFormat::Json => json(filter),
    }
}

fn text(filter: EnvFilter) {
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
        .with_writer(io::stderr)
        .init();
}

/// Starts a log of JSON objects: `timestamp`, `level`, `target`, `message` and further fields.
fn json(filter: EnvFilter) {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_writer(|| Escaped(io::stderr()))
        .init();
}

/// Writes JSON with invisible characters escaped: the log may contain text of other people.
struct Escaped<W>(W);

impl<W: Write> Write for Escaped<W> {
    /// Writes a whole line, which the subscriber passes in one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let text = escape_json(text.trim_end_matches('\n'));
        self.0.write_all(format!("{text}\n").as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_escaped() {
        let mut escaped = Escaped(vec![]);
        escaped.write_all("{\"message\":\"a\u{202e}b\"}\n".as_bytes()).unwrap();
        assert_eq!(escaped.0, b"{\"message\":\"a\\u202eb\"}\n");
    }
}
