//! The answer to a message that is no command for the hub. Pure.

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The peer is told, and the connection stays.
    Error(String),
    /// The connection ends with this code and these words.
    Close(u16, &'static str),
}
