//! A data channel: messages out, as fast as the network accepts them, and messages in, with a bound on their size in
//! memory.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gst::glib;
use gst::prelude::*;
use gst_webrtc::{WebRTCDataChannel, WebRTCDataChannelState as ChannelState};
use smol::channel::{Receiver, Sender, bounded, unbounded};
use smol::future::or;

use crate::base::lock::lock;
use crate::base::timeout::timeout;
use crate::media::gst::elements;

/// Maximum size of the messages that wait to be read, in bytes, with [`MESSAGE_COST`] added for each message.
const MAX_WAITING: usize = 32 * 1024 * 1024;
const MESSAGE_COST: usize = 64;
/// Senders wait while more than `HIGH` bytes are queued, until at most `LOW` bytes are.
const HIGH: u64 = 1024 * 1024;
const LOW: u64 = 256 * 1024;
/// Maximum time for the peer to receive all that is queued when a channel ends.
const DELIVERY: Duration = Duration::from_secs(10);
/// Time that a connection must outlast a channel: a connection that ends closes its channels in the same way as a
/// channel that ends, even if messages are still queued.
const STANDS: Duration = Duration::from_millis(500);
/// Interval of the checks whether all is sent.
const INTERVAL: Duration = Duration::from_millis(20);

/// Message of a data channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// UTF-8 text.
    Text(String),
    /// Binary data.
    Binary(Vec<u8>),
}

impl Message {
    /// Returns the bytes of the message.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    fn cost(&self) -> usize {
        self.as_bytes().len() + MESSAGE_COST
    }
}

/// State of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Messages may be sent once webrtcbin reports the channel as open.
    Running,
    /// Our side sends nothing more; the channel is closed when the peer has all.
    Finishing,
    /// Nothing is sent or received any more.
    Closed {
        /// Whether the peer or both sides closed the channel; false if the channel was lost with its connection.
        in_order: bool,
    },
}

/// Part of a channel that webrtcbin's callbacks share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    arriving: Sender<Message>,
    /// Cost of the messages that wait to be read, in bytes.
    waiting: AtomicUsize,
    /// Closed when the channel is.
    closing: Sender<()>,
}

impl Shared {
    fn close(&self, in_order: bool) {
        *lock(&self.state) = State::Closed { in_order };
        self.arriving.close();
        self.closing.close();
    }

    fn is_closed(&self) -> bool {
        matches!(*lock(&self.state), State::Closed { .. })
    }

    /// Queues a message of the peer. webrtcbin cannot slow the peer down: beyond [`MAX_WAITING`] the channel is closed.
    fn accept(&self, channel: &WebRTCDataChannel, message: Message) {
        let cost = message.cost();
        if self.waiting.fetch_add(cost, Ordering::Relaxed) + cost > MAX_WAITING {
            tracing::warn!(
                "a data channel is closed: more than {MAX_WAITING} bytes of messages wait to be read"
            );
            self.arriving.close();
            channel.close();
        } else {
            let _ = self.arriving.try_send(message);
        }
    }
}

/// A data channel with a peer. Clones are the same channel.
#[derive(Debug, Clone)]
pub struct Channel {
    inner: WebRTCDataChannel,
    webrtc: glib::WeakRef<gst::Element>,
    shared: Arc<Shared>,
    inbox: Receiver<Message>,
    closed: Receiver<()>,
    /// Gets a value when no more than [`LOW`] bytes are queued to be sent.
    low: Receiver<()>,
    /// Closed when the connection is over.
    over: Receiver<()>,
}

impl Channel {
    pub(crate) fn new(webrtc: &gst::Element, inner: WebRTCDataChannel, over: Receiver<()>) -> Self {
        let (arriving, inbox) = unbounded();
        let (closing, closed) = bounded(1);
        let (is_low, low) = bounded(1);
        let (state, waiting) = (Mutex::new(State::Running), AtomicUsize::new(0));
        let shared = Arc::new(Shared { state, arriving, waiting, closing });
        let of = shared.clone();
        inner.connect_on_message_string(move |channel, text| {
            of.accept(channel, Message::Text(text.unwrap_or_default().to_owned()));
        });
        let of = shared.clone();
        inner.connect_on_message_data(move |channel, bytes| {
            of.accept(channel, Message::Binary(bytes.map(|bytes| bytes.to_vec()).unwrap_or_default()));
        });
        inner.set_buffered_amount_low_threshold(LOW);
        inner.connect_on_buffered_amount_low(move |_| {
            let _ = is_low.try_send(());
        });
        let of = shared.clone();
        inner.connect_on_close(move |_| of.close(true));
        Self { inner, webrtc: webrtc.downgrade(), shared, inbox, closed, low, over }
    }

