//! stdin, sent to all peers alike: read no faster than the slowest of them takes it.

use std::sync::{Arc, Mutex};

use smol::channel::{Sender, bounded};

use super::Reader;
use crate::base::lock::lock;
use crate::media::channel::{Channel, Message};

/// See the module.
#[derive(Debug)]
pub(super) struct Stdin {
    takers: Arc<Mutex<Vec<Channel>>>,
    arrived: Sender<()>,
    _task: smol::Task<()>,
}

impl Stdin {
    /// Reads as soon as somebody takes it.
    pub(super) fn start(lines: bool) -> Self {
        let takers: Arc<Mutex<Vec<Channel>>> = Arc::default();
        let (arrived, arrival) = bounded::<()>(1);
        let to = takers.clone();
        let task = smol::spawn(async move {
            let mut from = Reader::new(smol::Unblock::new(std::io::stdin()), lines);
            let mut next: Option<Message> = None;
            loop {
                lock(&to).retain(Channel::is_open);
                let all = lock(&to).clone();
                match (&next, all.is_empty()) {
                    (_, true) => {
                        if arrival.recv().await.is_err() {
                            return;
                        }
                    }
                    (None, false) => match from.next().await {
                        Some(message) => next = Some(message),
                        None => break,
                    },
                    (Some(message), false) => {
                        let mut taken = false;
                        for channel in &all {
                            taken |= channel.send(message).await;
                        }
                        if taken {
                            next = None;
                        }
                    }
                }
            }
            // Nothing more comes: the channels end, and those of later peers too.
            loop {
                let all = std::mem::take(&mut *lock(&to));
                for channel in all {
                    channel.finish().await;
                }
                if arrival.recv().await.is_err() {
                    return;
                }
            }
        });
        Self { takers, arrived, _task: task }
    }

    /// A channel that takes it from now on.
    pub(super) fn add(&self, channel: Channel) {
        lock(&self.takers).push(channel);
        let _ = self.arrived.try_send(());
    }
}
