//! STUN and TURN servers in the `Link` header fields of a response (RFC 9725, 4.6; RFC 8288).
//!
//! Pure: no clock, chance, socket or GStreamer.

use percent_encoding::percent_decode_str;

use crate::protocol::{IceServer, IceUrl, Secret};

/// Maximum number of links that are read, those of other relations included.
const MAX_LINKS: usize = 64;
/// Maximum length of one header field, in bytes; longer ones are ignored.
const MAX_FIELD: usize = 8192;
/// Maximum number of parameters of one link; further ones are ignored.
const MAX_PARAMETERS: usize = 16;

/// A link: its target, and names and values of its parameters.
#[derive(Debug, PartialEq, Eq)]
struct Link<'a> {
    target: &'a str,
    parameters: Vec<(&'a str, String)>,
}

/// Returns the STUN and TURN servers that the values of `Link` fields name, at most
/// [`MAX_ICE_SERVERS`](crate::protocol::ice::MAX_ICE_SERVERS). Ignores other relations and what cannot be read.
pub fn ice_servers<'a>(fields: impl IntoIterator<Item = &'a str>) -> Vec<IceServer> {
    let fields = fields.into_iter().filter(|field| field.len() <= MAX_FIELD);
    let servers = fields.flat_map(Links).take(MAX_LINKS).filter_map(|link| server(&link));
    IceServer::checked(servers)
}

fn server(link: &Link<'_>) -> Option<IceServer> {
    let parameter = |name: &str| {
        let mut all = link.parameters.iter();
        all.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
    };
    let is_meant = |relation: &str| relation.eq_ignore_ascii_case("ice-server");
    parameter("rel")?.split_ascii_whitespace().any(is_meant).then_some(())?;
    let is_url = |text: &str| text.parse::<IceUrl>().is_ok();
    // LiveKit percent-encodes the target.
    let url = Some(link.target.to_owned()).filter(|url| is_url(url));
    let url =
        url.or_else(|| percent_decode_str(link.target).decode_utf8().ok().map(|url| url.into_owned()))?;
    Some(IceServer {
        urls: vec![url],
        username: parameter("username"),
        credential: parameter("credential").map(Secret),
    })
}

/// The links of one header field.
struct Links<'a>(&'a str);

impl<'a> Iterator for Links<'a> {
    type Item = Link<'a>;

    fn next(&mut self) -> Option<Link<'a>> {
        let (_, rest) = self.0.split_once('<')?;
        let (target, mut rest) = rest.split_once('>')?;
        let mut parameters = Vec::new();
        while let Some(after) = rest.trim_start().strip_prefix(';') {
            let (name, after) = token(after.trim_start());
            rest = after.trim_start();
            let value = rest.strip_prefix('=').map(|after| {
                let (value, after) = value(after.trim_start());
                rest = after;
                value
            });
            if parameters.len() < MAX_PARAMETERS {
                parameters.push((name, value.unwrap_or_default()));
            }
        }
        self.0 = rest;
        Some(Link { target: target.trim(), parameters })
    }
}

/// Splits a token (RFC 9110, 5.6.2) off.
fn token(text: &str) -> (&str, &str) {
    let is_delimiter = |c: char| c.is_whitespace() || "\"(),/:;<=>?@[\\]{}".contains(c);
    text.split_at(text.find(is_delimiter).unwrap_or(text.len()))
}

/// Splits the value of a parameter off: a quoted string (RFC 9110, 5.6.4), or the text up to the next delimiter.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_at(text.find([';', ',']).unwrap_or(text.len()));
        return (value.trim_end().to_owned(), rest);
    };
    let (mut value, mut chars) = (String::new(), quoted.chars());
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => value.extend(chars.next()),
            c => value.push(c),
        }
    }
    (value, chars.as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::ice::MAX_ICE_SERVERS;

    fn read(fields: &[&str]) -> Vec<(String, Option<String>, Option<String>)> {
        let plain = |server: IceServer| {
            (server.urls[0].clone(), server.username, server.credential.map(|secret| secret.0))
        };
        ice_servers(fields.iter().copied()).into_iter().map(plain).collect()
    }

    #[test]
    fn servers_are_read_from_several_fields_and_from_one() {
        let (stun, turn) = (
            r#"<stun:stun.example.net>; rel="ice-server""#,
            r#"<turn:turn.example.net?transport=udp>; rel="ice-server"; username="user"; credential="my,\"pass;<x>"; credential-type="password""#,
        );
        let expected = vec![
            ("stun:stun.example.net".to_owned(), None, None),
            (
                "turn:turn.example.net?transport=udp".to_owned(),
                Some("user".to_owned()),
                Some("my,\"pass;<x>".to_owned()),
            ),
        ];
        assert_eq!(read(&[stun, turn]), expected);
        assert_eq!(read(&[&format!("{stun}, {turn}")]), expected);
        // Other orders, no quotes, other cases, a relation among others, and an encoded target.
        let other =
            "<turn%3A192.0.2.1%3A99%3Ftransport%3Dtcp> ;Credential=p ;REL = \"next ICE-Server\";username=u";
        let server =
            ("turn:192.0.2.1:99?transport=tcp".to_owned(), Some("u".to_owned()), Some("p".to_owned()));
        assert_eq!(read(&[other]), [server]);
    }

    #[test]
    fn other_links_and_junk_are_ignored() {
        let events =
            r#"<https://h/sse>; rel="urn:ietf:params:whep:ext:core:server-sent-events"; events="active""#;
        for junk in [
            events,
            "",
            "<",
            "<>",
            "stun:example.org; rel=ice-server",
            "<stun:example.org>",
            "<stun:example.org>; rel",
            "<stun:example.org>; rel=\"ice-server",
            "<javascript:x>; rel=ice-server",
            "<https://example.org>; rel=ice-server",
            "<turn:u:p@example.org>; rel=ice-server",
        ] {
            let found = read(&[junk]);
            let is_unterminated = junk.ends_with("\"ice-server");
            assert_eq!(found.len(), usize::from(is_unterminated), "{junk}: {found:?}");
        }
        assert_eq!(read(&[events, "<stun:a>; rel=ice-server"]).len(), 1);
    }

    #[test]
    fn numbers_and_sizes_are_bounded() {
        let many = vec!["<stun:example.org>;rel=ice-server"; 100].join(",");
        assert_eq!(read(&[&many]).len(), MAX_ICE_SERVERS);
        let long = format!("<stun:example.org>;rel=ice-server;x=\"{}\"", "y".repeat(MAX_FIELD));
        assert_eq!(read(&[&long]).len(), 0);
        let secret = format!("<turn:a>;rel=ice-server;username=u;credential={}", "p".repeat(600));
        assert_eq!(read(&[&secret]).len(), 0);
    }

    proptest! {
        #[test]
        fn any_field_is_read(fields in prop::collection::vec("([<>;,=\"\\\\ ]|rel|ice-server|stun:a|\\PC)*", 0..4)) {
            let servers = ice_servers(fields.iter().map(String::as_str));
            prop_assert!(servers.len() <= MAX_ICE_SERVERS);
            prop_assert!(servers.iter().flat_map(|server| &server.urls).all(|url| url.parse::<IceUrl>().is_ok()));
        }

        #[test]
        fn a_written_server_is_read(user in "[ -~]{0,20}", password in "[ -~]{0,20}") {
            let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            let field = format!(
                "<turn:a>; username=\"{}\"; rel=\"ice-server\"; credential=\"{}\"", quoted(&user), quoted(&password)
            );
            prop_assert_eq!(read(&[&field]), [("turn:a".to_owned(), Some(user), Some(password))]);
        }
    }
}
