//! Decides whether and when a client reconnects to its server. The same rules apply to all protocols. Time and
//! chance come in as arguments.
//!
//! docs/reconnect.md contains the table of [`verdict`] and the measurements.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::base::backoff::Backoff;

/// The first pause after a failure; each further failure doubles the pause.
pub const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause. Together with one attempt of [`ATTEMPT`] a client is back within 30 s of its server.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// The time limit of one attempt: TCP, TLS, the registration and entering a room together.
pub const ATTEMPT: Duration = Duration::from_secs(15);
/// The time a registration must hold to count as a success and to reset the backoff.
pub const HELD: Duration = Duration::from_secs(30);
/// The upper bound on a server's `Retry-After` (RFC 9110, 10.2.3).
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// The size of the token bucket: the number of connects that may follow each other without a pause.
const BURST: u32 = 6;
/// The time to regain one token. At most 6 + 2 connects follow the first in 15 s, at most 6 + 8 in a minute.
const REFILL: Duration = Duration::from_millis(7500);

/// The reason why a registration failed or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The server's address, or a file of certificates or keys, cannot be used.
    Settings,
    /// The TCP connection failed: no route, refused, reset, or no answer in time.
    Unreachable,
    /// The HTTP proxy opens no tunnel: a wrong setting, no connection, a refusal, or a missing password.
    Proxy,
    /// The server's certificate is not trusted.
    Certificate,
    /// TLS failed in another way.
    Tls,
    /// The response is not a WebSocket upgrade: 200 with a page, 404, a redirection, or not HTTP.
    NotWebSocket,
    /// 429 or 5xx: too many clients, or a server that restarts behind its balancer.
    Overloaded,
    /// Access denied without `invalid_token`: 401, 403 or 421, or socket.io's connect error.
    Denied,
    /// 401 with `error="invalid_token"` (RFC 6750, 3.1): the token has expired or was revoked.
    TokenEnded,
    /// The server speaks another protocol at this path.
    OtherProtocol,
    /// The server accepted the connection and sends nothing.
    Silent,
    /// The connection ended, at the server or on the path.
    Closed,
    /// The server refused with an error message: the id is taken, the room is full.
    Refused,
    /// The server dismissed this client: close code 1008 (RFC 6455, 7.4.1), or `rtc:stop`.
    Dismissed,
}

impl Cause {
    /// All causes, for tables and tests.
    pub const ALL: [Self; 14] = [
        Self::Settings,
        Self::Unreachable,
        Self::Proxy,
        Self::Certificate,
        Self::Tls,
        Self::NotWebSocket,
        Self::Overloaded,
        Self::Denied,
        Self::TokenEnded,
        Self::OtherProtocol,
        Self::Silent,
        Self::Closed,
        Self::Refused,
        Self::Dismissed,
    ];
}

/// Tells whether the client was registered before (and in its room, if it joins one).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The client was never registered: ending at once shows the user a wrong setting.
    BeforeFirstSuccess,
    /// The client was registered before: its settings are right, and the fault is the server's or the network's.
    AfterFirstSuccess,
}

/// The decision about another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The client ends with an error.
    End,
    /// The client tries again after a pause.
    Retry,
}

/// Decides between ending and another attempt. After the first success, only an expired token and a dismissal end the
/// client.
pub fn verdict(cause: Cause, stage: Stage) -> Verdict {
    match (stage, cause) {
        (Stage::BeforeFirstSuccess, _) => Verdict::End,
        (Stage::AfterFirstSuccess, Cause::TokenEnded | Cause::Dismissed) => Verdict::End,
        (
            Stage::AfterFirstSuccess,
            Cause::Settings
            | Cause::Unreachable
            | Cause::Proxy
            | Cause::Certificate
            | Cause::Tls
            | Cause::NotWebSocket
            | Cause::Overloaded
            | Cause::Denied
            | Cause::OtherProtocol
            | Cause::Silent
            | Cause::Closed
            | Cause::Refused,
        ) => Verdict::Retry,
    }
}

