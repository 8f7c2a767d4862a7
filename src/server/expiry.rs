//! The end of a client's permissions, if its server enforces it: the client is told before, and may renew them.
//!
//! Pure: no clock, sockets, files or random numbers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::limit::Bucket;
use crate::hub::Grant;

/// How long before the end the client is told.
pub(super) const NOTICE: Duration = Duration::from_secs(25);
/// How long after a refusal that holds for now the client is told again.
const PAUSE: Duration = Duration::from_secs(5);

/// The permissions of a client that was admitted.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Admission {
    pub(super) grant: Grant,
    /// The time at which the connection ends if the permissions are not renewed.
    pub(super) until: Option<Instant>,
}

/// The refusal of a client's next token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// The reason, as a text for the client.
    pub(super) why: String,
    /// The same token may be accepted later.
    pub(super) is_for_now: bool,
}

/// Verifies a token that a connected client shows.
pub(super) type Verify =
    Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<Admission, Refused>> + Send>> + Send + Sync>;

/// The bounds of one connection: the end of its permissions, the way to renew them, and its rate.
#[derive(Default)]
pub(super) struct Lease {
    pub(super) until: Option<Instant>,
    pub(super) verify: Option<Verify>,
    /// The limit on the messages of the peer.
    pub(super) limit: Option<Bucket>,
}

/// The action that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Tell the client that its permissions end in so many seconds.
    Notice(u64),
    End,
}

/// The timer of one connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Expiry {
    until: Option<Instant>,
    /// The time of the next notice to the client, if another one follows.
    notice: Option<Instant>,
}

impl Expiry {
    pub(super) fn new(until: Option<Instant>) -> Self {
        let notice = until.map(|until| until.checked_sub(NOTICE).unwrap_or(until));
        Self { until, notice }
    }

    /// Notes that the next token was refused for now: the client is told again, so that it shows a token again.
    pub(super) fn repeat(&mut self, now: Instant) {
        self.notice.get_or_insert(now + PAUSE);
    }

    /// Returns the time at which to call [`Expiry::due`] again.
    pub(super) fn next(&self, is_registered: bool) -> Option<Instant> {
        let until = self.until?;
        Some(self.notice.filter(|_| is_registered).map_or(until, |notice| notice.min(until)))
    }

    /// Returns the action that is due. A client is told once it is registered.
    pub(super) fn due(&mut self, now: Instant, is_registered: bool) -> Due {
        let Some(until) = self.until else { return Due::Nothing };
        if now >= until {
            return Due::End;
        }
        if !is_registered || self.notice.is_none_or(|notice| now < notice) {
            return Due::Nothing;
        }
        self.notice = None;
        Due::Notice(until.duration_since(now).as_millis().div_ceil(1000) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_whose_token_cannot_be_read_now_is_told_again() {
        let (start, seconds) = (Instant::now(), Duration::from_secs);
        let mut expiry = Expiry::new(Some(start + seconds(60)));
        // A refusal before the first notice changes nothing.
        expiry.repeat(start);
        assert_eq!(expiry.next(true), Some(start + seconds(35)));
        assert_eq!(expiry.due(start + seconds(35), true), Due::Notice(25));
        expiry.repeat(start + seconds(36));
        assert_eq!(expiry.next(true), Some(start + seconds(41)));
        assert_eq!(expiry.due(start + seconds(40), true), Due::Nothing);
        assert_eq!(expiry.due(start + seconds(41), true), Due::Notice(19));
        expiry.repeat(start + seconds(58));
        assert_eq!(expiry.next(true), Some(start + seconds(60)));
        assert_eq!(expiry.due(start + seconds(60), true), Due::End);
        let mut never = Expiry::new(None);
        never.repeat(start);
        assert_eq!((never.next(true), never.due(start + seconds(9), true)), (None, Due::Nothing));
    }

    #[test]
    fn a_client_is_told_once_and_ends_in_time() {
        let (start, seconds) = (Instant::now(), Duration::from_secs);
        let mut expiry = Expiry::new(Some(start + seconds(60)));
        assert_eq!(expiry.due(start, true), Due::Nothing);
        assert_eq!(
            (expiry.next(true), expiry.next(false)),
            (Some(start + seconds(35)), Some(start + seconds(60)))
        );
        assert_eq!(expiry.due(start + seconds(35), false), Due::Nothing);
        assert_eq!(expiry.due(start + seconds(35), true), Due::Notice(25));
        assert_eq!(expiry.next(true), Some(start + seconds(60)));
        assert_eq!(expiry.due(start + seconds(59), true), Due::Nothing);
        assert_eq!(expiry.due(start + seconds(60), true), Due::End);
        // A token that ends soon is announced at once.
        assert_eq!(Expiry::new(Some(start + Duration::from_millis(3500))).due(start, true), Due::Notice(4));
        assert_eq!(Expiry::new(Some(start)).due(start, false), Due::End);
        let mut never = Expiry::new(None);
        assert_eq!((never.next(true), never.due(start + seconds(1 << 30), true)), (None, Due::Nothing));
    }
}
