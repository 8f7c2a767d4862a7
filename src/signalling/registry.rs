//! The registry of signalling protocols: chooses the back end by the scheme of a server's URL.
//!
//! Pure: no clock, chance, socket or GStreamer.

use url::Url;

use super::error::{ConnectError, brief};
use super::signaller::{Registration, Signaller};
use super::target::{Protocol, Target, split_zone};
use super::{hello, ssp, whip};
use crate::protocol::whip::{Role, parse_url};
use crate::tls::Trust;

/// The protocols that the scheme of a server's URL chooses.
static PROTOCOLS: [Protocol; 3] = [hello::PROTOCOL, ssp::PROTOCOL, ssp::OVER_SOCKETIO];

/// The longest text of a server that speaks another protocol which is quoted, in characters.
const MAX_QUOTED: usize = 80;

impl Target {
    /// Parses a server's URL: `ws://…` or `wss://…` for a server of rooms, prefixed by `ssp+` for a server of pools, and
    /// `ssp+http://…` or `ssp+https://…` for a server of pools behind socket.io. A bare `HOST:PORT` means `wss://`, and
    /// an error names the URL of a server without TLS. A link-local address includes its interface: `wss://[fe80::1%eth0]:8443`.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Url`] if the text is not a server's URL.
    pub fn parse(text: &str, trust: Trust) -> Result<Self, ConnectError> {
        let wrong = || ConnectError::Url(text.to_owned());
        let (bare, zone) = split_zone(text);
        let (scheme, rest) = bare.split_once("://").unwrap_or(("wss", &bare));
        let speaks =
            |protocol: &&Protocol| protocol.schemes.iter().any(|other| other.eq_ignore_ascii_case(scheme));
        let protocol = PROTOCOLS.iter().find(speaks).ok_or_else(wrong)?;
        let is_tls = protocol.schemes[1].eq_ignore_ascii_case(scheme);
        let url =
            Url::parse(&format!("{}://{rest}", if is_tls { "wss" } else { "ws" })).map_err(|_| wrong())?;
        if url.host().is_none() {
            return Err(wrong());
        }
        Ok(Self::new(protocol, url, zone, trust))
    }

    /// Parses the URL of an endpoint of WHIP, to which a publisher sends, or of WHEP, from which a player receives:
    /// `https://…` or `http://…`.
    ///
    /// # Errors
    ///
    /// [`ConnectError::StreamUrl`] if the text is not such a URL.
    pub fn parse_stream(text: &str, role: Role, trust: Trust) -> Result<Self, ConnectError> {
        let (bare, zone) = split_zone(text);
        let url = parse_url(&bare).ok_or_else(|| ConnectError::StreamUrl(brief(text), role))?;
        let [whip, whep] = &STREAMS;
        let protocol = match role {
            Role::Publisher => whip,
            Role::Player => whep,
        };
        Ok(Self::new(protocol, url, zone, trust))
    }
}

/// The protocols of streams, which a command chooses: their URLs look alike.
static STREAMS: [Protocol; 2] = [whip::WHIP, whip::WHEP];

/// Returns the back end for a server.
pub(super) fn start(target: &Target, registration: Registration, chance: fn() -> f64) -> Box<dyn Signaller> {
    (target.protocol().start)(target, registration, chance)
}

/// Returns the error for a text of the server that belongs to another protocol than the URL's; none if no other protocol
/// recognises the text.
pub(super) fn foreign(target: &Target, text: &str) -> Option<ConnectError> {
    if (target.protocol().recognises)(text) || speakers(target, text).next().is_none() {
        return None;
    }
    let quoted: String = text.chars().take(MAX_QUOTED).collect();
    let why = format!("it said '{quoted}'; {}", advice(target, Some(text)));
    Some(ConnectError::OtherProtocol(target.name(), why))
}

/// Returns the other protocols that recognise a text.
fn speakers<'a>(target: &'a Target, text: &'a str) -> impl Iterator<Item = &'static Protocol> + 'a {
    let others = PROTOCOLS.iter().filter(|protocol| *protocol != target.protocol());
    others.filter(move |protocol| (protocol.recognises)(text))
}

/// Returns advice for the user of a server that does not answer in the URL's protocol: the URLs to try. `said` is a text of
/// the server, by which its protocol is recognised.
pub(super) fn advice(target: &Target, said: Option<&str>) -> String {
    let known: Vec<&Protocol> = said.into_iter().flat_map(|text| speakers(target, text)).collect();
    let others = || PROTOCOLS.iter().filter(|protocol| *protocol != target.protocol()).collect();
    let mut urls: Vec<String> = vec![];
    if known.is_empty() && target.is_at_root() && target.protocol().usual_path != "/" {
        urls.push(target.like(target.protocol()));
    }
    let is_known = !known.is_empty();
    let candidates: Vec<&Protocol> = if is_known { known } else { others() };
    urls.extend(candidates.into_iter().map(|protocol| target.like(protocol)));
    if !is_known && !target.is_tls() {
        urls.push(format!("this server with TLS is {}", target.with_other_tls()));
    }
    format!("the URL of {}", urls.join(", of "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Target {
        Target::parse(text, Trust::System).unwrap()
    }

    #[test]
    fn the_scheme_chooses_the_protocol_and_nothing_is_guessed() {
        let server = |text| target(text).protocol().server;
        assert_eq!(
            (server("ws://h"), server("WSS://h"), server("h:1")),
            ("a server of rooms", "a server of rooms", "a server of rooms")
        );
        assert_eq!(
            (server("ssp+ws://h/x"), server("ssp+wss://h")),
            ("a server of pools", "a server of pools")
        );
        assert_eq!(server("ssp+https://h"), "a server of pools behind socket.io");
        for wrong in ["http://h", "https://h", "ssp://h", "xmpp+wss://h", "wss://", ""] {
            assert!(Target::parse(wrong, Trust::System).is_err(), "{wrong}");
        }
        // No two protocols share a scheme.
        let mut schemes: Vec<&str> = PROTOCOLS.iter().flat_map(|protocol| protocol.schemes).collect();
        schemes.sort_unstable();
        schemes.dedup();
        assert_eq!(schemes.len(), 2 * PROTOCOLS.len());
    }

    #[test]
    fn a_text_of_another_protocol_names_its_url() {
        let greeting = r#"0{"sid":"x","pingInterval":1,"pingTimeout":1}"#;
        let error = foreign(&target("wss://h"), greeting).unwrap().to_string();
        assert!(
            error.ends_with("the URL of a server of pools behind socket.io is ssp+https://h/socket.io"),
            "{error}"
        );
        assert_eq!(foreign(&target("ws://h"), "HELLO"), None);
        assert_eq!(foreign(&target("ws://h"), "{}"), None, "a text of no protocol");
        // Without a known text the advice names the URLs of all protocols.
        let all = super::advice(&target("ssp+ws://h:1"), None);
        assert!(
            all.contains("ssp+ws://h:1/ssp,") && all.contains(" ws://h:1,") && all.contains("ssp+http://"),
            "{all}"
        );
    }
}