/// The outcome of a registration, or of an attempt to register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// A failure, with the server's `Retry-After` if it sent one.
    Failed(Option<Duration>),
    /// An orderly end without a call: a session of two closed before the media path was connected.
    InOrder,
    /// The end of a connected call, which in the HELLO/SESSION protocol also ends the registration.
    CallOver,
}

/// Paces the connects of one client: a backoff that resets after a registration has held, and a token bucket.
#[derive(Debug, Clone)]
pub struct Reconnect {
    backoff: Backoff,
    registered: Option<Instant>,
    /// The time at which the token bucket is full again; none if it is full.
    full_at: Option<Instant>,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE), registered: None, full_at: None }
    }
}

impl Reconnect {
    /// Records the start of a connect.
    pub fn connects(&mut self, now: Instant) {
        let from = self.full_at.map_or(now, |at| at.max(now));
        self.full_at = Some(from + REFILL);
    }

    /// Records a successful registration.
    pub fn registered(&mut self, now: Instant) {
        self.registered = Some(now);
    }

    /// Returns the pause before the next connect. `chance` (0 to 1) shortens a backoff pause by up to one half, to
    /// spread the clients of a server that restarts.
    pub fn pause(&mut self, now: Instant, ended: Ended, chance: f64) -> Duration {
        let held = self.registered.take().is_some_and(|at| now.saturating_duration_since(at) >= HELD);
        if held {
            self.backoff.reset();
        }
        let pause = match ended {
            Ended::CallOver => Duration::ZERO,
            Ended::InOrder if self.backoff.is_fresh() => {
                self.backoff.next_pause(chance);
                Duration::ZERO
            }
            Ended::InOrder | Ended::Failed(None) => self.backoff.next_pause(chance),
            Ended::Failed(Some(asked)) => asked.min(LONGEST_RETRY_AFTER) + self.backoff.next_pause(chance),
        };
        pause.max(self.next_token(now))
    }

    /// Returns the time until the token bucket allows a connect.
    fn next_token(&self, now: Instant) -> Duration {
        let until_full = self.full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        until_full.saturating_sub(REFILL * (BURST - 1))
    }
}

