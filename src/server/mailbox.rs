//! What waits for one connection, in one place with one lock: most connections are idle, and three channels would
//! hold more than all the rest of them. Bounded: what a peer does not take in time is that peer's end.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::hub::ConnId;

/// The most messages that wait for one peer.
const MESSAGES: usize = 1024;
/// The most bytes that wait for one peer.
const BYTES: usize = 8 << 20;
/// An empty queue keeps room for no more than so many.
const KEPT: usize = 64;

/// What a connection is to do.
#[derive(Debug)]
pub(super) enum Outgoing {
    Text(String),
    Ping,
    /// The code and the words of a close frame.
    Close(u16, &'static str),
}

impl Outgoing {
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Ping | Self::Close(..) => 0,
        }
    }
}

/// What a connection finds in its [`Inbox`].
#[derive(Debug)]
pub(super) enum Mail {
    Message(Outgoing),
    /// There was all that there is.
    Ended,
    /// It is to end at once, with nothing more to be sent.
    Killed,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    Ended,
    Killed,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Outgoing>,
    bytes: usize,
    end: End,
    waker: Option<Waker>,
}

impl State {
    fn take(&mut self) -> Option<Outgoing> {
        let message = self.queue.pop_front()?;
        self.bytes -= message.bytes();
        if self.queue.is_empty() {
            self.queue.shrink_to(KEPT);
        }
        Some(message)
    }
}

#[derive(Debug, Default)]
struct Mailbox(Mutex<State>);

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, end: End) {
        let mut state = self.lock();
        if state.end == End::Open {
            state.end = end;
        }
        wake(state);
    }
}

/// Wakes who waits, without the lock.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The end that is written to. Without it the mailbox ends; what is in it is still sent.
#[derive(Debug)]
pub(super) struct Outbox(Arc<Mailbox>);

/// A connection's own end. One task waits at it at a time.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) id: ConnId,
    mailbox: Arc<Mailbox>,
}

/// A mailbox of that connection.
pub(super) fn mailbox(id: ConnId) -> (Outbox, Inbox) {
    let mailbox = Arc::new(Mailbox::default());
    (Outbox(mailbox.clone()), Inbox { id, mailbox })
}

impl Outbox {
    /// False where the peer is too slow.
    pub(super) fn push(&self, message: Outgoing) -> bool {
        let mut state = self.0.lock();
        if state.queue.len() >= MESSAGES || state.bytes + message.bytes() > BYTES {
            return false;
        }
        state.bytes += message.bytes();
        state.queue.push_back(message);
        wake(state);
        true
    }

    /// Ends the connection at once.
    pub(super) fn kill(self) {
        self.0.end(End::Killed);
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.0.end(End::Ended);
    }
}

impl Inbox {
    /// What is next, when there is something.
    pub(super) async fn next(&self) -> Mail {
        poll_fn(|context| self.poll(context, |state| state.take().map(Mail::Message))).await
    }

    /// What is there already.
    pub(super) fn try_next(&self) -> Option<Outgoing> {
        self.mailbox.lock().take()
    }

    /// Waits for the word to end at once; for ever where none comes.
    pub(super) async fn killed(&self) {
        poll_fn(|context| match self.poll(context, |_| None) {
            Poll::Ready(Mail::Killed) => Poll::Ready(()),
            _ => Poll::Pending,
        })
        .await;
    }

    fn poll(&self, context: &Context<'_>, look: impl Fn(&mut State) -> Option<Mail>) -> Poll<Mail> {
        let mut state = self.mailbox.lock();
        if state.end == End::Killed {
            return Poll::Ready(Mail::Killed);
        }
        if let Some(mail) = look(&mut state) {
            return Poll::Ready(mail);
        }
        if state.end == End::Ended {
            return Poll::Ready(Mail::Ended);
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            state.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use smol::future::{block_on, or};

    use super::*;

    fn text(length: usize) -> Outgoing {
        Outgoing::Text("x".repeat(length))
    }

    #[test]
    fn what_is_in_it_comes_before_its_end() {
        let (outbox, inbox) = mailbox(ConnId(1));
        assert!(outbox.push(text(3)) && outbox.push(Outgoing::Ping));
        drop(outbox);
        assert!(matches!(block_on(inbox.next()), Mail::Message(Outgoing::Text(text)) if text == "xxx"));
        assert!(matches!(inbox.try_next(), Some(Outgoing::Ping)));
        assert!(inbox.try_next().is_none());
        assert!(matches!(block_on(inbox.next()), Mail::Ended));
    }

    #[test]
    fn the_word_to_end_at_once_comes_before_what_is_in_it() {
        let (outbox, inbox) = mailbox(ConnId(1));
        assert!(outbox.push(text(3)));
        outbox.kill();
        block_on(inbox.killed());
        assert!(matches!(block_on(inbox.next()), Mail::Killed));
    }

    #[test]
    fn who_waits_is_woken() {
        for what in ["a message", "the end", "at once"] {
            let (outbox, inbox) = mailbox(ConnId(1));
            let late = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                match what {
                    "a message" => assert!(outbox.push(text(1))),
                    "the end" => drop(outbox),
                    _ => outbox.kill(),
                }
            });
            let mail = block_on(or(inbox.next(), async {
                smol::Timer::after(Duration::from_secs(10)).await;
                panic!("{what} woke nobody");
            }));
            late.join().unwrap();
            let fits = match what {
                // Dropped in the thread's end, after the message.
                "a message" => matches!(mail, Mail::Message(Outgoing::Text(_))),
                "the end" => matches!(mail, Mail::Ended),
                _ => matches!(mail, Mail::Killed),
            };
            assert!(fits, "{what}: {mail:?}");
        }
    }

    #[test]
    fn it_takes_so_many_messages_and_so_many_bytes() {
        let (outbox, inbox) = mailbox(ConnId(1));
        assert!((0..MESSAGES).all(|_| outbox.push(text(1))));
        assert!(!outbox.push(text(1)));
        assert!(inbox.try_next().is_some());
        assert!(outbox.push(text(1)));
        while inbox.try_next().is_some() {}
        assert!(
            inbox.mailbox.lock().queue.capacity() <= KEPT,
            "what was full holds nothing when it is empty"
        );
        assert!(outbox.push(text(BYTES)));
        assert!(!outbox.push(text(1)));
        assert!(outbox.push(Outgoing::Ping));
        assert!(matches!(block_on(inbox.next()), Mail::Message(Outgoing::Text(_))));
        assert!(outbox.push(text(1)));
    }
}
