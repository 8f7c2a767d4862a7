//! The data channels of one peer: channels with a bridge are forwarded to files, ports or stdio, and the texts of all
//! others are reported.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use smol::channel::Sender;

use crate::app::bridge::{Bridge, Endpoint, Progress};
use crate::app::setup::MediaSetup;
use crate::app::{Event, Sink};
use crate::base::limit::Bucket;
use crate::base::lock::lock;
use crate::base::timeout::timeout;
use crate::media::webrtc::data_channel::{Channel, Message};
use crate::protocol::PeerId;

/// Maximum size of a text that is reported, in bytes.
const MAX_TEXT: usize = 16 * 1024;
/// Rate limit for the texts of a channel: burst, and texts per second.
const TEXTS: (u32, u32) = (200, 50);
/// Maximum time for received data to reach its file or port once the connection is closed.
const SETTLE: Duration = Duration::from_secs(5);
/// Minimum time that the connection stays open after a channel was closed: by then both sides know that all data
/// arrived.
const LEARN: Duration = Duration::from_secs(1);

struct Held {
    channel: Channel,
    is_bridged: bool,
    task: smol::Task<()>,
}

/// See the module.
pub(super) struct Bridges {
    peer: PeerId,
    held: Vec<Held>,
    /// Labels of the bridges that have done their work with this peer.
    done: BTreeSet<String>,
    /// Queue for the labels of bridges that are done.
    finished: Sender<(PeerId, String)>,
}

impl Bridges {
    pub(super) fn new(peer: PeerId, finished: Sender<(PeerId, String)>) -> Self {
        Self { peer, held: vec![], done: BTreeSet::new(), finished }
    }

    /// Accepts a channel that is open.
    pub(super) fn add(&mut self, channel: Channel, setup: &MediaSetup, sink: &Sink) {
        self.held.retain(|held| !held.task.is_finished());
        let label = channel.label();
        let bridge = setup.bridges.iter().find(|bridge| bridge.channel().label == label);
        let is_bridged = bridge.is_some();
        let (peer, sink, over) = (self.peer.clone(), sink.clone(), channel.clone());
        let task = match bridge.cloned() {
            Some(bridge) => {
                let finished = self.finished.clone();
                smol::spawn(async move {
                    forward(&bridge, &over, peer.as_str(), &sink).await;
                    if over.ended_in_order().await {
                        smol::Timer::after(LEARN).await;
                        let _ = finished.send((peer, label)).await;
                    }
                })
            }
            None => {
                sink(&Event::Channel { peer: peer.to_string(), channel: label.clone() });
                smol::spawn(report_texts(over, peer.to_string(), label, sink))
            }
        };
        self.held.push(Held { channel, is_bridged, task });
    }

    /// Sends a text to the peer over an open channel without a bridge; returns false if there is no such channel.
    pub(super) fn say(&self, text: &str) -> bool {
        let mut free = self.held.iter().filter(|held| !held.is_bridged && held.channel.is_open());
        free.next().is_some_and(|held| held.channel.try_send(&Message::Text(text.to_owned())))
    }

    /// Notes that the bridge of that label is done. Returns whether the connection has done all its work: all bridges
    /// are done, and no media is wanted.
    pub(super) fn is_done(&mut self, label: String, setup: &MediaSetup) -> bool {
        self.done.insert(label);
        setup.peer.wanted().is_empty()
            && setup.bridges.iter().all(|bridge| self.done.contains(&bridge.channel().label))
    }

    /// Closes all channels with a bridge once their data is sent.
    pub(super) async fn finish(&self) {
        let bridged = self.held.iter().filter(|held| held.is_bridged && held.channel.is_open());
        let finish = |channel: Channel| async move { channel.finish().await };
        let all: Vec<_> = bridged.map(|held| smol::spawn(finish(held.channel.clone()))).collect();
        for task in all {
            task.await;
        }
    }

    /// Waits until all received data has reached its file or port. The connection is closed by now.
    pub(super) async fn settle(self) {
        let all = async {
            for held in self.held.into_iter().filter(|held| held.is_bridged) {
                held.task.await;
            }
        };
        timeout(SETTLE, all).await;
    }
}

/// Forwards a channel to its bridge, and reports the progress.
async fn forward(bridge: &Bridge, channel: &Channel, peer: &str, sink: &Sink) {
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
    let report = |progress: &Progress| {
        *lock(&last) = progress.clone();
        sink(&event(progress, false));
    };
    let forwarded = bridge.forward(channel, peer, &report).await;
    sink(&event(&lock(&last), true));
    if let Err(why) = forwarded {
        sink(&Event::Warning { text: format!("channel '{label}' with {peer}: {why}") });
    }
}

/// Reports the texts of a channel, as fast as a person or a program that types would send them.
async fn report_texts(channel: Channel, peer: String, label: String, sink: Sink) {
    let mut bucket = Bucket::new(TEXTS.0, TEXTS.1);
    while let Some(message) = channel.receive().await {
        let Message::Text(text) = message else { continue };
        if !bucket.take(Instant::now()) {
            tracing::debug!("a message of a flood is dropped");
        } else if text.is_empty() || text.len() > MAX_TEXT {
            tracing::warn!("a message that is too long or empty is dropped");
        } else {
            sink(&Event::Message { peer: peer.clone(), channel: label.clone(), text });
        }
    }
}

impl Endpoint {
    /// Returns whether the work is done once for each peer: a file is sent once.
    pub(in crate::app) fn is_once(&self) -> bool {
        match self {
            Self::Send(_) => true,
            Self::Stdio | Self::Save(_) | Self::Tcp(_) | Self::Listen(_) => false,
        }
    }
}
