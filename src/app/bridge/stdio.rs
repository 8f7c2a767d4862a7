//! Standard input, sent to all peers alike, no faster than the slowest peer accepts it.

use std::sync::{Arc, Mutex};

use smol::channel::{Sender, bounded};

use super::reader::Reader;
use crate::base::lock::lock;
use crate::media::webrtc::data_channel::{Channel, Message};

/// See the module.
#[derive(Debug)]
pub(super) struct Stdin {
    channels: Arc<Mutex<Vec<Channel>>>,
    arrived: Sender<()>,
    _task: smol::Task<()>,
}

impl Stdin {
    /// Starts to read as soon as there is a channel.
    pub(super) fn start(lines: bool) -> Self {
        let channels: Arc<Mutex<Vec<Channel>>> = Arc::default();
        let (arrived, arrival) = bounded::<()>(1);
        let to = channels.clone();
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
                        let mut sent = false;
                        for channel in &all {
                            sent |= channel.send(message).await;
                        }
                        if sent {
                            next = None;
                        }
                    }
                }
            }
            // Standard input has ended: the channels are closed, and those of later peers too.
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
        Self { channels, arrived, _task: task }
    }

    /// Sends to this channel too from now on.
    pub(super) fn add(&self, channel: Channel) {
        lock(&self.channels).push(channel);
        let _ = self.arrived.try_send(());
    }
}
