//! The attempts to deliver one event.
//!
//! Pure: no clock, sockets, files or random numbers.

use std::fmt;
use std::time::{Duration, Instant};

use crate::base::backoff::Backoff;

/// The pause after the first failed attempt.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(300);
/// The age of an event that is not tried again.
const OLDEST: Duration = Duration::from_secs(3600);

/// The answer to an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// The status of the answer, and the pause that its header `Retry-After` wants.
    Status(u16, Option<Duration>),
    /// No answer came in time; contains the reason.
    None(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status @ 300..=399, _) => {
                write!(f, "it answers {status}, and redirects are not followed")
            }
            Self::Status(status, _) => write!(f, "it answers {status}"),
            Self::None(why) => write!(f, "no answer: {why}"),
        }
    }
}

/// The consequence of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Delivered,
    /// The address wants no further events.
    Ended,
    /// The event is too old to be tried again.
    Lost,
    /// Try again after this pause.
    Again(Duration),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Schedule {
    since: Instant,
    backoff: Backoff,
}

impl Schedule {
    /// Begins with an event that occurred at `since`.
    pub(super) fn new(since: Instant) -> Self {
        Self { since, backoff: Backoff::new(FIRST, LONGEST) }
    }

    /// Judges the answer to an attempt.
    pub(super) fn judge(&mut self, now: Instant, answer: &Answer) -> Verdict {
        let wish = match answer {
            Answer::Status(200..=299, _) => return Verdict::Delivered,
            Answer::Status(410, _) => return Verdict::Ended,
            Answer::Status(_, wish) => *wish,
            Answer::None(_) => None,
        };
        let pause = self.backoff.next_pause(0.0).max(wish.unwrap_or_default().min(LONGEST));
        match now.saturating_duration_since(self.since) + pause > OLDEST {
            true => Verdict::Lost,
            false => Verdict::Again(pause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_become_rare_and_end_after_an_hour() {
        let start = Instant::now();
        let (mut schedule, mut now, mut pauses) = (Schedule::new(start), start, vec![]);
        while let Verdict::Again(pause) = schedule.judge(now, &Answer::Status(500, None)) {
            pauses.push(pause.as_secs());
            now += pause;
        }
        assert_eq!(pauses[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert_eq!(pauses.len(), 19);
        assert!(now <= start + OLDEST && now + LONGEST > start + OLDEST);
    }

    #[test]
    fn the_status_decides() {
        let now = Instant::now();
        let judge = |answer: Answer| Schedule::new(now).judge(now, &answer);
        for status in [200, 202, 204, 299] {
            assert_eq!(judge(Answer::Status(status, None)), Verdict::Delivered);
        }
        assert_eq!(judge(Answer::Status(410, None)), Verdict::Ended);
        for status in [301, 307, 400, 401, 404, 429, 500, 503] {
            assert_eq!(judge(Answer::Status(status, None)), Verdict::Again(FIRST), "{status}");
        }
        assert_eq!(judge(Answer::None("refused".into())), Verdict::Again(FIRST));
        let wish = |seconds| judge(Answer::Status(429, Some(Duration::from_secs(seconds))));
        assert_eq!(wish(7), Verdict::Again(Duration::from_secs(7)));
        assert_eq!(wish(7000), Verdict::Again(LONGEST));
    }
}
