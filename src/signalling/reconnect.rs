//! When a client tries again to reach its server, and when it ends. The same rules hold for all protocols. Pure: time
//! and chance come in as arguments.
//!
//! docs/reconnect.md shows the table of [`verdict`] and what was measured.

use std::time::{Duration, Instant, UNIX_EPOCH};

/// The first pause after a failure; each failure more doubles it.
pub const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause. With an attempt that takes [`ATTEMPT`] at most, a client is back within 30 s of its server.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How long one attempt may take: the connection, TLS, the registration and the way into a room together.
pub const ATTEMPT: Duration = Duration::from_secs(15);
/// How long a registration must have held to count as a success. Only then do the pauses begin anew.
pub const HELD: Duration = Duration::from_secs(30);
/// The longest `Retry-After` (RFC 9110, 10.2.3) that is obeyed.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

/// How many connects may follow each other without a pause (a token bucket of this size).
const BURST: u32 = 6;
/// How often one connect more is allowed. In 15 s there are at most 6 + 2 connects, in a minute at most 6 + 8.
const REFILL: Duration = Duration::from_millis(7500);

/// Why there is no registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The address, or a file of certificates or keys, cannot be used.
    Settings,
    /// Nothing answers at the address: no route, refused, reset, no answer in time.
    Unreachable,
    /// The HTTP proxy refuses or wants a password.
    Proxy,
    /// The server's certificate is not trusted.
    Certificate,
    /// TLS failed in another way.
    Tls,
    /// The answer is HTTP, but no WebSocket: 200 with a page, 404, a redirection.
    NotWebSocket,
    /// 429 or 5xx: too many clients, or a server that restarts behind its balancer.
    Overloaded,
    /// 401 or 403 of somebody who does not say that the token has ended.
    Denied,
    /// 401 with `error="invalid_token"` (RFC 6750, 3.1): the token has ended or was revoked.
    TokenEnded,
    /// The server speaks another protocol at this path.
    OtherProtocol,
    /// The server took the connection and says nothing.
    Silent,
    /// The server, or the path to it, ended the connection.
    Closed,
    /// The server refused in words: the id is taken, the room is full.
    Refused,
    /// The server sent this client away: close code 1008 (RFC 6455, 7.4.1), or `rtc:stop`.
    Dismissed,
    /// Something that has nothing to do with the server.
    Own,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 15] = [
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
        Self::Own,
    ];
}

/// Whether a client was registered before (in a room, where it wants to be in one).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The client was never registered: the user sees at once what is wrong.
    BeforeFirstSuccess,
    /// The client was registered once, so what it was told is right, and the fault is the server's or the network's.
    AfterFirstSuccess,
}

/// What a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The client ends with an error.
    End,
    /// The client tries again after a pause.
    Retry,
}

/// Decides between an end and another attempt. After the first success only a token that has ended, a dismissal and
/// an error of the client's own end it.
pub fn verdict(cause: Cause, stage: Stage) -> Verdict {
    match (stage, cause) {
        (Stage::BeforeFirstSuccess, _) => Verdict::End,
        (Stage::AfterFirstSuccess, Cause::TokenEnded | Cause::Dismissed | Cause::Own) => Verdict::End,
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

/// How a registration, or an attempt at one, came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// In a failure; the server may have said how long to stay away.
    Failed(Option<Duration>),
    /// In order, but for nothing: a session of two that never was connected is over.
    InOrder,
    /// A call that was connected is over, which in the protocol of calls takes the registration with it.
    CallOver,
}

/// Paces the connects of one client: a backoff that grows until a registration has held, and a token bucket.
#[derive(Debug, Clone, Default)]
pub struct Reconnect {
    failures: u32,
    registered: Option<Instant>,
    /// When the token bucket will be full again; none if it is full.
    full_at: Option<Instant>,
}

impl Reconnect {
    /// Notes that a connect begins.
    pub fn connects(&mut self, now: Instant) {
        let from = self.full_at.map_or(now, |at| at.max(now));
        self.full_at = Some(from + REFILL);
    }

    /// Notes that the client is registered.
    pub fn registered(&mut self, now: Instant) {
        self.registered = Some(now);
    }

    /// Returns how long to wait before the next connect. `chance` (0 to 1) takes away up to half of a growing pause,
    /// so that the clients of a server that restarts do not come all at once.
    pub fn pause(&mut self, now: Instant, ended: Ended, chance: f64) -> Duration {
        let held = self.registered.take().is_some_and(|at| now.saturating_duration_since(at) >= HELD);
        if held {
            self.failures = 0;
        }
        let grown = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        let grown = grown.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0);
        let pause = match ended {
            Ended::CallOver => Duration::ZERO,
            Ended::InOrder if self.failures == 0 => Duration::ZERO,
            Ended::InOrder | Ended::Failed(None) => grown,
            Ended::Failed(Some(asked)) => asked.min(LONGEST_RETRY_AFTER) + grown,
        };
        if ended != Ended::CallOver {
            self.failures = self.failures.saturating_add(1);
        }
        pause.max(self.next_token(now))
    }

    /// How long until the token bucket allows a connect.
    fn next_token(&self, now: Instant) -> Duration {
        let until_full = self.full_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        until_full.saturating_sub(REFILL * (BURST - 1))
    }
}

/// Reads `Retry-After` (RFC 9110, 10.2.3): seconds, or a date, which counts from `now` (since 1970). Returns nothing
/// where the value is neither.
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
        assert_eq!(after, [Cause::TokenEnded, Cause::Dismissed, Cause::Own]);
        // The table of the documentation has a row for each.
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
    fn what_the_server_asks_for_is_obeyed_within_a_bound() {
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

    /// What a server does to one attempt, and for how long: seconds.
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
        /// Whatever servers, proxies and callers do: at most 9 connects in 15 s, at most 14 in a minute, and an
        /// attempt that begins and ends within 30 s of the server's return, unless the server asked for more.
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