/// Parses `Retry-After` (RFC 9110, 10.2.3): seconds, or a date, from which `now` (since 1970) is subtracted. Returns
/// none if the value is neither.
pub fn retry_after(value: &str, now: Duration) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(date.saturating_sub(now))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn after_the_first_success_only_a_token_a_dismissal_and_the_user_end_a_client() {
        let ends = |stage| Cause::ALL.into_iter().filter(move |cause| verdict(*cause, stage) == Verdict::End);
        assert_eq!(ends(Stage::BeforeFirstSuccess).count(), Cause::ALL.len());
        let after: Vec<Cause> = ends(Stage::AfterFirstSuccess).collect();
        assert_eq!(after, [Cause::TokenEnded, Cause::Dismissed]);
        // The table in the documentation has one row per cause.
        let page = include_str!("../../docs/reconnect.md");
        for cause in Cause::ALL {
            let before = "ends";
            let after = if after.contains(&cause) { "ends" } else { "tries again" };
            let row = page.lines().find(|line| line.starts_with(&format!("| `{cause:?}` |")));
            let row = row.unwrap_or_else(|| panic!("docs/reconnect.md has no row for {cause:?}"));
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            assert!(cells[3].starts_with(before) && cells[4] == after, "{row}");
        }
    }

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew_when_a_registration_has_held() {
        let (mut reconnect, mut now) = (Reconnect::default(), Instant::now());
        let mut pauses = vec![];
        for _ in 0..7 {
            let pause = reconnect.pause(now, Ended::Failed(None), 0.0);
            pauses.push(pause.as_millis());
            now += pause;
            reconnect.connects(now);
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 15000, 15000]);
        reconnect.registered(now);
        let short = reconnect.pause(now + Duration::from_secs(29), Ended::Failed(None), 1.0);
        assert_eq!(short, LONGEST_PAUSE / 2, "29 s are no success");
        reconnect.registered(now);
        assert_eq!(reconnect.pause(now + HELD, Ended::Failed(None), 0.0), FIRST_PAUSE);
    }

    #[test]
    fn a_call_that_is_over_is_followed_at_once_until_the_bucket_is_empty() {
        let (mut reconnect, now) = (Reconnect::default(), Instant::now());
        for _ in 0..BURST {
            assert_eq!(reconnect.pause(now, Ended::CallOver, 0.0), Duration::ZERO);
            reconnect.connects(now);
        }
        assert_eq!(reconnect.pause(now, Ended::CallOver, 0.0), REFILL);
    }

    #[test]
    fn a_pause_that_the_server_requests_is_kept_within_a_bound() {
        let now = Instant::now();
        let pause = |asked| Reconnect::default().pause(now, Ended::Failed(Some(asked)), 0.0);
        assert_eq!(pause(Duration::from_secs(20)), Duration::from_secs(20) + FIRST_PAUSE);
        assert_eq!(pause(Duration::from_secs(86_400)), LONGEST_RETRY_AFTER + FIRST_PAUSE);
        let at = Duration::from_secs(784_111_777 - 60);
        assert_eq!(retry_after(" 120 ", at), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", at), Some(Duration::from_secs(60)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:40:37 GMT", at), Some(Duration::ZERO));
        assert_eq!((retry_after("soon", at), retry_after("-1", at)), (None, None));
    }

    /// The outcome of one simulated attempt; all times in seconds.
    #[derive(Debug, Clone, Copy)]
    enum Attempt {
        Fails { takes: f64, asks: Option<u64> },
        Registers { takes: f64, holds: f64, ended: Ended },
    }

    fn attempt() -> impl Strategy<Value = Attempt> {
        let ended = prop_oneof![Just(Ended::Failed(None)), Just(Ended::InOrder), Just(Ended::CallOver)];
        let takes = || prop_oneof![Just(0.0), 0.0..ATTEMPT.as_secs_f64()];
        let holds = prop_oneof![Just(0.0), 0.0..5.0, 0.0..90.0, Just(HELD.as_secs_f64())];
        prop_oneof![
            2 => (takes(), prop::option::weighted(0.2, 0..400_u64)).prop_map(|(takes, asks)| Attempt::Fails { takes, asks }),
            3 => (takes(), holds, ended).prop_map(|(takes, holds, ended)| Attempt::Registers { takes, holds, ended }),
        ]
    }

    proptest! {
        /// For any sequence of outcomes: at most 9 connects in 15 s, at most 14 in a minute, and a whole attempt within
        /// 30 s of the server's return, unless the server asked for a longer wait.
        #[test]
        fn no_storm_and_no_long_absence(
            attempts in prop::collection::vec((attempt(), 0.0..=1.0), 1..80)
        ) {
            let (mut reconnect, mut now) = (Reconnect::default(), Instant::now());
            let mut connects = vec![];
            for (attempt, chance) in attempts {
                reconnect.connects(now);
                connects.push(now);
                let (takes, ended) = match attempt {
                    Attempt::Fails { takes, asks } => (takes, Ended::Failed(asks.map(Duration::from_secs))),
                    Attempt::Registers { takes, holds, ended } => {
                        now += Duration::from_secs_f64(takes);
                        reconnect.registered(now);
                        (holds, ended)
                    }
                };
                now += Duration::from_secs_f64(takes);
                let pause = reconnect.pause(now, ended, chance);
                let asked = match ended {
                    Ended::Failed(Some(asked)) => asked.min(LONGEST_RETRY_AFTER),
                    Ended::Failed(None) | Ended::InOrder | Ended::CallOver => Duration::ZERO,
                };
                prop_assert!(pause >= asked);
                prop_assert!(pause + ATTEMPT <= asked + Duration::from_secs(30), "away for {pause:?}");
                now += pause;
            }
            for (first, begin) in connects.iter().enumerate() {
                let within = |seconds| {
                    let end = *begin + Duration::from_secs(seconds);
                    connects[first..].iter().filter(|at| **at <= end).count()
                };
                prop_assert!(within(15) <= 9, "{} in 15 s", within(15));
                prop_assert!(within(60) <= 14, "{} in a minute", within(60));
            }
        }
    }
}
