//! The last events, for several readers, each of which has a place of its own.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::Event;
use super::happening::Happening;
use crate::base::lock::lock;

/// The most events that are kept. A reader that is further behind loses the oldest ones, and is told how many.
pub(in crate::server) const KEPT: usize = 10_000;

/// The most streams of events at a time.
const READERS: usize = 64;

/// See the module.
#[derive(Debug)]
pub(in crate::server) struct Log {
    /// The name of this run of the server, which makes the numbers of events unique.
    pub(in crate::server) run: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the last event; 0 before the first one.
    last: u64,
    kept: VecDeque<Event>,
    /// The tasks that wait for the next event.
    waiting: Vec<Waker>,
    readers: usize,
    /// The number of times that all readers were ended.
    endings: u64,
}

impl Default for Log {
    fn default() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { run: format!("{:x}", now.as_millis()), state: Mutex::default() }
    }
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Adds events in their order.
    pub(in crate::server) fn add(&self, all: Vec<Happening>) {
        if all.is_empty() {
            return;
        }
        let (at, since) = (SystemTime::now(), Instant::now());
        let mut state = self.lock();
        for what in all {
            state.last += 1;
            let number = state.last;
            if state.kept.len() >= KEPT {
                state.kept.pop_front();
            }
            state.kept.push_back(Event { number, at, since, what });
        }
        wake(state);
    }

    /// Returns the number of the last event.
    pub(in crate::server) fn last(&self) -> u64 {
        self.lock().last
    }

    /// Returns the places from which no event is missing: the oldest one, behind which all kept events are, and the last one.
    pub(in crate::server) fn places(&self) -> (u64, u64) {
        let state = self.lock();
        (state.kept.front().map_or(state.last, |first| first.number - 1), state.last)
    }

    /// Waits for the first kept event behind the number `place`. Returns the event, and the number of events between the
    /// two that are not kept any more.
    pub(in crate::server) async fn next(&self, place: u64) -> (u64, Event) {
        poll_fn(|context| {
            let mut state = self.lock();
            match state.behind(place) {
                Some(found) => Poll::Ready(found),
                None => state.wait(context.waker()),
            }
        })
        .await
    }

    /// Returns a reader of the events behind the number `place`; none if there are too many readers.
    pub(in crate::server) fn reader(self: &Arc<Self>, place: u64) -> Option<Reader> {
        let mut state = self.lock();
        if state.readers >= READERS {
            return None;
        }
        state.readers += 1;
        Some(Reader { log: self.clone(), place, ending: state.endings })
    }

    /// Ends all readers: their clients come back if they still may.
    pub(in crate::server) fn end_readers(&self) {
        let mut state = self.lock();
        state.endings += 1;
        wake(state);
    }
}

/// Releases the lock, then wakes all tasks that wait for an event.
fn wake(mut state: MutexGuard<'_, State>) {
    let waiting = std::mem::take(&mut state.waiting);
    drop(state);
    waiting.into_iter().for_each(Waker::wake);
}

/// A reader that ends with [`Log::end_readers`].
#[derive(Debug)]
pub(in crate::server) struct Reader {
    log: Arc<Log>,
    place: u64,
    ending: u64,
}

impl Reader {
    /// Returns the name of this run of the server.
    pub(in crate::server) fn run(&self) -> &str {
        &self.log.run
    }

    /// Waits for the next event, as [`Log::next`] does; returns none at the end.
    pub(in crate::server) async fn next(&mut self) -> Option<(u64, Event)> {
        let found = poll_fn(|context| {
            let mut state = self.log.lock();
            if state.endings != self.ending {
                return Poll::Ready(None);
            }
            match state.behind(self.place) {
                Some(found) => Poll::Ready(Some(found)),
                None => state.wait(context.waker()),
            }
        });
        let (lost, event) = found.await?;
        self.place = event.number;
        Some((lost, event))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.log.lock();
        state.readers -= 1;
        // The waker of an ended task would keep its memory until the next event.
        wake(state);
    }
}

impl State {
    fn wait<T>(&mut self, waker: &Waker) -> Poll<T> {
        if !self.waiting.iter().any(|other| other.will_wake(waker)) {
            self.waiting.push(waker.clone());
        }
        Poll::Pending
    }

    fn behind(&self, place: u64) -> Option<(u64, Event)> {
        let first = self.kept.front()?.number;
        let lost = first.saturating_sub(place.saturating_add(1));
        let at = place.saturating_add(1).saturating_sub(first);
        Some((lost, self.kept.get(usize::try_from(at).ok()?)?.clone()))
    }
}

#[cfg(test)]
mod tests {
    use smol::future::{poll_once, zip};

    use super::*;

    fn started(name: &str) -> Happening {
        Happening::RoomStarted { room: name.parse().unwrap() }
    }

    #[test]
    fn each_reader_gets_all_events_in_order() {
        let log = Log::default();
        assert_eq!(log.places(), (0, 0));
        smol::block_on(async {
            assert_eq!(poll_once(log.next(0)).await, None);
            let read = async {
                let mut place = 0;
                for name in ["a", "b", "c"] {
                    let (lost, event) = log.next(place).await;
                    assert_eq!((lost, event.number, event.what), (0, place + 1, started(name)));
                    place = event.number;
                }
            };
            let write = async {
                log.add(vec![started("a"), started("b")]);
                smol::future::yield_now().await;
                log.add(vec![started("c")]);
            };
            zip(read, write).await;
            assert_eq!((log.last(), poll_once(log.next(3)).await), (3, None));
            assert_eq!(poll_once(log.next(u64::MAX)).await, None);
            assert_eq!(log.next(0).await.1.number, 1, "a second reader begins anew");
        });
    }

    #[test]
    fn a_reader_behind_the_kept_events_is_told_how_many_it_lost() {
        let log = Log::default();
        log.add((0..KEPT + 5).map(|_| started("a")).collect());
        smol::block_on(async {
            let (lost, event) = log.next(2).await;
            assert_eq!((lost, event.number), (3, 6));
            let (lost, event) = log.next(6).await;
            assert_eq!((lost, event.number), (0, 7));
        });
        assert_eq!(log.lock().kept.len(), KEPT);
        assert_eq!(log.places(), (5, KEPT as u64 + 5));
        smol::block_on(async {
            assert_eq!(log.next(5).await.0, 0, "nothing is missing behind the oldest place")
        });
    }

    #[test]
    fn readers_are_few_and_end_together() {
        let log = Arc::new(Log::default());
        log.add(vec![started("a")]);
        let mut readers: Vec<_> = (0..READERS).map(|_| log.reader(0).unwrap()).collect();
        assert!(log.reader(0).is_none());
        smol::block_on(async {
            let first = &mut readers[0];
            assert_eq!(first.next().await.map(|(_, event)| event.number), Some(1));
            let ending = async { log.end_readers() };
            assert_eq!(zip(first.next(), ending).await.0, None);
        });
        drop(readers);
        assert!(log.reader(0).is_some());
    }
}
