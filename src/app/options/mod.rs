//! Options of a client's media and connections.
//!
//! Each group is one struct that describes its options (name, parser, default, help) and holds their values. The
//! command line fills it from flags, environment and configuration file, and passes it down whole.

mod channels;
mod connection;
mod paths;
mod receive;
mod send;

pub use channels::{ChannelOptions, ChannelsError};
pub use connection::ConnectionOptions;
pub use paths::{Interface, PathOptions};
pub use receive::{NONE, ReceiveOptions};
pub use send::{BitrateError, SendOptions};

/// All options of a client's media and connections.
#[derive(Debug, Clone, clap::Args)]
#[command(mut_arg("send_only", |option| option.conflicts_with("receive_only")))]
pub struct MediaOptions {
    /// Media that the client sends.
    #[command(flatten)]
    pub send: SendOptions,
    /// Use of the media that the client receives.
    #[command(flatten)]
    pub receive: ReceiveOptions,
    /// Data channels.
    #[command(flatten)]
    pub channels: ChannelOptions,
    /// Supervision of the connections.
    #[command(flatten)]
    pub connection: ConnectionOptions,
    /// Paths to peers.
    #[command(flatten)]
    pub paths: PathOptions,
}

impl MediaOptions {
    /// Checks the rules between several options.
    pub fn check(&self) -> Result<(), OptionError> {
        self.channels.check()?;
        self.send.rates()?;
        Ok(())
    }
}

/// Options that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// The bitrates are not in ascending order.
    #[error(transparent)]
    Bitrate(#[from] BitrateError),
    /// The data channels cannot exist side by side.
    #[error(transparent)]
    Channels(#[from] ChannelsError),
}