    /// Returns whether this is webrtcbin's channel `inner`.
    pub(crate) fn is(&self, inner: &WebRTCDataChannel) -> bool {
        self.inner == *inner
    }

    /// Returns the channel's label.
    pub fn label(&self) -> String {
        self.inner.label().map(|label| label.to_string()).unwrap_or_default()
    }

    /// Returns whether messages can be sent.
    pub fn is_open(&self) -> bool {
        self.inner.ready_state() == ChannelState::Open && *lock(&self.shared.state) == State::Running
    }

    /// Queues a message without regard to the number of waiting ones; returns false if the channel is not open.
    pub fn try_send(&self, message: &Message) -> bool {
        self.is_open()
            && match message {
                Message::Text(text) => self.inner.send_string_full(Some(text)).is_ok(),
                Message::Binary(bytes) => self.inner.send_data_full(Some(&glib::Bytes::from(bytes))).is_ok(),
            }
    }

    /// Queues a message once at most 1 MiB waits; returns false if the channel is not open.
    pub async fn send(&self, message: &Message) -> bool {
        while self.inner.buffered_amount() > HIGH && self.is_open() {
            or(
                async {
                    let _ = self.low.recv().await;
                },
                self.wait_for_end(),
            )
            .await;
        }
        self.try_send(message)
    }

    /// Returns the next message; `None` when the channel is closed and all messages are read.
    pub async fn receive(&self) -> Option<Message> {
        let message = self.inbox.recv().await.ok()?;
        self.shared.waiting.fetch_sub(message.cost(), Ordering::Relaxed);
        Some(message)
    }

    /// Returns when the channel is closed.
    pub async fn wait_for_end(&self) {
        let _ = self.closed.recv().await;
    }

    /// Returns whether the channel was closed by a peer rather than lost with its connection. Takes up to 500 ms.
    pub async fn ended_in_order(&self) -> bool {
        self.is_in_order() && timeout(STANDS, self.over.recv()).await.is_none()
    }

    /// Sends all queued messages and closes the channel; returns whether the peer has all messages. The peer's SCTP
    /// confirms that by closing the other direction after the last message (RFC 6525, 5.2.2).
    pub async fn finish(&self) -> bool {
        let delivered = async {
            {
                let mut state = lock(&self.shared.state);
                if *state == State::Running {
                    *state = State::Finishing;
                }
            }
            while self.inner.buffered_amount() > 0 && !self.shared.is_closed() {
                smol::Timer::after(INTERVAL).await;
            }
            self.settle().await;
            self.inner.close();
            self.wait_for_end().await;
            self.is_in_order()
        };
        timeout(DELIVERY, delivered).await.unwrap_or_else(|| {
            // webrtcbin (1.22) sometimes closes a channel without telling the peer. Our direction is done, and nothing
            // waits longer; whether the peer has all messages is not known.
            self.shared.close(self.inner.buffered_amount() == 0);
            false
        })
    }

    /// Waits until SCTP has the last message. webrtcbin counts a message as sent when it starts to pass it on, which
    /// may block, and closing the channel removes the pad that it is passed over.
    async fn settle(&self) {
        // Between the count and the start lies a moment in which the pad is idle, so that it is checked twice.
        for _ in 0..2 {
            smol::Timer::after(INTERVAL).await;
            let Some(pad) = self.webrtc.upgrade().and_then(|webrtc| pad_to_sctp(&webrtc, self.inner.id()))
            else {
                return;
            };
            let (idle, is_idle) = bounded(1);
            pad.add_probe(gst::PadProbeType::IDLE, move |_, _| {
                let _ = idle.try_send(());
                gst::PadProbeReturn::Remove
            });
            or(async { is_idle.recv().await.unwrap_or_default() }, self.wait_for_end()).await;
        }
    }

    fn is_in_order(&self) -> bool {
        *lock(&self.shared.state) == State::Closed { in_order: true }
    }

    /// Closes the channel because its connection is over.
    pub(crate) fn end(&self) {
        if !self.shared.is_closed() {
            self.shared.close(false);
        }
    }
}

/// Returns the pad over which the messages of a channel reach SCTP.
fn pad_to_sctp(webrtc: &gst::Element, id: i32) -> Option<gst::Pad> {
    let mut encoders = elements::all_of(webrtc, "sctpenc").into_iter();
    encoders.find_map(|encoder| encoder.static_pad(&format!("sink_{id}")))?.peer()
}
