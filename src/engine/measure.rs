//! The events of the driver that servers count for their metrics.
//!
//! Pure: no clock, sockets, files or random numbers.

use std::time::Duration;

/// An event of the driver, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// The server attached to the engine.
    Attached,
    /// The engine answered requests that were sent together this time before.
    RoundTrip(Duration),
    /// This number of messages was sent to the inboxes of other servers.
    Sent(usize),
    /// A message was read from the server's inbox.
    Received,
    /// A transaction was executed; false if something had changed, so that the shard plans the change again.
    Transaction(bool),
    /// The mark that each beat leaves in the server's own inbox was read this time after it was sent.
    InboxDelay(Duration),
}
