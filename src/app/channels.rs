//! The data channels of one connection: what the user joined to something is carried, the texts of all
//! others are told.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use smol::channel::Sender;
use smol::future::or;

use super::bridge::{Bridge, End, Progress};
use super::line::Happened;
use super::plan::MediaPlan;
use super::{Event, Sink};
use crate::base::limit::Bucket;
use crate::media::channel::{Channel, Message};

/// The longest text that is told, in bytes.
const MAX_TEXT: usize = 16 * 1024;
/// The texts told of a channel: so many at once, and so many a second in the long run.
const TEXTS: (u32, u32) = (200, 50);
/// How long what came may take to be carried when the connection is over.
const CARRY: Duration = Duration::from_secs(5);
/// How long the connection stands at least after a channel was closed: by then both sides know that all came.
const LEARN: Duration = Duration::from_secs(1);

struct Held {
    channel: Channel,
    is_bridged: bool,
    task: smol::Task<()>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Channels {
    held: Vec<Held>,
    /// The labels of the bridges whose work with this peer is done.
    done: Arc<Mutex<BTreeSet<String>>>,
}

impl Channels {
    /// Takes a channel that is open; what comes of it is told under the connection's number.
    pub(super) fn add(
        &mut self,
        channel: Channel,
        (number, peer, out): (u64, &str, &Sender<(u64, Happened)>),
        plan: &MediaPlan,
        sink: &Sink,
    ) {
        self.held.retain(|held| !held.task.is_finished());
        let label = channel.label();
        let bridge = plan.bridges.iter().find(|bridge| bridge.channel().label == label);
        let is_bridged = bridge.is_some();
        let (peer, out, over) = (peer.to_owned(), out.clone(), channel.clone());
        let task = match bridge.cloned() {
            Some(bridge) => {
                let (sink, done) = (sink.clone(), self.done.clone());
                smol::spawn(async move {
                    carry(&bridge, &over, &peer, &sink).await;
                    if over.ended_in_order().await {
                        smol::Timer::after(LEARN).await;
                        done.lock().unwrap_or_else(PoisonError::into_inner).insert(label);
                        let _ = out.send((number, Happened::ChannelDone)).await;
                    }
                })
            }
            None => {
                sink(&Event::Channel { peer, channel: label.clone() });
                smol::spawn(tell(over, label, number, out))
            }
        };
        self.held.push(Held { channel, is_bridged, task });
    }

    /// Sends a text to the peer, over a channel that is joined to nothing; false where none is open.
    pub(super) fn say(&self, text: &str) -> bool {
        let mut free = self.held.iter().filter(|held| !held.is_bridged && held.channel.is_open());
        free.next().is_some_and(|held| held.channel.try_send(&Message::Text(text.to_owned())))
    }

    /// The work of that bridge with this peer is done.
    pub(super) fn is_done(&self, label: &str) -> bool {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).contains(label)
    }

    /// Sends what is on its way, and closes all.
    pub(super) async fn finish(&self) {
        let bridged = self.held.iter().filter(|held| held.is_bridged && held.channel.is_open());
        let all: Vec<_> = bridged.map(|held| smol::spawn(finish(held.channel.clone()))).collect();
        for one in all {
            one.await;
        }
    }

    /// Waits until all that came is where it goes to. The connection is over by now.
    pub(super) async fn settle(self) {
        let all = async {
            for held in self.held.into_iter().filter(|held| held.is_bridged) {
                held.task.await;
            }
        };
        let late = async {
            smol::Timer::after(CARRY).await;
        };
        or(all, late).await;
    }
}

async fn finish(channel: Channel) {
    channel.finish().await;
}

/// Joins a channel to what the user wants, and tells how that goes.
async fn carry(bridge: &Bridge, channel: &Channel, peer: &str, sink: &Sink) {
    let label = channel.label();
    let event = |progress: &Progress, finished| Event::Transfer {
        peer: peer.to_owned(),
        channel: label.clone(),
        sent: progress.sent,
        received: progress.received,
        total: progress.total,
        path: progress.saved.as_ref().map(|path| path.display().to_string()),
        finished,
    };
    sink(&event(&Progress::default(), false));
    let last = Mutex::new(Progress::default());
    let tell = |progress: &Progress| {
        *last.lock().unwrap_or_else(PoisonError::into_inner) = progress.clone();
        sink(&event(progress, false));
    };
    let carried = bridge.carry(channel, peer, &tell).await;
    sink(&event(&last.lock().unwrap_or_else(PoisonError::into_inner), true));
    if let Err(why) = carried {
        sink(&Event::Warning { text: format!("channel '{label}' with {peer}: {why}") });
    }
}

/// Tells the texts that come, as fast as a person or a program that types would.
async fn tell(channel: Channel, label: String, number: u64, out: Sender<(u64, Happened)>) {
    let mut bucket = Bucket::new(TEXTS.0, TEXTS.1);
    while let Some(message) = channel.receive().await {
        let Message::Text(text) = message else { continue };
        if !bucket.take(Instant::now()) {
            tracing::debug!("a message of a flood is dropped");
        } else if text.is_empty() || text.len() > MAX_TEXT {
            tracing::warn!("a message that is too long or empty is dropped");
        } else if out.send((number, Happened::Message(label.clone(), text))).await.is_err() {
            return;
        }
    }
}

impl End {
    /// A file is sent once.
    pub(super) fn is_once(&self) -> bool {
        match self {
            Self::Send(_) => true,
            Self::Stdio | Self::Save(_) | Self::Tcp(_) | Self::Listen(_) => false,
        }
    }
}
