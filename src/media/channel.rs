//! Data channels: texts that are passed on, with bounds on their number, size and rate.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use gst_webrtc::WebRTCDataChannel;
use smol::channel::Sender as EventSender;

use super::peer::{MAX_CHAT, PeerEvent, State, lock, report_of_peer};
use crate::session::limit::Bucket;

/// The most data channels of a peer.
const MAX_CHANNELS: usize = 16;
/// The messages taken over a channel: so many at once, and so many a second in the long run.
const MESSAGES: (u32, u32) = (200, 50);

/// Takes a data channel in and passes its texts on.
pub(super) fn adopt(state: &Arc<Mutex<State>>, events: &EventSender<PeerEvent>, channel: WebRTCDataChannel) {
    if lock(state).channels.len() >= MAX_CHANNELS {
        channel.close();
        return;
    }
    let (messages, of) = (events.clone(), Arc::downgrade(state));
    let bucket = Mutex::new(Bucket::new(MESSAGES.0, MESSAGES.1));
    channel.connect_on_message_string(move |channel, text| {
        let Some(state) = of.upgrade() else { return };
        if !bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now()) {
            tracing::debug!("a message of a flood is dropped");
            return;
        }
        let channel = channel.label().map(|label| label.to_string()).unwrap_or_default();
        match text {
            Some(text) if text.len() <= MAX_CHAT => {
                let text = text.to_owned();
                report_of_peer(&state, &messages, PeerEvent::Message { channel, text });
            }
            _ => tracing::warn!("a message that is too long or empty is dropped"),
        }
    });
    // A channel of the peer may be open by now or open in a moment: whichever is seen first tells.
    let (opened, told) = (events.clone(), std::sync::atomic::AtomicBool::new(false));
    let of = Arc::downgrade(state);
    let on_open = Arc::new(move |channel: &WebRTCDataChannel| {
        if let (false, Some(state)) = (told.swap(true, std::sync::atomic::Ordering::Relaxed), of.upgrade()) {
            let label = channel.label().map(|label| label.to_string()).unwrap_or_default();
            report_of_peer(&state, &opened, PeerEvent::ChannelOpen(label));
        }
    });
    let later = on_open.clone();
    channel.connect_on_open(move |channel| later(channel));
    if channel.ready_state() == gst_webrtc::WebRTCDataChannelState::Open {
        on_open(&channel);
    }
    lock(state).channels.push(channel);
}
