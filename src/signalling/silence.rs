//! Decides when to ping a silent server, and when to give the connection up. A path can die without notice (an expired
//! NAT binding, a power cut); TCP alone would detect the loss never, or after a quarter of an hour.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::time::{Duration, Instant};

/// The default limit on a server's silence. Every server must answer a WebSocket ping (RFC 6455, 5.5.2).
pub const LONGEST_SILENCE: Duration = Duration::from_secs(42);
/// The lowest limit that a server's settings (socket.io's `pingInterval` and `pingTimeout`) can impose.
const SHORTEST_SILENCE: Duration = Duration::from_secs(5);

/// The next action of the connection driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duty {
    /// Do nothing until this time.
    Wait(Instant),
    /// Send a ping.
    Ping,
    /// The server is gone.
    GiveUp,
}

/// Tracks the silence of one connection.
#[derive(Debug, Clone)]
pub struct Silence {
    longest: Duration,
    heard: Instant,
    is_pinged: bool,
}

impl Silence {
    /// Returns the state of a connection that was just opened and may be silent for `longest`.
    pub fn new(now: Instant, longest: Duration) -> Self {
        Self { longest, heard: now, is_pinged: false }
    }

    /// Lowers the limit to a value from the server, but not below 5 s; ignores a higher value.
    pub fn shorten(&mut self, longest: Duration) {
        self.longest = self.longest.min(longest.max(SHORTEST_SILENCE));
    }

    /// Records the time at which bytes last arrived.
    pub fn heard(&mut self, at: Instant) {
        if at > self.heard {
            self.heard = at;
            self.is_pinged = false;
        }
    }

    /// Records that a ping was sent.
    pub fn pinged(&mut self) {
        self.is_pinged = true;
    }

    /// Returns the limit on the server's silence.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// Returns the next action. The ping is due after two thirds of the limit: later than most servers send their own
    /// pings (20 to 25 s), so usually only one side pings.
    pub fn duty(&self, now: Instant) -> Duty {
        let (ping_at, gone_at) = (self.heard + self.longest * 2 / 3, self.heard + self.longest);
        if now >= gone_at {
            Duty::GiveUp
        } else if self.is_pinged {
            Duty::Wait(gone_at)
        } else if now >= ping_at {
            Duty::Ping
        } else {
            Duty::Wait(ping_at)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulates a server that answers pings until the second `dies`; returns the second of giving up, and the number
    /// of pings.
    fn gone_at(dies: u64, says_every: Option<u64>) -> (u64, usize) {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut silence = Silence::new(start, LONGEST_SILENCE);
        let mut pings = 0;
        for at in 0..100_000 {
            let now = start + second * at;
            let lives = u64::from(at) < dies;
            if lives && says_every.is_some_and(|every| u64::from(at).is_multiple_of(every)) {
                silence.heard(now);
            }
            match silence.duty(now) {
                Duty::Wait(until) => assert!(until > now),
                Duty::Ping => {
                    pings += 1;
                    silence.pinged();
                    if lives {
                        silence.heard(now);
                    }
                }
                Duty::GiveUp => return (u64::from(at), pings),
            }
        }
        panic!("it is believed for ever");
    }

    #[test]
    fn a_server_that_dies_is_missed_within_45_seconds() {
        for dies in [0, 1, 27, 28, 29, 3600, 86_400] {
            for says_every in [None, Some(1), Some(25), Some(3600)] {
                let (gone, _) = gone_at(dies, says_every);
                assert!(gone >= dies, "missed while it lived");
                assert!(gone - dies <= 45, "{} s after its death", gone - dies);
            }
        }
    }

    #[test]
    fn a_server_that_pings_by_itself_is_not_pinged() {
        assert_eq!(gone_at(3600, Some(25)).1, 1, "after its death alone");
    }

    #[test]
    fn the_servers_own_bound_can_only_shorten() {
        let mut silence = Silence::new(Instant::now(), LONGEST_SILENCE);
        silence.shorten(Duration::from_secs(3600));
        assert_eq!(silence.longest(), LONGEST_SILENCE);
        silence.shorten(Duration::from_secs(10));
        assert_eq!(silence.longest(), Duration::from_secs(10));
        silence.shorten(Duration::ZERO);
        assert_eq!(silence.longest(), SHORTEST_SILENCE);
    }
}
