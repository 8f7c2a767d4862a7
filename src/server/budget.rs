//! Limits the bytes that each sender may queue in one peer's mailbox.
//!
//! A peer on a slow connection is not dropped for the messages of others: a sender that exceeds the peer's speed has to
//! wait, or is refused. Half of the space is shared by all senders, up to [`PAIR`] bytes each; the other half is
//! reserved for the first message of senders with an empty share, to keep a few fast senders from blocking the others.
//! A message longer than [`PAIR`] is queued only while its sender has no other. Senders without space wait in order.
//!
//! Pure: no clock, chance, socket or GStreamer.

use std::collections::VecDeque;

use crate::hub::ConnId;

/// The overhead counted for each message besides its text, in bytes: its place in the queue and on the heap.
pub(super) const OVERHEAD: usize = 128;
/// The most bytes of one sender that may wait for one peer, except for a single longer message.
pub(super) const PAIR: usize = 64 * 1024;
/// The longest message that may use the reserved space, in bytes.
pub(super) const FIRST: usize = 16 * 1024;
/// The most bytes of all senders together that may wait for one peer, except for a single longer message.
pub(super) const MOST: usize = 1 << 20;
/// The part of [`MOST`] that all senders share; the rest is reserved for first messages.
const COMMON: usize = MOST / 2;

/// The decision about a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The message fits; its bytes are now counted.
    Fits,
    /// The sender waits for its turn, and asks again later.
    Waits,
    /// The sender was refused before, and more than half of [`PAIR`] of its bytes still wait.
    Refused,
}

/// The bytes of one sender in the mailbox.
#[derive(Debug)]
struct Share {
    sender: ConnId,
    bytes: usize,
    is_refused: bool,
}

/// Counts the bytes of all senders in one mailbox.
#[derive(Debug, Default)]
pub(super) struct Budget {
    total: usize,
    /// An entry for each sender with queued bytes; usually few.
    shares: Vec<Share>,
    /// The waiting senders in order, with the bytes that each wants to queue.
    waiting: VecDeque<(ConnId, usize)>,
}

impl Budget {
    fn share(&self, sender: ConnId) -> Option<&Share> {
        self.shares.iter().find(|share| share.sender == sender)
    }

    /// Returns whether the bytes fit the space reserved for first messages.
    fn is_first(&self, share: usize, bytes: usize) -> bool {
        share == 0 && bytes <= FIRST && self.total + bytes <= MOST
    }

    /// Returns whether the bytes fit once it is the sender's turn.
    fn fits(&self, share: usize, bytes: usize) -> bool {
        let is_room = self.total + bytes <= COMMON || self.total == 0;
        (is_room && is_within(share, bytes)) || self.is_first(share, bytes)
    }

    /// Returns the first waiting sender that is within its own limit, with its queued bytes and the bytes it wants to
    /// queue.
    fn first(&self) -> Option<(ConnId, usize, usize)> {
        let waiting = self
            .waiting
            .iter()
            .map(|(sender, bytes)| (*sender, self.share(*sender).map_or(0, |share| share.bytes), *bytes));
        waiting.into_iter().find(|(_, share, bytes)| is_within(*share, *bytes))
    }

    /// Decides about `bytes` more bytes of `sender`, and counts them if they fit. A first message that fits the
    /// reserved space does not wait behind other senders.
    pub(super) fn ask(&mut self, sender: ConnId, bytes: usize) -> Verdict {
        let (share, is_refused) = self.share(sender).map_or((0, false), |one| (one.bytes, one.is_refused));
        if is_refused {
            return Verdict::Refused;
        }
        let is_next = self.first().is_none_or(|(first, ..)| first == sender);
        if (is_next && self.fits(share, bytes)) || self.is_first(share, bytes) {
            self.leave(sender);
            self.count(sender, bytes);
            return Verdict::Fits;
        }
        if !self.waiting.iter().any(|(other, _)| *other == sender) {
            self.waiting.push_back((sender, bytes));
        }
        Verdict::Waits
    }

    fn count(&mut self, sender: ConnId, bytes: usize) {
        self.total += bytes;
        match self.shares.iter_mut().find(|share| share.sender == sender) {
            Some(share) => share.bytes += bytes,
            None => self.shares.push(Share { sender, bytes, is_refused: false }),
        }
    }

    /// Records that `bytes` bytes of `sender` have left the mailbox.
    pub(super) fn give_back(&mut self, sender: ConnId, bytes: usize) {
        self.total -= bytes;
        if let Some(at) = self.shares.iter().position(|share| share.sender == sender) {
            let share = &mut self.shares[at];
            share.bytes -= bytes;
            share.is_refused &= share.bytes > PAIR / 2;
            if share.bytes == 0 {
                self.shares.swap_remove(at);
            }
        }
        if self.shares.is_empty() {
            self.shares = Vec::new();
        }
    }

    /// Removes the sender from the waiting senders.
    pub(super) fn leave(&mut self, sender: ConnId) {
        self.waiting.retain(|(other, _)| *other != sender);
    }

    /// Refuses a sender that waited too long, until at most half of [`PAIR`] of its bytes still wait.
    pub(super) fn refuse(&mut self, sender: ConnId) {
        self.leave(sender);
        if let Some(share) = self.shares.iter_mut().find(|share| share.sender == sender) {
            share.is_refused = share.bytes > PAIR / 2;
        }
    }

    /// Returns the sender whose turn it is, if its message fits now.
    pub(super) fn turn(&self) -> Option<ConnId> {
        let (sender, share, bytes) = self.first()?;
        self.fits(share, bytes).then_some(sender)
    }
}

