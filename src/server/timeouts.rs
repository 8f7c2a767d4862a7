//! The time limits of a server.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::time::Duration;

/// The time limits for clients.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For the TLS handshake, and again for the head of each HTTP request.
    pub handshake: Duration,
    /// For the registration.
    pub hello: Duration,
    /// The interval between pings.
    pub ping: Duration,
    /// The longest time without a sign of life, such as the answer to a ping.
    pub silence: Duration,
    /// For the body of an HTTP request to arrive.
    pub body: Duration,
    /// For the peer to read any of the data that waits to be sent.
    pub unread: Duration,
    /// For the messages of one peer to wait for a receiver that does not read: the sender is not read meanwhile, and
    /// refused afterwards.
    pub held: Duration,
    /// For the peer to close its side of a connection that the server has closed: its data is read and dropped
    /// meanwhile, since a reset could destroy the server's close frame.
    pub closing: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            handshake: seconds(10),
            hello: seconds(30),
            ping: seconds(25),
            silence: seconds(70),
            body: seconds(30),
            unread: seconds(20),
            held: seconds(10),
            closing: seconds(2),
        }
    }
}
