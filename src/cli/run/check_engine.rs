//! `serve --check-engine`: whether servers can use an engine.

use serde_json::json;

use crate::cli::CliError;
use crate::cli::args::server::ServerOptions;
use crate::cli::output::json::json_line;
use crate::cli::output::result_line;

pub(super) fn check(options: &ServerOptions, json: bool) -> Result<(), CliError> {
    let engine = options.engine()?.ok_or_else(|| {
        CliError::Usage("--check-engine needs --engine, better as ROOMTONE_ENGINE: the address".into())
    })?;
    let findings = smol::block_on(engine.examine());
    for finding in &findings {
        let (subject, text) = (finding.subject, &finding.text);
        match json {
            true => {
                let value =
                    json!({"event": "engine", "check": subject, "fine": finding.is_fine, "text": text});
                result_line(&json_line(&value, time::OffsetDateTime::now_utc()));
            }
            false => {
                let mark = if finding.is_fine { "ok     " } else { "WRONG  " };
                result_line(&format!("{mark} {subject:12} {text}"));
            }
        }
    }
    match findings.iter().all(|finding| finding.is_fine) {
        true => Ok(()),
        false => Err(CliError::Engine),
    }
}
