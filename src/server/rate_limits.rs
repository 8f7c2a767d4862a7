//! The rates that clients may not exceed.
//!
//! Pure: no clock, sockets, files or random numbers.

/// Limits on rates, each a number per second; 0 is no limit. A burst at once may be several times as high.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// New WebSockets and sessions of one owner of addresses (an IPv4 address, or an IPv6 /64 network); loopback is not
    /// limited. Five times as many may come at once.
    pub connects: u32,
    /// Messages of one connection; loopback is not limited. Ten times as many may come at once, and a client beyond that is not
    /// read for a while.
    pub messages: u32,
    /// HTTP requests of one connection, or of a client behind a proxy; socket.io's polling is not limited. Four times as many
    /// may come at once.
    pub requests: u32,
    /// Requests of one key of the API. Twice as many may come at once.
    pub api: u32,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self { connects: 20, messages: 500, requests: 50, api: 50 }
    }
}

/// Returns the burst and the rate of a limit; a limit of 0 is none.
fn limit(rate: u32, burst: u32) -> (u32, u32) {
    match rate {
        0 => (u32::MAX, u32::MAX),
        rate => (rate.saturating_mul(burst), rate),
    }
}

impl RateLimits {
    pub(super) fn connects(&self) -> (u32, u32) {
        limit(self.connects, 5)
    }

    pub(super) fn messages(&self) -> (u32, u32) {
        limit(self.messages, 10)
    }

    pub(super) fn requests(&self) -> (u32, u32) {
        limit(self.requests, 4)
    }

    pub(super) fn api(&self) -> (u32, u32) {
        limit(self.api, 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_a_multiple_of_the_rate() {
        let limits = RateLimits { connects: 3, messages: 0, ..RateLimits::default() };
        assert_eq!((limits.connects(), limits.requests(), limits.api()), ((15, 3), (200, 50), (100, 50)));
        assert_eq!(limits.messages(), (u32::MAX, u32::MAX));
    }
}
