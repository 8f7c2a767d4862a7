//! Background tasks that end with their owner.

use std::collections::BTreeMap;
use std::fmt;
use std::mem::take;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use smol::Task;

use super::lock::lock;

/// The background tasks of one owner. Dropping the set cancels its tasks.
pub struct Tasks {
    running: Arc<Mutex<Running>>,
    most: usize,
}

#[derive(Default)]
struct Running {
    next: u64,
    tasks: BTreeMap<u64, Task<()>>,
}

/// A task's place in its set, which the task gives up when it ends.
struct Place {
    running: Arc<Mutex<Running>>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        // The task is at its end, so that dropping its handle cancels nothing. Dropped without the lock.
        let ended = lock(&self.running).tasks.remove(&self.number);
        drop(ended);
    }
}

impl Tasks {
    /// Creates an empty set of at most `most` tasks at a time.
    pub fn new(most: usize) -> Self {
        Self { running: Arc::default(), most }
    }

    /// Runs `future` to its end on the global executor. Drops it instead, and returns false, if the set is full.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> bool {
        let mut running = lock(&self.running);
        if running.tasks.len() >= self.most {
            drop(running);
            tracing::debug!("a task is dropped: its owner has {} tasks already", self.most);
            return false;
        }
        let number = running.next;
        running.next += 1;
        let place = Place { running: self.running.clone(), number };
        // The lock is held: a task that ends at once finds its entry.
        let task = smol::spawn(future.map(move |()| drop(place)));
        running.tasks.insert(number, task);
        true
    }

    /// Returns whether no task runs.
    pub fn is_empty(&self) -> bool {
        lock(&self.running).tasks.is_empty()
    }

    /// Waits until all tasks have ended. Dropping the returned future cancels those that have not.
    pub async fn join(self) {
        loop {
            let first = lock(&self.running).tasks.pop_first();
            let Some((_, task)) = first else { return };
            task.await;
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        // Dropped without the lock: a task takes the lock when it ends.
        let cancelled = take(&mut lock(&self.running).tasks);
        drop(cancelled);
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tasks({} of {})", lock(&self.running).tasks.len(), self.most)
    }
}

#[cfg(test)]
mod tests {
    use smol::block_on;
    use smol::channel::{self, Receiver, Sender};
    use smol::future::pending;

    use super::*;

    /// Returns a task that never ends, and a channel that closes when the task is dropped.
    fn endless() -> (impl Future<Output = ()> + Send, Receiver<()>) {
        let (held, dropped) = channel::bounded(1);
        (hold(held), dropped)
    }

    async fn hold(_held: Sender<()>) {
        pending().await
    }

    #[test]
    fn dropping_the_set_cancels_its_tasks() {
        let tasks = Tasks::new(2);
        let ((first, first_dropped), (second, second_dropped)) = (endless(), endless());
        assert!(tasks.spawn(first) && tasks.spawn(second));
        drop(tasks);
        assert!(block_on(first_dropped.recv()).is_err() && block_on(second_dropped.recv()).is_err());
    }

    #[test]
    fn a_full_set_drops_further_tasks() {
        let tasks = Tasks::new(1);
        let ((first, _first_dropped), (second, second_dropped)) = (endless(), endless());
        assert!(tasks.spawn(first));
        assert!(!tasks.spawn(second));
        assert!(second_dropped.is_closed());
    }

    #[test]
    fn a_task_that_ends_leaves_the_set() {
        let tasks = Tasks::new(1);
        for _ in 0..100 {
            while !tasks.spawn(async {}) {
                std::thread::yield_now();
            }
        }
        block_on(tasks.join());
    }

    #[test]
    fn joining_waits_for_all_tasks() {
        let tasks = Tasks::new(10);
        let (done, all) = channel::bounded(10);
        for number in 0..10 {
            let done = done.clone();
            tasks.spawn(async move {
                smol::future::yield_now().await;
                done.send(number).await.unwrap();
            });
        }
        block_on(tasks.join());
        assert_eq!(all.len(), 10);
    }

    #[test]
    fn giving_up_on_joining_cancels_the_tasks() {
        let tasks = Tasks::new(1);
        let (task, dropped) = endless();
        assert!(tasks.spawn(task));
        drop(Box::pin(tasks.join()));
        assert!(block_on(dropped.recv()).is_err());
    }
}
