//! Data channels that a connection opens, or accepts from its peer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use gst::glib;
use gst::prelude::*;
use gst_webrtc::{WebRTCDataChannel, WebRTCDataChannelState as ChannelState};
use smol::channel::Sender;

use super::data_channel::{Channel, ChannelConfig};
use super::events::PeerEvent;
use super::state::{State, report_of_peer};
use crate::base::lock::lock;
use crate::media::gst::error::MediaError;

/// Returns the options that webrtcbin's `create-data-channel` expects for a channel.
fn structure(config: &ChannelConfig) -> gst::Structure {
    let structure = gst::Structure::builder("config").field("ordered", config.ordered);
    match config.retransmits {
        Some(times) => structure.field("max-retransmits", i32::from(times)).build(),
        None => structure.build(),
    }
}

/// Opens a channel. Before the first offer the channel becomes part of that offer; the first channel after it needs a
/// new offer.
pub(super) fn open(
    webrtc: &gst::Element,
    state: &Arc<Mutex<State>>,
    events: &Sender<PeerEvent>,
    config: &ChannelConfig,
) -> Result<(), MediaError> {
    let args: [&dyn glib::value::ToValue; 2] = [&config.label, &structure(config)];
    let made = webrtc.emit_by_name::<Option<WebRTCDataChannel>>("create-data-channel", &args);
    let made = made.ok_or_else(|| MediaError::NoChannel(config.label.clone()))?;
    adopt(webrtc, state, events, made);
    Ok(())
}

/// Accepts a data channel, and reports when messages can be sent.
pub(super) fn adopt(
    webrtc: &gst::Element,
    state: &Arc<Mutex<State>>,
    events: &Sender<PeerEvent>,
    inner: WebRTCDataChannel,
) {
    if !lock(state).has_room() {
        inner.close();
        return;
    }
    let over = lock(state).over.1.clone();
    let channel = Channel::new(webrtc, inner.clone(), over);
    // A channel of the peer may open before or after the handler is installed; the flag makes either report the only
    // one.
    let (opened, is_reported) = (events.clone(), AtomicBool::new(false));
    let of = Arc::downgrade(state);
    let on_open = Arc::new(move |inner: &WebRTCDataChannel| {
        if let (false, Some(state)) = (is_reported.swap(true, Ordering::Relaxed), of.upgrade()) {
            let channels = lock(&state).channels.clone();
            if let Some(channel) = channels.into_iter().find(|channel| channel.is(inner)) {
                report_of_peer(&state, &opened, PeerEvent::Channel(channel));
            }
        }
    });
    lock(state).add_channel(channel);
    let later = on_open.clone();
    inner.connect_on_open(move |inner| later(inner));
    if inner.ready_state() == ChannelState::Open {
        on_open(&inner);
    }
    let of = Arc::downgrade(state);
    inner.connect_on_close(move |inner| {
        if let Some(state) = of.upgrade() {
            lock(&state).channels.retain(|channel| !channel.is(inner));
        }
    });
}
