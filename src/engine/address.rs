//! The address of an engine, as a URL.
//!
//! Pure: no clock, sockets, files or random numbers.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use crate::protocol::Secret;

/// The port of a Redis server.
const PORT: u16 = 6379;
/// The port of a Sentinel.
const SENTINEL_PORT: u16 = 26379;
/// The most Sentinels.
const MOST: usize = 16;

/// The address of an engine: `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`, or with `rediss` over TLS; or
/// `redis+sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST…]/NAME[/DATABASE]`, or with `rediss+sentinel` over TLS, for the primary
/// that Sentinels name. Prints without the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Whether connections use TLS.
    pub is_secure: bool,
    /// The hosts with their ports: one server, or the Sentinels.
    pub hosts: Vec<(String, u16)>,
    /// The name of the primary, for Sentinels.
    pub primary: Option<String>,
    /// The name of the user; the default user if there is none.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// The number of the database.
    pub database: i64,
}

/// A text that is not the address of an engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The scheme is unknown.
    #[error(
        "the address of an engine begins with redis://, rediss:// (TLS), redis+sentinel:// or rediss+sentinel://"
    )]
    Scheme,
    /// A host is missing, or a port is no number.
    #[error(
        "the address of an engine needs a host, as in redis://127.0.0.1:6379, and its port has to be a number"
    )]
    Host,
    /// Several hosts without Sentinels.
    #[error("one engine has one host; several hosts are Sentinels (redis+sentinel://HOST,HOST/NAME)")]
    Hosts,
    /// The name of the primary is missing.
    #[error(
        "the address of Sentinels ends with the name of the primary, as in redis+sentinel://HOST,HOST/NAME"
    )]
    Primary,
    /// The path is no number of a database.
    #[error("the path of an engine's address is the number of a database, as in redis://127.0.0.1:6379/0")]
    Database,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(AddressError::Scheme)?;
        let (is_secure, is_sentinel) = match scheme {
            "redis" => (false, false),
            "rediss" => (true, false),
            "redis+sentinel" => (false, true),
            "rediss+sentinel" => (true, true),
            _ => return Err(AddressError::Scheme),
        };
        // A password may contain `/` only if it is encoded, as in any URL.
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = authority.rsplit_once('@').map_or((None, authority), |(a, b)| (Some(a), b));
        let (user, password) = login.map_or((None, None), credentials);
        let port = if is_sentinel { SENTINEL_PORT } else { PORT };
        let hosts: Vec<(String, u16)> = hosts
            .split(',')
            .map(|host| parse_host(host, port))
            .collect::<Option<_>>()
            .ok_or(AddressError::Host)?;
        let (primary, database) = match (is_sentinel, path.split_once('/')) {
            (false, _) if hosts.len() > 1 => return Err(AddressError::Hosts),
            (true, _) if hosts.len() > MOST => return Err(AddressError::Hosts),
            (false, _) => (None, path),
            (true, Some((name, database))) => (Some(name), database),
            (true, None) => (Some(path), ""),
        };
        if primary.is_some_and(str::is_empty) {
            return Err(AddressError::Primary);
        }
        let database = if database.is_empty() { Ok(0) } else { database.parse::<u16>() };
        Ok(Self {
            is_secure,
            hosts,
            primary: primary.map(decode),
            user,
            password,
            database: database.map_err(|_| AddressError::Database)?.into(),
        })
    }
}

fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// Returns user and password; a text without a colon is a user's name.
fn credentials(login: &str) -> (Option<String>, Option<Secret>) {
    let (user, password) = login.split_once(':').map_or((login, None), |(user, word)| (user, Some(word)));
    let user = Some(decode(user)).filter(|user| !user.is_empty());
    (user, password.map(|password| Secret(decode(password))))
}

/// Returns a host and its port; an IPv6 address is in brackets.
fn parse_host(text: &str, port: u16) -> Option<(String, u16)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(text) => text.split_once(']')?,
        None => text.find(':').map_or((text, ""), |at| text.split_at(at)),
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => port.parse().ok()?,
        None if rest.is_empty() => port,
        None => return None,
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sentinel = if self.primary.is_some() { "+sentinel" } else { "" };
        write!(f, "redis{}{sentinel}://", if self.is_secure { "s" } else { "" })?;
        for (n, (host, port)) in self.hosts.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            match host.contains(':') {
                true => write!(f, "{comma}[{host}]:{port}")?,
                false => write!(f, "{comma}{host}:{port}")?,
            }
        }
        self.primary.iter().try_for_each(|primary| write!(f, "/{primary}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_are_read_and_print_without_passwords() {
        let plain = parse("redis://127.0.0.1");
        assert_eq!(
            (plain.hosts.as_slice(), plain.database),
            ([("127.0.0.1".to_owned(), 6379)].as_slice(), 0)
        );
        assert_eq!(plain.to_string(), "redis://127.0.0.1:6379");
        let full = parse("rediss://call:p%40ss%2Fword@[::1]:7000/3");
        assert!(full.is_secure);
        assert_eq!(full.user.as_deref(), Some("call"));
        assert_eq!(full.password.as_ref().map(|password| password.0.as_str()), Some("p@ss/word"));
        assert_eq!((full.hosts[0].0.as_str(), full.hosts[0].1, full.database), ("::1", 7000, 3));
        assert_eq!(full.to_string(), "rediss://[::1]:7000");
        assert!(!format!("{full:?}").contains("p@ss"), "{full:?}");
        let alone = parse("redis://:secret@db");
        assert_eq!((alone.user, alone.password), (None, Some(Secret("secret".to_owned()))));
    }

    #[test]
    fn sentinels_name_a_primary() {
        let address = parse("redis+sentinel://:word@a,b:7001/calls/2");
        assert_eq!(address.hosts, [("a".to_owned(), 26379), ("b".to_owned(), 7001)]);
        assert_eq!((address.primary.as_deref(), address.database), (Some("calls"), 2));
        assert_eq!(address.to_string(), "redis+sentinel://a:26379,b:7001/calls");
    }

    #[test]
    fn wrong_addresses_are_refused() {
        let wrong = |text: &str| text.parse::<Address>().unwrap_err();
        for text in ["", "localhost:6379", "http://localhost", "redis:/localhost"] {
            assert_eq!(wrong(text), AddressError::Scheme, "{text}");
        }
        for text in [
            "redis://",
            "redis://a:b",
            "redis://:6379",
            "redis://[::1",
            "redis://[::1]6379",
            "redis://a:70000",
        ] {
            assert_eq!(wrong(text), AddressError::Host, "{text}");
        }
        assert_eq!(wrong("redis://a,b"), AddressError::Hosts);
        assert_eq!(wrong("redis+sentinel://a,b"), AddressError::Primary);
        assert_eq!(wrong("redis://a/x"), AddressError::Database);
    }
}
