//! The machine, divided between tests that need all of it and tests that bear others.

use std::cell::RefCell;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static MACHINE: RwLock<()> = RwLock::new(());

/// Part of the machine that a test has.
enum Share {
    None,
    /// The machine beside others, until the test ends.
    Part {
        _guard: RwLockReadGuard<'static, ()>,
    },
    All,
}

thread_local! {
    static SHARE: RefCell<Share> = const { RefCell::new(Share::None) };
}

/// The whole machine, as long as it is held.
struct All {
    _guard: RwLockWriteGuard<'static, ()>,
}

impl Drop for All {
    fn drop(&mut self) {
        SHARE.set(Share::None);
    }
}

/// Waits until no other test runs a program or a server, and keeps such tests out: for a test that measures rates, or
/// that runs more browsers than two cores can serve beside another test's.
pub fn alone() -> impl Drop {
    SHARE.set(Share::None);
    let guard = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    SHARE.set(Share::All);
    All { _guard: guard }
}

/// Waits until no test holds the machine [`alone`], and keeps such tests out until this test ends. The harness calls it
/// for each program and server that it starts.
pub fn share() {
    // Threads that a test starts have no name. A test that waits for them has a share already.
    let is_test = std::thread::current().name().is_some();
    SHARE.with_borrow_mut(|share| {
        if is_test && matches!(share, Share::None) {
            *share = Share::Part { _guard: MACHINE.read().unwrap_or_else(PoisonError::into_inner) };
        }
    });
}
