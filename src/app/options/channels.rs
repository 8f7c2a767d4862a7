//! Options of data channels.

use crate::app::channel::{BridgeConfig, Endpoint};

/// Data channels of a client.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Data channels")]
pub struct ChannelOptions {
    /// Open a data channel that is joined to stdin and stdout, a file, or a TCP port of this machine; may be
    /// repeated
    ///
    /// The label is followed by options, each after a colon: ordered, unordered, retransmits=N (most
    /// retransmissions of a lost message), lines (each line is a text message), and one of tcp=PORT (connect to the
    /// port), listen=PORT (accept a connection on the port), send=FILE, save=FILE. Without one of these the channel
    /// is joined to stdin and stdout, and no commands are read from stdin. A channel ends with its file, its
    /// connection or stdin, or when the peer closes it.
    #[arg(long, value_name = "LABEL[:OPTION]...")]
    pub channel: Vec<BridgeConfig>,
}

impl ChannelOptions {
    /// Returns whether a channel is joined to stdin and stdout.
    pub fn uses_stdio(&self) -> bool {
        self.channel.iter().any(|one| one.endpoint == Endpoint::Stdio)
    }

    /// Checks that each label, and stdin, is used by one channel only.
    pub fn check(&self) -> Result<(), ChannelsError> {
        let mut labels: Vec<&str> = self.channel.iter().map(|one| one.channel.label.as_str()).collect();
        labels.sort_unstable();
        if let Some(pair) = labels.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ChannelsError::Twice(pair[0].to_owned()));
        }
        match self.channel.iter().filter(|one| one.endpoint == Endpoint::Stdio).count() {
            0 | 1 => Ok(()),
            _ => Err(ChannelsError::Stdio),
        }
    }
}

/// Data channels that cannot exist side by side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelsError {
    /// Two channels have the same label.
    #[error("two data channels have the label '{0}'; each needs a label of its own")]
    Twice(String),
    /// Two channels are joined to stdin and stdout.
    #[error("two data channels are joined to stdin and stdout; only one can be")]
    Stdio,
}
