//! The outgoing queue of one connection, behind a single lock: most connections are idle, and three channels would use
//! more memory than the rest of an idle connection.
//!
//! The mailbox is bounded. Messages of other peers are limited by a [`Budget`]: the sender waits until its message
//! fits. Answers to the connection's own requests always fit, but the connection is not read while too many answers
//! wait. Notices of the server about other peers are limited to [`NOTICES`] bytes.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use super::budget::{Budget, OVERHEAD, Verdict};
use crate::base::lock::lock;
use crate::hub::ConnId;

/// The most bytes of the server's notices that may wait for a peer: a peer above the limit has not read for long, or
/// reads too slowly to follow its room.
const NOTICES: usize = 4 << 20;
/// The bytes of waiting answers above which the server stops reading the peer.
const ANSWERS: usize = 64 * 1024;
/// The most messages for which an empty queue keeps its memory.
const KEPT: usize = 64;

/// An action for the connection.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// A message of the protocol.
    Text(String),
    /// A socket.io packet, sent as it is.
    Packet(String),
    /// A ping that asks for a sign of life.
    Ping,
    /// Ends the connection with this close code and reason.
    Close(u16, &'static str),
}

impl Outgoing {
    /// Returns the bytes for which the message is counted.
    fn bytes(&self) -> usize {
        match self {
            Self::Text(text) | Self::Packet(text) => text.len() + OVERHEAD,
            Self::Ping | Self::Close(..) => 0,
        }
    }
}

/// The account to which a message is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Account {
    /// The peer that sent the message.
    Sender(ConnId),
    /// The receiver itself, for answers to its requests.
    Own,
    /// The server, for its notices.
    Server,
}

/// An item that a connection receives from its [`Inbox`].
#[derive(Debug)]
pub(super) enum Mail {
    Message(Outgoing),
    /// All messages were received, and no more will follow.
    Ended,
    /// The connection has to end at once, without sending anything.
    Aborted,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    Ended,
    Aborted,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<(Account, Outgoing)>,
    budget: Budget,
    answers: usize,
    notices: usize,
    /// A request of the connection waits for an answer: the connection is not read meanwhile.
    is_held: bool,
    end: End,
    waker: Option<Waker>,
    /// The wakers of the senders in line.
    waiting: Vec<(ConnId, Waker)>,
}

impl State {
    fn take(&mut self) -> Option<Outgoing> {
        let (account, message) = self.queue.pop_front()?;
        match account {
            Account::Sender(sender) => self.budget.give_back(sender, message.bytes()),
            Account::Own => self.answers -= message.bytes(),
            Account::Server => self.notices -= message.bytes(),
        }
        if self.queue.is_empty() {
            self.queue.shrink_to(KEPT);
        }
        self.wake_next_sender();
        Some(message)
    }

    /// Wakes the sender whose turn it is.
    fn wake_next_sender(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let turn = self.budget.turn();
        if let Some(at) = self.waiting.iter().position(|(sender, _)| Some(*sender) == turn) {
            self.waiting.swap_remove(at).1.wake();
        }
    }

    /// Queues the messages of a sender if all of them fit.
    fn forward(&mut self, from: ConnId, texts: &mut Vec<String>) -> Verdict {
        let bytes = texts.iter().map(|text| text.len() + OVERHEAD).sum();
        let verdict = self.budget.ask(from, bytes);
        if verdict == Verdict::Fits {
            self.queue.extend(texts.drain(..).map(|text| (Account::Sender(from), Outgoing::Text(text))));
            self.wake_next_sender();
        }
        verdict
    }

    /// Ends the mailbox and wakes all waiting senders.
    fn end(&mut self, end: End) {
        if self.end == End::Open {
            self.end = end;
        }
        self.waiting.drain(..).for_each(|(_, waker)| waker.wake());
    }
}

#[derive(Debug, Default)]
struct Mailbox(Mutex<State>);

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }
}

/// Releases the lock, then wakes the waiting receiver.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The sending end. When it is dropped the mailbox ends; queued messages are still sent.
#[derive(Debug)]
pub(super) struct Outbox(Arc<Mailbox>);

/// The receiving end, owned by the connection. Only one task may wait at a time.
#[derive(Debug)]
pub(super) struct Inbox {
    pub(super) id: ConnId,
    mailbox: Arc<Mailbox>,
}

/// Creates the mailbox of the connection `id`.
pub(super) fn mailbox(id: ConnId) -> (Outbox, Inbox) {
    let mailbox = Arc::new(Mailbox::default());
    (Outbox(mailbox.clone()), Inbox { id, mailbox })
}

/// The outcome of forwarding a peer's messages to another peer.
#[derive(Debug)]
pub(super) enum Forwarded {
    Queued,
    /// The messages wait for space, and the sender is not read meanwhile.
    Waits(Parked),
    Refused,
}

