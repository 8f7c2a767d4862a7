//! A data channel as it is asked for (RFC 8832).

/// How a data channel is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelConfig {
    /// Its name.
    pub label: String,
    /// Messages come in the order that they were sent in.
    pub ordered: bool,
    /// How often a lost message is sent again; as often as it takes where nothing is said.
    pub retransmits: Option<u16>,
}

impl ChannelConfig {
    /// Returns an ordered and reliable one.
    pub fn reliable(label: &str) -> Self {
        Self { label: label.to_owned(), ordered: true, retransmits: None }
    }
}
