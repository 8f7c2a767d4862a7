//! Bridges of data channels as a user writes them: `LABEL[:OPTION]…`.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::path::PathBuf;
use std::str::FromStr;

use crate::protocol::ChannelConfig;

/// A data channel, and the endpoint on this machine that it is bridged to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeConfig {
    /// The channel.
    pub channel: ChannelConfig,
    /// Sends each line as a text message, and not bytes as they arrive.
    pub lines: bool,
    /// The endpoint.
    pub endpoint: Endpoint,
}

/// Endpoint of a bridge on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Standard input is sent to all peers; received data is written to standard output.
    Stdio,
    /// The file is sent to each peer, and the channel closed.
    Send(PathBuf),
    /// Received data is saved in a file, which is complete when the channel is closed; `{peer}` in the path stands for the
    /// peer's id.
    Save(String),
    /// A TCP connection to that port of this machine is opened for each peer.
    Tcp(u16),
    /// Each TCP connection to that port of this machine is bridged to one peer.
    Listen(u16),
}

/// Error: a text describes no channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}; a channel is LABEL[:ordered|unordered][:retransmits=N][:lines] and at most one of \
     :tcp=PORT, :listen=PORT, :send=FILE, :save=FILE (else it is stdin and stdout)"
)]
pub struct WrongChannel(String);

/// Maximum length of a label in bytes, so that the label fits into one small message (RFC 8832).
const MAX_LABEL: usize = 256;

impl FromStr for BridgeConfig {
    type Err = WrongChannel;

    fn from_str(text: &str) -> Result<Self, WrongChannel> {
        let wrong = |why: String| WrongChannel(why);
        let (label, mut rest) =
            text.split_once(':').map_or((text, None), |(label, rest)| (label, Some(rest)));
        if label.is_empty() || label.len() > MAX_LABEL {
            return Err(wrong(format!("'{label}' is no label, of 1 to {MAX_LABEL} bytes")));
        }
        let mut config =
            Self { channel: ChannelConfig::reliable(label), lines: false, endpoint: Endpoint::Stdio };
        while let Some(options) = rest {
            // A path may contain any character, so it is the last option.
            let (option, more) = match options {
                path if path.starts_with("send=") || path.starts_with("save=") => (path, None),
                options => options.split_once(':').map_or((options, None), |(one, more)| (one, Some(more))),
            };
            rest = more;
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let port = || match value.parse() {
                Ok(port) if port > 0 => Ok(port),
                Ok(_) | Err(_) => Err(wrong(format!("'{value}' is no port"))),
            };
            let endpoint = match (name, value) {
                ("ordered", "") => {
                    config.channel.ordered = true;
                    continue;
                }
                ("unordered", "") => {
                    config.channel.ordered = false;
                    continue;
                }
                ("lines", "") => {
                    config.lines = true;
                    continue;
                }
                ("retransmits", times) => {
                    let times =
                        times.parse().map_err(|_| wrong(format!("'{times}' is no number of times")))?;
                    config.channel.retransmits = Some(times);
                    continue;
                }
                ("tcp", _) => Endpoint::Tcp(port()?),
                ("listen", _) => Endpoint::Listen(port()?),
                ("send", path) if !path.is_empty() => Endpoint::Send(path.into()),
                ("save", path) if !path.is_empty() => Endpoint::Save(path.to_owned()),
                _ => return Err(wrong(format!("'{option}' is no option of a channel"))),
            };
            if std::mem::replace(&mut config.endpoint, endpoint) != Endpoint::Stdio {
                return Err(wrong(format!("'{label}' is joined to two things")));
            }
        }
        // A file is useless with parts missing or in another order.
        let is_loose = !config.channel.ordered || config.channel.retransmits.is_some();
        if is_loose && matches!(config.endpoint, Endpoint::Send(_) | Endpoint::Save(_)) {
            return Err(wrong(format!("'{label}' is to carry a file, and may lose or mix up parts of it")));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<BridgeConfig, String> {
        text.parse().map_err(|error: WrongChannel| error.0)
    }

    #[test]
    fn a_channel_is_a_label_with_options() {
        let plain = parse("robot").unwrap();
        assert_eq!((plain.channel, plain.endpoint), (ChannelConfig::reliable("robot"), Endpoint::Stdio));
        let loose = parse("robot:unordered:retransmits=0:lines:tcp=9000").unwrap();
        assert_eq!((loose.channel.ordered, loose.channel.retransmits), (false, Some(0)));
        assert!(loose.lines);
        assert_eq!(loose.endpoint, Endpoint::Tcp(9000));
        assert_eq!(parse("a:listen=1:ordered").unwrap().endpoint, Endpoint::Listen(1));
        assert_eq!(parse("f:send=C:\\x:y=z").unwrap().endpoint, Endpoint::Send("C:\\x:y=z".into()));
        assert_eq!(
            parse("f:save=/tmp/{peer}:lines").unwrap().endpoint,
            Endpoint::Save("/tmp/{peer}:lines".into())
        );
    }

    #[test]
    fn an_invalid_channel_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "'' is no label, of 1 to 256 bytes"),
            (":lines", "'' is no label, of 1 to 256 bytes"),
            ("a:tcp=0", "'0' is no port"),
            ("a:tcp", "'' is no port"),
            ("a:listen=70000", "'70000' is no port"),
            ("a:retransmits=often", "'often' is no number of times"),
            ("a:send=", "'send=' is no option of a channel"),
            ("a:sorted", "'sorted' is no option of a channel"),
            ("a:tcp=1:listen=2", "'a' is joined to two things"),
            ("a:unordered:send=x", "'a' is to carry a file, and may lose or mix up parts of it"),
        ] {
            assert_eq!(parse(text).unwrap_err(), why, "{text}");
        }
        assert!(parse(&"x".repeat(257)).is_err());
    }
}