impl Outbox {
    /// Queues a notice of the server; returns false if too many bytes of notices wait.
    pub(super) fn notify(&self, message: Outgoing) -> bool {
        let mut state = self.0.lock();
        if state.notices + message.bytes() > NOTICES {
            return false;
        }
        state.notices += message.bytes();
        match message {
            // A ping goes ahead of all waiting messages.
            Outgoing::Ping => state.queue.push_front((Account::Server, message)),
            Outgoing::Text(_) | Outgoing::Packet(_) | Outgoing::Close(..) => {
                state.queue.push_back((Account::Server, message));
            }
        }
        wake(state);
        true
    }

    /// Queues an answer to a request of the peer itself.
    pub(super) fn answer(&self, message: Outgoing) {
        answer(&self.0, message);
    }

    /// Forwards messages of the peer `from` to the peer `to`, in order.
    pub(super) fn forward(&self, (from, to): (ConnId, ConnId), mut texts: Vec<String>) -> Forwarded {
        let mut state = self.0.lock();
        match state.forward(from, &mut texts) {
            Verdict::Fits => {
                wake(state);
                Forwarded::Queued
            }
            Verdict::Waits => Forwarded::Waits(Parked { mailbox: self.0.clone(), from, to, texts }),
            Verdict::Refused => Forwarded::Refused,
        }
    }

    /// Stops reading the connection, or reads on.
    #[cfg(feature = "engine")]
    pub(super) fn hold(&self, is_held: bool) {
        let mut state = self.0.lock();
        state.is_held = is_held;
        wake(state);
    }

    /// Ends the connection at once.
    pub(super) fn abort(self) {
        let mut state = self.0.lock();
        state.end(End::Aborted);
        wake(state);
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.end(End::Ended);
        wake(state);
    }
}

fn answer(mailbox: &Mailbox, message: Outgoing) {
    let mut state = mailbox.lock();
    state.answers += message.bytes();
    state.queue.push_back((Account::Own, message));
    wake(state);
}

/// Messages of a peer that wait for space at the receiver. The sender is not read meanwhile.
#[derive(Debug)]
pub(super) struct Parked {
    mailbox: Arc<Mailbox>,
    from: ConnId,
    /// The connection of the receiver.
    pub(super) to: ConnId,
    texts: Vec<String>,
}

impl Parked {
    /// Adds messages that result from the same input and go to the same receiver.
    pub(super) fn add(&mut self, texts: Vec<String>) {
        self.texts.extend(texts);
    }

    /// Ready once the messages are queued at the receiver, or the receiver is gone.
    pub(super) fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        let mut state = self.mailbox.lock();
        if state.end != End::Open || state.forward(self.from, &mut self.texts) == Verdict::Fits {
            wake(state);
            return Poll::Ready(());
        }
        match state.waiting.iter_mut().find(|(sender, _)| *sender == self.from) {
            Some((_, waker)) => waker.clone_from(context.waker()),
            None => state.waiting.push((self.from, context.waker().clone())),
        }
        Poll::Pending
    }

    /// Drops the messages. Refuses further messages to the receiver at once, while more than half of the sender's limit
    /// waits.
    pub(super) fn refuse(self) {
        self.mailbox.lock().budget.refuse(self.from);
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        let mut state = self.mailbox.lock();
        state.budget.leave(self.from);
        state.waiting.retain(|(sender, _)| *sender != self.from);
        state.wake_next_sender();
    }
}

impl Inbox {
    /// Waits for the next item.
    pub(super) async fn next(&self) -> Mail {
        poll_fn(|context| self.poll_next(context)).await
    }

    pub(super) fn poll_next(&self, context: &Context<'_>) -> Poll<Mail> {
        self.poll(context, |state| state.take().map(Mail::Message))
    }

    /// Returns the next message without waiting, if there is one.
    pub(super) fn try_next(&self) -> Option<Outgoing> {
        self.mailbox.lock().take()
    }

    /// Returns whether no message waits.
    pub(super) fn is_empty(&self) -> bool {
        self.mailbox.lock().queue.is_empty()
    }

    /// Returns whether too many answers wait to read further requests.
    pub(super) fn is_full_of_answers(&self) -> bool {
        self.mailbox.lock().answers > ANSWERS
    }

    /// Returns whether the next request may be read.
    pub(super) fn may_be_read(&self) -> bool {
        let state = self.mailbox.lock();
        state.answers <= ANSWERS && !state.is_held
    }

    /// Returns whether a request of the connection waits for an answer, so that no further request is read.
    pub(super) fn is_held(&self) -> bool {
        self.mailbox.lock().is_held
    }

    /// Queues an answer to a request of the peer itself.
    pub(super) fn answer(&self, message: Outgoing) {
        answer(&self.mailbox, message);
    }

    /// Ready once the connection has to end at once.
    pub(super) fn poll_aborted(&self, context: &Context<'_>) -> Poll<()> {
        match self.poll(context, |_| None) {
            Poll::Ready(Mail::Aborted) => Poll::Ready(()),
            Poll::Ready(Mail::Message(_) | Mail::Ended) | Poll::Pending => Poll::Pending,
        }
    }

