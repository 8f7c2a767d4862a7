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

/// The permissions of a client that was admitted.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Admission {
    pub(super) grant: Grant,
    /// The time at which the connection ends if the permissions are not renewed.
    pub(super) until: Option<Instant>,
}

/// Verifies a token that a connected client shows; the error is a text for the client.
pub(super) type Verify =
    Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<Admission, String>> + Send>> + Send + Sync>;

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
    is_told: bool,
}

impl Expiry {
    pub(super) fn new(until: Option<Instant>) -> Self {
        Self { until, is_told: false }
    }

    /// Returns the time at which to call [`Expiry::due`] again.
    pub(super) fn next(&self, is_registered: bool) -> Option<Instant> {
        let until = self.until?;
        Some(if self.is_told || !is_registered { until } else { until.checked_sub(NOTICE).unwrap_or(until) })
    }

    /// Returns the action that is due. A client is told once it is registered.
    pub(super) fn due(&mut self, now: Instant, is_registered: bool) -> Due {
        let Some(until) = self.until else { return Due::Nothing };
        if now >= until {
            return Due::End;
        }
        if self.is_told || !is_registered || self.next(true).is_some_and(|next| now < next) {
            return Due::Nothing;
        }
        self.is_told = true;
        Due::Notice(until.duration_since(now).as_millis().div_ceil(1000) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
