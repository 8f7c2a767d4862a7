//! Parameters of a data channel (RFC 8832).

/// Configuration of a data channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelConfig {
    /// Label of the channel.
    pub label: String,
    /// Whether messages arrive in the order in which they were sent.
    pub ordered: bool,
    /// Maximum number of retransmissions of a lost message; unlimited if `None`.
    pub retransmits: Option<u16>,
}

impl ChannelConfig {
    /// Returns the configuration of an ordered and reliable channel.
    pub fn reliable(label: &str) -> Self {
        Self { label: label.to_owned(), ordered: true, retransmits: None }
    }
}