    fn poll(&self, context: &Context<'_>, look: impl Fn(&mut State) -> Option<Mail>) -> Poll<Mail> {
        let mut state = self.mailbox.lock();
        if state.end == End::Aborted {
            return Poll::Ready(Mail::Aborted);
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

    use smol::future::block_on;

    use super::*;
    use crate::base::timeout::timeout;
    use crate::server::budget::PAIR;

    /// The time within which a thread is woken.
    const PATIENCE: Duration = Duration::from_secs(10);

    const ME: ConnId = ConnId(1);
    const ANN: ConnId = ConnId(2);
    const BOB: ConnId = ConnId(3);

    fn text(length: usize) -> Outgoing {
        Outgoing::Text("x".repeat(length))
    }

    fn forward(outbox: &Outbox, from: ConnId, text: &str) -> Forwarded {
        outbox.forward((from, ME), vec![text.to_owned()])
    }

    fn next(inbox: &Inbox) -> String {
        match inbox.try_next() {
            Some(Outgoing::Text(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn queued_messages_precede_the_end_and_a_ping_precedes_them() {
        let (outbox, inbox) = mailbox(ME);
        assert!(outbox.notify(text(3)) && outbox.notify(Outgoing::Ping));
        drop(outbox);
        assert!(matches!(inbox.try_next(), Some(Outgoing::Ping)));
        assert!(matches!(block_on(inbox.next()), Mail::Message(Outgoing::Text(text)) if text == "xxx"));
        assert!(inbox.try_next().is_none() && inbox.is_empty());
        assert!(matches!(block_on(inbox.next()), Mail::Ended));
    }

    #[test]
    fn an_abort_precedes_queued_messages() {
        let (outbox, inbox) = mailbox(ME);
        assert!(outbox.notify(text(3)));
        outbox.abort();
        block_on(poll_fn(|context| inbox.poll_aborted(context)));
        assert!(matches!(block_on(inbox.next()), Mail::Aborted));
    }

    #[test]
    fn a_waiting_receiver_is_woken() {
        for what in ["a message", "the end", "at once"] {
            let (outbox, inbox) = mailbox(ME);
            let late = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                match what {
                    "a message" => assert!(outbox.notify(text(1))),
                    "the end" => drop(outbox),
                    _ => outbox.abort(),
                }
            });
            let mail = block_on(timeout(PATIENCE, inbox.next()));
            let mail = mail.unwrap_or_else(|| panic!("{what} woke nobody"));
            late.join().unwrap();
            let fits = match what {
                // Dropped in the thread's end, after the message.
                "a message" => matches!(mail, Mail::Message(Outgoing::Text(_))),
                "the end" => matches!(mail, Mail::Ended),
                _ => matches!(mail, Mail::Aborted),
            };
            assert!(fits, "{what}: {mail:?}");
        }
    }

    /// Sends until the sender has to wait; returns the waiting messages.
    fn fill(outbox: &Outbox, from: ConnId) -> Parked {
        let message = "x".repeat(1024);
        loop {
            match forward(outbox, from, &message) {
                Forwarded::Queued => {}
                Forwarded::Waits(parked) => return parked,
                Forwarded::Refused => panic!("refused"),
            }
        }
    }

    #[test]
    fn a_sender_waits_for_space_and_others_do_not() {
        let (outbox, inbox) = mailbox(ME);
        let mut parked = fill(&outbox, ANN);
        let waits = std::thread::spawn(move || {
            let woken = block_on(timeout(PATIENCE, poll_fn(move |context| parked.poll(context))));
            assert!(woken.is_some(), "nobody woke the sender");
        });
        assert!(matches!(forward(&outbox, BOB, "from another"), Forwarded::Queued));
        assert!(outbox.notify(text(1)), "the server can always tell something");
        let count = PAIR / (1024 + OVERHEAD);
        assert!((0..count).all(|_| next(&inbox).len() == 1024));
        waits.join().unwrap();
        assert_eq!(next(&inbox), "from another");
        assert_eq!(next(&inbox), "x");
        assert_eq!(next(&inbox).len(), 1024, "what waited came in at the end");
        assert!(inbox.mailbox.lock().queue.capacity() <= KEPT, "an empty mailbox holds nothing");
    }

    #[test]
    fn a_sender_that_waited_too_long_is_refused() {
        let (outbox, inbox) = mailbox(ME);
        fill(&outbox, ANN).refuse();
        assert!(matches!(forward(&outbox, ANN, "x"), Forwarded::Refused));
        drop(fill(&outbox, BOB));
        while inbox.try_next().is_some() {}
        assert!(matches!(forward(&outbox, ANN, "x"), Forwarded::Queued));
        // A sender does not wait for a receiver that is gone.
        let mut parked = fill(&outbox, BOB);
        drop(outbox);
        block_on(poll_fn(|context| parked.poll(context)));
    }

    #[test]
    fn notices_are_bounded_and_waiting_answers_are_counted() {
        let (outbox, inbox) = mailbox(ME);
        assert!(outbox.notify(text(NOTICES - OVERHEAD)));
        assert!(!outbox.notify(text(1)));
        assert!(outbox.notify(Outgoing::Ping));
        assert!(!inbox.is_full_of_answers());
        outbox.answer(text(ANSWERS));
        assert!(inbox.is_full_of_answers());
        while inbox.try_next().is_some() {}
        assert!(!inbox.is_full_of_answers() && outbox.notify(text(1)));
    }
}
