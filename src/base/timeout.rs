//! Time limits on futures.

use std::time::{Duration, Instant};

use futures_util::FutureExt;
use smol::Timer;
use smol::future::{or, pending};

/// Completes with the output of `future`, or with `None` once `limit` has passed since the call.
pub fn timeout<T>(limit: Duration, future: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
    bounded(future, Timer::after(limit))
}

/// Completes with the output of `future`, or with `None` at the time `end`; never with `None` if there is no `end`.
pub fn timeout_at<T>(
    end: Option<Instant>,
    future: impl Future<Output = T>,
) -> impl Future<Output = Option<T>> {
    bounded(future, end.map_or_else(Timer::never, Timer::at))
}

/// Completes at the time `time`; never if there is none.
pub async fn sleep_until(time: Option<Instant>) {
    timeout_at(time, pending::<()>()).await;
}

/// Combines the two with `map`, which adds nothing to the size of `future`; an `async` block would hold it twice.
fn bounded<T>(future: impl Future<Output = T>, timer: Timer) -> impl Future<Output = Option<T>> {
    or(future.map(Some), timer.map(|_| None))
}

#[cfg(test)]
mod tests {
    use smol::block_on;
    use smol::future::ready;

    use super::*;

    #[test]
    fn a_future_that_is_ready_comes_before_its_time_limit() {
        let past = Instant::now();
        assert_eq!(block_on(timeout(Duration::ZERO, ready(1))), Some(1));
        assert_eq!(block_on(timeout_at(Some(past), ready(1))), Some(1));
        assert_eq!(block_on(timeout_at(None, ready(1))), Some(1));
    }

    #[test]
    fn a_future_that_never_completes_ends_at_its_time_limit() {
        assert_eq!(block_on(timeout(Duration::from_millis(1), pending::<()>())), None);
        assert_eq!(block_on(timeout_at(Some(Instant::now()), pending::<()>())), None);
    }

    #[test]
    fn a_time_limit_costs_no_second_copy_of_the_future() {
        let large = async {
            let bytes = [0_u8; 4096];
            smol::future::yield_now().await;
            bytes.len()
        };
        assert!(size_of_val(&timeout(Duration::ZERO, large)) < 5000);
    }
}
