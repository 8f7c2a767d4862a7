//! The command `token`.

use serde_json::json;

use super::super::args::token::TokenArgs;
use super::super::{CliError, output};
use crate::server::token::{check, sign};

/// Prints a token.
pub(super) fn token(args: &TokenArgs, json: bool) -> Result<(), CliError> {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
    let claims = args.claims(now);
    let secret = args.token_secret.first();
    let secret =
        secret.ok_or_else(|| CliError::Usage("--token-secret is wanted: the server's secret".into()))?;
    let token = check(&claims)
        .and_then(|_| sign(&claims, secret))
        .map_err(|why| CliError::Usage(format!("no token can be made: {why}")))?;
    output::result_line(&if json { json!({"token": token}).to_string() } else { token });
    Ok(())
}
