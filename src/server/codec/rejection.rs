//! The answer to a message that is no command for the hub.

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The peer receives this text, and the connection stays.
    Error(String),
    /// The connection is closed with this code and reason.
    Close(u16, &'static str),
}
