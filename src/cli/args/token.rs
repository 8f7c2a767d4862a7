//! Options of `token`.

use std::time::Duration;

use clap::{ArgAction, Args};
use serde_json::{Map, Value, json};

use crate::base::flag::Flag;
use crate::protocol::Secret;

/// `token`: each option is a claim of the token.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// Secret of the server, of at least 32 bytes; of several, the first one signs. On the command line other users of this machine can see it;
    /// ROOMTONE_TOKEN_SECRET hides it
    #[arg(long, value_name = "TEXT")]
    pub token_secret: Vec<Secret>,
    /// Only id that the client may register [default: any]
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Only room that the client may join; may be repeated [default: all]
    #[arg(long, value_name = "ROOM", value_delimiter = ',')]
    pub room: Vec<String>,
    /// Beginning of the names of rooms that the client may join; may be repeated
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    pub room_prefix: Vec<String>,
    /// Only peer that the client may call and be called by; may be repeated [default: all; none with --room or --room-prefix]
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub peer: Vec<String>,
    /// Room that the client may moderate; may be repeated [default: none]
    #[arg(long, value_name = "ROOM", value_delimiter = ',')]
    pub moderate: Vec<String>,
    /// Leave the client out of lists of peers that can be called
    #[arg(long, action = ArgAction::SetTrue)]
    pub hidden: Flag,
    /// Text or JSON that describes the client to the other members of its room
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Audience (aud), for a server with --token-audience
    #[arg(long, value_name = "TEXT")]
    pub audience: Option<String>,
    /// Issuer (iss), for a server with --token-issuer
    #[arg(long, value_name = "TEXT")]
    pub issuer: Option<String>,
    /// Time that the token is valid: a number with s, m, h or d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
    pub valid: Duration,
}

impl TokenArgs {
    /// Returns the claims of a token that begins at `now`, in seconds since 1970.
    pub(in crate::cli) fn claims(&self, now: u64) -> Value {
        let mut claims = Map::new();
        let mut claim = |key: &str, value: Value| claims.insert(key.to_owned(), value);
        claim("iat", json!(now));
        claim("exp", json!(now.saturating_add(self.valid.as_secs())));
        for (key, value) in [("sub", &self.id), ("aud", &self.audience), ("iss", &self.issuer)] {
            if let Some(value) = value {
                claim(key, json!(value));
            }
        }
        for (key, values) in [
            ("rooms", &self.room),
            ("room_prefixes", &self.room_prefix),
            ("calls", &self.peer),
            ("moderate", &self.moderate),
        ] {
            if !values.is_empty() {
                claim(key, json!(values));
            }
        }
        if self.hidden.is_on() {
            claim("hidden", json!(true));
        }
        if let Some(text) = &self.description {
            claim("description", serde_json::from_str(text).unwrap_or_else(|_| json!(text)));
        }
        Value::Object(claims)
    }
}

/// Reads a time: a number and its unit.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let wrong = || "a number with s, m, h or d is wanted, as in 90s, 10m, 6h or 30d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let time = number.checked_mul(seconds).filter(|time| (1..=100 * 365 * 24 * 3600).contains(time));
    time.map(Duration::from_secs).ok_or_else(|| "between 1 s and 100 years is wanted".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        for (text, seconds) in [("90s", 90), ("10m", 600), ("6h", 21_600), ("30d", 2_592_000)] {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "h", "1", "-1h", "1.5h", "0s", "999999999d", "99999999999999999999s", "1 h", "1ü"]
        {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }
}