/// Returns whether a sender with `share` queued bytes may queue `bytes` more.
fn is_within(share: usize, bytes: usize) -> bool {
    share == 0 || share + bytes <= PAIR
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FLOODER: ConnId = ConnId(1);
    const OTHER: ConnId = ConnId(2);

    fn flood(budget: &mut Budget, sender: ConnId, bytes: usize) -> usize {
        (0..).take_while(|_| budget.ask(sender, bytes) == Verdict::Fits).count()
    }

    #[test]
    fn a_sender_gets_its_share_and_leaves_space_for_others() {
        let mut budget = Budget::default();
        assert_eq!(flood(&mut budget, FLOODER, 1024), PAIR / 1024);
        assert_eq!(budget.turn(), None);
        assert_eq!(budget.ask(OTHER, 20_000), Verdict::Fits, "it does not wait behind the flooder");
        budget.give_back(FLOODER, 1024);
        assert_eq!(budget.turn(), Some(FLOODER));
        assert_eq!(budget.ask(FLOODER, 1024), Verdict::Fits);
        assert_eq!(budget.turn(), None);
    }

    #[test]
    fn a_long_message_is_queued_alone() {
        let mut budget = Budget::default();
        assert_eq!(budget.ask(FLOODER, 2 * MOST), Verdict::Fits);
        assert_eq!(budget.ask(FLOODER, 1), Verdict::Waits);
        assert_eq!(budget.ask(OTHER, 1), Verdict::Waits, "there is nothing free");
        budget.give_back(FLOODER, 2 * MOST);
        assert_eq!(budget.turn(), Some(FLOODER));
    }

    #[test]
    fn a_refused_sender_waits_until_half_is_received() {
        let mut budget = Budget::default();
        flood(&mut budget, FLOODER, 1024);
        budget.refuse(FLOODER);
        assert_eq!(budget.ask(FLOODER, 1024), Verdict::Refused);
        (0..31).for_each(|_| budget.give_back(FLOODER, 1024));
        assert_eq!(budget.ask(FLOODER, 1024), Verdict::Refused);
        budget.give_back(FLOODER, 1024);
        assert_eq!(budget.ask(FLOODER, 1024), Verdict::Fits);
    }

    #[test]
    fn forty_flooders_leave_space_for_a_first_message() {
        for bytes in [200, 10_000, 60_000, MOST / 2] {
            let mut budget = Budget::default();
            for n in 0..40 {
                flood(&mut budget, ConnId(10 + n), bytes);
            }
            assert_eq!(budget.ask(OTHER, FIRST), Verdict::Fits, "{bytes}");
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Send(u64, usize),
        Take,
        TooLong(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let sender = || 0..40_u64;
        let bytes = prop_oneof![OVERHEAD..2000_usize, OVERHEAD..100_000, Just(2 * MOST)];
        prop_oneof![
            8 => (sender(), bytes).prop_map(|(sender, bytes)| Step::Send(sender, bytes)),
            6 => Just(Step::Take),
            1 => sender().prop_map(Step::TooLong),
        ]
    }

    proptest! {
        /// For any order of sending and receiving, the limits hold, and every waiting sender gets its turn, in order,
        /// once enough was received.
        #[test]
        fn the_bounds_hold_and_every_sender_gets_its_turn(steps in prop::collection::vec(step(), 0..600)) {
            let mut budget = Budget::default();
            let mut queue: VecDeque<(ConnId, usize)> = VecDeque::new();
            for step in steps {
                match step {
                    Step::Send(sender, bytes) => {
                        let sender = ConnId(sender);
                        if budget.waiting.iter().any(|(other, _)| *other == sender) {
                            continue; // It is not read while it waits.
                        }
                        if budget.ask(sender, bytes) == Verdict::Fits {
                            queue.push_back((sender, bytes));
                        }
                    }
                    Step::Take => {
                        let Some((sender, bytes)) = queue.pop_front() else { continue };
                        budget.give_back(sender, bytes);
                    }
                    Step::TooLong(sender) => budget.refuse(ConnId(sender)),
                }
                while let Some(sender) = budget.turn() {
                    let (_, bytes) = *budget.waiting.iter().find(|(other, _)| *other == sender).unwrap();
                    prop_assert_eq!(budget.ask(sender, bytes), Verdict::Fits);
                    queue.push_back((sender, bytes));
                }
                let total: usize = queue.iter().map(|(_, bytes)| bytes).sum();
                prop_assert_eq!(budget.total, total);
                let longest = queue.iter().map(|(_, bytes)| *bytes).max().unwrap_or_default();
                prop_assert!(total <= MOST.max(longest), "{} bytes wait", total);
                for sender in (0..40).map(ConnId) {
                    let of = queue.iter().filter(|(from, _)| *from == sender).map(|(_, bytes)| *bytes);
                    let (sum, count) = of.fold((0, 0), |(sum, count), bytes| (sum + bytes, count + 1));
                    prop_assert!(sum <= PAIR || count == 1, "{} of one sender in {} messages", sum, count);
                }
            }
            while let Some((sender, bytes)) = queue.pop_front() {
                budget.give_back(sender, bytes);
                while let Some(sender) = budget.turn() {
                    let (_, bytes) = *budget.waiting.iter().find(|(other, _)| *other == sender).unwrap();
                    prop_assert_eq!(budget.ask(sender, bytes), Verdict::Fits);
                    queue.push_back((sender, bytes));
                }
            }
            prop_assert!(budget.waiting.is_empty(), "somebody waits for ever");
            prop_assert!(budget.total == 0 && budget.shares.is_empty());
        }
    }
}
