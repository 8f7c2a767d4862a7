//! The right to start encoders and decoders and to replace a source. One thread has it at a time: a start needs up to
//! seconds, and no lock is held meanwhile.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::base::lock::lock;

/// Gives the right to one thread after another.
#[derive(Debug, Default)]
pub(super) struct Turns {
    is_taken: Mutex<bool>,
    is_free: Condvar,
}

/// The right, until dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    /// Waits until no other thread has the right. The caller must not have the encoders' state locked, because the thread
    /// that has the right locks the state.
    pub(super) fn take(&self) -> Turn<'_> {
        let waited = self.is_free.wait_while(lock(&self.is_taken), |is_taken| *is_taken);
        *waited.unwrap_or_else(PoisonError::into_inner) = true;
        Turn(self)
    }

    /// Returns whether no thread has the lock.
    #[cfg(test)]
    pub(super) fn is_unlocked(&self) -> bool {
        self.is_taken.try_lock().is_ok()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.is_taken) = false;
        self.0.is_free.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_thread_at_a_time_has_the_turn() {
        let (turns, is_busy, count) = (Turns::default(), AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let _turn = turns.take();
                        assert!(!is_busy.swap(true, Ordering::SeqCst));
                        std::thread::yield_now();
                        count.fetch_add(1, Ordering::SeqCst);
                        is_busy.store(false, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 400);
    }
}
